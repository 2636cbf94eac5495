"""Exact numbers by event, role, resource, hour and the like, from the ``hourly`` table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from trailsift.analysis.base import DENIED, SKETCH_SIZE, ask, lines, plain, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.times import iso

#: What `summary --by` can group by -> columns of ``hourly``.
GROUPS: dict[str, tuple[str, ...]] = {
    "event": ("service", "event_name"),
    "role": ("role_arn",),
    "resource": ("resource_arn",),
    "hour": ("hour",),
    "service": ("service",),
    "account": ("account_id",),
    "region": ("aws_region",),
    "error": ("error_code",),
}

#: Columns that count distinct values.
SKETCHES = ("source_ips", "object_keys")

_SUMS = f"""sum(events)::BIGINT AS events,
    coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT AS denied,
    coalesce(sum(events) FILTER (WHERE error_code IS NOT NULL), 0)::BIGINT AS errors,
    coalesce(sum(bytes_in), 0)::BIGINT AS bytes_in,
    coalesce(sum(bytes_out), 0)::BIGINT AS bytes_out,
    epoch_us(min(first_time)) AS first_time,
    epoch_us(max(last_time)) AS last_time"""


def _measured(
    keys: Mapping[str, str], period: Period, order: str, limit: int, sketches: Sequence[str] = SKETCHES
) -> str:
    """SQL of the measures by ``keys`` (name -> expression), the number of groups last.

    The sketches are merged as rows, apart from the sums: as lists of lists it takes four times as long. A sketch that
    is not in ``sketches`` counts as null.
    """
    source = f"{lines(period)} AS lines"
    given = ", ".join(f"{expression} AS {name}" for name, expression in keys.items())
    names = ", ".join(keys)
    merged, joins, numbers = "", "", []
    for sketch in SKETCHES:
        numbers.append(f"coalesce({sketch}.number, 0)" if sketch in sketches else "NULL")
    for sketch in sketches:
        same = " AND ".join(f"top.{name} IS NOT DISTINCT FROM {sketch}.{name}" for name in keys)
        merged += f""", {sketch} AS (SELECT {names}, distinct_count(min(hash, {SKETCH_SIZE})) AS number
            FROM (SELECT DISTINCT {given}, unnest({sketch}) AS hash FROM {source}) GROUP BY {names})"""
        joins += f" LEFT JOIN {sketch} ON {same}"
    shown = ", ".join(f"epoch_us(top.{name})" if name == "hour" else f"top.{name}" for name in keys)
    # Inside, `top` is not there yet.
    inner = f"ORDER BY {order.replace('top.', '')}" + (f" LIMIT {limit}" if limit else "")
    return f"""WITH top AS (SELECT {given}, {_SUMS}, count(*) OVER () AS groups FROM {source}
            GROUP BY {names} {inner}){merged}
        SELECT {shown}, events, denied, errors, bytes_in, bytes_out, {", ".join(numbers)}, first_time, last_time, groups
        FROM top {joins} ORDER BY {order}"""


class Measures(NamedTuple):
    """The numbers of a group. ``denied`` is part of ``errors``; distinct counts are exact below 2,048, None where they
    were not asked for."""

    events: int
    denied: int
    errors: int
    bytes_in: int
    bytes_out: int
    source_ips: int | None
    object_keys: int | None
    first_time: int
    last_time: int


class Hour(NamedTuple):
    """One hour of one day (start in microseconds, UTC)."""

    hour: int
    events: int
    denied: int


class Refusal(NamedTuple):
    """Calls of one kind that were refused."""

    role_arn: str | None
    event_name: str | None
    resource_arn: str | None
    error_code: str | None
    events: int
    first_time: int
    last_time: int


@dataclass(frozen=True, slots=True)
class Line:
    """One group: the values it is grouped by, and its numbers."""

    names: tuple[Any, ...]
    measures: Measures


@dataclass(frozen=True, slots=True)
class Summary:
    """All groups of one kind, largest first (hours in order of time), and the numbers of everything together."""

    by: str
    period: Period
    total: Measures | None
    lines: tuple[Line, ...]
    groups: int

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        columns = GROUPS[self.by]
        return {
            "by": self.by,
            "period": self.period.as_dict(),
            "total": plain(self.total),
            "lines": [{**plain_names(columns, line.names), **_counted(line.measures)} for line in self.lines],
        }


def _counted(measures: Measures) -> dict[str, Any]:
    return {name: value for name, value in plain(measures).items() if value is not None}


def plain_names(columns: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    """What a line is grouped by, as JSON values."""
    return {name: iso(value) if name == "hour" else value for name, value in zip(columns, values, strict=True)}


def total(engine: Engine, period: Period) -> Measures | None:
    """The numbers of everything in the period; None where there is nothing."""
    found = ask(engine, tuple_of, _measured({"everything": "1"}, period, "events", 1))
    return Measures(*found[0][1:-1]) if found else None


def summary(engine: Engine, by: str, period: Period, limit: int = 0) -> Summary:
    """The numbers by one of ``GROUPS``; the ``limit`` largest groups, all of them where it is 0.

    UsageError for an unknown group or a negative limit.
    """
    return _grouped(engine, by, period, limit, total(engine, period))


def _grouped(
    engine: Engine, by: str, period: Period, limit: int, everything: Measures | None, sketches: Sequence[str] = SKETCHES
) -> Summary:
    if by not in GROUPS:
        raise UsageError(f"cannot summarize by {by!r}: choose from {', '.join(GROUPS)}")
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all lines")
    columns = GROUPS[by]
    by_size = [] if by == "hour" else ["events DESC"]
    order = ", ".join([*by_size, *(f"top.{column}" for column in columns)])
    found = ask(engine, tuple_of, _measured({column: column for column in columns}, period, order, limit, sketches))
    width = len(columns)
    made = tuple(Line(row[:width], Measures(*row[width:-1])) for row in found)
    return Summary(by, period, everything, made, found[0][-1] if found else 0)


def hours(engine: Engine, period: Period, condition: str = "true") -> list[Hour]:
    """Events by hour, in order; hours without any are left out. ``condition`` is SQL over ``hourly``."""
    return ask(
        engine,
        Hour,
        f"SELECT epoch_us(hour), sum(events)::BIGINT, coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT "
        f"FROM {lines(period)} AS lines WHERE {condition} GROUP BY hour ORDER BY hour",
    )


def refusals(engine: Engine, period: Period, limit: int = 0, condition: str = "true") -> list[Refusal]:
    """What was refused for lack of permission, most often first."""
    keys = "role_arn, event_name, resource_arn, error_code"
    return ask(
        engine,
        Refusal,
        f"SELECT {keys}, sum(events)::BIGINT AS refused, epoch_us(min(first_time)), epoch_us(max(last_time)) "
        f"FROM {lines(period)} AS lines WHERE {DENIED} AND {condition} GROUP BY {keys} "
        f"ORDER BY refused DESC, {keys}" + (f" LIMIT {limit}" if limit else ""),
    )


@dataclass(frozen=True, slots=True)
class Overview:
    """The first look at a lake. The lists hold the largest lines only; ``hours`` all hours that have events."""

    period: Period
    total: Measures | None
    events: Summary
    roles: Summary
    resources: Summary
    refusals: tuple[Refusal, ...]
    hours: tuple[Hour, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "period": self.period.as_dict(),
            "total": plain(self.total),
            "events": self.events.as_dict()["lines"],
            "roles": self.roles.as_dict()["lines"],
            "resources": self.resources.as_dict()["lines"],
            "refused": plain(self.refusals),
            "hours": plain(self.hours),
        }


def overview(engine: Engine, period: Period, limit: int = 8) -> Overview:
    """Totals, the largest events, roles and resources, what was refused, and when things happened.

    Distinct counts are in the total only: merging sketches is most of the work, and this is the first look.
    """
    everything = total(engine, period)
    events, by_role, resources = (
        _grouped(engine, by, period, limit, everything, ()) for by in ("event", "role", "resource")
    )
    return Overview(
        period,
        everything,
        events,
        by_role,
        resources,
        tuple(refusals(engine, period, limit)),
        tuple(hours(engine, period)),
    )
