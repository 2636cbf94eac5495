"""The rows of a partition, one range of its sort order at a time, so that a day of any size fits in memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import schema
from trailsift.columns.arrow import CHUNK_SCHEMA, ranks
from trailsift.lake import forms
from trailsift.lake.home import fetch
from trailsift.lake.index import File
from trailsift.lake.parquet import data_errors, micros
from trailsift.times import DAY, HOUR

Ints = np.ndarray[Any, np.dtype[np.int64]]

#: Decoded bytes of a piece. Sorting and writing it takes about four times as much memory.
PIECE_BYTES = 64 << 20

#: Parts of a day between which a role's rows can be cut: events by the minute, summary lines by their time column.
_SLOTS = {schema.EVENTS.name: 1440, schema.HOURLY.name: 24}
_ENCODED = frozenset(
    {f.name for f in CHUNK_SCHEMA if pa.types.is_dictionary(f.type)} | set(schema.EVENTS_BY_HOUR.partition)
)


@dataclass(frozen=True, slots=True)
class Partition:
    """The files that hold one day (days since 1970) of a table.

    For ``events`` those of one service, and of one hour (0 to 23) in a lake with hourly partitions.
    """

    table: str
    day: int
    service: str | None
    files: tuple[File, ...]
    hour: int | None = None

    @property
    def stored(self) -> schema.Table:
        """The table as its files store it."""
        return schema.tables_of(hourly_partitions=self.hour is not None)[self.table]

    @property
    def end(self) -> int:
        """The end of its day or hour, in microseconds since 1970."""
        return (self.day + 1) * DAY if self.hour is None else self.day * DAY + (self.hour + 1) * HOUR

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)


def column_array(rows: pa.Table, name: str) -> pa.Array:
    """Return a column as one array."""
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.unify_dictionaries().chunks)


def read_pieces(root: Path, partition: Partition, file_rows: int, scratch: Path) -> Iterator[tuple[pa.Table, bool]]:
    """Yield the partition's rows, one range of its order at a time (not sorted inside), and if it starts a file."""
    table = partition.stored
    forms.check_links(root, partition.files)
    rows = sum(file.rows for file in partition.files)
    limit = _piece_rows(root, partition)
    if "caller" not in table.order:
        yield from ((batch, False) for batch in _batches(root, partition, limit))
        return
    is_events = table.name == schema.EVENTS.name
    if rows <= limit and (not is_events or rows <= file_rows):
        yield from ((batch, False) for batch in _batches(root, partition, rows))
        return
    cuts = _CutPlan(root, partition, limit, file_rows if is_events else rows + 1)
    for batch in _batches(root, partition, limit):
        for number, part in cuts.split(batch):
            _append(scratch / f"{number}.arrow", part)
    for number in range(len(cuts.starts)):
        yield _spilled(scratch / f"{number}.arrow", encode=is_events), number in cuts.new_files


def _piece_rows(root: Path, partition: Partition) -> int:
    """Return how many rows take about ``PIECE_BYTES`` when decoded, estimated from a sample of the largest file."""
    largest = max(partition.files, key=lambda file: file.bytes)
    with _open(root, partition.stored, largest) as reader, data_errors(root / largest.path):
        sample = next(reader.iter_batches(batch_size=8192), None)
    if sample is None or not sample.num_rows:
        return 1
    return max(PIECE_BYTES * int(sample.num_rows) // max(int(sample.nbytes), 1), 1)


def _open(root: Path, table: schema.Table, file: File) -> pq.ParquetFile:
    encoded = [column.name for column in table.columns if column.name in _ENCODED]
    fetch(root, [file.path])
    with data_errors(root / file.path):
        return pq.ParquetFile(root / file.path, read_dictionary=encoded if table.name == schema.EVENTS.name else None)


def _batches(root: Path, partition: Partition, limit: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the partition's rows in the order of its files, at least ``limit`` at a time: whole row groups."""
    names = list(columns or (column.name for column in partition.stored.columns))
    parts: list[pa.Table] = []
    rows = 0
    for file in partition.files:
        with _open(root, partition.stored, file) as reader:
            for number in range(reader.num_row_groups):
                with data_errors(root / file.path):
                    parts.append(reader.read_row_group(number, columns=names).select(names))
                rows += parts[-1].num_rows
                if rows >= limit:
                    yield pa.concat_tables(parts)
                    parts, rows = [], 0
    if parts:
        yield pa.concat_tables(parts)


class _CutPlan:
    """The keys at which a partition's sort order (caller, then time of day) is cut into pieces and files."""

    def __init__(self, root: Path, partition: Partition, piece_rows: int, file_rows: int) -> None:
        self._table = partition.stored
        self._slots = _SLOTS.get(self._table.name, 1)
        counts: Counter[tuple[str | None, int]] = Counter()
        for rows in _batches(root, partition, 1 << 20, ["caller", self._table.time]):
            rank, roles = ranks(column_array(rows, "caller"))
            keys, numbers = np.unique(rank * self._slots + self._slot(rows), return_counts=True)
            for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
                counts[roles[key // self._slots], key % self._slots] += number
        names = {role for role, _ in counts}
        # Null sorts first in events, as in ``write_events``, and last in summary lines, as in ``merge``.
        ordered: list[str | None] = [*sorted(name for name in names if name is not None)]
        if None in names:
            ordered.insert(0 if self._table.name == schema.EVENTS.name else len(ordered), None)
        self._rank = {name: number for number, name in enumerate(ordered)}
        keyed = sorted((self._rank[role] * self._slots + slot, number) for (role, slot), number in counts.items())
        starts, self.new_files = plan_cuts(keyed, self._slots, piece_rows, file_rows)
        self.starts: Ints = np.array(starts, np.int64)

    def split(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """Yield each piece's number and its rows of ``rows``."""
        rank, roles = ranks(column_array(rows, "caller"))
        place = np.array([self._rank.get(role, 0) for role in roles], np.int64)
        key = place[rank] * self._slots + self._slot(rows)
        piece = np.searchsorted(self.starts, key, "right") - 1
        order = np.argsort(piece, kind="stable")
        rows = rows.unify_dictionaries().combine_chunks().take(pa.array(order))
        numbers, firsts = np.unique(piece[order], return_index=True)
        bounds = [*firsts.tolist(), len(order)]
        for at, number in enumerate(numbers.tolist()):
            yield number, rows.slice(bounds[at], bounds[at + 1] - bounds[at])

    def _slot(self, rows: pa.Table) -> Ints:
        return micros(column_array(rows, self._table.time)) % DAY * self._slots // DAY


def plan_cuts(
    keyed: Sequence[tuple[int, int]], slots: int, piece_rows: int, file_rows: int
) -> tuple[list[int], set[int]]:
    """Cut rows given as sorted (role number * ``slots`` + slot, rows).

    Return the keys at which pieces start, and which pieces start a file. A role that fits in a file is in one file
    only; a larger role has files of its own, cut by time.
    """
    rows_of_role: Counter[int] = Counter()
    for key, number in keyed:
        rows_of_role[key // slots] += number
    starts: list[int] = []
    new_files: set[int] = set()
    in_piece = in_file = 0
    last = -1
    for key, number in keyed:
        role = key // slots
        total = rows_of_role[role]
        share = total / -(-total // file_rows)
        if role != last:
            new_file = not starts or in_file + total > file_rows or rows_of_role[last] > file_rows
        else:
            new_file = total > file_rows and in_file + number / 2 > share
        last = role
        if new_file or in_piece + number > piece_rows:
            if new_file:
                new_files.add(len(starts))
                in_file = 0
            starts.append(key)
            in_piece = 0
        in_piece += number
        in_file += number
    return starts, new_files


def _append(path: Path, rows: pa.Table) -> None:
    """Append rows to a piece's file, as another Arrow stream."""
    # Plain strings: a slice would carry its whole dictionary.
    plain = [column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column for column in rows.columns]
    table = pa.table(plain, rows.schema.names)
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with path.open("ab") as file, pa.ipc.new_stream(file, table.schema, options=options) as stream:
        stream.write_table(table)


def _spilled(path: Path, *, encode: bool) -> pa.Table:
    parts = []
    with pa.OSFile(str(path)) as file:
        while file.tell() < file.size():
            parts.append(pa.ipc.open_stream(file).read_all())
    path.unlink()
    rows = pa.concat_tables(parts)
    if not encode:
        return rows
    columns = [
        pc.dictionary_encode(column).combine_chunks() if name in _ENCODED else column
        for name, column in zip(rows.schema.names, rows.columns, strict=True)
    ]
    return pa.table(columns, rows.schema.names)
