"""What a dashboard shows first: events over time by one column, the same hours a week before, totals, and the largest
callers, resources, networks and so on. All of it comes from summary tables, by whole hours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import DENIED, TARGETS, ask, tuple_of
from trailsift.analysis.filters import NO_FILTERS, Filters
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.times import DAY, HOUR, micros, moment

#: What events over time can be split by -> the column of ``hourly``.
STACKS: dict[str, str] = {
    "service": "service",
    "event": "event_name",
    "caller": "caller",
    "account": "account_id",
    "region": "aws_region",
    "resource": "resource_arn",
    "error": "error_code",
}
#: Series that are told apart at most; the others are one series.
MOST_SERIES = 7
#: Lines of each list, unless a limit is given.
MOST_LINES = 8
WEEK = 7 * DAY
#: (a period of up to this many hours, hours of each step).
_STEPS = ((9 * 24, 1), (50 * 24, 6), (500 * 24, 24), (10**9, 7 * 24))
#: The steps of every zone begin at a Monday's midnight.
_ORIGIN = datetime(2000, 1, 3)


class Sums(NamedTuple):
    """Events of a group, how many of them were denied or failed for another reason, and bytes."""

    events: int
    denied: int
    failed: int
    bytes_in: int
    bytes_out: int


class Line(NamedTuple):
    """One value of a list: its numbers, and the events of the same hours a week before."""

    name: str | None
    events: int
    denied: int
    bytes_out: int
    before: int


class Series(NamedTuple):
    """The events of one value by step, aligned with ``Activity.times``. ``rest``: all other values together."""

    name: str | None
    rest: bool
    events: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Activity(JsonObject):
    """Events of a period by step and by value.

    ``period``: widened to whole hours. ``times``: start of each step (microseconds since 1970); ``step``: seconds.
    ``before``: events of the same steps a week before, None where the lake has nothing of that week. ``lists``: the
    largest values by kind; the networks are of the whole UTC days that the period touches. ``left_out``: list -> the
    filters that its table cannot express, so that there is no list.
    """

    period: Period
    by: str
    filters: Filters
    step: int
    times: tuple[int, ...]
    series: tuple[Series, ...]
    denied: tuple[int, ...]
    before: tuple[int, ...] | None
    total: Sums
    total_before: Sums | None
    lists: dict[str, tuple[Line, ...]]
    groups: dict[str, int]
    left_out: dict[str, tuple[str, ...]]

    JSON: ClassVar[dict[str, str]] = {
        "period": "period",
        "by": "by",
        "filters": "filters.by_name",
        "step_seconds": "step",
        "times": "seconds",
        "series": "series",
        "denied": "denied",
        "week_before": "before",
        "total": "total",
        "total_week_before": "total_before",
        "lists": "lists",
        "groups": "groups",
        "left_out": "left_out",
    }

    @property
    def seconds(self) -> list[int]:
        """The start of each step in seconds since 1970."""
        return [time // 1_000_000 for time in self.times]

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The events as names of columns and rows: one per step and series."""
        rows = [
            (moment(time), None if one.rest else one.name, one.rest, one.events[place])
            for place, time in enumerate(self.times)
            for one in self.series
            if one.events[place]
        ]
        return ["time", self.by, "is_rest", "events"], rows


#: Lists of ``hourly`` -> their column.
_LISTS: dict[str, str] = {
    "caller": "caller",
    "resource": "resource_arn",
    "event": "event_name",
    "service": "service",
    "account": "account_id",
    "error": "error_code",
}


def activity(
    engine: Engine, period: Period, by: str = "service", filters: Filters = NO_FILTERS, limit: int = MOST_LINES
) -> Activity:
    """Return the events of a period, which is widened to whole hours; without limits: of all hours of the lake.

    Raise UsageError for an unknown ``by`` or a negative limit.
    """
    if by not in STACKS:
        raise UsageError(f"cannot split events by {by!r}: choose from {', '.join(STACKS)}")
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    whole = within_lake(engine, period)
    step = step_of(whole)
    if whole.since is None or whole.until is None:
        # An empty lake.
        nothing = Sums(0, 0, 0, 0, 0)
        return Activity(whole, by, filters, step * 3600, (), (), (), None, nothing, None, {}, {}, {})
    where = filters.where("hourly")
    rows = ask(engine, tuple_of, _series_sql(STACKS[by], whole, step, where))
    times = tuple(sorted({*starts(whole, step), *(row[0] for row in rows)}))
    ghost = ask(engine, tuple_of, _before_sql(whole, step, where)) if _has_week_before(engine, whole) else None
    total, total_before, lists, groups = _lists(engine, whole, where, limit)
    left_out: dict[str, tuple[str, ...]] = {}
    if missing := filters.cannot("access"):
        left_out["network"] = missing
    else:
        lists["network"], groups["network"] = _networks(engine, whole, filters, limit)
    return Activity(
        period=whole,
        by=by,
        filters=filters,
        step=step * 3600,
        times=times,
        series=_series(rows, times),
        denied=_aligned([(row[0], row[4]) for row in rows], times),
        before=None if ghost is None else _aligned(ghost, times),
        total=total,
        total_before=None if ghost is None else total_before,
        lists=lists,
        groups=groups,
        left_out=left_out,
    )


def within_lake(engine: Engine, period: Period) -> Period:
    """Return a period in whole hours, with the lake's first or last hour in place of a limit that is missing."""
    files = engine.snapshot.files("hourly")
    first = min((file.min_time for file in files), default=None)
    last = max((file.max_time for file in files), default=None)
    since = first if period.since is None else period.since
    until = (None if last is None else last + 1) if period.until is None else period.until
    if since is None or until is None:
        return Period(None, None, period.zone)
    start, end = since // HOUR * HOUR, -(-until // HOUR) * HOUR
    return Period(start, max(end, start + HOUR), period.zone)


def step_of(period: Period) -> int:
    """Return the hours of a step, so that a chart of the period has some 200 of them."""
    assert (period.since is None) == (period.until is None)
    hours = 0 if period.since is None or period.until is None else (period.until - period.since) // HOUR
    return next(step for most, step in _STEPS if hours <= most)


def starts(period: Period, step: int) -> list[int]:
    """Return the start of each step of a period, in the zone's own days and weeks (microseconds since 1970)."""
    assert period.since is not None and period.until is not None
    local = moment(period.since).astimezone(period.zone).replace(tzinfo=None)
    width = timedelta(hours=step)
    at = _ORIGIN + (local - _ORIGIN) // width * width
    found = []
    while (start := micros(at.replace(tzinfo=period.zone))) < period.until:
        found.append(start)
        at += width
    return found


def _bucket(period: Period, step: int, shift: int = 0) -> str:
    """Return SQL of the start of a row's step (microseconds); ``shift``: microseconds that are added to its hour."""
    hour = f"(hour + INTERVAL {shift // HOUR} HOURS)" if shift else "hour"
    if step == 1:
        return f"epoch_us({hour})"
    zone = text(period.zone.key)
    local = f"time_bucket(INTERVAL {step} HOURS, {hour} AT TIME ZONE {zone}, TIMESTAMP '{_ORIGIN:%Y-%m-%d}')"
    return f"epoch_us({local} AT TIME ZONE {zone})"


def _series_sql(column: str, period: Period, step: int, where: str) -> str:
    return f"""WITH picked AS (SELECT {_bucket(period, step)} AS start, {column} AS name, events,
                CASE WHEN {DENIED} THEN events ELSE 0 END AS denied
            FROM hourly WHERE {period.where("hour")} AND {where}),
        top AS (SELECT name, row_number() OVER (ORDER BY sum(events) DESC, name) AS place
            FROM picked GROUP BY name QUALIFY place <= {MOST_SERIES})
        SELECT start, place, any_value(top.name), sum(events)::BIGINT, sum(denied)::BIGINT
        FROM picked LEFT JOIN top ON picked.name IS NOT DISTINCT FROM top.name GROUP BY start, place"""


def _before_sql(period: Period, step: int, where: str) -> str:
    return f"""SELECT {_bucket(period, step, WEEK)} AS start, sum(events)::BIGINT FROM hourly
        WHERE {_earlier(period).where("hour")} AND {where} GROUP BY start"""


def _earlier(period: Period) -> Period:
    assert period.since is not None and period.until is not None
    return Period(period.since - WEEK, period.until - WEEK, period.zone)


def _has_week_before(engine: Engine, period: Period) -> bool:
    earlier = _earlier(period)
    first = min((file.min_time for file in engine.snapshot.files("hourly")), default=None)
    assert earlier.until is not None
    return first is not None and first < earlier.until


def _aligned(pairs: Sequence[tuple[Any, ...]], times: Sequence[int]) -> tuple[int, ...]:
    sums: dict[int, int] = {}
    for start, number in pairs:
        sums[start] = sums.get(start, 0) + number
    return tuple(sums.get(time, 0) for time in times)


def _series(rows: Sequence[tuple[Any, ...]], times: Sequence[int]) -> tuple[Series, ...]:
    by_place: dict[int | None, tuple[str | None, dict[int, int]]] = {}
    for start, place, name, events, _ in rows:
        by_place.setdefault(place, (name, {}))[1][start] = events
    order = sorted(by_place, key=lambda place: (place is None, place or 0))
    return tuple(
        Series(by_place[place][0], place is None, tuple(by_place[place][1].get(time, 0) for time in times))
        for place in order
    )


def _lists(
    engine: Engine, period: Period, where: str, limit: int
) -> tuple[Sums, Sums, dict[str, tuple[Line, ...]], dict[str, int]]:
    """Return both totals and the lists of ``hourly``, all from one pass over its rows."""
    earlier = _earlier(period)
    assert period.since is not None and earlier.until is not None
    now = period.where("hour")
    columns = ", ".join(_LISTS.values())
    both = f"({now} OR {earlier.where('hour')})"
    week_before = earlier.where("hour")
    selected = ", ".join(
        f"sum(CASE WHEN {when} THEN {name} ELSE 0 END) AS {name}{suffix}"
        for when, suffix in ((now, ""), (week_before, "_before"))
        for name in ("events", "bytes_in", "bytes_out")
    )
    measures = ", ".join(
        f"coalesce(sum({value}), 0)::BIGINT AS {name}{suffix}"
        for suffix in ("", "_before")
        for name, value in (
            ("events", f"events{suffix}"),
            ("denied", f"CASE WHEN {DENIED} THEN events{suffix} ELSE 0 END"),
            ("failed", f"CASE WHEN error_code IS NOT NULL AND NOT {DENIED} THEN events{suffix} ELSE 0 END"),
            ("bytes_in", f"bytes_in{suffix}"),
            ("bytes_out", f"bytes_out{suffix}"),
        )
    )
    sets = ", ".join(f"({column})" for column in _LISTS.values())
    total = 2 ** len(_LISTS) - 1
    most = f"WHERE g = {total} OR place <= {limit}" if limit else ""
    # Summed by all columns first: each grouping then passes over hundreds of rows and not over all of them.
    sql = f"""WITH picked AS MATERIALIZED (SELECT {columns}, {selected} FROM hourly WHERE {both} AND {where}
            GROUP BY {columns}),
        grouped AS (SELECT grouping_id({columns}) AS g, {columns}, {measures} FROM picked
            GROUP BY GROUPING SETS ({sets}, ())),
        present AS (SELECT *, row_number() OVER (PARTITION BY g ORDER BY events DESC, {columns}) AS place,
            count(*) OVER (PARTITION BY g) AS number FROM grouped
            WHERE g = {total} OR events > 0 AND (error_code IS NOT NULL OR g <> {_code_of("error")}))
        SELECT * FROM present {most} ORDER BY g, place"""
    lists: dict[str, list[Line]] = {name: [] for name in _LISTS}
    groups = dict.fromkeys(_LISTS, 0)
    totals = (Sums(0, 0, 0, 0, 0), Sums(0, 0, 0, 0, 0))
    width = len(_LISTS)
    kinds = {_code_of(name): name for name in _LISTS}
    for row in ask(engine, tuple_of, sql):
        g, values, sums, number = row[0], row[1 : width + 1], row[width + 1 : width + 11], row[-1]
        if g not in kinds:
            totals = (Sums(*sums[:5]), Sums(*sums[5:]))
            continue
        name = kinds[g]
        value = values[list(_LISTS).index(name)]
        groups[name] = number
        lists[name].append(Line(value, sums[0], sums[1], sums[4], sums[5]))
    return *totals, {name: tuple(found) for name, found in lists.items()}, groups


def _code_of(name: str) -> int:
    """Return the grouping_id of a list: a bit per column, the highest for the first, set if it is not grouped by."""
    width = len(_LISTS)
    return (1 << width) - 1 - (1 << width - 1 - list(_LISTS).index(name))


def _networks(engine: Engine, period: Period, filters: Filters, limit: int) -> tuple[tuple[Line, ...], int]:
    earlier = _earlier(period)
    now, then = period.where_day("day"), earlier.where_day("day")
    sql = f"""SELECT source_network, sum(events) FILTER (WHERE {now})::BIGINT AS n,
            coalesce(sum(denied) FILTER (WHERE {now}), 0)::BIGINT,
            coalesce(sum(bytes_out) FILTER (WHERE {now}), 0)::BIGINT,
            coalesce(sum(events) FILTER (WHERE {then}), 0)::BIGINT, count(*) OVER ()
        FROM access WHERE {TARGETS} AND ({now} OR {then}) AND {filters.where("access")}
        GROUP BY source_network HAVING n > 0 ORDER BY n DESC, source_network{f" LIMIT {limit}" if limit else ""}"""
    rows = ask(engine, tuple_of, sql)
    return tuple(Line(*row[:-1]) for row in rows), rows[0][-1] if rows else 0
