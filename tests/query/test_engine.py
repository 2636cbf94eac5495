"""The DuckDB engine: its tables and views, snapshots, threads, limits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from support.lakes import DAY, commit, event, line, make_lake, open_engine, write_file
from trailsift.errors import EngineError, UsageError
from trailsift.lake.index import File
from trailsift.query import DuckDBEngine
from trailsift.query.relations import MACROS, relations
from trailsift.query.views import split_by_shared_days
from trailsift.schema import SKETCH_SIZE, TABLES


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDBEngine]:
    """Three days of events in one file per day and service, and summary rows in several files."""
    days = [DAY + timedelta(days=n) for n in range(3)]
    events = [
        [event(day + timedelta(hours=h), service, f"role/{h % 3}", bytes_out=h) for h in range(0, 24, 4)]
        for day in days
        for service in ("s3", "lambda")
    ]
    hourly = [
        [line(days[0], 2, source_ips=[-5, 7]), line(days[0] + timedelta(hours=1))],
        [line(days[0], 3, source_ips=[7, 9], error_code=None)],
        [line(days[1], 4, source_ips=[1, 2, 3])],
    ]
    root = make_lake(tmp_path / "lake", {"events": events, "hourly": hourly})
    with open_engine(root) as engine:
        yield engine


def test_a_reader_sees_one_row_per_key(engine: DuckDBEngine) -> None:
    result = engine.query(
        "SELECT hour, events, bytes_out, source_ips, first_time, last_time FROM hourly ORDER BY hour, events"
    )
    assert [row[1:4] for row in result.rows()] == [(5, 50, [-5, 7, 9]), (1, 10, []), (4, 40, [1, 2, 3])]
    assert result.rows()[0][4:] == (DAY + timedelta(minutes=5), DAY + timedelta(minutes=50))


def test_merging_adds_and_keeps_extremes(tmp_path: Path) -> None:
    base = {"day": DAY.date(), "role_arn": "r", "event_name": "GetObject", "key_pattern": "a/{n}"}
    one = {
        **base,
        "events": 1,
        "bytes_in": None,
        "bytes_out": 5,
        "example_key": "a/2",
        "first_time": DAY,
        "last_time": DAY,
    }
    two = {**one, "events": 2, "bytes_out": None, "example_key": "a/1", "last_time": DAY + timedelta(hours=1)}
    root = make_lake(tmp_path / "lake", {"usage": [[one], [two], [{**one, "error_code": "AccessDenied"}]]})
    with open_engine(root) as engine:
        rows = engine.query(
            "SELECT error_code, events, bytes_in, bytes_out, example_key, first_time, last_time FROM usage ORDER BY ALL"
        ).rows()
    assert rows == [
        ("AccessDenied", 1, None, 5, "a/2", DAY, DAY),
        (None, 3, None, 5, "a/1", DAY, DAY + timedelta(hours=1)),
    ]


def test_sketches_keep_the_smallest_hashes(tmp_path: Path) -> None:
    low, high = list(range(-3000, -1000)), list(range(-2000, 0))
    root = make_lake(
        tmp_path / "lake", {"hourly": [[line(DAY, source_ips=low)], [line(DAY, source_ips=high)], [line(DAY)]]}
    )
    with open_engine(root) as engine:
        (sketch,) = engine.query("SELECT source_ips FROM hourly").rows()[0]
    assert sketch == list(range(-3000, -3000 + SKETCH_SIZE))


@pytest.mark.parametrize("count", [0, 1, 2047, 2048, 50_000])
def test_distinct_count_is_within_five_percent(count: int) -> None:
    import random

    dice = random.Random(count)
    hashes = sorted(dice.randrange(-(2**63), 2**63) for _ in range(count))[:SKETCH_SIZE]
    with duckdb.connect() as db:
        for _, sql in MACROS.values():
            db.execute(sql)
        (found,) = db.execute("SELECT distinct_count($1::BIGINT[])", [hashes]).fetchone() or (None,)
        (none,) = db.execute("SELECT distinct_count(NULL)").fetchone() or (None,)
    assert none == 0
    assert found == count if count < SKETCH_SIZE else abs(found - count) < 0.05 * count


def test_hourly_summary(engine: DuckDBEngine) -> None:
    rows = engine.query("SELECT * FROM hourly_summary ORDER BY hour").dicts()
    assert rows[0] == {"hour": DAY, "eventname": "GetObject", "event_count": 5, "unique_ips": 3}
    assert [row["event_count"] for row in rows] == [5, 1, 4]


def test_empty_tables_have_their_columns(tmp_path: Path) -> None:
    with open_engine(make_lake(tmp_path / "lake")) as engine:
        for name in relations():
            described = engine.query(f"DESCRIBE {name}").rows()
            assert [tuple(row[:2]) for row in described] == engine.query(f"SELECT * FROM {name}").columns
            assert engine.query(f"SELECT * FROM {name}").rows() == []


def test_planned_types_are_those_of_the_data(engine: DuckDBEngine) -> None:
    for name in ("events", "hourly", "hourly_summary"):
        planned = engine.query(f"SELECT * FROM {name}").columns
        assert [tuple(row[:2]) for row in engine.query(f"DESCRIBE {name}").rows()] == planned


def test_hourly_partitions_add_a_column(tmp_path: Path) -> None:
    root = make_lake(tmp_path / "lake", {"events": [[event(DAY + timedelta(hours=7))]]}, hourly_partitions=True)
    with open_engine(root) as engine:
        assert engine.query("SELECT day, hour FROM events WHERE hour = '07'").rows() == [("15", "07")]


@pytest.mark.parametrize("name", ["it's", "a[b]", "a*b", "a?b", 'a"b', "é ü", "a\\b", "a\nb", "$x {y}"])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    root = make_lake(tmp_path / name / "lake", {"events": [[event(DAY)]], "hourly": [[line(DAY)], [line(DAY)]]})
    with open_engine(root) as engine:
        assert engine.query("SELECT count(*) FROM events").value() == 1
        assert engine.query("SELECT sum(events) FROM hourly").value() == 2


def test_files_that_share_a_day_are_grouped() -> None:
    day = 86_400_000_000

    def file(name: str, first: int, last: int) -> File:
        return File("hourly", name, 1, 1, first, last)

    files = [
        file("a", 0, 5),
        file("b", day, day + 5),
        file("c", day + 9, 2 * day + 1),
        file("d", 2 * day + 9, 2 * day + 9),
    ]
    whole, parts = split_by_shared_days([*files, file("e", 3 * day, 3 * day)])
    assert [f.path for f in whole] == ["a", "e"]
    assert [f.path for f in parts] == ["b", "c", "d"]
    assert split_by_shared_days([]) == ([], [])


def test_a_file_that_is_gone_leads_to_the_newest_snapshot(engine: DuckDBEngine) -> None:
    root = engine.snapshot.root
    old = engine.snapshot.files("events")
    assert engine.query("SELECT count(*) FROM events", cache=False).value() == 36
    new = write_file(root, TABLES["events"], [event(DAY), event(DAY)], "new")
    seq = commit(root, [new], old)
    for file in old:
        (root / file.path).unlink()
    result = engine.query("SELECT event_time FROM events", cache=False)
    assert len(result.rows()) == 2
    assert result.snapshot_seq == seq == engine.snapshot.seq


def test_a_file_that_is_missing_is_named(engine: DuckDBEngine) -> None:
    gone = engine.snapshot.files("events")[0]
    (engine.snapshot.root / gone.path).unlink()
    with pytest.raises(EngineError, match=r"(?s)data file of the lake is missing.*Restore it"):
        engine.query("SELECT event_time FROM events", cache=False)


@pytest.mark.parametrize("damage", ["emptied", "cut", "not UTF-8"])
def test_a_damaged_file_is_not_the_statements_fault(engine: DuckDBEngine, damage: str) -> None:
    """The error names the file and says what to do; its exit code is not that of wrong usage."""
    path = engine.snapshot.root / engine.snapshot.files("events")[0].path
    data = path.read_bytes()
    if damage == "not UTF-8":
        # Written without compression, so that the text is found.
        pq.write_table(pq.read_table(path, partitioning=None), path, compression="none", use_dictionary=False)
        data = path.read_bytes().replace(b"role/", b"ro\xffe/")
    path.write_bytes({"emptied": b"", "cut": data[:-9]}.get(damage, data))
    with pytest.raises(EngineError, match=r"(?s)data file of the lake is damaged.*Restore it") as caught:
        engine.query("SELECT role_arn FROM events", cache=False).rows()
    assert "{" not in str(caught.value) and caught.value.exit_code == 1


def test_threads_share_an_engine(engine: DuckDBEngine) -> None:
    results: list[Any] = []

    def ask(n: int) -> None:
        for _ in range(5):
            rows = engine.query(f"SELECT count(*), {n} FROM events WHERE bytes_out >= {n}", cache=False).rows()
            results.append((n, rows))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = {0: 36, 1: 30, 2: 30, 3: 30}
    assert sorted(results) == sorted((n, [(expected[n], n)]) for n in range(4) for _ in range(5))


def test_a_query_can_be_stopped(engine: DuckDBEngine) -> None:
    endless = "SELECT count(*) FROM range(100000000000) a(x), range(1000) b(y) WHERE x % 7 = y"
    with pytest.raises(EngineError, match=r"stopped after 0\.2 s"):
        engine.query(endless, timeout=0.2)
    assert engine.query("SELECT 1").value() == 1


def test_memory_is_limited(tmp_path: Path) -> None:
    root = make_lake(tmp_path / "lake")
    with open_engine(root, memory_limit="50MB") as engine, pytest.raises(EngineError, match="more memory"):
        engine.query("SELECT list(x || 'abcdefghijklmnopqrstuvwxyz') FROM range(10000000) t(x)")
    with pytest.raises(UsageError, match="memory limit"):
        open_engine(root, memory_limit="a lot")


def test_parameters_of_our_own_sql_prune_too(engine: DuckDBEngine) -> None:
    result = engine.sql(
        "SELECT count(*) FROM events WHERE event_time >= $since AND service = $service",
        {"since": DAY + timedelta(days=2), "service": "s3"},
    )
    assert result.value() == 6
    assert [file.service for file in result.plan.files["events"]] == ["s3"]


def test_large_results_stream_and_can_be_read_twice(engine: DuckDBEngine) -> None:
    result = engine.query("SELECT x FROM range(25000) t(x)", cache=False)
    assert result.count is None
    assert [len(rows) for rows in result.fetched()] == [10_000, 10_000, 5_000]
    assert result.count == 25_000
    assert len(result.rows()) == 25_000


def test_unknown_zone(engine: DuckDBEngine) -> None:
    for name in ("Nowhere/Land", "", "../../etc/passwd"):
        with pytest.raises(UsageError, match="time zone"):
            DuckDBEngine(engine.snapshot, timezone=name)


def test_nothing_is_left_behind(engine: DuckDBEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with DuckDBEngine(engine.snapshot) as other:
        (folder,) = (tmp_path / "cache" / "trailsift" / "spill").iterdir()
        assert folder.stat().st_mode & 0o777 == folder.parent.stat().st_mode & 0o777 == 0o700
        assert other.query("SELECT count(*) FROM events").value() == 36
    assert not folder.exists()
