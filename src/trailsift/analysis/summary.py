"""Exact numbers by event, role, resource, hour and so on, from the ``hourly`` table alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import CALLS, DENIED, NETWORK_ACTIVITY, TARGETS, ask, lines, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject, plain
from trailsift.schema import INSIGHT, SKETCH_SIZE
from trailsift.times import iso

#: Groups of `summary --by` -> columns of ``hourly``.
GROUPS: dict[str, tuple[str, ...]] = {
    "event": ("service", "event_name"),
    "role": ("caller",),
    "caller": ("caller",),
    "resource": ("resource_arn",),
    "hour": ("hour",),
    "service": ("service",),
    "account": ("account_id",),
    "region": ("aws_region",),
    "error": ("error_code",),
}

#: Groups of calls: Insights, which nobody made, are left out.
_OF_CALLS = frozenset({"role", "caller"})

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
    keys: Mapping[str, str],
    period: Period,
    order: str,
    limit: int,
    sketches: Sequence[str] = SKETCHES,
    condition: str = "true",
    beside: str = "NULL",
) -> str:
    """Return SQL of the measures by ``keys`` (name -> expression), then ``beside`` and the number of groups.

    The sketches are merged as rows, apart from the sums: as lists of lists it takes four times as long. The count of a
    sketch that is not in ``sketches`` is null.
    """
    source = f"{lines(period)} AS lines WHERE {condition}"
    selected = ", ".join(f"{expression} AS {name}" for name, expression in keys.items())
    names = ", ".join(keys)
    merged, joins, numbers = "", "", []
    for sketch in SKETCHES:
        numbers.append(f"coalesce({sketch}.number, 0)" if sketch in sketches else "NULL")
    for sketch in sketches:
        same = " AND ".join(f"top.{name} IS NOT DISTINCT FROM {sketch}.{name}" for name in keys)
        merged += f""", {sketch} AS (SELECT {names}, distinct_count(min(hash, {SKETCH_SIZE})) AS number
            FROM (SELECT DISTINCT {selected}, unnest({sketch}) AS hash FROM {source}) GROUP BY {names})"""
        joins += f" LEFT JOIN {sketch} ON {same}"
    shown = ", ".join(f"epoch_us(top.{name})" if name == "hour" else f"top.{name}" for name in keys)
    # `top` does not exist inside its own definition.
    inner = f"ORDER BY {order.replace('top.', '')}" + (f" LIMIT {limit}" if limit else "")
    return f"""WITH top AS (SELECT {selected}, {_SUMS}, {beside} AS beside, count(*) OVER () AS groups FROM {source}
            GROUP BY {names} {inner}){merged}
        SELECT {shown}, events, denied, errors, bytes_in, bytes_out, {", ".join(numbers)}, first_time, last_time,
            beside, groups
        FROM top {joins} ORDER BY {order}"""


class Measures(NamedTuple):
    """The numbers of a group. ``denied`` is part of ``errors``; distinct counts are exact below 2,048, and None if
    they were not requested."""

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
    """Calls of one kind that were denied."""

    caller: str | None
    role_arn: str | None
    event_name: str | None
    resource_arn: str | None
    error_code: str | None
    events: int
    first_time: int
    last_time: int


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One group: the values it is grouped by, its numbers, and the role's ARN if it is a caller that has one."""

    names: tuple[Any, ...]
    measures: Measures
    role_arn: str | None = None


class RecordsPerCall(NamedTuple):
    """Which of the counted records are not a call of their own.

    ``owner_side``: records that the owner of a resource received of a call from another account; the caller's account
    has its own. They are counted by day (UTC): of all days that the period touches. ``network_activity``: records of
    calls through VPC endpoints, beside which there can be one of category Data or Management. ``batch_deletes``:
    DeleteObjects calls, beside which S3 logs a DeleteObject event for each object (since June 2025). ``insights``: what
    CloudTrail derived from calls, made by nobody.
    """

    owner_side: int
    network_activity: int
    batch_deletes: int
    insights: int


@dataclass(frozen=True, slots=True)
class Summary(JsonObject):
    """All groups of one kind, largest first (hours in order of time), and the total numbers."""

    by: str
    period: Period
    total: Measures | None
    lines: tuple[SummaryRow, ...]
    groups: int
    per_call: RecordsPerCall

    JSON: ClassVar[dict[str, str]] = {
        "by": "by",
        "period": "period",
        "total": "total",
        "records_per_call": "per_call",
        "lines": "records",
    }

    @property
    def records(self) -> list[dict[str, Any]]:
        """The groups as JSON objects."""
        columns = GROUPS[self.by]
        return [
            {
                **plain_names(columns, line.names),
                **({"role_arn": line.role_arn} if self.by in _OF_CALLS else {}),
                **_counted(line.measures),
            }
            for line in self.lines
        ]


def _counted(measures: Measures) -> dict[str, Any]:
    return {name: value for name, value in plain(measures).items() if value is not None}


def plain_names(columns: tuple[str, ...], values: tuple[Any, ...]) -> dict[str, Any]:
    """Return the values that a row is grouped by, as JSON values."""
    return {name: iso(value) if name == "hour" else value for name, value in zip(columns, values, strict=True)}


def total(engine: Engine, period: Period) -> Measures | None:
    """Return the numbers of everything in the period; None if there is nothing."""
    rows = ask(engine, tuple_of, _measured({"everything": "1"}, period, "events", 1))
    return Measures(*rows[0][1:-2]) if rows else None


def records_per_call(engine: Engine, period: Period) -> RecordsPerCall:
    """Return how many records of the period are not a call of their own."""
    kinds = (
        f"category = '{NETWORK_ACTIVITY}'",
        f"service = 's3' AND event_name = 'DeleteObjects' AND category IS DISTINCT FROM '{NETWORK_ACTIVITY}'",
        f"category = '{INSIGHT}'",
    )
    counts = ", ".join(f"coalesce(sum(events) FILTER (WHERE {kind}), 0)::BIGINT" for kind in kinds)
    (counted,) = ask(engine, tuple_of, f"SELECT {counts} FROM {lines(period)} AS lines")
    owners = f"SELECT coalesce(sum(owner_side), 0)::BIGINT FROM usage WHERE {TARGETS} AND {period.where_day('day')}"
    return RecordsPerCall(ask(engine, tuple_of, owners)[0][0], *counted)


def summary(engine: Engine, by: str, period: Period, limit: int = 0) -> Summary:
    """Return the numbers by one of ``GROUPS``: the ``limit`` largest groups, or all if it is 0.

    Raise UsageError for an unknown group or a negative limit.
    """
    return _grouped(engine, by, period, limit, total(engine, period), records_per_call(engine, period))


def _grouped(
    engine: Engine,
    by: str,
    period: Period,
    limit: int,
    everything: Measures | None,
    per_call: RecordsPerCall,
    sketches: Sequence[str] = SKETCHES,
) -> Summary:
    if by not in GROUPS:
        raise UsageError(f"cannot summarize by {by!r}: choose from {', '.join(GROUPS)}")
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    columns = GROUPS[by]
    by_size = [] if by == "hour" else ["events DESC"]
    order = ", ".join([*by_size, *(f"top.{column}" for column in columns)])
    keys = {column: column for column in columns}
    condition, beside = (CALLS, "min(role_arn)") if by in _OF_CALLS else ("true", "NULL")
    rows = ask(engine, tuple_of, _measured(keys, period, order, limit, sketches, condition, beside))
    width = len(columns)
    groups = tuple(SummaryRow(row[:width], Measures(*row[width:-2]), row[-2]) for row in rows)
    return Summary(by, period, everything, groups, rows[0][-1] if rows else 0, per_call)


def hours(engine: Engine, period: Period, condition: str = "true") -> list[Hour]:
    """Return the events by hour, in order, without empty hours. ``condition`` is SQL over ``hourly``."""
    return ask(
        engine,
        Hour,
        f"SELECT epoch_us(hour), sum(events)::BIGINT, coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT "
        f"FROM {lines(period)} AS lines WHERE {condition} GROUP BY hour ORDER BY hour",
    )


def refusals(engine: Engine, period: Period, limit: int = 0, condition: str = "true") -> list[Refusal]:
    """Return the calls denied for lack of permission, most frequent first."""
    keys = "event_name, resource_arn, error_code"
    return ask(
        engine,
        Refusal,
        f"SELECT caller, min(role_arn), {keys}, sum(events)::BIGINT AS refused, "
        "epoch_us(min(first_time)), epoch_us(max(last_time)) "
        f"FROM {lines(period)} AS lines WHERE {DENIED} AND {condition} GROUP BY caller, {keys} "
        f"ORDER BY refused DESC, caller, {keys}" + (f" LIMIT {limit}" if limit else ""),
    )


@dataclass(frozen=True, slots=True)
class Overview(JsonObject):
    """A first look at a lake. The lists have only the largest groups; ``hours`` has every hour with events."""

    period: Period
    total: Measures | None
    events: Summary
    roles: Summary
    resources: Summary
    refusals: tuple[Refusal, ...]
    hours: tuple[Hour, ...]
    per_call: RecordsPerCall

    JSON: ClassVar[dict[str, str]] = {
        "period": "period",
        "total": "total",
        "records_per_call": "per_call",
        "events": "events.records",
        "roles": "roles.records",
        "resources": "resources.records",
        "refused": "refusals",
        "hours": "hours",
    }


def overview(engine: Engine, period: Period, limit: int = 8) -> Overview:
    """Return totals, the largest events, callers and resources, denied calls, and the events by hour.

    Only the total has distinct counts: merging sketches would be most of the work of a first look.
    """
    everything = total(engine, period)
    per_call = records_per_call(engine, period)
    events, by_role, resources = (
        _grouped(engine, by, period, limit, everything, per_call, ()) for by in ("event", "role", "resource")
    )
    return Overview(
        period,
        everything,
        events,
        by_role,
        resources,
        tuple(refusals(engine, period, limit)),
        tuple(hours(engine, period)),
        per_call,
    )
