"""Compaction: fewer files, the same answers; what was replaced goes when nobody can need it."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import hypothesis
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyiceberg.table import Transaction

from support.contents import DAY, QUESTIONS, answers, indexed, live, partitions, scanned
from trailsift import schema
from trailsift.columns import summarize
from trailsift.columns.arrow import arrow_schema
from trailsift.errors import LakeError, SnapshotGoneError
from trailsift.ingest import ingest
from trailsift.lake import compact as module
from trailsift.lake import dedup, expire, expire_seen, iceberg, index, settings
from trailsift.lake import partitions as pieces
from trailsift.lake.cardinality import OTHER, fold
from trailsift.lake.compact import Compacted, compact, needs_compaction
from trailsift.lake.expire_seen import SeenFile
from trailsift.lake.iceberg import LakeCatalog, _Transaction
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import FileWriter
from trailsift.lake.partitions import Partition, plan_cuts
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine
from trailsift.storage import LocalStorage


def make_lake(logs: Path, lake: Path, commits: int, *, days: str = "*") -> Path:
    """A lake of ``logs``, every commit with a share of every hour."""
    files = sorted(str(path) for path in (logs / "AWSLogs").rglob(f"{days}/*.json.gz"))
    for number in range(commits):
        ingest(files[number::commits], lake, compact=False)
    return lake


@pytest.fixture(scope="module")
def kept(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the lake that ``lake`` hands out: made once, and put back in its place for each test."""
    folder = tmp_path_factory.mktemp("day")
    make_lake(small_logs, folder / "lake", 5, days="03").rename(folder / "copy")
    return folder / "copy"


@pytest.fixture
def lake(kept: Path) -> Path:
    """One day of logs, with the last events of the day before, in five commits."""
    path = kept.with_name("lake")
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(kept, path)
    return path


@dataclass
class Before:
    lake: Path
    answers: dict[str, Any]
    during: dict[str, list[dict[str, Any]]]
    errors: list[BaseException]
    files: dict[str, int]
    done: Compacted


@pytest.fixture(scope="module")
def compacted(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Before:
    """A lake of ten commits, compacted and cleaned while a reader never stops asking."""
    lake = make_lake(small_logs, tmp_path_factory.mktemp("many") / "lake", 10)
    made = Before(
        lake, answers(lake), {"before": [], "compact": [], "clean": [], "after": []}, [], live(lake), Compacted()
    )
    phase = ["before"]
    stop, asked = threading.Event(), threading.Condition()

    def read() -> None:
        try:
            while not stop.is_set():
                now = phase[0]
                found = answers(lake)
                with asked:
                    made.during.setdefault(now, []).append(found)
                    asked.notify_all()
        except BaseException as error:
            made.errors.append(error)

    def begin(name: str, least: int) -> None:
        """Goes on when the reader has so many answers to questions that it began before."""
        with asked:
            assert asked.wait_for(lambda: len(made.during[phase[0]]) >= least or made.errors, 120)
        phase[0] = name

    reader = threading.Thread(target=read)
    reader.start()
    try:
        begin("compact", 1)
        made.done = compact(lake)
        begin("clean", 1)
        expire.clean(LakeWriter(lake), datetime.now(UTC) + timedelta(days=2))
        begin("after", 2)
        begin("end", 1)
    finally:
        stop.set()
        reader.join()
    return made


def on_disk(lake: Path) -> set[str]:
    return {path.relative_to(lake).as_posix() for path in lake.glob("*/data/**/*.parquet")}


def named(lake: Path) -> set[str]:
    """The live files."""
    return {file.path for name in schema.TABLES for file in open_snapshot(lake).files(name)}


def assert_disjoint(lake: Path) -> None:
    """The callers of a partition's files follow each other; only one that is split by time is in two."""
    for files in partitions(lake).values():
        ordered = sorted(files, key=lambda file: (file.min_caller, file.max_caller, file.min_time))
        for before, after in pairwise(ordered):
            low, high = before.max_caller or "", after.min_caller or ""
            assert low < high or (
                low == high and (before.min_caller or "") == low and before.max_time <= after.min_time
            )


def test_answers_are_the_same_before_during_and_after(compacted: Before) -> None:
    assert not compacted.errors
    assert all(compacted.during.values())
    assert all(found == compacted.answers for answered in compacted.during.values() for found in answered)
    assert answers(compacted.lake) == compacted.answers


def test_one_file_for_a_small_partition(compacted: Before) -> None:
    assert compacted.files["events"] > 100 and compacted.files["hourly"] > 25
    files = live(compacted.lake)
    assert files["events"] == len(partitions(compacted.lake))
    assert {files[name] for name in ("hourly", "usage", "profile", "access", "sessions")} == {3}
    assert compacted.done.files_before - compacted.done.files_after == sum(compacted.files.values()) - sum(
        files.values()
    )
    assert compacted.done.bytes_after < compacted.done.bytes_before


def test_once_is_enough(compacted: Before) -> None:
    assert needs_compaction(open_snapshot(compacted.lake)) == []
    before = open_snapshot(compacted.lake).seq
    assert compact(compacted.lake).partitions == 0
    assert open_snapshot(compacted.lake).seq == before


def test_other_engines_read_the_same(compacted: Before) -> None:
    assert scanned(compacted.lake) == indexed(compacted.lake)
    paths = [str(compacted.lake / file.path) for file in open_snapshot(compacted.lake).files("events")]
    rows = duckdb.execute("SELECT count(*), count(DISTINCT event_id) FROM read_parquet($1)", [paths]).fetchone()
    assert rows == (20_000, 20_000)


def test_files_look_like_those_of_an_ingest(compacted: Before, small_lake: Path) -> None:
    """Same columns, types, field ids and compression."""
    for name in ("events", "hourly", "usage", "profile", "access", "sessions"):
        ours = pq.ParquetFile(compacted.lake / open_snapshot(compacted.lake).files(name)[0].path)
        theirs = pq.ParquetFile(small_lake / open_snapshot(small_lake).files(name)[0].path)
        assert ours.schema_arrow.equals(theirs.schema_arrow, check_metadata=True)
        for file in (ours, theirs):
            wanted = "ZSTD" if file.metadata.num_rows >= 256 else "SNAPPY"
            assert {file.metadata.row_group(0).column(at).compression for at in (0, 5)} == {wanted}


def test_a_replacement_is_what_incremental_readers_see(compacted: Before) -> None:
    snapshots = LakeWriter(compacted.lake).catalog.load_table(("trailsift", "events")).metadata.snapshots
    summary = max(snapshots, key=lambda one: one.sequence_number).summary
    assert summary is not None and summary.operation.value == "replace"
    assert summary["total-records"] == "20000"


@pytest.mark.parametrize("piece_bytes", [pieces.PIECE_BYTES, 300_000])
def test_ranges_of_callers_are_disjoint(lake: Path, piece_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a partition takes many files, and where it is too large for the memory."""
    monkeypatch.setattr(pieces, "PIECE_BYTES", piece_bytes)
    before = answers(lake)
    compact(lake, target_bytes=60_000)
    assert max(map(len, partitions(lake).values())) > 5
    assert_disjoint(lake)
    assert answers(lake) == before
    assert scanned(lake) == indexed(lake)
    assert not list(lake.glob(".compact-*"))
    for file in open_snapshot(lake).files("events"):
        table = pq.read_table(lake / file.path, columns=["caller", "event_time"])
        rows = [(row["caller"], row["event_time"]) for row in table.to_pylist()]
        assert rows == sorted(rows)
    for name in ("hourly", "usage", "profile", "access", "sessions"):
        files = open_snapshot(lake).files(name)
        assert len(files) == len({file.min_time // DAY for file in files})
        for file in files:
            rows = pq.read_table(lake / file.path, columns=["caller"]).column(0).to_pylist()
            assert rows == sorted(rows)


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 9), st.integers(1, 50)), min_size=1, max_size=40),
    st.integers(1, 100),
    st.integers(1, 200),
)
def test_cuts(counts: list[tuple[int, int, int]], piece_rows: int, file_rows: int) -> None:
    keyed = sorted({role * 10 + slot: rows for role, slot, rows in counts}.items())
    starts, new_files = plan_cuts(keyed, 10, piece_rows, file_rows)
    assert starts == sorted(set(starts)) and starts[0] == keyed[0][0] and 0 in new_files
    sizes: Counter[int] = Counter()
    keys: Counter[int] = Counter()
    files_of_role: dict[int, set[int]] = {}
    roles: Counter[int] = Counter()
    for key, rows in keyed:
        piece = sum(start <= key for start in starts) - 1
        sizes[piece] += rows
        keys[piece] += 1
        roles[key // 10] += rows
        files_of_role.setdefault(key // 10, set()).add(sum(first <= piece for first in new_files))
    assert all(rows <= piece_rows or keys[piece] == 1 for piece, rows in sizes.items())
    assert all(len(files_of_role[role]) == 1 for role, rows in roles.items() if rows <= file_rows)


def test_late_events(small_logs: Path, tmp_path: Path) -> None:
    """A compacted day that takes more events is compacted again, to the same as at once."""
    files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob("03/*.json.gz"))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    ingest(files, whole)
    for number in range(3):
        ingest(files[number::3], parts)
        if number:
            assert compact(parts).partitions
    assert answers(parts) == answers(whole)
    assert live(parts) == live(whole)


def test_a_large_day_waits_for_more_than_a_few_late_events() -> None:
    def file(name: str, size: int) -> File:
        return File("events", name, 10, size, 5, 6, "s3", "a", "b")

    large = Partition("events", 0, "s3", (file("x", 1 << 30), file("late", 1 << 10)))
    assert not module._is_worth_it(large, {"x"}, None, everything=False)
    assert module._is_worth_it(large, {"x"}, None, everything=True)
    assert module._is_worth_it(large, set(), None, everything=False)
    assert not module._is_worth_it(large, {"x", "late"}, None, everything=True)


def test_open_days_are_left_alone(lake: Path) -> None:
    end = end_of(lake)
    day = int(end.timestamp()) // 86_400 - 1

    def days(now: datetime, *, everything: bool = False) -> set[int]:
        found = needs_compaction(open_snapshot(lake), now=now, everything=everything)
        return {partition.day for partition in found}

    assert days(end + timedelta(minutes=59)) == {day - 1}
    assert days(end + timedelta(minutes=60)) == days(end, everything=True) == {day - 1, day}
    before = answers(lake)
    compact(lake, now=end)
    assert days(end) == set()
    assert compact(lake, now=end, everything=True).partitions
    assert days(datetime.now(UTC)) == set()
    assert answers(lake) == before


def end_of(lake: Path) -> datetime:
    """The end of its last day."""
    return datetime.fromtimestamp((max(day for day, _ in partitions(lake)) + 1) * 86_400, UTC)


def budgets(lake: Path, **limits: int) -> None:
    path = lake / settings.LAKE_FILE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"budgets": limits}), "utf-8")


TOTALS = {
    "hourly": "SELECT hour, role_arn, event_name, sum(events), sum(bytes_in), sum(bytes_out), min(first_time),"
    " max(last_time) FROM hourly GROUP BY ALL ORDER BY ALL",
    "usage": "SELECT day, role_arn, event_name, error_code, sum(events), sum(bytes_in), sum(bytes_out),"
    " min(first_time) FROM usage GROUP BY ALL ORDER BY ALL",
    "profile": "SELECT day, role_arn, dimension, sum(events), sum(bytes_out), sum(denied) FROM profile"
    " GROUP BY ALL ORDER BY ALL",
    "access": "SELECT day, account_id, caller, kind, touch, category, sum(events), sum(denied), sum(bytes_in),"
    " sum(bytes_out), sum(owner_side), min(first_time), max(last_time) FROM access GROUP BY ALL ORDER BY ALL",
    "sessions": "SELECT day, account_id, caller, category, sum(events), sum(denied), sum(bytes_in), sum(bytes_out),"
    " min(first_time), max(last_time) FROM sessions GROUP BY ALL ORDER BY ALL",
}


def totals(lake: Path) -> dict[str, list[tuple[Any, ...]]]:
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        return {name: engine.query(sql, cache=False).rows() for name, sql in TOTALS.items()}


def test_an_open_day_is_not_folded(lake: Path) -> None:
    """Its closed hours are."""
    budgets(lake, resources=1, patterns=1, values=1, lines=1)
    before = totals(lake)
    compact(lake, now=end_of(lake))
    done = compact(lake, now=end_of(lake), everything=True)
    assert set(done.folded) == {"hourly"}
    assert totals(lake) == before
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        last = engine.query("SELECT max(hour) FROM hourly WHERE resource_arn = '(other)'").rows()[0][0]
        assert last == end_of(lake) - timedelta(hours=2)
        at = end_of(lake) - timedelta(days=1)
        assert engine.query(
            f"SELECT count(*) FROM usage WHERE day = '{at:%Y-%m-%d}' AND '(other)' IN (key_pattern)"
        ).rows() == [(0,)]


def test_folding(small_logs: Path, tmp_path: Path) -> None:
    """Deterministic, whatever the order of the commits; totals exact; counted."""
    other = make_lake(small_logs, tmp_path / "other", 3, days="03")
    again = make_lake(small_logs, tmp_path / "again", 7, days="03")
    for lake in (other, again):
        budgets(lake, resources=2, patterns=3, values=2, lines=3)
        before = totals(lake)
        done = compact(lake)
        assert set(done.folded) == {table.name for table in schema.TABLES.values() if table.keys}
        assert min(done.folded.values()) > 0
        assert totals(lake) == before
        with closing(index.connect(lake)) as db:
            (counts,) = db.execute("SELECT counts FROM commit_log WHERE kind = 'compact'").fetchone()
        assert json.loads(counts)["folded"] == done.folded
    assert answers(other) == answers(again)
    with DuckDBEngine(open_snapshot(other), threads=2) as engine:
        many = "SELECT max(n) FROM (SELECT count(DISTINCT {0}) AS n FROM {1} WHERE {0} <> '(other)' GROUP BY {2})"
        for column, table, group, limit in (
            ("resource_arn", "hourly", "hour, caller", 2),
            ("resource_arn", "usage", "day, caller", 2),
            ("key_pattern", "usage", "day, caller", 3),
            ("value", "profile", "day, caller, dimension", 2),
        ):
            assert engine.query(many.format(column, table, group)).rows() == [(limit,)]


def profile(values: list[tuple[str | None, int]]) -> pa.Table:
    rows = [
        {
            "day": datetime(2026, 3, 2, tzinfo=UTC).date(), "account_id": "1", "role_arn": "r", "dimension": "d",
            "value": value, "events": events, "bytes_out": 1, "denied": 0,
            "first_time": datetime(2026, 3, 2, tzinfo=UTC), "last_time": datetime(2026, 3, 2, number, tzinfo=UTC),
        }
        for number, (value, events) in enumerate(values)
    ]  # fmt: skip
    return summarize.merge(schema.PROFILE, [pa.Table.from_pylist(rows, schema=arrow_schema(schema.PROFILE))])


def test_fold_keeps_the_most_events_and_of_equal_ones_the_first() -> None:
    lines = profile([("d", 5), ("c", 5), ("b", 5), ("a", 1), (OTHER, 100), ("e", 9)])
    folded, number = fold(schema.PROFILE, lines, {"values": 2}, lambda end: True)
    kept = {row["value"]: row["events"] for row in folded.to_pylist()}
    assert kept == {"e": 9, "b": 5, OTHER: 111}
    assert number == 3
    assert fold(schema.PROFILE, folded, {"values": 2}, lambda end: True) == (folded, 0)
    assert fold(schema.PROFILE, lines, {"values": 2}, lambda end: False) == (lines, 0)
    assert fold(schema.PROFILE, lines, None, lambda end: True) == (lines, 0)


LINES = {
    "access": {"resource_arn": "r", "source_network": "n", "kind": "k", "touch": "t", "category": "c"},
    "sessions": {"session_name": "s", "source_network": "n", "user_agent": "a", "vpc_endpoint": "v", "category": "c"},
}


def drawn_lines(name: str, seed: int, number: int) -> pa.Table:
    """Merged lines of two callers and two days, each value drawn from a few."""
    rng = random.Random(seed)
    table, time = schema.TABLES[name], datetime(2026, 3, 2, tzinfo=UTC)
    rows = []
    for _ in range(number):
        row: dict[str, Any] = {c.name: rng.randrange(5) for c in table.columns if c.type == "int64"}
        row |= {"day": (time + timedelta(days=rng.randrange(2))).date(), "account_id": "1", "caller": rng.choice("ab")}
        row |= {key: rng.choice([None, *(f"{prefix}{n}" for n in range(4))]) for key, prefix in LINES[name].items()}
        rows.append(row | {"events": rng.randint(1, 9), "first_time": time, "last_time": time})
    return summarize.merge(table, [pa.Table.from_pylist(rows, schema=arrow_schema(table))])


@hypothesis.settings(max_examples=60)
@given(st.sampled_from(["access", "sessions"]), st.integers(0, 2**32), st.integers(0, 150), st.integers(1, 40))
def test_lines_are_folded_within_their_budget(name: str, seed: int, number: int, limit: int) -> None:
    table, lines = schema.TABLES[name], drawn_lines(name, seed, number)
    folded, gone = fold(table, lines, {"lines": limit}, lambda end: True)
    assert fold(table, folded, {"lines": limit}, lambda end: True) == (folded, 0)
    # Only these are ever folded: what stays says who did what, on which day.
    fixed = [key for key in table.keys if key not in ("resource_arn", *LINES["sessions"])] + ["category"]
    sums = [column.name for column in table.columns if column.type == "int64"]
    total = [(column, "sum") for column in sums]
    before, after = (sorted(map(repr, each.group_by(fixed).aggregate(total).to_pylist())) for each in (lines, folded))
    assert before == after
    # Beyond the limit, once for each column that may be folded, there is one line per combination of the others.
    per_group = folded.group_by(["day", "caller"]).aggregate([([], "count_all")]).column("count_all").to_pylist()
    combinations = 5 * 5 * 5 if name == "access" else 5
    assert all(count <= limit * (2 if name == "access" else 4) + combinations for count in per_group)
    assert fold(table, lines, {"lines": limit}, lambda end: False) == (lines, 0)
    if gone == 0:
        assert folded == lines


def test_a_session_in_two_networks_is_folded_last() -> None:
    """A stolen session has few events; sessions of one network each have many."""
    time = datetime(2026, 3, 2, tzinfo=UTC)
    row = {"day": time.date(), "account_id": "1", "caller": "r", "user_agent": "a", "vpc_endpoint": None}
    row |= {"category": "Data", "denied": 0, "bytes_in": 0, "bytes_out": 0, "first_time": time, "last_time": time}
    many = [row | {"session_name": f"i-{n}", "source_network": "10.0.0.0/24", "events": 100} for n in range(30)]
    stolen = [
        row | {"session_name": "i-x", "source_network": net, "events": 1} for net in ("10.0.0.0/24", "198.51.100.0/24")
    ]
    lines = summarize.merge(
        schema.SESSIONS, [pa.Table.from_pylist(many + stolen, schema=arrow_schema(schema.SESSIONS))]
    )
    folded, gone = fold(schema.SESSIONS, lines, {"lines": 5}, lambda end: True)
    kept = {(line["session_name"], line["source_network"]): line["events"] for line in folded.to_pylist()}
    assert kept["i-x", "10.0.0.0/24"] == kept["i-x", "198.51.100.0/24"] == 1
    assert gone and sum(kept.values()) == 3002


@pytest.mark.parametrize("settings", [{"values": 0}, {"values": "many"}, {"values": True}, [1]])
def test_a_budget_that_is_none(settings: object) -> None:
    with pytest.raises(LakeError, match=r"budget"):
        fold(schema.PROFILE, profile([("a", 1)]), settings, lambda end: True)


class Crash(Exception):
    """The machine goes away."""


def crashing(method: Callable[..., Any], after: int) -> Callable[..., Any]:
    calls = 0

    def wrapped(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls > after:
            raise Crash
        return method(*arguments, **named)

    return wrapped


POINTS: list[tuple[Any, str, int]] = [
    (FileWriter, "write", 3),
    (FileWriter, "close", 2),
    (LakeCatalog, "change", 0),
    (LakeCatalog, "change", 2),
    (LakeCatalog, "apply", 0),
    (index, "record_files", 0),
    (LakeCatalog, "load_table", 1),
]


def test_a_crash_changes_nothing(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, files = answers(lake), on_disk(lake)
    monkeypatch.setattr(pieces, "PIECE_BYTES", 300_000)
    for place, name, after in POINTS:
        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(place, name, crashing(getattr(place, name), after))
            compact(lake, target_bytes=60_000)
        assert answers(lake) == before
        with LakeWriter(lake).lock():
            assert on_disk(lake) == files
    compact(lake, target_bytes=60_000)
    assert answers(lake) == before
    assert scanned(lake) == indexed(lake)


def test_a_crash_while_cleaning(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers(lake)
    compact(lake)
    later = datetime.now(UTC) + timedelta(days=2)
    for place, name, after in [(LakeCatalog, "expire", 1), (LakeCatalog, "data_files", 0), (Path, "unlink", 5)]:
        with monkeypatch.context() as patch, pytest.raises(Crash):
            patch.setattr(place, name, crashing(getattr(place, name), after))
            expire.clean(LakeWriter(lake), later)
        assert answers(lake) == before
    expire.clean(LakeWriter(lake), later)
    assert answers(lake) == before
    assert on_disk(lake) == named(lake)
    assert scanned(lake) == indexed(lake)


def test_a_killed_process(lake: Path) -> None:
    before = answers(lake)
    script = (
        "import os, sys; from pathlib import Path; from trailsift.lake import compact, iceberg\n"
        "iceberg.LakeCatalog.apply = lambda *_: os._exit(9)\n"
        "compact.compact(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", script, str(lake)], check=False).returncode == 9
    assert answers(lake) == before
    assert (lake / ".writing").exists()
    assert compact(lake).partitions
    assert answers(lake) == before
    assert not (lake / ".writing").exists()


def test_a_scratch_folder_that_cannot_be_removed(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a lake that becomes read-only in the meantime; the next compaction removes it."""
    before = answers(lake)
    rmdir = os.rmdir

    def refused(path: Any, **options: Any) -> None:
        if str(path).rpartition("/")[2].startswith(".compact-"):
            raise PermissionError(errno.EACCES, "Permission denied")
        rmdir(path, **options)

    with monkeypatch.context() as patch:
        patch.setattr(os, "rmdir", refused)
        assert compact(lake).partitions
    assert list(lake.glob(".compact-*")) and answers(lake) == before
    compact(lake)
    assert not list(lake.glob(".compact-*"))


def test_replaced_files_stay_for_a_while(lake: Path) -> None:
    """For readers that planned before; afterwards they plan again."""
    before = answers(lake)
    old = on_disk(lake)
    with DuckDBEngine(open_snapshot(lake), threads=2) as reader:
        compact(lake)
        old -= named(lake)
        now = datetime.now(UTC)
        assert old < on_disk(lake)
        expire.clean(LakeWriter(lake), now + timedelta(minutes=9))
        assert old < on_disk(lake)
        # The newest commits keep what they replaced, whatever the clock says.
        expire.clean(LakeWriter(lake), now + timedelta(hours=1))
        assert old < on_disk(lake)
        done = compact(lake, now=now + timedelta(days=2))
        assert done.files_deleted >= len(old) and done.bytes_deleted > 0 and done.snapshots_expired
        assert not old & on_disk(lake)
        assert {name: reader.query(sql, cache=False).rows() for name, sql in QUESTIONS.items()} == before
    assert answers(lake) == before
    assert scanned(lake) == indexed(lake)


def test_after_more_commits_the_grace_period_is_enough(lake: Path, small_logs: Path) -> None:
    old = on_disk(lake)
    compact(lake)
    old -= named(lake)
    files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob("04/*.json.gz"))
    for file in files[:3]:
        ingest([file], lake)
    expire.clean(LakeWriter(lake), datetime.now(UTC) + timedelta(minutes=11))
    assert not old & on_disk(lake)
    assert scanned(lake) == indexed(lake)


@pytest.mark.parametrize("many", [False, True])
def test_a_clock_that_goes_back(many: bool, lake: Path, small_logs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The current snapshot is not the one that expires, and other engines still read the history."""
    files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob("04/*.json.gz"))
    clock = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: clock() - 20 * 86_400)
        if many:
            patch.setattr(iceberg, "EXPIRE_ABOVE", 2)
        for file in files[:3]:
            ingest([file], lake, compact=False)
    before = answers(lake)
    assert scanned(lake) == indexed(lake)
    expire.clean(LakeWriter(lake), datetime.now(UTC) + timedelta(days=2))
    assert answers(lake) == before
    assert scanned(lake) == indexed(lake)
    for name in schema.TABLES:
        metadata = LakeCatalog(lake).load_table(("trailsift", name)).metadata
        history = [entry.timestamp_ms for entry in metadata.snapshot_log]
        files_of = [entry.timestamp_ms for entry in metadata.metadata_log]
        assert history == sorted(history) and files_of == sorted(files_of)
        assert metadata.last_updated_ms >= max([*history, *files_of], default=0)


def test_partial_files_of_processes_that_died_go(lake: Path) -> None:
    (lake / "findings").mkdir(exist_ok=True)
    old = [lake / ".lake.json.0123456789abcdef", lake / "findings" / ".ids.json.0123456789abcdef"]
    new = lake / "findings" / ".ids.json.fedcba9876543210"
    for path in (*old, new):
        path.write_text("[")
    for path in old:
        os.utime(path, (0, 0))
    compact(lake)
    assert not any(path.exists() for path in old) and new.exists()


def test_metadata_of_expired_snapshots_goes(lake: Path) -> None:
    folder = lake / "events" / "metadata"
    stray, foreign = folder / f"{uuid.uuid4()}-m0.avro", folder / "thesis.avro"
    stray.write_bytes(b"left by a writer that died")
    foreign.write_bytes(b"not from here")
    compact(lake)
    assert stray.exists()
    before = len(list(folder.glob("*.avro")))
    compact(lake, now=datetime.now(UTC) + timedelta(days=2))
    assert not stray.exists() and foreign.exists()
    assert len(list(folder.glob("*.avro"))) < before
    assert scanned(lake) == indexed(lake)


def test_the_index_forgets_deleted_files_late(lake: Path) -> None:
    def remembered() -> int:
        with closing(index.connect(lake)) as db:
            return int(db.execute("SELECT count(*) FROM file WHERE removed IS NOT NULL").fetchone()[0])

    before, old = answers(lake), open_snapshot(lake)
    with DuckDBEngine(old, threads=1) as reader:
        compact(lake)
        compact(lake, now=datetime.now(UTC) + timedelta(days=2))
        assert remembered()
        compact(lake, now=datetime.now(UTC) + timedelta(days=8))
        assert not remembered()
        # A state that is no longer known gives no answer without its rows: a reader goes on with the newest.
        with pytest.raises(SnapshotGoneError, match="open the lake again"):
            old.files("events")
        assert reader.query(QUESTIONS["rows"], cache=False).rows() == before["rows"]
        assert reader.snapshot.seq > old.seq


def test_ids_are_still_known_after_merging(small_logs: Path, tmp_path: Path) -> None:
    lake = make_lake(small_logs, tmp_path / "lake", 10, days="03")
    done = compact(lake)
    assert done.seen_files_merged == 10
    with closing(index.connect(lake)) as db:
        assert db.execute("SELECT count(*) FROM seen_file WHERE removed IS NULL").fetchone() == (1,)
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in (small_logs / "AWSLogs").rglob("03/*.json.gz"):
        shutil.copy(path, copies / path.name)
    counts = ingest([str(copies)], lake)
    assert counts.records == counts.duplicates > 0 and not counts.stored


def test_ids_are_merged_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup, "SLICE", 1000)
    rng = np.random.default_rng(7)
    parts, group = [], []
    for number in range(5):
        words = rng.integers(0, 1 << 64, (2, 1500), np.uint64)
        words[0, :3] = (0, (1 << 64) - 1, 1 << 63)
        part, _ = dedup.sort(dedup.Ids(words[0], words[1], rng.integers(0, 1 << 32, 1500, np.uint32)))
        dedup.write([part], tmp_path / f"seen/{number}.ids")
        parts.append(part)
        group.append(SeenFile(f"seen/{number}.ids", 1500, number, 10 - number, number))
    made = expire_seen._merge(LocalStorage(tmp_path), group, LocalStorage(tmp_path))
    assert (made.ids, made.min_time, made.max_time, made.added) == (7500, 0, 10, 4)
    got, want = dedup.read(tmp_path / made.path, 7500), dedup.merge(parts)
    assert all(np.array_equal(getattr(got, name), getattr(want, name)) for name in ("high", "low", "check"))


def some(name: str, ids: int, day: int, added: int = 1) -> SeenFile:
    return SeenFile(name, ids, day * DAY, day * DAY, added)


def test_which_ids_are_merged() -> None:
    assert expire_seen.mergeable([some(str(n), 10, 0) for n in range(8)]) == []
    nine = [some(str(n), 10, 0) for n in range(9)]
    assert expire_seen.mergeable(nine) == [nine]
    # Other weeks stay apart, and a large file is not written again for small ones.
    mixed = [*nine, some("week", 10, 8), some("large", 1000, 0)]
    assert expire_seen.mergeable(mixed) == [nine]


def test_which_ids_expire() -> None:
    files = [some("old", 1, 10, 1), some("new", 1, 50, 2), some("late", 1, 10, 3), some("edge", 1, 15, 1)]
    assert [file.path for file in expire_seen.expired_seen(files, 35, 2)] == ["old"]
    assert expire_seen.expired_seen([], 35, 2) == []


def test_log_objects_expire(lake: Path) -> None:
    def known() -> int:
        with closing(index.connect(lake)) as db:
            sql = "SELECT coalesce(sum(objects), 0) FROM object_file WHERE removed IS NULL"
            return int(db.execute(sql).fetchone()[0])

    number = known()
    compact(lake)
    assert known() == number > 0
    done = compact(lake, now=datetime.now(UTC) + timedelta(days=36))
    assert done.log_objects_expired == number and not known()


def test_rejects_are_merged(tmp_path: Path) -> None:
    rng = random.Random(1)
    lake = tmp_path / "lake"
    for number in range(4):
        path = tmp_path / f"bad{number}.json"
        path.write_text(json.dumps({"Records": [7, {"eventVersion": "1"}, rng.random()]}), "utf-8")
        ingest([str(path)], lake)
    before = answers(lake)
    assert live(lake)["rejects"] == 4
    compact(lake, everything=True)
    assert live(lake)["rejects"] == 1
    assert answers(lake) == before


def test_two_at_once(lake: Path, small_logs: Path) -> None:
    """Compactions and an ingest at the same time wait for each other and lose nothing."""
    before = answers(lake)["rows"][0][0]
    files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob("04/*.json.gz"))
    errors: list[BaseException] = []

    def run(action: Callable[[], object]) -> None:
        try:
            action()
        except BaseException as error:
            errors.append(error)

    actions = [lambda: compact(lake), lambda: compact(lake), lambda: ingest(files[:20], lake)]
    threads = [threading.Thread(target=run, args=(action,)) for action in actions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert answers(lake)["rows"][0][0] > before
    assert scanned(lake) == indexed(lake)


def test_a_file_that_is_gone_from_the_table(lake: Path) -> None:
    catalog = LakeWriter(lake).catalog
    with pytest.raises(LakeError, match="no longer in the table"):
        catalog.change(schema.EVENTS, [], [File("events", "events/data/none.parquet", 1, 1, 0, 0, "s3")])


def test_settings_are_checked(lake: Path) -> None:
    path = lake / settings.LAKE_FILE
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | {"seen_days": "few"}), "utf-8")
    with pytest.raises(LakeError, match="seen_days"):
        compact(lake)


def test_there_is_one_catalog(lake: Path) -> None:
    """An ingest opens it ahead in a thread; what one stages another could not apply."""
    opened = LakeWriter(lake)
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(opened.catalog)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(map(id, found))) == 1


def test_what_is_staged_shows_in_a_tables_metadata(tmp_path: Path) -> None:
    """As in PyIceberg's own transaction, which copies it each time it is read."""
    catalog = LakeWriter.create(tmp_path / "lake").catalog
    table = catalog.load_table(("trailsift", "hourly"))
    mine, own = _Transaction(table), Transaction(table)
    assert mine.table_metadata == own.table_metadata and mine.table_metadata is mine.table_metadata
    for number in range(2):
        for each in (mine, own):
            each.set_properties({f"stage-{number}": "set"})
        assert mine.table_metadata.properties == own.table_metadata.properties
        assert mine.table_metadata.properties[f"stage-{number}"] == "set"
    # Another look at the table, as where a commit is tried again.
    mine._table = catalog.load_table(("trailsift", "usage"))
    assert mine.table_metadata.location == mine._table.metadata.location
