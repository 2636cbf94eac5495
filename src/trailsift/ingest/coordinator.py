"""One ingest at work: hands out log objects, tells workers which events are new, commits batches."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np
import pyarrow as pa

from trailsift.errors import TrailsiftError
from trailsift.ingest.batch import OpenBatch
from trailsift.ingest.chunk_builder import ObjectStats
from trailsift.ingest.counts import CallbackError, Counts, Progress, Sizes
from trailsift.ingest.pool import Pool
from trailsift.ingest.schedule import WorkQueue
from trailsift.ingest.worker import ChunkIds, ChunkResult
from trailsift.lake import dedup
from trailsift.lake.commit import Listed
from trailsift.lake.known import as_counts
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter
from trailsift.rules import Rules
from trailsift.runtime import give_back
from trailsift.sources.base import Found, LogObject, NotFetchedError


class Coordinator:
    """Drives the workers of one ingest and commits what they wrote."""

    def __init__(
        self,
        lake: LakeWriter,
        found: Found,
        counts: Counts,
        progress: Callable[[Progress], None] | None,
        sizes: Sizes,
        rules: Rules | None,
        started: float,
        missed: Callable[[LogObject, NotFetchedError], None] | None = None,
    ) -> None:
        """``counts`` holds the log objects ingested before, and is added to; ``started``: monotonic time.

        ``missed`` is called with each log object that could not be fetched.
        """
        self.lake = lake
        self.sizes = sizes
        self.rules = rules
        self.found = found
        self.counts = counts
        self.progress = progress
        self.started = started
        self.missed = missed
        self.bytes_total = found.bytes
        self.objects_total = found.objects + counts.log_objects_known
        #: Delivery of the earliest log object that could not be fetched.
        self._earliest_missed: datetime | None = None
        self.bytes_done = self.objects_done = 0
        #: From the first chunk of a batch to its commit: keeps other writers out.
        self._transaction: Transaction | None = None
        #: Sequence numbers of the commits.
        self.committed: list[int] = []
        self.open = OpenBatch(lake, counts, rules)
        #: Runs one commit at a time, while the workers continue.
        self._thread = ThreadPoolExecutor(1)
        self._committing: Future[int] | None = None

    def all(self, pool: Pool) -> None:
        """Ingest everything."""
        if pool.size:
            # Importing PyIceberg takes long: do it while workers decode the first chunks.
            threading.Thread(target=self._ready_ahead, daemon=True).start()
        try:
            self._drive(pool)
            self._settle()
            if self.open:
                self.open.notes = as_counts(self._notes())
                self._commit()
                self._settle()
        except BaseException:
            # Stop all writers before deleting the open batch's files.
            pool.close(at_once=True)
            self._thread.shutdown()
            if self._transaction is not None:
                self._transaction.rollback()
            raise
        self._thread.shutdown()

    def _ready_ahead(self) -> None:
        # Errors here recur, and are reported, when the first chunk needs the lake.
        with contextlib.suppress(TrailsiftError):
            self.lake.ready()

    def _begin(self) -> Transaction:
        """Return the open batch's transaction, which keeps other writers out until its end."""
        if self._transaction is None:
            self._transaction = self.lake.begin()
        return self._transaction

    def _drive(self, pool: Pool) -> None:
        """Run the workers' state machine until everything is written: decode, cut, write."""
        tasks = WorkQueue(self.found.spans, self.sizes, max(pool.size, 1))
        states = [WorkerState(number) for number in range(max(pool.size, 1))]
        held: deque[tuple[WorkerState, ChunkIds]] = deque()
        writing = 0
        busy = sum(self._next_steps(pool, tasks, state) for state in states)
        while busy or held:
            if self._full() and not writing:
                self._commit()
            if self._committing is not None and (not busy or self._committing.done()):
                self._settle()
            while held and self._committing is None and not self._full():
                state, cut = held.popleft()
                self._offer(pool, state.number, cut)
                writing += 1
                busy += 1
            if not busy:
                continue
            for worker, answer in pool.answers():
                busy -= 1
                state = states[worker]
                if isinstance(answer, tuple):
                    stats, state.rows = answer
                    state.calls -= 1
                    self._count_read(state, stats)
                elif isinstance(answer, ChunkIds):
                    held.append((state, answer))
                else:
                    if isinstance(answer, ChunkResult):
                        writing -= 1
                        self.open.take(answer)
                        self._report()
                    self.open.close(state.cut)
                    state.cut = []
                busy += self._next_steps(pool, tasks, state)

    def _next_steps(self, pool: Pool, tasks: WorkQueue, state: WorkerState) -> int:
        """Send a worker the calls it may do now, and return their number.

        A worker always has something to decode, even while it waits for the answer about the chunk it has cut.
        """
        calls = 0
        enough = self.sizes.chunk_rows
        can_grow = bool(state.files or tasks) and state.rows < enough
        if state.read and not state.calls and not state.cut and not can_grow:
            pool.call(state.number, "cut")
            state.cut, state.read, state.rows = state.read, [], 0
            calls += 1
        while state.rows < enough and state.calls < _CALLS_AHEAD:
            if state.files and not state.calls:
                # Resume a large file that was paused.
                files = []
            elif tasks:
                files = tasks.take(state.number)
            else:
                break
            state.files += files
            pool.call(state.number, "decode", files, enough)
            state.calls += 1
            calls += 1
        return calls

    def _full(self) -> bool:
        """Return whether the batch must be committed before it grows further."""
        if self.open.rows >= self.sizes.batch_rows or self.open.held_rows >= self.sizes.held_rows:
            return True
        seconds = self.sizes.batch_seconds
        return 0 < seconds <= time.monotonic() - self.open.started and self.open.rows > 0

    def _offer(self, pool: Pool, worker: int, cut: ChunkIds) -> None:
        """Send a worker which of its events are new."""
        days = np.frombuffer(cut.days, np.uint16)
        ids = dedup.ids_of(np.frombuffer(cut.ids, "V16"), np.frombuffer(cut.crc32, np.uint32), days)
        is_new, differs = self._begin().offer(ids, (cut.min_time, cut.max_time))
        self.open.offered(len(is_new), int(is_new.sum()))
        pool.call(worker, "write", is_new.tobytes(), differs.astype(np.int64).tobytes())

    def _count_read(self, state: WorkerState, stats: list[ObjectStats]) -> None:
        """Count what a worker has read of its files, and remove those that are finished."""
        for item in stats:
            file = state.files[0]
            if item.ends:
                state.files.popleft()
                self.objects_done += 1
                self.bytes_done += file.size
            if item.missed is not None:
                self._count_missed(file, item.missed)
            if item.foreign is not None:
                self.counts.log_objects_skipped += 1
            if item.other is not None:
                others = self.counts.other_files
                others[item.other] = others.get(item.other, 0) + 1
            self.counts.records += item.records
            self.counts.malformed += item.malformed.parts
            state.read.append((file, item))
        self._report()

    def _count_missed(self, file: LogObject, missed: NotFetchedError) -> None:
        """Count a log object that could not be fetched."""
        if self.missed is not None:
            self.missed(file, missed)
        counts = self.counts
        if missed.kind == "failed":
            counts.log_objects_failed += 1
        else:
            counts.log_objects_gone += 1
        if len(counts.not_fetched) < _NAMED:
            counts.not_fetched[file.name] = missed.reason
        if missed.kind != "deleted":
            self._earliest_missed = min(self._earliest_missed or file.delivered_at, file.delivered_at)

    def _notes(self) -> Iterator[Listed]:
        """Yield the notes on what was listed: all of it is ingested, up to what could not be fetched."""
        for note in self.found.notes:
            if self._earliest_missed is None:
                yield note
                continue
            through = min(note.through, (self._earliest_missed - timedelta(minutes=1)).isoformat())
            if note.since is None or note.since < through:
                yield replace(note, through=through)

    def _commit(self) -> None:
        """Commit the open batch while the workers continue; the first chunk of the next batch waits for it."""
        transaction = self._begin()
        batch, self.open = self.open, OpenBatch(self.lake, self.counts, self.rules)
        self._committing = self._thread.submit(self._finish, batch, transaction)

    def _finish(self, batch: OpenBatch, transaction: Transaction) -> int:
        """Commit a batch and release memory. Return the number of the commit."""
        number = batch.commit(transaction)
        self._transaction = None
        pa.default_memory_pool().release_unused()
        give_back()
        return number

    def _settle(self) -> None:
        """Wait for the running commit, if any."""
        if self._committing is not None:
            done, self._committing = self._committing, None
            self.committed.append(done.result())

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
            remote=self.found.remote,
            known=counts.log_objects_known,
        )
        try:
            self.progress(now)
        except OSError as error:
            raise CallbackError(error) from error


#: Log objects that are named of those that could not be fetched.
_NAMED = 20
#: Calls that a worker has at once, so that it need not wait for the next.
_CALLS_AHEAD = 2


@dataclass(slots=True)
class WorkerState:
    """The open work of one worker."""

    number: int
    #: Sent to the worker and not read to their ends.
    files: deque[LogObject] = field(default_factory=deque)
    #: Unanswered calls of ``decode``.
    calls: int = 0
    #: What the chunk being decoded was read from, and its size as last reported.
    read: list[tuple[LogObject, ObjectStats]] = field(default_factory=list)
    rows: int = 0
    #: What the chunk that is cut but not yet written was read from.
    cut: list[tuple[LogObject, ObjectStats]] = field(default_factory=list)
