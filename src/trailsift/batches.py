"""One ingest at work: hands out log objects, answers which events are new, commits batches."""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from trailsift import copies, event, summarize, work
from trailsift.builder import Tally
from trailsift.columnar import arrow_schema
from trailsift.counts import CallbackError, Counts, Progress, Sizes
from trailsift.decode.envelope import Malformed
from trailsift.errors import TrailsiftError
from trailsift.firsts import Firsts
from trailsift.pool import Pool
from trailsift.process import give_back
from trailsift.sift import Rules
from trailsift.source import LogFile
from trailsift.store import seen
from trailsift.store.files import write_lines
from trailsift.store.index import File
from trailsift.store.lake import Batch, Lake, LogObject, WriteLock
from trailsift.work import Cut, Written


@dataclass(slots=True)
class _Pending:
    """What a worker's chunk holds so far."""

    files: list[tuple[LogFile, Tally]] = field(default_factory=list)
    span: tuple[int, int] = (0, 0)


class Run:
    """One ingest: hands out log objects, answers which events are new, commits batches."""

    def __init__(
        self,
        lake: Lake,
        files: list[LogFile],
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
        self.firsts = Firsts(lake.root, rules) if rules else None
        self.files = files
        self.counts = counts
        self.progress = progress
        self.started = started
        self.bytes_total = sum(file.size for file in files)
        self.objects_total = len(files) + counts.log_objects_known
        self.bytes_done = self.objects_done = 0
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

    def all(self, pool: Pool) -> None:
        """Ingests everything."""
        # PyIceberg takes a second to import: let it, while the first chunks are decoded.
        threading.Thread(target=self._ready_ahead, daemon=True).start()
        try:
            self._drive(pool)
            self._commit()
        except BaseException:
            # Nobody writes any more when the open batch's files are taken away.
            pool.close(at_once=True)
            self._give_up()
            raise

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

    def _drive(self, pool: Pool) -> None:
        """Runs the workers' state machine until everything is written: objects, cut, keep, written."""
        tasks = _Tasks(self.files, self.sizes, max(pool.size, 1))
        chunks = [_Pending() for _ in range(max(pool.size, 1))]
        held: deque[tuple[int, Cut]] = deque()
        writing = 0
        busy = 0
        sent: list[deque[LogFile]] = [deque() for _ in chunks]

        def next_step(worker: int, rows: int) -> int:
            enough = self.sizes.chunk_rows
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
        # Nobody else has anything to do now.
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            for files in threads.map(self._written_lines, self.lines):
                self.batch.files += files
        self.batch.ids = self.lake.seen.batch()
        self.rejects += self._other_content()
        if self.rejects:
            self.batch.files += write_lines(event.REJECTS, _reject_table(self.rejects), self.lake.root)
        self.batch.counts = {**self.in_batch, "dropped": dict(self.dropped), **self._by_rules()}
        self.committed.append(self.lake.commit(self.batch))
        self._unlock()
        self._reset()
        pa.default_memory_pool().release_unused()
        give_back()

    def _written_lines(self, name: str) -> list[File]:
        """The batch's lines of one summary table, in files."""
        table = event.TABLES[name]
        return write_lines(table, summarize.merge(table, self.lines[name]), self.lake.root)

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
            raise CallbackError(error) from error


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
