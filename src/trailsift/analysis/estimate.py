"""Answers of a sampled lake, each with the interval that it comes with.

An event that was stored with weight w had the chance 1/w, independently of all others, so the sum of w is an unbiased
estimate of a count and the sum of w*y of a total (Horvitz and Thompson, A generalization of sampling without
replacement, 1952); an unbiased estimate of the variance under independent (Poisson) sampling is the sum of
w(w-1)y^2 (Sarndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, section 3.5). Weight 1 adds none.

The 95 % interval is the score interval of Wilson (Probable inference, 1927) carried over to weighted totals: it asks
which totals are not too far from the estimate under *their own* variance, which is taken to grow in proportion to the
total, (T^ - T)^2 = q^2 k T with k = V/T^. It leans to larger totals, as samples of skewed values do. q is the quantile
of Student's t (by Cornish and Fisher's expansion) with half of Kish's effective sample size, (sum wy)^2 / sum (wy)^2,
as degrees of freedom: where few large events make the sum, the interval says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from trailsift import event
from trailsift.analysis.period import HOUR, Period, iso
from trailsift.analysis.status import dropped_whole
from trailsift.errors import QueryError, UsageError

if TYPE_CHECKING:
    from trailsift.engine import Engine

#: Sampled events below which an interval is rough.
FEW = 50

_Z = 1.959964
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
    events that rules dropped whole, by rule; no estimate from ``events`` counts them."""

    by: tuple[str, ...]
    source: str
    groups: tuple[Group, ...]
    dropped: dict[str, int]

    @property
    def exact(self) -> bool:
        """Whether every number is."""
        return all(group.events.exact for group in self.groups)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "by": list(self.by),
            "source": self.source,
            "exact": self.exact,
            "dropped_by_rules": self.dropped,
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


def interval(total: Any, variance: Any, effective: Any, slope: Any = 0.0) -> tuple[Any, Any]:
    """The ends of the 95 % interval of an estimated total; numbers, or numpy arrays of them.

    ``variance`` is its estimated variance, ``effective`` the effective sample size. ``slope`` stands in for
    variance / total where nothing was sampled and both are 0.
    """
    freedom = effective / 2 - 1
    freedom = 2 + (freedom - 2 + abs(freedom - 2)) / 2
    q = _quantile(freedom)
    per_total = (variance + slope * (total == 0)) / (total + (total == 0))
    middle = total + q * q * per_total / 2
    half = q * (variance + q * q * per_total * per_total / 4) ** 0.5
    return middle - half, middle + half


def _quantile(freedom: Any) -> Any:
    """The 97.5 % quantile of Student's t, within 4 % from two degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3


def estimate(
    engine: Engine, by: Sequence[str], where: str | None = None, period: Period | None = None, limit: int = 0
) -> Estimate:
    """Events and bytes by columns of ``events`` (also ``hour`` and ``date``), of those that meet an SQL condition.

    Exact from a summary table where one has the columns that are asked for. QueryError where the condition cannot be
    understood, UsageError for an unknown column.
    """
    period = period or Period()
    columns = tuple(by)
    known = {column.name for table in (event.EVENTS, event.USAGE) for column in table.columns} | set(_MADE)
    for name in columns:
        if name not in known or name in _LISTS:
            import difflib

            near = difflib.get_close_matches(name, known, 1)
            hint = f": did you mean {near[0]}?" if near else ""
            raise UsageError(f"cannot estimate by {name!r}{hint}. `trailsift columns events` lists the columns")
    if where is not None and not where.strip():
        raise UsageError("--where is empty: leave it out to count everything")
    dropped = dropped_whole(engine.snapshot.root)
    for table in (event.HOURLY, event.USAGE):
        groups = _from_summary(engine, table, columns, where, period)
        if groups is not None:
            return Estimate(columns, table.name, _largest(groups, limit), {})
    return Estimate(columns, event.EVENTS.name, _largest(_from_events(engine, columns, where, period), limit), dropped)


def _largest(groups: list[Group], limit: int) -> tuple[Group, ...]:
    groups.sort(key=lambda group: (-group.events.estimate, tuple(map(str, group.names))))
    return tuple(groups[:limit] if limit else groups)


def _from_summary(
    engine: Engine, table: event.Table, columns: tuple[str, ...], where: str | None, period: Period
) -> list[Group] | None:
    """The exact answer, where the table's lines tell it; None where they do not."""
    step = HOUR if table is event.HOURLY else 24 * HOUR
    aligned = all(end is None or end % step == 0 for end in (period.since, period.until))
    made = {"hour": "hour", "date": "CAST(hour AS DATE)"} if table is event.HOURLY else {"date": "day"}
    names = {name: name for name in table.keys if name not in ("hour", "day")} | made
    if not aligned or not set(columns) <= names.keys():
        return None
    given = ", ".join(f"{expression} AS {name}" for name, expression in names.items())
    sketches = table is event.HOURLY
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


class _Sums(NamedTuple):
    """Of one number y over a group: certain events, and of those in the lottery wy, w(w-1)y^2 and (wy)^2."""

    certain: int
    drawn: float
    variance: float
    squares: float


def _from_events(engine: Engine, columns: tuple[str, ...], where: str | None, period: Period) -> list[Group]:
    names = [column.name for column in event.EVENTS.columns]
    given = ", ".join([*names, *(f"{expression} AS {name}" for name, expression in _MADE.items())])
    sums = ", ".join(_sums(y) for y in ("1", "coalesce(bytes_in, 0)", "coalesce(bytes_out, 0)"))
    sql = f"SELECT {_shown(columns)} count(*), count(*) FILTER (weight > 1), count(DISTINCT source_ip), "
    sql += f"count(DISTINCT object_key), {sums} FROM (SELECT {given} FROM events WHERE {period.where('event_time')}"
    sql += ") AS events" + _condition(where) + _grouped(columns)
    rows = [row for row in engine.query(sql, cache=False).rows() if row[len(columns)]]
    width = len(columns)
    numbers = [[_Sums(*row[at : at + 4]) for at in (width + 4, width + 8, width + 12)] for row in rows]
    # How much doubt an event of the scope adds: for groups of which nothing was drawn.
    slopes = []
    for which in range(3):
        drawn = sum(number[which].drawn for number in numbers)
        slopes.append(sum(number[which].variance for number in numbers) / drawn if drawn else 0.0)
    groups = []
    for row, number in zip(rows, numbers, strict=True):
        stored, sampled, ips, keys = row[width : width + 4]
        one, two, three = (_value(sums, slope, sampled) for sums, slope in zip(number, slopes, strict=True))
        found, also = (Distinct(count, not slopes[0]) for count in (ips, keys))
        groups.append(Group(tuple(row[:width]), stored, sampled, one, two, three, found, also))
    return groups


def _sums(y: str) -> str:
    return (
        f"coalesce(sum({y}) FILTER (weight <= 1), 0)::BIGINT, coalesce(sum(weight * {y}) FILTER (weight > 1), 0), "
        f"coalesce(sum(weight * (weight - 1) * {y} * {y}) FILTER (weight > 1), 0), "
        f"coalesce(sum((weight * {y}) ** 2) FILTER (weight > 1), 0)"
    )


def _value(sums: _Sums, slope: float, sampled: int) -> Value:
    """``slope`` is 0 where nothing of the scope is sampled."""
    effective = sums.drawn**2 / sums.squares if sums.squares else 0.0
    low, high = interval(sums.drawn, sums.variance, effective, 0.0 if sampled else slope)
    # There are at least as many as were seen.
    best = sums.certain + round(sums.drawn)
    return Value(best, min(best, sums.certain + max(0, round(low))), max(best, sums.certain + round(high)), not slope)
