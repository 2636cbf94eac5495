"""A file -> the log objects in it, in pieces that fit into memory.

A small file is one piece. Members of a zip or tar archive are log objects of their own. What unpacks to more than
``Bounds.whole`` is cut at line ends where it has a record a line; any other text that large is one document, and is
read up to ``Bounds.document``: CloudTrail itself writes at most 50 MB before gzip.
"""

from __future__ import annotations

import bz2
import contextlib
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, Protocol

from isal import isal_zlib

from trailsift.decode.compression import _DAMAGE, _noise, inflate_whole
from trailsift.decode.json_text import parse


@dataclass(frozen=True, slots=True)
class Bounds:
    """Sizes in bytes."""

    #: Packed files up to this size are read at once.
    small: int = 2 << 20
    #: Texts up to this size are one piece.
    whole: int = 64 << 20
    #: Longer ones are cut into pieces of this size.
    piece: int = 32 << 20
    #: A document larger than this is not read.
    document: int = 256 << 20


BOUNDS = Bounds()
#: Stands for an archive without a log: the reader of one piece knows what to call it.
_EMPTY = b"PK\x05\x06" + bytes(18)
#: Read at a time: what damage may cost of the data before it.
_STEP = 1 << 16


class Part(NamedTuple):
    """One piece. ``member`` names the log object inside an archive (``!logs/a.json``), empty for the file itself.

    ``last``: a log object ends here. ``ends``: the file does. The end of an archive has neither data nor damage.
    """

    member: str
    data: bytes | bytearray | None
    damage: str | None = None
    last: bool = True
    ends: bool = True


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def parts_of(path: str | BinaryIO, bounds: Bounds = BOUNDS) -> Iterator[Part]:
    """The pieces of a file, named by its path or open (seekable; it is closed). Raises OSError where it cannot be
    read; damage is told in the parts."""
    with io.FileIO(path) if isinstance(path, str) else path as file:
        # Most files are small: one read and one step of inflating are all that they cost.
        size = os.fstat(file.fileno()).st_size if isinstance(path, str) else file.seek(0, io.SEEK_END)
        if not isinstance(path, str):
            file.seek(0)
        start = file.read(size if size <= bounds.small else 1 << 20)
        if start[:2] == b"\x1f\x8b" and size <= bounds.small:
            whole = inflate_whole(start, bounds.whole)
            if whole is not None and whole[257:262] != b"ustar":
                yield Part("", whole)
                return
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _of_zip(path, bounds)
            return
        opened = _opener(start)
        if start[:2] == b"\x1f\x8b":
            inner = _first_bytes(start)
        else:
            inner = start if opened is None else opened(_Once(start)).read(512)
        if inner[257:262] != b"ustar" and size <= bounds.small:
            yield Part("", start)
            return
        file.seek(0)
        if start[:2] == b"\x1f\x8b" and inner[257:262] != b"ustar" and size <= bounds.whole:
            text = _inflated(file.read(), bounds.whole + 1)
            if text is not None and len(text) <= bounds.whole:
                yield Part("", text)
                return
            file.seek(0)
        source = file if opened is None else opened(file)
        yield from _of_tar(source, bounds) if inner[257:262] == b"ustar" else _of_text("", source, bounds)


def _inflated(data: bytes, size: int) -> bytes | bytearray | None:
    """A whole gzip file in one step, ``size`` bytes at most; None where it is damaged or has several members."""
    whole = inflate_whole(data, size)
    if whole is not None:
        return whole
    inflate = isal_zlib.decompressobj(wbits=31)
    try:
        text: bytes = inflate.decompress(data, size)
    except _DAMAGE:
        return None
    return text if len(text) == size or (inflate.eof and not inflate.unused_data) else None


def _first_bytes(start: bytes) -> bytes:
    """The first bytes of what begins a gzip file."""
    try:
        inner: bytes = isal_zlib.decompressobj(wbits=31).decompress(start[:4096], 512)
    except _DAMAGE:
        return b""
    return inner


def _of_text(member: str, source: _Source, bounds: Bounds) -> Iterator[Part]:
    """The pieces of one text; ``ends`` is right for a file that is no archive."""
    held = _read(source, bounds.whole + 1)
    if len(held) <= bounds.whole:
        yield Part(member, held, _damage(source), ends=not member)
        return
    if not _has_lines(held):
        held += _read(source, bounds.document + 1 - len(held))
        if len(held) > bounds.document:
            reason = f"more than {bounds.document} bytes unpacked in one document: it is not read"
            yield Part(member, None, reason, ends=not member)
        else:
            yield Part(member, held, _damage(source), ends=not member)
        return
    while True:
        cut = held.rfind(b"\n") + 1
        if cut:
            yield Part(member, held[:cut], last=False, ends=False)
        elif len(held) > bounds.document:
            reason = f"a line of more than {bounds.document} bytes: the rest is not read"
            yield Part(member, None, reason, ends=not member)
            return
        more = source.read(bounds.piece)
        held = held[cut:] + more
        if not more:
            # A line end at the end of the last piece begins no other line.
            yield Part(member, held if held.strip() else None, _damage(source), ends=not member)
            return


def _read(source: _Source, size: int) -> bytes:
    pieces = []
    while size > 0 and (piece := source.read(min(size, _STEP))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _damage(source: Any) -> str | None:
    damage: str | None = getattr(source, "damage", None)
    return damage


def _has_lines(text: bytes) -> bool:
    """Whether a text has one JSON object a line, as its first whole lines tell."""
    start = text[: 1 << 20]
    lines = [line for line in start.split(b"\n")[:-1] if line.strip()][:2]
    return bool(lines) and any(isinstance(parse(line), dict) for line in lines if line.strip()[:1] == b"{")


def _of_zip(path: str | BinaryIO, bounds: Bounds) -> Iterator[Part]:
    damage = None
    count = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or _noise(info.filename):
                    continue
                count += 1
                name = f"!{info.filename}"
                try:
                    with archive.open(info) as member:
                        yield from _of_text(name, _Guarded(member), bounds)
                except Exception as error:  # Encrypted or damaged: a header can lie in more ways than zipfile foresees.
                    yield Part(name, None, f"damaged or locked in the archive: {error}", ends=False)
    except Exception as error:  # As above; nothing but a file that cannot be read may raise.
        damage = f"damaged zip: {error}"
    yield _end(count, damage)


def _of_tar(source: _Source, bounds: Bounds) -> Iterator[Part]:
    damage = None
    count = 0
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                member = archive.extractfile(info) if info.isreg() and not _noise(info.name) else None
                if member is not None:
                    count += 1
                    yield from _of_text(f"!{info.name}", _Guarded(member), bounds)
    except Exception as error:  # As above.
        damage = f"damaged tar: {error}"
    yield _end(count, _damage(source) or damage)


def _end(count: int, damage: str | None) -> Part:
    """The end of an archive with so many members."""
    if damage is None and not count:
        return Part("", _EMPTY)
    # Damage to the archive belongs to no member, and is counted as a log object of its own.
    return Part("", None, damage, last=damage is not None)


# -- packed streams --------------------------------------------------------------------------------------------------


class _Once:
    """Bytes as a source."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int, /) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class _Guarded:
    """A member of an archive, up to the damage in it."""

    def __init__(self, member: Any) -> None:
        self._member = member
        self.damage: str | None = None

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; nothing at the end, or at damage."""
        if self.damage is not None:
            return b""
        try:
            data: bytes = self._member.read(size)
        except Exception as error:  # A header can lie in more ways than the libraries foresee; nothing may raise.
            self.damage = f"damaged in the archive: {error}"
            return b""
        return data


class _Unpacked:
    """What a packed stream unpacks to, its members one after the other. ``damage`` says why it ended early."""

    def __init__(self, source: _Source, make: Callable[[], Any], magic: bytes) -> None:
        self._source, self._make, self._magic = source, make, magic
        self._stream = make()
        self._packed = b""
        self.damage: str | None = None
        self._over = False

    def read(self, size: int, /) -> bytes:
        """Up to ``size`` bytes; nothing at the end, or at damage."""
        pieces: list[bytes] = []
        while size > 0 and not self._over:
            piece = self._next(size)
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    def _next(self, size: int) -> bytes:
        if self._stream.eof:
            rest = self._stream.unused_data
            rest = rest if rest.strip(b"\0") else self._source.read(1 << 16)
            if not rest.startswith(self._magic):
                self._over = True
                if rest.strip(b"\0"):
                    self.damage = "damaged archive: other data follows its end"
                return b""
            self._stream, self._packed = self._make(), rest
        if not self._packed and self._needs_input():
            self._packed = self._source.read(1 << 16)
            if not self._packed:
                return self._left(size)
        packed, self._packed = self._packed, b""
        try:
            piece: bytes = self._stream.decompress(packed, size)
        except (*_DAMAGE, OSError, EOFError, ValueError, lzma.LZMAError):
            self._over = True
            self.damage = "damaged archive: the data after the damage is lost"
            return b""
        self._packed = getattr(self._stream, "unconsumed_tail", b"")
        return piece

    def _left(self, size: int) -> bytes:
        """What the stream still holds when there is no more to put in."""
        piece = b""
        with contextlib.suppress(*_DAMAGE, OSError, EOFError, ValueError, lzma.LZMAError):
            piece = self._stream.decompress(b"", size)
        if not piece and not self._stream.eof:
            self._over = True
            self.damage = "truncated archive: the end is missing"
        return piece

    def _needs_input(self) -> bool:
        return bool(getattr(self._stream, "needs_input", True))


def _opener(head: bytes) -> Callable[[_Source], _Unpacked] | None:
    """What unpacks a file that begins like this; None where it is not packed."""
    for magic, make in _STREAMS:
        if head.startswith(magic):
            return lambda source, magic=magic, make=make: _Unpacked(source, make, magic)  # type: ignore[misc]
    return None


_STREAMS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: isal_zlib.decompressobj(wbits=31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=256 << 20)),
)
