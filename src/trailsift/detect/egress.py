"""Daily egress of callers, read from the summary table ``usage``, a few days at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from trailsift.analysis.base import NETWORK_ACTIVITY, TARGETS
from trailsift.cloudtrail.callers import NONE
from trailsift.detect.daily_data import chunk_days, fetch_arrow, own_or_elsewhere, to_numpy, whole_days
from trailsift.detect.daily_series import BYTES, CALLER, PATTERN, READS, TOUCHES, DailyEgress
from trailsift.query.relations import text
from trailsift.times import DAY

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query import DuckDBEngine

#: Calls that return content.
_READS = "^(Get(Object|Item|Records)$|BatchGetItem$|Query$|Scan$|Select|ExecuteStatement$|BatchExecuteStatement$|Copy)"


def daily_egress(engine: DuckDBEngine, events_of: Mapping[int, int]) -> Iterator[DailyEgress]:
    """Yield the days of ``events_of`` (day -> events) in order. Nobody in particular has no baseline."""
    for chunk in chunk_days(events_of):
        table = fetch_arrow(engine, _sql(whole_days(chunk[0], chunk[-1]).where_day("day")))
        days = to_numpy(table.column(0))
        for day in chunk:
            begin, end = np.searchsorted(days, [day, day + 1]).tolist()
            yield _of_day(day, table.slice(begin, end - begin))


def _of_day(day: int, lines: pyarrow.Table) -> DailyEgress:
    _, *columns = lines.columns
    kind, key, under, value = (to_numpy(column) for column in columns[:4])

    def text(line: int) -> list[str | None]:
        return [column[line].as_py() for column in columns[4:]]

    return DailyEgress(day, kind, key, under, value, text)


def _sql(where: str) -> str:
    day = f"(epoch_us(day::TIMESTAMP) // {DAY})::INTEGER"
    caller, touches = f"hash({CALLER}, caller)", f"hash({TOUCHES}, caller, resource_arn)"
    reads = f"hash({READS}, caller, resource_arn, event_name)"
    bytes_out, read = f"hash({BYTES}, caller, resource_arn)", f"regexp_matches(event_name, '{_READS}')"
    # A call that failed returned nothing. What passed a VPC endpoint is logged by the service as well: here, resources
    # and bytes count, which only that record has. What a copy read has a line of its own: it counts for the resource,
    # once if a copy stays inside it, and not as another call of the caller.
    return f"""WITH used AS MATERIALIZED (
            SELECT {day} AS day, caller, resource_arn, event_name, key_pattern,
                {own_or_elsewhere("events", TARGETS)}::BIGINT AS calls,
                greatest(calls, {own_or_elsewhere("events", f"NOT {TARGETS}")})::BIGINT AS n,
                {own_or_elsewhere("bytes_out", TARGETS)}::BIGINT AS size
            FROM usage WHERE {where} AND caller IS NOT NULL AND caller <> {text(NONE)} AND error_code IS NULL
                AND category IS DISTINCT FROM {text(NETWORK_ACTIVITY)} GROUP BY 1, 2, 3, 4, 5)
        SELECT day, {CALLER} AS kind, {caller} AS key, 0::UBIGINT AS under, sum(calls)::DOUBLE AS value, caller,
            NULL AS resource_arn, NULL AS event_name, NULL AS key_pattern FROM used GROUP BY day, caller
        UNION ALL SELECT day, {TOUCHES}, {touches}, {caller}, sum(n)::DOUBLE, caller, resource_arn, NULL, NULL FROM used
            WHERE resource_arn IS NOT NULL GROUP BY day, caller, resource_arn
        UNION ALL SELECT day, {BYTES}, {bytes_out}, {touches}, sum(size)::DOUBLE / 1e6, caller, resource_arn,
            arg_max(event_name, (size, event_name)), NULL FROM used
            WHERE resource_arn IS NOT NULL AND size > 0 GROUP BY day, caller, resource_arn
        UNION ALL SELECT day, {READS}, {reads}, {touches}, sum(n)::DOUBLE, caller, resource_arn, event_name,
            NULL FROM used
            WHERE resource_arn IS NOT NULL AND {read} GROUP BY day, caller, resource_arn, event_name
        UNION ALL SELECT day, {PATTERN}, hash({PATTERN}, caller, resource_arn, event_name, key_pattern), {reads},
            n::DOUBLE, caller, resource_arn, event_name, key_pattern FROM used
            WHERE resource_arn IS NOT NULL AND key_pattern IS NOT NULL AND {read}
        ORDER BY day, kind, key"""
