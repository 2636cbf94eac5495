"""Judge findings on logs that nobody here made, and on attacks moved into other lakes; write the tables.

    python bench/real_findings.py --dir /some/folder --out bench/FINDINGS.md
    python bench/real_findings.py --dir /some/folder --only stratus lab-evasion --show

Real sets lie in the folder that TRAILSIFT_REAL_LOGS names (its detect/README.md has what is right). ``--dir`` keeps
ingested sets and generated backgrounds for another run; delete it after a change of what a lake holds. It also keeps
the outcome of each lake and commit, so a run that was broken off goes on where it was, and ``--part 0/4`` makes the
first, fifth, ninth lake and so on, for several processes or evenings; a last run without it writes the page. ``--show``
prints every finding with its rank, and of semi-real lakes the misses and the false findings: for a person to judge,
never for the page.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from page import commit_of_code, say
from real_attacks import INVENTED_KINDS, KINDS
from real_judge import SetResult, judge_set
from real_lakes import Draw, Outcome, draws, examine, prepare
from real_page import lakes_table, put_sections, sets_table
from real_sets import RealSet, folder_of_sets, real_sets, records_of
from trailsift.ingest import ingest

FEWEST = 100  # records of a set that is worth a line


def ingested(chosen: RealSet, folder: Path) -> Path:
    """Return the lake of a real set, and make it first if it is missing."""
    lake = folder / "sets" / chosen.name
    if not (lake / "lake.json").exists():
        shutil.rmtree(lake, ignore_errors=True)
        lake.parent.mkdir(parents=True, exist_ok=True)
        ingest([str(chosen.path)], lake)
    return lake


def judge_in_process(chosen: RealSet, folder: Path) -> SetResult:
    """Ingest and judge one real set."""
    os.environ["XDG_CACHE_HOME"] = str(folder / f"work-{os.getpid()}" / "cache")
    return judge_set(chosen, ingested(chosen, folder))


def examine_in_process(draw: Draw, folder: Path, real: Path) -> Outcome:
    """Make and judge one semi-real lake, unless the folder has its outcome on this commit."""
    kept = folder / "outcomes" / commit_of_code() / f"{draw.seed}-{draw.kind.name.replace(' ', '_')}.pickle"
    if kept.exists():
        outcome: Outcome = pickle.loads(kept.read_bytes())  # noqa: S301
        if outcome.draw == draw:
            return outcome
    outcome = examine(draw, folder, real, folder / f"work-{os.getpid()}")
    kept.parent.mkdir(parents=True, exist_ok=True)
    # Renamed into place: a broken-off run leaves no half of it.
    half = kept.with_suffix(f".{os.getpid()}")
    half.write_bytes(pickle.dumps(outcome))
    half.rename(kept)
    return outcome


def part_of(text: str) -> slice:
    """Return which lakes "1/4" stands for: every fourth from the second on."""
    first, _, every = text.partition("/")
    return slice(int(first), None, int(every))


def show_set(result: SetResult) -> None:
    """Print the findings of a real set."""
    print(f"\n== {result.set.name}: {result.content.events} events, {result.content.days} days")
    for rank, finding in enumerate(result.findings["all"], 1):
        false = "  " if finding not in result.false["all"] else "- "
        print(f"{false}{rank:3} {finding.severity:6} {finding.score:.2f} {finding.title}")
        for reason in finding.reasons:
            print(f"            {reason}")
    for label, place in result.ranks["all"].items():
        print(f"   {'missed' if place is None else place}: {label}")


def show_lake(outcome: Outcome) -> None:
    """Print what is wrong about a semi-real lake."""
    draw = outcome.draw
    rank = outcome.ranks["all"]
    days = draw.days or "all"
    what = f"{draw.kind.name} | {draw.background}, {days} days, {draw.victim}, {draw.hour}, {draw.size}"
    print(f"{'MISSED' if rank is None else f'rank {rank}'}: {what} ({outcome.records} records, seed {draw.seed})")
    if outcome.hit is not None:
        print(f"    found  {outcome.hit.severity} {outcome.hit.title}")
    for finding in outcome.false["all"]:
        print(f"    false  {finding.severity} {finding.title}")


def write(page: Path | None, sections: dict[str, str]) -> None:
    """Write the sections that are ready to the page, if one is wanted."""
    if page is not None:
        put_sections(page, sections)
        say(f"wrote {page}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the tables; return 1 where there are no real logs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="folder of lakes and backgrounds, created if missing, and kept")
    parser.add_argument("--out", type=Path, help="page whose sections are replaced")
    parser.add_argument("--only", nargs="*", help="names of sets; semi-real lakes are left out")
    parser.add_argument("--draws", type=int, default=100, help="lakes with genuine attacks; 0: none")
    parser.add_argument("--invented", type=int, default=42, help="the same with invented attacks; 0: none")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", type=part_of, help="e.g. 0/4: only some of the lakes, no sets, and no page")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--show", action="store_true", help="print the findings")
    options = parser.parse_args(arguments)
    real = folder_of_sets()
    if not (real / "detect").is_dir():
        say(f"no real logs at {real}: set TRAILSIFT_REAL_LOGS to a folder that has them")
        return 1
    folder = options.dir or Path(tempfile.mkdtemp(prefix="trailsift-real-"))
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.perf_counter()
    try:
        with ProcessPoolExecutor(options.processes) as pool:
            sections = {}
            if options.part is None:
                chosen = [one for one in real_sets(real) if options.only is None or one.name in options.only]
                chosen = [one for one in chosen if one.labels or one.benign or len(records_of(one.path)) >= FEWEST]
                results = []
                for running in [pool.submit(judge_in_process, one, folder) for one in chosen]:
                    results.append(running.result())
                    if options.show:
                        show_set(results[-1])
                sections = {"Real logs": sets_table(results)}
                print(sections["Real logs"], flush=True)
                write(options.out, sections)
            for heading, kinds, count in (
                ("Genuine attacks in other lakes", KINDS, options.draws),
                ("Invented attacks in other lakes", INVENTED_KINDS, options.invented),
            ):
                if options.only is not None or not count:
                    continue
                prepare(folder)
                outcomes = []
                wanted = draws(count, options.seed, kinds)[options.part or slice(None)]
                for running_lake in [pool.submit(examine_in_process, draw, folder, real) for draw in wanted]:
                    outcomes.append(running_lake.result())
                    if options.show:
                        show_lake(outcomes[-1])
                        sys.stdout.flush()
                sections[heading] = lakes_table(outcomes)
                print(sections[heading], flush=True)
                write(options.out if options.part is None else None, sections)
    finally:
        for work in folder.glob("work-*"):
            shutil.rmtree(work, ignore_errors=True)
        if options.dir is None:
            shutil.rmtree(folder, ignore_errors=True)
    say(f"{time.perf_counter() - begun:.0f} seconds")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
