"""Days of a lake, read from the summary tables a few days at a time, so that memory stays bounded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trailsift.analysis.base import CALLS, DENIED, NETWORK_ACTIVITY, ask, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.detect.baseline import BURSTS, FIRSTS, MEASURES, Baseline, CallerHours, Cells, Column, Day, FirstSeen
from trailsift.detect.console_noise import CONSOLE_NOISE, console_noise_relation
from trailsift.detect.priors import kind_of
from trailsift.detect.public_networks import read_networks
from trailsift.detect.split_sessions import read_places
from trailsift.query.relations import text
from trailsift.schema import TARGET
from trailsift.times import DAY, HOUR

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query import DuckDBEngine

_DAYS_AT_ONCE = 16
_EVENTS_AT_ONCE = 5_000_000
_PACE_LEAST = 100  # calls, or distinct keys of one call, in an hour from which on their pace says something
#: The last day of the year 9999.
LAST_DAY = 2_932_896

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


_NETWORK = f"category IS NOT DISTINCT FROM {text(NETWORK_ACTIVITY)}"
#: Lines of ``hourly`` and ``usage`` with calls that a VPC endpoint let pass. CloudTrail logs such a call as
#: NetworkActivity, and the service logs it as well, if the trail has its category. What an endpoint refused never
#: reached the service, and is in this category only.
#: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/logging-network-events-with-cloudtrail.html
PASSED = f"({_NETWORK} AND error_code IS DISTINCT FROM 'VpceAccessDenied')"


_ACCOUNT = """CASE WHEN starts_with(caller, 'arn:') THEN split_part(caller, ':', 5)
    WHEN starts_with(caller, 'account:') THEN split_part(substr(caller, 9), '/', 1) END"""
#: Lines of another account than the caller's: of a call across accounts, the owner's record. The caller's own account
#: has one as well, if it is logged.
#: https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html
ELSEWHERE = f"coalesce(account_id <> {_ACCOUNT}, false)"


def once(count: str, passed: str = PASSED, elsewhere: str = ELSEWHERE) -> str:
    """Return the sum of a column over lines in SQL, with calls that have two records counted once.

    Which record belongs to which is not known, as only one of them names the resource or has the caller's account: the
    largest sum of the records of a sort is right if one sort is complete, and never too large.
    """
    parts = (f"NOT {passed} AND NOT {elsewhere}", f"NOT {passed} AND {elsewhere}", passed)
    return f"coalesce(greatest({', '.join(f'sum({count}) FILTER ({part})' for part in parts)}), 0)"


def once_of_many(count: str) -> str:
    """Return the sum of ``once`` over lines of several callers, which have no account in common."""
    return once(count, elsewhere="false")


def own_or_elsewhere(count: str, condition: str) -> str:
    """Return the sum of a column over the lines of a condition in SQL; a call across accounts counts once."""
    parts = (f"{condition} AND NOT {ELSEWHERE}", f"{condition} AND {ELSEWHERE}")
    return f"coalesce(greatest({', '.join(f'sum({count}) FILTER ({part})' for part in parts)}), 0)"


def daily_totals(engine: DuckDBEngine, periods: Sequence[Period] = (Period(),)) -> dict[int, int]:
    """Return the events of each day (since 1970, UTC) of some periods; days without events are absent."""
    where = " OR ".join(f"({period.where('hour')})" for period in periods) or "false"
    sql = f"""SELECT epoch_us(hour) // {DAY}, sum(events)::BIGINT FROM hourly WHERE ({where}) AND {CALLS}
        GROUP BY 1 ORDER BY 1"""
    return {int(day): int(events) for day, events in ask(engine, tuple_of, sql)}


def whole_days(first: int, last: int) -> Period:
    """Return the period of whole days (since 1970, UTC), both inclusive."""
    return Period(first * DAY, (last + 1) * DAY if last < LAST_DAY else None)


def read_days(engine: DuckDBEngine, baseline: Baseline, events_of: Mapping[int, int]) -> Iterator[Day]:
    """Yield the days of ``events_of`` (day -> events) in order. Learn each one before asking for the next."""
    for chunk in chunk_days(events_of):
        left = list(chunk)
        while left:
            yield from _days(engine, baseline, left)


def _days(engine: DuckDBEngine, baseline: Baseline, left: list[int]) -> Iterator[Day]:
    """Yield days of ``left`` and remove them, until the baseline forgets somebody: then its indexes are other ones."""
    period, forgotten = whole_days(left[0], left[-1]), baseline.forgotten
    cells, writes, writes_at, hours, hours_at = _hours(engine, baseline, period)
    first_day, firsts = _firsts(engine, baseline, period)
    places, networks = read_places(engine, period), read_networks(engine, period)
    while left and baseline.forgotten == forgotten:
        day = left.pop(0)
        on_day = cells.hour // 24 == day
        yield Day(
            day,
            np.unique(baseline.of[cells.series[on_day]]),
            Cells(cells.series[on_day], cells.hour[on_day] % 24, cells.value[on_day]),
            np.unique(writes[writes_at // 24 == day]),
            _of_day(firsts, np.flatnonzero(first_day == day)),
            _hours_of_day(hours, np.flatnonzero(hours_at // 24 == day)),
            places.get(day, ()),
            networks.get(day, ()),
        )


def chunk_days(events_of: Mapping[int, int]) -> Iterator[list[int]]:
    """Split days (day -> events) into chunks that fit into memory."""
    chunk: list[int] = []
    events = 0
    for day in sorted(events_of):
        if chunk and (len(chunk) == _DAYS_AT_ONCE or events + events_of[day] > _EVENTS_AT_ONCE):
            yield chunk
            chunk, events = [], 0
        chunk.append(day)
        events += events_of[day]
    if chunk:
        yield chunk


class _Lines(NamedTuple):
    """Calls of callers by hour: a row per caller, call and hour; ``number``: an index into ``kinds``."""

    kinds: Sequence[tuple[str | None, str | None]]
    number: Column
    hour: Column
    events: Column
    bytes_out: Column
    denied: Column
    resources: Column
    reads: Column
    keys: Column
    first: Column
    last: Column
    elsewhere: Column


def _hours(
    engine: DuckDBEngine, baseline: Baseline, period: Period
) -> tuple[Cells, Column, Column, CallerHours, Column]:
    """Return all cells of a period, with hours since 1970; the series with mutating calls, with their hours; and the
    hours of callers, with theirs."""
    lines = _lines(engine, period)
    caller_of = np.array([baseline.caller(caller) for caller, _ in lines.kinds], np.int64)
    series_of = [baseline.series_of(baseline.caller(caller), name or "") for caller, name in lines.kinds]
    parts = [(np.array(series_of, np.int64)[lines.number], lines.hour, lines.events)]
    begin = (period.since or 0) // HOUR
    length = int(lines.hour.max(initial=begin)) - begin + 1
    slots, slot_of = np.unique(caller_of[lines.number] * length + (lines.hour - begin), return_inverse=True)
    caller, at = slots // length, slots % length + begin
    columns = (lines.bytes_out, lines.denied, lines.resources, lines.events)
    for name, column in zip(MEASURES, columns, strict=True):
        sums = np.bincount(slot_of, column, len(slots))
        some = sums > 0
        places = {of: baseline.series_of(of, name, measure=True) for of in np.unique(caller[some]).tolist()}
        series = np.array([places[of] for of in caller[some].tolist()], np.int64)
        parts.append((series, at[some], sums[some]))
    cells = Cells(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    writing = lines.reads == 0
    return cells, parts[0][0][writing], lines.hour[writing], _caller_hours(baseline, lines, slot_of, caller, at), at


def _lines(engine: DuckDBEngine, period: Period) -> _Lines:
    where, days = f"{period.where('hour')} AND {CALLS}", period.where_day("day")
    names = f"SELECT DISTINCT caller, event_name FROM hourly WHERE {where}"
    kinds = ask(engine, tuple_of, f"{names} ORDER BY caller, event_name")
    # A number instead of two strings per line, and columns instead of rows: millions of lines fit.
    table = fetch_arrow(
        engine,
        f"""WITH names AS (SELECT caller, event_name,
                row_number() OVER (ORDER BY caller, event_name)::INTEGER - 1 AS number FROM ({names})),
            {console_noise_relation(f"(SELECT * FROM hourly WHERE {where})", f"(SELECT * FROM sessions WHERE {days})")},
            lines AS (SELECT number, hour, category, error_code, events, bytes_out, resource_arn, read_only,
                len(object_keys) AS keys, first_time, last_time, {_NETWORK} AS network, {PASSED} AS passed,
                coalesce(account_id <> account, false) AS elsewhere,
                noise_hour IS NOT NULL AS noise
            FROM hourly JOIN (SELECT *, {_ACCOUNT} AS account FROM names) AS names
                ON hourly.caller IS NOT DISTINCT FROM names.caller
                AND hourly.event_name IS NOT DISTINCT FROM names.event_name
            LEFT JOIN (SELECT account_id AS noise_account, caller AS noise_caller, hour AS noise_hour
                FROM {CONSOLE_NOISE})
                ON account_id = noise_account AND hourly.caller = noise_caller AND hour = noise_hour
            WHERE {where})
        SELECT number, (epoch_us(hour) // {HOUR})::INTEGER, {_once("events")}::DOUBLE, {_once("bytes_out")}::DOUBLE,
            coalesce(sum(events) FILTER ({DENIED} AND NOT passed AND NOT noise), 0)::DOUBLE,
            count(DISTINCT resource_arn)::DOUBLE,
            coalesce(bool_and(coalesce(read_only, false)) FILTER (NOT network), true)::TINYINT,
            {_once("keys")}::DOUBLE, epoch_us(min(first_time)), epoch_us(max(last_time)),
            bool_and(elsewhere)::TINYINT
        FROM lines GROUP BY 1, 2""",
    )
    return _Lines(kinds, *(to_numpy(column) for column in table.columns))


def _caller_hours(baseline: Baseline, lines: _Lines, slot_of: Column, caller: Column, at: Column) -> CallerHours:
    """Return the measures of hours of callers. ``slot_of``: the place of each line's hour in ``caller`` and ``at``."""
    slots = len(caller)
    begins, ends = np.full(slots, np.iinfo(np.int64).max), np.zeros(slots, np.int64)
    np.minimum.at(begins, slot_of, lines.first)
    np.maximum.at(ends, slot_of, lines.last)
    away = np.ones(slots, np.int64)
    np.minimum.at(away, slot_of, lines.elsewhere)
    busiest = np.zeros(slots, np.int64)
    order = np.lexsort((-lines.number, lines.events))
    busiest[slot_of[order]] = lines.number[order]  # the greatest is written last
    values = _values(lines, slot_of, begins, ends)
    names = [name for _, name in lines.kinds]
    return CallerHours(caller, _kinds(baseline, caller, at // 24, away), values, begins, ends, busiest, names)


def _values(lines: _Lines, slot_of: Column, begins: Column, ends: Column) -> Column:
    """Return the measures of hours: a row per hour of a caller, a column per measure of BURSTS."""
    slots = len(begins)
    values = np.zeros((slots, len(BURSTS)))
    # The most of one call: what is read is often listed or asked for before.
    pace = np.where(lines.keys >= _PACE_LEAST, lines.keys / np.maximum((lines.last - lines.first) / 60e6, 1), 0)
    for measure, column in (("keys", lines.keys), ("pace", pace), ("resources", lines.resources)):
        np.maximum.at(values[:, BURSTS.index(measure)], slot_of, column)
    deletes = np.array([(name or "").startswith("Delete") for _, name in lines.kinds], bool)[lines.number]
    kinds = np.ones(len(lines.number))
    sums = {"bytes_out": lines.bytes_out, "kinds": kinds, "refused": lines.denied, "deletes": lines.events * deletes}
    for measure, column in sums.items():
        values[:, BURSTS.index(measure)] = np.bincount(slot_of, column, slots)
    calls = np.bincount(slot_of, lines.events, slots)
    rate = np.where(calls >= _PACE_LEAST, calls / np.maximum((ends - begins) / 60e6, 1), 0)
    values[:, BURSTS.index("rate")] = rate
    return values


def _once(count: str) -> str:
    return once(count, "passed", "elsewhere")


def _kinds(baseline: Baseline, caller: Column, day: Column, away: Column) -> Column:
    """Return the kind of each caller; one is foreign on a day if all its calls are in accounts other than its own."""
    _, of = np.unique(caller * (int(day.max(initial=0)) + 1) + day, return_inverse=True)
    foreign = np.ones(int(of.max(initial=-1)) + 1, np.int64)
    np.minimum.at(foreign, of, away)
    pairs, place = np.unique(caller * 2 + foreign[of], return_inverse=True)
    kinds = [kind_of(baseline.names[pair // 2], foreign=bool(pair % 2)) for pair in pairs.tolist()]
    return np.array(kinds, np.int8)[place]


def _hours_of_day(hours: CallerHours, at: Column) -> CallerHours:
    caller, kind, values, first, last, call, names = hours
    return CallerHours(caller[at], kind[at], values[at], first[at], last[at], call[at], names)


def _firsts(engine: DuckDBEngine, baseline: Baseline, period: Period) -> tuple[Column, FirstSeen]:
    """Return values that are not in the baseline yet, each with its first day in the period."""
    table = fetch_arrow(engine, _firsts_sql(period.where_day("day")))
    table = table.filter(_to_arrow(baseline.is_new(to_numpy(table.column(3)))))
    caller, kind, value, key, shared, day, events, first, last, name, resource = table.columns
    firsts = FirstSeen(
        _callers(baseline, caller),
        to_numpy(kind),
        to_numpy(key),
        to_numpy(shared),
        to_numpy(events),
        to_numpy(first),
        to_numpy(last),
        value.to_pylist(),
        name.to_pylist(),
        resource.to_pylist(),
    )
    return to_numpy(day), firsts


def _firsts_sql(where: str) -> str:
    sums = f"{_once('events')}::BIGINT AS events, min(a) AS a, max(b) AS b"
    # The busiest, ties broken by name: the same result however the lines are stored.
    busiest = ", ".join(f"arg_max({name}, (events, {name})) AS {name}" for name in ("event_name", "resource_arn"))
    # What a copy read is a resource and a pattern, too; the call itself is one of the resource that it wrote.
    calls = f" WHERE touch = {text(TARGET)}"
    parts = [
        f"SELECT caller, {FIRSTS.index(kind)} AS kind, {column} AS value, day, {sums}, {busiest} FROM used"
        f"{'' if column.startswith('resource_arn') else calls} GROUP BY 1, 3, 4"
        for kind, column in _USAGE.items()
    ]
    traits = " ".join(f"WHEN '{dimension}' THEN {FIRSTS.index(kind)}" for kind, dimension in _PROFILE.items())
    dimensions = ", ".join(f"'{dimension}'" for dimension in _PROFILE.values())
    passed_or_not = once("events", f"({_NETWORK})")
    times = "epoch_us(min(first_time)) AS a, epoch_us(max(last_time)) AS b"
    return f"""WITH used AS MATERIALIZED (
            SELECT caller, day, service, event_name, resource_arn, key_pattern, touch, {PASSED} AS passed,
                {ELSEWHERE} AS elsewhere, sum(events)::BIGINT AS events, {times}
            FROM usage WHERE {where} GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9),
        lines AS ({" UNION ALL ".join(parts)} UNION ALL
            SELECT caller, CASE dimension {traits} END, value, day, {passed_or_not}::BIGINT, {times}, NULL, NULL
            FROM profile WHERE {where} AND dimension IN ({dimensions}) GROUP BY caller, dimension, value, day)
        SELECT caller, kind, value, hash(caller, kind, value), hash(kind, value),
            epoch_us(min(day)::TIMESTAMP) // {DAY}, arg_min(events, day), arg_min(a, day), arg_min(b, day),
            arg_min(event_name, day), arg_min(resource_arn, day)
        FROM lines WHERE value IS NOT NULL GROUP BY caller, kind, value ORDER BY caller, kind, value"""


def _of_day(firsts: FirstSeen, at: Column) -> FirstSeen:
    caller, kind, key, shared, events, first, last, *texts = firsts
    value, name, resource = ([column[i] for i in at.tolist()] for column in texts)
    return FirstSeen(caller[at], kind[at], key[at], shared[at], events[at], first[at], last[at], value, name, resource)


def fetch_arrow(engine: DuckDBEngine, sql: str) -> pyarrow.Table:
    """Run SQL without the result cache and return an Arrow table."""
    return engine.query(sql, cache=False, arrow=True).arrow()


def _to_arrow(mask: Column) -> Any:
    import pyarrow

    return pyarrow.array(mask)


def to_numpy(column: Any) -> Column:
    """Return an Arrow column as a numpy array."""
    out: Column = column.to_numpy()
    return out


def _callers(baseline: Baseline, column: Any) -> Column:
    """Return the indexes of callers; each distinct one is looked up once."""
    encoded = column.combine_chunks().dictionary_encode()
    places = [baseline.caller(name) for name in encoded.dictionary.to_pylist()]
    codes = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    if (codes < 0).any():
        places.append(baseline.caller(None))
    return np.array(places, np.int64)[codes] if places else np.zeros(0, np.int64)
