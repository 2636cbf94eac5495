"""The members of a tar archive, read once from front to end.

``tarfile`` believes what headers declare: it reads extended headers into memory whatever their size, and skips to any
offset. Here only its parser of a single header block is used.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import NamedTuple

from trailsift.decode.limits import Budget
from trailsift.decode.names import safe_name
from trailsift.decode.reading import DamagedArchiveError, Member, SectionSource, Source, damage_of, skip

_BLOCK = tarfile.BLOCKSIZE
_PAX = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE)
#: Types without data, whatever size their header declares.
_WITHOUT_DATA = (
    tarfile.LNKTYPE,
    tarfile.SYMTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
)
_REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
#: Data after the end of an archive is looked for within this many bytes.
_TRAILER = 1 << 20


class _Extended(NamedTuple):
    """What the extended headers in front of a member say about it."""

    path: str | None = None
    size: int | None = None
    problem: str | None = None


def tar_members(source: Source, budget: Budget) -> Iterator[Member]:
    """Yield the regular files of an archive; each is to be read before the next is asked for.

    Raise DamagedArchiveError if the archive cannot be read further. A member that is cut short reports that itself.
    """
    extended = _Extended()
    while True:
        block = _next_block(source)
        if block is None:
            return
        info = _parsed(block)
        # A chain of headers without a member costs time too.
        if not budget.take_member():
            raise DamagedArchiveError(budget.too_many_members)
        size = info.size
        if size < 0:
            raise DamagedArchiveError(f"damaged tar: a size of {size} bytes")
        if info.type in _PAX or info.type in (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XGLTYPE):
            extended = _read_extended(source, info, extended, budget)
            continue
        size = size if extended.size is None else extended.size
        name = safe_name(info.name if extended.path is None else extended.path, budget.limits.name)
        problem, extended = extended.problem, _Extended()
        if info.type in _WITHOUT_DATA:
            continue
        if info.type == tarfile.GNUTYPE_SPARSE:
            _skip_sparse_map(source, block[482] != 0)
            problem = _SPARSE
        section = SectionSource(source, size, "truncated tar: the end is missing")
        if problem is not None:
            yield Member(name, None, problem)
        elif info.type in _REGULAR:
            yield Member(name, section)
        section.drain()
        if section.damage is not None:
            # The member has reported it, unless nobody asked for its data.
            if problem is not None or info.type not in _REGULAR:
                raise DamagedArchiveError(section.damage)
            return
        if skip(source, -size % _BLOCK):
            raise DamagedArchiveError("truncated tar: the end is missing")


_SPARSE = "a sparse file, which is not read: archive it without holes"


def _next_block(source: Source) -> bytes | None:
    """Return the next header; None at the end of the archive."""
    block = source.read(_BLOCK)
    if not block:
        return None
    if len(block) < _BLOCK:
        raise DamagedArchiveError("truncated tar: the end is missing")
    if not block.strip(b"\0"):
        _check_trailer(source)
        return None
    return block


def _parsed(block: bytes) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    # ValueError and OverflowError: numbers that tarfile does not foresee.
    except (tarfile.HeaderError, ValueError, OverflowError) as error:
        raise DamagedArchiveError(f"damaged tar: {error}: the rest is not read") from error


def _check_trailer(source: Source) -> None:
    """Raise DamagedArchiveError if something follows the end of an archive (another archive, for example)."""
    left = _TRAILER
    while left > 0 and (data := source.read(min(left, 1 << 16))):
        left -= len(data)
        if data.strip(b"\0"):
            raise DamagedArchiveError("other data follows the end of the tar: it is not read")


def _read_extended(source: Source, info: tarfile.TarInfo, before: _Extended, budget: Budget) -> _Extended:
    """Read an extended header; one that is too large is skipped, and its member will not be read."""
    padding = -info.size % _BLOCK
    if info.size > budget.limits.header:
        if skip(source, info.size + padding):
            missing = f"truncated tar: an extended header declares {info.size:,} bytes"
            raise DamagedArchiveError(damage_of(source) or missing)
        reason = f"an extended header of {info.size:,} bytes: more than {budget.limits.header:,} are not read"
        return before._replace(problem=reason)
    data = source.read(info.size)
    if len(data) < info.size or skip(source, padding):
        raise DamagedArchiveError("truncated tar: the end is missing")
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return before._replace(path=_text(data.partition(b"\0")[0]))
    if info.type in _PAX:
        try:
            return _read_pax(data, before)
        except ValueError:
            return before._replace(problem="a damaged extended header")
    # Targets of links, and headers for the whole archive, say nothing about a member's data.
    return before


def _read_pax(data: bytes, before: _Extended) -> _Extended:
    """Parse records of the form ``LENGTH KEY=VALUE\\n``. Raise ValueError if they are damaged."""
    at = 0
    while at < len(data) and data[at] != 0:
        blank = data.index(b" ", at, at + 20)
        length = int(data[at:blank])
        end = at + length
        if length < 5 or end > len(data) or data[end - 1 : end] != b"\n":
            raise ValueError("length")
        key, _, value = data[blank + 1 : end - 1].partition(b"=")
        at = end
        if key == b"path":
            before = before._replace(path=_text(value))
        elif key == b"size":
            size = int(value[:20])
            if size < 0:
                raise ValueError("size")
            before = before._replace(size=size)
        elif key.startswith(b"GNU.sparse."):
            before = before._replace(problem=_SPARSE)
    return before


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogateescape")


def _skip_sparse_map(source: Source, more: bool) -> None:
    """Skip the blocks that continue the map of a sparse file."""
    while more:
        block = source.read(_BLOCK)
        more = len(block) == _BLOCK and block[504] != 0
