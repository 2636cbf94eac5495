"""Keeps a lake fast: small files become few, role ranges disjoint, old things go.

A *partition* here is what is rewritten as one: the events of a day and service, or the lines of a summary table (or
the rejects) of a day. It is read in *pieces*, ranges of its sort order that fit the memory: a day with ten million
rows goes through files in a private folder, one read and one write more, and needs no more memory than a small one.

Readers see the old files or the new ones, never both. What a commit replaced stays on disk for a while, for readers
that planned before it; ``clean`` deletes it later.
"""

from __future__ import annotations

import re
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from trailsift import event, summarize
from trailsift.columnar import CHUNK_SCHEMA
from trailsift.store import expire, index
from trailsift.store.files import Writer, micros, ranks
from trailsift.store.fold import fold, least_budget
from trailsift.store.index import File, Snapshot
from trailsift.store.lake import Batch, Lake

Ints = np.ndarray[Any, np.dtype[np.int64]]

TARGET_BYTES = 128 << 20
#: Decoded bytes of a piece. About four times as much is in memory while it is sorted and written.
PIECE_BYTES = 64 << 20
#: A commit takes partitions of about this many bytes: what a crash can cost, and how long other writers wait.
COMMIT_BYTES = 1 << 30
#: Late events do not have a large partition rewritten before they are this share of it, or this many files.
LATE_SHARE = 0.02
LATE_FILES = 8
_LARGE = 64 << 20

DAY = 86_400_000_000
#: Logs arrive up to an hour after the events.
SETTLE = timedelta(hours=1)
#: Parts of a day at which a role's rows can be cut: events by the minute, lines where no line crosses.
_SLOTS = {event.EVENTS.name: 1440, event.HOURLY.name: 24}
_ENCODED = [f.name for f in CHUNK_SCHEMA if pa.types.is_dictionary(f.type)] + ["year", "month", "day"]
_SERVICE = re.compile(r"/service=([^/]+)/")


@dataclass(frozen=True, slots=True)
class Partition:
    """The files that hold one day (days since 1970) of a table; of ``events`` those of one service."""

    table: str
    day: int
    service: str | None
    files: tuple[File, ...]

    @property
    def bytes(self) -> int:
        """Size of its files."""
        return sum(file.bytes for file in self.files)


@dataclass(slots=True)
class Compacted:
    """What a compaction did. ``folded``: lines that went into ``(other)``, by table."""

    partitions: int = 0
    files_before: int = 0
    files_after: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    rows_before: int = 0
    rows_after: int = 0
    folded: dict[str, int] = field(default_factory=dict)
    seen_files_merged: int = 0
    seen_files_expired: int = 0
    log_objects_expired: int = 0
    snapshots_expired: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    seconds: float = 0.0

    def add(self, counts: Mapping[str, int]) -> None:
        """Counts, by field."""
        for name, number in counts.items():
            setattr(self, name, getattr(self, name) + number)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a compaction is."""

    partitions_total: int
    partitions_done: int
    bytes_total: int
    bytes_done: int


def compact(
    root: Path,
    *,
    everything: bool = False,
    now: datetime | None = None,
    target_bytes: int = TARGET_BYTES,
    progress: Callable[[Progress], None] | None = None,
) -> Compacted:
    """Compacts the closed days of the lake at ``root`` (``everything``: the open ones too) and deletes what is old.

    Takes the write lock for each of its commits, so an ingest can go on between them. LakeError where there is no
    lake or it cannot be written.
    """
    return compact_lake(Lake(root), everything=everything, now=now, target_bytes=target_bytes, progress=progress)


def compact_lake(
    lake: Lake,
    *,
    everything: bool = False,
    now: datetime | None = None,
    target_bytes: int = TARGET_BYTES,
    progress: Callable[[Progress], None] | None = None,
) -> Compacted:
    """``compact`` of an open lake, whose lock is free."""
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    done = Compacted()
    todo = needs_compaction(index.open_snapshot(lake.root), everything=everything, now=moment)
    total, size = len(todo), sum(partition.bytes for partition in todo)
    for group in _groups(todo):
        compact_partitions(lake, group, moment, target_bytes=target_bytes, done=done)
        if progress is not None:
            progress(Progress(total, done.partitions, size, done.bytes_before))
    if progress is not None:
        progress(Progress(total, total, size, size))
    done.add(expire.merge_seen(lake, moment))
    done.add(expire.clean(lake, moment))
    done.seconds = round(time.monotonic() - started, 3)
    return done


def compact_partitions(
    lake: Lake, group: Sequence[Partition], now: datetime, *, done: Compacted, target_bytes: int = TARGET_BYTES
) -> None:
    """Rewrites partitions in one commit, those that nobody else rewrote meanwhile; adds to ``done``."""
    with lake.lock():
        present = [partition for partition in group if _is_live(lake.root, partition)]
        if present:
            _rewrite(lake, present, now, target_bytes, done)


def settled_files(snapshot: Snapshot) -> set[str]:
    """Paths of the live files that a compaction wrote."""
    sql = (
        "SELECT path FROM file JOIN commit_log ON added = seq WHERE removed IS NULL AND kind = 'compact' AND added <= ?"
    )
    with closing(index.connect(snapshot.root)) as db:
        return {path for (path,) in db.execute(sql, (snapshot.seq,))}


def needs_compaction(
    snapshot: Snapshot, *, everything: bool = False, now: datetime | None = None, settled: set[str] | None = None
) -> list[Partition]:
    """The partitions that are worth a rewrite, those with the most files first. Reads the index only."""
    moment = now or datetime.now(UTC)
    settled = settled_files(snapshot) if settled is None else settled
    budgets = snapshot.settings.get("budgets")
    found = []
    for name in event.TABLES:
        for partition in _partitions(name, snapshot.files(name)):
            closed = is_closed(partition.day * DAY + DAY, moment)
            if (closed or everything) and _is_worth_it(partition, settled, budgets, everything=everything):
                found.append(partition)
    return sorted(found, key=lambda partition: (-len(partition.files), partition.table, partition.day))


def is_closed(end: int, now: datetime) -> bool:
    """Whether the hour or day that ends at ``end`` (microseconds since 1970) takes no more events, as a rule."""
    return datetime.fromtimestamp(end / 1_000_000, UTC) + SETTLE <= now


def _partitions(name: str, files: Sequence[File]) -> list[Partition]:
    groups: dict[tuple[int, str | None], list[File]] = {}
    for file in files:
        day = file.min_time // DAY
        service = file.service
        if service is None and name == event.EVENTS.name:
            # The index was made anew from Iceberg: the folder says it.
            match = _SERVICE.search(file.path)
            service = match[1] if match else None
        if file.max_time // DAY == day and (service is not None or name != event.EVENTS.name):
            groups.setdefault((day, service), []).append(file)
    return [Partition(name, day, service, tuple(group)) for (day, service), group in groups.items()]


def _is_worth_it(partition: Partition, settled: set[str], budgets: object, *, everything: bool) -> bool:
    late = [file for file in partition.files if file.path not in settled]
    if not late:
        return False
    if len(partition.files) == 1:
        # One file is in order; only its lines may be too many. Compacted once, it is settled.
        return late[0].rows > least_budget(partition.table, budgets)
    small = sum(file.bytes for file in late) < LATE_SHARE * partition.bytes and len(late) < LATE_FILES
    return everything or partition.bytes < _LARGE or not small


def _groups(partitions: Sequence[Partition]) -> Iterator[list[Partition]]:
    """What is committed together."""
    group: list[Partition] = []
    size = 0
    for partition in partitions:
        if group and size + partition.bytes > COMMIT_BYTES:
            yield group
            group, size = [], 0
        group.append(partition)
        size += partition.bytes
    if group:
        yield group


def _is_live(root: Path, partition: Partition) -> bool:
    """Whether nobody else compacted it since it was planned."""
    with closing(index.connect(root)) as db:
        sql = "SELECT 1 FROM file WHERE table_name = ? AND path = ? AND removed IS NULL"
        return all(db.execute(sql, (partition.table, file.path)).fetchone() for file in partition.files)


def _rewrite(lake: Lake, group: Sequence[Partition], now: datetime, target_bytes: int, done: Compacted) -> None:
    """Rewrites partitions and commits them together; under the lock."""
    batch = Batch()
    folded: Counter[str] = Counter()
    for partition in group:
        budgets = lake.settings.get("budgets")
        made, number = rewrite(lake.root, partition, budgets=budgets, now=now, target_bytes=target_bytes)
        batch.files += made
        batch.removed += partition.files
        if number:
            folded[partition.table] += number
    batch.counts = {
        "files_added": len(batch.files),
        "files_removed": len(batch.removed),
        "folded": dict(folded),
    }
    lake.commit(batch, "compact")
    done.partitions += len(group)
    done.files_before += len(batch.removed)
    done.files_after += len(batch.files)
    done.bytes_before += sum(file.bytes for file in batch.removed)
    done.bytes_after += sum(file.bytes for file in batch.files)
    done.rows_before += sum(file.rows for file in batch.removed)
    done.rows_after += sum(file.rows for file in batch.files)
    for name, number in folded.items():
        done.folded[name] = done.folded.get(name, 0) + number


def rewrite(
    root: Path, partition: Partition, *, budgets: object, now: datetime, target_bytes: int
) -> tuple[list[File], int]:
    """Writes a partition's new files, which no commit names yet; and how many of its lines were folded."""
    table = event.TABLES[partition.table]
    folder = Path(partition.files[0].path).parent.as_posix()
    rows = sum(file.rows for file in partition.files)
    file_rows = max(int(rows * target_bytes / max(partition.bytes, 1)), 1)
    out = _Output(root, table, folder, partition.service)
    folded = 0
    with tempfile.TemporaryDirectory(prefix=".compact-", dir=root) as scratch:
        for piece, starts_file in _pieces(root, partition, file_rows, Path(scratch)):
            if table is event.EVENTS:
                out.write(_sorted_events(piece), new_file=starts_file)
            elif table.keys:
                lines, number = fold(table, summarize.merge(table, [piece]), budgets, lambda end: is_closed(end, now))
                folded += number
                out.write(lines, new_file=False)
            else:
                out.write(piece.sort_by([(name, "ascending") for name in table.order]), new_file=False)
    files = out.close()
    if not table.keys and sum(file.rows for file in files) != rows:
        raise AssertionError(f"{partition} had {rows} rows and would have {sum(file.rows for file in files)}")
    return files, folded


class _Output:
    """The new files of a partition, one after the other."""

    def __init__(self, root: Path, table: event.Table, folder: str, service: str | None) -> None:
        self._root = root
        self._table = table
        self._folder = folder
        self._service = service
        self._writer: Writer | None = None
        self._files: list[File] = []
        self._rows = 0
        self._times: list[int] = []
        self._roles: list[str | None] = []

    def write(self, rows: pa.Table, *, new_file: bool) -> None:
        """Adds sorted rows that follow those before them."""
        if not rows.num_rows:
            return
        if self._writer is None or new_file:
            self._end_file()
            self._writer = Writer(self._table, self._root / f"{self._folder}/{uuid.uuid4().hex}.parquet")
        self._writer.write(rows)
        self._rows += rows.num_rows
        span = micros(rows.column(self._table.time).combine_chunks())
        self._times += [int(span.min()), int(span.max())]
        if self._table is event.EVENTS:
            role = rows.column("role_arn")
            self._roles += [role[0].as_py(), role[-1].as_py()]

    def close(self) -> list[File]:
        """Ends the last file; all files."""
        self._end_file()
        return self._files

    def _end_file(self) -> None:
        if self._writer is None:
            return
        size = self._writer.close()
        path = self._writer.path.relative_to(self._root).as_posix()
        first, last = (self._roles[0], self._roles[-1]) if self._roles else (None, None)
        span = min(self._times), max(self._times)
        self._files.append(File(self._table.name, path, self._rows, size, *span, self._service, first, last))
        self._writer = None
        self._rows, self._times, self._roles = 0, [], []


def _sorted_events(rows: pa.Table) -> pa.Table:
    rows = rows.unify_dictionaries().combine_chunks()
    role, _ = ranks(_array(rows, "role_arn"))
    return rows.take(pa.array(np.lexsort((micros(_array(rows, "event_time")), role))))


def _array(rows: pa.Table, name: str) -> pa.Array:
    """A column as one array."""
    column = rows.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.unify_dictionaries().chunks)


def _pieces(root: Path, partition: Partition, file_rows: int, scratch: Path) -> Iterator[tuple[pa.Table, bool]]:
    """The partition's rows, a range of its order at a time (not sorted inside); whether it starts a file."""
    table = event.TABLES[partition.table]
    rows = sum(file.rows for file in partition.files)
    limit = _piece_rows(root, partition)
    if "role_arn" not in table.order:
        yield from ((batch, False) for batch in _batches(root, partition, limit))
        return
    is_events = table is event.EVENTS
    if rows <= limit and (not is_events or rows <= file_rows):
        yield from ((batch, False) for batch in _batches(root, partition, rows))
        return
    cuts = _Cuts(root, partition, limit, file_rows if is_events else rows + 1)
    for batch in _batches(root, partition, limit):
        for number, part in cuts.split(batch):
            _append(scratch / f"{number}.arrow", part)
    for number in range(len(cuts.starts)):
        yield _spilled(scratch / f"{number}.arrow", encode=is_events), number in cuts.new_files


def _piece_rows(root: Path, partition: Partition) -> int:
    """Rows that take about ``PIECE_BYTES`` when they are decoded, judged by some of the largest file."""
    largest = max(partition.files, key=lambda file: file.bytes)
    with _open(root, partition.table, largest) as file:
        sample = next(file.iter_batches(batch_size=8192), None)
    if sample is None or not sample.num_rows:
        return 1
    return max(PIECE_BYTES * int(sample.num_rows) // max(int(sample.nbytes), 1), 1)


def _open(root: Path, table: str, file: File) -> pq.ParquetFile:
    encoded = _ENCODED if table == event.EVENTS.name else None
    return pq.ParquetFile(root / file.path, read_dictionary=encoded)


def _batches(root: Path, partition: Partition, limit: int, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """The partition's rows in the order of its files, at least ``limit`` at a time: whole row groups."""
    names = list(columns or (column.name for column in event.TABLES[partition.table].columns))
    parts: list[pa.Table] = []
    rows = 0
    for one in partition.files:
        with _open(root, partition.table, one) as file:
            for number in range(file.num_row_groups):
                parts.append(file.read_row_group(number, columns=names).select(names))
                rows += parts[-1].num_rows
                if rows >= limit:
                    yield pa.concat_tables(parts)
                    parts, rows = [], 0
    if parts:
        yield pa.concat_tables(parts)


class _Cuts:
    """Where a partition's sort order (role, then time of day) is cut into pieces and files."""

    def __init__(self, root: Path, partition: Partition, piece_rows: int, file_rows: int) -> None:
        self._table = event.TABLES[partition.table]
        self._slots = _SLOTS.get(self._table.name, 1)
        counts: Counter[tuple[str | None, int]] = Counter()
        for rows in _batches(root, partition, 1 << 20, ["role_arn", self._table.time]):
            rank, roles = ranks(_array(rows, "role_arn"))
            keys, numbers = np.unique(rank * self._slots + self._slot(rows), return_counts=True)
            for key, number in zip(keys.tolist(), numbers.tolist(), strict=True):
                counts[roles[key // self._slots], key % self._slots] += number
        names = {role for role, _ in counts}
        # Events have the null role first, as ``write_events`` does; lines have it last, as ``merge`` does.
        ordered: list[str | None] = [*sorted(name for name in names if name is not None)]
        if None in names:
            ordered.insert(0 if self._table is event.EVENTS else len(ordered), None)
        self._rank = {name: number for number, name in enumerate(ordered)}
        keyed = sorted((self._rank[role] * self._slots + slot, number) for (role, slot), number in counts.items())
        starts, self.new_files = plan_cuts(keyed, self._slots, piece_rows, file_rows)
        self.starts: Ints = np.array(starts, np.int64)

    def split(self, rows: pa.Table) -> Iterator[tuple[int, pa.Table]]:
        """The rows of each piece, by its number."""
        rank, roles = ranks(_array(rows, "role_arn"))
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
        return micros(_array(rows, self._table.time)) % DAY * self._slots // DAY


def plan_cuts(
    keyed: Sequence[tuple[int, int]], slots: int, piece_rows: int, file_rows: int
) -> tuple[list[int], set[int]]:
    """Cuts rows given as sorted (role number * ``slots`` + slot, rows): the keys at which pieces start, and which of
    the pieces start a file. A role that fits a file is in one file only; a larger one has its own, cut by time."""
    of_role: Counter[int] = Counter()
    for key, number in keyed:
        of_role[key // slots] += number
    starts: list[int] = []
    new_files: set[int] = set()
    in_piece = in_file = 0
    last = -1
    for key, number in keyed:
        role = key // slots
        total = of_role[role]
        share = total / -(-total // file_rows)
        if role != last:
            new_file = not starts or in_file + total > file_rows or of_role[last] > file_rows
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
    """Adds rows to a file of a piece, as one more Arrow stream."""
    # Plain strings: a slice would carry all of its dictionary.
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
