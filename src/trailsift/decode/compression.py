"""Bytes of a log object -> the plain texts in it: gzip, bzip2, xz, zip and tar, inside each other too.

The kind is recognized by the first bytes, never by a name. A damaged archive yields the data before the damage and
carries the reason along, so that the reader of the text counts it once. The size that one object may unpack to is
limited.
"""

from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple, cast

from isal import isal_zlib

from trailsift import _native
from trailsift.decode.outcome import Outcome

try:
    import deflate
except ImportError:
    # Not in the zip for Lambda, whose payloads are small.
    deflate = None  # type: ignore[assignment]

#: Logs compress 5 to 50 times. Data that grows by more than this factor, beyond ``FREE`` bytes, is a bomb.
GROWTH = 100
FREE = 128 << 20
#: Files that macOS leaves in archives; never a log.
_MAC_NOISE = ("__MACOSX/", ".DS_Store", "._")


class UnpackedData(NamedTuple):
    """Bytes from an archive, and what is wrong with their end."""

    data: bytes
    damage: str | None = None


#: Raised for damaged gzip data. isal's stubs declare its error as an instance, not as a class.
GZIP_ERRORS = (cast("type[Exception]", isal_zlib.error), zlib.error)
_Opener = Callable[[bytes, Outcome], Iterator[UnpackedData]]


def _only_at_end(data: bytes | bytearray, size: int) -> bool:
    """Return whether the last `size` bytes of data occur nowhere else in it."""
    if _native.scan is not None:
        answer: bool = _native.scan.only_at_end(data, size)
        return answer
    return data.find(data[-size:]) == len(data) - size


def unpack(data: bytes, outcome: Outcome, depth: int, damage: str | None = None) -> Iterator[UnpackedData]:
    """Yield the plain texts inside ``data``, at most ``depth`` archives deep."""
    for magic, at, opener in _OPENERS:
        if data[at : at + len(magic)] == magic:
            if depth <= 0:
                outcome.reject("archives nested too deeply", data, -1)
            else:
                yield from _open(opener, data, outcome, depth - 1, damage)
            return
    yield UnpackedData(data, damage)


def _open(opener: _Opener, data: bytes, outcome: Outcome, depth: int, damage: str | None) -> Iterator[UnpackedData]:
    """Yield the texts in an archive. Damage to the archive's own end is reported with the last one, once."""
    texts = opener(data, outcome)
    last: UnpackedData | None = None
    while True:
        count = outcome.malformed.parts
        text = next(texts, None)
        if outcome.malformed.parts > count:
            damage = None
        if text is None:
            break
        if last is not None:
            yield from unpack(last.data, outcome, depth, last.damage)
        last = text
    if last is not None:
        yield from unpack(last.data, outcome, depth, last.damage or damage)
    elif damage is not None:
        outcome.reject(damage, b"", -1)


def _limit(outcome: Outcome, packed: int) -> int:
    """Return how many bytes ``packed`` compressed bytes may unpack to."""
    return max(0, min(outcome.room, max(FREE, GROWTH * packed)))


def _too_large(limit: int) -> str:
    return f"more than {limit} bytes unpacked: the rest is not read"


# -- streams ---------------------------------------------------------------------------------------------------------


def inflate_whole(data: bytes | bytearray, limit: int) -> bytearray | None:
    """Inflate a gzip file of one member in one step, the fastest way.

    Return None if only the slower way can handle it: damaged, several members, or more than ``limit`` bytes.
    """
    size = int.from_bytes(data[-4:], "little")
    # The library stops after the first member, whose last four bytes are the size of its text. If a member of that
    # size ended earlier, whatever follows it, these bytes would occur twice.
    if deflate is None or not 0 < size <= limit or not _only_at_end(data, 4):
        return None
    try:
        text: bytearray = deflate.gzip_decompress(data, size)
    except deflate.DeflateError:
        return None
    return text if len(text) == size else None


def gunzip(data: bytes, outcome: Outcome) -> UnpackedData:
    """Inflate all members of a gzip file into one text."""
    parts: list[bytes] = []
    damage = None
    limit, total = _limit(outcome, len(data)), 0
    rest = data
    while rest[:2] == b"\x1f\x8b" and damage is None:
        if total >= limit:
            damage = _too_large(limit)
            break
        inflate = isal_zlib.decompressobj(wbits=31)
        try:
            # One call in the common case; the limit keeps a bomb from filling memory.
            part = inflate.decompress(rest, limit - total)
        except GZIP_ERRORS:
            part = _inflate_until_damage(rest, limit - total)
            damage = "damaged gzip: the data after the damage is lost"
        else:
            if not inflate.eof:
                full = total + len(part) >= limit
                damage = _too_large(limit) if full else "truncated gzip: the end is missing"
            rest = inflate.unused_data
        parts.append(part)
        total += len(part)
    if damage is None and rest.strip(b"\0"):
        damage = "damaged gzip: other data follows its end"
    outcome.room -= total
    return UnpackedData(parts[0] if len(parts) == 1 else b"".join(parts), damage)


def gunzip_single_member(data: bytes) -> bytes | None:
    """Inflate a gzip file of one complete member; return None for any other, or if it exceeds ``FREE`` bytes."""
    inflate = isal_zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(data, FREE)
    except GZIP_ERRORS:
        return None
    return text if inflate.eof and not inflate.unused_data else None


def _gunzip(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    yield gunzip(data, outcome)


def _inflate_until_damage(data: bytes, limit: int) -> bytes:
    """Return everything that inflates before the damage, to the byte."""
    inflate, parts, total, step = zlib.decompressobj(wbits=31), [], 0, 16_384
    for start in range(0, len(data), step):
        before = inflate.copy()
        try:
            parts.append(inflate.decompress(data[start : start + step]))
        except zlib.error:
            parts.append(_inflate_bytes(before, data[start : start + step]))
            break
        total += len(parts[-1])
        if total > limit:
            break
    return b"".join(parts)[:limit]


def _inflate_bytes(inflate: zlib._Decompress, data: bytes) -> bytes:
    parts = []
    for at in range(len(data)):
        try:
            parts.append(inflate.decompress(data[at : at + 1]))
        except zlib.error:
            break
    return b"".join(parts)


def _bunzip(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    yield _unstream(data, outcome, b"BZh", bz2.BZ2Decompressor)


def _unxz(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    # The dictionary that a stream may request is limited too.
    yield _unstream(data, outcome, b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=256 << 20))


def _unstream(
    data: bytes, outcome: Outcome, magic: bytes, make: Callable[[], bz2.BZ2Decompressor | lzma.LZMADecompressor]
) -> UnpackedData:
    parts: list[bytes] = []
    damage = None
    limit, total = _limit(outcome, len(data)), 0
    rest = data
    while rest.startswith(magic) and damage is None:
        stream, pending = make(), rest
        while not stream.eof and damage is None:
            try:
                parts.append(stream.decompress(pending, 1 << 20))
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                damage = f"damaged archive: {error}"
                break
            pending = b""
            total += len(parts[-1])
            if total >= limit:
                damage = _too_large(limit)
            elif stream.needs_input and not stream.eof:
                damage = "truncated archive: the end is missing"
        rest = stream.unused_data if damage is None else b""
    outcome.room -= total
    return UnpackedData(b"".join(parts), damage)


# -- archives of several files ---------------------------------------------------------------------------------------


def is_mac_noise(name: str) -> bool:
    """Return whether an archive member is one of macOS's own files."""
    return name.startswith(_MAC_NOISE[0]) or name.rpartition("/")[2].startswith(_MAC_NOISE[1:])


def _unzip(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        members = archive.infolist()
    except Exception as error:  # A header can be wrong in more ways than zipfile foresees; nothing may raise.
        outcome.reject(f"damaged zip: {error}", b"", -1)
        return
    for info in members:
        if info.is_dir() or is_mac_noise(info.filename):
            continue
        limit = _limit(outcome, info.compress_size)
        parts: list[bytes] = []
        damage, total = None, 0
        try:
            with archive.open(info) as member:
                while total < limit and (part := member.read(min(1 << 20, limit - total))):
                    parts.append(part)
                    total += len(part)
            if total >= limit and info.file_size > total:
                damage = f"{info.filename} in the archive: {_too_large(limit)}"
        except Exception as error:  # As above; encrypted members raise RuntimeError.
            damage = f"{info.filename} in the archive is damaged or locked: {error}"
        outcome.room -= total
        yield UnpackedData(b"".join(parts), damage)


def _untar(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    """Yield the files of a tar archive, cut out at the offsets in their headers."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for member in archive:
                if not member.isreg() or member.issparse() or is_mac_noise(member.name):
                    continue
                content = data[member.offset_data : member.offset_data + member.size]
                # Members overlap only in an archive that was built as a bomb.
                if len(content) > outcome.room:
                    outcome.reject(f"{member.name} in the archive: {_too_large(outcome.room)}", b"", -1)
                    return
                outcome.room -= len(content)
                if len(content) < member.size:
                    yield UnpackedData(content, f"{member.name} in the archive: truncated tar, the end is missing")
                    return
                yield UnpackedData(content)
    except Exception as error:  # A header can be wrong in more ways than tarfile foresees; nothing may raise.
        outcome.reject(f"damaged tar: {error}", b"", -1)


#: First bytes, their offset, and the function that opens the archive. The most frequent first.
_OPENERS: tuple[tuple[bytes, int, _Opener], ...] = (
    (b"\x1f\x8b", 0, _gunzip),
    (b"PK\x03\x04", 0, _unzip),
    (b"PK\x05\x06", 0, _unzip),
    (b"ustar", 257, _untar),
    (b"BZh", 0, _bunzip),
    (b"\xfd7zXZ\0", 0, _unxz),
)
