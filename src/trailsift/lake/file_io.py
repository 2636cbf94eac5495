"""Iceberg's own files of one lake: read and written by plain Python files, within the lake only.

PyIceberg would choose a file system, and the code for it, by what the metadata says. Here every location must be a
metadata file, a manifest list or a manifest in its table's folder of the lake, reached through no link; nothing else is
opened, written or deleted. What is read is bounded, and looked through before PyIceberg's parsers see it.
"""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil

from trailsift.errors import LakeError
from trailsift.lake import forms
from trailsift.storage.links import Links
from trailsift.storage.local import make_file, make_folders

SCHEME = "file://"

#: The largest file of metadata, and the largest manifest when it is unpacked, in bytes.
MAX_METADATA = 256 << 20
_MAX_UNPACKED = 512 << 20
#: A block of a manifest is unpacked to no more than this many bytes.
_PIECE = 16 << 20
_AVRO = b"Obj\x01"
_PRIMITIVE = frozenset({"boolean", "int", "long", "float", "double", "bytes", "string"})
_MAX_DEPTH = 20

#: What parsers raise for metadata that is not what it should be.
_DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, ArithmeticError, MemoryError,
    RecursionError, NotImplementedError, zlib.error,
)  # fmt: skip


@contextmanager
def metadata_errors(root: Path, table: str) -> Iterator[None]:
    """Raise LakeError for what goes wrong with the Iceberg metadata of a table."""
    try:
        yield
    except _DAMAGE as error:
        raise LakeError(
            f"the Iceberg metadata of the table {table} in {root} cannot be used: {type(error).__name__}: {error}"
        ) from error


class LocalFileIO(FileIO):
    """A lake's own Iceberg files. LakeError for every other location."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self._root = root

    def path(self, location: str) -> Path:
        """Return where a file is. LakeError if it is not in the folders of its table, or behind a link."""
        path = forms.iceberg_path(self._root, location)
        Links(self._root).check([path])
        return self._root / path

    def new_input(self, location: str) -> InputFile:
        """Return a file to read."""
        return _Input(location, self)

    def new_output(self, location: str) -> OutputFile:
        """Return a file to write."""
        return _Output(location, self)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file that has a name of PyIceberg's; others stay."""
        path = self.path(location if isinstance(location, str) else location.location)
        if forms.is_own_metadata(str(path.relative_to(self._root))):
            path.unlink()

    def read(self, location: str) -> bytes:
        """Return a file's bytes. LakeError if it is too large."""
        path = self.path(location)
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            data = file.read(MAX_METADATA + 1)
        if len(data) > MAX_METADATA:
            raise LakeError(f"{path} is too large for Iceberg metadata: more than {MAX_METADATA >> 20} MB")
        return data


class _Input(InputFile):
    def __init__(self, location: str, lake: LocalFileIO) -> None:
        super().__init__(location)
        self._lake = lake

    def __len__(self) -> int:
        return self._lake.path(self.location).stat().st_size

    def exists(self) -> bool:
        return self._lake.path(self.location).exists()

    def open(self, seekable: bool = True) -> Any:
        """Open the file for reading. LakeError if it is a manifest that PyIceberg cannot be trusted with."""
        if self.location.endswith(".parquet"):
            return self._lake.path(self.location).open("rb")
        data = self._lake.read(self.location)
        if self.location.endswith(".avro"):
            try:
                check_avro(data)
            except (ValueError, TypeError, LookupError, AttributeError, RecursionError, zlib.error) as error:
                raise LakeError(f"{self._lake.path(self.location)} is not a manifest of Iceberg: {error}") from error
        return io.BytesIO(data)


class _Output(OutputFile):
    def __init__(self, location: str, lake: LocalFileIO) -> None:
        super().__init__(location)
        self._lake = lake

    def __len__(self) -> int:
        return self._lake.path(self.location).stat().st_size

    def exists(self) -> bool:
        return self._lake.path(self.location).exists()

    def to_input_file(self) -> InputFile:
        """Return the same file to read."""
        return _Input(self.location, self._lake)

    def create(self, overwrite: bool = False) -> BinaryIO:
        """Open a new file for writing, with the folders above it. FileExistsError if there is one."""
        path = self._lake.path(self.location)
        make_folders(path.parent)
        make_file(path)
        return path.open("wb")


def read_metadata(lake: LocalFileIO, location: str) -> TableMetadata:
    """Return a table's metadata, without the properties that are not ours. Raise what ``metadata_errors`` expects."""
    described, properties = _described(lake, location)
    described["properties"] = forms.kept_properties(properties)
    return TableMetadataUtil.parse_obj(described)


def dropped_properties(lake: LocalFileIO, location: str) -> list[str]:
    """Return the names of the properties that ``read_metadata`` leaves out."""
    _, properties = _described(lake, location)
    return sorted(properties.keys() - forms.kept_properties(properties).keys())


def _described(lake: LocalFileIO, location: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a metadata file's JSON, and the properties in it."""
    text = lake.read(location)
    if text[:2] == b"\x1f\x8b":
        text = _inflated(text, 31)
    described = json.loads(text)
    if not isinstance(described, dict):
        raise ValueError("it is not an object")
    properties = described.get("properties")
    return described, properties if isinstance(properties, dict) else {}


def _inflated(data: bytes, window: int) -> bytes:
    unpacker = zlib.decompressobj(window)
    unpacked = unpacker.decompress(data, MAX_METADATA)
    if not unpacker.eof:
        raise ValueError("it is cut off, or too large when unpacked")
    return unpacked


# -- manifests ---------------------------------------------------------------------------------------------------------


def check_avro(data: bytes) -> None:
    """Raise ValueError for an Avro file that could take more memory or time than its size suggests.

    Its compression must be one that is unpacked by pieces; and no type may take up no bytes, or refer to itself:
    a list could claim any number of values.
    """
    if data[:4] != _AVRO:
        raise ValueError("it is not an Avro file")
    header: dict[bytes, bytes] = {}
    at = 4
    while True:
        count, at = _long(data, at)
        if count == 0:
            break
        if count < 0:
            _, at = _long(data, at)
        if abs(count) > 1000:
            raise ValueError("its header has too many entries")
        for _ in range(abs(count)):
            name, at = _bytes(data, at)
            header[name], at = _bytes(data, at)
    _check_type(json.loads(header.get(b"avro.schema", b"null")), 0)
    codec = header.get(b"avro.codec", b"null")
    if codec not in (b"null", b"deflate"):
        raise ValueError(f"it is compressed by {codec[:20]!r}: trailsift and other writers of Iceberg use deflate")
    _check_blocks(data, at, data[at : at + 16], packed=codec == b"deflate")


def _check_blocks(data: bytes, at: int, sync: bytes, *, packed: bool) -> None:
    at += 16
    total = 0
    while at < len(data):
        records, at = _long(data, at)
        block, at = _bytes(data, at)
        size = _unpacked_size(block, _MAX_UNPACKED - total) if packed else len(block)
        total += size
        if not 0 <= records <= size:
            raise ValueError(f"a block of {size} bytes has {records} entries")
        if data[at : at + 16] != sync:
            raise ValueError("a block does not end where it says")
        at += 16


def _unpacked_size(block: bytes, limit: int) -> int:
    unpacker, size = zlib.decompressobj(-15), 0
    rest = block
    while not unpacker.eof:
        size += len(unpacker.decompress(rest, _PIECE))
        rest = unpacker.unconsumed_tail
        if size > limit:
            raise ValueError(f"it is larger than {_MAX_UNPACKED >> 20} MB when unpacked")
        if not rest and not unpacker.eof:
            # The last pieces may still be in the unpacker.
            more = unpacker.decompress(b"", _PIECE)
            size += len(more)
            if not more:
                break
    return size


def _check_type(kind: object, depth: int) -> None:
    """Raise ValueError unless every value of the type takes at least a byte, and the type does not hold itself."""
    if depth > _MAX_DEPTH:
        raise ValueError("its types are nested too deeply")
    if isinstance(kind, list):
        if not 0 < len(kind) <= 10:
            raise ValueError("a union has no types, or too many")
        for choice in kind:
            if choice != "null":
                _check_type(choice, depth + 1)
        return
    if isinstance(kind, str):
        if kind not in _PRIMITIVE:
            raise ValueError(f"it has values of the type {kind[:40]!r}")
        return
    if not isinstance(kind, dict):
        raise ValueError("it has no types")
    name = kind.get("type")
    if name == "record":
        fields = kind["fields"]
        if not isinstance(fields, list) or not 0 < len(fields) <= 1000:
            raise ValueError("a record has no fields, or too many")
        for field in fields:
            _check_type(field["type"], depth + 1)
    elif name == "array":
        _check_type(kind["items"], depth + 1)
    elif name == "map":
        _check_type(kind["values"], depth + 1)
    elif name == "fixed":
        if type(kind["size"]) is not int or not 0 < kind["size"] <= 1000:
            raise ValueError("values of a fixed size have none")
    else:
        _check_type(name, depth + 1)


def _long(data: bytes, at: int) -> tuple[int, int]:
    """Return the number at a place, and the place behind it."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("it is cut off")
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            return (number >> 1) ^ -(number & 1), at


def _bytes(data: bytes, at: int) -> tuple[bytes, int]:
    size, at = _long(data, at)
    if not 0 <= size <= len(data) - at:
        raise ValueError("it is cut off")
    return data[at : at + size], at + size
