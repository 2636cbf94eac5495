"""Second copies of an event: which of them have other content than the stored event.

Two copies are the same if their records are equal as parsed JSON (int differs from float, null from absent), however
they are written: the order of members, blanks and the envelope do not matter. The checksum beside the ids is of the
text, so it only shows which copies to compare. These wait until the batch's files are written, and are then compared
with the stored rows, a bounded number at a time.
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
from trailsift.decode import record, tabular
from trailsift.decode.json_text import dump
from trailsift.decode.outcome import RAW_LIMIT, Malformed
from trailsift.lake.home import fetch
from trailsift.lake.index import File
from trailsift.lake.parquet import data_errors
from trailsift.storage.links import Links

#: Resources of two copies that are compared in any order, at most.
_RESOURCES = 20
#: Rows compared at a time; each is a few kilobytes on both sides.
AT_ONCE = 10_000
#: Columns in which equal records may differ.
_IGNORED = frozenset({"log_object", "weight"})
_COLUMNS = [name for name in CHUNK_SCHEMA.names if name not in _IGNORED]

#: A log object's name, and what to reject of it.
Reject = tuple[str, Malformed]

#: Kinds of second copies. Each reason begins with its kind, and names no event, so that reports can count them.
CONFLICTING_TIME, CONFLICTING_CONTENT = "conflicting-time", "conflicting-content"
FULLER_COPY, REDUCED_COPY = "fuller-copy", "reduced-copy"
_REASONS = {
    CONFLICTING_TIME: f"{CONFLICTING_TIME}: an event id again, at another time: the first event is kept",
    CONFLICTING_CONTENT: f"{CONFLICTING_CONTENT}: an event again, with other content: the first one is kept",
    FULLER_COPY: f"{FULLER_COPY}: an event again, with more of its record: the first one is kept",
    REDUCED_COPY: f"{REDUCED_COPY}: an event again, with less of its record: the first one is kept",
}


def kind_of(reason: str) -> str | None:
    """Return the kind of second copy that a reason is about; None for other rejects."""
    kind = reason.partition(":")[0]
    return kind if kind in _REASONS else None


def pack(table: pa.Table) -> bytes:
    """Return copies (in CHUNK_SCHEMA) to compare later as a compressed Arrow stream, empty if there are none.

    Rows that a stream has dropped hold no record, so they cannot differ.
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
    packed: Sequence[bytes],
    files: Sequence[File],
    root: Path,
    omit: Collection[str] | None = None,
    removed: int | None = None,
) -> Iterator[Reject]:
    """Yield the copies that differ from the stored event, with their records, for ``rejects``.

    ``files``: the files of ``events``, including the batch's own; ``omit``: columns that rules leave empty in stored
    events, None without rules; ``removed``: retention has removed the events before this time. A copy without a stored
    event of its time differs (equal records have equal times); but with rules the event was dropped, and its copy is
    dropped too. The same holds for what retention removed.
    """
    for data in packed:
        for batch in pa.ipc.open_stream(data):
            for start in range(0, batch.num_rows, AT_ONCE):
                yield from _compared(_plain(batch.slice(start, AT_ONCE)), files, root, omit, removed)


def _compared(
    copies: pa.Table, files: Sequence[File], root: Path, omit: Collection[str] | None, removed: int | None
) -> Iterator[Reject]:
    open_rows = np.arange(copies.num_rows)
    for file in _possible(copies, files):
        if not len(open_rows):
            break
        fetch(root, [file.path])
        Links(root).check([file.path])
        stored = _stored(root / file.path, copies.column("event_id").take(pa.array(open_rows)))
        if stored is None:
            continue
        place = pc.index_in(copies.column("event_id"), stored.column("event_id").combine_chunks())
        match = np.asarray(pc.fill_null(place, -1)).astype(np.int64)[open_rows]
        matched = open_rows[match >= 0]
        yield from _differing(copies.take(pa.array(matched)), stored.take(pa.array(match[match >= 0])), omit or ())
        open_rows = open_rows[match < 0]
    if omit is None:
        # The stored event has another time.
        for copy in _rows(copies.take(pa.array(open_rows))):
            if removed is None or copy["event_time"] >= removed:
                yield _reject(copy, CONFLICTING_TIME)


def _possible(copies: pa.Table, files: Sequence[File]) -> list[File]:
    """Return the files that may hold an equal event, by service and time."""
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
    """Return the rows of a file with these ids, None if there are none; row groups without one are not read in full."""
    try:
        with data_errors(path):
            reader = pq.ParquetFile(path)
    except FileNotFoundError:
        return None
    parts = []
    with data_errors(path), reader:
        for number in range(reader.num_row_groups):
            matches = pc.is_in(reader.read_row_group(number, ["event_id"]).column(0), ids.combine_chunks())
            if pc.any(matches).as_py():
                parts.append(_plain(reader.read_row_group(number, [*_COLUMNS, "log_object"]).filter(matches)))
    return pa.concat_tables(parts) if parts else None


def _plain(rows: pa.RecordBatch | pa.Table) -> pa.Table:
    """Return rows without dictionaries, times in microseconds since 1970."""
    columns = {}
    for name in (*_COLUMNS, "log_object"):
        column = rows.column(name)
        if pa.types.is_dictionary(column.type):
            column = column.cast(pa.string())
        columns[name] = column.cast(pa.int64()) if name == "event_time" else column
    return pa.table(columns)


def _differing(copies: pa.Table, stored: pa.Table, omit: Collection[str]) -> Iterator[Reject]:
    """Yield the copies whose records differ from the stored row beside them.

    Most rows are equal in every column; only the others are restored and compared as JSON.
    """
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
        again, stored_record = record.restore(copy), record.restore(first)
        if record.same(again, stored_record):
            continue
        if copy["event_time"] != first["event_time"]:
            yield _reject(copy, CONFLICTING_TIME)
        elif _is_fuller(again, stored_record):
            yield _reject(copy, FULLER_COPY)
        else:
            yield _reject(copy, REDUCED_COPY if _is_fuller(stored_record, again) else CONFLICTING_CONTENT)


def _rows(table: pa.Table) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _reject(row: dict[str, Any], kind: str) -> Reject:
    return row["log_object"], Malformed(-1, _REASONS[kind], dump(record.restore(row))[:RAW_LIMIT])


def _is_fuller(copy: dict[str, Any], other: dict[str, Any]) -> bool:
    """Return whether a copy says all that another one says in members of CloudTrail, and more."""
    said = {name: value for name, value in other.items() if name in tabular.MEMBERS}
    fewer, more = said.get("resources"), copy.get("resources")
    if isinstance(fewer, list) and isinstance(more, list) and max(len(fewer), len(more)) <= _RESOURCES:
        # An export may list some of them, in another order.
        if not all(any(_says(each, one) for one in more) for each in fewer):
            return False
        del said["resources"]
    return _says(said, copy)


def _says(less: Any, more: Any) -> bool:
    if isinstance(less, dict) and isinstance(more, dict):
        return all(name in more and _says(value, more[name]) for name, value in less.items() if value is not None)
    # Element by element: whoever writes a record would make a search at each level quadratic.
    if isinstance(less, list) and isinstance(more, list):
        return len(less) == len(more) and all(map(_says, less, more))
    return record.same(less, more)


def live_events(files: Sequence[File]) -> list[File]:
    """Return those of a batch's files that hold events."""
    return [file for file in files if file.table == schema.EVENTS.name]
