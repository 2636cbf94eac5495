"""One object, or all objects of a pattern: every call that touched it, as far as single events are stored.

A copy touches two objects: the one that it reads and the one that it writes. A call that several accounts or
categories logged is one touch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from trailsift.analysis.base import NETWORK_ACTIVITY, TARGETS, ask, stored_events, together, tuple_of
from trailsift.analysis.resource import whole_days
from trailsift.analysis.resource_names import FOLDED, find_resource
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.schema import UNKNOWN_CATEGORY

#: Touches that are listed unless a limit is given.
MOST = 1000
#: Characters of a key that S3 allows at most (1,024 bytes), with room for item keys of DynamoDB.
_LONGEST = 4096
#: Callers that are named in a statement at most.
_CALLERS = 100


class ObjectTouch(NamedTuple):
    """One call. ``touch``: ``target``, or ``source`` for a copy out of the object, which went to ``other_arn`` and
    ``other_key``; of a copy onto the object these are where it came from. ``records``: how many records it has."""

    event_time: int
    event_name: str | None
    touch: str
    caller: str | None
    session_name: str | None
    source_ip: str | None
    user_agent: str | None
    access_key_id: str | None
    error_code: str | None
    object_key: str | None
    other_arn: str | None
    other_key: str | None
    bytes_in: int | None
    bytes_out: int | None
    event_id: str
    records: int


@dataclass(frozen=True, slots=True)
class ObjectReport(JsonObject):
    """The touches of an object, the last one first.

    ``total``: all of them; ``touches`` has the newest. ``batches``: DeleteObjects calls on the bucket whose objects no
    event names. ``counted`` and ``stored``: calls on the bucket in the whole UTC days of the period, and how many of
    them are stored as single events; the others were dropped or sampled, or were removed by retention.
    """

    resource_arn: str
    key: str
    period: Period
    touches: tuple[ObjectTouch, ...]
    total: int
    keys: int
    first_time: int | None
    batches: int
    counted: int
    stored: int

    JSON: ClassVar[dict[str, str]] = {
        "resource_arn": "resource_arn",
        "key": "key",
        "period": "period",
        "total": "total",
        "objects": "keys",
        "first_time": "first_time",
        "batches_without_keys": "batches",
        "events_of_resource": "counted",
        "events_stored": "stored",
        "query": "query",
        "touches": "touches",
    }

    @property
    def missing(self) -> int:
        """Calls on the bucket that are not stored as single events."""
        return max(self.counted - self.stored, 0)

    @property
    def query(self) -> str:
        """SQL to go on with: the events of the touches."""
        return f"SELECT * FROM events WHERE {condition(self.resource_arn, self.key)} ORDER BY event_time DESC"

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The touches as names of columns and rows."""
        return list(ObjectTouch._fields), list(self.touches)


def object_touches(engine: Engine, name: str, period: Period, limit: int = MOST) -> ObjectReport:
    """Return every touch of ``BUCKET/KEY``, where ``*`` in the key stands for any text; at most ``limit`` (0: all).

    Raise UsageError for another form, a negative limit, or a bucket that the lake does not have.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    arn, key = split(engine, name)
    days = whole_days(period)
    scope = _scope(engine, arn, key, days)
    sql = _touches(arn, key, f"{period.where('event_time')}{scope.where}", limit, with_sources=scope.has_sources)
    rows, batches, stored = together(
        lambda: ask(engine, tuple_of, sql),
        lambda: ask(engine, tuple_of, _batches(arn, period)) if scope.has_batches else [(0,)],
        lambda: [(_stored(engine, arn, days, scope.counted),)],
    )
    touches = tuple(ObjectTouch(*row[:-3]) for row in rows)
    total, keys, first = rows[0][-3:] if rows else (0, 0, None)
    return ObjectReport(arn, key, period, touches, total, keys, first, batches[0][0], scope.counted, stored[0][0])


class _Scope(NamedTuple):
    """Where an object is: ``counted``: calls on its bucket; ``where``: a condition that all events on it meet."""

    counted: int
    has_sources: bool
    has_batches: bool
    where: str


def _scope(engine: Engine, arn: str, key: str, days: Period) -> _Scope:
    """Return where to look for an object: its pattern of keys says which callers touched it, and when."""
    own = f"resource_arn = {text(arn)}"
    like = own if "*" in key else f"{own} AND key_pattern = {text(key_pattern(key))}"
    row = ask(
        engine,
        tuple_of,
        f"""SELECT coalesce(sum(events) FILTER (WHERE {own} AND {TARGETS}), 0)::BIGINT,
            count(*) FILTER (WHERE {own} AND NOT {TARGETS}), count(*) FILTER (WHERE event_name = 'DeleteObjects'),
            list(DISTINCT caller) FILTER (WHERE {like}), epoch_us(min(first_time) FILTER (WHERE {like})),
            epoch_us(max(last_time) FILTER (WHERE {like})),
            count(*) FILTER (WHERE resource_arn = {text(FOLDED)} OR key_pattern = {text(FOLDED)}
                OR category = {text(UNKNOWN_CATEGORY)})
        FROM usage WHERE resource_arn IN ({text(arn)}, {text(FOLDED)}) AND {days.where_day("day")}""",
    )[0]
    counted, sources, batches, callers, first, last, folded = row
    where = ""
    if not folded:
        # Files are sorted by caller and time.
        where = " AND false" if first is None else f" AND {Period(first, last + 1).where('event_time')}"
        if first is not None and len(callers) <= _CALLERS and all(caller is not None for caller in callers):
            where += f" AND caller IN ({', '.join(map(text, sorted(callers)))})"
    return _Scope(counted, bool(sources or folded), bool(batches or folded), where)


def _stored(engine: Engine, arn: str, days: Period, counted: int) -> int:
    """Return how many of the calls on a bucket are stored: all, if all events of the days are."""
    total = f"SELECT coalesce(sum(events), 0)::BIGINT FROM hourly WHERE {days.where('hour')}"
    if stored_events(engine, days) >= ask(engine, tuple_of, total)[0][0]:
        return counted
    sql = f"SELECT count(*) FROM events WHERE resource_arn = {text(arn)} AND {days.where('event_time')}"
    return int(ask(engine, tuple_of, sql)[0][0])


def split(engine: Engine, name: str) -> tuple[str, str]:
    """Return (ARN of the resource, key) of an object as people name it."""
    if len(name) > _LONGEST:
        raise UsageError(f"a name of {len(name):,} characters is too long for an object: S3 allows 1,024 bytes")
    wanted = name[5:] if name.lower().startswith("s3://") else name
    if wanted.startswith("arn:"):
        sql = f"SELECT DISTINCT resource_arn FROM usage WHERE starts_with({text(wanted)}, resource_arn || '/')"
        arns = [row[0] for row in ask(engine, tuple_of, sql)]
        if arns:
            arn = max(arns, key=len)
            return arn, wanted[len(arn) + 1 :]
        wanted = wanted.removeprefix("arn:aws:s3:::")
    bucket, slash, key = wanted.partition("/")
    if not slash or not key or not bucket:
        raise UsageError(
            f"{name!r} names no object: use BUCKET/KEY, such as my-bucket/reports/2026.csv or 'my-bucket/reports/*'; "
            "`trailsift resource BUCKET` shows a whole bucket"
        )
    return find_resource(engine, bucket), key


def matches(column: str, key: str) -> str:
    """Return an SQL condition: the column is the key, in which ``*`` stands for any text."""
    if "*" not in key:
        return f"{column} = {text(key)}"
    escaped = "".join("\\" + sign if sign in "\\%_" else "%" if sign == "*" else sign for sign in key)
    return f"{column} LIKE {text(escaped)} ESCAPE '\\'"


def condition(arn: str, key: str) -> str:
    """Return an SQL condition on ``events``: the call touched the object, as its target or as what a copy read."""
    return (
        f"(resource_arn = {text(arn)} AND {matches('object_key', key)} "
        f"OR source_resource_arn = {text(arn)} AND {matches('source_object_key', key)})"
    )


def _touches(arn: str, key: str, within: str, limit: int, *, with_sources: bool) -> str:
    network = text(NETWORK_ACTIVITY)
    columns = (
        "event_time, event_name, caller, session_name, source_ip, user_agent, access_key_id, error_code, bytes_in, "
        "bytes_out, event_id, shared_event_id, request_id, event_category"
    )
    one = f"""SELECT {columns}, 'target' AS touch, object_key, source_resource_arn AS other_arn,
            source_object_key AS other_key
        FROM events WHERE resource_arn = {text(arn)} AND {matches("object_key", key)} AND {within}"""
    two = f"""SELECT {columns}, 'source' AS touch, source_object_key, resource_arn, object_key
        FROM events WHERE source_resource_arn = {text(arn)} AND {matches("source_object_key", key)} AND {within}"""
    found = f"{one} UNION ALL {two}" if with_sources else one
    # A call through an endpoint has its record of NetworkActivity beside one of another category, with its request id.
    # Who called is named best by the record of the caller's account: an ARN sorts behind `account:`.
    return f"""WITH found AS ({found}),
        named AS (SELECT *, CASE WHEN event_category = {network} AND request_id IS NOT NULL THEN first_value(
                coalesce(nullif(shared_event_id, ''), event_id)) OVER (PARTITION BY request_id, event_name, object_key,
                touch ORDER BY event_category = {network}, event_id)
            ELSE coalesce(nullif(shared_event_id, ''), event_id) END AS call FROM found),
        calls AS (SELECT min(event_time) AS event_time, min(event_name) AS event_name, touch, max(caller) AS caller,
            max(session_name) AS session_name, arg_min(source_ip, event_category = {network}) AS source_ip,
            min(user_agent) AS user_agent, max(access_key_id) AS access_key_id, max(error_code) AS error_code,
            object_key, max(other_arn) AS other_arn, max(other_key) AS other_key, max(bytes_in) AS bytes_in,
            max(bytes_out) AS bytes_out, min(event_id) AS event_id, count(*) AS records
        FROM named GROUP BY call, touch, object_key)
        SELECT epoch_us(event_time), * EXCLUDE (event_time), count(*) OVER (),
            (SELECT count(DISTINCT object_key) FROM found), epoch_us(min(event_time) OVER ())
        FROM calls ORDER BY event_time DESC, event_id, touch""" + (f" LIMIT {limit}" if limit else "")


def _batches(arn: str, period: Period) -> str:
    own = f"FROM events WHERE resource_arn = {text(arn)} AND {period.where('event_time')}"
    return f"""SELECT count(DISTINCT coalesce(request_id, event_id)) {own} AND event_name = 'DeleteObjects'
        AND error_code IS NULL AND coalesce(request_id NOT IN (
            SELECT request_id {own} AND event_name = 'DeleteObject' AND request_id IS NOT NULL), true)"""
