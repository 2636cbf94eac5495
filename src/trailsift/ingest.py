"""From inputs to a committed lake: the few lines that join source, columnar, summarize and store."""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from trailsift import copies, event, source, summarize, work
from trailsift.builder import Tally
from trailsift.columnar import arrow_schema
from trailsift.decode.envelope import Malformed
from trailsift.decode.parts import BOUNDS, Bounds
from trailsift.errors import SourceError, TrailsiftError
from trailsift.firsts import Firsts
from trailsift.pool import Pool
from trailsift.sift import Rules
from trailsift.source import LogFile
from trailsift.store import seen
from trailsift.store.files import write_lines
from trailsift.store.lake import Batch, Lake, LogObject, WriteLock, cannot_write
from trailsift.store.upkeep import upkeep
from trailsift.work import Cut, Written


@dataclass(slots=True)
class Counts:
    """What became of everything that was read; ``records`` is the sum of the four that follow it."""

    log_objects: int = 0
    #: Not taken: ingested before (``log_objects_known``), or JSON that holds no CloudTrail record.
    log_objects_skipped: int = 0
    log_objects_known: int = 0
    records: int = 0
    stored: int = 0
    duplicates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The counts in the order and names of ``ingest --json``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def complete(self) -> bool:
        """Whether nothing was malformed and no input was skipped for any other reason than being known."""
        return not self.malformed and self.log_objects_skipped == self.log_objects_known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is. ``bytes_total`` is 0 while unknown (standard input)."""

    objects_total: int
    objects_done: int
    bytes_total: int
    bytes_done: int
    records: int
    stored: int
    duplicates: int
    dropped: int
    malformed: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Sizes:
    """How an ingest is cut into pieces."""

    #: A chunk is cut at this many rows: large enough for good files, small enough for the memory.
    chunk_rows: int = 100_000
    #: At up to so many times as many where rules drop most of them, or files would be small.
    chunk_growth: int = 4
    #: A batch is committed at this many rows.
    batch_rows: int = 1_000_000
    #: Or earlier, where so many rows wait in memory for the commit (``firsts``).
    held_rows: int = 200_000
    #: Work is handed out in pieces of about this many bytes, or this many log objects.
    task_bytes: int = 2 << 20
    task_objects: int = 500
    #: What of one file is held in memory.
    bounds: Bounds = BOUNDS


SIZES = Sizes()
#: Below this many bytes starting worker processes costs more than they give.
INLINE_BYTES = 6 << 20


def ingest(
    inputs: Sequence[str],
    lake: Path,
    *,
    workers: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    again: bool = False,
    rules: Rules | None = None,
    compact: bool = True,
    hourly_partitions: bool | None = None,
    progress: Callable[[Progress], None] | None = None,
    sizes: Sizes = SIZES,
) -> Counts:
    """Ingests files, folders, globs and archives (``-``: standard input) into the lake, which is made if missing.

    ``since`` (included) and ``until`` (not included) select log objects by the minute of their delivery, as their names
    tell it (else by the time of the file); ``again`` also reads log objects that were ingested before; ``rules`` say
    which of the new events are stored, while the summaries count all of them. ``compact`` allows to tidy the lake up
    afterwards, for some seconds, where its many small files ask for it. ``hourly_partitions`` says how a new lake is
    laid out; one that is there must be so (None: as it is).
    Raises SourceError where an input does not exist or holds no CloudTrail at all, LakeError where the lake cannot be
    written. KeyboardInterrupt leaves what was committed and nothing else.
    """
    files = source.find(inputs, exclude=lake)
    chosen = [file for file in files if source.delivered_within(file, since, until)]
    try:
        if files and not chosen:
            raise SourceError(f"none of the {len(files)} files was delivered in the time asked for")
        opened = Lake.create(lake, hourly_partitions=hourly_partitions, ahead=True)
        run = _Run(opened, chosen, progress, sizes, again=again, rules=rules)
        counts = run.all(workers)
        if compact and run.committed:
            _tidy_up(opened, run.committed[0])
    except _FromCallback as passed:
        raise passed.error from None
    except (OSError, sqlite3.DatabaseError) as error:
        # Inputs that cannot be read are counted, one by one: what comes here was about the lake.
        raise cannot_write(lake, error) from error
    finally:
        source.release(files)
    if not counts.records and not counts.log_objects_known:
        raise SourceError(f"no CloudTrail records in {', '.join(inputs)}: {len(files)} files were looked into")
    return counts


def _tidy_up(lake: Lake, first: int) -> None:
    """What the commits from number ``first`` on made necessary. What was ingested is safe: nothing here is an error."""
    try:
        upkeep(lake, first - 1)
    except Exception as error:  # of any kind: disk, catalog, Parquet, memory
        logging.getLogger("trailsift").warning(
            "everything was stored, but the lake could not be tidied up (%s: %s); `trailsift compact --lake %s` tries "
            "again, `--no-compact` leaves it to you",
            type(error).__name__,
            error,
            lake.root,
        )


class _FromCallback(Exception):
    """An error of the caller's ``progress``, which is not to be taken for one of the lake."""

    def __init__(self, error: OSError) -> None:
        self.error = error


@dataclass(slots=True)
class _Pending:
    """What a worker's chunk holds so far."""

    files: list[tuple[LogFile, Tally]] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)


class _Run:
    """One ingest: hands out log objects, answers which events are new, commits batches."""

    def __init__(
        self,
        lake: Lake,
        files: list[LogFile],
        progress: Callable[[Progress], None] | None,
        sizes: Sizes = SIZES,
        *,
        again: bool = False,
        rules: Rules | None = None,
    ) -> None:
        self.lake = lake
        self.sizes = sizes
        self.rules = rules
        self.firsts = Firsts(lake.root, rules) if rules else None
        self.counts = Counts()
        self.progress = progress
        self.started = time.monotonic()
        self.bytes_total = sum(file.size for file in files)
        self.objects_total = len(files)
        self.bytes_done = self.objects_done = 0
        objects = [LogObject(file.name, file.version, file.delivered_on) for file in files]
        known = set() if again else lake.known_objects(objects)
        self.files = [file for file in files if (file.name, file.version) not in known]
        self.counts.log_objects_known = self.counts.log_objects_skipped = len(files) - len(self.files)
        self._lock: WriteLock | None = None
        #: Numbers of the commits made.
        self.committed: list[int] = []
        self._reset()

    def _reset(self) -> None:
        self.batch = Batch()
        self.lines: dict[str, list[Any]] = {}
        self.rejects: list[tuple[str, Malformed]] = []
        #: Second copies with another text, packed: whether they say something else is found out at the commit.
        self.copies: list[bytes] = []
        self.rows = 0
        self.in_batch: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()

    def all(self, workers: int | None) -> Counts:
        """Ingests everything; the counts."""
        size = min(workers or os.cpu_count() or 1, len(self.files))
        if sum(file.size for file in self.files) < INLINE_BYTES and workers is None:
            size = 0
        if not self.files:
            self.lake.ready()
            return self._finished()
        pool = Pool(self.lake.root, size, self.rules, self.sizes.bounds)
        # PyIceberg takes a second to import: let it, while the first chunks are decoded.
        threading.Thread(target=self._ready_ahead, daemon=True).start()
        try:
            self._drive(pool)
            self._commit()
        except BaseException:
            pool.close(at_once=True)
            self._give_up()
            raise
        pool.close(at_once=False)
        return self._finished()

    def _ready_ahead(self) -> None:
        # What fails here fails again, and is told, when the first chunk wants the lake.
        with contextlib.suppress(TrailsiftError):
            self.lake.ready()

    def _lock_lake(self) -> None:
        """Keeps other writers out until the commit."""
        if self._lock is None:
            self.lake.ready()
            self._lock = self.lake.lock()
            self._lock.acquire()

    def _finished(self) -> Counts:
        self.counts.seconds = round(time.monotonic() - self.started, 3)
        return self.counts

    def _drive(self, pool: Pool) -> None:
        """Runs the workers' state machine until everything is written: objects, cut, keep, written."""
        tasks = _Tasks(self.files, self.sizes, max(pool.size, 1))
        chunks = [_Pending() for _ in range(max(pool.size, 1))]
        held: deque[tuple[int, Cut]] = deque()
        writing = 0
        busy = 0
        sent: list[deque[LogFile]] = [deque() for _ in chunks]

        def next_step(worker: int, rows: int) -> int:
            enough = self._chunk_rows()
            if (sent[worker] or tasks) and rows < enough:
                # A large file that was left in the middle is gone on with.
                files = [] if sent[worker] else tasks.take(worker)
                sent[worker] += files
                pool.call(worker, "decode", files, enough)
            elif chunks[worker].files:
                pool.call(worker, "cut")
            else:
                return 0
            return 1

        for worker in range(len(chunks)):
            busy += next_step(worker, 0)
        while busy or held:
            if self._full() and not writing:
                self._commit()
            while held and not self._full():
                worker, cut = held.popleft()
                self._offer(pool, worker, cut, chunks[worker])
                writing += 1
                busy += 1
            if not busy:
                continue
            for worker, answer in pool.answers():
                busy -= 1
                if isinstance(answer, tuple):
                    tallies, rows = answer
                    self._tally(sent[worker], tallies, chunks[worker])
                    busy += next_step(worker, rows)
                elif isinstance(answer, Cut):
                    held.append((worker, answer))
                else:
                    if isinstance(answer, Written):
                        writing -= 1
                        self._take(answer)
                    self._close(chunks[worker])
                    chunks[worker] = _Pending()
                    busy += next_step(worker, 0)

    def _chunk_rows(self) -> int:
        """How many rows make a chunk, by what the rules have left of those before."""
        stored, gone = self.counts.stored, sum(self.counts.dropped.values())
        growth = min((stored + gone) / max(stored, 1), self.sizes.chunk_growth)
        return int(self.sizes.chunk_rows * max(growth, 1))

    def _full(self) -> bool:
        """Whether the batch is to be committed before it grows further."""
        return self.rows >= self.sizes.batch_rows or (
            self.firsts is not None and self.firsts.rows >= self.sizes.held_rows
        )

    def _offer(self, pool: Pool, worker: int, cut: Cut, chunk: _Pending) -> None:
        """Tells a worker which of its events are new. From here to the commit no other writer may come between."""
        if self._lock is None:
            self._lock_lake()
            self.lake.refresh()
        checks = np.frombuffer(cut.checks, np.uint32)
        fresh, differs = self.lake.seen.offer(seen.ids_of(np.frombuffer(cut.ids, "V16"), checks))
        chunk.span = cut.min_time, cut.max_time
        self._count("duplicates", len(fresh) - int(fresh.sum()))
        self.rows += len(fresh)
        low, high = self.batch.min_time or cut.min_time, self.batch.max_time or cut.max_time
        self.batch.min_time, self.batch.max_time = min(low, cut.min_time), max(high, cut.max_time)
        pool.call(worker, "write", fresh.tobytes(), differs.astype(np.int64).tobytes())

    def _tally(self, files: deque[LogFile], tallies: list[Tally], chunk: _Pending) -> None:
        """Counts what a worker has read of ``files``; those that it has read to their ends are taken out."""
        for tally in tallies:
            file = files[0]
            if tally.ends:
                files.popleft()
                self.objects_done += 1
                self.bytes_done += file.size
            if tally.foreign is not None:
                self.counts.log_objects_skipped += 1
            self.counts.records += tally.records
            self.counts.malformed += tally.malformed.parts
            chunk.files.append((file, tally))
        self._report()

    def _close(self, chunk: _Pending) -> None:
        """A chunk is written: its log objects belong to the batch."""
        for file, tally in chunk.files:
            name = file.name + tally.member
            self.rejects += [(name, replace(one, position=_placed(one, tally))) for one in tally.malformed]
            self.in_batch["records"] += tally.records
            self.in_batch["malformed"] += tally.malformed.parts
            if tally.foreign is not None:
                continue
            self.in_batch["log_objects"] += tally.last
            self.counts.log_objects += tally.last
            if tally.ends and not _unreadable(tally):
                self.batch.log_objects.append(LogObject(file.name, file.version, file.delivered_on))

    def _count(self, name: str, number: int) -> None:
        setattr(self.counts, name, getattr(self.counts, name) + number)
        self.in_batch[name] += number

    def _dropped(self, by_rule: Counter[str]) -> None:
        self.dropped.update(by_rule)
        self.counts.dropped = dict(Counter(self.counts.dropped) + by_rule)

    def _take(self, written: Written) -> None:
        self.batch.files += written.files
        self._count("stored", written.stored)
        self._dropped(written.dropped)
        if self.firsts is not None and written.held:
            self.firsts.hold(work.from_stream(written.held))
        if written.copies:
            self.copies.append(written.copies)
        for name, data in written.lines.items():
            self.lines.setdefault(name, []).append(work.from_stream(data))
        self._report()

    def _commit(self) -> None:
        """Makes the batch visible, all of it together."""
        if self._lock is None:
            if not self.batch.log_objects and not self.rejects:
                return
            self._lock_lake()
        if self.firsts is not None:
            settled = self.firsts.settle()
            self.batch.files += settled.files
            self._count("stored", settled.stored)
            self._dropped(settled.dropped)
        for name, parts in self.lines.items():
            table = event.TABLES[name]
            self.batch.files += write_lines(table, summarize.merge(table, parts), self.lake.root)
        self.rejects += self._other_content()
        if self.rejects:
            self.batch.files += write_lines(event.REJECTS, _reject_table(self.rejects), self.lake.root)
        self.batch.ids = self.lake.seen.batch()
        self.batch.counts = {**self.in_batch, "dropped": dict(self.dropped), **self._by_rules()}
        self.committed.append(self.lake.commit(self.batch))
        self._unlock()
        self._reset()

    def _other_content(self) -> list[tuple[str, Malformed]]:
        if not self.copies:
            return []
        files = [*self.lake.live_files(event.EVENTS.name), *copies.live_events(self.batch.files)]
        omit = self.lake.left_out()
        if self.rules is not None or self.dropped:
            omit = {*(omit or ()), *(self.rules.omit if self.rules else ())}
        return list(copies.other_content(self.copies, files, self.lake.root, omit))

    def _by_rules(self) -> dict[str, Any]:
        """Which rules the batch was sifted by, for the lake to remember."""
        if self.rules is None:
            return {}
        told = {
            "file": self.rules.name,
            "digest": self.rules.digest,
            "names": [rule.name for rule in self.rules.rules],
            "actions": [rule.action for rule in self.rules.rules],
            "omit": list(self.rules.omit),
        }
        return {"rules": told}

    def _unlock(self, *, clean: bool = True) -> None:
        if self._lock is not None:
            self._lock.release(clean=clean)
            self._lock = None

    def _give_up(self) -> None:
        """Nothing of the open batch was committed: takes its files away and lets other writers in.

        Also those that a worker was still writing: where the disk is full, its space is what everybody waits for.
        """
        swept = False
        if self._lock is not None:
            with contextlib.suppress(OSError, sqlite3.DatabaseError):
                self.lake.sweep()
                swept = True
        self._unlock(clean=swept)

    def _report(self) -> None:
        if self.progress is None:
            return
        counts = self.counts
        now = Progress(
            self.objects_total,
            self.objects_done + counts.log_objects_known,
            self.bytes_total,
            self.bytes_done,
            counts.records,
            counts.stored,
            counts.duplicates,
            sum(counts.dropped.values()),
            counts.malformed,
            time.monotonic() - self.started,
        )
        try:
            self.progress(now)
        except OSError as error:
            raise _FromCallback(error) from error


def _placed(one: Malformed, tally: Tally) -> int:
    """Where something malformed stands in its log object, of which the tally may be a later piece."""
    return one.position + tally.offset if one.position >= 0 else one.position


def _unreadable(tally: Tally) -> bool:
    """An object that could not be opened at all is tried again next time."""
    return len(tally.malformed) == 1 and tally.malformed[0].reason.startswith("cannot be read")


class _Tasks:
    """Pieces of work. Each worker has its own stretch of the time of delivery, so that the workers seldom write files
    of the same partition; one that is through helps another, from the end of what that one has."""

    def __init__(self, files: list[LogFile], sizes: Sizes, workers: int) -> None:
        pieces = list(_pieces(files, sizes))
        bounds = [len(pieces) * number // workers for number in range(workers + 1)]
        self._left = [deque(pieces[low:high]) for low, high in itertools.pairwise(bounds)]

    def __bool__(self) -> bool:
        return any(self._left)

    def take(self, worker: int) -> list[LogFile]:
        """The next piece for a worker; there must be one."""
        if self._left[worker]:
            return self._left[worker].popleft()
        return max(self._left, key=len).pop()


def _pieces(files: list[LogFile], sizes: Sizes) -> Iterator[list[LogFile]]:
    """Files in the order of delivery, some at a time."""
    piece: list[LogFile] = []
    size = 0
    for file in files:
        if piece and (size + file.size > sizes.task_bytes or len(piece) >= sizes.task_objects):
            yield piece
            piece, size = [], 0
        piece.append(file)
        size += file.size
    if piece:
        yield piece


def _reject_table(rejects: list[tuple[str, Malformed]]) -> pa.Table:
    now = datetime.now(UTC)
    rows = [
        {
            "ingested_at": now,
            "log_object": name,
            "position": malformed.position,
            "reason": malformed.reason,
            "raw": malformed.raw,
        }
        for name, malformed in sorted(rejects, key=lambda reject: (reject[0], reject[1].position))
    ]
    return pa.Table.from_pylist(rows, schema=arrow_schema(event.REJECTS))
