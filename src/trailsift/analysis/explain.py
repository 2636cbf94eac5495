"""What is different in a stretch of time: the values of caller, event, resource, key pattern, network, client and error
that explain the difference from the time before, or from the same hours of the weeks before.

The method. A stretch is widened to whole hours. It is compared with

- ``before``: the 24 hours just before it; if it is longer, as many whole days as it has, begun ones included;
- ``weeks``: the same hours of each of the four weeks before.

What the lake has nothing of does not count: only hours after its first one do. For a value v of a dimension, n events
in the stretch and b events in the other time, of which there was 1/s times as much, make n against an expected s * b.

1. A value is listed if chance does not explain the difference: the likelihood ratio of two Poisson counts,
   G = 2 (n ln(n / m) + b ln(b / c)) with m = (n + b) s / (1 + s) and c = (n + b) / (1 + s), is at least 10.83 (once in
   a thousand), and the rate changed by half at least.
2. The values of all dimensions are ranked by ``moved * shifted``. ``moved``: |n - s b| as a share of the sum of
   |n - s b| over all values of the dimension, so that a value counts that makes up the difference. ``shifted``: how
   much its share of the events changed, 1 - min(p, q) / max(p, q), so that a value which grew as everything did does
   not.

The second factor tells "this role did it" from "there was more of everything", which the totals say. Key patterns,
networks and clients are kept by day: they are compared over the whole UTC days that the stretch touches, and the days
before or the same days of the weeks before. What a table has no column for under the filters at hand is left out and
named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from typing import Any, ClassVar, Literal, NamedTuple, get_args

from trailsift.analysis.activity import WEEK, within_lake
from trailsift.analysis.base import CALLS, TARGETS, ask, tuple_of
from trailsift.analysis.filters import NO_FILTERS, Filters
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.times import DAY, HOUR

Against = Literal["before", "weeks"]
Kind = Literal["new", "gone", "more", "less"]
#: Weeks of ``weeks``.
WEEKS = 4
#: Differences that are listed, unless a limit is given.
MOST = 20
#: Least likelihood ratio, and least factor between the rates.
SURPRISE, FACTOR = 10.83, 1.5
#: Values of a dimension that are fetched, those with the largest differences.
_FETCHED = 200
_HOURLY: dict[str, tuple[str, ...]] = {
    "caller": ("caller",),
    "event": ("service", "event_name"),
    "resource": ("resource_arn",),
    "error": ("error_code",),
}


class Difference(NamedTuple):
    """One value whose events differ.

    ``names``: its value; of an event the service and the name, of a key pattern the resource and the pattern. ``now``:
    events in the stretch, ``before``: in the time that it is compared with, ``expected``: at that time's rate.
    ``share`` and ``share_before`` of all events of each side. ``moved``: its part of the differences of its dimension.
    ``by_day``: compared over whole UTC days.
    """

    dimension: str
    names: tuple[str | None, ...]
    kind: Kind
    now: int
    before: int
    expected: float
    share: float
    share_before: float
    moved: float
    score: float
    by_day: bool


@dataclass(frozen=True, slots=True)
class Explained(JsonObject):
    """The differences of a stretch, those that explain most first.

    ``others``: what it was compared with; empty if the lake has nothing to compare with. ``hours``: of the stretch and
    of the others together. ``days``: the same for what is kept by day. ``events``, ``events_before``: of both;
    ``total``: how many differences there are. ``left_out``: dimension -> filters that its table cannot express.
    """

    period: Period
    against: Against
    others: tuple[Period, ...]
    hours: tuple[int, int]
    days: tuple[int, int]
    events: int
    events_before: int
    filters: Filters
    total: int
    differences: tuple[Difference, ...]
    left_out: dict[str, tuple[str, ...]]

    JSON: ClassVar[dict[str, str]] = {
        "period": "period",
        "against": "against",
        "compared_with": "others",
        "hours": "hours",
        "days": "days",
        "events": "events",
        "events_compared_with": "events_before",
        "expected_events": "expected",
        "filters": "filters.by_name",
        "total": "total",
        "differences": "differences",
        "left_out": "left_out",
    }

    @property
    def expected(self) -> float | None:
        """Events of the stretch at the rate of the other time; None if there is none."""
        return None if not self.hours[1] else round(self.events_before * self.hours[0] / self.hours[1], 1)

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The differences as names of columns and rows."""
        names = ["dimension", "name", "of", *Difference._fields[2:]]
        return names, [
            (d.dimension, d.names[-1], d.names[0] if d.names[1:] else None, *d[2:]) for d in self.differences
        ]


def explain(
    engine: Engine, stretch: Period, against: str = "before", filters: Filters = NO_FILTERS, limit: int = MOST
) -> Explained:
    """Return what is different in a stretch, at most ``limit`` differences; 0 is all.

    Raise UsageError for an unknown ``against`` or a negative limit.
    """
    if against not in get_args(Against):
        raise UsageError(f"cannot compare with {against!r}: choose from {', '.join(get_args(Against))}")
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    chosen: Against = "weeks" if against == "weeks" else "before"
    period = within_lake(engine, stretch)
    lake = within_lake(engine, Period())
    if period.since is None or lake.since is None:
        return Explained(period, chosen, (), (0, 0), (0, 0), 0, 0, filters, 0, (), {})
    others = _known(_others(period, chosen), lake.since)
    touched = _whole_days(period)
    other_days = _known(_others(touched, chosen), lake.since // DAY * DAY)
    hours = (_length(period, HOUR), sum(_length(one, HOUR) for one in others))
    days = (_length(touched, DAY), sum(_length(one, DAY) for one in other_days))
    # A day that is not over yet is not compared with whole ones as if it were.
    so_far = Period(touched.since, max(min(touched.until or 0, lake.until or 0), (touched.since or 0) + HOUR))
    day_hours = (_length(so_far, HOUR), sum(_length(one, HOUR) for one in other_days))
    found: list[Difference] = []
    left_out: dict[str, tuple[str, ...]] = {}
    counted, events, events_before = _hourly(engine, period, others, filters)
    for dimension, rows in counted.items():
        found += differences(dimension, rows, hours, by_day=False)
    for dimension, (table, columns, condition) in _DAILY.items():
        if missing := filters.cannot(table):
            left_out[dimension] = missing
            continue
        where = f"{condition} AND {filters.where(table)}"
        sums = ask(engine, tuple_of, _sums(table, columns, "day", where, touched, other_days))
        found += differences(dimension, [(tuple(row[:-2]), row[-2], row[-1]) for row in sums], day_hours, by_day=True)
    found.sort(key=lambda one: (-one.score, one.dimension, tuple(map(str, one.names))))
    listed = tuple(found[: limit or None])
    return Explained(period, chosen, others, hours, days, events, events_before, filters, len(found), listed, left_out)


#: What is kept by day: dimension -> (table, columns, condition).
_DAILY: dict[str, tuple[str, tuple[str, ...], str]] = {
    "pattern": ("usage", ("resource_arn", "key_pattern"), f"{TARGETS} AND key_pattern IS NOT NULL"),
    "network": ("access", ("source_network",), TARGETS),
    "client": ("profile", ("value",), f"dimension = {text('user_agent')}"),
}


def differences(
    dimension: str, rows: Sequence[tuple[tuple[str | None, ...], int, int]], lengths: tuple[int, int], *, by_day: bool
) -> list[Difference]:
    """Return the values of one dimension whose events differ. ``rows``: (names, events now, events before).

    ``lengths``: hours of the stretch and of what it is compared with.
    """
    if not lengths[1]:
        return []
    scale = lengths[0] / lengths[1]
    total, total_before = sum(row[1] for row in rows), sum(row[2] for row in rows)
    movement = sum(abs(now - scale * before) for _, now, before in rows) or 1.0
    found = []
    for names, now, before in rows:
        if dimension == "error" and names == (None,):
            # Calls without an error are what all other dimensions are about.
            continue
        expected = scale * before
        factor = max(now, expected) / max(min(now, expected), 1e-9)
        if factor < FACTOR or surprise(now, before, scale) < SURPRISE:
            continue
        share, share_before = now / max(total, 1), before / max(total_before, 1)
        moved = abs(now - expected) / movement
        shifted = 1 - min(share, share_before) / max(share, share_before)
        kind: Kind = "new" if not before else "gone" if not now else "more" if now > expected else "less"
        found.append(
            Difference(
                dimension, names, kind, now, before, round(expected, 1), round(share, 4), round(share_before, 4),
                round(moved, 4), round(moved * shifted, 4), by_day,
            )
        )  # fmt: skip
    return found


def surprise(now: int, before: int, scale: float) -> float:
    """Return the likelihood ratio of two Poisson counts having one rate; ``scale``: the first length over the other."""
    both = now + before
    pairs = ((now, both * scale / (1 + scale)), (before, both / (1 + scale)))
    return 2 * sum(count * log(count / mean) for count, mean in pairs if count)


def _others(period: Period, against: Against) -> list[Period]:
    """Return what a period is compared with, the newest first, whether the lake has it or not."""
    assert period.since is not None and period.until is not None
    if against == "weeks":
        # A stretch of more than a week would overlap with itself.
        step = -(-(period.until - period.since) // WEEK) * WEEK
        return [
            Period(period.since - number * step, period.until - number * step, period.zone)
            for number in range(1, WEEKS + 1)
        ]
    length = -(-(period.until - period.since) // DAY) * DAY
    return [Period(period.since - length, period.since, period.zone)]


def _known(periods: Sequence[Period], first: int) -> tuple[Period, ...]:
    """Return the parts of periods after the lake's first hour."""
    return tuple(
        Period(max(one.since or 0, first), one.until, one.zone)
        for one in periods
        if one.until is not None and one.until > first
    )


def _whole_days(period: Period) -> Period:
    assert period.since is not None and period.until is not None
    return Period(period.since // DAY * DAY, -(-period.until // DAY) * DAY, period.zone)


def _length(period: Period, unit: int) -> int:
    assert period.since is not None and period.until is not None
    return (period.until - period.since) // unit


def _either(column: str, periods: Sequence[Period]) -> str:
    """Return an SQL condition: within one of the periods. Days are UTC days."""
    tests = [one.where_day(column) if column == "day" else one.where(column) for one in periods]
    return "(" + (" OR ".join(f"({test})" for test in tests) or "false") + ")"


def _sums(table: str, columns: Sequence[str], time: str, where: str, period: Period, others: Sequence[Period]) -> str:
    now, before = _either(time, [period]), _either(time, others)
    names = ", ".join(columns)
    scale = _length(period, HOUR) / max(1, sum(_length(one, HOUR) for one in others))
    return f"""SELECT {names}, coalesce(sum(events) FILTER (WHERE {now}), 0)::BIGINT AS n,
            coalesce(sum(events) FILTER (WHERE {before}), 0)::BIGINT AS b
        FROM {table} WHERE ({now} OR {before}) AND {where} GROUP BY {names}
        ORDER BY abs(n - {scale} * b) DESC LIMIT {_FETCHED}"""


def _hourly(
    engine: Engine, period: Period, others: Sequence[Period], filters: Filters
) -> tuple[dict[str, list[tuple[tuple[str | None, ...], int, int]]], int, int]:
    """Return the events of both sides by dimension, and their totals, from one pass over ``hourly``."""
    now, before = _either("hour", [period]), _either("hour", others)
    columns = [column for group in _HOURLY.values() for column in group]
    names = ", ".join(columns)
    sets = ", ".join(f"({', '.join(group)})" for group in _HOURLY.values())
    scale = _length(period, HOUR) / max(1, sum(_length(one, HOUR) for one in others))
    sql = f"""WITH picked AS (SELECT {names}, events, {now} AS now FROM hourly
            WHERE ({now} OR {before}) AND {CALLS} AND {filters.where("hourly")})
        SELECT grouping_id({names}) AS g, {names}, coalesce(sum(events) FILTER (WHERE now), 0)::BIGINT AS n,
            coalesce(sum(events) FILTER (WHERE NOT now), 0)::BIGINT AS b
        FROM picked GROUP BY GROUPING SETS ({sets}, ())
        QUALIFY row_number() OVER (PARTITION BY g ORDER BY abs(n - {scale} * b) DESC, {names}) <= {_FETCHED}"""
    width = len(columns)
    kinds = {}
    for dimension, group in _HOURLY.items():
        places = [columns.index(column) for column in group]
        kinds[2**width - 1 - sum(2 ** (width - 1 - place) for place in places)] = (dimension, places)
    counted: dict[str, list[tuple[tuple[str | None, ...], int, int]]] = {name: [] for name in _HOURLY}
    events = events_before = 0
    for row in ask(engine, tuple_of, sql):
        if row[0] not in kinds:
            events, events_before = row[-2], row[-1]
            continue
        dimension, places = kinds[row[0]]
        counted[dimension].append((tuple(row[1 + place] for place in places), row[-2], row[-1]))
    return counted, events, events_before
