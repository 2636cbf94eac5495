"""Times as people type them: ISO 8601 or relative, in a given time zone."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import ClassVar
from zoneinfo import ZoneInfo

from trailsift.errors import UsageError
from trailsift.query.json_objects import JsonObject
from trailsift.times import DAY, iso, literal, micros, moment

#: The time zone if none is named.
UTC_ZONE = ZoneInfo("UTC")

_UNITS = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
_RELATIVE = re.compile(r"-?((?:\d+[wdhms])+)", re.IGNORECASE)
_PART = re.compile(r"(\d+)([wdhms])", re.IGNORECASE)
_EXAMPLES = "2026-03-02, 2026-03-02T10:30, 2026-03-02T10:30+09:00, -7d, -36h, -90m, now"


@dataclass(frozen=True, slots=True)
class Period(JsonObject):
    """A range of event times in microseconds since 1970 (UTC): ``since`` is in it, ``until`` is not; None: no limit.

    ``zone`` is the time zone in which times are read and shown; it does not change the range.
    """

    since: int | None = None
    until: int | None = None
    zone: ZoneInfo = UTC_ZONE

    JSON: ClassVar[dict[str, str]] = {"since": "since", "until": "until", "timezone": "zone.key"}

    @property
    def whole(self) -> bool:
        """True if the period has no limit."""
        return self.since is None and self.until is None

    def where(self, column: str) -> str:
        """Return an SQL condition on a timestamp column; ``true`` without a limit."""
        limits = []
        if self.since is not None:
            limits.append(f"{column} >= {literal(self.since)}")
        if self.until is not None:
            limits.append(f"{column} < {literal(self.until)}")
        return " AND ".join(limits) or "true"

    def where_day(self, column: str) -> str:
        """Return an SQL condition on a date column (UTC): all days that the period touches."""
        limits = []
        if self.since is not None:
            limits.append(f"{column} >= DATE '{moment(self.since):%Y-%m-%d}'")
        if self.until is not None:
            limits.append(f"{column} <= DATE '{moment(self.until - 1):%Y-%m-%d}'")
        return " AND ".join(limits) or "true"

    @property
    def on_days(self) -> bool:
        """True if both ends are midnights in UTC, so that daily tables cover exactly this period."""
        return all(limit is None or limit % DAY == 0 for limit in (self.since, self.until))

    def show(self, micros: int | None) -> str:
        """Return a time to the second in the period's zone; a dash for None."""
        return "-" if micros is None else f"{moment(micros).astimezone(self.zone):%Y-%m-%d %H:%M:%S}"


def period(since: str | None, until: str | None, timezone: str = "UTC", now: datetime | None = None) -> Period:
    """Return the period between two times as typed. Raise UsageError if one is not valid or the period is empty."""
    zone = zone_of(timezone)
    now = now or datetime.now(UTC)
    start = None if since is None else parse(since, zone, now, "--since")
    end = None if until is None else parse(until, zone, now, "--until")
    if start is not None and end is not None and start >= end:
        raise UsageError(f"--since {since} ({iso(start)}) is not before --until {until} ({iso(end)})")
    return Period(start, end, zone)


def zone_of(name: str) -> ZoneInfo:
    """Return the time zone of an IANA name. Raise UsageError if there is none."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise UsageError(f"unknown time zone {name!r}: use an IANA name such as UTC or Asia/Seoul") from error


def parse(text: str, zone: ZoneInfo, now: datetime, what: str = "time") -> int:
    """Return the microseconds since 1970 (UTC) of a time as typed. Raise UsageError if it is not valid.

    A time without an offset is in ``zone``; a date means its first moment; a relative time counts back from ``now``.
    """
    typed = text.strip()
    if typed.lower() == "now":
        return micros(now)
    match = _RELATIVE.fullmatch(typed)
    try:
        if match:
            seconds = sum(int(count) * _UNITS[unit.lower()] for count, unit in _PART.findall(match[1]))
            return micros(now - timedelta(seconds=seconds))
        value = datetime.fromisoformat(typed)
        value = value if value.tzinfo else value.replace(tzinfo=zone)
        return micros(value.astimezone(UTC))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"{what} {text!r} is not a valid time: use one of these forms: {_EXAMPLES}") from error
