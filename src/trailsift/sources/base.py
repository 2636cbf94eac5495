"""The seam between an ingest and the place that log objects come from."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO, Protocol, runtime_checkable

#: In CloudTrail's object names: the minute of delivery.
_DELIVERY = re.compile(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z_")


class Reader(Protocol):
    """Opens log objects that are not local files.

    A reader is pickled with each of its objects and opens them in the worker process, so it holds settings, not open
    connections.
    """

    def open(self, name: str) -> BinaryIO:
        """Return the object's bytes as a seekable file. Raise OSError if it cannot be read."""
        ...


@dataclass(frozen=True, slots=True)
class LogObject:
    """One log object to read. ``version`` distinguishes its content from a later one of the same name; ``size`` is in
    bytes as stored.

    A local file has a ``path`` and is opened by it, which is the fast way; any other object has a ``reader``.
    """

    name: str
    path: str
    version: str
    size: int
    #: Minute of delivery (UTC); that of the file's modification if the name does not have it.
    delivered_at: datetime
    reader: Reader | None = None
    #: Why it cannot be read, if that is known already.
    problem: str | None = None

    @property
    def delivered_on(self) -> str:
        """Day of delivery (UTC), ISO 8601."""
        return self.delivered_at.isoformat()[:10]

    def open(self) -> str | BinaryIO:
        """Return what ``decode.stream.parts_of`` reads: the path of a local file, else the opened object."""
        return self.path if self.reader is None else self.reader.open(self.name)


@runtime_checkable
class Source(Protocol):
    """A place that log objects come from. ``str`` of it names the place in messages."""

    def find(self) -> list[LogObject]:
        """Return the log objects in order of delivery, each once. Raise SourceError if there is none, leaving nothing
        that needs ``release``."""
        ...

    def release(self) -> None:
        """Remove what ``find`` left on the disk; called when nothing is read any more."""
        ...


def delivery_minute(name: str) -> datetime | None:
    """Return the minute of delivery (UTC) in a log object's name; None if there is none."""
    match = _DELIVERY.search(name)
    if match:
        try:
            year, month, day, hour, minute = map(int, match.groups())
            return datetime(year, month, day, hour, minute, tzinfo=UTC)
        except ValueError:
            pass
    return None


def delivered_within(log_object: LogObject, since: datetime | None, until: datetime | None) -> bool:
    """Return whether a log object was delivered from ``since`` on and before ``until``; None means unlimited."""
    minute = log_object.delivered_at
    return (since is None or minute >= since.replace(second=0, microsecond=0)) and (until is None or minute < until)
