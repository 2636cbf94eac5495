"""Times as microseconds since 1970 (UTC), and how they are written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

#: Microseconds.
HOUR = 3_600_000_000
DAY = 24 * HOUR

_MICROSECOND = timedelta(microseconds=1)


def moment(micros: int) -> datetime:
    """Return a time in microseconds as an aware datetime in UTC."""
    return EPOCH + timedelta(microseconds=micros)


def is_usable(micros: int) -> bool:
    """Return whether CloudTrail can have written this time: not before 2001, and in a year of four digits."""
    return 1_000_000_000_000_000 <= micros < 253_402_300_800_000_000


def iso(micros: int | None) -> str | None:
    """Return a time as ISO 8601 in UTC, with a fraction only if it has one; None for None."""
    return None if micros is None else moment(micros).isoformat().replace("+00:00", "Z")


def literal(micros: int) -> str:
    """Return a time as an SQL constant that both the pruning of files and DuckDB understand."""
    return f"TIMESTAMPTZ '{moment(micros).isoformat(sep=' ')}'"


def micros(value: datetime) -> int:
    """Return an aware datetime as microseconds since 1970."""
    return (value - EPOCH) // _MICROSECOND


def now_text() -> str:
    """Return the present time as ISO 8601 in UTC, to the millisecond."""
    return log_text(datetime.now(UTC))


def log_text(value: datetime) -> str:
    """Return an aware datetime as the commit log has times: ISO 8601 in UTC, to the millisecond."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
