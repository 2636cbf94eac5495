"""Planted differences are found and ranked, and what only looks like one is not."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.lakes import DAY, make_lake
from trailsift.analysis.explain import FACTOR, SURPRISE, Explained, differences, explain, surprise
from trailsift.analysis.filters import filters_of
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import HOUR, micros

CALLERS = ("etl", "web", "batch", "backup")
START = micros(DAY)


def hourly(hour: int, caller: str, events: int, event: str = "GetObject", **more: Any) -> dict[str, Any]:
    at = DAY + timedelta(hours=hour)
    row = {"hour": at, "service": "s3", "event_name": event, "caller": caller, "resource_arn": f"arn:aws:s3:::{caller}",
           "events": events, "first_time": at, "last_time": at, "category": "Data"}  # fmt: skip
    return row | more


def daily(table: str, day: int, **values: Any) -> dict[str, Any]:
    at = DAY + timedelta(days=day)
    return {"day": at.date(), "first_time": at, "last_time": at, "category": "Data", "touch": "target"} | values


def asked(root: Path, rows: list[dict[str, Any]], since: int, until: int, **options: Any) -> Explained:
    """Explain the hours from ``since`` to ``until`` of a lake of these rows."""
    tables = options.pop("tables", {})
    lake = make_lake(root / "lake", {"hourly": [rows], **{name: [lines] for name, lines in tables.items()}})
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return explain(engine, Period(START + since * HOUR, START + until * HOUR), **options)


def usual(hours: int, events: int = 100) -> list[dict[str, Any]]:
    return [hourly(hour, caller, events) for hour in range(hours) for caller in CALLERS]


def test_one_caller_more(tmp_path: Path) -> None:
    rows = [*usual(48), *(hourly(hour, "web", 900, "ListObjects") for hour in (40, 41))]
    found = asked(tmp_path, rows, 40, 42)
    assert (found.hours, found.events, found.events_before, found.expected) == ((2, 24), 2600, 9600, 800.0)
    by_kind = {one.dimension: one for one in reversed(found.differences)}
    assert (by_kind["event"].names, by_kind["event"].kind, by_kind["event"].now) == (("s3", "ListObjects"), "new", 1800)
    assert (by_kind["caller"].names, by_kind["caller"].kind) == (("web",), "more")
    assert (by_kind["caller"].before, by_kind["caller"].expected) == (2400, 200.0)
    assert by_kind["caller"].share == pytest.approx(2000 / 2600, abs=1e-4) and by_kind["caller"].share_before == 0.25
    # The others called as often as before: nothing is said about them.
    assert {one.names[-1] for one in found.differences} == {"web", "ListObjects", "arn:aws:s3:::web"}


def test_more_of_everything_is_nobodys_doing(tmp_path: Path) -> None:
    """Each value grew as everything did: it is listed, but explains nothing."""
    rows = [*usual(40), *(hourly(hour, caller, 300) for hour in (40, 41) for caller in CALLERS)]
    found = asked(tmp_path, rows, 40, 42)
    assert found.expected == 800.0 and found.events == 2400
    assert found.differences and all(one.score == 0 for one in found.differences)


def test_who_stopped(tmp_path: Path) -> None:
    rows = [row for row in usual(48) if not (row["caller"] == "batch" and row["hour"] >= DAY + timedelta(hours=40))]
    first = asked(tmp_path, rows, 40, 48).differences[0]
    assert first.kind == "gone" and first.names[-1] in ("batch", "arn:aws:s3:::batch") and first.moved == 1.0


def test_errors_of_one_kind(tmp_path: Path) -> None:
    rows = [*usual(48), hourly(45, "web", 300, error_code="AccessDenied")]
    found = asked(tmp_path, rows, 45, 46)
    assert ("error", ("AccessDenied",), "new") in [(one.dimension, one.names, one.kind) for one in found.differences]
    assert not [one for one in found.differences if one.names == (None,)]


def test_the_same_hours_of_the_weeks_before(tmp_path: Path) -> None:
    """What happens every week at that hour is no difference; against the day before it is one."""
    weekly = [hourly(week * 168 + 30, "backup", 5000) for week in range(5)]
    rows = [*usual(5 * 168, 10), *weekly]
    found = asked(tmp_path, rows, 4 * 168 + 30, 4 * 168 + 31, against="weeks")
    assert (found.hours, found.differences) == ((1, 4), ())
    (tmp_path / "again").mkdir()
    against_yesterday = asked(tmp_path / "again", rows, 4 * 168 + 30, 4 * 168 + 31)
    assert against_yesterday.differences[0].names[-1] in ("backup", "arn:aws:s3:::backup")


def test_only_weeks_that_the_lake_has_count(tmp_path: Path) -> None:
    found = asked(tmp_path, usual(200), 180, 182, against="weeks")
    assert (found.hours, len(found.others)) == ((2, 2), 1)
    (tmp_path / "first").mkdir()
    nothing = asked(tmp_path / "first", usual(20), 0, 5)
    assert (nothing.others, nothing.differences, nothing.expected) == ((), (), None)


def test_what_is_kept_by_day(tmp_path: Path) -> None:
    tables = {
        "usage": [
            *(
                daily("usage", day, caller="web", service="s3", resource_arn="r", key_pattern="a/{n}", events=500)
                for day in range(3)
            ),
            daily("usage", 2, caller="web", service="s3", resource_arn="r", key_pattern="b/{uuid}", events=900),
        ],
        "access": [
            *(daily("access", day, caller="web", source_network="10.0.0.0/24", events=500) for day in range(3)),
            daily("access", 2, caller="web", source_network="192.0.2.0/24", events=900),
        ],
        "profile": [
            *(
                daily("profile", day, caller="web", dimension="user_agent", value="aws-cli", events=500)
                for day in range(3)
            ),
            daily("profile", 2, caller="web", dimension="user_agent", value="curl", events=900),
        ],
    }  # fmt: skip
    found = asked(tmp_path, usual(72), 50, 52, tables=tables)
    by_day = {one.dimension: one for one in found.differences if one.by_day}
    assert by_day["pattern"].names == ("r", "b/{uuid}") and by_day["pattern"].kind == "new"
    assert by_day["network"].names == ("192.0.2.0/24",) and by_day["client"].names == ("curl",)
    assert found.days == (1, 1)
    (tmp_path / "filtered").mkdir()
    filters = filters_of({"region": ["eu-west-1"], "caller": ["web"]})
    narrowed = asked(tmp_path / "filtered", usual(72), 50, 52, tables=tables, filters=filters)
    assert narrowed.left_out == {"pattern": ("region",), "network": ("region",), "client": ("region",)}


def test_chance_is_no_difference() -> None:
    rows = [((str(number),), 10 + number % 3, 240) for number in range(100)]
    assert differences("caller", rows, (1, 24), by_day=False) == []
    assert surprise(10, 240, 1 / 24) == pytest.approx(0, abs=1e-9)
    assert surprise(0, 240, 1 / 24) > SURPRISE > surprise(16, 240, 1 / 24)
    # Beyond chance, but too little to speak of.
    assert differences("caller", [(("a",), 14_000, 240_000), (("b",), 1, 24)], (1, 24), by_day=False) == []
    assert FACTOR > 14_000 / 10_000


def test_wrong_questions(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose from before, weeks"):
        asked(tmp_path, usual(30), 25, 26, against="never")
    with pytest.raises(UsageError, match="choose from service"):
        filters_of({"colour": ["red"]})
