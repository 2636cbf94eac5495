"""Estimates from a sampled lake, each with its 95 % interval; ``confidence`` has the method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from trailsift import schema
from trailsift.analysis.base import TARGETS
from trailsift.analysis.confidence import Sums, interval, sums_sql
from trailsift.analysis.status import dropped_whole, omitted, thinned
from trailsift.analysis.time_range import Period
from trailsift.errors import QueryError, UsageError
from trailsift.lake.retention import day_text, removed_days
from trailsift.query.json_objects import JsonObject, plain
from trailsift.times import HOUR, iso

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Sampled events below which an interval is rough.
FEW = 50

#: Words of ``--by`` that are not columns of ``events``.
_DERIVED = {"hour": "date_trunc('hour', event_time)", "date": "CAST(event_time AS DATE)"}
_LISTS = frozenset({"resource_arns"})


class IntervalEstimate(NamedTuple):
    """A number with its 95 % interval; ``exact``: it is certain."""

    estimate: int
    low: int
    high: int
    exact: bool


class DistinctCount(NamedTuple):
    """A number of distinct values: ``exact`` (above 2,048 within 5 %), or a lower bound."""

    number: int
    exact: bool


@dataclass(frozen=True, slots=True)
class EstimateGroup:
    """One group. ``sampled``: stored events with a weight above 1; with few of them, the interval is rough."""

    names: tuple[Any, ...]
    stored: int | None
    sampled: int | None
    events: IntervalEstimate
    bytes_in: IntervalEstimate
    bytes_out: IntervalEstimate
    source_ips: DistinctCount
    object_keys: DistinctCount

    @property
    def rough(self) -> bool:
        """True if the interval rests on too few sampled events to be near 95 %."""
        return not self.events.exact and (self.sampled or 0) < FEW


@dataclass(frozen=True, slots=True)
class Estimate(JsonObject):
    """All groups, largest first.

    ``source``: the summary table that gave exact numbers, or ``events``. ``dropped``: events that rules dropped
    entirely, by rule; no estimate from ``events`` counts them. ``not_stored``: at most this many events were sampled
    away in a sampled scope, by the summaries. ``omitted``: columns of the question that rules have left empty.
    ``counted_from``: the day (ISO 8601, UTC) from which on events were counted, because retention has removed those
    before it; None if that concerns none of the question.
    """

    by: tuple[str, ...]
    source: str
    groups: tuple[EstimateGroup, ...]
    dropped: dict[str, int]
    not_stored: int = 0
    omitted: tuple[str, ...] = ()
    counted_from: str | None = None

    JSON: ClassVar[dict[str, str]] = {
        "by": "by",
        "source": "source",
        "exact": "exact",
        "dropped_by_rules": "dropped",
        "not_stored_at_most": "not_stored",
        "left_empty_by_rules": "omitted",
        "counted_from": "counted_from",
        "groups": "records",
    }

    @property
    def exact(self) -> bool:
        """True if every number is exact, and of the whole period."""
        return self.counted_from is None and self.is_complete

    @property
    def is_complete(self) -> bool:
        """True if every number is exact, of the events that retention has left."""
        return not self.not_stored and all(group.events.exact for group in self.groups)

    @property
    def records(self) -> list[dict[str, Any]]:
        """The groups as JSON objects: the values that they are grouped by, then the numbers."""
        numbers = ("stored", "sampled", "rough", "events", "bytes_in", "bytes_out", "source_ips", "object_keys")
        return [
            {
                **{name: _time_as_text(name, value) for name, value in zip(self.by, group.names, strict=True)},
                **{name: plain(getattr(group, name)) for name in numbers},
            }
            for group in self.groups
        ]


def _time_as_text(name: str, value: Any) -> Any:
    return iso(value) if name in ("hour", "event_time") and isinstance(value, int) else value


def estimate(
    engine: DuckDBEngine, by: Sequence[str], where: str | None = None, period: Period | None = None, limit: int = 0
) -> Estimate:
    """Estimate events and bytes by columns of ``events`` (also ``hour`` and ``date``), of those that meet a condition.

    The numbers are exact if a summary table has all columns of the question. Raise QueryError if the condition is not
    valid SQL, UsageError for an unknown column.
    """
    period = period or Period()
    columns = tuple(by)
    names = {column.name for table in (schema.EVENTS, schema.USAGE) for column in table.columns} | set(_DERIVED)
    for name in columns:
        if name not in names or name in _LISTS:
            import difflib

            near = difflib.get_close_matches(name, names, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UsageError(f"cannot estimate by {name!r}{hint}. `trailsift columns events` lists the columns")
    if where is not None and not where.strip():
        raise UsageError("--where is empty: leave it out to count everything")
    dropped = dropped_whole(engine.snapshot.root)
    for table in (schema.HOURLY, schema.USAGE):
        groups = _from_summary(engine, table, columns, where, period)
        if groups is not None:
            return Estimate(columns, table.name, _largest(groups, limit), {})
    removed = removed_days(engine.snapshot).events
    counted_from = None
    if removed is not None and (period.since is None or period.since < removed):
        counted_from = day_text(removed)
        period = Period(removed, max(period.until or removed, removed) if period.until else None, period.zone)
    missing = _missing(engine, where, period) if thinned(engine.snapshot.root) else _Missing()
    groups = _from_events(engine, columns, where, period, missing)
    words = _words(columns, where)
    empty = tuple(name for name in omitted(engine.snapshot.root) if name in words)
    return Estimate(columns, schema.EVENTS.name, _largest(groups, limit), dropped, missing.events, empty, counted_from)


def _words(columns: Sequence[str], where: str | None) -> set[str]:
    """Return the columns of a question, and all other words of its condition."""
    return {*columns, *re.findall(r"\w+", where or "")}


def _largest(groups: list[EstimateGroup], limit: int) -> tuple[EstimateGroup, ...]:
    groups.sort(key=lambda group: (-group.events.estimate, tuple(map(str, group.names))))
    return tuple(groups[:limit] if limit else groups)


def _from_summary(
    engine: DuckDBEngine, table: schema.Table, columns: tuple[str, ...], where: str | None, period: Period
) -> list[EstimateGroup] | None:
    """Return exact numbers from a summary table; None if its rows do not have them."""
    step = HOUR if table is schema.HOURLY else 24 * HOUR
    aligned = all(end is None or end % step == 0 for end in (period.since, period.until))
    derived = {"hour": "hour", "date": "CAST(hour AS DATE)"} if table is schema.HOURLY else {"date": "day"}
    names = {name: name for name in table.keys if name not in ("hour", "day")} | derived
    if not aligned or not set(columns) <= names.keys():
        return None
    selected = ", ".join(f"{expression} AS {name}" for name, expression in names.items())
    sketches = table is schema.HOURLY
    # The counts get names that no condition uses: bytes_out of a summary row is not bytes_out of an event.
    hidden = "events AS _n, bytes_in AS _i, bytes_out AS _o"
    hidden += ", source_ips AS _s, object_keys AS _k" if sketches else ""
    lines = f"{table.name} WHERE {period.where(table.time)}"
    if table is schema.USAGE and "touch" not in _words(columns, where):
        # A copy is one event, whatever it read.
        lines += f" AND {TARGETS}"
    merged_count = "distinct_count(merge_sketches(list({0})))"
    counts = ", ".join(merged_count.format(name) for name in ("_s", "_k")) if sketches else "NULL, NULL"
    sql = f"SELECT {_shown(columns)} sum(_n)::BIGINT, coalesce(sum(_i), 0)::BIGINT, coalesce(sum(_o), 0)::BIGINT, "
    sql += f"{counts} FROM (SELECT {selected}, {hidden} FROM {lines}) AS lines"
    sql += _condition(where) + _grouped(columns)
    try:
        rows = list(engine.query(sql, cache=False).rows())
    except QueryError:
        return None
    groups = []
    for row in rows:
        names_of, (events, bytes_in, bytes_out, ips, keys) = row[: len(columns)], row[len(columns) :]
        if events is None:
            continue
        numbers = (IntervalEstimate(number, number, number, True) for number in (events, bytes_in, bytes_out))
        distinct = (DistinctCount(number or 0, number is not None) for number in (ips, keys))
        groups.append(_group(tuple(names_of), None, None, numbers, distinct))
    return groups


def _shown(columns: Sequence[str]) -> str:
    return "".join(f"epoch_us({name}), " if name in ("hour", "event_time") else f"{name}, " for name in columns)


def _grouped(columns: Sequence[str]) -> str:
    return f" GROUP BY {', '.join(columns)}" if columns else ""


def _condition(where: str | None) -> str:
    # The line break keeps a comment at the end of the condition from swallowing the parenthesis.
    return "" if where is None else f" WHERE ({where}\n)"


class _Missing(NamedTuple):
    """Events and bytes that the summaries have counted in a scope (or a larger one) and the lake does not hold."""

    events: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def _missing(engine: DuckDBEngine, where: str | None, period: Period) -> _Missing:
    """Return what is missing of the condition if the summaries can evaluate it, else of the period, in full hours."""
    since = None if period.since is None else period.since // HOUR * HOUR
    until = None if period.until is None else -(-period.until // HOUR) * HOUR
    hours = Period(since, until, period.zone)
    counted = _from_summary(engine, schema.HOURLY, (), where, hours)
    if counted is None:
        where = None
        counted = _from_summary(engine, schema.HOURLY, (), where, hours) or []
    sql = "SELECT count(*), coalesce(sum(bytes_in), 0)::BIGINT, coalesce(sum(bytes_out), 0)::BIGINT FROM "
    sql += f"{_events(hours)}{_condition(where)}"
    (stored,) = engine.query(sql, cache=False).rows()
    totals = [(g.events.estimate, g.bytes_in.estimate, g.bytes_out.estimate) for g in counted] or [(0, 0, 0)]
    return _Missing(*(max(0, total - held) for total, held in zip(totals[0], stored, strict=True)))


def _events(period: Period) -> str:
    """Return a subquery of a period's events, with the derived columns that conditions may name."""
    names = [column.name for column in schema.EVENTS.columns]
    selected = ", ".join([*names, *(f"{expression} AS {name}" for name, expression in _DERIVED.items())])
    return f"(SELECT {selected} FROM events WHERE {period.where('event_time')}) AS events"


def _from_events(
    engine: DuckDBEngine, columns: tuple[str, ...], where: str | None, period: Period, missing: _Missing
) -> list[EstimateGroup]:
    sums = ", ".join(
        f"coalesce(sum({y}) FILTER (weight <= 1), 0)::BIGINT, {sums_sql(y)}"
        for y in ("1", "coalesce(bytes_in, 0)", "coalesce(bytes_out, 0)")
    )
    sql = f"SELECT {_shown(columns)} count(*), count(*) FILTER (weight > 1), count(DISTINCT source_ip), "
    sql += f"count(DISTINCT object_key), {sums} FROM {_events(period)}{_condition(where)}{_grouped(columns)}"
    rows = [row for row in engine.query(sql, cache=False).rows() if row[len(columns)]]
    width, each = len(columns), len(Sums._fields) + 1
    starts = [width + 4 + which * each for which in range(3)]
    numbers = [[Sums(*row[at + 1 : at + each]) for at in starts] for row in rows]
    # The variance that an event of the scope adds, for groups without sampled events.
    slopes = []
    for which in range(3):
        total = sum(number[which].total for number in numbers)
        slopes.append(sum(number[which].variance for number in numbers) / total if total else 0.0)
    groups = []
    for row, number in zip(rows, numbers, strict=True):
        stored, sampled, ips, keys = row[width : width + 4]
        certain = [row[at] for at in starts]
        exact = not (missing.events or slopes[0])
        estimates = (
            _interval_estimate(*terms, sampled=sampled, exact=exact)
            for terms in zip(certain, number, slopes, missing, strict=True)
        )
        distinct = (DistinctCount(count, exact) for count in (ips, keys))
        groups.append(_group(tuple(row[:width]), stored, sampled, estimates, distinct))
    return groups


def _group(
    names: tuple[Any, ...],
    stored: int | None,
    sampled: int | None,
    estimates: Iterable[IntervalEstimate],
    distinct: Iterable[DistinctCount],
) -> EstimateGroup:
    events, bytes_in, bytes_out = estimates
    source_ips, object_keys = distinct
    return EstimateGroup(names, stored, sampled, events, bytes_in, bytes_out, source_ips, object_keys)


def _interval_estimate(
    certain: int, sums: Sums, slope: float, missing: int, *, sampled: int, exact: bool
) -> IntervalEstimate:
    """``slope``: 0 if the scope has no sampled events. ``missing``: what the lake does not hold of it, at most.
    ``exact``: nothing is missing."""
    low, high = interval(sums, 0.0 if sampled else slope)
    # At least as many as were seen, and at most these and all that is missing.
    best, most = certain + round(sums.total), certain + round(sums.seen) + missing
    high = min(certain + round(high), most) if sampled or slope else most
    return IntervalEstimate(best, min(best, certain + max(0, round(low))), max(best, high), exact)
