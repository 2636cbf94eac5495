"""A lake's place and time zone, and the engine that is open on it: the base of all methods."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import UsageError

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType
    from typing import Literal, Self, TypeAlias
    from zoneinfo import ZoneInfo

    from trailsift.analysis.time_range import Period
    from trailsift.query import DuckDBEngine
    from trailsift.rules import Rules

    StrPath: TypeAlias = str | os.PathLike[str]
    #: A time: a datetime (without a zone: in the lake's), ISO 8601 or relative text (``-7d``), or microseconds since
    #: 1970 (UTC), as results have them.
    Time: TypeAlias = datetime | str | int | None


class Handle:
    """A lake's place, and the engine that is open on it."""

    def __init__(
        self,
        path: StrPath,
        *,
        timezone: str = "UTC",
        threads: int | None = None,
        memory_limit: str | None = None,
        spill_limit: str | None = None,
    ) -> None:
        #: The folder of the lake, or its URL in S3 (``s3://bucket/prefix``).
        self.path: Path | str = _place(path)
        self.timezone = timezone
        if timezone != "UTC":
            self._zone()  # a wrong name fails at once
        self._threads = threads
        self._memory_limit = memory_limit
        self._spill_limit = spill_limit
        self._engines: dict[str, DuckDBEngine] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the folder, and the time zone unless it is UTC."""
        zone = "" if self.timezone == "UTC" else f", timezone={self.timezone!r}"
        return f"Lake({str(self.path)!r}{zone})"

    def __enter__(self) -> Self:
        """Return the handle."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the handle."""
        self.close()

    def close(self) -> None:
        """Free the engine; results that are still streaming end. A later question opens a new one."""
        with self._lock:
            for engine in self._engines.values():
                engine.close()
            self._engines.clear()

    def period(self, since: Time = None, until: Time = None) -> Period:
        """Return the period between two times, as every method with ``since`` and ``until`` reads them.

        Args:
            since: The first moment, included. None: no limit.
            until: The first moment after the period. None: no limit.

        Raises:
            UsageError: A text is not a time, or the period is empty.

        Example:
            >>> lake.period("2026-03-02", "2026-03-03T09:30+09:00").as_dict()
            {'since': '2026-03-02T00:00:00Z', 'until': '2026-03-03T00:30:00Z', 'timezone': 'UTC'}
        """
        from datetime import UTC, datetime

        from trailsift.analysis.time_range import Period
        from trailsift.times import iso

        now = datetime.now(UTC)
        start, end = self._micros(since, now, "since"), self._micros(until, now, "until")
        if start is not None and end is not None and start >= end:
            raise UsageError(f"since {since} ({iso(start)}) is not before until {until} ({iso(end)})")
        return Period(start, end, self._zone())

    def _hours(self, since: Time, until: Time) -> Period:
        """Return a report's period, in full hours where retention has left summaries only."""
        from trailsift.analysis.base import in_full_hours

        period = self.period(since, until)
        return in_full_hours(self._engine().snapshot, period)

    def _zone(self) -> ZoneInfo:
        from trailsift.analysis.time_range import zone_of

        return zone_of(self.timezone)

    def _micros(self, value: Time, now: datetime, name: str) -> int | None:
        if value is None or isinstance(value, int):
            return value
        if isinstance(value, str):
            from trailsift.analysis.time_range import parse

            return parse(value, self._zone(), now, name)
        from trailsift.times import micros

        return micros(value if value.tzinfo else value.replace(tzinfo=self._zone()))

    def _moments(self, since: Time, until: Time) -> tuple[datetime | None, datetime | None]:
        """Return both ends of a period as aware datetimes."""
        from trailsift.times import moment

        period = self.period(since, until)
        first, end = (None if limit is None else moment(limit) for limit in (period.since, period.until))
        return first, end

    def _root(self, use: Literal["read", "write"] = "read") -> Path:
        """Return the folder of the lake: of one in S3, that of its copy here."""
        if isinstance(self.path, Path):
            return self.path
        from trailsift.lake.mirrored_storage import open_mirror

        mirror = open_mirror(self.path, use)
        if use == "write":
            mirror.open_ahead()
        return mirror.root

    def _engine(self, timezone: str = "UTC") -> DuckDBEngine:
        """Return the engine of a time zone at the newest commit: UTC for reports, the lake's zone for a user's SQL."""
        with self._lock:
            engine = self._engines.get(timezone)
            if engine is not None:
                engine.refresh()
                return engine
            from trailsift.lake.open import open_snapshot

            snapshot = open_snapshot(self._root())
            from trailsift.query import DuckDBEngine

            engine = DuckDBEngine(
                snapshot,
                timezone=timezone,
                threads=self._threads,
                memory_limit=self._memory_limit,
                spill_limit=self._spill_limit,
            )
            self._engines[timezone] = engine
            return engine


def _place(path: StrPath) -> Path | str:
    """Return a lake's URL in S3 as a text, and any other place as a path."""
    text = os.fspath(path)
    return text[:5] + text[5:].rstrip("/") if text[:5].lower() == "s3://" else Path(text)


def rules_of(rules: Rules | StrPath) -> Rules:
    """Return rules as they are, or those of a file or a preset. RulesError if they cannot be used."""
    from trailsift.rules import Rules
    from trailsift.rules.presets import open_rules

    return rules if isinstance(rules, Rules) else open_rules(os.fspath(rules))
