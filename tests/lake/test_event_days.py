"""The day of an event by its id: the files of other days are not opened, and nothing is lost where no day is known."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.logs import event_number, write
from trailsift.errors import LakeError
from trailsift.ingest import ingest
from trailsift.lake import dedup, event_days, expire_seen
from trailsift.lake.compact import compact
from trailsift.lake.event_days import MOST_IDS
from trailsift.lake.index import Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine

DAYS = [f"2026-03-0{number}" for number in range(1, 6)]


def event_id(number: int) -> str:
    return str(event_number(number)["eventID"])


@pytest.fixture
def lake(tmp_path: Path) -> Path:
    """Twenty events, four on each of five days, and one whose id is not a UUID; in two commits."""
    for half in range(2):
        records = [
            event_number(number, eventTime=f"{DAYS[number % 5]}T12:00:00Z")
            for number in range(half * 10, half * 10 + 10)
        ]
        if half:
            records.append(event_number(99, eventTime=f"{DAYS[2]}T12:00:00Z") | {"eventID": "not-a-uuid"})
        write(tmp_path / "in", f"{half}.json.gz", records)
        ingest([str(tmp_path / "in")], tmp_path / "lake", compact=False)
    return tmp_path / "lake"


def days(lake: Path, *ids: str) -> set[str] | None:
    found = event_days.event_days(open_snapshot(lake), ids)
    return None if found is None else {f"{datetime.fromtimestamp(day * 86_400, UTC):%Y-%m-%d}" for day in found.days}


def files(lake: Path, sql: str) -> int:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return len(engine.plan(sql).files["events"])


def test_days_of_events(lake: Path) -> None:
    assert days(lake, event_id(7)) == {DAYS[2]}
    assert days(lake, event_id(0), event_id(19)) == {DAYS[0], DAYS[4]}
    assert days(lake, "not-a-uuid") == {DAYS[2]}
    assert days(lake, "never-seen") is None
    assert days(lake, event_id(7), "never-seen") is None
    assert days(lake, event_id(10).upper()) is None
    assert days(lake) is None
    assert days(lake, *(event_id(number) for number in range(MOST_IDS + 1))) is None


@pytest.mark.parametrize("compacted", [False, True])
def test_files_of_other_days_are_not_planned(compacted: bool, lake: Path) -> None:
    if compacted:
        compact(lake, everything=True)
    total = files(lake, "SELECT * FROM events")
    assert total == (5 if compacted else 10)
    with DuckDBEngine(open_snapshot(lake)) as engine:
        for number in range(20):
            sql = f"SELECT event_time FROM events WHERE event_id = '{event_id(number)}'"
            assert len(engine.plan(sql).files["events"]) == total // 5
            assert f"{engine.query(sql).rows()[0][0]:%Y-%m-%d}" == DAYS[number % 5]
        two = f"event_id IN ('{event_id(0)}', '{event_id(1)}')"
        assert len(engine.plan(f"SELECT 1 FROM events WHERE {two}").files["events"]) == 2 * total // 5
        assert len(engine.query(f"SELECT 1 FROM events WHERE {two}").rows()) == 2
        # An id that is not known may be in any file; so may a row that another condition lets pass.
        one = f"event_id = '{event_id(0)}'"
        for where in ("event_id = 'never-seen'", f"{one} OR event_name = 'x'", f"event_id <> '{event_id(0)}'"):
            assert len(engine.plan(f"SELECT 1 FROM events WHERE {where}").files["events"]) == total


def test_a_damaged_file_of_ids_hides_nothing(lake: Path) -> None:
    sql = f"SELECT count(*) FROM events WHERE event_id = '{event_id(3)}'"
    for path in (lake / "seen").iterdir():
        path.write_bytes(path.read_bytes()[:-3])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        assert engine.query(sql).rows() == [(1,)]
    for path in (lake / "seen").iterdir():
        path.unlink()
    with DuckDBEngine(open_snapshot(lake)) as engine:
        assert engine.query(sql, cache=False).rows() == [(1,)]


@pytest.mark.parametrize("change", ["ids = -1", "ids = 'x'", "path = 'seen/../lake.json'", "ids = 1 << 40"])
def test_hostile_rows_of_the_catalog(change: str, lake: Path) -> None:
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        db.execute(f"UPDATE seen_file SET {change} WHERE rowid = 1")
        db.commit()
    snapshot: Snapshot = open_snapshot(lake)
    if "path" in change:
        with pytest.raises(LakeError, match="the catalog names"):
            event_days.event_days(snapshot, [event_id(0)])
    else:
        # The file that the row is about is passed over, so the day is not known: all files are planned.
        assert event_days.event_days(snapshot, [event_id(0)]) is None


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3), st.integers(0, 70_000)), max_size=60), st.booleans())
def test_days_survive_merges(entries: list[tuple[int, int, int]], first_is_old: bool) -> None:
    """Whatever is merged with whatever, also with a list of format version 1, which has no days."""
    entries = list({(high, low): (high, low, day) for high, low, day in entries}.values())
    half = len(entries) // 2
    parts = []
    for number, some in enumerate((entries[:half], entries[half:])):
        high, low, day = (np.array([entry[at] for entry in some], np.int64) for at in range(3))
        known = None if first_is_old and number == 0 else dedup.days_of(day * 86_400_000_000)
        made = dedup.Ids(high.astype(np.uint64), low.astype(np.uint64), (high * 4 + low).astype(np.uint32), known)
        parts.append(dedup.sort(made)[0])
    merged = dedup.merge(parts)
    old = {entry[:2] for entry in entries[:half]} if first_is_old else set()
    want = {entry[:2]: dedup.UNKNOWN_DAY if entry[:2] in old or entry[2] >= 0xFFFF else entry[2] for entry in entries}
    got = zip(merged.high.tolist(), merged.low.tolist(), merged.known_days().tolist(), strict=True)
    assert {(high, low): day for high, low, day in got} == want
    assert merged.check.tolist() == [high * 4 + low for high, low in sorted(want)]


def test_an_event_that_was_stored_again(tmp_path: Path) -> None:
    """Its id had been too old to be kept: it is on two days, and the ids know the later one only."""
    first = event_number(1, eventTime="2026-01-01T10:00:00Z")
    others = [event_number(number, eventTime=f"2026-03-{number}T10:00:00Z") for number in range(10, 20)]
    lake = tmp_path / "lake"
    for number, records in enumerate(([first], others)):
        write(tmp_path / str(number), "1.json.gz", records)
        ingest([str(tmp_path / str(number))], lake, compact=False)
    assert expire_seen.merge_seen(LakeWriter(lake), datetime.now(UTC) + timedelta(days=40))["seen_files_expired"] == 1
    write(tmp_path / "2", "1.json.gz", [{**first, "eventTime": "2026-03-25T10:00:00Z"}])
    assert ingest([str(tmp_path / "2")], lake, compact=False).stored == 1
    with DuckDBEngine(open_snapshot(lake)) as engine:
        sql = f"SELECT event_time FROM events WHERE event_id = '{event_id(1)}'"
        assert len(engine.query(sql).rows()) == 2
        assert len(engine.plan(sql).files["events"]) == 2
    # A version that did not record how far the ids have expired: any file may hold it.
    with closing(sqlite3.connect(lake / "catalog.db")) as db:
        db.execute("UPDATE commit_log SET counts = json_remove(counts, '$.expired_to')")
        db.commit()
    assert days(lake, event_id(1)) is None
