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

from trailsift import schema
from trailsift.columns import summarize
from trailsift.columns.arrow import ranks
from trailsift.lake import expire, index
from trailsift.lake.cardinality import fold, least_budget
from trailsift.lake.index import File, Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import Writer, micros
from trailsift.lake.partitions import DAY, HOUR, Partition, pieces, whole
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter

TARGET_BYTES = 128 << 20
#: A commit takes partitions of about this many bytes: what a crash can cost, and how long other writers wait.
COMMIT_BYTES = 1 << 30
#: Late events do not have a large partition rewritten before they are this share of it, or this many files.
LATE_SHARE = 0.02
LATE_FILES = 8
_LARGE = 64 << 20

#: Logs arrive up to an hour after the events.
SETTLE = timedelta(hours=1)
_SERVICE = re.compile(r"/service=([^/]+)/")


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
    return compact_lake(LakeWriter(root), everything=everything, now=now, target_bytes=target_bytes, progress=progress)


def compact_lake(
    lake: LakeWriter,
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
    todo = needs_compaction(open_snapshot(lake.root), everything=everything, now=moment)
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
    lake: LakeWriter, group: Sequence[Partition], now: datetime, *, done: Compacted, target_bytes: int = TARGET_BYTES
) -> None:
    """Rewrites partitions in one commit, those that nobody else rewrote meanwhile; adds to ``done``."""
    with lake.begin() as transaction:
        present = [partition for partition in group if _is_live(lake.root, partition)]
        if present:
            _rewrite(lake, transaction, present, now, target_bytes, done)


def compacted_files(snapshot: Snapshot) -> set[str]:
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
    settled = compacted_files(snapshot) if settled is None else settled
    budgets = snapshot.settings.get("budgets")
    by_hour = bool(snapshot.settings.get("hourly_partitions"))
    found = []
    for name in schema.TABLES:
        for partition in _partitions(name, snapshot.files(name), by_hour=by_hour and name == schema.EVENTS.name):
            closed = is_closed(partition.end, moment)
            if (closed or everything) and _is_worth_it(partition, settled, budgets, everything=everything):
                found.append(partition)
    return sorted(found, key=lambda partition: (-len(partition.files), partition.table, partition.day))


def is_closed(end: int, now: datetime) -> bool:
    """Whether the hour or day that ends at ``end`` (microseconds since 1970) takes no more events, as a rule."""
    return datetime.fromtimestamp(end / 1_000_000, UTC) + SETTLE <= now


def _partitions(name: str, files: Sequence[File], *, by_hour: bool) -> list[Partition]:
    length = HOUR if by_hour else DAY
    groups: dict[tuple[int, str | None], list[File]] = {}
    for file in files:
        slot = file.min_time // length
        service = file.service
        if service is None and name == schema.EVENTS.name:
            # The index was made anew from Iceberg: the folder says it.
            match = _SERVICE.search(file.path)
            service = match[1] if match else None
        if file.max_time // length == slot and (service is not None or name != schema.EVENTS.name):
            groups.setdefault((slot, service), []).append(file)
    return [
        Partition(name, slot * length // DAY, service, tuple(group), slot % 24 if by_hour else None)
        for (slot, service), group in groups.items()
    ]


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


def _rewrite(
    lake: LakeWriter,
    transaction: Transaction,
    group: Sequence[Partition],
    now: datetime,
    target_bytes: int,
    done: Compacted,
) -> None:
    """Rewrite partitions and commit them together."""
    old: list[File] = []
    new: list[File] = []
    folded: Counter[str] = Counter()
    budgets = lake.settings.get("budgets")
    for partition in group:
        files, number = rewrite(lake.root, partition, budgets=budgets, now=now, target_bytes=target_bytes)
        transaction.replace(partition.files, files)
        old += partition.files
        new += files
        if number:
            folded[partition.table] += number
    transaction.commit({"files_added": len(new), "files_removed": len(old), "folded": dict(folded)}, "compact")
    done.partitions += len(group)
    done.files_before += len(old)
    done.files_after += len(new)
    done.bytes_before += sum(file.bytes for file in old)
    done.bytes_after += sum(file.bytes for file in new)
    done.rows_before += sum(file.rows for file in old)
    done.rows_after += sum(file.rows for file in new)
    for name, number in folded.items():
        done.folded[name] = done.folded.get(name, 0) + number


def rewrite(
    root: Path, partition: Partition, *, budgets: object, now: datetime, target_bytes: int
) -> tuple[list[File], int]:
    """Writes a partition's new files, which no commit names yet; and how many of its lines were folded."""
    table = partition.stored
    folder = Path(partition.files[0].path).parent.as_posix()
    rows = sum(file.rows for file in partition.files)
    file_rows = max(int(rows * target_bytes / max(partition.bytes, 1)), 1)
    out = _Output(root, table, folder, partition.service)
    folded = 0
    with tempfile.TemporaryDirectory(prefix=".compact-", dir=root) as scratch:
        for piece, starts_file in pieces(root, partition, file_rows, Path(scratch)):
            if table.name == schema.EVENTS.name:
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

    def __init__(self, root: Path, table: schema.Table, folder: str, service: str | None) -> None:
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
        if self._table.name == schema.EVENTS.name:
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
    role, _ = ranks(whole(rows, "role_arn"))
    return rows.take(pa.array(np.lexsort((micros(whole(rows, "event_time")), role))))
