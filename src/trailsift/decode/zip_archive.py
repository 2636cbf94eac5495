"""The members of a zip archive, each read in pieces within a budget.

``zipfile`` unpacks a whole bzip2 or LZMA block at a time whatever it grows to, and accepts entries that share their
data. Here the directory's offsets and sizes are checked before they are used, and unpacking ends with the budget.
"""

from __future__ import annotations

import lzma
import struct
from array import array
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from isal import isal_zlib

from trailsift.decode.limits import Budget
from trailsift.decode.names import safe_name
from trailsift.decode.reading import (
    BZIP2,
    DamagedArchiveError,
    InflatingSource,
    Member,
    SectionSource,
    Source,
    StreamKind,
    damage_of,
)

#: End of the directory: disks, entries, size and offset of the directory, size of the comment.
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_LOCATOR = struct.Struct("<4sLQL")
_LOCATOR_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
#: An entry: flags, method, checksum, sizes, lengths of name, extra and comment, offset of the local header.
_ENTRY = struct.Struct("<4s4xHH4xLLLHHH8xL")
_ENTRY_MAGIC = b"PK\x01\x02"
_LOCAL = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_UTF8 = 0x800
_ZIP64 = 1
_NONE32 = 0xFFFFFFFF

_METHODS = {
    1: "Shrink",
    6: "Implode",
    9: "Deflate64",
    93: "Zstandard",
    95: "xz",
    98: "PPMd",
    99: "AES encryption",
}


class _Entry(NamedTuple):
    """An entry of the directory."""

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc32: int
    packed: int
    size: int
    offset: int

    @property
    def end(self) -> int:
        """The smallest offset at which the member's data can end."""
        return self.offset + _LOCAL.size + len(self.raw_name) + self.packed


def zip_members(file: BinaryIO, budget: Budget, skip: Callable[[str], bool]) -> Iterator[Member]:
    """Yield the members of an archive in a seekable file, without those whose name ``skip`` accepts.

    Each is to be read before the next is asked for. Raise DamagedArchiveError if the directory cannot be read
    (further), or if entries were left out because they overlap others.
    """
    size = file.seek(0, 2)
    start, end, shift = _directory(file, size)
    overlapping = _overlapping(file, start, end, shift, budget)
    refused = 0
    for number, entry in enumerate(_entries(file, start, end, shift, budget)):
        if number in overlapping:
            refused += 1
            continue
        if not budget.take_member():
            raise DamagedArchiveError(budget.too_many_members)
        if not entry.raw_name.endswith(b"/") and not skip(entry.name):
            yield _member(file, entry, start, budget)
    if refused:
        word = "member overlaps another" if refused == 1 else "members overlap others"
        raise DamagedArchiveError(f"damaged zip: {refused:,} {word}: not read")


# -- the directory ---------------------------------------------------------------------------------------------------


def _directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Return where the directory begins and ends in the file, and what is to be added to the offsets in it."""
    tail_start = max(0, size - _END.size - 0xFFFF)
    tail = _read_at(file, tail_start, size - tail_start)
    at = tail.rfind(_END_MAGIC)
    if at < 0 or len(tail) < at + _END.size:
        raise DamagedArchiveError("damaged zip: the directory at its end is missing")
    _, _, _, _, count, length, offset, _ = _END.unpack_from(tail, at)
    end = tail_start + at
    if count == 0xFFFF or length == _NONE32 or offset == _NONE32:
        locator = _read_at(file, end - _LOCATOR.size, _LOCATOR.size) if end >= _LOCATOR.size else b""
        if locator[:4] == _LOCATOR_MAGIC:
            end -= _LOCATOR.size + _END64.size
            record = _read_at(file, end, _END64.size) if end >= 0 else b""
            if record[:4] != _END64_MAGIC:
                raise DamagedArchiveError("damaged zip: the end of its zip64 directory is missing")
            length, offset = _END64.unpack(record)[-2:]
    # Whatever stands before the archive shifts it.
    shift = end - length - offset
    if length > end or shift < 0:
        raise DamagedArchiveError("damaged zip: a directory outside of the file")
    return end - length, end, shift


def _entries(file: BinaryIO, start: int, end: int, shift: int, budget: Budget) -> Iterator[_Entry]:
    """Yield the entries of the directory between two offsets."""
    at = start
    # Read in blocks: an entry is small, and the directory may be large.
    block, block_at = b"", start
    while at < end:
        if at + 0x30000 + _ENTRY.size > block_at + len(block) and block_at + len(block) < end:
            block, block_at = _read_at(file, at, min(1 << 18, end - at)), at
        here = at - block_at
        if len(block) < here + _ENTRY.size or block[here : here + 4] != _ENTRY_MAGIC:
            raise DamagedArchiveError("damaged zip: the rest of its directory is missing")
        _, flags, method, crc32, packed, size, names, extras, comments, offset = _ENTRY.unpack_from(block, here)
        here += _ENTRY.size
        at = block_at + here + names + extras + comments
        if at > end or len(block) < here + names + extras:
            raise DamagedArchiveError("damaged zip: the rest of its directory is missing")
        raw = block[here : here + names]
        if _NONE32 in (packed, size, offset):
            extra = block[here + names : here + names + extras]
            size, packed, offset = _zip64(extra, size, packed, offset)
        text = raw.decode("utf-8", "surrogateescape") if flags & _UTF8 else raw.decode("cp437")
        # As zipfile: what follows a NUL is not part of the name.
        name = safe_name(text.partition("\0")[0], budget.limits.name)
        yield _Entry(name, raw, flags, method, crc32, packed, size, offset + shift)


def _zip64(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """Return the sizes and the offset, from the extra field where the entry has no room for them."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == _ZIP64:
            numbers = iter(struct.unpack_from(f"<{min(length, len(extra) - at - 4) // 8}Q", extra, at + 4))
            return (
                next(numbers, size) if size == _NONE32 else size,
                next(numbers, packed) if packed == _NONE32 else packed,
                next(numbers, offset) if offset == _NONE32 else offset,
            )
        at += 4 + length
    return size, packed, offset


def _overlapping(file: BinaryIO, start: int, end: int, shift: int, budget: Budget) -> set[int]:
    """Return the numbers of the entries whose data begins inside the data of another."""
    offsets, ends = array("Q"), array("Q")
    try:
        for number, entry in enumerate(_entries(file, start, end, shift, budget)):
            if number > budget.limits.members + budget.packed // budget.limits.member_bytes:
                break
            offsets.append(min(entry.offset, 1 << 63))
            ends.append(min(entry.end, 1 << 63))
    except DamagedArchiveError:
        # Reported when the entries before the damage are read.
        pass
    reached = -1
    overlapping = set()
    for number in sorted(range(len(offsets)), key=offsets.__getitem__):
        if offsets[number] < reached:
            overlapping.add(number)
        reached = max(reached, ends[number])
    return overlapping


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    return file.read(size)


# -- members ---------------------------------------------------------------------------------------------------------


def _member(file: BinaryIO, entry: _Entry, directory: int, budget: Budget) -> Member:
    """Return a member whose data can be read, or the reason why not."""
    if entry.flags & _ENCRYPTED:
        return Member(entry.name, None, "is encrypted: unpack the archive with its password first")
    if entry.offset + _LOCAL.size > directory:
        return Member(entry.name, None, "damaged zip: the data lies outside of the archive")
    header = _read_at(file, entry.offset, _LOCAL.size)
    magic, names, extras = _LOCAL.unpack(header) if len(header) == _LOCAL.size else (b"", 0, 0)
    if magic != _LOCAL_MAGIC or file.read(names) != entry.raw_name:
        return Member(entry.name, None, "damaged zip: the directory and the member's own header differ")
    begin = entry.offset + _LOCAL.size + names + extras
    if begin + entry.packed > directory:
        return Member(entry.name, None, "damaged zip: the data lies outside of the archive")
    section = SectionSource(_At(file, begin), entry.packed, "truncated zip: the end is missing")
    try:
        source = _opened(section, entry.method, budget)
    except DamagedArchiveError as error:
        return Member(entry.name, None, str(error))
    return Member(entry.name, _Checked(source, entry))


def _opened(section: SectionSource, method: int, budget: Budget) -> Source:
    """Return the unpacked data of a member. Raise DamagedArchiveError if its method is not supported."""
    if method == 0:
        return section
    if method == 8:
        return InflatingSource(section, _DEFLATE, budget)
    if method == 12:
        return InflatingSource(section, BZIP2._replace(magic=b""), budget)
    if method == 14:
        return InflatingSource(section, _lzma_kind(section, budget), budget)
    name = _METHODS.get(method, f"method {method}")
    raise DamagedArchiveError(f"compressed with {name}, which is not supported: unpack the archive first")


_DEFLATE = StreamKind("deflate", b"", lambda _: isal_zlib.decompressobj(wbits=-15))


def _lzma_kind(section: SectionSource, budget: Budget) -> StreamKind:
    """Return how to unpack an LZMA member, whose properties stand before its data."""
    head = section.read(4)
    length = int.from_bytes(head[2:], "little")
    properties = section.read(length) if length == 5 else b""
    if len(properties) != 5 or properties[0] >= 9 * 5 * 5:
        raise DamagedArchiveError("damaged zip: LZMA without its properties")
    size = int.from_bytes(properties[1:], "little")
    if size > budget.limits.dictionary:
        raise DamagedArchiveError(f"LZMA with a dictionary of {size:,} bytes: more than is allowed")
    rest, lc = divmod(properties[0], 9)
    pb, lp = divmod(rest, 5)
    filters = [{"id": lzma.FILTER_LZMA1, "dict_size": max(size, 4096), "lc": lc, "lp": lp, "pb": pb}]
    return StreamKind("LZMA", b"", lambda _: _lzma(filters))


def _lzma(filters: list[dict[str, Any]]) -> lzma.LZMADecompressor:
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters)
    except (lzma.LZMAError, ValueError) as error:
        raise DamagedArchiveError(f"damaged zip: {error}") from error


class _At:
    """A file from an offset on, whoever else moves in it meanwhile."""

    def __init__(self, file: BinaryIO, at: int) -> None:
        self._file, self._at = file, at

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes."""
        data = _read_at(self._file, self._at, size)
        self._at += len(data)
        return data


class _Checked:
    """A member's data; its size and checksum are compared with the directory at its end."""

    def __init__(self, source: Source, entry: _Entry) -> None:
        self._source, self._entry = source, entry
        self._size = self._crc32 = 0
        self.damage: str | None = None

    def read(self, size: int, /) -> bytes:
        """Return up to ``size`` bytes; none at the end, or at damage."""
        if self.damage is not None:
            return b""
        data = self._source.read(size)
        self._size += len(data)
        self._crc32 = isal_zlib.crc32(data, self._crc32)
        # LZMA need not mark its end, so a complete member can look cut short.
        if len(data) < size and (self._size, self._crc32) != (self._entry.size, self._entry.crc32):
            differs = "damaged zip: its size or checksum differs from the directory"
            self.damage = damage_of(self._source) or differs
        return data
