"""Answers of a sampled lake, each with the interval that it comes with.

How they are made stands in ``interval``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift import schema
from trailsift.analysis.confidence import Sums, interval, sums_sql
from trailsift.analysis.status import dropped_whole, omitted, thinned
from trailsift.analysis.time_range import Period
from trailsift.errors import QueryError, UsageError
from trailsift.times import HOUR, iso

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Sampled events below which an interval is rough.
FEW = 50

#: Words of ``--by`` that are no columns of ``events``.
_MADE = {"hour": "date_trunc('hour', event_time)", "date": "CAST(event_time AS DATE)"}
_LISTS = frozenset({"resource_arns"})


class Value(NamedTuple):
    """A number with its 95 % interval; ``exact`` says that there is no doubt about it."""

    estimate: int
    low: int
    high: int
    exact: bool


class Distinct(NamedTuple):
    """A number of distinct values: as it is (``exact``; above 2,048 within 5 %), or at least so many."""

    number: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Group:
    """One group. ``sampled``: stored events that stand for more than themselves; few of them make it rough."""

    names: tuple[Any, ...]
    stored: int | None
    sampled: int | None
    events: Value
    bytes_in: Value
    bytes_out: Value
    source_ips: Distinct
    object_keys: Distinct

    @property
    def rough(self) -> bool:
        """Whether too few sampled events are behind the interval for it to be near 95 %."""
        return not self.events.exact and (self.sampled or 0) < FEW


@dataclass(frozen=True, slots=True)
class Estimate:
    """All groups, largest first. ``source``: the summary table that answered exactly, or ``events``. ``dropped``:
    events that rules dropped whole, by rule; no estimate from ``events`` counts them. ``not_stored``: events that were
    sampled away in a sampled scope, at most, as the summaries tell. ``omitted``: columns of the question that rules
    have left empty."""

    by: tuple[str, ...]
    source: str
    groups: tuple[Group, ...]
    dropped: dict[str, int]
    not_stored: int = 0
    omitted: tuple[str, ...] = ()

    @property
    def exact(self) -> bool:
        """Whether every number is."""
        return not self.not_stored and all(group.events.exact for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "by": list(self.by),
            "source": self.source,
            "exact": self.exact,
            "dropped_by_rules": self.dropped,
            "not_stored_at_most": self.not_stored,
            "left_empty_by_rules": list(self.omitted),
            "groups": [
                {
                    **{n: _plain(n, value) for n, value in zip(self.by, group.names, strict=True)},
                    "stored": group.stored,
                    "sampled": group.sampled,
                    "rough": group.rough,
                    **{name: getattr(group, name)._asdict() for name in ("events", "bytes_in", "bytes_out")},
                    "source_ips": group.source_ips._asdict(),
                    "object_keys": group.object_keys._asdict(),
                }
                for group in self.groups
            ],
        }


def _plain(name: str, value: Any) -> Any:
    return iso(value) if name in ("hour", "event_time") and isinstance(value, int) else value


def estimate(
    engine: DuckDBEngine, by: Sequence[str], where: str | None = None, period: Period | None = None, limit: int = 0
) -> Estimate:
    """Events and bytes by columns of ``events`` (also ``hour`` and ``date``), of those that meet an SQL condition.

    Exact from a summary table where one has the columns that are asked for. QueryError where the condition cannot be
    understood, UsageError for an unknown column.
    """
    period = period or Period()
    columns = tuple(by)
    known = {column.name for table in (schema.EVENTS, schema.USAGE) for column in table.columns} | set(_MADE)
    for name in columns:
        if name not in known or name in _LISTS:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UsageError(f"cannot estimate by {name!r}{hint}. `trailsift columns events` lists the columns")
    if where is not None and not where.strip():
        raise UsageError("--where is empty: leave it out to count everything")
    dropped = dropped_whole(engine.snapshot.root)
    for table in (schema.HOURLY, schema.USAGE):
        groups = _from_summary(engine, table, columns, where, period)
        if groups is not None:
            return Estimate(columns, table.name, _largest(groups, limit), {})
    missing = _missing(engine, where, period) if thinned(engine.snapshot.root) else _Missing()
    groups = _from_events(engine, columns, where, period, missing)
    words = {*columns, *re.findall(r"\w+", where or "")}
    empty = tuple(name for name in omitted(engine.snapshot.root) if name in words)
    return Estimate(columns, schema.EVENTS.name, _largest(groups, limit), dropped, missing.events, empty)


def _largest(groups: list[Group], limit: int) -> tuple[Group, ...]:
    groups.sort(key=lambda group: (-group.events.estimate, tuple(map(str, group.names))))
    return tuple(groups[:limit] if limit else groups)


def _from_summary(
    engine: DuckDBEngine, table: schema.Table, columns: tuple[str, ...], where: str | None, period: Period
) -> list[Group] | None:
    """The exact answer, where the table's lines tell it; None where they do not."""
    step = HOUR if table is schema.HOURLY else 24 * HOUR
    aligned = all(end is None or end % step == 0 for end in (period.since, period.until))
    made = {"hour": "hour", "date": "CAST(hour AS DATE)"} if table is schema.HOURLY else {"date": "day"}
    names = {name: name for name in table.keys if name not in ("hour", "day")} | made
    if not aligned or not set(columns) <= names.keys():
        return None
    given = ", ".join(f"{expression} AS {name}" for name, expression in names.items())
    sketches = table is schema.HOURLY
    # The counts have names that no condition uses: bytes_out of a line is not bytes_out of an event.
    hidden = "events AS _n, bytes_in AS _i, bytes_out AS _o"
    hidden += ", source_ips AS _s, object_keys AS _k" if sketches else ""
    distinct = "distinct_count(merge_sketches(list({0})))"
    told = ", ".join(distinct.format(name) for name in ("_s", "_k")) if sketches else "NULL, NULL"
    sql = f"SELECT {_shown(columns)} sum(_n)::BIGINT, coalesce(sum(_i), 0)::BIGINT, coalesce(sum(_o), 0)::BIGINT, "
    sql += f"{told} FROM (SELECT {given}, {hidden} FROM {table.name} WHERE {period.where(table.time)}) AS lines"
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
        one, two, three = (Value(number, number, number, True) for number in (events, bytes_in, bytes_out))
        found, also = (Distinct(number or 0, number is not None) for number in (ips, keys))
        groups.append(Group(tuple(names_of), None, None, one, two, three, found, also))
    return groups


def _shown(columns: Sequence[str]) -> str:
    return "".join(f"epoch_us({name}), " if name in ("hour", "event_time") else f"{name}, " for name in columns)


def _grouped(columns: Sequence[str]) -> str:
    return f" GROUP BY {', '.join(columns)}" if columns else ""


def _condition(where: str | None) -> str:
    # The line break keeps a comment at the end of the condition from swallowing the parenthesis.
    return "" if where is None else f" WHERE ({where}\n)"


class _Missing(NamedTuple):
    """What of a scope, or of more than it, the summaries have counted and the lake does not hold."""

    events: int = 0
    bytes_in: int = 0
    bytes_out: int = 0


def _missing(engine: DuckDBEngine, where: str | None, period: Period) -> _Missing:
    """Of the condition where the lines can tell it, else of the whole period, widened to full hours."""
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
    known = [(one.events.estimate, one.bytes_in.estimate, one.bytes_out.estimate) for one in counted] or [(0, 0, 0)]
    return _Missing(*(max(0, all_of_it - here) for all_of_it, here in zip(known[0], stored, strict=True)))


def _events(period: Period) -> str:
    """The events of a period, with the columns that conditions may name beside their own."""
    names = [column.name for column in schema.EVENTS.columns]
    given = ", ".join([*names, *(f"{expression} AS {name}" for name, expression in _MADE.items())])
    return f"(SELECT {given} FROM events WHERE {period.where('event_time')}) AS events"


def _from_events(
    engine: DuckDBEngine, columns: tuple[str, ...], where: str | None, period: Period, missing: _Missing
) -> list[Group]:
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
    # How much doubt an event of the scope adds: for groups of which nothing was drawn.
    slopes = []
    for which in range(3):
        drawn = sum(number[which].total for number in numbers)
        slopes.append(sum(number[which].variance for number in numbers) / drawn if drawn else 0.0)
    groups = []
    for row, number in zip(rows, numbers, strict=True):
        stored, sampled, ips, keys = row[width : width + 4]
        certain = [row[at] for at in starts]
        one, two, three = (
            _value(*given, sampled=sampled, whole=not (missing.events or slopes[0]))
            for given in zip(certain, number, slopes, missing, strict=True)
        )
        found, also = (Distinct(count, one.exact) for count in (ips, keys))
        groups.append(Group(tuple(row[:width]), stored, sampled, one, two, three, found, also))
    return groups


def _value(certain: int, sums: Sums, slope: float, missing: int, *, sampled: int, whole: bool) -> Value:
    """``slope`` is 0 where nothing of the scope was drawn, ``missing`` what the lake does not hold of it at most;
    ``whole``: nothing at all."""
    low, high = interval(sums, 0.0 if sampled else slope)
    # There are at least as many as were seen, and no more than these and all that is missing.
    best, most = certain + round(sums.total), certain + round(sums.seen) + missing
    high = min(certain + round(high), most) if sampled or slope else most
    return Value(best, min(best, certain + max(0, round(low))), max(best, high), whole)
