"""One ingest at work: hands out log objects, answers which events are new, has batches committed."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

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
from trailsift.lake.transaction import Transaction
from trailsift.lake.writer import LakeWriter
from trailsift.rules import Rules
from trailsift.runtime import give_back
from trailsift.sources.base import LogObject


class Coordinator:
    """One ingest: hands out log objects, answers which events are new, commits batches."""

    def __init__(
        self,
        lake: LakeWriter,
        files: list[LogObject],
        counts: Counts,
        progress: Callable[[Progress], None] | None,
        sizes: Sizes,
        rules: Rules | None,
        started: float,
    ) -> None:
        """``counts`` has the log objects that are known already, and is added to; ``started``: monotonic time."""
        self.lake = lake
        self.sizes = sizes
        self.rules = rules
        self.files = files
        self.counts = counts
        self.progress = progress
        self.started = started
        self.bytes_total = sum(file.size for file in files)
        self.objects_total = len(files) + counts.log_objects_known
        self.bytes_done = self.objects_done = 0
        #: From the first chunk of a batch to its commit: keeps other writers out.
        self._transaction: Transaction | None = None
        #: Numbers of the commits made.
        self.committed: list[int] = []
        self.open = OpenBatch(lake, counts, rules)
        #: Commits, one after the other, while the workers go on.
        self._thread = ThreadPoolExecutor(1)
        self._committing: Future[int] | None = None

    def all(self, pool: Pool) -> None:
        """Ingests everything."""
        # PyIceberg takes a second to import: let it, while the first chunks are decoded.
        threading.Thread(target=self._ready_ahead, daemon=True).start()
        try:
            self._drive(pool)
            self._settle()
            if self.open:
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
        """Runs the workers' state machine until everything is written: objects, cut, keep, written."""
        tasks = WorkQueue(self.files, self.sizes, max(pool.size, 1))
        desks = [WorkerState(number) for number in range(max(pool.size, 1))]
        held: deque[tuple[WorkerState, ChunkIds]] = deque()
        writing = 0
        busy = sum(self._next_steps(pool, tasks, desk) for desk in desks)
        while busy or held:
            if self._full() and not writing:
                self._commit()
            if self._committing is not None and (not busy or self._committing.done()):
                self._settle()
            while held and self._committing is None and not self._full():
                desk, cut = held.popleft()
                self._offer(pool, desk.number, cut)
                writing += 1
                busy += 1
            if not busy:
                continue
            for worker, answer in pool.answers():
                busy -= 1
                desk = desks[worker]
                if isinstance(answer, tuple):
                    tallies, desk.rows = answer
                    desk.calls -= 1
                    self._tally(desk, tallies)
                elif isinstance(answer, ChunkIds):
                    held.append((desk, answer))
                else:
                    if isinstance(answer, ChunkResult):
                        writing -= 1
                        self.open.take(answer)
                        self._report()
                    self.open.close(desk.cut)
                    desk.cut = []
                busy += self._next_steps(pool, tasks, desk)

    def _next_steps(self, pool: Pool, tasks: WorkQueue, desk: WorkerState) -> int:
        """Gives a worker what it may do now; how many calls that are.

        It has something to read while it waits for the next call, and while others decide on the chunk it has cut.
        """
        calls = 0
        enough = self.sizes.chunk_rows
        more = bool(desk.files or tasks) and desk.rows < enough
        if desk.read and not desk.calls and not desk.cut and not more:
            pool.call(desk.number, "cut")
            desk.cut, desk.read, desk.rows = desk.read, [], 0
            calls += 1
        while desk.rows < enough and desk.calls < _CALLS_AHEAD:
            if desk.files and not desk.calls:
                # A large file that was left in the middle is gone on with.
                files = []
            elif tasks:
                files = tasks.take(desk.number)
            else:
                break
            desk.files += files
            pool.call(desk.number, "decode", files, enough)
            desk.calls += 1
            calls += 1
        return calls

    def _full(self) -> bool:
        """Whether the batch is to be committed before it grows further."""
        return self.open.rows >= self.sizes.batch_rows or self.open.held_rows >= self.sizes.held_rows

    def _offer(self, pool: Pool, worker: int, cut: ChunkIds) -> None:
        """Answer a worker which of its events are new."""
        ids = dedup.ids_of(np.frombuffer(cut.ids, "V16"), np.frombuffer(cut.checks, np.uint32))
        fresh, differs = self._begin().offer(ids, (cut.min_time, cut.max_time))
        self.open.offered(len(fresh), int(fresh.sum()))
        pool.call(worker, "write", fresh.tobytes(), differs.astype(np.int64).tobytes())

    def _tally(self, desk: WorkerState, tallies: list[ObjectStats]) -> None:
        """Counts what a worker has read of its files; those that it has read to their ends are taken out."""
        for tally in tallies:
            file = desk.files[0]
            if tally.ends:
                desk.files.popleft()
                self.objects_done += 1
                self.bytes_done += file.size
            if tally.foreign is not None:
                self.counts.log_objects_skipped += 1
            self.counts.records += tally.records
            self.counts.malformed += tally.malformed.parts
            desk.read.append((file, tally))
        self._report()

    def _commit(self) -> None:
        """Commit the open batch, while the workers go on; the first chunk of the next batch waits for it."""
        transaction = self._begin()
        batch, self.open = self.open, OpenBatch(self.lake, self.counts, self.rules)
        self._committing = self._thread.submit(self._finish, batch, transaction)

    def _finish(self, batch: OpenBatch, transaction: Transaction) -> int:
        """Commit a batch and give back the memory that it took; return the number of the commit."""
        number = batch.commit(transaction)
        self._transaction = None
        pa.default_memory_pool().release_unused()
        give_back()
        return number

    def _settle(self) -> None:
        """Waits for the commit that is being made, if one is."""
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
        )
        try:
            self.progress(now)
        except OSError as error:
            raise CallbackError(error) from error


#: Pieces of work that a worker has at once, so that it need not wait for the next.
_CALLS_AHEAD = 2


@dataclass(slots=True)
class WorkerState:
    """What lies before one worker."""

    number: int
    #: Sent to it and not read to their ends.
    files: deque[LogObject] = field(default_factory=deque)
    #: Calls to decode that it has not answered.
    calls: int = 0
    #: What the chunk that it decodes was read of, and that chunk's size as it was last told.
    read: list[tuple[LogObject, ObjectStats]] = field(default_factory=list)
    rows: int = 0
    #: What the chunk was read of that is cut and not yet written.
    cut: list[tuple[LogObject, ObjectStats]] = field(default_factory=list)
