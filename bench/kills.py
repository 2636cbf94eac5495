"""Kills an ingest at random moments, runs it again, and compares with a run that nobody killed; a Markdown page.

    python bench/kills.py --kills 100 --seed 1 --out bench/KILLS.md

The whole process group is killed (SIGKILL) at moments spread evenly over the time that an ingest takes, one in five of
them within milliseconds of a commit's transaction, which is too short to be hit by chance. After each kill a reader
looks at the lake first: it must hold the events of exactly those log objects that it lists, and nothing of any other,
and its summaries must say the same. Then the ingest runs again, sometimes to be killed again, and what the lake holds
in the end must equal the clean run's: every row of ``events``, the merged lines of the summaries, the counts.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from trailsift import schema
from trailsift.errors import LakeError
from trailsift.generate import Options, generate
from trailsift.ingest import Sizes, ingest
from trailsift.lake import index, lock, settings, transaction, writer
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

#: Several commits out of few events, each of several chunks.
SIZES = Sizes(chunk_rows=1_200, batch_rows=3_600, task_bytes=20_000, task_objects=40)
WORKERS = 2
SUMMARIES = ("hourly", "usage", "profile")
COUNTED = ("log_objects", "records", "stored", "duplicates", "malformed")
#: What an ingest does, in the order of the table; a commit is several phases.
PHASES = ("making the lake", "decode", "write", "commit: files", "commit: transaction", "after a commit")
#: Of so many kills one is aimed at a transaction, and comes so many seconds after its beginning at most.
AIMED = 5
AIM_WITHIN = 0.008
#: Log objects that a second trail delivers once more under another name.
TWICE = 0.25


@dataclass(frozen=True)
class State:
    """What a lake holds, as digests: equal digests are equal rows."""

    rows: str
    summaries: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Moment:
    """When to kill: seconds after the beginning; or after the beginning of the transaction of that number."""

    seconds: float
    transaction: int | None = None


@dataclass
class Kill:
    """One kill: when, in which phase, what was found, and what came of it."""

    number: int
    seconds: float
    phase: str
    found: str = ""
    whole: bool = True
    rows: bool = True
    summaries: bool = True
    counts: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.whole and self.rows and self.summaries and self.counts


# -- the ingest that is killed ---------------------------------------------------------------------------------------


def run_child(logs: str, root: str) -> None:
    """An ingest that says on standard output which phase begins."""

    def say(phase: str) -> None:
        os.write(1, f"{phase}\n".encode())

    def around(owner: Any, name: str, before: str | None, after: str | None) -> None:
        inner = getattr(owner, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            if before:
                say(before)
            answer = inner(*arguments, **named)
            if after:
                say(after)
            return answer

        setattr(owner, name, outer)

    around(writer.LakeWriter, "_make_index", None, PHASES[1])
    around(writer.LakeWriter, "refresh", PHASES[2], None)
    around(transaction.Transaction, "commit", PHASES[3], PHASES[5])
    around(transaction.Transaction, "_apply", PHASES[4], None)
    around(lock.WriteLock, "release", None, PHASES[1])
    say(PHASES[0])
    counts = ingest([logs], Path(root), workers=WORKERS, sizes=SIZES)
    say(json.dumps(counts.as_dict()))


class Child:
    """A running ingest. The moment counts from when its imports are done."""

    def __init__(self, logs: Path, root: Path) -> None:
        command = [sys.executable, __file__, "--child", str(logs), str(root)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        self.said = [self._process.stdout.readline().strip()]
        self.started = time.monotonic()
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.said.append(line.strip())
                self._news.notify()

    def end(self) -> float:
        """Waits for the end; the seconds that it took."""
        code = self._process.wait()
        seconds = time.monotonic() - self.started
        self._reader.join()
        if code:
            raise SystemExit(f"the ingest ended with exit code {code}, and nobody had killed it")
        return seconds

    def kill(self, moment: Moment) -> bool:
        """Kills all of its processes at a moment; whether it was still running."""
        number = moment.transaction
        if number is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, self.started + moment.seconds - time.monotonic()))
        else:
            with self._news:
                self._news.wait_for(lambda: self.said.count(PHASES[4]) > number or self.said[-1][0] == "{", 60)
            time.sleep(moment.seconds)
        if self._process.poll() is not None or self.said[-1][0] == "{":
            self._process.wait()
            self._reader.join()
            return False
        self.killed = time.monotonic() - self.started
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join()
        return True

    @property
    def phase(self) -> str:
        """What it was at when it ended."""
        return self.said[-1]


# -- what a lake holds -----------------------------------------------------------------------------------------------


def state(root: Path) -> State:
    """Everything that a reader sees, and what the commits counted."""
    with DuckDBEngine(open_snapshot(root)) as engine:
        summaries = {name: _digest(engine, f"SELECT * FROM {name}") for name in SUMMARIES}
        # Of an event that came twice, any of its log objects may be named.
        rows = _digest(engine, "SELECT * EXCLUDE (log_object) FROM events")
    return State(rows, summaries, counted(root))


def _digest(engine: DuckDBEngine, sql: str) -> str:
    rows = sorted(repr(row) for row in engine.sql(sql).rows())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def counted(root: Path) -> dict[str, int]:
    """The sums of what the commits say."""
    with contextlib.closing(index.connect(root)) as db:
        every = [json.loads(counts) for (counts,) in db.execute("SELECT counts FROM commit_log WHERE kind = 'ingest'")]
    return {name: sum(counts.get(name, 0) for counts in every) for name in COUNTED}


def check_whole(root: Path, ids_of: dict[str, frozenset[str]]) -> str | None:
    """What is wrong with a lake that holds whole batches only; None where nothing is."""
    try:
        snapshot = open_snapshot(root)
    except LakeError as error:
        unmade = "never finished" in str(error) or "there is no lake" in str(error)
        return None if unmade else f"cannot be opened: {error}"
    with DuckDBEngine(snapshot) as engine:
        stored = [str(row[0]) for row in engine.sql("SELECT event_id FROM events").rows()]
        sums = {name: engine.sql(f"SELECT sum(events) FROM {name}").value() or 0 for name in ("hourly", "usage")}
    with contextlib.closing(index.connect(root)) as db:
        names = [name for (name,) in db.execute("SELECT name FROM log_object")]
        seen = db.execute("SELECT coalesce(sum(ids), 0) FROM seen_file WHERE removed IS NULL").fetchone()[0]
    want = frozenset[str]().union(*(ids_of[name] for name in names))
    if len(stored) != len(set(stored)):
        return f"{len(stored) - len(set(stored))} events are stored twice"
    if set(stored) != want:
        return f"{len(want - set(stored))} events of listed log objects are missing, {len(set(stored) - want)} strange"
    for name, number in (*sums.items(), ("seen ids", seen), ("counts", counted(root)["stored"])):
        if number != len(stored):
            return f"{len(stored)} events, but {name} says {number}"
    return None


def leftovers(root: Path) -> str:
    """What the dead left behind that no commit names."""
    if not (root / settings.LAKE_FILE).exists():
        return "no lake"
    named: set[str] = set()
    current: set[str] = set()
    if (root / settings.CATALOG_FILE).exists():
        with contextlib.suppress(Exception), contextlib.closing(index.connect(root)) as db:
            for table in schema.TABLES:
                named |= {path for (path,) in db.execute("SELECT path FROM file WHERE table_name = ?", (table,))}
            named |= {path for (path,) in db.execute("SELECT path FROM seen_file")}
            current = {path.removeprefix("file://") for path in index.live_locations(db).values()}
    found: Counter[str] = Counter()
    for table in schema.TABLES:
        found["data files"] += sum(_name(root, path) not in named for path in (root / table).rglob("*.parquet"))
        newest = max((int(Path(p).name.partition("-")[0]) for p in current if f"/{table}/metadata/" in p), default=-1)
        staged = (root / table / "metadata").glob("*.metadata.json")
        found["staged metadata"] += sum(int(path.name.partition("-")[0]) > newest for path in staged)
    found["files of ids"] = sum(_name(root, path) not in named for path in root.glob("seen/*.ids"))
    found["writer's mark"] = int((root / settings.MARKER_FILE).exists())
    return ", ".join(f"{number} {name}" for name, number in found.items() if number) or "nothing"


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


# -- the trial -------------------------------------------------------------------------------------------------------


def trial(work: Path, kills: int, seed: int, events: int) -> tuple[list[Kill], dict[str, Any]]:
    """All kills, and what they were measured on."""
    logs = make_logs(work / "logs", events, seed)
    ids_of = {str(path): _ids(path) for path in sorted(logs.rglob("*.json.gz"))}
    spans = []
    for turn in range(2):
        clean = work / f"clean{turn}"
        spans.append(Child(logs, clean).end())
    want = state(work / "clean0")
    if state(work / "clean1") != want:
        raise SystemExit("two runs that nobody killed differ")
    # What a reader of the whole sees is right in itself: the ids of all log objects, read without our code.
    if check_whole(work / "clean0", ids_of) or want.counts["stored"] != len(frozenset[str]().union(*ids_of.values())):
        raise SystemExit(f"the run that nobody killed is wrong: {check_whole(work / 'clean0', ids_of)}")
    span = median(spans)
    with contextlib.closing(index.connect(work / "clean0")) as db:
        commits = db.execute("SELECT count(*) FROM commit_log WHERE kind = 'ingest'").fetchone()[0]
    _say(f"a clean run takes {span:.1f} s and makes {commits} commits")
    facts = {"span": span, "commits": commits, "objects": len(ids_of), "counts": want.counts}
    made: list[Kill] = []
    draw = random.Random(seed)
    for chain in _chains(draw, kills, span, commits):
        made += _chain(work / "lake", logs, ids_of, want, chain, len(made))
        _say(f"{len(made)} of {kills}: {sum(not kill.good for kill in made)} wrong")
        for kill in made[-len(chain) :]:
            for note in kill.notes:
                _say(f"kill {kill.number} during {kill.phase}: {note}")
    return made, facts


def _chains(draw: random.Random, kills: int, span: float, commits: int) -> Iterator[list[Moment]]:
    """Moments of kills, evenly spread over the span, one to six of them for each lake."""
    aimed = kills // AIMED
    moments = [Moment((number + draw.random()) / (kills - aimed) * span) for number in range(kills - aimed)]
    moments += [Moment(draw.random() * AIM_WITHIN, draw.randrange(commits)) for _ in range(aimed)]
    draw.shuffle(moments)
    while moments:
        size = draw.choice((1, 2, 3, 4, 6))
        yield moments[:size]
        moments = moments[size:]


def _chain(
    root: Path, logs: Path, ids_of: dict[str, frozenset[str]], want: State, moments: list[Moment], number: int
) -> list[Kill]:
    """Kills one lake's ingest at each of the moments, then lets it end and compares."""
    shutil.rmtree(root, ignore_errors=True)
    kills: list[Kill] = []
    for moment in moments:
        while True:
            child = Child(logs, root)
            if child.kill(moment):
                break
            # It was at its end before: once more, from nothing and earlier.
            shutil.rmtree(root, ignore_errors=True)
            moment = Moment(moment.seconds * 0.9, moment.transaction and moment.transaction - 1)
        kill = Kill(number + len(kills) + 1, child.killed, child.phase, leftovers(root))
        wrong = check_whole(root, ids_of)
        if wrong:
            kill.whole = False
            kill.notes.append(wrong)
        kills.append(kill)
    Child(logs, root).end()
    got = state(root)
    last = kills[-1]
    wrong = check_whole(root, ids_of)
    for kill in kills:
        kill.rows = got.rows == want.rows and not wrong
        kill.summaries = got.summaries == want.summaries
        kill.counts = got.counts == want.counts
    if wrong:
        last.notes.append(f"in the end: {wrong}")
    if not last.summaries:
        last.notes.append("other: " + ", ".join(n for n in SUMMARIES if got.summaries[n] != want.summaries[n]))
    if not last.counts:
        last.notes.append(f"counts: {got.counts}, not {want.counts}")
    after = leftovers(root)
    if after != "nothing":
        last.rows = False
        last.notes.append(f"left in the end: {after}")
    return kills


def make_logs(folder: Path, events: int, seed: int) -> Path:
    """Logs in which a part of the log objects comes twice, as of a second trail."""
    generate(folder, Options(events=events, days=2, seed=seed))
    logs = folder / "AWSLogs"
    draw = random.Random(seed)
    for path in sorted(logs.rglob("*.json.gz")):
        if draw.random() < TWICE:
            shutil.copyfile(path, path.with_name(path.name.replace(".json.gz", "Copy.json.gz")))
    return logs


def _ids(path: Path) -> frozenset[str]:
    import gzip

    return frozenset(record["eventID"] for record in json.loads(gzip.decompress(path.read_bytes()))["Records"])


# -- the page --------------------------------------------------------------------------------------------------------


def page(kills: Sequence[Kill], facts: dict[str, Any], options: argparse.Namespace) -> str:
    """The Markdown page."""
    counts = facts["counts"]
    wrong = [kill for kill in kills if not kill.good]
    lines = [
        "# Killed and run again",
        "",
        f"Written by `make kills` (`bench/kills.py --kills {options.kills} --seed {options.seed} "
        f"--events {options.events}`).",
        "",
        f"One ingest of {facts['objects']:,} log objects: {counts['records']:,} records, of which "
        f"{counts['stored']:,} are stored and {counts['duplicates']:,} are second copies. It runs in {WORKERS} worker "
        f"processes and makes {facts['commits']} commits in {facts['span']:.1f} s. All its processes are killed with "
        f"SIGKILL at {len(kills)} moments spread over that time ({len(kills) // AIMED} of them aimed at a transaction, "
        "which takes milliseconds), one to six times for a lake. A reader looks at the lake after each kill, before "
        "anybody repairs anything. Then the ingest runs again to its end and is compared with one that nobody killed.",
        "",
        f"**{len(kills)} kills, {len(wrong)} wrong.**",
        "",
        "| killed during | kills | whole batches only | rows right | summaries right | counts right |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for phase in PHASES:
        those = [kill for kill in kills if kill.phase == phase]
        right = [sum(getattr(kill, name) for kill in those) for name in ("whole", "rows", "summaries", "counts")]
        lines.append(f"| {phase} | {len(those)} | " + " | ".join(map(str, right)) + " |")
    lines += [
        "",
        "Whole batches only: straight after the kill the lake holds exactly the events of the log objects that it "
        "lists, each once, and `hourly`, `usage`, the ids and the counts say the same number. Rows: every column of "
        "every event but `log_object` (of an event that came twice, either may be named), and no file is left over. "
        "Summaries: the merged lines of `hourly`, `usage` and `profile`, sketches included. Counts: the sums over all "
        "commits.",
        "",
        "## Each kill",
        "",
        "| kill | second | killed during | left behind | whole | rows | summaries | counts |",
        "|---:|---:|---|---|---|---|---|---|",
    ]
    for kill in sorted(kills, key=lambda kill: kill.seconds):
        marks = ("yes" if mark else "NO" for mark in (kill.whole, kill.rows, kill.summaries, kill.counts))
        lines.append(
            f"| {kill.number} | {kill.seconds:.2f} | {kill.phase} | {kill.found} | " + " | ".join(marks) + " |"
        )
    for kill in wrong:
        lines += ["", f"Kill {kill.number}: {'; '.join(kill.notes)}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Runs the trial; exit code 1 where anything was wrong."""
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=12_000)
    parser.add_argument("--out", type=Path, help="the page to write; standard output by default")
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="trailsift-kills-") as scratch:
        kills, facts = trial(Path(scratch), options.kills, options.seed, options.events)
    text = page(kills, facts, options)
    if options.out:
        options.out.write_text(text, "utf-8")
        _say(f"wrote {options.out}")
    else:
        sys.stdout.write(text)
    return int(any(not kill.good for kill in kills))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
