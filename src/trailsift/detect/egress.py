"""Daily egress of roles, read from the summary table ``usage``, a few days at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from trailsift.detect.daily_data import chunk_days, fetch_arrow, to_numpy, whole_days
from trailsift.detect.daily_series import BYTES, PATTERN, READS, ROLE, TOUCHES, DailyEgress
from trailsift.times import DAY

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query import DuckDBEngine

#: Calls that return content.
_READS = "^(Get(Object|Item|Records)$|BatchGetItem$|Query$|Scan$|Select|ExecuteStatement$|BatchExecuteStatement$|Copy)"


def daily_egress(engine: DuckDBEngine, events_of: Mapping[int, int]) -> Iterator[DailyEgress]:
    """Yield the days of ``events_of`` (day -> events) in order. Callers without a role have no baseline."""
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
    role, touches = f"hash({ROLE}, role_arn)", f"hash({TOUCHES}, role_arn, resource_arn)"
    reads = f"hash({READS}, role_arn, resource_arn, event_name)"
    bytes_out, read = f"hash({BYTES}, role_arn, resource_arn)", f"regexp_matches(event_name, '{_READS}')"
    # A call that failed returned nothing.
    return f"""WITH used AS MATERIALIZED (
            SELECT {day} AS day, role_arn, resource_arn, event_name, key_pattern, sum(events)::BIGINT AS n,
                coalesce(sum(bytes_out), 0)::BIGINT AS size
            FROM usage WHERE {where} AND role_arn IS NOT NULL AND error_code IS NULL GROUP BY 1, 2, 3, 4, 5)
        SELECT day, {ROLE} AS kind, {role} AS key, 0::UBIGINT AS under, sum(n)::DOUBLE AS value, role_arn,
            NULL AS resource_arn, NULL AS event_name, NULL AS key_pattern FROM used GROUP BY day, role_arn
        UNION ALL SELECT day, {TOUCHES}, {touches}, {role}, sum(n)::DOUBLE, role_arn, resource_arn, NULL, NULL FROM used
            WHERE resource_arn IS NOT NULL GROUP BY day, role_arn, resource_arn
        UNION ALL SELECT day, {BYTES}, {bytes_out}, {touches}, sum(size)::DOUBLE / 1e6, role_arn, resource_arn,
            arg_max(event_name, (size, event_name)), NULL FROM used
            WHERE resource_arn IS NOT NULL AND size > 0 GROUP BY day, role_arn, resource_arn
        UNION ALL SELECT day, {READS}, {reads}, {touches}, sum(n)::DOUBLE, role_arn, resource_arn, event_name,
            NULL FROM used
            WHERE resource_arn IS NOT NULL AND {read} GROUP BY day, role_arn, resource_arn, event_name
        UNION ALL SELECT day, {PATTERN}, hash({PATTERN}, role_arn, resource_arn, event_name, key_pattern), {reads},
            n::DOUBLE, role_arn, resource_arn, event_name, key_pattern FROM used
            WHERE resource_arn IS NOT NULL AND key_pattern IS NOT NULL AND {read}
        ORDER BY day, kind, key"""
