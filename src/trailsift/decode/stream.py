"""A file -> the log objects in it, in pieces that fit into memory.

A small file is one piece. Members of a zip or tar archive are log objects of their own. A text that unpacks to more
than ``Limits.whole`` is cut at line ends if it has one record per line; any other text that large is one document,
and is read up to ``Limits.document``: CloudTrail itself writes at most 50 MB before gzip.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from isal import isal_zlib

from trailsift.decode.compression import inflate_whole, is_mac_noise
from trailsift.decode.json_text import parse
from trailsift.decode.limits import Budget
from trailsift.decode.reading import (
    GZIP_ERRORS,
    BytesSource,
    DamagedArchiveError,
    InflatingSource,
    Member,
    SectionSource,
    Source,
    damage_of,
    read_up_to,
    stream_kind,
)
from trailsift.decode.tar_archive import tar_members
from trailsift.decode.zip_archive import zip_members

#: Stands for an archive without a log: ``envelope`` names it (an empty zip).
_EMPTY = b"PK\x05\x06" + bytes(18)


class Part(NamedTuple):
    """One piece. ``member`` names the log object inside an archive (``!logs/a.json``); it is empty for the file itself.

    ``last``: the log object ends here. ``ends``: the file ends here. The end of an archive has neither data nor damage.
    """

    member: str
    data: bytes | bytearray | None
    damage: str | None = None
    last: bool = True
    ends: bool = True


def parts_of(path: str | BinaryIO, budget: Budget | None = None) -> Iterator[Part]:
    """Yield the pieces of a file, given its path or a seekable stream, which is closed.

    ``budget`` begins with the file; whoever reads the pieces draws on it too. Raise OSError if the file cannot be read;
    damage is reported in the parts.
    """
    budget = Budget() if budget is None else budget
    limits = budget.limits
    with _open_local(path) if isinstance(path, str) else path as file:
        # Most files are small: they cost one read and one inflating step.
        size = _size_of(file) if isinstance(file, io.FileIO) else file.seek(0, io.SEEK_END)
        if not isinstance(path, str):
            file.seek(0)
        budget.start(size)
        start = file.read(size if size <= limits.small else 1 << 20)
        if start[:2] == b"\x1f\x8b" and size <= limits.small:
            text: bytes | bytearray | None = inflate_whole(start, limits.whole)
            if text is not None and text[257:262] != b"ustar":
                budget.spend(len(text))
                yield Part("", text)
                return
        if start[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
            yield from _of_archive(zip_members(file, budget, is_mac_noise), budget)
            return
        kind = stream_kind(start)
        if start[:2] == b"\x1f\x8b":
            inner = _first_bytes(start)
        else:
            inner = start if kind is None else InflatingSource(BytesSource(start), kind, Budget()).read(512)
        if inner[257:262] != b"ustar" and size <= limits.small:
            yield Part("", start)
            return
        file.seek(0)
        if start[:2] == b"\x1f\x8b" and inner[257:262] != b"ustar" and size <= limits.whole:
            text = _inflated(file.read(), limits.whole + 1)
            if text is not None and len(text) <= limits.whole:
                budget.spend(len(text))
                yield Part("", text)
                return
            file.seek(0)
        # A file that grows meanwhile is read up to the size that it had.
        section = SectionSource(file, size, "the file became shorter while it was read")
        source: Source = section if kind is None else InflatingSource(section, kind, budget)
        if inner[257:262] == b"ustar":
            yield from _of_archive(tar_members(source, budget), budget)
        else:
            yield from _of_text("", source, budget)


#: Without waiting for the other end, should it be a pipe.
_OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def _open_local(path: str) -> io.FileIO:
    """Open a file. Links were resolved when it was found, so one that stands here now is an attack."""
    return io.FileIO(os.open(path, _OPEN_FLAGS))


def _size_of(file: io.FileIO) -> int:
    """Return the size of a regular file. Raise OSError for anything else."""
    status = os.fstat(file.fileno())
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is not a regular file")
    return status.st_size


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


def _of_text(member: str, source: Source, budget: Budget) -> Iterator[Part]:
    """Yield the pieces of one text; ``ends`` is correct for a file that is not an archive."""
    limits = budget.limits
    held = read_up_to(source, limits.whole + 1)
    if len(held) <= limits.whole:
        yield Part(member, held, damage_of(source), ends=not member)
        return
    if not _has_lines(held):
        held += read_up_to(source, limits.document + 1 - len(held))
        if len(held) > limits.document:
            reason = f"more than {limits.document} bytes unpacked in one document: it is not read"
            yield Part(member, None, reason, ends=not member)
        else:
            yield Part(member, held, damage_of(source), ends=not member)
        return
    while True:
        cut = held.rfind(b"\n") + 1
        if cut:
            yield Part(member, held[:cut], last=False, ends=False)
        elif len(held) > limits.document:
            reason = f"a line of more than {limits.document} bytes: the rest is not read"
            yield Part(member, None, reason, ends=not member)
            return
        piece = read_up_to(source, limits.piece)
        held = held[cut:] + piece
        if not piece:
            # A line end at the end of the last piece does not begin another line.
            yield Part(member, held if held.strip() else None, damage_of(source), ends=not member)
            return


def _has_lines(text: bytes) -> bool:
    """Return whether a text has one JSON object per line, judged by its first complete lines."""
    start = text[: 1 << 20]
    lines = [line for line in start.split(b"\n")[:-1] if line.strip()][:2]
    return bool(lines) and any(isinstance(parse(line), dict) for line in lines if line.strip()[:1] == b"{")


def _of_archive(members: Iterator[Member], budget: Budget) -> Iterator[Part]:
    """Yield the pieces of each member, and a part for the end of the archive."""
    damage = None
    count = 0
    try:
        for member in members:
            if is_mac_noise(member.name):
                continue
            count += 1
            name = f"!{member.name}"
            budget.begin_object()
            if member.source is None:
                yield Part(name, None, member.problem, ends=False)
            else:
                yield from _of_text(name, member.source, budget)
                if budget.room <= 0:
                    # The member that used it up has reported it.
                    break
    except DamagedArchiveError as error:
        damage = str(error)
    if damage is None and not count:
        yield Part("", _EMPTY)
    else:
        # Damage to the archive itself belongs to no member, and is counted as a log object of its own.
        yield Part("", None, damage, last=damage is not None)
