"""Times: microseconds since 1970 (UTC), and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    pass

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


_MICROSECOND = timedelta(microseconds=1)


#: What "no zone given" means.
UTC_ZONE = ZoneInfo("UTC")


HOUR = 3_600_000_000


DAY = 24 * HOUR


def moment(micros: int) -> datetime:
    """The time of microseconds since 1970, in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def iso(micros: int | None) -> str | None:
    """ISO 8601 in UTC, a fraction only where there is one."""
    return None if micros is None else moment(micros).isoformat().replace("+00:00", "Z")


def literal(micros: int) -> str:
    """A constant that both the engine's pruning and DuckDB understand."""
    return f"TIMESTAMPTZ '{moment(micros).isoformat(sep=' ')}'"


def micros(value: datetime) -> int:
    return (value - EPOCH) // _MICROSECOND


def now_text() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
