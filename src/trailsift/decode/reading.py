"""Sources of bytes that are read in pieces: sections of a file, and compressed streams within a budget.

A source ends at damage, and says so in ``damage``.
"""

from __future__ import annotations

import bz2
import contextlib
import lzma
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, cast

from isal import isal_zlib

from trailsift.decode.limits import Budget

#: Raised for damaged gzip data. isal's stubs declare its error as an instance, not as a class.
GZIP_ERRORS = (cast("type[Exception]", isal_zlib.error), zlib.error)
STREAM_ERRORS = (*GZIP_ERRORS, OSError, EOFError, ValueError, lzma.LZMAError, MemoryError)
#: Bytes read at a time: at most this much data before damage is lost.
STEP = 1 << 16
#: Bytes that a stream after the first one gets at first.
_SHORT = 512


class DamagedArchiveError(Exception):
    """An archive that cannot be read (further); the message is the reason."""


class Source(Protocol):
    """Bytes, read from front to end."""

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes, and as many unless the end is near; none at the end, or at damage."""
        ...


class Member(NamedTuple):
    """A member of an archive: its data, or the reason why it is not read."""

    name: str
    source: Source | None
    problem: str | None = None


def read_up_to(source: Source, size: int) -> bytes:
    """Return the next ``size`` bytes, fewer at the end."""
    pieces = []
    while size > 0 and (piece := source.read(min(size, STEP))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def skip(source: Source, size: int) -> int:
    """Skip bytes. Return how many of them are missing at the end."""
    while size > 0 and (piece := source.read(min(size, STEP))):
        size -= len(piece)
    return size


def damage_of(source: Any) -> str | None:
    """Return why a source ended early."""
    damage: str | None = getattr(source, "damage", None)
    return damage


class BytesSource:
    """Bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        self._at += size
        return self._data[self._at - size : self._at]


class SectionSource:
    """The next ``size`` bytes of another source; ``missing`` is the damage if it ends before them."""

    def __init__(self, source: Source, size: int, missing: str) -> None:
        self._source, self._left, self._missing = source, size, missing
        self.damage: str | None = None

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or at damage."""
        size = min(size, self._left)
        data = self._source.read(size) if size > 0 else b""
        self._left -= len(data)
        if size > 0 and not data and self.damage is None:
            self._left = 0
            self.damage = damage_of(self._source) or self._missing
        return data

    def drain(self) -> None:
        """Skip what is left of it."""
        while self.read(STEP):
            pass


class StreamKind(NamedTuple):
    """A kind of compressed stream; ``magic`` is empty if only one stream can follow."""

    name: str
    magic: bytes
    make: Callable[[Budget], Any]


GZIP = StreamKind("gzip", b"\x1f\x8b", lambda _: isal_zlib.decompressobj(wbits=31))
BZIP2 = StreamKind("bzip2", b"BZh", lambda _: bz2.BZ2Decompressor())
XZ = StreamKind(
    "xz", b"\xfd7zXZ\0", lambda budget: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=budget.limits.dictionary)
)
STREAM_KINDS = (GZIP, BZIP2, XZ)


def stream_kind(head: bytes) -> StreamKind | None:
    """Return the kind of stream that begins like this; None if it is not compressed."""
    return next((kind for kind in STREAM_KINDS if head.startswith(kind.magic)), None)


class InflatingSource:
    """The data of a compressed stream, its members one after the other, within the budget."""

    def __init__(self, source: Source, kind: StreamKind, budget: Budget) -> None:
        self._source, self._kind, self._budget = source, kind, budget
        self._stream = kind.make(budget)
        #: Data read from the source, and how much of it the stream has got.
        self._buffer, self._at = b"", 0
        #: What the stream has got and not consumed yet.
        self._tail = b""
        #: Bytes that the stream gets next: few after a short member, as what it leaves is copied.
        self._step = STEP
        self._over = False
        self.damage: str | None = None

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or at damage."""
        pieces: list[bytes] = []
        while size > 0 and not self._over:
            room = self._budget.room
            if room <= 0:
                self._end(self._budget.over())
                break
            piece = self._next(min(size, room))
            self._budget.spend(len(piece))
            pieces.append(piece)
            size -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _end(self, damage: str | None) -> None:
        self._over = True
        self.damage = damage

    def _next(self, size: int) -> bytes:
        if self._stream.eof and not self._next_stream():
            return b""
        packed, self._tail = self._tail, b""
        if not packed and self._needs_input():
            packed = self._feed()
            if not packed:
                return self._left(size)
        try:
            piece: bytes = self._stream.decompress(packed, size)
        except STREAM_ERRORS as error:
            self._end(_reason(error))
            return b""
        self._tail = getattr(self._stream, "unconsumed_tail", b"")
        return piece

    def _feed(self) -> bytes:
        """Return the next data of the source for the stream."""
        if self._at >= len(self._buffer):
            self._buffer, self._at = self._source.read(STEP), 0
        chunk = self._buffer[self._at : self._at + self._step]
        self._at += len(chunk)
        self._step = min(2 * self._step, STEP)
        return chunk

    def _next_stream(self) -> bool:
        """Begin another member of a gzip file, or another stream; return False at the end."""
        self._at -= len(self._stream.unused_data)
        magic = self._kind.magic
        if magic and self._buffer.startswith(magic, self._at):
            # Without a copy: a gzip file may have very many members.
            return self._begin_stream()
        rest = self._buffer[self._at :]
        # Zeros may follow a stream.
        while not rest.startswith(magic or b"\1") and len(rest := rest.lstrip(b"\0")) < max(len(magic), 1):
            more = self._source.read(STEP)
            if not more:
                break
            rest += more
        self._buffer, self._at = rest, 0
        if not magic or not rest.startswith(magic):
            self._end("damaged archive: other data follows its end" if rest else damage_of(self._source))
            return False
        return self._begin_stream()

    def _begin_stream(self) -> bool:
        if not self._budget.take_member():
            self._end(self._budget.too_many_members)
            return False
        self._stream, self._step = self._kind.make(self._budget), _SHORT
        return True

    def _left(self, size: int) -> bytes:
        """Return data that the stream still holds when the input is used up."""
        piece = b""
        with contextlib.suppress(*STREAM_ERRORS):
            piece = self._stream.decompress(b"", size)
        if not piece and not self._stream.eof:
            self._end(damage_of(self._source) or "truncated archive: the end is missing")
        return piece

    def _needs_input(self) -> bool:
        return bool(getattr(self._stream, "needs_input", True))


def _reason(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "emory" in str(error):
        return "the stream asks for more memory than is allowed: it is not read"
    return "damaged archive: the data after the damage is lost"
