"""Shared by all reports: SQL in, typed rows out, and why a report may be empty."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.analysis.time_range import Period
from trailsift.lake.retention import removed_days
from trailsift.query.engine import Engine
from trailsift.query.json_objects import plain as plain
from trailsift.query.relations import text
from trailsift.safe_text import quoted
from trailsift.schema import DENIED_CODES, INSIGHT, SKETCH_SIZE, TARGET
from trailsift.times import HOUR

if TYPE_CHECKING:
    from trailsift.lake.index import Snapshot

T = TypeVar("T")

#: Statements of one report that run at the same time: each waits for Python and for planning half of its time.
_AT_ONCE = 4


def ask(engine: Engine, kind: Callable[..., T], sql: str) -> list[T]:
    """Return the rows of ``sql``, each as ``kind`` (a NamedTuple) of its columns in order."""
    return [kind(*row) for row in engine.sql(sql).rows()]


def together(*questions: Callable[[], Any]) -> list[Any]:
    """Return the answers to questions that do not depend on each other, asked at the same time."""
    if len(questions) < 2:
        return [question() for question in questions]
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(min(len(questions), _AT_ONCE)) as pool:
        return [answer.result() for answer in [pool.submit(question) for question in questions]]


def stored_events(engine: Engine, days: Period) -> int:
    """Return how many events of whole UTC days are stored as single events: from the index, if its files tell."""
    snapshot = engine.snapshot
    since, until = days.since, days.until
    count = 0
    for file in snapshot.files("events"):
        if (since is not None and file.max_time < since) or (until is not None and file.min_time >= until):
            continue
        is_inside = (since is None or file.min_time >= since) and (until is None or file.max_time < until)
        # Another engine may have deleted rows of its files.
        if not is_inside or snapshot.rebuilt is not None:
            sql = f"SELECT count(*) FROM events WHERE {days.where('event_time')}"
            return int(ask(engine, tuple_of, sql)[0][0])
        count += file.rows
    return count


def tuple_of(*values: Any) -> tuple[Any, ...]:
    """Return a row unchanged: a ``kind`` for ``ask``."""
    return values


#: Condition on an error code: the call was refused for lack of permission.
DENIED = "error_code IN (" + ", ".join(text(code) for code in sorted(DENIED_CODES)) + ")"

#: Category of records of calls through VPC endpoints, beside which there can be one of another category.
NETWORK_ACTIVITY = "NetworkActivity"
#: Conditions on lines of summary tables: what calls acted on, without the second line for what a copy read; and calls,
#: without Insights, which nobody made.
TARGETS = f"touch = {text(TARGET)}"
CALLS = f"category IS DISTINCT FROM {text(INSIGHT)}"

_SKETCH = f"list_slice(list_sort(list(DISTINCT {{hash}}) FILTER (WHERE {{column}} IS NOT NULL)), 1, {SKETCH_SIZE})"
# The first 8 bytes of the MD5 as a signed integer, like summarize.hash64.
_HASH = (
    "(('0x' || left(md5({column}), 16))::UBIGINT::HUGEINT"
    " - CASE WHEN left(md5({column}), 1) >= '8' THEN 18446744073709551616 ELSE 0 END)::BIGINT"
)


def lines(period: Period) -> str:
    """Return a subquery with the columns of ``hourly`` for exactly this period.

    Full hours come from ``hourly``. An hour that the period cuts is counted from ``events``, by weight: exact if
    nothing of that hour was sampled away.
    """
    since = period.since if period.since is None else -(-period.since // HOUR) * HOUR
    until = period.until if period.until is None else period.until // HOUR * HOUR
    edges = []
    if since is not None and until is not None and since > until:
        # Both ends are in one hour: no full hour is left.
        return f"({_from_events(period)})"
    if since != period.since:
        edges.append(Period(period.since, since))
    if until != period.until:
        edges.append(Period(until, period.until))
    full_hours = f"SELECT * FROM hourly WHERE {Period(since, until).where('hour')}"
    return "(" + " UNION ALL BY NAME ".join([full_hours, *map(_from_events, edges)]) + ")"


def in_full_hours(snapshot: Snapshot, period: Period) -> Period:
    """Return a period whose ends are full hours where retention has removed the events; it gets larger if it must."""
    if all(end is None or end % HOUR == 0 for end in (period.since, period.until)):
        return period
    removed = removed_days(snapshot).events
    since, until = period.since, period.until
    if removed is not None and since is not None and since < removed:
        since = since // HOUR * HOUR
    if removed is not None and until is not None and until < removed:
        until = -(-until // HOUR) * HOUR
    return Period(since, until, period.zone)


def _from_events(period: Period) -> str:
    keys = "account_id, aws_region, service, event_name, caller, role_arn, resource_arn, error_code, read_only"
    sketches = ", ".join(
        _SKETCH.format(hash=_HASH.format(column=column), column=column) + f" AS {name}"
        for column, name in (("source_ip", "source_ips"), ("object_key", "object_keys"))
    )
    return (
        f"SELECT date_trunc('hour', event_time) AS hour, {keys}, event_category AS category, "
        "round(sum(weight))::BIGINT AS events, "
        "round(coalesce(sum(bytes_in * weight), 0))::BIGINT AS bytes_in, "
        "round(coalesce(sum(bytes_out * weight), 0))::BIGINT AS bytes_out, "
        f"{sketches}, min(event_time) AS first_time, max(event_time) AS last_time "
        f"FROM events WHERE {period.where('event_time')} "
        f"GROUP BY date_trunc('hour', event_time), {keys}, event_category"
    )


def why_nothing(snapshot: Snapshot, period: Period) -> str:
    """Return why a report on a period is empty: the lake is empty, or its events are of another time."""
    files = snapshot.files("hourly")
    if not files:
        return (
            f"the lake at {snapshot.root} holds no events yet: `trailsift ingest PATH --lake {quoted(snapshot.root)}`"
        )
    held = snapshot.files("events")
    first = min(file.min_time for file in held or files)
    last = max(file.max_time for file in held or files)
    span = f"the lake holds events from {period.show(first)} to {period.show(last)} ({period.zone.key})"
    if period.whole:
        return f"nothing matched; {span}"
    bounds = " ".join(
        f"{word} {period.show(limit)}"
        for word, limit in (("from", period.since), ("up to", period.until))
        if limit is not None
    )
    return f"nothing {bounds}: {span}"
