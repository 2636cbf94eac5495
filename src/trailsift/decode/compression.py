"""Bytes of a log object -> the plain texts in it: gzip, bzip2, xz, zip and tar, inside each other too.

The kind is recognized by the first bytes, never by a name. A damaged archive yields the data before the damage and
carries the reason along, so that the reader of the text counts it once. The size that one object may unpack to is
limited.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import NamedTuple

from isal import isal_zlib

from trailsift import _native
from trailsift.decode.limits import LIMITS, Budget
from trailsift.decode.outcome import Outcome
from trailsift.decode.reading import (
    BZIP2,
    GZIP_ERRORS,
    XZ,
    BytesSource,
    DamagedArchiveError,
    InflatingSource,
    Member,
    StreamKind,
    damage_of,
    read_up_to,
)
from trailsift.decode.tar_archive import tar_members
from trailsift.decode.zip_archive import zip_members

try:
    import deflate
except ImportError:
    # Not in the zip for Lambda, whose payloads are small.
    deflate = None  # type: ignore[assignment]

#: Files that macOS leaves in archives; never a log.
_MAC_NOISE = ("__MACOSX/", ".DS_Store", "._")


class UnpackedData(NamedTuple):
    """Bytes from an archive, and what is wrong with their end."""

    data: bytes
    damage: str | None = None


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


def gunzip(data: bytes, budget: Budget) -> UnpackedData:
    """Inflate all members of a gzip file into one text."""
    parts: list[bytes] = []
    damage = None
    limit, total = budget.text_room, 0
    at = 0
    while damage is None and data[at : at + 2] == b"\x1f\x8b":
        if total >= limit:
            damage = _too_large(budget)
        elif at and not budget.take_member():
            damage = budget.too_many_members
        else:
            part, at, damage = _gunzip_member(data, at, limit - total)
            parts.append(part)
            total += len(part)
            if damage == _FULL:
                damage = _too_large(budget)
    if damage is None and data[at:].strip(b"\0"):
        damage = "damaged gzip: other data follows its end"
    budget.spend(total)
    return UnpackedData(parts[0] if len(parts) == 1 else b"".join(parts), damage)


_FULL = "full"


def _gunzip_member(data: bytes, start: int, limit: int) -> tuple[bytes, int, str | None]:
    """Inflate the member at ``start`` to at most ``limit`` bytes. Return its text, its end, and its damage."""
    inflate = isal_zlib.decompressobj(wbits=31)
    # The common case is one call. What follows a member is copied, so a later one gets little at first.
    at, step = start, len(data) if start == 0 else 512
    pieces: list[bytes] = []
    total = 0
    try:
        while at < len(data) and total < limit and not inflate.eof:
            chunk = data if step >= len(data) and at == 0 else data[at : at + step]
            pieces.append(inflate.decompress(chunk, limit - total))
            total += len(pieces[-1])
            at += len(chunk)
            step *= 2
    except GZIP_ERRORS:
        text = _inflate_until_damage(data[start:], limit)
        return text, len(data), "damaged gzip: the data after the damage is lost"
    text = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    if not inflate.eof:
        return text, len(data), _FULL if total >= limit else "truncated gzip: the end is missing"
    return text, at - len(inflate.unused_data), None


def _too_large(budget: Budget) -> str:
    if budget.room > budget.limits.document:
        return f"more than {budget.limits.document:,} bytes unpacked in one text: the rest is not read"
    return budget.over()


def gunzip_single_member(data: bytes) -> bytes | None:
    """Inflate a gzip file of one complete member; return None for any other, or a large one."""
    inflate = isal_zlib.decompressobj(wbits=31)
    try:
        text = inflate.decompress(data, LIMITS.whole)
    except GZIP_ERRORS:
        return None
    return text if inflate.eof and not inflate.unused_data else None


def _gunzip(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    yield gunzip(data, outcome.budget)


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
    yield _unstream(data, outcome.budget, BZIP2)


def _unxz(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    yield _unstream(data, outcome.budget, XZ)


def _unstream(data: bytes, budget: Budget, kind: StreamKind) -> UnpackedData:
    return _read_text(InflatingSource(BytesSource(data), kind, budget), budget)


def _read_text(source: object, budget: Budget) -> UnpackedData:
    """Read one text into memory."""
    limit = budget.limits.document
    data = read_up_to(source, limit)  # type: ignore[arg-type]
    damage = damage_of(source)
    if damage is None and len(data) >= limit:
        damage = f"more than {limit:,} bytes unpacked in one text: the rest is not read"
    return UnpackedData(data, damage)


# -- archives of several files ---------------------------------------------------------------------------------------


def is_mac_noise(name: str) -> bool:
    """Return whether an archive member is one of macOS's own files."""
    return name.startswith(_MAC_NOISE[0]) or name.rpartition("/")[2].startswith(_MAC_NOISE[1:])


def _unzip(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    return _members(zip_members(io.BytesIO(data), outcome.budget, is_mac_noise), outcome)


def _untar(data: bytes, outcome: Outcome) -> Iterator[UnpackedData]:
    return _members(tar_members(BytesSource(data), outcome.budget), outcome)


def _members(members: Iterator[Member], outcome: Outcome) -> Iterator[UnpackedData]:
    """Yield the texts of an archive's members; those that cannot be read are rejected."""
    try:
        for member in members:
            if is_mac_noise(member.name):
                continue
            if member.source is None:
                outcome.reject(f"{member.name} in the archive: {member.problem}", b"", -1)
                continue
            text, damage = _read_text(member.source, outcome.budget)
            yield UnpackedData(text, f"{member.name} in the archive: {damage}" if damage else None)
            if damage and outcome.budget.room <= 0:
                return
    except DamagedArchiveError as error:
        outcome.reject(str(error), b"", -1)


#: First bytes, their offset, and the function that opens the archive. The most frequent first.
_OPENERS: tuple[tuple[bytes, int, _Opener], ...] = (
    (b"\x1f\x8b", 0, _gunzip),
    (b"PK\x03\x04", 0, _unzip),
    (b"PK\x05\x06", 0, _unzip),
    (b"ustar", 257, _untar),
    (b"BZh", 0, _bunzip),
    (b"\xfd7zXZ\0", 0, _unxz),
)
