"""The catalog of a lake in S3 as it is stored there: packed."""

from __future__ import annotations

import zlib
from pathlib import Path

from trailsift.errors import LakeError
from trailsift.lake.settings import CATALOG_FILE
from trailsift.storage.local import LocalStorage

#: The largest catalog that is unpacked, in bytes, and how a packed one begins.
MAX_CATALOG = 1 << 30
_GZIP = b"\x1f\x8b"


def pack(catalog: bytes) -> bytes:
    """Return a catalog as it is stored in S3: a fifth of its size, since paths and roles repeat."""
    from isal import igzip

    # Level 3 takes 30 ms more than level 1 for the catalog of a year and saves 130 KB on the way; zlib's own level 6
    # would save 200 KB more and take 200 ms. The same catalog gives the same bytes: there is no time in them.
    return bytes(igzip.compress(catalog, 3, mtime=0))


def unpack(data: bytes, url: str) -> bytes:
    """Return a catalog from S3; one that was copied there from a disk is not packed. LakeError if it is too large."""
    if data[:2] != _GZIP:
        return data
    unpacker = zlib.decompressobj(31)
    try:
        catalog = unpacker.decompress(data, MAX_CATALOG)
    except zlib.error as error:
        raise LakeError(f"{url}/{CATALOG_FILE} is damaged: {error}") from error
    if not unpacker.eof:
        raise LakeError(f"{url}/{CATALOG_FILE} is cut off, or too large for the catalog of a lake")
    return catalog


def unpack_in_place(root: Path) -> None:
    """Unpack the catalog of a lake that was copied from S3 to a folder."""
    place = root / CATALOG_FILE
    if place.is_symlink() or not place.is_file():
        return
    with place.open("rb") as file:
        if file.read(2) != _GZIP:
            return
        data = b"".join((_GZIP, file.read(MAX_CATALOG)))
    LocalStorage(root).write(CATALOG_FILE, unpack(data, str(root)))
