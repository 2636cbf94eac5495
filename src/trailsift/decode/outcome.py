"""The result of decoding one log object: its records, and everything in it that could not be used."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from trailsift.decode.json_text import text_of
from trailsift.decode.limits import Budget

#: Bytes of raw text kept of each malformed part.
RAW_LIMIT = 256 * 1024
#: Malformed parts of one log object that are kept individually, and their total size in bytes.
KEPT_PARTS = 10_000
KEPT_BYTES = 32 << 20
#: The reason of the line that stands for all parts beyond these limits begins with this.
_FOLDED = "and "


class NotARecord(ValueError):
    """A record that cannot be stored; the message is the reason."""


@dataclass(frozen=True, slots=True)
class Malformed:
    """A part that could not be used: its position among the object's records (-1: the object itself), reason, text."""

    position: int
    reason: str
    raw: str
    #: How many parts of the log object it stands for.
    parts: int = 1


class Rejects(list[Malformed]):
    """The malformed parts of one log object: every part is counted; beyond a limit they share one last line."""

    def __init__(self, parts: Iterable[Malformed] = ()) -> None:
        super().__init__()
        self._kept = 0
        for part in parts:
            self.keep(part)

    def keep(self, part: Malformed) -> None:
        """Add a part, or count it in the last line if the limit is reached."""
        folded = self[-1].parts if self.folded else 0
        if not folded and len(self) < KEPT_PARTS and self._kept + len(part.raw) <= KEPT_BYTES:
            self.append(part)
            self._kept += len(part.raw)
            return
        if folded:
            self.pop()
        folded += part.parts
        self.append(Malformed(-1, f"{_FOLDED}{folded:,} more parts like these: counted, but not kept", "", folded))

    @property
    def folded(self) -> bool:
        """True if the last line stands for parts that were not kept."""
        return bool(self) and self[-1].reason.startswith(_FOLDED)

    @property
    def parts(self) -> int:
        """The number of parts, including those that the last line stands for."""
        return sum(part.parts for part in self)


@dataclass(slots=True)
class Outcome:
    """The content of one log object. ``records`` are JSON texts of objects, not parsed yet."""

    records: list[bytes | memoryview] = field(default_factory=list)
    malformed: Rejects = field(default_factory=Rejects)
    #: A description of the object if it is readable but holds no CloudTrail record.
    not_cloudtrail: str | None = None
    #: Records were cut out without parsing: if one of them turns out not to be a record, read again with ``cut=False``.
    cut: bool = False
    #: Kinds of recognized objects that are not records (digests, pointers, control messages); beside records they do
    #: not count.
    ignored: list[str] = field(default_factory=list)
    #: JSON objects of no recognized kind: beside records each counts as malformed.
    unrecognized: Rejects = field(default_factory=Rejects)
    #: What reading it may still cost.
    budget: Budget = field(default_factory=Budget)

    def reject(self, reason: str, raw: bytes, position: int | None = None) -> None:
        """Count a malformed part, at the current position unless another one is given.

        Raise OverBudgetError if there are too many.
        """
        self.malformed.keep(self.malformed_part(reason, raw, position))
        self.budget.take_malformed(1, len(self.records))

    def malformed_part(self, reason: str, raw: bytes, position: int | None = None) -> Malformed:
        """Return a malformed part, at the current position unless another one is given, without counting it."""
        here = len(self.records) + len(self.malformed) + len(self.unrecognized)
        return Malformed(here if position is None else position, reason, text_of(raw[:RAW_LIMIT]))
