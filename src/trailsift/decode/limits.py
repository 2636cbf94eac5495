"""Bounds on the work that one input may cost, and the budget that everything which reads it draws on.

An input can declare any size, nest archives, and unpack to a thousand times its size, so nothing that it says about
itself is believed. Whatever exceeds a bound is rejected with its reason, and the rest is read where that is possible.
docs/limits.md is generated from the fields of ``Limits``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_MB = 1 << 20


def _limit(default: int, unit: str, bounds: str, beyond: str, reason: str) -> Any:
    """Return a field: what it ``bounds``, what happens ``beyond`` it, and the ``reason`` for its size."""
    return field(default=default, metadata={"unit": unit, "bounds": bounds, "beyond": beyond, "reason": reason})


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds for one input, a file with everything in it."""

    small: int = _limit(
        2 * _MB, "bytes", "a file that is read in one step", "It is read as a stream.", "Most log files are 2 KB."
    )
    whole: int = _limit(
        64 * _MB,
        "bytes",
        "a text that is decoded in one piece",
        "It is cut at line ends, if it has one record per line.",
        "CloudTrail writes at most 50 MB before gzip.",
    )
    piece: int = _limit(
        32 * _MB, "bytes", "a piece of a longer text with lines", "Another piece begins.", "It bounds the memory."
    )
    document: int = _limit(
        256 * _MB,
        "bytes",
        "a text that cannot be cut at line ends, a single line, or anything unpacked inside an envelope",
        "It is not read: one reject.",
        "Five times what CloudTrail writes.",
    )
    free: int = _limit(
        256 * _MB,
        "bytes",
        "what any file may unpack to, all its layers together",
        "Reading stops unless the file is large enough for `growth`.",
        "A small file costs at most a second of unpacking.",
    )
    growth: int = _limit(
        200,
        "times its size",
        "what a file may unpack to beyond `free`, all its layers together",
        "Reading stops: one reject for the rest.",
        "Logs compress 5 to 50 times; a bomb up to a million times.",
    )
    log_object: int = _limit(
        1024 * _MB,
        "bytes",
        "what one log object (a file, or one member of an archive) may unpack to in memory, with all layers inside it",
        "The rest of it is not read: one reject.",
        "Envelopes inside envelopes repeat their content.",
    )
    layers: int = _limit(
        12,
        "layers",
        "archives and envelopes around a record",
        "It is not opened: one reject.",
        "The deepest form in use has six.",
    )
    members: int = _limit(
        100_000,
        "members",
        "members of an archive, and members of a gzip file, before `member_bytes` counts",
        "The rest of the archive is not read: one reject.",
        "Each member is a log object, and costs the time of one.",
    )
    member_bytes: int = _limit(
        64,
        "bytes",
        "the size of the file per further member",
        "The rest of the archive is not read: one reject.",
        "A member takes more than 100 bytes in any archive.",
    )
    header: int = _limit(
        _MB,
        "bytes",
        "an extended header in a tar archive",
        "Its member is not read: one reject.",
        "It holds a path and a few attributes.",
    )
    name: int = _limit(
        1024,
        "characters",
        "the name of a member of an archive",
        "It is shortened, and ends in a digest of the whole name.",
        "Object keys in S3 have at most 1,024 bytes.",
    )
    dictionary: int = _limit(
        128 * _MB,
        "bytes",
        "the memory that an xz or LZMA stream may ask for",
        "It is not read: one reject.",
        "`xz -9` asks for 65 MB.",
    )
    values: int = _limit(
        10_000_000,
        "commas or opening brackets",
        "a text that is parsed",
        "It is not read: one reject.",
        "256 MB of genuine records hold 9 million; each value takes up to 250 bytes of memory.",
    )
    malformed: int = _limit(
        1_000_000,
        "parts",
        "malformed parts of an input in which at most one part of 100 is a record",
        "The rest is not read: one reject.",
        "Something else than a log: it costs a few seconds.",
    )
    dropped: int = _limit(
        16,
        "times its text",
        "what lines of dropped events in a text may expand to beyond `dropped_free`",
        "The line is one reject.",
        "Each event repeats what the line says once, six to ten times its own text.",
    )
    dropped_free: int = _limit(
        64 * _MB, "bytes", "what lines of dropped events in any text may expand to", "`dropped` applies.", "See there."
    )
    cell: int = _limit(
        16 * _MB,
        "characters",
        "a cell of a table",
        "The row is one reject.",
        "An event has at most 256 KB.",
    )
    struct: int = _limit(
        2 * _MB,
        "characters",
        "a printed struct in a cell of a table",
        "It stays the text that it is.",
        "An event has at most 256 KB.",
    )
    nesting: int = _limit(
        256,
        "levels",
        "objects and lists inside each other in a record",
        "The record is one reject.",
        "Records have fewer than 20; whatever reads a lake can read so many.",
    )
    columns: int = _limit(
        2_000,
        "columns",
        "the columns of a table",
        "It is not taken for a table.",
        "A record has about 30 members.",
    )


LIMITS = Limits()


class OverBudgetError(Exception):
    """A log object costs more than its budget; the message is the reason."""


class Budget:
    """What one input may still cost. Everything that unpacks a part of it draws on the same budget.

    ``packed``: the size of the input in bytes.
    """

    __slots__ = ("_file", "_members", "_object", "limits", "malformed", "only_records", "packed", "records")

    def __init__(self, limits: Limits = LIMITS, packed: int = 0) -> None:
        self.limits = limits
        #: Whether JSON without a record is malformed; else it may be another kind of file.
        self.only_records = False
        self.start(packed)

    def start(self, packed: int) -> None:
        """Begin an input of this size."""
        limits = self.limits
        self.packed = packed
        self._file = max(limits.free, limits.growth * packed)
        self._object = limits.log_object
        self._members = limits.members + packed // limits.member_bytes
        #: Parts so far, good and bad.
        self.records = self.malformed = 0

    def begin_object(self) -> None:
        """Begin another log object of the input."""
        self._object = self.limits.log_object

    def snapshot(self) -> tuple[int, int, int, int]:
        """Return what is left, for ``restore``."""
        return self._file, self._object, self._members, self.malformed

    def restore(self, left: tuple[int, int, int, int]) -> None:
        """Forget what was spent since ``snapshot``: the same data is read again in another way, once."""
        self._file, self._object, self._members, self.malformed = left

    @property
    def room(self) -> int:
        """Bytes that may still be unpacked."""
        return max(0, min(self._file, self._object))

    @property
    def text_room(self) -> int:
        """Bytes that may still be unpacked into one text in memory."""
        return min(self.room, self.limits.document)

    def spend(self, size: int) -> None:
        """Count bytes that were unpacked."""
        self._file -= size
        self._object -= size

    def take_member(self) -> bool:
        """Count a member of an archive. Return False if it is one too many."""
        self._members -= 1
        return self._members >= 0

    @property
    def too_many_members(self) -> str:
        """The reason when ``take_member`` has returned False."""
        number = self.limits.members + self.packed // self.limits.member_bytes
        return f"more than {number:,} members in {self.packed:,} bytes: the rest is not read"

    def take_malformed(self, parts: int, records: int) -> None:
        """Count malformed parts, beside so many records. Raise OverBudgetError if the input is not a log."""
        self.malformed += parts
        if self.malformed > self.limits.malformed and self.malformed > 100 * (self.records + records):
            raise OverBudgetError(f"more than {self.limits.malformed:,} malformed parts: the rest is not read")

    def over(self) -> str:
        """Return the reason when ``room`` is used up."""
        return (
            f"unpacked to more than {self.limits.growth} times the file's {self.packed:,} bytes "
            f"and {self.limits.free:,} bytes: the rest is not read"
            if self._file <= 0
            else f"more than {self.limits.log_object:,} bytes unpacked in one log object: the rest is not read"
        )
