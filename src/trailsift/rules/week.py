"""Hours and weekdays of event times in a rules file's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

#: Zones differ from UTC by whole quarters of an hour, and change at their ends (true since before CloudTrail).
SLOT = 900_000_000
#: Hours of a week.
WEEK = 168

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=16_384)
def week_hour(zone: ZoneInfo, slot: int) -> int:
    """The hour of the week, 0 for Monday 00, of the quarter hour number ``slot`` since 1970 (UTC) in ``zone``."""
    try:
        local = (_EPOCH + timedelta(minutes=15 * slot)).astimezone(zone)
    except OverflowError:
        # The first and the last day that a date can be: in UTC then.
        local = _EPOCH + timedelta(minutes=15 * slot)
    return local.weekday() * 24 + local.hour
