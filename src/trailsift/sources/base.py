"""The seam between an ingest and the place that log objects come from."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import BinaryIO, Literal, Protocol, runtime_checkable

from trailsift.lake.commit import IngestedObject, Listed

#: In CloudTrail's object names: the minute of delivery.
_DELIVERY = re.compile(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z_")


class Reader(Protocol):
    """Opens log objects that are not local files.

    A reader is pickled with each of its objects and opens them in the worker process, so it holds settings, not open
    connections.
    """

    def open(self, log_object: LogObject) -> BinaryIO:
        """Return the object's bytes as a seekable file. Raise NotFetchedError, or another OSError, if that fails."""
        ...


@runtime_checkable
class Prefetcher(Protocol):
    """A reader that fetches objects before they are opened, some at a time."""

    def expect(self, log_objects: Sequence[LogObject]) -> None:
        """Note what will be opened next, in this order, and begin to fetch it. Safe to call from another thread."""
        ...


#: Why an object could not be fetched: the place failed; it was deleted, or replaced, after it was found.
Miss = Literal["failed", "deleted", "replaced"]


class NotFetchedError(OSError):
    """A log object could not be had this time. It is not noted as ingested, so the next run tries again."""

    def __init__(self, kind: Miss, reason: str) -> None:
        super().__init__(reason)
        self.kind = kind
        self.reason = reason

    def __reduce__(self) -> tuple[type[NotFetchedError], tuple[Miss, str]]:
        return NotFetchedError, (self.kind, self.reason)


@dataclass(frozen=True, slots=True)
class LogObject:
    """One log object to read. ``version`` distinguishes its content from a later one of the same name; ``size`` is in
    bytes as stored.

    A local file has a ``path`` and is opened by it, which is the fast way; any other object has a ``reader``, and its
    ``path`` is for that.
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
    #: Whether it holds nothing else than records: JSON without one is a reject then, and not another kind of file.
    only_records: bool = False

    @property
    def delivered_on(self) -> str:
        """Day of delivery (UTC), ISO 8601."""
        return self.delivered_at.isoformat()[:10]

    def open(self) -> str | BinaryIO:
        """Return what ``decode.stream.parts_of`` reads: the path of a local file, else the opened object."""
        return self.path if self.reader is None else self.reader.open(self)


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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which log objects an ingest asks for: by delivery (``since`` inclusive, ``until`` exclusive), account, region.

    Empty means all. ``again``: also those that were ingested before.
    """

    since: datetime | None = None
    until: datetime | None = None
    accounts: frozenset[str] = frozenset()
    regions: frozenset[str] = frozenset()
    again: bool = False

    def takes(self, account: str | None, region: str | None) -> bool:
        """Return whether an account and a region are wanted. None (unknown) is, unless one is asked for by name."""
        return (not self.accounts or account in self.accounts) and (not self.regions or region in self.regions)


ALL = Wanted()


class Known(Protocol):
    """What a lake knows of the log objects that were ingested into it."""

    @property
    def names_kept_days(self) -> int:
        """Days for which names are kept, counted from the delivery."""
        ...

    def unknown(self, found: Sequence[IngestedObject]) -> list[bool]:
        """Return for each whether it was not ingested before."""
        ...

    def newest_known(self, folders: Sequence[str]) -> dict[str, str]:
        """Return the last name, in their order, of each folder of which a name is known. A folder ends in ``/``."""
        ...

    def listed(self) -> Sequence[Listed]:
        """Return the newest notes on places of which everything was ingested."""
        ...


class NothingKnown:
    """A lake that does not exist yet."""

    names_kept_days = 0

    def unknown(self, found: Sequence[IngestedObject]) -> list[bool]:
        """Return True for each."""
        return [True] * len(found)

    def newest_known(self, folders: Sequence[str]) -> dict[str, str]:
        """Return nothing."""
        return {}

    def listed(self) -> Sequence[Listed]:
        """Return nothing."""
        return ()


@dataclass(frozen=True, slots=True)
class Span:
    """Log objects of neighbouring delivery times, which are loaded when their turn comes."""

    objects: int
    bytes: int
    load: Callable[[], list[LogObject]]


@dataclass(slots=True)
class Found:
    """What a source has found: the new log objects in spans, in order of delivery, and what else there was."""

    spans: list[Span] = field(default_factory=list)
    #: Log objects that were ingested before.
    known: int = 0
    #: Days, accounts and regions of the new ones, as far as names say.
    first_day: str | None = None
    last_day: str | None = None
    accounts: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    #: What is not fetched, by its kind: digests, flow logs and the like; number of folders, or of objects.
    passed_over: Counter[str] = field(default_factory=Counter)
    #: Requests for lists, and seconds that one took.
    requests: int = 0
    latency: float = 0.0
    #: Notes to commit when everything is ingested.
    notes: tuple[Listed, ...] = ()
    #: Whether objects come over a network.
    remote: bool = False
    #: Whether the lake has nothing from here yet.
    is_first: bool = True

    @property
    def objects(self) -> int:
        """Number of the new log objects."""
        return sum(span.objects for span in self.spans)

    @property
    def bytes(self) -> int:
        """Size of the new log objects, as stored."""
        return sum(span.bytes for span in self.spans)

    def __iter__(self) -> Iterator[LogObject]:
        for span in self.spans:
            yield from span.load()


#: Log objects and folders that a search has seen so far.
Searched = Callable[[int, int], None]


@runtime_checkable
class RemoteSource(Protocol):
    """A source of so many objects that they are never held at once. ``str`` of it names the place in messages."""

    def search(self, wanted: Wanted, known: Known, searched: Searched | None = None) -> Found:
        """Return what there is to ingest; ``searched`` is called now and then. Raise SourceError if nothing was found
        at all, leaving nothing that needs ``release``."""
        ...

    def release(self) -> None:
        """Remove what ``search`` left on the disk."""
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
