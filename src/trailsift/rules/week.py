"""Hours and weekdays of event times in a rules file's time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

#: Microseconds of a quarter of an hour: offsets from UTC are multiples of it, and change at its boundaries (true for
#: as long as CloudTrail has existed).
SLOT = 900_000_000
#: Hours of a week.
WEEK = 168

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=16_384)
def week_hour(zone: ZoneInfo, slot: int) -> int:
    """Return the hour of the week in ``zone``, 0 for Monday 00, of quarter hour ``slot`` since 1970 (UTC)."""
    try:
        local = (_EPOCH + timedelta(minutes=15 * slot)).astimezone(zone)
    except OverflowError:
        # The first or the last possible day: use UTC.
        local = _EPOCH + timedelta(minutes=15 * slot)
    return local.weekday() * 24 + local.hour
