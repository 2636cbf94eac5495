"""A file -> the log objects in it, in pieces that fit into memory.

A small file is one piece. Members of a zip or tar archive are log objects of their own. A text that unpacks to more
than ``ReadLimits.whole`` is cut at line ends if it has one record per line; any other text that large is one document,
and is read up to ``ReadLimits.document``: CloudTrail itself writes at most 50 MB before gzip.
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

from trailsift.decode.compression import GZIP_ERRORS, inflate_whole, is_mac_noise
from trailsift.decode.json_text import parse


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Sizes in bytes."""

    #: Packed files up to this size are read at once.
    small: int = 2 << 20
    #: Texts up to this size are one piece.
    whole: int = 64 << 20
    #: Longer ones are cut into pieces of this size.
    piece: int = 32 << 20
    #: Larger documents are not read.
    document: int = 256 << 20


READ_LIMITS = ReadLimits()
#: Stands for an archive without a log: ``envelope`` names it (an empty zip).
_EMPTY = b"PK\x05\x06" + bytes(18)
#: Bytes read at a time: at most this much data before damage is lost.
_STEP = 1 << 16


class Part(NamedTuple):
    """One piece. ``member`` names the log object inside an archive (``!logs/a.json``); it is empty for the file itself.

    ``last``: the log object ends here. ``ends``: the file ends here. The end of an archive has neither data nor damage.
    """

    member: str
    data: bytes | bytearray | None
    damage: str | None = None
    last: bool = True
    ends: bool = True


class _Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


def parts_of(path: str | BinaryIO, limits: ReadLimits = READ_LIMITS) -> Iterator[Part]:
    """Yield the pieces of a file, given its path or a seekable stream, which is closed.

    Raise OSError if it cannot be read; damage is reported in the parts.
    """
    with io.FileIO(path) if isinstance(path, str) else path as file:
        # Most files are small: they cost one read and one inflating step.
        size = os.fstat(file.fileno()).st_size if isinstance(path, str) else file.seek(0, io.SEEK_END)
        if not isinstance(path, str):
            file.seek(0)
        start = file.read(size if size <= limits.small else 1 << 20)
        if start[:2] == b"\x1f\x8b" and size <= limits.small:
            text: bytes | bytearray | None = inflate_whole(start, limits.whole)
            if text is not None and text[257:262] != b"ustar":
                yield Part("", text)
                return
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _of_zip(path, limits)
            return
        opened = _opener(start)
        if start[:2] == b"\x1f\x8b":
            inner = _first_bytes(start)
        else:
            inner = start if opened is None else opened(_BytesSource(start)).read(512)
        if inner[257:262] != b"ustar" and size <= limits.small:
            yield Part("", start)
            return
        file.seek(0)
        if start[:2] == b"\x1f\x8b" and inner[257:262] != b"ustar" and size <= limits.whole:
            text = _inflated(file.read(), limits.whole + 1)
            if text is not None and len(text) <= limits.whole:
                yield Part("", text)
                return
            file.seek(0)
        source = file if opened is None else opened(file)
        yield from _of_tar(source, limits) if inner[257:262] == b"ustar" else _of_text("", source, limits)


def _inflated(data: bytes, size: int) -> bytes | bytearray | None:
    """Inflate a gzip file in one step, to at most ``size`` bytes; None if it is damaged or has several members."""
    text: bytes | bytearray | None = inflate_whole(data, size)
    if text is not None:
        return text
    inflate = isal_zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(data, size)
    except GZIP_ERRORS:
        return None
    return text if len(text) == size or (inflate.eof and not inflate.unused_data) else None


def _first_bytes(start: bytes) -> bytes:
    """Inflate the first bytes of a gzip file."""
    try:
        inner: bytes = isal_zlib.decompressobj(wbits=31).decompress(start[:4096], 512)
    except GZIP_ERRORS:
        return b""
    return inner


def _of_text(member: str, source: _Source, limits: ReadLimits) -> Iterator[Part]:
    """Yield the pieces of one text; ``ends`` is correct for a file that is not an archive."""
    held = _read(source, limits.whole + 1)
    if len(held) <= limits.whole:
        yield Part(member, held, _damage(source), ends=not member)
        return
    if not _has_lines(held):
        held += _read(source, limits.document + 1 - len(held))
        if len(held) > limits.document:
            reason = f"more than {limits.document} bytes unpacked in one document: it is not read"
            yield Part(member, None, reason, ends=not member)
        else:
            yield Part(member, held, _damage(source), ends=not member)
        return
    while True:
        cut = held.rfind(b"\n") + 1
        if cut:
            yield Part(member, held[:cut], last=False, ends=False)
        elif len(held) > limits.document:
            reason = f"a line of more than {limits.document} bytes: the rest is not read"
            yield Part(member, None, reason, ends=not member)
            return
        piece = source.read(limits.piece)
        held = held[cut:] + piece
        if not piece:
            # A line end at the end of the last piece does not begin another line.
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
    """Return whether a text has one JSON object per line, judged by its first complete lines."""
    start = text[: 1 << 20]
    lines = [line for line in start.split(b"\n")[:-1] if line.strip()][:2]
    return bool(lines) and any(isinstance(parse(line), dict) for line in lines if line.strip()[:1] == b"{")


def _of_zip(path: str | BinaryIO, limits: ReadLimits) -> Iterator[Part]:
    damage = None
    count = 0
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.is_dir() or is_mac_noise(info.filename):
                    continue
                count += 1
                name = f"!{info.filename}"
                try:
                    with archive.open(info) as member:
                        yield from _of_text(name, _MemberSource(member), limits)
                except Exception as error:  # Encrypted, or damaged in a way that zipfile does not foresee.
                    yield Part(name, None, f"damaged or locked in the archive: {error}", ends=False)
    except Exception as error:  # As above; only a file that cannot be read may raise.
        damage = f"damaged zip: {error}"
    yield _end(count, damage)


def _of_tar(source: _Source, limits: ReadLimits) -> Iterator[Part]:
    damage = None
    count = 0
    try:
        with tarfile.open(fileobj=source, mode="r|") as archive:  # type: ignore[call-overload]
            for info in archive:
                member = archive.extractfile(info) if info.isreg() and not is_mac_noise(info.name) else None
                if member is not None:
                    count += 1
                    yield from _of_text(f"!{info.name}", _MemberSource(member), limits)
    except Exception as error:  # As above.
        damage = f"damaged tar: {error}"
    yield _end(count, _damage(source) or damage)


def _end(count: int, damage: str | None) -> Part:
    """Return the part that ends an archive of ``count`` members."""
    if damage is None and not count:
        return Part("", _EMPTY)
    # Damage to the archive itself belongs to no member, and is counted as a log object of its own.
    return Part("", None, damage, last=damage is not None)


# -- compressed streams ----------------------------------------------------------------------------------------------


class _BytesSource:
    """Bytes in memory as a source."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def read(self, size: int, /) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class _MemberSource:
    """A member of an archive, up to any damage in it."""

    def __init__(self, member: Any) -> None:
        self._member = member
        self.damage: str | None = None

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or at damage."""
        if self.damage is not None:
            return b""
        try:
            data: bytes = self._member.read(size)
        except Exception as error:  # A header can be wrong in more ways than the libraries foresee; nothing may raise.
            self.damage = f"damaged in the archive: {error}"
            return b""
        return data


class _InflatingSource:
    """The data of a compressed stream, its members one after the other. ``damage`` is why it ended early."""

    def __init__(self, source: _Source, make: Callable[[], Any], magic: bytes) -> None:
        self._source, self._make, self._magic = source, make, magic
        self._stream = make()
        self._packed = b""
        self.damage: str | None = None
        self._over = False

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or at damage."""
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
        except (*GZIP_ERRORS, OSError, EOFError, ValueError, lzma.LZMAError):
            self._over = True
            self.damage = "damaged archive: the data after the damage is lost"
            return b""
        self._packed = getattr(self._stream, "unconsumed_tail", b"")
        return piece

    def _left(self, size: int) -> bytes:
        """Return data that the stream still holds when the input is used up."""
        piece = b""
        with contextlib.suppress(*GZIP_ERRORS, OSError, EOFError, ValueError, lzma.LZMAError):
            piece = self._stream.decompress(b"", size)
        if not piece and not self._stream.eof:
            self._over = True
            self.damage = "truncated archive: the end is missing"
        return piece

    def _needs_input(self) -> bool:
        return bool(getattr(self._stream, "needs_input", True))


def _opener(head: bytes) -> Callable[[_Source], _InflatingSource] | None:
    """Return the function that inflates a file with this beginning; None if it is not compressed."""
    for magic, make in _STREAMS:
        if head.startswith(magic):
            return lambda source, magic=magic, make=make: _InflatingSource(source, make, magic)  # type: ignore[misc]
    return None


_STREAMS: tuple[tuple[bytes, Callable[[], Any]], ...] = (
    (b"\x1f\x8b", lambda: isal_zlib.decompressobj(wbits=31)),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=256 << 20)),
)
