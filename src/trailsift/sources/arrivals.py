"""The seam between a watch and the place where log objects keep arriving: a folder, a queue, a prefix of S3."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple, Protocol

from trailsift.sources.base import Found, LogObject, NotFetchedError

#: Called with what went wrong and does not end the watch.
Trouble = Callable[[str], None]
#: A log object's name and version.
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Arrival:
    """What arrived together, and is settled together: the log objects of a message, or a single one.

    ``at`` is when it was seen here (monotonic seconds), ``delivered_at`` when the place says that it came. ``found``
    takes the place of ``log_objects`` where a search has found what is new. ``receipt`` is the source's own.
    """

    log_objects: tuple[LogObject, ...]
    at: float
    delivered_at: datetime
    receipt: Any = None
    found: Found | None = None

    @property
    def objects(self) -> int:
        """Number of its log objects."""
        return len(self.log_objects) if self.found is None else self.found.objects

    @property
    def bytes(self) -> int:
        """Size of its log objects, as stored."""
        return sum(item.size for item in self.log_objects) if self.found is None else self.found.bytes


@dataclass(slots=True)
class Settled:
    """What became of arrivals: objects that were gone or replaced before they were read, those that will be tried
    again, and messages that were set aside."""

    gone: dict[str, str] = field(default_factory=dict)
    again: dict[str, str] = field(default_factory=dict)
    set_aside: dict[str, str] = field(default_factory=dict)


class Passed(NamedTuple):
    """Messages, and names in them, that hold no log object."""

    messages: int
    other_objects: int


class Arrivals(Protocol):
    """Log objects as they arrive. ``str`` of it names the place. Used by one thread."""

    def start(self) -> str:
        """Begin to look; return what is to be said about it. Raise TrailsiftError if the place cannot be watched."""
        ...

    def take(self, seconds: float) -> Sequence[Arrival]:
        """Return what has arrived; if that is nothing, wait for up to ``seconds``. Raise TrailsiftError if the place
        fails for good."""
        ...

    @property
    def caught_up(self) -> bool:
        """True if all that was there at the start has been taken."""
        ...

    @property
    def waiting(self) -> int:
        """Number of log objects, or messages, that are known to wait; 0 if nothing is known."""
        ...

    def settle(self, arrivals: Sequence[Arrival], missed: Mapping[Key, NotFetchedError]) -> Settled:
        """Forget arrivals, which are committed, except for log objects in ``missed``, which could not be fetched."""
        ...

    def give_back(self, arrivals: Sequence[Arrival]) -> None:
        """Give up arrivals that were not committed: they come again, here or to another watch."""
        ...

    def close(self) -> None:
        """Stop looking, and give back what was not taken."""
        ...


def now() -> datetime:
    """Return the present time (UTC)."""
    return datetime.now(UTC)
