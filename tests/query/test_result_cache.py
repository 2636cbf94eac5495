"""Results from disk: of the same statement on the same snapshot, and never one that could be outdated."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from support.lakes import DAY, commit, event, make_lake, open_engine, write_file
from trailsift.query import Cache, DuckDBEngine
from trailsift.query.result_cache import Recorder, default_folder, key_of
from trailsift.schema import TABLES

COUNT = "SELECT count(*) FROM events"


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDBEngine]:
    root = make_lake(tmp_path / "lake", {"events": [[event(DAY)], [event(DAY + timedelta(days=1))]]})
    with open_engine(root) as engine:
        yield engine


def kept(engine: DuckDBEngine) -> list[Path]:
    return sorted(engine.cache.folder.glob("*"))


def test_the_second_time_comes_from_disk(engine: DuckDBEngine) -> None:
    first = engine.query("SELECT event_time, bytes_out FROM events ORDER BY event_time")
    again = engine.query("select  event_time, bytes_out FROM events ORDER BY event_time")
    second = engine.query("SELECT event_time,  bytes_out\nFROM events ORDER BY event_time\n")
    assert (first.from_cache, again.from_cache, second.from_cache) == (False, False, True)
    same = engine.query("SELECT event_time, bytes_out\n FROM events ORDER BY event_time")
    assert same.from_cache
    assert same.rows() == first.rows()
    assert same.columns == first.columns
    assert same.snapshot_seq == first.snapshot_seq
    assert len(same.plan.files["events"]) == 2
    assert engine.query(COUNT, cache=False).from_cache is False
    assert same.arrow().num_rows == 2


def test_a_commit_leads_to_a_new_result(engine: DuckDBEngine) -> None:
    root = engine.snapshot.root
    assert engine.query(COUNT).value() == 2
    commit(root, [write_file(root, TABLES["events"], [event(DAY)], "new")])
    assert engine.query(COUNT).from_cache
    assert engine.refresh()
    assert not engine.refresh()
    result = engine.query(COUNT)
    assert (result.value(), result.from_cache) == (3, False)


def test_another_lake_in_the_same_place_has_its_own_results(tmp_path: Path) -> None:
    import shutil

    root = make_lake(tmp_path / "lake", {"events": [[event(DAY)]]})
    with open_engine(root) as engine:
        assert engine.query(COUNT).value() == 1
    shutil.rmtree(root)
    make_lake(tmp_path / "lake", {"events": [[event(DAY), event(DAY)]]})
    commit(root, [])
    with open_engine(root) as engine:
        assert engine.query(COUNT).value() == 2


def test_zones_have_their_own_results(engine: DuckDBEngine) -> None:
    sql = "SELECT date_trunc('day', min(event_time))::VARCHAR FROM events"
    with open_engine(engine.snapshot.root, timezone="Asia/Seoul") as seoul:
        assert engine.query(sql).value() != seoul.query(sql).value()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT now()",
        "SELECT current_date",
        "SELECT count(*) FROM events WHERE event_time > now() - INTERVAL 7 DAY",
        "SELECT count(*) FROM events WHERE event_time > ago(INTERVAL 7 DAY)",
        "SELECT age(event_time) FROM events",
        "SELECT CURRENT_TIMESTAMP",
        "SELECT random()",
        "SELECT uuid()",
        "SELECT gen_random_uuid()",
        "SELECT event_id FROM events TABLESAMPLE 50%",
        "SELECT current_user",
        "SELECT user",
        "SELECT txid_current()",
        "WITH x AS (SELECT (SELECT random()) AS r) SELECT * FROM x",
        "SELECT list_transform([1], x -> x + random())",
        "SELECT sum(1) OVER (ORDER BY random()) FROM events",
        "SELECT current_database()",
    ],
)
def test_results_that_can_change_are_not_kept(engine: DuckDBEngine, sql: str) -> None:
    for _ in range(2):
        assert not engine.query(sql).from_cache
    assert kept(engine) == []


def test_an_age_can_be_accepted(engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    first = engine.query("SELECT now()", ttl=300)
    second = engine.query("SELECT now()", ttl=300)
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.rows() == second.rows()
    assert not engine.query("SELECT now()").from_cache
    real = __import__("time").time
    monkeypatch.setattr("trailsift.query.result_cache.time.time", lambda: real() + 301)
    assert not engine.query("SELECT now()", ttl=300).from_cache
    monkeypatch.setattr("trailsift.query.result_cache.time.time", lambda: real() - 86_400)
    assert not engine.query("SELECT now()", ttl=300).from_cache


def test_files_belong_to_the_user(engine: DuckDBEngine) -> None:
    engine.query(COUNT)
    (path,) = kept(engine)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert engine.snapshot.root not in path.parents


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"not compressed",
        zlib.compress(b"not json"),
        zlib.compress(b"[]"),
        zlib.compress(b"{}"),
        zlib.compress(b'{"key": "other", "made": 0, "ages": false, "columns": [], "rows": []}'),
    ],
)
def test_a_broken_file_is_ignored(engine: DuckDBEngine, broken: bytes) -> None:
    engine.query(COUNT)
    (path,) = kept(engine)
    path.write_bytes(broken)
    result = engine.query(COUNT)
    assert (result.value(), result.from_cache) == (2, False)
    assert engine.query(COUNT).from_cache


def test_a_cut_file_is_ignored(engine: DuckDBEngine) -> None:
    engine.query(COUNT)
    (path,) = kept(engine)
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert engine.query(COUNT).value() == 2


def test_a_folder_that_cannot_be_written_does_no_harm(engine: DuckDBEngine, tmp_path: Path) -> None:
    blocker = tmp_path / "file"
    blocker.write_text("x")
    engine.cache = Cache(blocker / "answers")
    assert [engine.query(COUNT).value() for _ in range(2)] == [2, 2]


def test_large_results_are_not_kept(engine: DuckDBEngine) -> None:
    engine.cache = Cache(engine.cache.folder, max_answer=1000)
    sql = "SELECT i, 'abcdefgh' FROM range({0}) t(i)"
    for count, expected in ((20, True), (200, False), (30_000, False)):
        for _ in range(2):
            result = engine.query(sql.format(count))
            assert len(result.rows()) == count
        assert result.from_cache is expected


def test_a_streamed_result_is_kept_once_it_is_read_to_its_end(engine: DuckDBEngine) -> None:
    sql = "SELECT i FROM range(30000) t(i)"
    cut = engine.query(sql)
    next(cut.fetched())
    assert not engine.query(sql).from_cache
    whole = engine.query(sql)
    assert len(whole.rows()) == 30_000
    again = engine.query(sql)
    assert again.from_cache
    assert again.rows() == [(i,) for i in range(30_000)]


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "answers", max_total=1000)
    size = 0
    for n in range(6):
        cache.put(f"k{n}", [("a", "VARCHAR")], [f'[["{os.urandom(100).hex()}"]]'], ages=False)
        path = cache.folder / f"k{n}.answer"
        size = path.stat().st_size
        os.utime(path, (n, n))
        if n == 2:
            # Old, but read just now: stays.
            os.utime(cache.folder / "k0.answer", (100, 100))
    left = {path.stem for path in cache.folder.iterdir()}
    assert "k0" in left
    assert "k5" in left
    assert "k1" not in left
    assert len(left) * size <= 1000
    cache.clear()
    assert list(cache.folder.iterdir()) == []


def test_the_folder_is_listed_once_for_many_small_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path / "answers", max_total=100_000)
    listings = []
    trim = Cache._trim
    monkeypatch.setattr(Cache, "_trim", lambda self: listings.append(1) or trim(self))
    for n in range(40):
        cache.put(f"k{n}", [("a", "VARCHAR")], ['[["x"]]'], ages=False)
    assert len(listings) == 1
    for n in range(900):
        cache.put(f"l{n}", [("a", "VARCHAR")], [f'[["{os.urandom(100).hex()}"]]'], ages=False)
    assert len(listings) > 10
    assert sum(path.stat().st_size for path in cache.folder.iterdir()) <= 100_000


def test_keys_and_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert key_of("a", 1) == key_of("a", 1) != key_of("a1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "trailsift" / "answers"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_folder() == tmp_path / ".cache" / "trailsift" / "answers"


def test_a_recorder_gives_up_on_what_is_too_large() -> None:
    recorder = Recorder(limit=50)
    recorder.add([(1,)] * 5)
    assert recorder.chunks == ["[[1], [1], [1], [1], [1]]"]
    recorder.add([("x" * 100,)])
    assert recorder.chunks is None
    recorder.add([(1,)])
    assert recorder.chunks is None
