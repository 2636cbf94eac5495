"""Kill an ingest at random moments, run it again, and compare with an undisturbed run; write a Markdown page.

    python bench/kills.py --kills 100 --seed 1 --out bench/KILLS.md
    python bench/kills.py --s3 --kills 40 --seed 1 --out bench/KILLS_S3.md

With ``--s3`` the lakes are in S3, on a SeaweedFS server of its own. There is no lock there, so what a killed writer
left stays until it is a day old; nothing else differs.

The whole process group is killed (SIGKILL) at moments spread evenly over the time that an ingest takes. One kill in
five is aimed at a commit's transaction, which takes milliseconds and would rarely be hit by chance. After each kill a
reader checks the lake first: it must hold exactly the events of the log objects that it lists, and its summaries must
agree. Then the ingest runs again, possibly to be killed again, and the final contents of the lake must equal those of
the clean run: every row of ``events``, the merged rows of the summaries, the counts.
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
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any, Literal

from page import state_of_code
from trailsift import schema
from trailsift.errors import LakeError
from trailsift.generate import Options, generate
from trailsift.ingest import Sizes, ingest
from trailsift.lake import index, lock, log_objects, settings, transaction, writer
from trailsift.lake.mirrored_storage import open_mirror
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.storage import folder_storage
from trailsift.storage.s3_client import is_s3

#: Makes several commits of several chunks each from few events.
SIZES = Sizes(chunk_rows=1_200, batch_rows=3_600, task_bytes=20_000, task_objects=40)
WORKERS = 2
SUMMARIES = ("hourly", "usage", "profile", "access", "sessions")
COUNTED = ("log_objects", "records", "stored", "duplicates", "malformed")
#: Phases of an ingest, in the order of the table; a commit has several.
PHASES = ("creating the lake", "decode", "write", "commit: files", "commit: transaction", "after a commit")
#: One of this many kills is aimed at a transaction, at most AIM_WITHIN seconds after its beginning.
AIMED = 5
AIM_WITHIN = 0.008
#: Share of log objects that a second trail delivers again under another name.
TWICE = 0.25


@dataclass(frozen=True)
class State:
    """The contents of a lake as digests: equal digests mean equal rows."""

    rows: str
    summaries: dict[str, str]
    counts: dict[str, int]


@dataclass(frozen=True)
class Moment:
    """When to kill: seconds after the start, or after the start of the transaction of that number."""

    seconds: float
    transaction: int | None = None


@dataclass
class Kill:
    """One kill: its time and phase, what it left behind, and which checks passed."""

    number: int
    seconds: float
    phase: str
    left_behind: str = ""
    whole: bool = True
    rows: bool = True
    summaries: bool = True
    counts: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return self.whole and self.rows and self.summaries and self.counts


# -- the ingest to be killed -----------------------------------------------------------------------------------------


def run_child(logs: str, root: str) -> None:
    """Run an ingest that prints the name of each phase when it begins."""

    def say(phase: str) -> None:
        os.write(1, f"{phase}\n".encode())

    def around(owner: Any, name: str, before: str | None, after: str | None) -> None:
        inner = getattr(owner, name)

        def outer(*arguments: Any, **named: Any) -> Any:
            if before:
                say(before)
            result = inner(*arguments, **named)
            if after:
                say(after)
            return result

        setattr(owner, name, outer)

    around(writer.LakeWriter, "_make_index", None, PHASES[1])
    around(writer.LakeWriter, "refresh", PHASES[2], None)
    around(transaction.Transaction, "commit", PHASES[3], PHASES[5])
    around(transaction.Transaction, "_apply", PHASES[4], None)
    around(lock.WriteLock, "release", None, PHASES[1])
    say(PHASES[0])
    counts = ingest([logs], root_of(root, "write"), workers=WORKERS, sizes=SIZES)
    say(json.dumps(counts.as_dict()))


def root_of(place: str | Path, use: Literal["read", "write"] = "read") -> Path:
    """Return the folder of a lake: of one in S3, that of its copy here."""
    return open_mirror(str(place), use).root if is_s3(str(place)) else Path(place)


class Child:
    """A running ingest. Its time counts from the end of its imports."""

    def __init__(self, logs: Path, root: Path | str) -> None:
        command = [sys.executable, __file__, "--child", str(logs), str(root)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        assert self._process.stdout is not None
        self.phases = [self._process.stdout.readline().strip()]
        self.started = time.monotonic()
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self.phases.append(line.strip())
                self._news.notify()

    def end(self) -> float:
        """Wait for the end; return the seconds that it took."""
        code = self._process.wait()
        seconds = time.monotonic() - self.started
        self._reader.join()
        if code:
            raise SystemExit(f"the ingest ended with exit code {code}, although it was not killed")
        return seconds

    def kill(self, moment: Moment) -> bool:
        """Kill all of its processes at a moment; return whether it was still running."""
        number = moment.transaction
        if number is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, self.started + moment.seconds - time.monotonic()))
        else:
            with self._news:
                self._news.wait_for(lambda: self.phases.count(PHASES[4]) > number or self.phases[-1][0] == "{", 60)
            time.sleep(moment.seconds)
        if self._process.poll() is not None or self.phases[-1][0] == "{":
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
        """The phase in which it ended."""
        return self.phases[-1]


# -- contents of a lake ----------------------------------------------------------------------------------------------


def state(root: Path) -> State:
    """Return everything that a reader sees, and the counts of the commits."""
    with DuckDBEngine(open_snapshot(root)) as engine:
        summaries = {name: _digest(engine, f"SELECT * FROM {name}") for name in SUMMARIES}
        # An event that was delivered twice may name either of its log objects.
        rows = _digest(engine, "SELECT * EXCLUDE (log_object) FROM events")
    return State(rows, summaries, counted(root))


def _digest(engine: DuckDBEngine, sql: str) -> str:
    rows = sorted(repr(row) for row in engine.sql(sql).rows())
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def counted(root: Path) -> dict[str, int]:
    """Return the sums of the commits' counts."""
    with contextlib.closing(index.connect(root)) as db:
        commits = [
            json.loads(counts) for (counts,) in db.execute("SELECT counts FROM commit_log WHERE kind = 'ingest'")
        ]
    return {name: sum(counts.get(name, 0) for counts in commits) for name in COUNTED}


def check_whole(root: Path, ids_of: dict[str, frozenset[str]]) -> str | None:
    """Return what is wrong with a lake that must hold whole batches only; None if nothing is."""
    try:
        snapshot = open_snapshot(root)
    except LakeError as error:
        return f"cannot be opened: {error}" if _is_created(root) else None
    with DuckDBEngine(snapshot) as engine:
        stored = [str(row[0]) for row in engine.sql("SELECT event_id FROM events").rows()]
        sums = {name: engine.sql(f"SELECT sum(events) FROM {name}").value() or 0 for name in ("hourly", "sessions")}
    with contextlib.closing(index.connect(root)) as db:
        storage = folder_storage(root)
        names = [name for file in log_objects.files(db) for name, _ in log_objects.names(storage, file)]
        seen = db.execute("SELECT coalesce(sum(ids), 0) FROM seen_file WHERE removed IS NULL").fetchone()[0]
    want = frozenset[str]().union(*(ids_of[name] for name in names))
    if len(stored) != len(set(stored)):
        return f"{len(stored) - len(set(stored))} events are stored twice"
    if set(stored) != want:
        return (
            f"{len(want - set(stored))} events of listed log objects are missing, {len(set(stored) - want)} unexpected"
        )
    for name, number in (*sums.items(), ("seen ids", seen), ("counts", counted(root)["stored"])):
        if number != len(stored):
            return f"{len(stored)} events, but {name} has {number}"
    return None


def _is_created(root: Path) -> bool:
    """Return whether a lake was created completely, which ends with its first commit."""
    if not (root / settings.LAKE_FILE).exists() or not (root / settings.CATALOG_FILE).exists():
        return False
    with contextlib.closing(index.connect(root)) as db:
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone():
            return False
        return db.execute("SELECT 1 FROM commit_log LIMIT 1").fetchone() is not None


def leftovers(root: Path) -> str:
    """Return what killed processes left behind, files that no commit lists."""
    if not (root / settings.LAKE_FILE).exists():
        return "no lake"
    listed: set[str] = set()
    current: set[str] = set()
    if (root / settings.CATALOG_FILE).exists():
        with contextlib.suppress(Exception), contextlib.closing(index.connect(root)) as db:
            for table in schema.TABLES:
                listed |= {path for (path,) in db.execute("SELECT path FROM file WHERE table_name = ?", (table,))}
            listed |= {path for (path,) in db.execute("SELECT path FROM seen_file")}
            listed |= {file.path for file in log_objects.files(db)}
            current = {path.removeprefix("file://") for path in index.live_locations(db).values()}
    leftover: Counter[str] = Counter()
    for table in schema.TABLES:
        leftover["data files"] += sum(_name(root, path) not in listed for path in (root / table).rglob("*.parquet"))
        newest = max((int(Path(p).name.partition("-")[0]) for p in current if f"/{table}/metadata/" in p), default=-1)
        staged = (root / table / "metadata").glob("*.metadata.json")
        leftover["staged metadata"] += sum(int(path.name.partition("-")[0]) > newest for path in staged)
    leftover["files of log objects"] = sum(_name(root, path) not in listed for path in root.glob("objects/*"))
    leftover["id files"] = sum(_name(root, path) not in listed for path in root.glob("seen/*.ids"))
    leftover["writer's marker"] = int((root / settings.MARKER_FILE).exists())
    return ", ".join(f"{number} {name}" for name, number in leftover.items() if number) or "nothing"


def _name(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


# -- the trial -------------------------------------------------------------------------------------------------------


def trial(
    work: Path, kills: int, seed: int, events: int, bucket: str | None = None
) -> tuple[list[Kill], dict[str, Any]]:
    """Run all kills; return them and the facts about the ingest. ``bucket``: where the lakes are, if not on a disk."""
    home = work if bucket is None else f"s3://{bucket}"
    logs = make_logs(work / "logs", events, seed)
    ids_of = {str(path): _ids(path) for path in sorted(logs.rglob("*.json.gz"))}
    spans = []
    for turn in range(2):
        spans.append(Child(logs, f"{home}/clean{turn}").end())
    clean = root_of(f"{home}/clean0")
    want = state(clean)
    if state(root_of(f"{home}/clean1")) != want:
        raise SystemExit("two undisturbed runs differ")
    # The clean run itself is checked against the ids of all log objects, read without trailsift.
    if check_whole(clean, ids_of) or want.counts["stored"] != len(frozenset[str]().union(*ids_of.values())):
        raise SystemExit(f"the undisturbed run is wrong: {check_whole(clean, ids_of)}")
    span = median(spans)
    with contextlib.closing(index.connect(clean)) as db:
        commits = db.execute("SELECT count(*) FROM commit_log WHERE kind = 'ingest'").fetchone()[0]
    _say(f"a clean run takes {span:.1f} s and makes {commits} commits")
    facts = {"span": span, "commits": commits, "objects": len(ids_of), "counts": want.counts}
    done: list[Kill] = []
    draw = random.Random(seed)
    for chain in _chains(draw, kills, span, commits):
        done += _chain(f"{home}/lake{len(done)}", logs, ids_of, want, chain, len(done))
        _say(f"{len(done)} of {kills}: {sum(not kill.good for kill in done)} wrong")
        for kill in done[-len(chain) :]:
            for note in kill.notes:
                _say(f"kill {kill.number} during {kill.phase}: {note}")
    return done, facts


def _chains(draw: random.Random, kills: int, span: float, commits: int) -> Iterator[list[Moment]]:
    """Yield the moments of kills for each lake, one to six; all together they spread evenly over the span."""
    aimed = kills // AIMED
    moments = [Moment((number + draw.random()) / (kills - aimed) * span) for number in range(kills - aimed)]
    moments += [Moment(draw.random() * AIM_WITHIN, draw.randrange(commits)) for _ in range(aimed)]
    draw.shuffle(moments)
    while moments:
        size = draw.choice((1, 2, 3, 4, 6))
        yield moments[:size]
        moments = moments[size:]


def _chain(
    place: str, logs: Path, ids_of: dict[str, frozenset[str]], want: State, moments: list[Moment], number: int
) -> list[Kill]:
    """Kill one lake's ingest at each of the moments, then let it finish and compare."""
    kills: list[Kill] = []
    at, again = place, 0
    for moment in moments:
        while True:
            child = Child(logs, at)
            if child.kill(moment):
                break
            # It had finished before: start again from nothing, and kill earlier.
            again += 1
            at = f"{place}-{again}"
            moment = Moment(moment.seconds * 0.9, moment.transaction and moment.transaction - 1)
        root = root_of(at)
        kill = Kill(number + len(kills) + 1, child.killed, child.phase, "" if is_s3(at) else leftovers(root))
        wrong = check_whole(root, ids_of)
        if wrong:
            kill.whole = False
            kill.notes.append(wrong)
        kills.append(kill)
    Child(logs, at).end()
    root = root_of(at)
    got = state(root)
    last = kills[-1]
    wrong = check_whole(root, ids_of)
    for kill in kills:
        kill.rows = got.rows == want.rows and not wrong
        kill.summaries = got.summaries == want.summaries
        kill.counts = got.counts == want.counts
    if wrong:
        last.notes.append(f"finally: {wrong}")
    if not last.summaries:
        last.notes.append("different: " + ", ".join(n for n in SUMMARIES if got.summaries[n] != want.summaries[n]))
    if not last.counts:
        last.notes.append(f"counts: {got.counts}, not {want.counts}")
    after = "nothing" if is_s3(at) else leftovers(root)
    shutil.rmtree(root, ignore_errors=True)
    if after != "nothing":
        last.rows = False
        last.notes.append(f"left at the end: {after}")
    return kills


def make_logs(folder: Path, events: int, seed: int) -> Path:
    """Generate logs in which some log objects come twice, as from a second trail."""
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
    """Return the Markdown page."""
    counts = facts["counts"]
    wrong = [kill for kill in kills if not kill.good]
    where = " The lakes are in S3, on a SeaweedFS server on the same machine." if options.s3 else ""
    lines = [
        "# Killed and run again",
        "",
        f"Written by `make kills` (`bench/kills.py {'--s3 ' if options.s3 else ''}--kills {options.kills} "
        f"--seed {options.seed} "
        f"--events {options.events}`) on {state_of_code()}.",
        "",
        f"One ingest of {facts['objects']:,} log objects with {counts['records']:,} records: "
        f"{counts['stored']:,} are stored and {counts['duplicates']:,} are duplicates. It runs in {WORKERS} worker "
        f"processes and makes {facts['commits']} commits in {facts['span']:.1f} s. All its processes are killed with "
        f"SIGKILL at {len(kills)} moments spread over that time ({len(kills) // AIMED} of them aimed at a transaction, "
        "which takes milliseconds), one to six times per lake. A reader checks the lake after each kill, before "
        f"anything is repaired. Then the ingest runs again to its end and is compared with an undisturbed one.{where}",
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
        "Whole batches only: right after the kill the lake holds exactly the events of the log objects that it "
        "lists, each once, and `hourly`, `sessions`, the ids and the counts agree on their number. Rows: every column "
        "of every event except `log_object` (an event that was delivered twice may name either), and no file is left "
        "over. Summaries: the merged rows of every summary table, including sketches. Counts: the sums over all "
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
            f"| {kill.number} | {kill.seconds:.2f} | {kill.phase} | {kill.left_behind} | " + " | ".join(marks) + " |"
        )
    for kill in wrong:
        lines += ["", f"Kill {kill.number}: {'; '.join(kill.notes)}"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Run the trial; return 1 if anything was wrong."""
    if sys.argv[1:2] == ["--child"]:
        run_child(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--events", type=int, default=12_000)
    parser.add_argument("--s3", action="store_true", help="lakes in S3")
    parser.add_argument("--out", type=Path, help="the page to write; standard output by default")
    options = parser.parse_args()
    _say(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="trailsift-kills-") as scratch, contextlib.ExitStack() as stack:
        bucket = None
        if options.s3:
            os.environ["XDG_CACHE_HOME"] = f"{scratch}/cache"
            sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
            server = stack.enter_context(import_module("s3_server").running(Path(scratch) / "server"))
            os.environ.update(server.env)
            bucket = server.new_bucket()
        kills, facts = trial(Path(scratch), options.kills, options.seed, options.events, bucket)
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
