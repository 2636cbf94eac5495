"""Judge findings on generated logs, a month for each seed and strength, and write the table.

    python bench/generated_findings.py --dir /some/folder --seeds 20 --first-seed 7001 --out bench/FINDINGS.md

As ``trailsift evaluate``, in pieces: the folder keeps the result of each seed and commit, so a run that was broken off
goes on, and several may run beside each other (``--part 0/2``).
"""

from __future__ import annotations

import argparse
import pickle
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from page import commit_of_code, say, state_of_code
from real_page import put_sections
from trailsift.detect.evaluation import EvaluationResult
from trailsift.detect.experiment import ABLATIONS, ExperimentConfig, ExperimentReport, judge_seed
from trailsift.generate import STRENGTHS

HEADING = "Generated logs"
#: Stands for months without incidents among the strengths.
QUIET = "quiet"
CONFIG = ExperimentConfig(events=120_000, days=30, roles=40)
_ABOUT = """\
Seeds that nothing was tuned on, each a month of 40 roles and 120,000 events with one incident of each kind, for each
strength, and months without incidents. Weak incidents make an eighth of the calls; stealthy ones make few, from known
networks at usual hours. Found: a finding about the incident's role and time, and a call and a resource of it."""


def result_of(seed: int, strength: str, folder: Path) -> dict[str, EvaluationResult]:
    """Return what was found for one seed and strength, from the folder if it has that on this commit."""
    kept = folder / "generated" / commit_of_code() / f"{seed}-{strength}.pickle"
    if not kept.exists():
        result = judge_seed(seed, CONFIG, None if strength == QUIET else strength)
        kept.parent.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(".half")
        half.write_bytes(pickle.dumps(result))
        half.rename(kept)
        say(f"seed {seed}, {strength}")
    content: dict[str, EvaluationResult] = pickle.loads(kept.read_bytes())  # noqa: S301
    return content


def table(report: ExperimentReport, strengths: Sequence[str]) -> str:
    """Return the section: all levels, one left out, each kind of incident, and months without incidents."""
    columns = [f"{name}: {what}" for name in strengths for what in ("found", "first 10 of its day", "false per day")]
    lines = [_ABOUT, "", f"{state_of_code()}.", "", _row("levels", *columns), _rule(1 + len(columns))]
    for ablation in ABLATIONS:
        cells: list[str] = []
        for name in strengths:
            found, on_top = report.found(name, ablation), report.on_top(name, ablation)
            cells += [f"{found:.1%}", f"{on_top:.1%}", f"{report.false(name, ablation):.2f}"]
        lines.append(_row("all" if ablation == "all" else f"without {ablation}", *cells))
    lines += ["", _row("incident", *strengths), _rule(1 + len(strengths))]
    for kind in dict.fromkeys(outcome.kind for name in strengths for outcome in report.outcomes(name)):
        planted = [report.outcomes(name, kind=kind) for name in strengths]
        lines.append(_row(kind, *(f"{sum(o.found for o in some)} of {len(some)}" if some else "" for some in planted)))
    seeds = ", ".join(f"{len(report.results[name, 'all'])} of strength {name}" for name in strengths)
    quiet = [result.false_per_day for result in report.quiet]
    lines += ["", f"Months: {seeds}, {len(quiet)} without incidents."]
    if quiet:
        lines[-1] += f" These have {mean(quiet):.2f} findings a day ({max(quiet):.2f} at most)."
    return "\n".join(lines)


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _rule(columns: int) -> str:
    return "|" + "---|" * columns


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dir", type=Path, help="folder that keeps results; created if missing")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first-seed", type=int, default=7001)
    parser.add_argument("--strengths", nargs="*", choices=[*STRENGTHS, QUIET], default=[*STRENGTHS, QUIET])
    parser.add_argument("--part", default="0/1", help="e.g. 1/2: every second seed, from the second on; no page")
    parser.add_argument("--out", type=Path, help="page whose section is replaced")
    options = parser.parse_args(arguments)
    folder = options.dir or Path(tempfile.mkdtemp(prefix="trailsift-generated-"))
    first, _, every = options.part.partition("/")
    seeds = range(options.first_seed, options.first_seed + options.seeds)[int(first) :: int(every)]
    report = ExperimentReport(CONFIG, len(seeds))
    strengths = [name for name in options.strengths if name != QUIET]
    for name in options.strengths:
        for seed in seeds:
            result = result_of(seed, name, folder)
            if name == QUIET:
                report.quiet.append(result["all"])
                continue
            for ablation in ABLATIONS:
                report.results[name, ablation].append(result[ablation])
    section = table(report, strengths)
    print(section)
    if options.out and options.part == "0/1":
        put_sections(options.out, {HEADING: section})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
