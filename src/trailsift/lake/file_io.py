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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from pyiceberg.exceptions import (
    CommitFailedException,
    NoSuchPropertyException,
    NotInstalledError,
    ResolveError,
    ValidationError,
    ValidationException,
)
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.table.metadata import TableMetadata, TableMetadataUtil, TableMetadataV2

from trailsift.errors import LakeError
from trailsift.lake import forms
from trailsift.lake.avro import check_avro
from trailsift.lake.home import fetch
from trailsift.storage import folder_storage
from trailsift.storage.links import Links
from trailsift.storage.local import make_file, make_folders

#: The largest file of metadata, also when it is unpacked, in bytes.
MAX_METADATA = 256 << 20

#: The year 10000, in milliseconds since 1970; some room is left for commits after a wrong clock.
_END_OF_TIME = 253_402_300_800_000 - 1_000_000_000

#: What parsers raise for metadata that is not what it should be.
_DAMAGE = (
    ValueError, TypeError, LookupError, AttributeError, AssertionError, EOFError, ArithmeticError, MemoryError,
    RecursionError, NotImplementedError, SystemError, zlib.error,
    CommitFailedException, NoSuchPropertyException, NotInstalledError, ResolveError, ValidationError,
    ValidationException,
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
        #: Paths in the lake of the files written since this list was last cleared.
        self.written: list[str] = []

    def path(self, location: str) -> Path:
        """Return where a file is. LakeError if it is not in the folders of its table, or behind a link."""
        path = forms.iceberg_path(self._root, location)
        Links(self._root).check([path])
        return self._root / path

    def present(self, location: str) -> Path:
        """Return where a file is that is to be read, and is fetched if the lake is in S3. LakeError as for ``path``."""
        path = self.path(location)
        fetch(self._root, [str(path.relative_to(self._root))])
        return path

    def new_input(self, location: str) -> InputFile:
        """Return a file to read."""
        return _Input(location, self)

    def new_output(self, location: str) -> OutputFile:
        """Return a file to write."""
        return _Output(location, self)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        """Delete a file that has a name of PyIceberg's; others stay."""
        path = self.path(location if isinstance(location, str) else location.location)
        name = str(path.relative_to(self._root))
        if forms.is_own_metadata(name):
            folder_storage(self._root).delete(name)

    def note_written(self, path: Path) -> None:
        """Note a new file."""
        self.written.append(path.relative_to(self._root).as_posix())

    def read(self, location: str) -> bytes:
        """Return a file's bytes. LakeError if it is too large."""
        path = self.present(location)
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
        return self._lake.present(self.location).stat().st_size

    def exists(self) -> bool:
        return self._lake.present(self.location).exists()

    def open(self, seekable: bool = True) -> Any:
        """Open the file for reading. LakeError if it is a manifest that PyIceberg cannot be trusted with."""
        if self.location.endswith(".parquet"):
            return self._lake.present(self.location).open("rb")
        data = self._lake.read(self.location)
        if self.location.endswith(".avro"):
            try:
                check_avro(data)
            except (ValueError, TypeError, LookupError, RecursionError, zlib.error) as error:
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
        self._lake.note_written(path)
        return path.open("wb")


def read_metadata(lake: LocalFileIO, location: str) -> TableMetadata:
    """Return a table's metadata, without the properties that are not ours. Raise what ``metadata_errors`` expects."""
    described, properties = _described(lake, location)
    described["properties"] = forms.kept_properties(properties)
    metadata = TableMetadataUtil.parse_obj(described)
    if type(metadata) is TableMetadataV2:
        metadata = _SharedMetadata.model_construct(**dict(metadata))
    times = [metadata.last_updated_ms, *(snapshot.timestamp_ms for snapshot in metadata.snapshots)]
    # The next commit's time is not before the last one's.
    if not 0 <= min(times) <= max(times) < _END_OF_TIME:
        raise ValueError("it has a time out of range")
    return metadata


class _SharedMetadata(TableMetadataV2):
    """Metadata whose copies share their parts. Nobody changes those: an update makes new ones.

    PyIceberg copies all of it, with up to thirty snapshots, three times per table and commit: a quarter of its time.
    """

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> _SharedMetadata:
        """Return a copy with other values for some members."""
        return super().model_copy(update=update)


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
