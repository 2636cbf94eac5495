"""Conditions on single events, put together so that many of them are one pass over the table ``events``.

Each event is matched against all conditions of a batch. A condition that names calls or sources of events is computed
for those events only, and where all conditions of a batch name sources, other services' files are not read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from trailsift.cloudtrail.callers import ANONYMOUS, NONE
from trailsift.cloudtrail.services import service_of
from trailsift.query.relations import text
from trailsift.times import DAY, HOUR

#: Rows of one condition that a pass returns at most, the newest; a row is a caller's hour (or day).
MAX_ROWS = 50_000
#: The longest statement of a batch, in characters. The most that `query` parses is a million.
_LONGEST = 400_000


@dataclass(frozen=True)
class EventScan:
    """A condition on one row of ``events``, in SQL that is never null.

    ``names`` and ``sources``: the values of ``event_name`` and ``event_source``, in lower case, outside of which it is
    certainly false; None if there is no such list. ``step``: rows are per caller and this many microseconds.
    """

    condition: str
    names: frozenset[str] | None = None
    sources: frozenset[str] | None = None
    step: int = HOUR

    @property
    def gate(self) -> str:
        """A cheap condition that is true wherever ``condition`` is; an empty text if there is none."""
        parts = [
            f"lower({column}) IN ({', '.join(map(text, sorted(values)))})"
            for column, values in (("event_source", self.sources), ("event_name", self.names))
            if values is not None
        ]
        return " AND ".join(parts)


class Batch(NamedTuple):
    """A statement that runs several scans from a day (since 1970) on; its column ``rule`` is one of ``places``."""

    sql: str
    since: int
    places: tuple[int, ...]


def batches(scans: Iterable[tuple[int, EventScan, int]]) -> Iterator[Batch]:
    """Yield statements for scans, each given as its place, the scan, and the day from which on it runs."""
    groups: dict[tuple[int, bool], list[tuple[int, EventScan]]] = {}
    for place, scan, since in scans:
        # A scan that names no source would make the others read every service's files.
        groups.setdefault((since, scan.sources is None), []).append((place, scan))
    for (since, _), members in groups.items():
        for part in _parts(members):
            yield Batch(statement(part), since, tuple(place for place, _ in part))


def _parts(members: Sequence[tuple[int, EventScan]]) -> Iterator[list[tuple[int, EventScan]]]:
    part: list[tuple[int, EventScan]] = []
    length = 0
    for member in members:
        own = len(member[1].condition) + 2 * len(member[1].gate)
        if part and length + own > _LONGEST:
            yield part
            part, length = [], 0
        part.append(member)
        length += own
    if part:
        yield part


def statement(scans: Sequence[tuple[int, EventScan]]) -> str:
    """Return a query for the matches of scans: per scan (``rule``), caller and step of time one row of COLUMNS."""
    cases = ", ".join(f"CASE WHEN {_guarded(scan)} THEN {place} END" for place, scan in scans)
    days = [str(place) for place, scan in scans if scan.step == DAY]
    step = f"CASE WHEN rule IN ({', '.join(days)}) THEN {DAY} ELSE {HOUR} END" if days else str(HOUR)
    nobody = f"caller IS NULL OR caller IN ({text(NONE)}, {text(ANONYMOUS)})"
    return f"""WITH matched AS (
    SELECT unnest(rules) AS rule, account_id, caller, event_name, resource_arn, event_time, weight
    FROM (
        SELECT account_id, caller, event_name, resource_arn, event_time, weight,
            list_filter([{cases}], lambda rule: rule IS NOT NULL) AS rules
        FROM events{_where([scan for _, scan in scans])}
    ) WHERE len(rules) > 0
), calls AS (
    SELECT rule, account_id, caller, event_name, resource_arn, epoch_us(event_time) // ({step}) AS step,
        min(event_time) AS first_time, max(event_time) AS last_time, sum(weight) AS calls
    FROM matched GROUP BY ALL
)
SELECT rule, account_id, caller, first(event_name ORDER BY calls DESC, event_name) AS event_name,
    first(resource_arn ORDER BY calls DESC, resource_arn) AS resource_arn,
    min(first_time) AS first_time, max(last_time) AS last_time,
    greatest(1, round(sum(calls)))::BIGINT AS events
FROM calls GROUP BY rule, account_id, caller, CASE WHEN {nobody} THEN resource_arn END, step
QUALIFY row_number() OVER (PARTITION BY rule ORDER BY min(first_time) DESC) <= {MAX_ROWS}"""


def _guarded(scan: EventScan) -> str:
    return f"{scan.gate} AND {scan.condition}" if scan.gate else scan.condition


def _where(scans: Sequence[EventScan]) -> str:
    """Return a WHERE clause that is true wherever one of the scans is; empty if one of them may match any event."""
    if any(not scan.gate for scan in scans):
        return ""
    names = [scan.names for scan in scans if scan.names is not None]
    sources = [scan.sources for scan in scans if scan.names is None and scan.sources is not None]
    parts = [
        EventScan("", names=frozenset().union(*names)).gate if names else "",
        EventScan("", sources=frozenset().union(*sources)).gate if sources else "",
    ]
    where = f"\n        WHERE ({' OR '.join(filter(None, parts))})"
    known = [scan.sources for scan in scans if scan.sources is not None]
    if len(known) == len(scans):
        # A column of the partition: files of other services are not opened.
        services = sorted({service_of(source) for sources in known for source in sources})
        where += f" AND service IN ({', '.join(map(text, services))})"
    return where
