"""Keep a lake fast: merge small files, make the ranges of callers disjoint, delete what is old.

A *partition* here is the unit of rewriting: the events of a day and service, or the lines of a summary table (or the
rejects) of a day. It is read in *pieces*, ranges of its sort order that fit in memory: a day with ten million rows
goes through files in a private folder, which costs another read and write, and needs no more memory than a small one.

Readers see the old files or the new ones, never both. What a commit replaced stays on disk for a while, for readers
that planned before it; ``clean`` deletes it later.
"""

from __future__ import annotations

import re
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
from trailsift.cloudtrail.services import ALPHABET
from trailsift.columns import summarize
from trailsift.columns.arrow import ranks
from trailsift.errors import LakeError
from trailsift.lake import digest, expire, expire_days, expire_seen, index
from trailsift.lake.cardinality import fold, smallest_limit
from trailsift.lake.disk import write_errors
from trailsift.lake.home import mirror_of, others_first
from trailsift.lake.index import File, Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.lake.parquet import FileWriter, data_errors, micros
from trailsift.lake.partitions import Partition, column_array, read_pieces
from trailsift.lake.retention import Plan, day_text
from trailsift.lake.scratch import scratch_folder
from trailsift.lake.transaction import Transaction
from trailsift.lake.upgrade import Upgraded
from trailsift.lake.writer import LakeWriter
from trailsift.times import DAY, HOUR
from trailsift.times import micros as micros_of

TARGET_BYTES = 128 << 20
#: Bytes of partitions per commit, about: what a crash can cost, and how long other writers wait.
COMMIT_BYTES = 1 << 30
#: The same for compaction beside writers of a lake in S3, where each commit is a swap of the catalog: what one of them
#: uploads while the writer waits.
SMALL_COMMIT_BYTES = 64 << 20
#: How often a compaction plans again because others removed, or replaced, what it was about to rewrite.
_PLANS = 4
#: Late events cause a rewrite of a large partition only when they are this share of it, or this many files.
LATE_SHARE = 0.02
LATE_FILES = 8
_LARGE = 64 << 20

#: Logs arrive up to an hour after the events.
SETTLE = timedelta(hours=1)
_MICROSECOND = timedelta(microseconds=1)
_SERVICE = re.compile(rf"/service=({ALPHABET})/")


@dataclass(slots=True)
class Compacted:
    """The counts of a compaction. ``folded``: lines that became part of ``(other)``, by table.

    ``rows_expired``, ``files_expired``, ``bytes_expired``: what the lake's retention removed, of all tables, which is
    events before ``events_before`` (a day, ISO 8601) and summaries that are older still.
    """

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
    rows_expired: int = 0
    files_expired: int = 0
    bytes_expired: int = 0
    events_before: str | None = None
    snapshots_expired: int = 0
    files_deleted: int = 0
    bytes_deleted: int = 0
    digests_added: int = 0
    seconds: float = 0.0
    #: The upgrade that came first; None if the lake needed none.
    upgraded: Upgraded | None = None

    def add(self, counts: Mapping[str, int]) -> None:
        """Add counts, by field."""
        for name, number in counts.items():
            setattr(self, name, getattr(self, name) + number)

    def add_retention(self, gone: Plan | None) -> None:
        """Add what retention removed; None: nothing."""
        if gone is not None and gone.cut.events is not None:
            self.rows_expired += sum(file.rows for file in gone.files)
            self.files_expired += len(gone.files)
            self.bytes_expired += sum(file.bytes for file in gone.files)
            self.events_before = day_text(gone.cut.events)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        values = {name: getattr(self, name) for name in self.__slots__}
        return values | {"upgraded": self.upgraded and self.upgraded.as_dict()}


@dataclass(frozen=True, slots=True)
class CompactionProgress:
    """The partitions and bytes of a compaction or an upgrade, in total and done."""

    partitions_total: int
    partitions_done: int
    bytes_total: int
    bytes_done: int
    #: The name of the parts, in words: an upgrade counts files.
    parts: str = "days and services"


def compact(
    root: Path,
    *,
    everything: bool = False,
    now: datetime | None = None,
    target_bytes: int = TARGET_BYTES,
    progress: Callable[[CompactionProgress], None] | None = None,
) -> Compacted:
    """Compact the closed days of the lake at ``root`` (``everything``: the open ones too) and delete what is old.

    What the lake's settings do not keep (``retention``) goes first.

    Each commit is a transaction of its own, so an ingest can go on between them. LakeError if there is no lake, or if
    it cannot be written.
    """
    return compact_lake(LakeWriter(root), everything=everything, now=now, target_bytes=target_bytes, progress=progress)


def compact_lake(
    lake: LakeWriter,
    *,
    everything: bool = False,
    now: datetime | None = None,
    target_bytes: int = TARGET_BYTES,
    progress: Callable[[CompactionProgress], None] | None = None,
) -> Compacted:
    """Do what ``compact`` does, for an open lake whose lock is free."""
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    report = Compacted()
    lake.expect_current()
    with write_errors(lake.root):
        # First, so that nothing is rewritten that goes.
        report.add_retention(expire_days.apply_settings(lake, moment))
    for _ in range(_PLANS):
        with write_errors(lake.root):
            partitions = needs_compaction(open_snapshot(lake.root), everything=everything, now=moment)
        if _rewrite_all(lake, partitions, moment, target_bytes, report, progress):
            break
    with write_errors(lake.root):
        with others_first(lake.root):
            report.add(expire_seen.merge_seen(lake, moment))
        with others_first(lake.root):
            report.add(expire.clean(lake, moment))
        with others_first(lake.root):
            report.digests_added += add_digests(lake)
    report.seconds = round(time.monotonic() - started, 3)
    return report


def _rewrite_all(
    lake: LakeWriter,
    partitions: Sequence[Partition],
    now: datetime,
    target_bytes: int,
    report: Compacted,
    progress: Callable[[CompactionProgress], None] | None,
) -> bool:
    """Rewrite partitions, in as many commits as they take; return False if others were faster with some of them."""
    total = report.partitions + len(partitions)
    size = report.bytes_before + sum(partition.bytes for partition in partitions)
    is_all = True
    for group in commit_groups(partitions):
        with write_errors(lake.root):
            is_all &= compact_partitions(lake, group, now, target_bytes=target_bytes, report=report)
        if progress is not None:
            progress(CompactionProgress(total, report.partitions, size, report.bytes_before))
    if progress is not None and is_all:
        progress(CompactionProgress(total, total, size, size))
    return is_all


def add_digests(lake: LakeWriter, is_over: Callable[[], bool] = lambda: False) -> int:
    """Add the digests of files that an earlier version or another engine wrote; return their number."""
    lake.ready()
    return digest.complete(lake.root, expire.metadata_files(lake), is_over)


def compact_partitions(
    lake: LakeWriter, group: Sequence[Partition], now: datetime, *, report: Compacted, target_bytes: int = TARGET_BYTES
) -> bool:
    """Rewrite partitions in one commit, unless another writer has just done so; add to ``report``.

    Return False if others were faster with any of them: nothing, or not all, was rewritten.
    """
    present: list[Partition] = []
    is_all = False
    try:
        with others_first(lake.root), lake.begin() as transaction:
            present += [partition for partition in group if is_live(lake.root, partition)]
            if present:
                _rewrite(lake, transaction, present, now, target_bytes, report)
            is_all = len(present) == len(group)
    except (LakeError, FileNotFoundError):
        # No lock keeps another machine from removing what is being read here: then that is why it failed.
        if mirror_of(lake.root) is None:
            raise
        with lake.lock():
            if all(is_live(lake.root, partition) for partition in present):
                raise
    return is_all


def compacted_files(snapshot: Snapshot) -> set[str]:
    """Return the paths of the live files that a compaction wrote."""
    sql = (
        "SELECT path FROM file JOIN commit_log ON added = seq WHERE removed IS NULL AND kind = 'compact' AND added <= ?"
    )
    with closing(index.connect(snapshot.root)) as db:
        return {path for (path,) in db.execute(sql, (snapshot.seq,))}


def needs_compaction(
    snapshot: Snapshot, *, everything: bool = False, now: datetime | None = None, compacted: set[str] | None = None
) -> list[Partition]:
    """Return the partitions that are worth a rewrite, those with the most files first. Reads the index only.

    ``compacted``: the paths of files that a compaction wrote (None: as the index has them).
    """
    moment = now or datetime.now(UTC)
    compacted = compacted_files(snapshot) if compacted is None else compacted
    budgets = snapshot.settings.get("budgets")
    by_hour = bool(snapshot.settings.get("hourly_partitions"))
    chosen = []
    for name in schema.TABLES:
        for partition in partitions_of(name, snapshot.files(name), by_hour=by_hour and name == schema.EVENTS.name):
            closed = is_closed(partition.end, moment)
            if (closed or everything) and _is_worth_it(partition, compacted, budgets, everything=everything):
                chosen.append(partition)
    return sorted(chosen, key=lambda partition: (-len(partition.files), partition.table, partition.day))


def is_closed(end: int, now: datetime) -> bool:
    """Return whether the hour or day that ends at ``end`` (microseconds since 1970) is past its late deliveries."""
    # The end of the last day of the year 9999 is not a datetime.
    return end + SETTLE // _MICROSECOND <= micros_of(now)


def partitions_of(name: str, files: Sequence[File], *, by_hour: bool) -> list[Partition]:
    """Return the partitions of a table's files; a file that covers more than one is in none."""
    length = HOUR if by_hour else DAY
    groups: dict[tuple[int, str | None], list[File]] = {}
    for file in files:
        slot = file.min_time // length
        service = file.service
        if service is None and name == schema.EVENTS.name:
            # The index was rebuilt from Iceberg: only the folder has the service.
            match = _SERVICE.search(file.path)
            service = match[1] if match else None
        if file.max_time // length == slot and (service is not None or name != schema.EVENTS.name):
            groups.setdefault((slot, service), []).append(file)
    return [
        Partition(name, slot * length // DAY, service, tuple(group), slot % 24 if by_hour else None)
        for (slot, service), group in groups.items()
    ]


def _is_worth_it(partition: Partition, compacted: set[str], budgets: object, *, everything: bool) -> bool:
    late = [file for file in partition.files if file.path not in compacted]
    if not late:
        return False
    if len(partition.files) == 1:
        # One file is sorted already; only its lines may be too many. Compaction limits them once.
        return late[0].rows > smallest_limit(partition.table, budgets)
    small = sum(file.bytes for file in late) < LATE_SHARE * partition.bytes and len(late) < LATE_FILES
    return everything or partition.bytes < _LARGE or not small


def groups_beside(root: Path, partitions: Sequence[Partition]) -> Iterator[list[Partition]]:
    """Yield the partitions of each commit of a compaction beside writers.

    On a disk that is one: writers wait as briefly as they can. In S3, where a commit takes dozens of requests, it is
    as many as are uploaded within about a second. Memory is the same: they are rewritten one after the other.
    """
    return commit_groups(partitions, 0 if mirror_of(root) is None else SMALL_COMMIT_BYTES)


def commit_groups(partitions: Sequence[Partition], most: int = COMMIT_BYTES) -> Iterator[list[Partition]]:
    """Yield the partitions of each commit: of about ``most`` bytes, and one at least."""
    group: list[Partition] = []
    size = 0
    for partition in partitions:
        if group and size + partition.bytes > most:
            yield group
            group, size = [], 0
        group.append(partition)
        size += partition.bytes
    if group:
        yield group


def is_live(root: Path, partition: Partition) -> bool:
    """Return whether no other writer has compacted the partition since it was planned."""
    with closing(index.connect(root)) as db:
        sql = "SELECT 1 FROM file WHERE table_name = ? AND path = ? AND removed IS NULL"
        return all(db.execute(sql, (partition.table, file.path)).fetchone() for file in partition.files)


def _rewrite(
    lake: LakeWriter,
    transaction: Transaction,
    group: Sequence[Partition],
    now: datetime,
    target_bytes: int,
    report: Compacted,
) -> None:
    """Rewrite partitions and commit them together."""
    old: list[File] = []
    new: list[File] = []
    folded: Counter[str] = Counter()
    budgets = lake.settings.get("budgets")
    for partition in group:
        digest.check(lake.root, [file.path for file in partition.files])
        files, number = rewrite(lake.root, partition, budgets=budgets, now=now, target_bytes=target_bytes)
        transaction.replace(partition.files, files)
        old += partition.files
        new += files
        if number:
            folded[partition.table] += number
    transaction.commit({"files_added": len(new), "files_removed": len(old), "folded": dict(folded)}, "compact")
    report.partitions += len(group)
    report.files_before += len(old)
    report.files_after += len(new)
    report.bytes_before += sum(file.bytes for file in old)
    report.bytes_after += sum(file.bytes for file in new)
    report.rows_before += sum(file.rows for file in old)
    report.rows_after += sum(file.rows for file in new)
    for name, number in folded.items():
        report.folded[name] = report.folded.get(name, 0) + number


def rewrite(
    root: Path, partition: Partition, *, budgets: object, now: datetime, target_bytes: int, into: Path | None = None
) -> tuple[list[File], int]:
    """Write a partition's new files, which no commit names yet; return them and how many lines were folded.

    ``into``: a folder that they are written to, below which they have the paths that they will have in the lake.
    LakeError if a file cannot be read, or has rows of other types than ours.
    """
    with data_errors(f"the partition {Path(partition.files[0].path).parent} of {root}"):
        return _rewritten(root, partition, into or root, budgets=budgets, now=now, target_bytes=target_bytes)


def _rewritten(
    root: Path, partition: Partition, into: Path, *, budgets: object, now: datetime, target_bytes: int
) -> tuple[list[File], int]:
    table = partition.stored
    folder = Path(partition.files[0].path).parent.as_posix()
    rows = sum(file.rows for file in partition.files)
    file_rows = max(int(rows * target_bytes / max(partition.bytes, 1)), 1)
    output = _Output(into, table, folder, partition.service)
    folded = 0
    with scratch_folder(root) as scratch:
        for piece, starts_file in read_pieces(root, partition, file_rows, scratch):
            if table.name == schema.EVENTS.name:
                output.write(_sorted_events(piece), new_file=starts_file)
            elif table.keys:
                merged = summarize.merge(table, [piece])
                lines, number = fold(table, merged, budgets, lambda end: is_closed(end, now))
                folded += number
                output.write(lines, new_file=False)
            else:
                output.write(piece.sort_by([(name, "ascending") for name in table.order]), new_file=False)
    files = output.close()
    written = sum(file.rows for file in files)
    if not table.keys and written != rows:
        raise LakeError(
            f"the index counts {rows:,} rows in {len(partition.files):,} files of {table.name} such as "
            f"{partition.files[0].path}, which hold {written:,}: nothing was changed. `trailsift verify` lists all "
            "that is wrong with a lake"
        )
    return files, folded


class _Output:
    """Writes the new files of a partition, one after the other."""

    def __init__(self, root: Path, table: schema.Table, folder: str, service: str | None) -> None:
        self._root = root
        self._table = table
        self._folder = folder
        self._service = service
        self._writer: FileWriter | None = None
        self._files: list[File] = []
        self._rows = 0
        self._times: list[int] = []
        self._callers: list[str | None] = []

    def write(self, rows: pa.Table, *, new_file: bool) -> None:
        """Add sorted rows that follow those before them."""
        if not rows.num_rows:
            return
        if self._writer is None or new_file:
            self._end_file()
            self._writer = FileWriter(self._table, self._root / f"{self._folder}/{uuid.uuid4().hex}.parquet")
        self._writer.write(rows)
        self._rows += rows.num_rows
        span = micros(rows.column(self._table.time).combine_chunks())
        self._times += [int(span.min()), int(span.max())]
        if self._table.name == schema.EVENTS.name:
            callers = rows.column("caller")
            self._callers += [callers[0].as_py(), callers[-1].as_py()]

    def close(self) -> list[File]:
        """End the last file; return all files."""
        self._end_file()
        return self._files

    def _end_file(self) -> None:
        if self._writer is None:
            return
        size = self._writer.close()
        path = self._writer.path.relative_to(self._root).as_posix()
        first, last = (self._callers[0], self._callers[-1]) if self._callers else (None, None)
        span = min(self._times), max(self._times)
        self._files.append(File(self._table.name, path, self._rows, size, *span, self._service, first, last))
        self._writer = None
        self._rows, self._times, self._callers = 0, [], []


def _sorted_events(rows: pa.Table) -> pa.Table:
    rows = rows.unify_dictionaries().combine_chunks()
    caller, _ = ranks(column_array(rows, "caller"))
    return rows.take(pa.array(np.lexsort((micros(column_array(rows, "event_time")), caller))))
