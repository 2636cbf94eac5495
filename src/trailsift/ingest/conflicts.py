"""Second copies of an event: which of them say something else than the event that was stored.

Two copies are the same where the records are equal as parsed JSON (int told from float, null from absent), however
they were written: the order of members, blanks and the envelope do not count. The checksum that ids carry is one of the
text, so it only says which copies to look at. These wait until the batch's files are written, and are then compared
with the rows stored, a bounded number at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import schema
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.decode import record
from trailsift.decode.json_text import dump
from trailsift.decode.outcome import RAW_LIMIT, Malformed
from trailsift.lake.index import File

#: Rows compared at a time: a few kilobytes each on both sides.
AT_ONCE = 10_000
#: What two equal records may differ in, and what follows from other columns.
_ASIDE = frozenset({"log_object", "weight"})
_COLUMNS = [name for name in CHUNK_SCHEMA.names if name not in _ASIDE]

Found = tuple[str, Malformed]


def pack(table: pa.Table) -> bytes:
    """Copies (in CHUNK_SCHEMA) to be looked at later, as a compressed Arrow stream; nothing where there are none.

    What a stream has dropped is no record any more, and says nothing that could differ.
    """
    table = table.filter(pc.greater(table.column("weight"), 0))
    if not table.num_rows:
        return b""
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_stream(sink, CHUNK_SCHEMA, options=options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def conflicting_copies(
    packed: Sequence[bytes], files: Sequence[File], root: Path, omit: Collection[str] | None = None
) -> Iterator[Found]:
    """The copies that differ from what is stored, whole, for ``rejects``.

    ``files``: the files of ``events``, the batch's own included; ``omit``: columns that rules leave empty in what is
    stored, None where there are no rules. A copy without a stored event of its time differs (equal records have equal
    times); but where there are rules, they have dropped the event, and its copy goes the same way.
    """
    for data in packed:
        for batch in pa.ipc.open_stream(data):
            for start in range(0, batch.num_rows, AT_ONCE):
                yield from _compared(_plain(batch.slice(start, AT_ONCE)), files, root, omit)


def _compared(copies: pa.Table, files: Sequence[File], root: Path, omit: Collection[str] | None) -> Iterator[Found]:
    open_rows = np.arange(copies.num_rows)
    for file in _possible(copies, files):
        if not len(open_rows):
            break
        stored = _stored(root / file.path, copies.column("event_id").take(pa.array(open_rows)))
        if stored is None:
            continue
        place = pc.index_in(copies.column("event_id"), stored.column("event_id").combine_chunks())
        hit = np.asarray(pc.fill_null(place, -1)).astype(np.int64)[open_rows]
        found = open_rows[hit >= 0]
        yield from _differing(copies.take(pa.array(found)), stored.take(pa.array(hit[hit >= 0])), omit or ())
        open_rows = open_rows[hit < 0]
    if omit is None:
        yield from map(_named, _rows(copies.take(pa.array(open_rows))))


def _possible(copies: pa.Table, files: Sequence[File]) -> list[File]:
    """The files that may hold an equal event: of its service, and its time within theirs."""
    times: dict[str, np.ndarray[Any, np.dtype[np.int64]]] = {}
    service, time = copies.column("service"), np.asarray(copies.column("event_time"))
    for name in pc.unique(service).to_pylist():
        times[name] = np.sort(time[np.asarray(pc.equal(service, name))])
    chosen = []
    for file in files:
        for name in [file.service] if file.service is not None else list(times):
            own = times.get(name)
            if own is not None and np.searchsorted(own, file.min_time) < np.searchsorted(own, file.max_time, "right"):
                chosen.append(file)
                break
    return chosen


def _stored(path: Path, ids: pa.ChunkedArray) -> pa.Table | None:
    """The rows of a file with these ids, each once. Only row groups that have one are read whole."""
    try:
        reader = pq.ParquetFile(path)
    except FileNotFoundError:
        return None
    parts = []
    with reader:
        for number in range(reader.num_row_groups):
            here = pc.is_in(reader.read_row_group(number, ["event_id"]).column(0), ids.combine_chunks())
            if pc.any(here).as_py():
                parts.append(_plain(reader.read_row_group(number, [*_COLUMNS, "log_object"]).filter(here)))
    return pa.concat_tables(parts) if parts else None


def _plain(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """Without dictionaries; times in microseconds since 1970."""
    columns = {}
    for name in (*_COLUMNS, "log_object"):
        column = rows.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        columns[name] = column.cast(pa.int64()) if name == "event_time" else column
    return pa.table(columns)


def _differing(copies: pa.Table, stored: pa.Table, omit: Collection[str]) -> Iterator[Found]:
    """Of rows side by side those whose records differ. Most are equal column by column; the others are parsed."""
    equal = np.ones(copies.num_rows, bool)
    for name in _COLUMNS:
        if name not in omit and not name.endswith("_arns"):
            left, right = copies.column(name), stored.column(name)
            both_null = pc.and_(pc.is_null(left), pc.is_null(right))
            equal &= np.asarray(pc.or_(pc.fill_null(pc.equal(left, right), False), both_null))
    lists = zip(*(side.column("resource_arns").to_pylist() for side in (copies, stored)), strict=True)
    equal &= np.fromiter(((left or []) == (right or []) for left, right in lists), bool)
    rows = pa.array(np.flatnonzero(~equal))
    for copy, first in zip(_rows(copies.take(rows)), _rows(stored.take(rows)), strict=True):
        for name in omit:
            first[name] = copy[name]
        if not record.same(record.restore(copy), record.restore(first)):
            yield _named(copy)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = table.to_pylist()
    return made


def _named(row: dict[str, Any]) -> Found:
    reason = f"event {row['event_id']} again, with other content: the first one is kept"
    return row["log_object"], Malformed(-1, reason, dump(record.restore(row))[:RAW_LIMIT])


def live_events(files: Sequence[File]) -> list[File]:
    """Those of a batch's files that hold events."""
    return [file for file in files if file.table == schema.EVENTS.name]
