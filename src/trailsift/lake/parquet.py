"""Parquet files of the lake: how events and summary lines are laid out on disk."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import _native, schema
from trailsift.cloudtrail.services import UNKNOWN, is_service
from trailsift.columns.arrow import ordered, ranks
from trailsift.errors import LakeError
from trailsift.lake.field_ids import field_ids
from trailsift.lake.home import fetch
from trailsift.lake.index import File
from trailsift.lake.settings import read_settings
from trailsift.storage.links import Links
from trailsift.storage.local import make_file, make_folders
from trailsift.times import DAY, HOUR, moment

Codes = np.ndarray[Any, np.dtype[Any]]

#: Level 1 is the sweet spot: level 9 takes four times as long and saves 8 %.
ZSTD_LEVEL = 1
#: Rows of a row group: one event by its id reads all columns of one. More rows take fewer bytes only where dictionaries
#: are written whole, which they are not.
ROW_GROUP = 16_384

#: Values that do not repeat: a dictionary costs and saves nothing.
_NO_DICTIONARY = frozenset(
    {"event_id", "request_id", "additional_event_data", "event_time", "source_ips", "object_keys"}
)
#: Files are sorted by caller, so these may be in any file: a Bloom filter per row group excludes most of them. It costs
#: about 8 bits per distinct value, 2 % of the lake.
_BLOOM = ("event_id", "object_key", "request_id", "access_key_id", "source_object_key")
_BLOOM_FALSE_POSITIVES = 0.05
#: Fewer rows are read as fast as their filter would be.
_BLOOM_ROWS = 4096
#: Rows per dictionary value above which it does not pay to drop the values that a file does not use.
_SMALL_DICTIONARY = 1000
#: Below this, decoding is cheaper than trimming dictionaries.
_FEW_ROWS = 1024
#: Below this, setting ZSTD up for each column costs more than it saves: Snappy does until the file is compacted.
_ZSTD_ROWS = 256
#: Parquet is written in about a hundred pieces, most of them small.
_BUFFER = 1 << 20
#: Columns whose statistics let a reader skip row groups.
_STATISTICS = (
    "event_time",
    "event_id",
    "event_name",
    "event_source",
    "account_id",
    "aws_region",
    "caller",
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


@contextmanager
def data_errors(what: object) -> Iterator[None]:
    """Raise LakeError for what goes wrong with the content of data files. FileNotFoundError passes.

    ``what``: the file, or the partition.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, TypeError, ArithmeticError, pa.ArrowException) as error:
        if isinstance(error, OSError) and error.errno is not None:
            # The disk, and not what stands on it.
            raise
        text = str(error).rstrip(".")
        raise LakeError(
            f"{what} cannot be read: {text}. Nothing was changed. It is damaged, or no file of trailsift's: "
            "`trailsift verify` lists all that is wrong with a lake"
        ) from error


def read_columns(root: Path, path: str, names: Sequence[str], coded: Sequence[str] = ()) -> pa.Table:
    """Return columns of a data file; ``coded`` ones as dictionaries. LakeError if it is a link, or damaged.

    In files of format version 1 the caller is the role.
    """
    fetch(root, [path])
    Links(root).check([path])
    with data_errors(root / path), pq.ParquetFile(root / path) as reader:
        is_version_1 = "caller" not in reader.schema_arrow.names
        places = {name: "role_arn" if name == "caller" and is_version_1 else name for name in (*names, *coded)}
        dictionaries = [places[name] for name in coded]
        with pq.ParquetFile(root / path, read_dictionary=dictionaries, metadata=reader.metadata) as coded_reader:
            read = coded_reader.read(list(dict.fromkeys(places[name] for name in names)))
        return pa.table([read.column(places[name]) for name in names], list(names))


def write_events(chunk: pa.Table, root: Path, table: schema.Table = schema.EVENTS) -> list[File]:
    """Write a chunk (``columns.arrow.CHUNK_SCHEMA``), one file per partition, sorted by caller and time.

    ``table``: ``schema.EVENTS`` or ``schema.EVENTS_BY_HOUR``, by the lake's setting.
    """
    if not chunk.num_rows:
        return []
    time = np.asarray(_single(chunk.column("event_time")).cast(pa.int64()))
    service, service_names = ranks(_single(chunk.column("service")))
    caller, caller_names = ranks(_single(chunk.column("caller")))
    slot = time // (HOUR if table is schema.EVENTS_BY_HOUR else DAY)
    order = ordered(slot, service, caller, time)
    slot, service, caller, time = slot[order], service[order], caller[order], time[order]
    if len(order) > 1 and (np.diff(order) != 1).mean() > 0.5:
        # Mostly unsorted: sort the chunk once, instead of each file's rows.
        chunk, order = chunk.take(pa.array(order)).combine_chunks(), np.arange(len(order))
    cuts = np.flatnonzero((slot[1:] != slot[:-1]) | (service[1:] != service[:-1])) + 1
    bounds = [0, *cuts.tolist(), len(slot)]
    files = []
    for start, stop in itertools.pairwise(bounds):
        name = checked_service(service_names[service[start]] or UNKNOWN)
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
                caller_names[caller[start]],
                caller_names[caller[stop - 1]],
            )
        )
    return files


def checked_service(name: str | None) -> str:
    """Return the name of a service, which becomes a folder's. Raise LakeError if it could lead anywhere else."""
    if name is None or not is_service(name):
        raise LakeError(f"{name!r} is not the name of a service: nothing is written for it")
    return name


def events_table(root: Path) -> schema.Table:
    """Return the table ``events`` as the lake at ``root`` stores it."""
    settings = read_settings(root)
    return schema.tables_of(hourly_partitions=bool(settings.get("hourly_partitions")))[schema.EVENTS.name]


def partition_values(table: schema.Table, micros: int) -> dict[str, str]:
    """Return the partition columns of a time (microseconds since 1970), zero-padded."""
    time = moment(micros)
    parts = {"year": f"{time.year:04d}", "month": f"{time.month:02d}", "day": f"{time.day:02d}"}
    if schema.HOUR_COLUMN.name in table.partition:
        parts["hour"] = f"{time.hour:02d}"
    return parts


def write_lines(table: schema.Table, lines: pa.Table, root: Path) -> list[File]:
    """Write summary lines or rejects, one file per day of the table's time column."""
    if not lines.num_rows:
        return []
    time = micros(_single(lines.column(table.time)))
    day = time // DAY
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


def write_parquet(rows: pa.Table, table: schema.Table, path: Path) -> int:
    """Write one file in the table's column order; return its size in bytes."""
    writer = FileWriter(table, path)
    writer.write(rows)
    return writer.close()


class FileWriter:
    """Writes one Parquet file of a table, in pieces that follow each other in the table's order."""

    def __init__(self, table: schema.Table, path: Path) -> None:
        self.table = table
        self.path = path
        self._writer: pq.ParquetWriter | None = None
        self._file: pa.NativeFile | None = None

    def write(self, rows: pa.Table) -> None:
        """Add rows; all pieces must have the types of the first."""
        rows = _conformed(rows, self.table)
        if self._writer is None:
            make_folders(self.path.parent)
            make_file(self.path)
            names = rows.schema.names
            few = rows.num_rows < _ZSTD_ROWS
            self._file = pa.output_stream(str(self.path), compression=None, buffer_size=_BUFFER)
            self._writer = pq.ParquetWriter(
                self._file,
                rows.schema,
                compression="snappy" if few else "zstd",
                compression_level=None if few else ZSTD_LEVEL,
                use_dictionary=[name for name in names if name not in _NO_DICTIONARY],
                write_statistics=[name for name in names if name in _STATISTICS or self.table.name != "events"],
                bloom_filter_options=_bloom_filters(rows),
                # Readers need plain Parquet types. With Arrow's own schema, dictionaries would come back as such.
                store_schema=False,
            )
        for start in range(0, rows.num_rows, ROW_GROUP):
            group = rows.slice(start, ROW_GROUP)
            self._writer.write_table(group if group.num_rows == rows.num_rows else _of_one_group(group))

    def close(self) -> int:
        """End the file; return its size in bytes."""
        if self._writer is not None and self._file is not None:
            self._writer.close()
            self._file.close()
        return self.path.stat().st_size


def _bloom_filters(rows: pa.Table) -> dict[str, dict[str, float]]:
    """Return the options of Bloom filters sized for the first row group."""
    if rows.num_rows < _BLOOM_ROWS:
        return {}
    names = [name for name in _BLOOM if name in rows.schema.names]
    first = rows.slice(0, ROW_GROUP)

    def distinct(name: str) -> int:
        # Event ids are unique, and so are the requests of most services.
        return len(first) if name in ("event_id", "request_id") else len(first.column(name).unique())

    return {name: {"ndv": max(distinct(name), 1), "fpp": _BLOOM_FALSE_POSITIVES} for name in names}


def _conformed(rows: pa.Table, table: schema.Table) -> pa.Table:
    """Return the table's columns in their order, with Iceberg's field ids; dictionaries stay."""
    target = field_ids(table)
    fields = [pa.field(f.name, rows.schema.field(f.name).type, metadata=f.metadata) for f in target]
    fields = [target.field(f.name) if pa.types.is_list(f.type) else f for f in fields]
    arrays = [_cast_list(rows.column(f.name), f.type) for f in fields]
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields))


def _cast_list(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    return column.cast(kind) if pa.types.is_list(kind) else column


def _single(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    if isinstance(combined, pa.ChunkedArray):
        return combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
    return combined


def micros(column: pa.Array) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return a column of times or dates as microseconds since 1970."""
    if pa.types.is_date(column.type):
        return np.asarray(column.cast(pa.int32())).astype(np.int64) * DAY
    return np.asarray(column.cast(pa.int64()))


def _rows(chunk: pa.Table, rows: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
    """Return rows in the order given, without a copy if they are contiguous, as ``ChunkBuilder`` leaves most."""
    if rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
        return chunk.slice(int(rows[0]), len(rows))
    return chunk.take(pa.array(rows))


def _trimmed(part: pa.Table) -> pa.Table:
    """Return a slice whose dictionaries hold its own values only: Parquet writes dictionaries whole, used or not."""
    columns = []
    small = part.num_rows // _SMALL_DICTIONARY
    for column in part.columns:
        values = column.chunk(0)
        if pa.types.is_dictionary(values.type) and len(values.dictionary) > small:
            values = values.dictionary_decode() if part.num_rows < _FEW_ROWS else _with_own_values(values)
        columns.append(values)
    return pa.table(columns, part.schema.names)


def _of_one_group(rows: pa.Table) -> pa.Table:
    """Return rows whose dictionaries hold their own values only."""
    columns = []
    small = rows.num_rows // _SMALL_DICTIONARY
    for column in rows.columns:
        if pa.types.is_dictionary(column.type):
            values = _single(column)
            column = _with_own_values(values) if len(values.dictionary) > small else values
        columns.append(column)
    return pa.Table.from_arrays(columns, schema=rows.schema)


def _with_own_values(column: pa.DictionaryArray) -> pa.DictionaryArray:
    codes = np.asarray(pc.fill_null(column.indices, -1) if column.null_count else column.indices)
    parts = _trimmed_codes(codes, len(column.dictionary))
    if parts is None:
        return column
    indices, used = parts
    values = pa.array(indices, mask=codes < 0 if column.null_count else None)
    return pa.DictionaryArray.from_arrays(values, column.dictionary.take(pa.array(used)))


def _trimmed_codes(codes: Codes, size: int) -> tuple[Codes, Codes] | None:
    """Renumber codes below ``size`` (-1: null) over those that occur; return them and which these are.

    None if all of them occur.
    """
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
