"""What a finding's caller did in its time, from the hourly summary: the data of the first line of a note."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trailsift.analysis.base import CALLS
from trailsift.detect.callers import condition_of
from trailsift.detect.daily_data import ELSEWHERE, PASSED, once
from trailsift.detect.finding import Finding, Signal
from trailsift.query.relations import text
from trailsift.schema import SKETCH_SIZE
from trailsift.times import HOUR, literal

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Findings that are looked up: the first of a list, beyond which nobody reads.
MOST = 100
#: Kinds with a call as an example: their sentence is about all calls. Kinds whose number is not one of calls.
_OF_ALL, _NOT_CALLS = ("more_bytes", "more_denied"), ("more_bytes", "many_resources", "burst", "unlike_peers")
#: Facts of more than this many times the calls of a signal are mostly about other calls of the same hours.
_SAME = 1.5


class Facts(NamedTuple):
    """The calls of the leading caller in the hours of a finding, all of them or those of the strongest signal.

    ``event_name`` and ``resource_arn`` are the most frequent ones; ``resources`` and ``objects`` count distinct ones
    (``objects`` within a few percent, 0 if the calls name none).
    """

    event_name: str | None
    resource_arn: str | None
    resources: int
    objects: int
    events: int
    bytes_out: int


def facts_of(engine: DuckDBEngine, findings: Sequence[Finding]) -> dict[str, Facts]:
    """Return the facts of the first findings by id, with one query.

    Those without a call in ``hourly``, and those whose hours hold mostly other calls, have none.
    """
    leading = {finding.id: finding.leading_signals[0] for finding in findings[:MOST] if finding.signals}
    if not leading:
        return {}
    # Constants, besides the join: files of other times and callers are not read.
    since = min(signal.first_time for signal in leading.values()) // HOUR * HOUR
    until = max(signal.last_time for signal in leading.values())
    callers = condition_of(signal.caller for signal in leading.values())
    spans = ", ".join(_span(name, signal) for name, signal in leading.items())
    rows = engine.sql(
        f"""WITH spans(id, caller_is, since, until, call, of_service, by_bytes) AS (VALUES {spans}),
        chosen AS (
            SELECT id, event_name, resource_arn, object_keys, events, bytes_out,
                {PASSED} AS passed, {ELSEWHERE} AS twin,
                CASE WHEN by_bytes THEN coalesce(bytes_out, 0) ELSE events END AS weight
            FROM hourly JOIN spans ON coalesce(hourly.caller, hourly.role_arn) = caller_is
                AND hour >= since AND hour <= until AND (call IS NULL OR event_name = call)
                AND (of_service IS NULL OR service = of_service)
            WHERE {CALLS} AND hour >= {literal(since)} AND hour <= {literal(until)} AND {callers}),
        calls AS (SELECT id, arg_max(event_name, (n, event_name)) AS call
            FROM (SELECT id, event_name, sum(weight) AS n FROM chosen GROUP BY ALL) GROUP BY id),
        places AS (SELECT id, arg_max(resource_arn, (n, resource_arn)) AS place, count(*) AS places
            FROM (SELECT id, resource_arn, sum(weight) AS n FROM chosen WHERE resource_arn IS NOT NULL GROUP BY ALL)
            GROUP BY id),
        keys AS (SELECT id, distinct_count(min(hash, {SKETCH_SIZE})) AS number
            FROM (SELECT DISTINCT id, unnest(object_keys) AS hash FROM chosen) GROUP BY id),
        sums AS (SELECT id, {once("events", "passed", "twin")}::BIGINT AS events,
                {once("bytes_out", "passed", "twin")}::BIGINT AS bytes_out
            FROM chosen GROUP BY id)
        SELECT id, call, place, coalesce(places, 0), coalesce(number, 0)::BIGINT, events, bytes_out
        FROM sums JOIN calls USING (id) LEFT JOIN places USING (id) LEFT JOIN keys USING (id)"""
    ).rows()
    found = {row[0]: Facts(*row[1:]) for row in rows}
    return {name: facts for name, facts in found.items() if _is_about(facts, leading[name])}


def _is_about(facts: Facts, signal: Signal) -> bool:
    return signal.kind in _NOT_CALLS or facts.events <= _SAME * signal.events


def _span(name: str, signal: Signal) -> str:
    """Return a row of the table of findings."""
    # The calls that the sentence is about; those of a detection are its own.
    call = signal.event_name if signal.kind.startswith("more_") and signal.kind not in _OF_ALL else None
    service = signal.value if signal.kind == "first_service" else None
    texts = ("NULL::VARCHAR" if value is None else text(value) for value in (signal.caller, call, service))
    caller, call_is, of_service = texts
    since, until = literal(signal.first_time // HOUR * HOUR), literal(signal.last_time)
    by_bytes = str(signal.kind == "more_bytes").lower()
    return f"({text(name)}, {caller}, {since}, {until}, {call_is}, {of_service}, {by_bytes})"
