"""Retention: whole days go by event time, in one commit; nothing comes back, and nothing goes that should stay."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from contextlib import closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_format_1 import unpacked

import trailsift
from support.contents import indexed, scanned
from support.logs import event_number, merged, rows, write
from trailsift.analysis.status import thinned
from trailsift.cli import main
from trailsift.errors import LakeError, UsageError
from trailsift.ingest import ingest
from trailsift.lake import expire, expire_days, expire_seen, index, retention
from trailsift.lake.compact import compact
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.relocate import relocate
from trailsift.lake.retention import Cut, Retention
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.verify import verify
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, micros

DAYS = 10
PER_DAY = 6
SUMMARIES = ("hourly", "usage", "profile", "access", "sessions")
#: Noon of a day on which events of 30 days before are those of 2026-03-06.
NOON = datetime(2026, 4, 5, 12, tzinfo=UTC)
KEEP = Retention(30)
BOTH = Retention(30, 33)


def day_logs(folder: Path, number: int, day: str, **changes: Any) -> Path:
    """Write a log object with the events of one day: its first and last second, and some between."""
    times = ["00:00:00", "23:59:59", *(f"{hour:02}:30:00" for hour in range(8, 8 + PER_DAY - 2))]
    records = [
        event_number(number * 100 + at, eventTime=f"{day}T{time}Z", eventSource=f"{source}.amazonaws.com", **changes)
        for at, (time, source) in enumerate(zip(times, ["s3", "lambda"] * PER_DAY, strict=False))
    ]
    name = f"111122223333_CloudTrail_us-east-1_{day.replace('-', '')}T2359Z_{number:016}.json.gz"
    return write(folder, name, records)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A log object for each of the days from 2026-03-01 to 2026-03-10."""
    folder = tmp_path_factory.mktemp("retention") / "in"
    return [day_logs(folder, number, f"2026-03-{number:02}") for number in range(1, DAYS + 1)]


@pytest.fixture(scope="module")
def kept(logs: list[Path]) -> Path:
    """A lake of them in two commits, and a record that cannot be stored; made once, and put back for each test."""
    lake = logs[0].parent.parent / "lake"
    ingest([str(path) for path in logs[::2]], lake, compact=False)
    write(logs[0].parent.parent / "odd", "odd.json.gz", [event_number(9000, eventTime="soon")])
    ingest([str(path) for path in logs[1::2]] + [str(logs[0].parent.parent / "odd")], lake, compact=False)
    shutil.copytree(lake, lake.with_name("copy"))
    return lake.with_name("copy")


@pytest.fixture
def lake(kept: Path) -> Path:
    path = kept.with_name("lake")
    shutil.rmtree(path)
    shutil.copytree(kept, path)
    return path


def by_day(lake: Path) -> Counter[str]:
    return Counter(f"{row['event_time']:%Y-%m-%d}" for row in rows(lake, columns="event_time"))


def days(first: int, last: int = DAYS) -> dict[str, int]:
    return {f"2026-03-{number:02}": PER_DAY for number in range(first, last + 1)}


def untouched(lake: Path) -> dict[str, bytes]:
    """Return the bytes of everything in a lake but the lock."""
    return {str(path): path.read_bytes() for path in lake.rglob("*") if path.is_file() and path.name != ".lock"}


def set_settings(lake: Path, **members: Any) -> None:
    """Change ``lake.json``, as somebody with an editor would."""
    settings = json.loads((lake / LAKE_FILE).read_text())
    (lake / LAKE_FILE).write_text(json.dumps({**settings, **members}))


def applied(lake: Path, events: int = 30, **more: Any) -> None:
    set_settings(lake, retention={"events": events, "place": str(lake), **more})


# -- what goes -------------------------------------------------------------------------------------------------------


def test_days_go_whole_and_summaries_stay(lake: Path) -> None:
    """The last second of a day goes, the first of the next stays; counts, readers and Iceberg agree."""
    before, lines = untouched(lake), merged(lake)
    planned = expire_days.expire_days(lake, KEEP, dry_run=True, now=NOON)
    assert untouched(lake) == before, "a dry run changes nothing"
    done = expire_days.expire_days(lake, KEEP, now=NOON)
    assert by_day(lake) == days(6)
    assert merged(lake) == lines
    assert (planned.tables, planned.events_before) == (done.tables, done.events_before) and planned.commit is None
    assert done.events_before == "2026-03-06" and done.summaries_before is None
    (events,) = done.tables
    assert (events.table, events.days, events.first_day, events.last_day) == ("events", 5, "2026-03-01", "2026-03-05")
    assert events.rows == 5 * PER_DAY
    gone = [before[str(path)] for path in map(Path, before) if "/events/data/" in str(path) and _is_of(path, 1, 5)]
    assert (events.files, events.bytes) == (len(gone), sum(map(len, gone)))
    assert scanned(lake) == indexed(lake)
    assert verify(lake).is_sound
    again = expire_days.expire_days(lake, KEEP, now=NOON)
    assert (again.commit, again.rows) == (None, 0)


def _is_of(path: Path, first: int, last: int) -> bool:
    return any(f"/day={number:02}/" in str(path) for number in range(first, last + 1))


def test_summaries_go_later(lake: Path) -> None:
    done = expire_days.expire_days(lake, BOTH, now=NOON)
    assert {table.table: (table.days, table.last_day) for table in done.tables} == {
        "events": (5, "2026-03-05"),
        **dict.fromkeys(SUMMARIES, (2, "2026-03-02")),
    }
    assert by_day(lake) == days(6)
    assert min(row["hour"] for row in rows(lake, "hourly")) == datetime(2026, 3, 3, tzinfo=UTC)
    assert min(f"{row['day']}" for row in rows(lake, "usage")) == "2026-03-03"
    assert sum(row["events"] for row in rows(lake, "hourly")) == 8 * PER_DAY
    assert len(rows(lake, "rejects")) == 1, "it was read a moment ago"
    assert scanned(lake) == indexed(lake)
    assert verify(lake).is_sound


def test_everything_goes(lake: Path) -> None:
    """A lake whose last file goes is an empty lake, which takes new logs and says where the rest is."""
    done = expire_days.expire_days(lake, Retention(30, 30))
    assert done.tables[0].rows == DAYS * PER_DAY
    assert {name: number for name, number in indexed(lake).items() if number} == {"rejects": 1}
    assert scanned(lake) == indexed(lake)
    handle = trailsift.Lake(lake)
    assert f"before {done.events_before}" in handle.query("SELECT * FROM events").why_empty()
    assert handle.status().events.rows == 0
    day_logs(lake.parent / "new", 500, f"{datetime.now(UTC) - timedelta(days=1):%Y-%m-%d}")
    assert ingest([str(lake.parent / "new")], lake).stored == PER_DAY


def test_rejects_go_with_the_events(lake: Path) -> None:
    """Their raw text is that of events; they go by the time of the ingest."""
    done = expire_days.expire_days(lake, KEEP, now=datetime.now(UTC) + timedelta(days=32))
    assert {table.table: table.rows for table in done.tables}["rejects"] == 1
    assert not rows(lake, "rejects")


def test_hourly_partitions(logs: list[Path], tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ingest([str(path) for path in logs], lake, hourly_partitions=True)
    expire_days.expire_days(lake, KEEP, now=NOON)
    assert by_day(lake) == days(6)
    assert scanned(lake) == indexed(lake)


def test_lake_of_format_1(tmp_path: Path) -> None:
    """It is upgraded first, and the message says how."""
    lake = unpacked(tmp_path)
    relocate(lake)
    with pytest.raises(LakeError, match="trailsift compact"):
        expire_days.expire_days(lake, KEEP)
    assert expire_days.expire_days(lake, KEEP, dry_run=True).rows > 0


#: Days around the first of the year, with and without a part of a day.
OFFSETS = st.tuples(st.integers(0, 60), st.sampled_from([0, 1, DAY // 2, DAY - 1])).map(lambda at: at[0] * DAY + at[1])
NEW_YEAR = micros(datetime(2026, 1, 1, tzinfo=UTC))


@hypothesis.settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.sampled_from(["events", "hourly", "usage", "rejects"]), OFFSETS, st.integers(0, 3 * DAY)),
        min_size=5,
        max_size=30,
    ),
    st.integers(1, 30),
    st.none() | st.integers(1, 40),
    st.integers(1, 30),
    OFFSETS,
)
def test_plan_takes_what_is_too_old_and_nothing_else(
    spans: list[tuple[str, int, int]], events: int, summaries: int | None, at_least: int, now: int
) -> None:
    """A file goes if all of its days are over and too old; nothing younger than the floor ever goes."""
    files = [
        File(name, f"{at}", 1, 1, NEW_YEAR + low, NEW_YEAR + low + width) for at, (name, low, width) in enumerate(spans)
    ]
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(microseconds=now)
    plan = retention.plan(files, retention.cut_of(Retention(events, summaries, at_least), moment))
    for file in files:
        limit = events if file.table in ("events", "rejects") else summaries
        end_of_last_day = (file.max_time // DAY + 1) * DAY
        # The newest row is older than the period even if it was the first of its day.
        midnight = (NEW_YEAR + now) // DAY * DAY
        is_old = limit is not None and midnight - end_of_last_day >= max(limit, at_least) * DAY
        assert (file in plan.files) == is_old
        if is_old:
            assert NEW_YEAR + now - file.max_time > at_least * DAY
    stay = [file for file in files if file not in plan.files]
    assert plan.straddling == sum((c := plan.cut.of(file.table)) is not None and file.min_time < c for file in stay)


def test_file_of_unknown_times_stays() -> None:
    """Another engine may have left out when its rows are: such a file is not taken for an old one."""
    cut = Cut(micros(NOON), micros(NOON))
    unknown = File("events", "a", 1, 1, -(1 << 60), 1 << 62)
    long = File("events", "b", 1, 1, 0, micros(NOON) - DAY)
    plan = retention.plan([unknown, long], cut)
    assert (plan.files, plan.straddling) == ((), 2)


@given(st.integers(0, 10**7), st.sampled_from("dwy"))
def test_periods(number: int, unit: str) -> None:
    """A period is read as written, or refused by name; it is never read as another."""
    expected = number * {"d": 1, "w": 7, "y": 365}[unit]
    text = f"{number}{unit}"
    if 1 <= expected <= retention.MAX_DAYS and number <= 999_999:
        assert retention.days_of(text, "--events") == expected
        assert retention.days_of(retention.period_of(expected), "--events") == expected
    else:
        with pytest.raises(UsageError, match="--events"):
            retention.days_of(text, "--events")


@pytest.mark.parametrize(
    "text", ["", "90", "d", "-90d", "9.5d", "90h", "90m", "90d ago", "\uff19\uff10d", "1e3d", "0d", "90 d"]
)
def test_what_is_no_period(text: str) -> None:
    with pytest.raises(UsageError, match="is not a period"):
        retention.asked(text, None)


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (("29d", None, None), "below the floor of 30d"),
        (("90d", "60d", None), "would remove the counts"),
        ((None, "2y", None), "would remove the counts"),
        (("90d", "2y", "120d"), "below the floor of 120d"),
        ((None, None, "30d"), "how long to keep events"),
    ],
)
def test_what_is_refused(asked: tuple[str | None, ...], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        retention.asked(*asked)


# -- nothing comes back ----------------------------------------------------------------------------------------------


@pytest.fixture
def forgetful(lake: Path) -> Path:
    """The lake with later events, its old ids forgotten, and its old events removed."""
    ingest([str(day_logs(lake.parent / "late", 600, "2026-05-01"))], lake, compact=False)
    expire_seen.merge_seen(LakeWriter(lake), datetime.now(UTC) + timedelta(days=40))
    expire_days.expire_days(lake, KEEP, now=NOON)
    with closing(index.connect(lake)) as db:
        assert retention.read_removed(db).closed == (tuple(map(_day, ("2026-03-01", "2026-03-05"))),)
    return lake


def _day(text: str) -> int:
    return micros(datetime.fromisoformat(text).replace(tzinfo=UTC)) // DAY


@pytest.mark.parametrize("workers", [None, 2])
def test_forgotten_logs_do_not_come_back(workers: int | None, forgetful: Path, logs: list[Path]) -> None:
    """The names and ids of old logs are forgotten: neither events nor counts are there twice."""
    lines, events = merged(forgetful), by_day(forgetful)
    counts = ingest([str(path) for path in logs[:5]], forgetful, again=True, workers=workers)
    assert counts.dropped == {"retention": 5 * PER_DAY} and counts.stored == 0
    assert counts.records == counts.stored + counts.duplicates + sum(counts.dropped.values()) + counts.malformed
    assert (merged(forgetful), by_day(forgetful)) == (lines, events)
    again = ingest([str(path) for path in logs[:5]], forgetful, again=True)
    assert again.duplicates == 5 * PER_DAY
    assert trailsift.Lake(forgetful).status().reconciled


def test_known_logs_are_duplicates(lake: Path, logs: list[Path]) -> None:
    expire_days.expire_days(lake, KEEP, now=NOON)
    lines = merged(lake)
    assert ingest([str(path) for path in logs], lake).log_objects_known == DAYS
    assert ingest([str(path) for path in logs], lake, again=True).duplicates == DAYS * PER_DAY
    assert (merged(lake), by_day(lake)) == (lines, days(6))


@pytest.mark.parametrize("workers", [None, 2])
def test_late_events_of_removed_days_are_counted(workers: int | None, lake: Path) -> None:
    """They are new, so the summaries count them; they are not stored, and their drop has a name."""
    expire_days.expire_days(lake, BOTH, now=NOON)
    late = lake.parent / f"late{workers}"
    for number, day in ((700, "2026-03-02"), (701, "2026-03-04"), (702, "2026-03-08")):
        day_logs(late, number, day)
    counts = ingest([str(late)], lake, workers=workers)
    assert (counts.stored, counts.dropped) == (PER_DAY, {"retention": 2 * PER_DAY})
    assert by_day(lake) == {**days(6), "2026-03-08": 2 * PER_DAY}
    hours = Counter[str]()
    for row in rows(lake, "hourly"):
        hours[f"{row['hour']:%m-%d}"] += row["events"]
    assert hours["03-04"] == hours["03-08"] == 2 * PER_DAY
    assert hours["03-02"] == 0, "the summaries of that day are removed, too"


def test_logs_from_before_the_lake_are_counted(forgetful: Path) -> None:
    """A year that the lake never had is not closed: its counts are new, its events are too old to be stored."""
    day_logs(forgetful.parent / "year", 800, "2025-03-02")
    counts = ingest([str(forgetful.parent / "year")], forgetful)
    assert counts.dropped == {"retention": PER_DAY}
    assert sum(row["events"] for row in rows(forgetful, "hourly") if row["hour"].year == 2025) == PER_DAY


RULES = '[[rule]]\nname = "retention"\nwhen = { event_name = "GetObject" }\naction = "drop"\n'


def test_a_rule_of_that_name(lake: Path, tmp_path: Path) -> None:
    """Counts add up, and what a rule drops whole is not taken for a sample."""
    (tmp_path / "rules.toml").write_text(RULES)
    expire_days.expire_days(lake, KEEP, now=NOON)
    handle = trailsift.Lake(lake)
    day_logs(tmp_path / "in", 900, "2026-03-02")
    day_logs(tmp_path / "in", 901, "2026-03-09")
    handle.ingest(tmp_path / "in", rules=tmp_path / "rules.toml")
    status = handle.status()
    assert status.reconciled and status.dropped == {"retention": 2 * PER_DAY}
    assert handle.estimate(["user_agent"]).counted_from == "2026-03-06"


def test_estimates_count_from_there(lake: Path) -> None:
    """Removed events are not taken for sampled ones; the note says from when on was counted."""
    expire_days.expire_days(lake, KEEP, now=NOON)
    day_logs(lake.parent / "more", 950, "2026-03-03")
    handle = trailsift.Lake(lake)
    handle.ingest(lake.parent / "more")
    estimate = handle.estimate(["user_agent"])
    assert [group.events.estimate for group in estimate.groups] == [5 * PER_DAY]
    assert estimate.groups[0].events.exact and not estimate.exact
    assert estimate.counted_from == "2026-03-06" and estimate.not_stored == 0
    assert not thinned(lake)
    later = handle.estimate(["user_agent"], since="2026-03-08")
    assert later.exact and later.counted_from is None
    assert handle.estimate(["event_name"]).groups[0].events.estimate == (DAYS + 1) * PER_DAY


def test_estimates_of_a_sampled_lake(lake: Path, tmp_path: Path) -> None:
    """Only what was sampled away of the days that are left is missing."""
    (tmp_path / "sample.toml").write_text(
        '[[rule]]\nname = "half"\nwhen = { event_name = "GetObject" }\naction = "sample"\nrate = 0.5\n'
    )
    handle = trailsift.Lake(lake)
    for at, day in enumerate(("2026-03-02", "2026-03-09")):
        for part in range(20):
            day_logs(tmp_path / "sampled", 1000 + at * 20 + part, day)
    handle.ingest(tmp_path / "sampled", rules=tmp_path / "sample.toml")
    expire_days.expire_days(lake, KEEP, now=NOON)
    estimate = handle.estimate(["user_agent"])
    stored = 5 * PER_DAY + 20 * PER_DAY
    assert estimate.counted_from == "2026-03-06"
    assert estimate.not_stored == stored - handle.status().events.rows > 0


def test_second_copies_of_removed_events_are_no_conflict(lake: Path) -> None:
    """The events to compare them with are gone: they are duplicates, and nothing of them is kept."""
    expire_days.expire_days(lake, KEEP, now=NOON)
    day_logs(lake.parent / "copies", 3, "2026-03-03", userAgent="another")
    counts = ingest([str(lake.parent / "copies")], lake)
    assert (counts.duplicates, counts.conflicts) == (PER_DAY, {})
    day_logs(lake.parent / "copies2", 8, "2026-03-08", userAgent="another")
    assert ingest([str(lake.parent / "copies2")], lake).conflicts == {"conflicting-content": PER_DAY}


# -- readers, kills, the disk ----------------------------------------------------------------------------------------


def test_readers_at_work_and_the_end_on_disk(lake: Path) -> None:
    """Who planned before reads on; the files go a day later, and not before."""
    sql = "SELECT count(*), sum(hash(event_id)::HUGEINT) FROM events"
    with DuckDBEngine(open_snapshot(lake)) as engine:
        whole = engine.query(sql, cache=False).rows()
        done = expire_days.expire_days(lake, KEEP)
        assert engine.query(sql, cache=False).rows() == whole
        engine.refresh()
        assert engine.query("SELECT count(*) FROM events", cache=False).rows() == [(0,)]
    gone = list((lake / "events/data").rglob("*.parquet"))
    assert len(gone) == done.files
    assert done.deleted_from is not None
    end = datetime.fromisoformat(done.deleted_from)
    expire.clean(LakeWriter(lake), end - timedelta(minutes=1))
    assert all(path.exists() for path in gone)
    counts = expire.clean(LakeWriter(lake), end + timedelta(minutes=1))
    assert not any(path.exists() for path in gone)
    assert (counts["files_deleted"], counts["bytes_deleted"]) == (done.files, done.bytes)
    assert verify(lake).is_sound
    assert scanned(lake) == indexed(lake)


STEPS = {
    "nothing staged": "at(transaction.Transaction, 'commit')",
    "one table staged": "at(iceberg.LakeCatalog, 'change', 2)",
    "all staged": "at(transaction.Transaction, '_apply')",
    "transaction open": "at(index, 'record_files')",
    "committed": "at(lock.WriteLock, 'release')",
    "cleaning": "at(expire, 'delete_metadata')",
}
_DRIVER = """
import os, signal, sys
from datetime import datetime
from pathlib import Path
from trailsift.lake import expire, expire_days, iceberg, index, lock, transaction
from trailsift.lake.retention import Retention

def at(owner, name, nth=1):
    inner, calls = getattr(owner, name), []
    def outer(*arguments, **named):
        calls.append(1)
        if len(calls) == nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return inner(*arguments, **named)
    setattr(owner, name, outer)

exec(sys.argv[3])
expire_days.expire_days(Path(sys.argv[1]), Retention(30, 33), now=datetime.fromisoformat(sys.argv[2]))
"""


@pytest.mark.parametrize("step", STEPS)
def test_kill(step: str, lake: Path) -> None:
    """Events and summaries are all there or all gone; the next run completes, and finds a sound lake."""
    before = by_day(lake), merged(lake)
    done = subprocess.run([sys.executable, "-c", _DRIVER, str(lake), NOON.isoformat(), STEPS[step]], check=False)
    assert done.returncode == -signal.SIGKILL, "the process got past the step"
    committed = step in ("committed", "cleaning")
    if committed:
        assert by_day(lake) == days(6) and min(f"{row['day']}" for row in rows(lake, "usage")) == "2026-03-03"
    else:
        assert (by_day(lake), merged(lake)) == before
    again = expire_days.expire_days(lake, BOTH, now=NOON)
    assert (again.commit is None) == committed
    assert by_day(lake) == days(6)
    assert sum(row["events"] for row in rows(lake, "hourly")) == 8 * PER_DAY
    assert scanned(lake) == indexed(lake)
    found = verify(lake)
    assert found.is_sound, found.problems


# -- settings --------------------------------------------------------------------------------------------------------


def test_compaction_applies_the_settings(lake: Path) -> None:
    """Age counts from the newest event, which is of 2026-03-10, or from the clock if that is earlier."""
    saved = expire_days.save(lake, retention.asked("30d", "1y"))
    assert saved == Retention(30, 365, 30, str(lake))
    assert compact(lake, now=datetime(2199, 1, 1, tzinfo=UTC)).files_expired == 0, "the clock is wrong"
    assert by_day(lake) == days(1)
    day_logs(lake.parent / "april", 610, "2026-04-04")
    ingest([str(lake.parent / "april")], lake, compact=False)
    assert compact(lake, now=datetime(2026, 3, 1, tzinfo=UTC)).files_expired == 0, "the clock is behind"
    done = compact(lake, now=datetime(2199, 1, 1, tzinfo=UTC))
    assert (done.rows_expired, done.events_before) == (5 * PER_DAY, "2026-03-06")
    assert by_day(lake) == {**days(6), "2026-04-04": PER_DAY}
    assert verify(lake).is_sound


def test_ingests_apply_the_settings(lake: Path) -> None:
    """Nobody ever runs a command: each new day lets the oldest go."""
    expire_days.save(lake, KEEP)
    for number in range(1, 5):
        day_logs(lake.parent / "day", 620 + number, f"2026-04-{number:02}")
        ingest([str(lake.parent / "day")], lake)
        # The newest day is over at midnight: 30 days before that.
        assert min(by_day(lake)) == f"2026-03-{number + 2:02}"


def test_without_settings_nothing_goes(lake: Path) -> None:
    day_logs(lake.parent / "later", 630, "2027-04-01")
    ingest([str(lake.parent / "later")], lake)
    compact(lake, everything=True)
    assert by_day(lake) == {**days(1), "2027-04-01": PER_DAY}
    with pytest.raises(UsageError, match="--events 90d"):
        expire_days.expire_days(lake)


HOSTILE: list[Any] = [
    {"events": 1},
    {"events": 29},
    {"events": 30, "at_least": 1},
    {"events": 30, "at_least": 0},
    {"events": 0},
    {"events": -1},
    {"events": True},
    {"events": 30.0},
    {"events": "30"},
    {"events": None},
    {"events": 1 << 70},
    {"events": 36_501},
    {"events": 90, "summaries": 30},
    {"events": 30, "at_least": 40},
    {"summaries": 30},
    {"events": 30, "now": "2199-01-01"},
    {"events": [30]},
    {},
    [],
    "30d",
    30,
    True,
]


@pytest.mark.parametrize("found", HOSTILE, ids=repr)
def test_hostile_settings(found: Any, lake: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is removed by them; the lake answers, says what is wrong, and how to put it in order."""
    day_logs(lake.parent / "new-year", 640, "2027-01-01")
    if isinstance(found, dict):
        found = {"place": str(lake), **found}
    set_settings(lake, retention=found)
    handle = trailsift.Lake(lake)
    assert handle.query("SELECT count(*) FROM events").value() == DAYS * PER_DAY
    status = handle.status()
    assert status.keeping.problem is not None and any("--forget" in todo.command for todo in status.to_do)
    with pytest.raises(LakeError, match=r"retention in lake\.json"):
        compact(lake)
    with pytest.raises(LakeError, match=r"retention in lake\.json"):
        expire_days.expire_days(lake)
    with caplog.at_level(logging.WARNING, "trailsift"):
        assert ingest([str(lake.parent / "new-year")], lake).stored == PER_DAY
    assert "retention in lake.json" in caplog.text
    assert by_day(lake) == {**days(1), "2027-01-01": PER_DAY}
    assert main(["expire", "--forget", "--lake", str(lake)]) == 0
    assert handle.retention() is None
    compact(lake)


def test_no_file_undercuts_the_floor(lake: Path) -> None:
    """The most that a lake from somebody else can ask for is the floor, whatever a period says."""
    applied(lake, 30)
    day_logs(lake.parent / "floor", 650, "2026-03-31")
    ingest([str(lake.parent / "floor")], lake)
    assert min(by_day(lake)) == "2026-03-02"


def test_reading_never_removes(lake: Path) -> None:
    day_logs(lake.parent / "reading", 660, "2027-03-31")
    ingest([str(lake.parent / "reading")], lake, compact=False)
    applied(lake)
    before = untouched(lake)
    handle = trailsift.Lake(lake)
    handle.query("SELECT count(*) FROM events").value()
    handle.status()
    handle.verify()
    handle.expire(dry_run=True)
    for words in (["status"], ["expire", "--show"], ["expire", "--dry-run"], ["query", "SELECT 1"]):
        assert main([*words, "--lake", str(lake)]) == 0
    assert untouched(lake) == before


def test_a_lake_that_was_moved_removes_nothing(lake: Path, tmp_path: Path) -> None:
    """Its settings were saved for another place: whoever has it now says so for this one."""
    day_logs(lake.parent / "moved", 670, "2027-03-31")
    ingest([str(lake.parent / "moved")], lake, compact=False)
    applied(lake)
    copy = tmp_path / "copy"
    shutil.copytree(lake, copy)
    relocate(copy)
    assert compact(copy).files_expired == 0
    with pytest.raises(UsageError, match="saved for the lake at"):
        expire_days.expire_days(copy)
    status = trailsift.Lake(copy).status()
    assert not status.keeping.applies and not status.keeping.next
    (todo,) = [todo for todo in status.to_do if "another place" in todo.why]
    assert main(todo.command.split()[1:]) == 0
    assert compact(copy).rows_expired == DAYS * PER_DAY


def test_settings_below_the_floor_are_not_saved(lake: Path) -> None:
    """A command may go below, each time that somebody runs it; a file may not."""
    with pytest.raises(UsageError, match="keep at least 30d"):
        expire_days.save(lake, retention.asked("7d", None, "7d"))
    assert retention.saved(json.loads((lake / LAKE_FILE).read_text())) is None
    done = expire_days.expire_days(lake, retention.asked("7d", None, "7d"), now=datetime(2026, 3, 11, 5, tzinfo=UTC))
    assert done.events_before == "2026-03-04" and by_day(lake) == days(4)


@pytest.mark.parametrize(
    "found",
    [
        {"events": "2026-13-01"},
        {"events": 5},
        {"closed": [["2026-03-01"]]},
        {"closed": [["2026-03-02", "2026-03-01"]]},
        {"closed": "x"},
        {"closed": [["2026-03-01", "2026-03-02"]] * 10_001},
        [],
        "x",
    ],
    ids=lambda found: repr(found)[:40],
)
def test_hostile_record_of_what_was_removed(found: Any, lake: Path) -> None:
    """Who reads it is told so, and nothing is stored by it."""
    with closing(index.connect(lake)) as db:
        sql = "INSERT INTO commit_log SELECT seq + 1, committed_at, 'retention', ?, locations FROM commit_log"
        db.execute(f"{sql} ORDER BY seq DESC LIMIT 1", (json.dumps({"retention": found}),))
    day_logs(lake.parent / "x", 680, "2026-03-31")
    with pytest.raises(LakeError, match="counts are"):
        ingest([str(lake.parent / "x")], lake)
    with pytest.raises(LakeError, match="counts are"):
        trailsift.Lake(lake).status()
    assert not verify(lake).is_sound


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(0, 10)), max_size=20))
@hypothesis.example([(0, 0), (1, 0), (3, 5)])
def test_stretches_hold_the_same_days(found: list[tuple[int, int]]) -> None:
    pairs = [(first, first + length) for first, length in found]
    runs = retention.runs(pairs)
    assert {d for a, b in runs for d in range(a, b + 1)} == {d for a, b in pairs for d in range(a, b + 1)}
    assert all(before[1] + 1 < after[0] for before, after in pairwise(runs))


# -- what is said ----------------------------------------------------------------------------------------------------


def test_answers_say_why_they_are_empty(lake: Path) -> None:
    expire_days.expire_days(lake, BOTH, now=NOON)
    handle = trailsift.Lake(lake)

    def why(sql: str) -> str:
        return handle.query(sql).why_empty()

    early = why("SELECT * FROM events WHERE event_time < '2026-03-03'")
    assert "Retention has removed the events before 2026-03-06" in early and "hourly" in early
    lines = why("SELECT * FROM hourly WHERE hour < '2026-03-02'")
    assert "Retention has removed the summaries before 2026-03-03" in lines
    other = why("SELECT * FROM events WHERE user_agent = 'x'")
    assert other.endswith("Retention has removed the events before 2026-03-06.")
    late = why("SELECT * FROM events WHERE event_time > '2026-04-01'")
    assert "Retention" not in late


def test_reports_take_full_hours_where_events_are_removed(lake: Path) -> None:
    """A part of an hour is counted from events, which are gone: the report is of the whole hour, and says so."""
    handle = trailsift.Lake(lake)
    cut = {"since": "2026-03-02T08:45", "until": "2026-03-02T10:15"}
    assert handle.summary(**cut).total.events == 1  # type: ignore[union-attr]
    expire_days.expire_days(lake, KEEP, now=NOON)
    overview = handle.summary(**cut)
    assert overview.total is not None and overview.total.events == 3
    assert overview.period.as_dict()["since"] == "2026-03-02T08:00:00Z"
    assert handle.summary(since="2026-03-07T08:45", until="2026-03-07T10:15").total.events == 1  # type: ignore[union-attr]


def test_findings_say_that_their_events_are_removed(small_logs: Path, tmp_path: Path) -> None:
    handle = trailsift.Lake(tmp_path / "lake")
    handle.ingest(small_logs / "AWSLogs")
    finding = handle.find("1")
    assert handle.finding(finding).removed_before is None
    handle.expire(events="30d")
    detail = handle.finding(finding)
    assert detail.events == [] and detail.lines
    assert detail.as_dict()["events_removed_before"] == detail.removed_before is not None


# -- the command -----------------------------------------------------------------------------------------------------


def said(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    out, err = capsys.readouterr()
    return code, out, err


def test_command(lake: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    place = ("--lake", str(lake))
    code, out, _ = said(capsys, "expire", "--events", "90d", "--summaries", "2y", "--dry-run", *place)
    assert code == 0 and "Would be removed: events before" in out and "Nothing was changed" in out
    assert max(map(len, out.splitlines())) <= 80
    code, out, _ = said(capsys, "expire", "--events", "90d", "--dry-run", "--json", *place)
    document = json.loads(out)
    assert document["dry_run"] and document["rows"] == DAYS * PER_DAY and document["commit"] is None
    assert said(capsys, "expire", *place)[0] == 2
    code, out, _ = said(capsys, "expire", "--events", "90d", "--summaries", "2y", "--save", *place)
    assert code == 0 and "Events 90d, summaries 2y; nothing younger than 30d" in out
    assert by_day(lake) == days(1), "saving removes nothing"
    assert json.loads(said(capsys, "expire", "--show", "--json", *place)[1])["retention"] == {
        "events_days": 90,
        "summaries_days": 730,
        "at_least_days": 30,
    }
    code, out, _ = said(capsys, "expire", *place)
    assert code == 0 and "Removed: events before" in out and "still on the disk" in out
    assert not by_day(lake)
    assert "Nothing to remove" in said(capsys, "expire", *place)[1]
    assert "no setting" in said(capsys, "expire", "--forget", *place)[1]


@pytest.mark.parametrize(
    "words",
    [
        ["--events", "soon"],
        ["--events", "10d"],
        ["--summaries", "2y"],
        ["--save"],
        ["--save", "--show"],
        ["--show", "--events", "90d"],
        ["--forget", "--events", "90d"],
        ["--events", "10d", "--at-least", "10d", "--save"],
        ["--events", "90d", "--save", "--dry-run"],
    ],
    ids=" ".join,
)
def test_wrong_usage(words: list[str], lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = untouched(lake)
    code, _, err = said(capsys, "expire", *words, "--lake", str(lake))
    assert code == 2 and err.startswith("trailsift: ") and "Traceback" not in err
    assert untouched(lake) == before


def test_two_at_once(lake: Path) -> None:
    """Two commands, and an ingest beside them: one removes, the other finds nothing to do."""
    day_logs(lake.parent / "beside", 690, "2026-03-09")
    script = (
        "import sys; from pathlib import Path; from datetime import datetime;"
        "from trailsift.lake import expire_days; from trailsift.lake.retention import Retention;"
        "print(expire_days.expire_days(Path(sys.argv[1]), Retention(30, 33),"
        " now=datetime.fromisoformat(sys.argv[2])).commit)"
    )
    words = [sys.executable, "-c", script, str(lake), NOON.isoformat()]
    started: list[subprocess.Popen[str]] = [
        subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) for _ in range(2)
    ]
    counts = ingest([str(lake.parent / "beside")], lake)
    ends = [process.communicate()[0].strip() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert counts.stored == PER_DAY and sorted(end == "None" for end in ends) == [False, True]
    assert by_day(lake) == {**days(6), "2026-03-09": 2 * PER_DAY}
    assert verify(lake).is_sound
