"""Disturb commands at random moments, run them again, and check that nothing was lost, doubled or half seen.

    python bench/torture.py --faults 1000 --seed 1 --out bench/TORTURE.md
    python bench/torture.py --seed 1 --only 137 --keep folder

Every choice of a round comes from the seed and the round's number, so `--only` repeats a round as far as the timing of
processes allows. Commands run in forked processes with small batches, so that a lake of three thousand events has many
commits. After each fault the same command runs to its end, what is missing is ingested, and everything is compared with
a truth that Python's own ``json`` read from the logs. A reader asks all the time. A round that fails prints its seed,
and its folder is kept.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import os
import pkgutil
import random
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

# Before numpy and pyarrow are imported: with a single thread, commands can be forked.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from faults.kinds import KINDS
from faults.slot import Round, Slot
from faults.world import make_logs
from page import state_of_code
from trailsift.runtime import spare_memory, without_pandas

#: A file system in memory, on Linux: its flushes cost nothing.
MEMORY = Path("/dev/shm")  # noqa: S108
#: Distinct generated events.
EVENTS = 1_200
#: The folder of real logs, as in the tests.
REAL_LOGS = "TRAILSIFT_REAL_LOGS"
#: What no command here needs; some of it starts threads when it is imported.
_APART = ("trailsift.aws", "trailsift.deploy", "trailsift.benchmark", "trailsift.demo")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the rounds; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=1_000, help="faults at least")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run only the round of this number")
    parser.add_argument("--kind", help="run only kinds whose names hold this text")
    parser.add_argument("--minutes", type=float, help="begin no round after this time, whatever --faults says")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 4), help="rounds at once")
    parser.add_argument("--dir", type=Path, help="folder to work in; by default one in memory, if there is one")
    parser.add_argument("--keep", type=Path, help="folder in which failing rounds are kept")
    parser.add_argument("--out", type=Path, help="the page to write; standard output by default")
    options = parser.parse_args(argv)
    keep = options.keep or Path(tempfile.gettempdir()) / f"trailsift-torture-{options.seed}"
    base = options.dir or (MEMORY if os.access(MEMORY, os.W_OK) else None)
    say(f"seed {options.seed}; failing rounds are kept in {keep}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    import_everything()
    started = time.monotonic()
    # Not a TemporaryDirectory: it would be removed by each forked command that ends with its exit handlers.
    work = Path(tempfile.mkdtemp(prefix="trailsift-torture-", dir=base))
    try:
        os.environ["XDG_CACHE_HOME"] = str(work / "cache")
        real = Path(os.environ.get(REAL_LOGS) or Path(__file__).resolve().parents[2] / "shared" / "data" / "real")
        has_real = make_logs(work / "logs", real if real.is_dir() else None, EVENTS, options.seed)
        if not has_real:
            say(f"SKIPPED real logs: set {REAL_LOGS} to a folder that has them")
        rounds = list(_run_jobs(work, options, keep))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    rounds.sort(key=lambda done: done.number)
    minutes = (time.monotonic() - started) / 60
    text = page(rounds, options, minutes, has_real=has_real)
    if options.out:
        options.out.write_text(text, "utf-8")
        say(f"wrote {options.out}")
    else:
        sys.stdout.write(text)
    wrong = [done for done in rounds if done.problems]
    say(f"{sum(done.faults for done in rounds)} faults in {len(rounds)} rounds, {len(wrong)} with violations")
    if options.only is None and not rounds:
        say("no round was run: that shows nothing")
        return 1
    return int(bool(wrong))


def import_everything() -> None:
    """Import all of trailsift, so that forked commands need not; the process must keep a single thread."""
    spare_memory()
    with without_pandas():
        import trailsift

        for name in _modules(trailsift.__path__, "trailsift."):
            importlib.import_module(name)
        for name in ("pyarrow.parquet", "pyarrow.compute", "pyiceberg.table", "zoneinfo"):
            importlib.import_module(name)
    gc.freeze()
    assert len(os.listdir("/proc/self/task")) == 1, "an import started a thread: commands cannot be forked"  # noqa: PTH208


def _modules(paths: Iterable[str], prefix: str) -> Iterator[str]:
    """Yield the modules of a package, without importing those that are set apart."""
    for module in pkgutil.iter_modules(paths, prefix):
        if not module.name.startswith(_APART) and not module.name.endswith("__main__"):
            yield module.name
            if module.ispkg:
                yield from _modules(importlib.import_module(module.name).__path__, f"{module.name}.")


# -- rounds ----------------------------------------------------------------------------------------------------------


def plan(seed: int) -> Iterator[tuple[str, int]]:
    """Yield the kind of each round, without end: every kind once, then each as often as its share."""
    draw = random.Random(f"plan {seed}")
    names = [name for name, _, _ in KINDS]
    draw.shuffle(names)
    yield from ((name, number) for number, name in enumerate(names))
    number = len(names)
    while True:
        hundred = [name for name, _, share in KINDS for _ in range(share)]
        draw.shuffle(hundred)
        for name in hundred:
            yield name, number
            number += 1


def _run_jobs(work: Path, options: argparse.Namespace, keep: Path) -> Iterator[Round]:
    """Run the rounds in several processes, and yield each."""
    jobs = 1 if options.only is not None else options.jobs
    wanted = -(-options.faults // jobs)
    readers: list[tuple[int, int]] = []
    for job in range(jobs):
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.close(reading)
                with os.fdopen(writing, "w", encoding="utf-8") as out:
                    for done in _job(work / f"job{job}", work / "logs", options, keep, job, jobs, wanted):
                        out.write(done.as_json() + "\n")
                        out.flush()
                code = 0
            except KeyboardInterrupt:
                pass
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(writing)
        readers.append((pid, reading))
    count = 0
    buffers = {reading: b"" for _, reading in readers}
    while buffers:
        for reading in select.select(list(buffers), [], [])[0]:
            data = os.read(reading, 1 << 16)
            if not data:
                del buffers[reading]
                continue
            *lines, buffers[reading] = (buffers[reading] + data).split(b"\n")
            for line in lines:
                result = Round.of_json(line.decode())
                count += result.faults
                if count % 20 < result.faults:
                    say(f"{count} of {options.faults} faults")
                yield result
    if any(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in readers):
        raise SystemExit("bench: a job ended with an error, see above")


def _job(
    folder: Path, logs: Path, options: argparse.Namespace, keep: Path, job: int, jobs: int, wanted: int
) -> Iterator[Round]:
    """Run this job's share of the rounds in a slot of its own."""
    folder.mkdir()
    slot = Slot(folder, logs)
    if job == 0 and slot.disk is None:
        say("SKIPPED full disks: mounting is not allowed here; the length of files is limited instead")
    if job == 0 and not slot.can_verify:
        say("SKIPPED verify: there is no such command yet; damage is counted, not judged")
    slot.set_up()
    kinds = {name: kind for name, kind, _ in KINDS}
    faults = 0
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    for name, number in plan(options.seed):
        if options.only is not None and number > options.only:
            return
        if (options.only is not None and number != options.only) or number % jobs != job:
            continue
        if options.kind and options.kind not in name:
            continue
        if faults >= wanted or time.monotonic() >= end:
            return
        slot.round = Round(number, name)
        started = time.monotonic()
        try:
            kinds[name](slot, random.Random(f"{options.seed} {number}"))
        except Exception:
            # The harness met what it does not expect: that is a violation, too.
            slot.wrong(f"the round failed: {traceback.format_exc()}")
        slot.stop_watching(compare=False)
        slot.round.seconds = round(time.monotonic() - started, 2)
        faults += slot.round.faults
        if slot.round.problems:
            _keep(slot, options.seed, keep)
        for path in (folder / "output").glob("*"):
            path.unlink()
        yield slot.round


def _keep(slot: Slot, seed: int, keep: Path) -> None:
    """Keep the folder of a failing round, and say how to run it again."""
    done = slot.round
    target = keep / f"round-{done.number}"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in (slot.home.parent, slot.folder / "output", slot.logs):
        shutil.copytree(path, target / path.name, symlinks=True)
    (target / "round.json").write_text(done.as_json(), "utf-8")
    say(f"round {done.number} ({done.kind}; {done.task}; {done.fault}): {'; '.join(done.problems)[:1500]}")
    say(f"  kept in {target}; again: make torture TORTURE='--seed {seed} --only {done.number}'")


# -- the page --------------------------------------------------------------------------------------------------------


def page(rounds: Sequence[Round], options: argparse.Namespace, minutes: float, *, has_real: bool) -> str:
    """Return the Markdown page."""
    wrong = [done for done in rounds if done.problems]
    looks, commits = sum(done.looks for done in rounds), sum(done.commits_seen for done in rounds)
    lines = [
        "# Disturbed and run again",
        "",
        f"Written by `make torture` (`bench/torture.py --faults {options.faults} --seed {options.seed}`) on"
        f" {state_of_code()}, in {minutes:.0f} minutes, {options.jobs} rounds at once.",
        "",
        f"Each round puts a small lake in place, disturbs a command, runs the same command to its end, ingests what is"
        f" missing, and checks the lake. The logs are {EVENTS:,} generated events, most of them delivered twice, log"
        f" objects made by hand (broken records, archives, one id with two contents)"
        f"{' and a slice of real ones' if has_real else ''}, cut into many small commits."
        " What must hold afterwards: every record exported exactly once and equal to what Python's `json` reads in the"
        " logs; `hourly` equal to the events by hour and name; all rows of `events` and of each summary table"
        " those of an undisturbed lake; counts that add up in each commit and in all; Iceberg and the index naming the"
        " same files; nothing left behind that the next writer does not remove; no traceback, no unexpected error, no"
        " process that stays, no command that hangs; documented exit codes; `verify` content.",
        "",
        f"**{sum(done.faults for done in rounds):,} faults in {len(rounds):,} rounds, {len(wrong)} rounds with a"
        " violation.** A reader asked all the time:"
        f" {looks:,} answers, {commits:,} different commits, each of them whole.",
        "",
        "| fault | faults | what became of the commands | violations |",
        "|---|---:|---|---:|",
    ]
    for name, _, _ in KINDS:
        those = [done for done in rounds if done.kind == name]
        seen: Counter[str] = Counter()
        for done in those:
            seen.update(done.seen)
        text = ", ".join(f"{number} {what}" for what, number in sorted(seen.items(), key=lambda item: -item[1]))
        lines.append(
            f"| {name} | {sum(done.faults for done in those)} | {text} | {sum(bool(done.problems) for done in those)} |"
        )
    phases: Counter[str] = Counter()
    tasks: Counter[str] = Counter()
    for done in rounds:
        phases.update(done.phases)
        tasks[done.task] += done.faults
    lines += [
        "",
        "Commands that were disturbed: " + ", ".join(f"{name} {number}" for name, number in tasks.most_common()) + ".",
        "",
        "Killed while: " + ", ".join(f"{name} {number}" for name, number in phases.most_common()) + ".",
        "",
        "Faults inside a process come from an audit hook that counts file operations; what a C library does by itself"
        " (Parquet, SQLite) meets full disks, limits and kills by the clock, not those. The clock is Python's:"
        " `time.time` and `datetime.now` are shifted, the times of files are not. Nothing here cuts the power: what a"
        " disk keeps of data that was not flushed is not tested.",
    ]
    for done in wrong:
        text = " ".join("; ".join(done.problems).split())[:700]
        lines += ["", f"Round {done.number}, {done.kind} ({done.task}; {done.fault}): {text}"]
    return "\n".join(lines) + "\n"


def say(text: str) -> None:
    """Report progress on standard error."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
