"""How far a lake is behind, and hours in which somebody who normally delivers did not: all of them, and no others."""

from __future__ import annotations

import json
import math
import random
import subprocess
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import trailsift
from support.lakes import commit, line, make_lake, open_engine, write_file
from support.logs import event_number, write
from trailsift.analysis import feed
from trailsift.analysis.feed import Feed, gaps, missing_hours, stretches
from trailsift.analysis.status import status
from trailsift.cli import main
from trailsift.ingest import ingest
from trailsift.lake.compact import compact
from trailsift.lake.settings import LAKE_FILE
from trailsift.schema import TABLES
from trailsift.times import DAY, HOUR

#: A Monday, in hours since 1970.
MONDAY = (datetime(2026, 3, 2, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(hours=1)
WEEK = 24 * 7
LAST = MONDAY + 4 * WEEK - 1


def office(hour: int) -> bool:
    """Return whether people are at work: Monday to Friday, 9 to 18."""
    return (hour - MONDAY) // 24 % 7 < 5 and 9 <= hour % 24 < 18


def poisson(chance: random.Random, mean: float) -> int:
    limit, product, number = math.exp(-mean), chance.random(), 0
    while product > limit:
        product *= chance.random()
        number += 1
    return number


def found(events: dict[int, int], start: int = MONDAY, last: int = LAST) -> list[tuple[int, int]]:
    """Return the gaps of one feed, as first hour and number of hours from Monday on."""
    listed = stretches([Feed("111122223333", "us-east-1", events)], start, last)
    return [(gap.first_time // HOUR - MONDAY, gap.hours) for gap in listed]


def test_outage_of_a_steady_feed() -> None:
    events = dict.fromkeys(range(MONDAY, LAST + 1), 50)
    assert found(events) == []
    for hour in range(LAST - 30, LAST - 24):
        del events[hour]
    (gap,) = stretches([Feed("a", "r", events)], MONDAY, LAST)
    assert (gap.first_time // HOUR, gap.hours, gap.usual) == (LAST - 30, 6, 50)


@pytest.mark.parametrize("hours", [24, 3 * 24, 7 * 24])
def test_outage_that_goes_on(hours: int) -> None:
    """Missing hours do not become normal as long as they are looked at."""
    events = dict.fromkeys(range(MONDAY, LAST + 1 - hours), 50)
    assert found(events) == [(4 * WEEK - hours, hours)]


def test_nights_and_weekends_of_an_office() -> None:
    """They are silent every week; a silent Wednesday afternoon is not."""
    events = {hour: 20 for hour in range(MONDAY, LAST + 1) if office(hour)}
    assert found(events) == []
    afternoon = 3 * WEEK + 2 * 24 + 13
    for hour in range(afternoon, afternoon + 5):
        del events[MONDAY + hour]
    assert found(events) == [(afternoon, 5)]


def test_weekend_on_other_days() -> None:
    """Fridays and Saturdays are the weekend in some places."""
    events = {hour: 20 for hour in range(MONDAY, LAST + 1) if (hour - MONDAY) // 24 % 7 not in (4, 5)}
    assert found(events) == []


def test_silent_at_the_same_hour_a_week_before() -> None:
    """It may be that way every week; silent on another day says nothing."""
    steady = dict.fromkeys(range(MONDAY, LAST + 1), 50)
    at = 3 * WEEK + 24 + 12
    for before, gap in ((WEEK, []), (WEEK - 24, [(at, 1)])):
        events = {hour: n for hour, n in steady.items() if hour not in (MONDAY + at, MONDAY + at - before)}
        assert [one for one in found(events, last=MONDAY + at) if one[0] == at] == gap


def test_a_nightly_job_that_did_not_run() -> None:
    events = {MONDAY + day * 24 + 3: 400 for day in range(28)}
    assert found(events) == []
    del events[MONDAY + 26 * 24 + 3]
    assert found(events) == [(26 * 24 + 3, 1)]


def test_one_event_an_hour_is_missed_after_half_a_day() -> None:
    events = dict.fromkeys(range(MONDAY, LAST + 1), 1)
    for hour in range(LAST - 40, LAST - 29):
        del events[hour]
    assert found(events) == []
    del events[LAST - 29]
    assert found(events) == [(LAST - 40 - MONDAY, 12)]


def test_a_new_account_needs_a_week() -> None:
    events = dict.fromkeys(range(LAST - 6 * 24, LAST - 10), 50)
    assert found(events) == []


@pytest.mark.parametrize("mean", [0.3, 1, 2, 4, 8, 20])
def test_no_false_alarm_by_chance(mean: float) -> None:
    """200 feeds of four weeks whose events come by chance: not one gap."""
    chance = random.Random(f"feed {mean}")
    for _ in range(200):
        events = {hour: poisson(chance, mean) for hour in range(MONDAY, LAST + 1)}
        assert found(events) == []


def test_few_false_alarms_in_bursts() -> None:
    """100 office feeds, busier at some hours, with days off now and then: fewer than one gap in twenty feed weeks."""
    chance, alarms = random.Random("bursts"), 0
    for _ in range(100):
        off = {day for day in range(28) if chance.random() < 0.03}
        events = {
            hour: poisson(chance, chance.choice([2, 10, 40]))
            for hour in range(MONDAY, LAST + 1)
            if office(hour) and (hour - MONDAY) // 24 not in off
        }
        days_off = sum(21 <= day < 28 and day % 7 < 5 for day in off)
        alarms += max(len(found(events)) - days_off, 0)
    assert alarms <= 5


@given(
    st.dictionaries(st.integers(MONDAY, LAST + 30), st.integers(0, 1 << 60), max_size=700),
    st.integers(MONDAY - 100, LAST),
    st.integers(MONDAY, LAST),
)
def test_gaps_are_of_hours_without_events(events: dict[int, int], start: int, last: int) -> None:
    """Whatever comes: only silent hours of the last week, with a week of history, in order and each once."""
    missing = missing_hours(events, start, last)
    hours = [one.hour for one in missing]
    assert hours == sorted(set(hours))
    assert all(not events.get(hour) and last - WEEK < hour <= last and hour >= start + WEEK for hour in hours)


def test_feeds_that_stop_together_share_a_gap() -> None:
    events = {hour: 50 for hour in range(MONDAY, LAST + 1) if not LAST - 30 <= hour < LAST - 20}
    feeds = [Feed(f"{number:012}", "us-east-1", events) for number in range(10)]
    (gap,) = stretches([*feeds, Feed("9", "eu-west-1", dict.fromkeys(range(MONDAY, LAST + 1), 50))], MONDAY, LAST)
    assert (gap.number, len(gap.feeds), gap.usual) == (10, feed.NAMED, 500)


def hour_of(hour: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(hours=hour)


def lake_of(path: Path, silent: range) -> Path:
    """Make a lake of four weeks of two accounts, of which one is silent for some hours."""
    lines = [
        line(hour_of(hour), 30, account_id=account, aws_region="us-east-1", category="Data")
        for hour in range(MONDAY, LAST + 1)
        for account in ("111122223333", "444455556666")
        if account == "444455556666" or hour not in silent
    ]
    return make_lake(path, {"hourly": [lines]}, format_version=2)


def test_gaps_of_a_lake(tmp_path: Path) -> None:
    """The newest hour may not be complete, so it does not count."""
    silent = range(LAST - 12, LAST + 1)
    with open_engine(lake_of(tmp_path / "lake", silent)) as engine:
        (gap,) = gaps(engine).listed
    assert gap.as_dict() == {
        "first_time": f"{hour_of(LAST - 12):%Y-%m-%dT%H:%M:%SZ}",
        "end_time": f"{hour_of(LAST):%Y-%m-%dT%H:%M:%SZ}",
        "hours": 12,
        "feeds": 1,
        "usual_events_per_hour": 30,
        "accounts_and_regions": [["111122223333", "us-east-1"]],
    }


def test_an_event_of_the_future_hides_no_gap(tmp_path: Path) -> None:
    silent = range(LAST - 12, LAST - 2)
    lake = lake_of(tmp_path / "lake", silent)
    far = write_file(lake, TABLES["hourly"], [line(datetime(9999, 12, 31, tzinfo=UTC), 1, category="Data")])
    commit(lake, [far])
    with open_engine(lake) as engine:
        assert [gap.hours for gap in gaps(engine).listed] == [10]
        assert gaps(engine, hour_of(LAST - 30)).listed == ()


def test_what_is_returned_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "MOST_GAPS", 2)
    days = range(2, 7)
    hours = [MONDAY + 3 * WEEK + 24 * day + 5 for day in days]
    lines = [line(hour_of(h), 30, account_id="1", aws_region="r") for h in range(MONDAY, LAST + 1) if h not in hours]
    with open_engine(make_lake(tmp_path / "lake", {"hourly": [lines]}, format_version=2)) as engine:
        answer = gaps(engine)
    assert len(answer.listed) == 2 and answer.total == len(days)
    assert answer.listed[0].first_time > answer.listed[1].first_time, "the newest first"


def real_feeds(lake: Path) -> tuple[list[Feed], int, int]:
    rows = trailsift.Lake(lake).query(
        "SELECT account_id, aws_region, epoch_us(hour) // 3600000000 AS hour, sum(events)::BIGINT AS n FROM hourly"
        " WHERE account_id IS NOT NULL AND aws_region IS NOT NULL GROUP BY ALL"
    )
    feeds: dict[tuple[str, str], dict[int, int]] = {}
    for row in rows.dicts():
        feeds.setdefault((row["account_id"], row["aws_region"]), {})[row["hour"]] = row["n"]
    hours = [hour for events in feeds.values() for hour in events]
    return [Feed(*names, events) for names, events in feeds.items()], min(hours), max(hours)


@pytest.mark.parametrize("part", ["benign-a", "benign-b", "benign-c", "benign-d"])
def test_real_logs_raise_no_false_alarm(part: str, real_logs: Path, tmp_path: Path) -> None:
    """Quiet accounts of real people over months, looked at as on each of their days: no gap."""
    ingest([str(real_logs / "detect" / part)], tmp_path / "lake")
    feeds, start, last = real_feeds(tmp_path / "lake")
    alarms = {hour: stretches(feeds, start, hour) for hour in range(start, last + 1, 24)}
    assert feeds and not [gap for listed in alarms.values() for gap in listed]


def test_real_logs_with_hours_taken_out(real_logs: Path, tmp_path: Path) -> None:
    """The busiest days of a real bucket, three weeks in a row, one of them with an afternoon lost."""
    ingest([str(real_logs / "files" / "Yamato-Security+suzaku-sample-data")], tmp_path / "lake")
    feeds, _, _ = real_feeds(tmp_path / "lake")
    busiest = max(feeds, key=lambda one: sum(one.events.values()))
    per_hour = Counter[int]()
    for hour, number in busiest.events.items():
        per_hour[hour % 24] += number
    always = {hour for hour, number in per_hour.items() if number >= feed.ENOUGH}
    assert len(always) >= 3
    events = {MONDAY + day * 24 + hour: per_hour[hour] for day in range(22) for hour in sorted(always)}
    lost = [MONDAY + 20 * 24 + hour for hour in sorted(always)[:3]]
    kept = {hour: number for hour, number in events.items() if hour not in lost}
    assert found(events, last=MONDAY + 22 * 24 - 1) == []
    assert sum(hours for _, hours in found(kept, last=MONDAY + 22 * 24 - 1)) == 3


# -- the rest of `status` --------------------------------------------------------------------------------------------


def delivered(folder: Path, number: int, at: datetime) -> Path:
    """Write a log object of AWS's form, delivered at a time, with an event of five minutes before."""
    place = folder / f"AWSLogs/111122223333/CloudTrail/us-east-1/{at:%Y/%m/%d}"
    name = f"111122223333_CloudTrail_us-east-1_{at:%Y%m%dT%H%MZ}_{number:016}.json.gz"
    return write(place, name, [event_number(number, eventTime=f"{at - timedelta(minutes=5):%Y-%m-%dT%H:%M:%SZ}")])


NOW = datetime(2026, 3, 20, 12, tzinfo=UTC)


def test_lag_is_that_of_the_delivery(tmp_path: Path) -> None:
    """Not of the event, and a name from the future is not believed."""
    delivered(tmp_path, 1, NOW - timedelta(hours=3))
    delivered(tmp_path, 2, NOW + timedelta(days=900))
    ingest([str(tmp_path / "AWSLogs")], tmp_path / "lake")
    delivered(tmp_path, 3, NOW - timedelta(hours=2))
    ingest([str(tmp_path / "AWSLogs")], tmp_path / "lake")
    state = status(tmp_path / "lake", NOW)
    assert state.delivery.lag == 2 * 3600
    assert state.as_dict()["delivery"]["newest_delivery_time"] == "2026-03-20T10:00:00Z"
    late = [todo for todo in state.to_do if "newest log object" in todo.why]
    assert late and "--since 2026-03-20T10:00:00Z" in late[0].command
    assert not status(tmp_path / "lake", NOW - timedelta(hours=1, minutes=30)).to_do


def test_the_command_names_where_the_logs_come_from(tmp_path: Path) -> None:
    """And it runs as it is."""
    folder = tmp_path / "my logs"
    delivered(folder, 1, NOW)
    lake = tmp_path / "the lake"
    ingest([str(folder / "AWSLogs")], lake)
    (todo,) = trailsift.Lake(lake).status().to_do
    delivered(folder, 2, NOW + timedelta(minutes=5))
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {todo.command}"], capture_output=True, text=True, check=True)
    words = done.stdout.splitlines()
    assert words[:2] == ["trailsift", "ingest"] and words[2] == str(folder / "AWSLogs")
    assert main([*words[1:], "--quiet"]) == 0
    assert trailsift.Lake(lake).status().events.rows == 2


def test_last_compaction_and_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trailsift.analysis.status.MANY_FILES", 3)
    for number in range(5):
        ingest([str(delivered(tmp_path, number, NOW + timedelta(minutes=number)))], tmp_path / "lake", compact=False)
    state = status(tmp_path / "lake", NOW + timedelta(days=1))
    assert state.last_compaction is None and state.most_files == 5
    assert "a day has 5 files" in [todo.why for todo in state.to_do]
    compact(tmp_path / "lake", now=NOW + timedelta(days=1))
    state = status(tmp_path / "lake", NOW + timedelta(minutes=10))
    assert state.last_compaction is not None and state.most_files <= 1
    assert not state.to_do


def test_what_retention_takes_next(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lake = tmp_path / "lake"
    for number in range(3):
        delivered(tmp_path, number, NOW + timedelta(days=number))
    ingest([str(tmp_path / "AWSLogs")], lake)
    handle = trailsift.Lake(lake)
    handle.set_retention("30d", "1y")
    state = status(lake, NOW + timedelta(days=3))
    assert state.keeping.applies and not state.keeping.next and state.keeping.next_on == "2026-04-20"
    delivered(tmp_path, 40, NOW + timedelta(days=31))
    ingest([str(tmp_path / "AWSLogs")], lake, compact=False)
    state = status(lake, NOW + timedelta(days=32))
    (table,) = state.keeping.next
    assert (table.table, table.days, table.first_day) == ("events", 2, "2026-03-20")
    assert [todo.command for todo in state.to_do if "retention" in todo.why] == [f"trailsift compact --lake {lake}"]
    capsys.readouterr()
    assert main(["status", "--lake", str(lake)]) == 0
    shown = capsys.readouterr().out
    assert "events 30d, summaries 1y; the next compaction removes" in shown
    assert compact(lake, now=NOW + timedelta(days=32)).events_before == "2026-03-22"
    assert status(lake, NOW + timedelta(days=32)).keeping.events_before == "2026-03-22"


def test_a_lake_whose_summaries_are_damaged_still_has_a_state(tmp_path: Path) -> None:
    lake = tmp_path / "lake"
    ingest([str(delivered(tmp_path, 1, NOW))], lake)
    for path in (lake / "hourly" / "data").rglob("*.parquet"):
        path.write_bytes(b"damaged")
    state = trailsift.Lake(lake).status()
    assert state.gaps is None and state.events.rows == 1 and state.as_dict()["gaps"] is None


@pytest.mark.parametrize("width", [80, 60])
def test_it_fits_the_terminal(
    width: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lake = tmp_path / "lake"
    ingest([str(delivered(tmp_path, 1, NOW))], lake)
    settings = json.loads((lake / LAKE_FILE).read_text())
    (lake / LAKE_FILE).write_text(json.dumps({**settings, "retention": {"events": 1, "place": "x" * 200}}))
    capsys.readouterr()
    assert main(["status", "--lake", str(lake)]) == 0
    out = capsys.readouterr().out
    assert "retention" in out and "To do: the retention in lake.json cannot be used." in out
    # Commands stay on one line, so that they can be copied.
    assert max(len(text) for text in out.splitlines() if not text.startswith(("  trailsift", "/"))) <= width


def test_days_of_the_week() -> None:
    assert [feed._is_weekend(MONDAY + 24 * day) for day in range(7)] == [False] * 5 + [True] * 2
    assert DAY == 24 * HOUR
