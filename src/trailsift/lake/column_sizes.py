"""The sizes of an Iceberg table's files, column by column, from its metadata alone: no data file is opened."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable, Iterator
from typing import Any

from pyiceberg.conversions import from_bytes
from pyiceberg.io import FileIO, InputFile, OutputFile
from pyiceberg.manifest import DataFile, ManifestContent
from pyiceberg.schema import Schema
from pyiceberg.table.metadata import TableMetadataUtil
from pyiceberg.types import PrimitiveType

from trailsift import schema
from trailsift.lake.index import File, SizedFile
from trailsift.times import DAY

#: Returns the bytes of a metadata file, given its location.
Fetch = Callable[[str], bytes]


def sized_files(table: schema.Table, metadata: str, fetch: Fetch) -> list[SizedFile]:
    """Return the live files of the table whose current metadata lies at ``metadata``.

    Raises what ``fetch`` raises.
    """
    text = fetch(metadata)
    described = TableMetadataUtil.parse_raw((gzip.decompress(text) if text[:2] == b"\x1f\x8b" else text).decode())
    snapshot = described.current_snapshot()
    if snapshot is None:
        return []
    source = _Fetched(fetch)
    specs, columns = described.specs(), described.schema()
    names = {field_id: columns.find_column_name(field_id) or "" for field_id in columns.field_ids}
    sized: list[SizedFile] = []
    for manifest in snapshot.manifests(source):
        keys = [field.name for field in specs[manifest.partition_spec_id].fields]
        for entry in manifest.fetch_manifest_entry(source):
            file = entry.data_file
            parts = {name: file.partition[at] for at, name in enumerate(keys)}
            described_file = _file(table, file, columns, parts)
            if manifest.content == ManifestContent.DELETES:
                always = described_file._replace(min_time=0, max_time=1 << 62)
                sized.append(SizedFile(always, {"": file.file_size_in_bytes}))
            else:
                sized.append(SizedFile(described_file, dict(_columns(file, names, table))))
    return sized


def _columns(file: DataFile, names: dict[int, str], table: schema.Table) -> Iterator[tuple[str, int]]:
    """Yield the bytes of each column; equal shares if the file's writer did not record them."""
    if not file.column_sizes:
        yield from ((column.name, file.file_size_in_bytes // len(table.columns)) for column in table.columns)
    for field_id, size in (file.column_sizes or {}).items():
        # A list's bytes are recorded for its elements.
        yield names.get(field_id, "").partition(".")[0], size


def _file(table: schema.Table, file: DataFile, columns: Schema, parts: dict[str, Any]) -> File:
    low, high = (_bound(bounds, columns, table.time) for bounds in (file.lower_bounds, file.upper_bounds))
    callers = [_bound(bounds, columns, "caller") for bounds in (file.lower_bounds, file.upper_bounds)]
    scale = DAY if table.column(table.time).type == "date" else 1
    return File(
        table.name,
        file.file_path,
        file.record_count,
        file.file_size_in_bytes,
        0 if low is None else int(low) * scale,
        (1 << 62) if high is None else int(high) * scale + (scale - 1),
        parts.get("service"),
        # Bounds may be truncated: an upper one stands for everything that begins with it.
        None if None in callers else str(callers[0]),
        None if None in callers else f"{callers[1]}\U0010ffff",
    )


def _bound(bounds: dict[int, bytes] | None, columns: Schema, name: str) -> Any:
    if name not in columns.column_names:
        return None
    field = columns.find_field(name)
    raw = (bounds or {}).get(field.field_id)
    if raw is None or not isinstance(field.field_type, PrimitiveType):
        return None
    return from_bytes(field.field_type, raw)


class _Fetched(FileIO):
    """A read-only FileIO of PyIceberg over ``fetch``."""

    def __init__(self, fetch: Fetch) -> None:
        super().__init__()
        self._fetch = fetch

    def new_input(self, location: str) -> InputFile:
        return _FetchedFile(location, self._fetch)

    def new_output(self, location: str) -> OutputFile:
        raise NotImplementedError(location)

    def delete(self, location: str | InputFile | OutputFile) -> None:
        raise NotImplementedError(str(location))


class _FetchedFile(InputFile):
    def __init__(self, location: str, fetch: Fetch) -> None:
        super().__init__(location)
        self._fetch = fetch

    def __len__(self) -> int:
        return len(self._fetch(self.location))

    def exists(self) -> bool:
        return True

    def open(self, seekable: bool = True) -> io.BytesIO:
        return io.BytesIO(self._fetch(self.location))
