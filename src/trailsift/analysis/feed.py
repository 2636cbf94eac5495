"""How logs come in: how far the lake is behind, and hours in which an account and region delivered nothing.

An hour without events counts as missing only if the same account and region normally delivers at that hour. "Normally"
is judged by the hours at the same time of day in the two weeks before, working days by working days and weekends by
weekends: nearly all of them had events, the hour a week before among them. Hours that follow each other are a gap if
together they lack more events than chance explains: the fewest that such hours ever have add up to 12 or more.
Hours found missing do not count as normal later. It takes a week of history to know.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from statistics import median
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from trailsift.analysis.base import CALLS
from trailsift.query.json_objects import JsonObject
from trailsift.times import HOUR, literal, micros

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Days that are looked at, and days before each hour that say what is normal.
CHECKED_DAYS, HISTORY_DAYS = 7, 14
#: The newest hour with events, and this many before it, may not be complete yet.
SETTLING = 1
#: Pairs of account and region that are looked at, the busiest; gaps that are returned, and pairs named in each.
MOST_FEEDS, MOST_GAPS, NAMED = 1_000, 100, 3

#: Comparable hours that are needed, on working days and on weekends, and how many of ten may be without events.
_LEAST, _LEAST_WEEKEND = 5, 3
_SILENT_OF = 10
#: Characters of an account and a region: a log may say anything.
_LONGEST = 40
#: Events that a gap lacks at least. If they come by chance, a gap of 12 has a probability of 1 in 160,000.
ENOUGH = 12
_WEEK = 24 * 7


class Feed(NamedTuple):
    """An account and a region, and its events by hour (hours since 1970)."""

    account_id: str
    aws_region: str
    events: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class Gap(JsonObject):
    """Hours that follow each other, in which feeds delivered nothing though they normally do.

    ``first_time`` and ``end_time``: start of the first hour and end of the last one (microseconds since 1970).
    ``feeds``: account and region of the first few, of ``number`` in all. ``usual``: events that all of them together
    have per hour at such hours.
    """

    first_time: int
    end_time: int
    number: int
    usual: int
    feeds: tuple[tuple[str, str], ...]

    JSON: ClassVar[dict[str, str]] = {
        "first_time": "first_time",
        "end_time": "end_time",
        "hours": "hours",
        "feeds": "number",
        "usual_events_per_hour": "usual",
        "accounts_and_regions": "feeds",
    }

    @property
    def hours(self) -> int:
        """The number of hours."""
        return (self.end_time - self.first_time) // HOUR


@dataclass(frozen=True, slots=True)
class Gaps:
    """The gaps of a lake, the newest first; ``total``: how many there are. ``source``: where the logs come from."""

    listed: tuple[Gap, ...] = ()
    total: int = 0
    source: str | None = None


def gaps(engine: DuckDBEngine, now: datetime | None = None) -> Gaps:
    """Return the gaps of the last week that the lake has events of. Raise what the engine raises.

    Events of the future, which a log may claim to hold, do not count.
    """
    present = micros(now or datetime.now(UTC))
    known = f"{CALLS} AND hour >= {literal(0)} AND hour <= {literal(present)}"
    ((newest, oldest),) = engine.sql(
        f"SELECT epoch_us(max(hour)), epoch_us(min(hour)) FROM hourly WHERE {known}"
    ).rows()
    if newest is None:
        return Gaps()
    last, start = newest // HOUR - SETTLING, oldest // HOUR
    feeds = _feeds(engine, last - (CHECKED_DAYS + HISTORY_DAYS) * 24, last)
    found = stretches(feeds, start, last)
    return Gaps(tuple(found[:MOST_GAPS]), len(found), _source(engine, newest))


def _feeds(engine: DuckDBEngine, first: int, last: int) -> list[Feed]:
    """Return the busiest feeds with their events between two hours, both included."""
    rows = engine.sql(
        f"""WITH counted AS (
            SELECT left(account_id, {_LONGEST}) AS account_id, left(aws_region, {_LONGEST}) AS aws_region,
                epoch_us(hour) // {HOUR} AS hour, sum(events)::BIGINT AS n FROM hourly
            WHERE {CALLS} AND account_id IS NOT NULL AND aws_region IS NOT NULL
                AND hour >= {literal(max(first, 0) * HOUR)} AND hour <= {literal(last * HOUR)}
            GROUP BY ALL)
        SELECT account_id, aws_region, list(hour ORDER BY hour), list(n ORDER BY hour) FROM counted
        GROUP BY 1, 2 HAVING count(*) >= {_LEAST_WEEKEND} ORDER BY sum(n) DESC, 1, 2 LIMIT {MOST_FEEDS}"""
    ).rows()
    return [
        Feed(account, region, {int(h): int(n) for h, n in zip(hours, numbers, strict=True)})
        for account, region, hours, numbers in rows
    ]


def _source(engine: DuckDBEngine, newest: int) -> str | None:
    """Return the folder or prefix that the newest log object came from, up to AWSLogs; None if it has no such part."""
    sql = f"SELECT max(log_object) FROM events WHERE event_time >= {literal(newest)}"
    ((name,),) = engine.sql(sql).rows()
    before, found, _ = (name or "").partition("AWSLogs/")
    return f"{before}AWSLogs" if found and (not before or before.endswith("/")) else None


def stretches(feeds: Sequence[Feed], start: int, last: int) -> list[Gap]:
    """Return the gaps of feeds up to the hour ``last``, the newest first; the lake's history begins at ``start``.

    Feeds that miss the same hours share a gap.
    """
    together: dict[tuple[int, int], list[tuple[Feed, float]]] = {}
    for feed in feeds:
        for first, end, usual in _joined(missing_hours(feed.events, start, last)):
            together.setdefault((first, end), []).append((feed, usual))
    return [
        Gap(
            first * HOUR,
            end * HOUR,
            len(those),
            round(sum(usual for _, usual in those)),
            tuple((feed.account_id, feed.aws_region) for feed, _ in those[:NAMED]),
        )
        for (first, end), those in sorted(together.items(), key=lambda item: (-item[0][1], item[0][0]))
    ]


class Missing(NamedTuple):
    """An hour (since 1970) without events, and what it usually has: the median, and the fewest."""

    hour: int
    usual: float
    low: int


def _joined(missing: Sequence[Missing]) -> list[tuple[int, int, float]]:
    """Return hours that follow each other and lack enough, as (first, end, usual number of events per hour)."""
    groups: list[list[Missing]] = []
    for one in missing:
        if groups and groups[-1][-1].hour + 1 == one.hour:
            groups[-1].append(one)
        else:
            groups.append([one])
    return [
        (group[0].hour, group[-1].hour + 1, sum(one.usual for one in group) / len(group))
        for group in groups
        if sum(one.low for one in group) >= ENOUGH
    ]


def missing_hours(events: Mapping[int, int], start: int, last: int) -> list[Missing]:
    """Return the hours without events that normally have some, of one feed.

    ``events``: number by hour (since 1970). The ``CHECKED_DAYS`` up to ``last`` are looked at, it included; nothing is
    known before ``start``.
    """
    known = min((hour for hour, number in events.items() if number), default=None)
    if known is None:
        return []
    begin = max(start, known)
    missing: dict[int, Missing] = {}
    for hour in range(max(last - CHECKED_DAYS * 24 + 1, begin + _WEEK), last + 1):
        if not events.get(hour) and (counts := _comparable(events, hour, begin, missing)):
            missing[hour] = Missing(hour, median(counts), _fewest(counts))
    return list(missing.values())


def _comparable(events: Mapping[int, int], hour: int, begin: int, missing: Mapping[int, Missing]) -> list[int]:
    """Return the sorted numbers of events that an hour usually has; none if it may as well have none."""
    week_before = next((h for h in (hour - _WEEK, hour - 2 * _WEEK) if h not in missing), None)
    if week_before is None or week_before < begin or not events.get(week_before):
        return []
    before = [hour - 24 * days for days in range(1, HISTORY_DAYS + 1)]
    alike = [h for h in before if h >= begin and h not in missing and _is_weekend(h) == _is_weekend(hour)]
    counts = sorted(events.get(h, 0) for h in alike)
    is_known = len(counts) >= (_LEAST_WEEKEND if _is_weekend(hour) else _LEAST)
    return counts if is_known and counts.count(0) <= len(counts) // _SILENT_OF else []


def _fewest(counts: Sequence[int]) -> int:
    """Return the smallest of sorted numbers, without one exception among ten."""
    present = [number for number in counts if number]
    return present[len(present) // _SILENT_OF]


def _is_weekend(hour: int) -> bool:
    # The first day of 1970 was a Thursday.
    return (hour // 24 + 3) % 7 >= 5
