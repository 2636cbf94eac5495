"""Parquet files of the lake: how events and summary lines are laid out on disk."""

from __future__ import annotations

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import _native
from trailsift import schema as event
from trailsift.columns.arrow import ordered, ranks
from trailsift.lake.field_ids import field_ids
from trailsift.lake.index import File
from trailsift.lake.settings import read_settings

Codes = np.ndarray[Any, np.dtype[Any]]

#: Level 1 is the sweet spot: level 9 takes four times as long and saves 8 %.
ZSTD_LEVEL = 1
ROW_GROUP = 65_536

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Values that do not repeat: a dictionary would only cost.
_NO_DICTIONARY = frozenset(
    {"event_id", "request_id", "additional_event_data", "event_time", "source_ips", "object_keys"}
)
#: Files are sorted by role, so these may be in any of them: a Bloom filter a row group says in which they are not. It
#: costs about 8 bits a distinct value, 1 % of the lake.
_BLOOM = ("event_id", "object_key")
_BLOOM_WRONG = 0.05
#: Fewer rows are read as fast as their filter.
_BLOOM_ROWS = 4096
#: A dictionary that is small against the rows is not worth the work of leaving out those that a file does not use.
_SMALL_DICTIONARY = 1000
#: So few rows are sooner written without their dictionaries than with trimmed ones.
_FEW_ROWS = 1024
#: Setting ZSTD up for each column costs more than it saves of so few: Snappy packs them until they are compacted.
_TOO_FEW_FOR_ZSTD = 256
#: Parquet is written in some hundred pieces, of which most are small.
_BUFFER = 1 << 20
#: Columns whose statistics let a reader skip row groups.
_STATISTICS = (
    "event_time",
    "event_id",
    "event_name",
    "event_source",
    "account_id",
    "aws_region",
    "role_arn",
    "principal_arn",
    "resource_arn",
    "object_key",
    "request_id",
    "source_ip",
    "error_code",
    "read_only",
    "bytes_in",
    "bytes_out",
    "year",
    "month",
    "day",
    "hour",
    "service",
)


def write_events(chunk: pa.Table, root: Path, table: event.Table = event.EVENTS) -> list[File]:
    """Writes a chunk (``columnar.CHUNK_SCHEMA``), a file for each partition, sorted by role and time.

    ``table`` is ``event.EVENTS`` or ``event.EVENTS_BY_HOUR``, as the lake's setting has it.
    """
    if not chunk.num_rows:
        return []
    time = np.asarray(_single(chunk.column("event_time")).cast(pa.int64()))
    service, service_names = ranks(_single(chunk.column("service")))
    role, role_names = ranks(_single(chunk.column("role_arn")))
    slot = time // (_HOUR if table is event.EVENTS_BY_HOUR else _DAY)
    order = ordered(slot, service, role, time)
    slot, service, role, time = slot[order], service[order], role[order], time[order]
    if len(order) > 1 and (np.diff(order) != 1).mean() > 0.5:
        # Little of a chunk that stayed as it was read is put in order once, not for each file.
        chunk, order = chunk.take(pa.array(order)).combine_chunks(), np.arange(len(order))
    cuts = np.flatnonzero((slot[1:] != slot[:-1]) | (service[1:] != service[:-1])) + 1
    bounds = [0, *cuts.tolist(), len(slot)]
    files = []
    for start, stop in itertools.pairwise(bounds):
        name = service_names[service[start]] or "unknown"
        parts = partition_values(table, int(time[start]))
        folder = "/".join(f"{key}={value}" for key, value in parts.items()) + f"/service={name}"
        path = f"events/data/{folder}/{uuid.uuid4().hex}.parquet"
        part = _with_constants(_trimmed(_rows(chunk, order[start:stop])), parts)
        size = write_parquet(part, table, root / path)
        files.append(
            File(
                "events",
                path,
                stop - start,
                size,
                int(time[start:stop].min()),
                int(time[start:stop].max()),
                name,
                # Of the roles that are there: a file that also holds anonymous calls can be skipped by role too.
                role_names[role[min(start + int(np.searchsorted(role[start:stop], 1)), stop - 1)]],
                role_names[role[stop - 1]],
            )
        )
    return files


def events_table(root: Path) -> event.Table:
    """The table ``events`` as the lake at ``root`` stores it."""
    settings = read_settings(root)
    return event.tables_of(hourly_partitions=bool(settings.get("hourly_partitions")))[event.EVENTS.name]


def partition_values(table: event.Table, micros: int) -> dict[str, str]:
    """The partition columns that a time gives (microseconds since 1970), zero-padded."""
    moment = _EPOCH + timedelta(microseconds=micros)
    parts = {"year": f"{moment.year:04d}", "month": f"{moment.month:02d}", "day": f"{moment.day:02d}"}
    if event.HOUR_COLUMN.name in table.partition:
        parts["hour"] = f"{moment.hour:02d}"
    return parts


def write_lines(table: event.Table, lines: pa.Table, root: Path) -> list[File]:
    """Writes summary lines or rejects, a file for each day of the table's time column."""
    if not lines.num_rows:
        return []
    time = micros(_single(lines.column(table.time)))
    day = time // _DAY
    files = []
    for number in np.unique(day):
        rows = np.flatnonzero(day == number)
        part = lines.take(pa.array(rows))
        date = np.datetime64(int(number), "D")
        path = f"{table.name}/data/{table.time}_day={date}/{uuid.uuid4().hex}.parquet"
        size = write_parquet(part, table, root / path)
        span = (int(time[rows].min()), int(time[rows].max()))
        files.append(File(table.name, path, len(rows), size, *span))
    return files


def write_parquet(rows: pa.Table, table: event.Table, path: Path) -> int:
    """Writes one file in the table's column order; its size in bytes."""
    writer = Writer(table, path)
    writer.write(rows)
    return writer.close()


class Writer:
    """One Parquet file of a table, written in pieces that follow each other in the table's order."""

    def __init__(self, table: event.Table, path: Path) -> None:
        self.table = table
        self.path = path
        self._writer: pq.ParquetWriter | None = None
        self._file: pa.NativeFile | None = None

    def write(self, rows: pa.Table) -> None:
        """Adds rows; all pieces must have the types of the first."""
        rows = _conformed(rows, self.table)
        if self._writer is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            names = rows.schema.names
            few = rows.num_rows < _TOO_FEW_FOR_ZSTD
            self._file = pa.output_stream(str(self.path), compression=None, buffer_size=_BUFFER)
            self._writer = pq.ParquetWriter(
                self._file,
                rows.schema,
                compression="snappy" if few else "zstd",
                compression_level=None if few else ZSTD_LEVEL,
                use_dictionary=[name for name in names if name not in _NO_DICTIONARY],
                write_statistics=[name for name in names if name in _STATISTICS or self.table.name != "events"],
                bloom_filter_options=_bloom_filters(rows),
                # Readers need plain Parquet types, not Arrow's own schema (dictionaries would come back as such).
                store_schema=False,
            )
        self._writer.write_table(rows, row_group_size=ROW_GROUP)

    def close(self) -> int:
        """Ends the file; its size in bytes."""
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
        return self.path.stat().st_size


def _bloom_filters(rows: pa.Table) -> dict[str, dict[str, float]]:
    """Filters sized for a row group like the first."""
    if rows.num_rows < _BLOOM_ROWS:
        return {}
    names = [name for name in _BLOOM if name in rows.schema.names]
    first = rows.slice(0, ROW_GROUP)

    def distinct(name: str) -> int:
        # An event has an id of its own.
        return len(first) if name == "event_id" else pc.count_distinct(first.column(name)).as_py()

    return {name: {"ndv": max(distinct(name), 1), "fpp": _BLOOM_WRONG} for name in names}


def _conformed(rows: pa.Table, table: event.Table) -> pa.Table:
    """The table's columns in their order, with Iceberg's field ids; dictionaries stay."""
    target = field_ids(table)
    fields = [pa.field(f.name, rows.schema.field(f.name).type, metadata=f.metadata) for f in target]
    fields = [target.field(f.name) if pa.types.is_list(f.type) else f for f in fields]
    schema = pa.schema(fields)
    return pa.Table.from_arrays([_cast_list(rows.column(f.name), f.type) for f in schema], schema=schema)


def _cast_list(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column.cast(kind) if pa.types.is_list(kind) else column


def _single(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
    return combined


def micros(column: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    if pa.types.is_date(column.type):
        return np.asarray(column.cast(pa.int32())).astype(np.int64) * _DAY
    return np.asarray(column.cast(pa.int64()))


def _rows(chunk: pa.Table, rows: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
    """Some rows in the order given, without a copy where they stand together, as a Builder leaves most."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return chunk.slice(int(rows[0]), len(rows))
    return chunk.take(pa.array(rows))


def _trimmed(part: pa.Table) -> pa.Table:
    """A slice whose dictionaries hold its own values only: Parquet writes a dictionary as a whole, used or not."""
    columns = []
    small = part.num_rows // _SMALL_DICTIONARY
    for column in part.columns:
        values = column.chunk(0)
        if pa.types.is_dictionary(values.type) and len(values.dictionary) > small:
            values = values.dictionary_decode() if part.num_rows < _FEW_ROWS else _with_own_values(values)
        columns.append(values)
    return pa.table(columns, part.schema.names)


def _with_own_values(column: pa.DictionaryArray) -> pa.DictionaryArray:
    codes = np.asarray(pc.fill_null(column.indices, -1) if column.null_count else column.indices)
    parts = _trimmed_codes(codes, len(column.dictionary))
    if parts is None:
        return column
    indices, used = parts
    values = pa.array(indices, mask=codes < 0 if column.null_count else None)
    return pa.DictionaryArray.from_arrays(values, column.dictionary.take(pa.array(used)))


def _trimmed_codes(codes: Codes, size: int) -> tuple[Codes, Codes] | None:
    """Codes below ``size`` (-1: none) counted anew over those that occur, and which these are; None where all do."""
    if _native.groups is not None:
        parts = _native.groups.trimmed(np.ascontiguousarray(codes), size)
        return parts and (np.frombuffer(parts[0], np.int32), np.frombuffer(parts[1], np.int64))
    used = np.zeros(size + 1, bool)
    used[codes] = True
    used[-1] = False
    if used[:-1].all():
        return None
    place = np.cumsum(used, dtype=np.int32) - 1
    return np.where(codes < 0, np.int32(0), place[codes]), np.flatnonzero(used)


def _with_constants(part: pa.Table, values: dict[str, str]) -> pa.Table:
    zeros = pa.array(np.zeros(part.num_rows, np.int32))
    for name, value in values.items():
        part = part.append_column(name, pa.DictionaryArray.from_arrays(zeros, pa.array([value])))
    return part
