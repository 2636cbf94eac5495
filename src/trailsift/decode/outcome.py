"""What decoding finds in one log object, and JSON read and written as Python's ``json`` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trailsift.decode.json_text import text_of

#: Raw text kept of something malformed, in bytes.
RAW_LIMIT = 256 * 1024
#: Bytes that one log object may unpack to, all its layers together (CloudTrail writes at most 50 MB before gzip).
ROOM = 1 << 30
#: Malformed parts of one log object that are kept one by one, and the bytes of all of them.
KEPT_PARTS = 10_000
KEPT_BYTES = 32 << 20
_MORE = "and "


class NotARecord(ValueError):
    """A record that cannot be stored; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """What could not be used: its position among the object's records (-1: the object itself), why, and its text."""

    position: int
    reason: str
    raw: str
    #: How many parts of the log object it stands for.
    parts: int = 1


class Rejects(list[Malformed]):
    """What could not be used of one log object: each part is counted; beyond a bound they share one last line."""

    def __init__(self, given: Iterable[Malformed] = ()) -> None:
        super().__init__()
        self._kept = 0
        for one in given:
            self.keep(one)

    def keep(self, one: Malformed) -> None:
        """Takes one more."""
        more = self[-1].parts if self.folded else 0
        if not more and len(self) < KEPT_PARTS and self._kept + len(one.raw) <= KEPT_BYTES:
            self.append(one)
            self._kept += len(one.raw)
            return
        if more:
            self.pop()
        more += one.parts
        self.append(Malformed(-1, f"{_MORE}{more:,} more parts like these: counted, but not kept", "", more))

    @property
    def folded(self) -> bool:
        """Whether the last line stands for parts that were not kept."""
        return bool(self) and self[-1].reason.startswith(_MORE)

    @property
    def parts(self) -> int:
        """How many parts there are, those of the last line included."""
        return sum(one.parts for one in self)


@dataclass(slots=True)
class Outcome:
    """What one log object holds. ``records`` are JSON texts of objects, not yet looked into."""

    records: list[bytes | memoryview] = field(default_factory=list)
    malformed: Rejects = field(default_factory=Rejects)
    #: What the object is, where it is readable but holds no CloudTrail record.
    foreign: str | None = None
    #: Records were cut out without parsing: if one of them is no record, read again with ``cut=False``.
    cut: bool = False
    #: Known things that are no records (digests, pointers, control messages); beside records they do not count.
    others: list[str] = field(default_factory=list)
    #: JSON objects of no known kind: beside records each counts as malformed.
    strange: Rejects = field(default_factory=Rejects)
    #: Bytes that may still be unpacked.
    room: int = ROOM

    def reject(self, reason: str, raw: bytes, position: int | None = None) -> None:
        """Names something malformed at the current position."""
        self.malformed.keep(self.named(reason, raw, position))

    def named(self, reason: str, raw: bytes, position: int | None = None) -> Malformed:
        """Something malformed at the current position, not yet counted."""
        here = len(self.records) + len(self.malformed) + len(self.strange)
        return Malformed(here if position is None else position, reason, text_of(raw[:RAW_LIMIT]))
