"""Exact numbers by event, role, resource, hour and the like, from the ``hourly`` table alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from trailsift.analysis.asking import DENIED, Engine, ask, lines, plain
from trailsift.analysis.period import Period, iso
from trailsift.errors import UsageError

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

_SUMS = f"""sum(events)::BIGINT AS events,
    coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT AS denied,
    coalesce(sum(events) FILTER (WHERE error_code IS NOT NULL), 0)::BIGINT AS errors,
    coalesce(sum(bytes_in), 0)::BIGINT AS bytes_in,
    coalesce(sum(bytes_out), 0)::BIGINT AS bytes_out,
    distinct_count(merge_sketches(list(source_ips))) AS source_ips,
    distinct_count(merge_sketches(list(object_keys))) AS object_keys,
    epoch_us(min(first_time)) AS first_time,
    epoch_us(max(last_time)) AS last_time"""


class Measures(NamedTuple):
    """The numbers of a group. ``denied`` is part of ``errors``; distinct counts are exact below 2,048."""

    events: int
    denied: int
    errors: int
    bytes_in: int
    bytes_out: int
    source_ips: int
    object_keys: int
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
            "lines": [{**plain_names(columns, line.names), **plain(line.measures)} for line in self.lines],
        }


def plain_names(columns: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    """What a line is grouped by, as JSON values."""
    return {name: iso(value) if name == "hour" else value for name, value in zip(columns, values, strict=True)}


def total(engine: Engine, period: Period) -> Measures | None:
    """The numbers of everything in the period; None where there is nothing."""
    found = ask(engine, Measures, f"SELECT {_SUMS} FROM {lines(period)} AS lines HAVING count(*) > 0")
    return found[0] if found else None


def summary(engine: Engine, by: str, period: Period, limit: int = 0) -> Summary:
    """The numbers by one of ``GROUPS``; the ``limit`` largest groups, all of them where it is 0.

    UsageError for an unknown group or a negative limit.
    """
    if by not in GROUPS:
        raise UsageError(f"cannot summarize by {by!r}: choose from {', '.join(GROUPS)}")
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all lines")
    columns = GROUPS[by]
    shown = ", ".join("epoch_us(hour) AS hour" if column == "hour" else column for column in columns)
    grouped = ", ".join(columns)
    order = grouped if by == "hour" else f"events DESC, {grouped}"
    found = ask(
        engine,
        lambda *row: row,
        f"SELECT {shown}, {_SUMS}, count(*) OVER () AS groups FROM {lines(period)} AS lines "
        f"GROUP BY {grouped} ORDER BY {order}" + (f" LIMIT {limit}" if limit else ""),
    )
    width = len(columns)
    made = tuple(Line(row[:width], Measures(*row[width:-1])) for row in found)
    return Summary(by, period, total(engine, period), made, found[0][-1] if found else 0)


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
    """Totals, the largest events, roles and resources, what was refused, and when things happened."""
    by_role = summary(engine, "role", period, limit)
    return Overview(
        period,
        by_role.total,
        summary(engine, "event", period, limit),
        by_role,
        summary(engine, "resource", period, limit),
        tuple(refusals(engine, period, limit)),
        tuple(hours(engine, period)),
    )
