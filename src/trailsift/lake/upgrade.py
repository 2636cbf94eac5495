"""Upgrade a lake of format version 1: all of it in one commit, or nothing.

The files of ``events`` are written again with the columns of today, which ``ingest.derive`` computes from the stored
records. The lines of the summary tables are computed again for the days whose events are all stored; those of the other
days keep their counts. The Iceberg tables are made again at their places, since columns in the middle of a schema would
give other field ids than a new lake has. What is replaced stays on disk until ``clean`` deletes it, as after a
compaction.

The catalog decides which version a lake has; ``lake.json`` follows.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import schema
from trailsift.cloudtrail.callers import role_of_session
from trailsift.columns import summarize
from trailsift.columns.arrays import Ints, Mask
from trailsift.columns.arrow import CHUNK_SCHEMA, arrow_schema
from trailsift.errors import LakeError
from trailsift.lake import digest, forms
from trailsift.lake.disk import write_errors
from trailsift.lake.home import fetch_files
from trailsift.lake.index import File
from trailsift.lake.parquet import data_errors, micros, read_columns, write_events, write_lines
from trailsift.lake.writer import LakeWriter
from trailsift.times import DAY, iso

T = TypeVar("T")

#: Rows, and bytes of them in memory, that are derived at a time.
PIECE_ROWS = 65_536
PIECE_BYTES = 96 << 20
_BATCH_ROWS = 16_384
#: Summary lines that wait in memory, above which they are merged.
_LINES = 500_000
#: The caller in lines of version 1 that name no role: it is not known which of those without an ARN it was.
UNKNOWN_CALLER = "unknown"
#: The summary tables of version 1, whose columns of today are filled with constants.
_SUMMARIES = (schema.HOURLY.name, schema.USAGE.name, schema.PROFILE.name)
_CONSTANTS = {"category": schema.UNKNOWN_CATEGORY, "touch": schema.TARGET, "owner_side": 0}


class UnreadableRowError(Exception):
    """A stored row that is not what trailsift writes: its place in the piece, and the reason."""

    def __init__(self, place: int, reason: str) -> None:
        super().__init__(reason)
        self.place, self.reason = place, reason


class Derive(Protocol):
    """Derives events of version 2 from those of version 1."""

    def __call__(self, rows: pa.Table, summarized: Mask) -> tuple[pa.Table, list[dict[str, pa.Table]]]:
        """Return events in CHUNK_SCHEMA, and the summary lines of those of ``summarized``, by table.

        UnreadableRowError if a row is not what trailsift writes.
        """


@dataclass(frozen=True, slots=True)
class Upgraded:
    """The result of an upgrade. ``days_kept``: days (ISO 8601) whose summary lines are those of version 1."""

    events: int
    days_recomputed: int
    days_kept: tuple[str, ...]
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "format_version": schema.FORMAT_VERSION,
            "events": self.events,
            "days_recomputed": self.days_recomputed,
            "days_kept": list(self.days_kept),
            "seconds": self.seconds,
        }


class OnFiles(Protocol):
    """Called with the numbers of files in total and done, and their bytes."""

    def __call__(self, files: int, files_done: int, size: int, size_done: int, /) -> None: ...


def needs_upgrade(root: Path) -> bool:
    """Return whether a lake has an earlier format version than that of today. LakeError if there is no lake."""
    return LakeWriter(root).format_version != schema.FORMAT_VERSION


def upgrade(lake: LakeWriter, derivation: Callable[[bool], Derive], on_files: OnFiles | None = None) -> Upgraded | None:
    """Upgrade a lake whose lock is free; return None if it has the format version of today.

    ``derivation`` is given whether the records of all stored events can be restored. LakeError if the lake cannot be
    read or written; then it is as it was.
    """
    started = time.monotonic()
    transaction = lake.begin_upgrade()
    if transaction is None:
        return None
    with transaction, _unchanged(lake.root), write_errors(lake.root):
        is_whole = not lake.omitted_columns()
        work = _Upgrade(lake, derivation(is_whole), on_files, is_whole=is_whole)
        work.run()
        transaction.renew({name: table for name, table in work.after.items() if name != schema.REJECTS.name})
        transaction.replace(work.old, work.new)
        kept = tuple(_text(day) for day in sorted(work.days_kept))
        counts = {
            "format_version": schema.FORMAT_VERSION,
            "files_added": len(work.new),
            "files_removed": len(work.old),
            "days_recomputed": len(work.days_complete),
            "days_kept": list(kept),
        }
        transaction.commit(counts, "upgrade")
    lake.settle_version()
    return Upgraded(work.events, len(work.days_complete), kept, round(time.monotonic() - started, 3))


def complete_days(stored: Mapping[int, int], sampled: Collection[int], counted: Mapping[int, int]) -> set[int]:
    """Return the days (since 1970) whose events are all stored.

    ``stored`` and ``counted``: events by day, in ``events`` and by ``hourly``; ``sampled``: days with events that stand
    for several.
    """
    return {day for day, number in counted.items() if stored.get(day) == number and day not in sampled}


@contextmanager
def _unchanged(root: Path) -> Iterator[None]:
    """Say of an error that the lake is as it was."""
    try:
        yield
    except LakeError as error:
        raise type(error)(f"the lake at {root} was not upgraded, and is as it was: {error}") from error


class _Upgrade:
    """The new files of an upgrade, and the old ones."""

    def __init__(self, lake: LakeWriter, derive: Derive, on_files: OnFiles | None, *, is_whole: bool) -> None:
        self.root = lake.root
        self.before = lake.tables
        self.after = schema.tables_of(hourly_partitions=bool(lake.settings.get("hourly_partitions")))
        self.events = 0
        self.new: list[File] = []
        self._of = {name: lake.live_files(name) for name in (schema.EVENTS.name, *_SUMMARIES)}
        self.old = [file for files in self._of.values() for file in files]
        self.days_complete: set[int] = set()
        self.days_kept: set[int] = set()
        self._is_whole = is_whole
        self._derive = derive
        self._on_files = on_files
        self._lines: dict[str, list[pa.Table]] = {}
        self._waiting_lines = 0

    def run(self) -> None:
        """Write all new files."""
        fetch_files(self.root, self.old)
        forms.check_links(self.root, self.old)
        for file in self.old:
            if not (self.root / file.path).exists():
                raise LakeError(f"{self.root / file.path} is missing, which holds rows of {file.table}")
        digest.check(self.root, [file.path for file in self.old])
        self._choose_days()
        # Parquet is written while the next piece is derived.
        with ThreadPoolExecutor(1) as writer:
            waiting: deque[Future[list[File]]] = deque()
            for events, next_day in self._derived():
                waiting.append(writer.submit(write_events, events, self.root, self.after[schema.EVENTS.name]))
                if len(waiting) > 1:
                    self.new += waiting.popleft().result()
                self._end_lines(next_day)
            for written in waiting:
                self.new += written.result()
        for name in _SUMMARIES:
            for file in self._of[name]:
                self._keep_lines(name, file)
        rows = sum(file.rows for file in self.new if file.table == schema.EVENTS.name)
        if rows != self.events:
            raise LakeError(f"{self.events:,} events were read, and {rows:,} written")

    def _choose_days(self) -> None:
        """Find the days whose summary lines are computed again, and those that keep theirs."""
        stored: Counter[int] = Counter()
        sampled: set[int] = set()
        for file in self._of[schema.EVENTS.name]:
            rows = read_columns(self.root, file.path, ["event_time", "weight"])
            day = _days(rows, "event_time")
            stored.update(_sums(day, np.ones(len(day), np.int64)))
            sampled.update(np.unique(day[np.asarray(rows.column("weight")) != 1]).tolist())
            self.events += len(day)
        counted: Counter[int] = Counter()
        for file in self._of[schema.HOURLY.name]:
            rows = read_columns(self.root, file.path, ["hour", "events"])
            counted.update(_sums(_days(rows, "hour"), np.asarray(rows.column("events"))))
        if self._is_whole:
            self.days_complete = complete_days(stored, sampled, counted)
        self.days_kept = {*stored, *counted} - self.days_complete

    # -- events --------------------------------------------------------------------------------------------------------

    def _derived(self) -> Iterator[tuple[pa.Table, int]]:
        """Yield the events again, in pieces, and the first day (since 1970) that later pieces may be of."""
        files = sorted(self._of[schema.EVENTS.name], key=lambda file: (file.min_time, file.path))
        complete = np.array(sorted(self.days_complete), np.int64)
        total = sum(file.bytes for file in files)
        for parts, at_end in _ahead(_pieces(self.root, files, self.before[schema.EVENTS.name])):
            rows = pa.concat_tables([part for _, part in parts])
            try:
                events, lines = self._derive(rows, np.isin(_days(rows, "event_time"), complete))
            except UnreadableRowError as error:
                raise _unreadable(self.root, parts, error) from error
            for tables in lines:
                for name, table in tables.items():
                    self._lines.setdefault(name, []).append(table)
                    self._waiting_lines += table.num_rows
            yield events, files[at_end].min_time // DAY if at_end < len(files) else _NO_DAY
            if self._on_files is not None:
                self._on_files(len(files), at_end, total, sum(file.bytes for file in files[:at_end]))

    # -- summary lines -------------------------------------------------------------------------------------------------

    def _end_lines(self, next_day: int) -> None:
        """Write the lines of days before ``next_day``, which are complete; merge the others if there are many."""
        is_over = any(_days(part, schema.TABLES[name].time).min() < next_day for name, part in self._first_lines())
        if not is_over and self._waiting_lines <= _LINES:
            return
        self._waiting_lines = 0
        for name, parts in self._lines.items():
            table = self.after[name]
            merged = summarize.merge(table, parts)
            ended = _days(merged, table.time) < next_day
            self.new += write_lines(table, merged.filter(pa.array(ended)), self.root)
            left = merged.filter(pa.array(~ended))
            self._lines[name] = [left] if left.num_rows else []
            self._waiting_lines += left.num_rows

    def _first_lines(self) -> Iterator[tuple[str, pa.Table]]:
        for name, parts in self._lines.items():
            yield from ((name, part) for part in parts if part.num_rows)

    def _keep_lines(self, name: str, file: File) -> None:
        """Write the lines of a file that are of days which keep theirs, with the columns of today."""
        kept = np.array(sorted(self.days_kept), np.int64)
        table = self.after[name]
        for rows in _batches(self.root, file, self.before[name]):
            chosen = rows.filter(pa.array(np.isin(_days(rows, table.time), kept)))
            if chosen.num_rows:
                self.new += write_lines(table, summarize.merge(table, [_with_constants(chosen, table)]), self.root)


_NO_DAY = 1 << 40


def _callers(roles: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the callers of lines of version 1: a role that is not an ARN is the service that made the calls."""
    roles = _roles(roles)
    services = pc.binary_join_element_wise("service:", roles, "")
    return pc.coalesce(pc.if_else(pc.starts_with(roles, "arn:"), roles, services), UNKNOWN_CALLER)


def _roles(roles: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return the roles of lines of version 1: a session counts as its role."""
    names = roles.unique().to_pylist()
    now = pa.array([role_of_session(name) or name for name in names], pa.string())
    return now.take(pc.index_in(roles, pa.array(names, pa.string())))


def _with_constants(lines: pa.Table, table: schema.Table) -> pa.Table:
    """Return lines of version 1 with the columns of today."""
    constants: dict[str, Any] = {name: pa.scalar(value) for name, value in _CONSTANTS.items()}
    columns = []
    for field in arrow_schema(table):
        if field.name == "caller":
            columns.append(_callers(lines.column("role_arn")))
        elif field.name == "role_arn":
            columns.append(_roles(lines.column(field.name)))
        elif field.name in lines.column_names:
            columns.append(lines.column(field.name))
        else:
            columns.append(pa.repeat(constants[field.name].cast(field.type), lines.num_rows))
    return pa.table(columns, arrow_schema(table).names).cast(arrow_schema(table))


# -- reading -----------------------------------------------------------------------------------------------------------


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """Yield items, the next of which is made meanwhile."""
    with ThreadPoolExecutor(1) as reader:
        waiting = reader.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = reader.submit(next, items, None)
            yield item


def _pieces(
    root: Path, files: Sequence[File], table: schema.Table
) -> Iterator[tuple[list[tuple[File, pa.Table]], int]]:
    """Yield the rows of files in pieces that fit in memory, each part with its file, and how many files are done."""
    parts: list[tuple[File, pa.Table]] = []
    rows = size = 0
    for number, file in enumerate(files):
        for batch in _batches(root, file, table):
            if parts and (rows + batch.num_rows > PIECE_ROWS or size + batch.nbytes > PIECE_BYTES):
                yield parts, number
                parts, rows, size = [], 0, 0
            parts.append((file, batch))
            rows += batch.num_rows
            size += batch.nbytes
    if parts:
        yield parts, len(files)


def _batches(root: Path, file: File, table: schema.Table) -> Iterator[pa.Table]:
    """Yield the rows of a file of version 1, in the columns and types of the table."""
    target = _types(table)
    names = target.names
    coded = [field.name for field in target if pa.types.is_dictionary(field.type)]
    with data_errors(root / file.path), pq.ParquetFile(root / file.path, read_dictionary=coded) as reader:
        for batch in reader.iter_batches(_BATCH_ROWS, columns=names):
            yield pa.Table.from_batches([batch]).select(names).cast(target)


def _types(table: schema.Table) -> pa.Schema:
    """Return the Arrow schema in which a table's files are read."""
    if table.name != schema.EVENTS.name:
        return arrow_schema(table)
    # Partition columns follow from the time.
    present = {column.name for column in table.columns}
    return pa.schema([field for field in CHUNK_SCHEMA if field.name in present])


def _days(rows: pa.Table, name: str) -> Ints:
    """Return the day (since 1970) of each row by a column of times or dates."""
    return micros(rows.column(name).combine_chunks()) // DAY if rows.num_rows else np.empty(0, np.int64)


def _sums(days: Ints, numbers: Ints) -> dict[int, int]:
    """Return the sum of the numbers of each day."""
    distinct, place = np.unique(days, return_inverse=True)
    sums = np.zeros(len(distinct), np.int64)
    np.add.at(sums, place, numbers)
    return dict(zip(distinct.tolist(), sums.tolist(), strict=True))


def _text(day: int) -> str:
    return (iso(day * DAY) or "")[:10]


def _unreadable(root: Path, parts: Sequence[tuple[File, pa.Table]], error: UnreadableRowError) -> LakeError:
    """Return the error for a row of a piece."""
    place = error.place
    for file, rows in parts:
        if place < rows.num_rows:
            day = _text(int(_days(rows.slice(place, 1), "event_time")[0]))
            event = rows.column("event_id")[place].as_py()
            return LakeError(
                f"the event {event!r:.100} of {day} in {root / file.path} cannot be read: {error.reason}. `trailsift "
                "verify` lists all that is wrong with a lake"
            )
        place -= rows.num_rows
    return LakeError(f"an event cannot be read: {error.reason}")
