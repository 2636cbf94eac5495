"""Events over time: steps in the reader's zone, the week before, lists, filters."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from support.lakes import DAY, make_lake
from trailsift.analysis.activity import MOST_SERIES, Activity, Sums, activity, starts
from trailsift.analysis.filters import filters_of
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import HOUR, iso, micros

START = micros(DAY)
EVERYTHING = Period()


def row(hour: int, events: int = 1, **more: Any) -> dict[str, Any]:
    at = DAY + timedelta(hours=hour)
    made = {"hour": at, "service": "s3", "event_name": "GetObject", "caller": "web", "resource_arn": "r",
            "events": events, "bytes_in": 0, "bytes_out": 10 * events, "first_time": at, "last_time": at,
            "category": "Data"}  # fmt: skip
    return made | more


def asked(root: Path, rows: list[dict[str, Any]], period: Period = EVERYTHING, **options: Any) -> Activity:
    lake = make_lake(root / "lake", {"hourly": [rows]} if rows else {})
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return activity(engine, period, **options)


def test_hours_and_the_week_before(tmp_path: Path) -> None:
    rows = [row(0, 5), row(168, 7), row(169, 3, service="lambda"), row(170, 2, error_code="AccessDenied"),
            row(170, 4, error_code="NoSuchKey")]  # fmt: skip
    found = asked(tmp_path, rows, Period(START + 168 * HOUR, START + 172 * HOUR))
    assert found.step == 3600 and iso(found.times[0]) == iso(START + 168 * HOUR)
    assert [(one.name, one.events) for one in found.series] == [("s3", (7, 0, 6, 0)), ("lambda", (0, 3, 0, 0))]
    assert found.before == (5, 0, 0, 0) and found.denied == (0, 0, 2, 0)
    assert found.total == Sums(16, 2, 4, 0, 160) and found.total_before == Sums(5, 0, 0, 0, 50)
    assert [(line.name, line.events) for line in found.lists["error"]] == [("NoSuchKey", 4), ("AccessDenied", 2)]
    assert found.groups["error"] == 2 and found.lists["caller"][0].before == 5


def test_the_rest_is_one_series(tmp_path: Path) -> None:
    rows = [row(0, 100 - number, caller=f"caller {number:02d}") for number in range(12)]
    found = asked(tmp_path, rows, by="caller", limit=3)
    assert [one.rest for one in found.series] == [False] * MOST_SERIES + [True]
    assert found.series[-1].events == (sum(100 - number for number in range(MOST_SERIES, 12)),)
    assert len(found.lists["caller"]) == 3 and found.groups["caller"] == 12
    # A week that the lake does not have is not a week without events.
    assert found.before is None and found.total_before is None


def test_days_are_those_of_the_zone(tmp_path: Path) -> None:
    """Through the change to summer time, when a day has 23 hours."""
    zone = ZoneInfo("Europe/Berlin")
    rows = [row(hour) for hour in range(24 * 100)]
    found = asked(tmp_path, rows, Period(START, START + 24 * 100 * HOUR, zone))
    assert found.step == 24 * 3600
    assert sum(found.series[0].events) == 2400
    # 2024-03-31 has 23 hours in Berlin; the first and the last day are cut.
    assert sorted(set(found.series[0].events[1:-1])) == [23, 24] and found.series[0].events.count(23) == 2
    assert iso(starts(Period(START, START + 48 * HOUR, zone), 24)[0]) == "2024-01-14T23:00:00Z"


def test_filters(tmp_path: Path) -> None:
    rows = [row(0, 5), row(0, 7, caller=None), row(0, 1, error_code="AccessDenied"), row(0, 2, caller="it's")]
    lake = make_lake(tmp_path / "lake", {"hourly": [rows]})
    with DuckDBEngine(open_snapshot(lake)) as engine:

        def total(**filters: list[str]) -> int:
            return activity(engine, Period(), filters=filters_of(filters)).total.events

        assert total(caller=["web"]) == 6 and total(caller=[""]) == 7 and total(caller=["", "it's"]) == 9
        assert total(outcome=["denied"]) == 1 and total(outcome=["ok"], caller=["web"]) == 5
        assert total(caller=["nobody"]) == 0
        narrowed = activity(engine, Period(), filters=filters_of({"service": ["s3"]}))
        assert narrowed.left_out == {"network": ("service",)} and "network" not in narrowed.lists


def test_an_empty_lake(tmp_path: Path) -> None:
    found = asked(tmp_path, [])
    assert (found.times, found.total.events, found.lists) == ((), 0, {})


def test_wrong_questions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from service"):
        asked(tmp_path, [row(0)], by="colour")
    with pytest.raises(UsageError, match="negative"):
        asked(tmp_path / "x", [row(0)], limit=-1)
