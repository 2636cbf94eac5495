"""What must hold in a lake of all logs, whatever happened before. Each check returns problems in words."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faults.command import STOP, Shared
from faults.world import Truth, digest

TABLES = ("events", "hourly", "usage", "profile", "access", "sessions", "rejects")
SUMMARIES = ("hourly", "usage", "profile", "access", "sessions")
#: What nobody should ever read on standard error.
CRASHES = (
    "Traceback (most recent call last)", "trailsift: unexpected ", "Exception ignored", "Exception in thread",
    "terminate called", "Fatal Python error", "Segmentation fault",
)  # fmt: skip
#: Seconds between two looks of the reader in the background.
LOOK_EVERY = 0.08
LOOK = (
    "SELECT (SELECT count(*) FROM events), (SELECT coalesce(sum(events), 0)::BIGINT FROM hourly),"
    " (SELECT coalesce(sum(events), 0)::BIGINT FROM usage WHERE touch = 'target')"
)


@dataclass
class Contents:
    """What a lake says it holds: of a clean run, and after a fault."""

    rows: dict[str, list[Any]] = field(default_factory=dict)
    hourly: list[list[Any]] = field(default_factory=list)
    weight: float = 0.0
    repeated: int = 0


def read_contents(root: Path) -> Contents:
    """Ask a lake, through its own engine. Digests are sums of hashes of rows: equal rows in any order give the same."""
    from trailsift import Lake

    with Lake(root, threads=1) as lake:

        def row(sql: str) -> list[Any]:
            return list(lake.query(sql, cache=False).rows()[0])

        contents = Contents()
        # An event that was delivered twice may name either of its log objects; of two contents, either may be first.
        columns = {"events": "* EXCLUDE (log_object, request_id, rest)"}
        for name in ("events", *SUMMARIES):
            rows = f"(SELECT {columns.get(name, '*')} FROM {name})"
            contents.rows[name] = row(f"SELECT count(*), sum(hash(t)::HUGEINT)::VARCHAR FROM {rows} t")
        sql = "SELECT strftime(hour, '%Y-%m-%dT%H'), event_name, sum(events)::BIGINT FROM hourly GROUP BY ALL"
        contents.hourly = [list(line) for line in lake.query(sql, cache=False).rows()]
        contents.weight, contents.repeated = row(
            "SELECT coalesce(sum(weight), 0), count(*) - count(DISTINCT event_id) FROM events"
        )
    return contents


def compare_exported(path: Path, truth: Truth, *, part: bool = False) -> list[str]:
    """Compare exported records with the truth; ``part``: rules have dropped some."""
    seen: Counter[str] = Counter()
    changed = 0
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            seen[record["eventID"]] += 1
            changed += digest(record) not in truth.contents.get(record["eventID"], ())
    problems = []
    twice = sum(number - 1 for number in seen.values())
    missing = 0 if part else len(truth.contents.keys() - seen.keys())
    unknown = len(seen.keys() - truth.contents.keys())
    for number, what in ((twice, "stored twice"), (missing, "missing"), (unknown, "unknown"), (changed, "changed")):
        if number:
            problems.append(f"{number} events are {what}")
    return problems


def compare(contents: Contents, clean: Contents, truth: Truth, *, part: bool) -> list[str]:
    """Compare what a lake says with the truth, and with a lake that was never disturbed."""
    problems = []
    hourly = {(hour, name): number for hour, name, number in contents.hourly}
    if hourly != truth.hourly:
        problems.append(f"hourly counts {sum(hourly.values())} events, not {truth.hourly.total()}, or in other hours")
    if contents.repeated:
        problems.append(f"{contents.repeated} rows of events repeat an id")
    for name, row in contents.rows.items():
        # Which event a rule keeps as an example of its kind depends on the batches.
        if row != clean.rows[name] and not (part and name == "events"):
            problems.append(f"{name} has {row[0]} rows, other ones than the {clean.rows[name][0]} of a clean run")
    return problems


def commits(root: Path) -> list[tuple[int, str, dict[str, Any]]]:
    """Return number, kind and counts of each commit."""
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True)) as db:
        rows = db.execute("SELECT seq, kind, counts FROM commit_log ORDER BY seq").fetchall()
    return [(seq, kind, json.loads(counts)) for seq, kind, counts in rows]


def check_counts(root: Path, contents: Contents, truth: Truth) -> list[str]:
    """Check that each commit's counts add up, and their sum is what the lake holds."""
    problems = []
    total: Counter[str] = Counter()
    for seq, kind, counts in commits(root):
        if kind != "ingest":
            continue
        dropped = sum(counts.get("dropped", {}).values())
        parts = {name: counts.get(name, 0) for name in ("records", "stored", "duplicates", "malformed")}
        if parts["records"] != parts["stored"] + parts["duplicates"] + parts["malformed"] + dropped:
            problems.append(f"the counts of commit {seq} do not add up: {parts}, {dropped} dropped")
        total.update(parts)
        total["dropped"] += dropped
    if total["stored"] != contents.rows["events"][0]:
        problems.append(f"commits stored {total['stored']} events, and events has {contents.rows['events'][0]}")
    if total["stored"] + total["dropped"] != len(truth.contents):
        problems.append(f"{total['stored']} stored + {total['dropped']} dropped are not {len(truth.contents)} events")
    return problems


def check_files(root: Path) -> list[str]:
    """Check that Iceberg and the index name the same files, and that all of them exist."""
    from trailsift.lake.writer import LakeWriter

    problems = []
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True)) as db:
        live = set(db.execute("SELECT table_name, path FROM file WHERE removed IS NULL"))
        ids = [path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NULL")]
    gone = [path for path in (*(path for _, path in live), *ids) if not (root / path).is_file()]
    if gone:
        problems.append(f"{len(gone)} live files do not exist, such as {gone[0]}")
        return problems
    catalog = LakeWriter(root).catalog
    named = {
        (name, task.file.file_path.removeprefix("file://").removeprefix(f"{root.resolve()}/"))
        for name in TABLES
        for task in catalog.load_table(("trailsift", name)).scan().plan_files()
    }
    if named != live:
        problems.append(f"Iceberg has {len(named - live)} files that the index lacks, and lacks {len(live - named)}")
    return problems


def leftovers(root: Path, *, all_kinds: bool = False) -> list[str]:
    """Return what a lake holds that no commit names: data, scratch folders and the marker; or everything else too."""
    with closing(sqlite3.connect(f"file:{root / 'catalog.db'}?mode=ro", uri=True)) as db:
        named = {path for (path,) in db.execute("SELECT path FROM file UNION SELECT path FROM seen_file")}
    found: Counter[str] = Counter()
    for path in root.rglob("*"):
        name = path.relative_to(root).as_posix()
        if path.name == ".writing":
            found["writer's marker"] += 1
        elif path.name.startswith(".compact-"):
            found["folders of a compaction"] += 1
        elif path.suffix in (".parquet", ".ids") and name not in named and ".compact-" not in name:
            found["data files"] += 1
        elif all_kinds and path.name.startswith(".") and path.name not in (".lock", ".storage.lock"):
            found["partial files"] += ".compact-" not in name
    return [f"left behind: {number} {what}" for what, number in found.items() if number]


def watch(root: Path, target: Path) -> Callable[[Shared], None]:
    """Return a reader that asks until it is stopped, and then writes what it saw.

    That is [inode of the lake's folder, commit, events, hourly, usage].
    """

    def run(shared: Shared) -> None:
        import time

        from trailsift import Lake
        from trailsift.errors import TrailsiftError

        seen: set[tuple[int, ...]] = set()
        looks, errors = 0, Counter[str]()
        lake = Lake(root, threads=1)
        while not shared.get(STOP):
            try:
                folder = root.stat().st_ino
                result = lake.query(LOOK, cache=False)
                row = result.rows()[0]
                looks += 1
                if folder == root.stat().st_ino:
                    seen.add((folder, result._result.snapshot_seq, *row))
            except (TrailsiftError, FileNotFoundError) as error:
                errors[str(error)[:160]] += 1
                # A moved or a damaged lake may be another one the next time.
                lake.close()
            time.sleep(LOOK_EVERY)
        target.write_text(json.dumps({"looks": looks, "seen": sorted(seen), "errors": errors}), "utf-8")

    return run


def check_looks(root: Path, seen: Iterable[list[int]]) -> list[str]:
    """Check that a reader saw nothing but whole commits. Looks at another lake, made while this one was away, are not
    checked."""
    stored: dict[int, int] = {}
    counted: dict[int, int] = {}
    a = b = 0
    for seq, kind, counts in commits(root):
        if kind == "ingest":
            a += counts.get("stored", 0)
            b += counts.get("stored", 0) + sum(counts.get("dropped", {}).values())
        stored[seq], counted[seq] = a, b
    problems = []
    place = root.stat().st_ino
    for folder, seq, events, hourly, usage in seen:
        if folder != place:
            continue
        want = (stored.get(seq), counted.get(seq), counted.get(seq))
        if (events, hourly, usage) != want:
            problems.append(f"a reader saw {events} events, hourly {hourly}, usage {usage} at commit {seq}, not {want}")
    return problems


def check_output(errors: str, code: int, allowed: Iterable[int]) -> list[str]:
    """Check what a command wrote to standard error, and its exit code."""
    # Where a library may end the process, the interpreter says so.
    crashes = () if code < 0 and code in allowed else CRASHES
    problems = [f"standard error has {text!r}: {_line(errors, text)}" for text in crashes if text in errors]
    if code not in allowed:
        problems.append(f"exit code {code}: {errors.strip()[-300:]}")
    return problems[:2]


def _line(text: str, part: str) -> str:
    if part.startswith("Traceback"):
        return " | ".join(text.strip().splitlines()[-3:])[-400:]
    return next(line for line in text.splitlines() if part in line)[:400]
