"""Days of a lake for detection, read from the summary tables some days at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trailsift.analysis.base import DENIED, ask, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.detect.baseline import FIRSTS, MEASURES, Cells, Column, Day, FirstSeen, Habits
from trailsift.times import DAY, HOUR

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query import DuckDBEngine

_DAYS_AT_ONCE = 16
_EVENTS_AT_ONCE = 5_000_000
_LAST_DAY = 2_932_896  # of the year 9999

_USAGE = {
    "first_service": "service",
    "first_action": "service || ':' || event_name",
    "first_resource": "resource_arn",
    "first_pattern": "resource_arn || '/' || key_pattern",
}
_PROFILE = {
    "first_network": "source_network",
    "first_agent": "user_agent",
    "first_endpoint": "vpc_endpoint",
    "first_account": "principal_account",
}


def totals(engine: DuckDBEngine, periods: Sequence[Period] = (Period(),)) -> dict[int, int]:
    """Events of each day (since 1970, UTC) of some periods that has any."""
    where = " OR ".join(f"({one.where('hour')})" for one in periods) or "false"
    sql = f"SELECT epoch_us(hour) // {DAY}, sum(events)::BIGINT FROM hourly WHERE {where} GROUP BY 1 ORDER BY 1"
    return {int(day): int(events) for day, events in ask(engine, tuple_of, sql)}


def period_of(first: int, last: int) -> Period:
    """Whole days (since 1970, UTC)."""
    return Period(first * DAY, (last + 1) * DAY if last < _LAST_DAY else None)


def days(engine: DuckDBEngine, habits: Habits, wanted: Mapping[int, int]) -> Iterator[Day]:
    """The wanted days (with their events) in order. Each has to be learnt before the next one is asked for."""
    for chunk in chunks(wanted):
        period = period_of(chunk[0], chunk[-1])
        cells, writes, writes_at = _hours(engine, habits, period)
        first_day, firsts = _firsts(engine, habits, period)
        where = period.where_day("day")
        active = arrow(engine, f"SELECT DISTINCT role_arn, {_DAY} FROM usage WHERE {where} ORDER BY 1")
        active_role, active_day = _roles(habits, active.column(0)), numbers(active.column(1))
        for day in chunk:
            mine = cells.hour // 24 == day
            yield Day(
                day,
                active_role[active_day == day],
                Cells(cells.series[mine], cells.hour[mine] % 24, cells.value[mine]),
                np.unique(writes[writes_at // 24 == day]),
                _of_day(firsts, np.flatnonzero(first_day == day)),
            )


_DAY = f"epoch_us(day::TIMESTAMP) // {DAY}"


def chunks(wanted: Mapping[int, int]) -> Iterator[list[int]]:
    chunk: list[int] = []
    events = 0
    for day in sorted(wanted):
        if chunk and (len(chunk) == _DAYS_AT_ONCE or events + wanted[day] > _EVENTS_AT_ONCE):
            yield chunk
            chunk, events = [], 0
        chunk.append(day)
        events += wanted[day]
    if chunk:
        yield chunk


def _hours(engine: DuckDBEngine, habits: Habits, period: Period) -> tuple[Cells, Column, Column]:
    """All cells of a period, with hours since 1970; and the series that change something, with those hours."""
    where = period.where("hour")
    names = f"SELECT DISTINCT role_arn, event_name FROM hourly WHERE {where}"
    kinds = ask(engine, tuple_of, f"{names} ORDER BY role_arn, event_name")
    # A number instead of two texts a line, and columns instead of rows: millions of lines fit.
    lines = arrow(
        engine,
        f"""WITH names AS (SELECT role_arn, event_name,
                row_number() OVER (ORDER BY role_arn, event_name)::INTEGER - 1 AS number FROM ({names}))
        SELECT number, (epoch_us(hour) // {HOUR})::INTEGER, sum(events)::DOUBLE, coalesce(sum(bytes_out), 0)::DOUBLE,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::DOUBLE, count(DISTINCT resource_arn)::DOUBLE,
            bool_and(coalesce(read_only, false))::TINYINT
        FROM hourly JOIN names ON hourly.role_arn IS NOT DISTINCT FROM names.role_arn
            AND hourly.event_name IS NOT DISTINCT FROM names.event_name WHERE {where} GROUP BY 1, 2""",
    )
    number, hour, events, *measured, reads = (numbers(column) for column in lines.columns)
    role_of = np.array([habits.role(role) for role, _ in kinds], np.int64)
    series_of = [habits.series_of(habits.role(role), name or "") for role, name in kinds]
    found = [(np.array(series_of, np.int64)[number], hour, events)]
    begin = (period.since or 0) // HOUR
    length = int(hour.max(initial=begin)) - begin + 1
    slots, slot_of = np.unique(role_of[number] * length + (hour - begin), return_inverse=True)
    for name, column in zip(MEASURES, (*measured, events), strict=True):
        sums = np.bincount(slot_of, column, len(slots))
        roles = slots[sums > 0] // length
        places = {role: habits.series_of(role, name, measure=True) for role in np.unique(roles).tolist()}
        series = np.array([places[role] for role in roles.tolist()], np.int64)
        found.append((series, slots[sums > 0] % length + begin, sums[sums > 0]))
    cells = Cells(*(np.concatenate(columns) for columns in zip(*found, strict=True)))
    writing = reads == 0
    return cells, found[0][0][writing], hour[writing]


def _firsts(engine: DuckDBEngine, habits: Habits, period: Period) -> tuple[Column, FirstSeen]:
    """What is not known yet, each with the first day of it in the period."""
    table = arrow(engine, _firsts_sql(period.where_day("day")))
    key = numbers(table.column(3))
    table = table.filter(_arrow_of(habits.unknown(key)))
    role, kind, value, key, shared, day, events, first, last, name, resource = table.columns
    firsts = FirstSeen(
        _roles(habits, role),
        numbers(kind),
        numbers(key),
        numbers(shared),
        numbers(events),
        numbers(first),
        numbers(last),
        value.to_pylist(),
        name.to_pylist(),
        resource.to_pylist(),
    )
    return numbers(day), firsts


def _firsts_sql(where: str) -> str:
    sums = "sum(events)::BIGINT AS events, min(a) AS a, max(b) AS b"
    # The busiest, and of equals the one that is last in the alphabet: the same however the lines are stored.
    busiest = ", ".join(f"arg_max({name}, (events, {name})) AS {name}" for name in ("event_name", "resource_arn"))
    parts = [
        f"SELECT role_arn, {FIRSTS.index(kind)} AS kind, {column} AS value, day, {sums}, {busiest} FROM used"
        " GROUP BY 1, 3, 4"
        for kind, column in _USAGE.items()
    ]
    traits = " ".join(f"WHEN '{dimension}' THEN {FIRSTS.index(kind)}" for kind, dimension in _PROFILE.items())
    dimensions = ", ".join(f"'{dimension}'" for dimension in _PROFILE.values())
    times = "epoch_us(min(first_time)) AS a, epoch_us(max(last_time)) AS b"
    return f"""WITH used AS MATERIALIZED (
            SELECT role_arn, day, service, event_name, resource_arn, key_pattern, sum(events)::BIGINT AS events, {times}
            FROM usage WHERE {where} GROUP BY 1, 2, 3, 4, 5, 6),
        lines AS ({" UNION ALL ".join(parts)} UNION ALL
            SELECT role_arn, CASE dimension {traits} END, value, day, sum(events)::BIGINT, {times}, NULL, NULL
            FROM profile WHERE {where} AND dimension IN ({dimensions}) GROUP BY role_arn, dimension, value, day)
        SELECT role_arn, kind, value, hash(role_arn, kind, value), hash(kind, value),
            epoch_us(min(day)::TIMESTAMP) // {DAY}, arg_min(events, day), arg_min(a, day), arg_min(b, day),
            arg_min(event_name, day), arg_min(resource_arn, day)
        FROM lines WHERE value IS NOT NULL GROUP BY role_arn, kind, value ORDER BY role_arn, kind, value"""


def _of_day(firsts: FirstSeen, at: Column) -> FirstSeen:
    role, kind, key, shared, events, first, last, *texts = firsts
    value, name, resource = ([column[i] for i in at.tolist()] for column in texts)
    return FirstSeen(role[at], kind[at], key[at], shared[at], events[at], first[at], last[at], value, name, resource)


def arrow(engine: DuckDBEngine, sql: str) -> pyarrow.Table:
    return engine.query(sql, cache=False, arrow=True).arrow()


def _arrow_of(chosen: Column) -> Any:
    import pyarrow

    return pyarrow.array(chosen)


def numbers(column: Any) -> Column:
    out: Column = column.to_numpy()
    return out


def _roles(habits: Habits, column: Any) -> Column:
    """Places of roles; each text is looked up once."""
    encoded = column.combine_chunks().dictionary_encode()
    places = [habits.role(arn) for arn in encoded.dictionary.to_pylist()]
    numbers = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if (numbers < 0).any():
        places.append(habits.role(None))
    return np.array(places, np.int64)[numbers] if places else np.zeros(0, np.int64)
