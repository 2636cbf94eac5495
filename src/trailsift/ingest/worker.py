"""The part of an ingest that runs on every core: log objects -> Parquet files and summary lines.

A chunk takes two steps: ``cut`` returns the ids, and ``write`` takes the answer which of them are new. Only the
coordinator sees all chunks, so only it can tell.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from mmap import mmap
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa

from trailsift import schema
from trailsift.columns.arrays import Ints, Mask
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.columns.summarize import NEEDED, Summaries
from trailsift.decode.landing import DROPPED_BY
from trailsift.decode.limits import LIMITS, Budget, Limits
from trailsift.decode.other_files import holds_records, may_be_other, other_file
from trailsift.decode.outcome import Malformed, Rejects
from trailsift.decode.stream import parts_of
from trailsift.ingest import conflicts
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder, ObjectStats
from trailsift.ingest.exemplars import candidates
from trailsift.ingest.reread import reread
from trailsift.ingest.sift import ColumnarRules, Decided, count_dropped, select_rows
from trailsift.lake import dedup
from trailsift.lake.index import File
from trailsift.lake.parquet import events_table, write_events
from trailsift.lake.retention import NOTHING_REMOVED, RemovedDays
from trailsift.lake.retention import RULE as RETENTION
from trailsift.rules import Rules
from trailsift.sources.base import LogObject, NotFetchedError, Prefetcher
from trailsift.times import DAY

#: A method of ``Worker`` and its arguments.
Call = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ChunkIds:
    """Ids, CRC-32 and days (``dedup.Days``) per row of a chunk, and its span of event time in microseconds."""

    ids: bytes
    crc32: bytes
    days: bytes
    min_time: int
    max_time: int


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """The result of a chunk: files not yet committed, and the summary lines as Arrow streams by table.

    ``stored`` is the number of rows in the files; ``held`` are candidates for ``exemplars`` (an Arrow stream);
    ``copies`` are rows that repeat an id and may have other content (``conflicts.pack``).
    """

    files: list[File]
    lines: dict[str, bytes]
    copies: bytes
    stored: int
    dropped: Counter[str] = field(default_factory=Counter)
    held: bytes = b""
    #: Those of ``dropped`` that retention dropped, whatever a rule is called.
    too_old: int = 0


class Worker:
    """Decodes log objects into one chunk at a time."""

    def __init__(
        self, root: Path, rules: Rules | None = None, bounds: Limits = LIMITS, begun: mmap | None = None
    ) -> None:
        self.root = root
        self.rules = ColumnarRules(rules) if rules else None
        self.builder = ChunkBuilder(project=self.rules.drops_all if self.rules else None)
        self.bounds = bounds
        #: The log objects of the chunk that is decoded, and of the one that was cut: rows may have to be read again.
        self._objects: dict[str, LogObject] = {}
        self._cut_objects: dict[str, LogObject] = {}
        self._chunk: Chunk | None = None
        self._waiting: deque[LogObject] = deque()
        self._reading: Iterator[ObjectStats] | None = None
        #: Log objects begun so far, and the memory that the parent sees the number in.
        self._count = 0
        self._begun = begun

    @staticmethod
    def expect(files: Sequence[LogObject]) -> None:
        """Begin to fetch log objects that ``decode`` will be given. Safe to call from another thread."""
        for reader, group in itertools.groupby(files, lambda file: file.reader):
            if isinstance(reader, Prefetcher):
                reader.expect(list(group))

    def decode(self, files: Sequence[LogObject], rows: int) -> tuple[list[ObjectStats], int]:
        """Decode log objects into the chunk. Return the stats of each, and the chunk's size (``ChunkBuilder.size``).

        If the chunk reaches ``rows`` in the middle of a file, decoding stops there and the next call resumes; if it had
        that size before, nothing is read.
        """
        self._waiting += files
        done: list[ObjectStats] = []
        while self._waiting and self.builder.size < rows:
            if self._reading is None:
                self._reading = self._read(self._waiting[0])
            for stats in self._reading:
                done.append(stats)
                if not stats.ends and self.builder.size >= rows:
                    return done, self.builder.size
            self._waiting.popleft()
            self._reading = None
        return done, self.builder.size

    def _read(self, file: LogObject) -> Iterator[ObjectStats]:
        """Decode a file, and yield the stats of each piece."""
        before, has_records, other = 0, False, None
        first = True
        self._count += 1
        if self._begun is not None:
            self._begun[:] = self._count.to_bytes(len(self._begun), "little")
        budget = Budget(self.bounds)
        budget.only_records = file.only_records
        try:
            if file.problem is not None:
                raise OSError(file.problem)
            for part in parts_of(file.open(), budget):
                name = file.name + part.member
                if self.rules is not None:
                    self._objects[name] = file
                if first:
                    other = other_file(name, part.data) if part.data is not None and may_be_other(name) else None
                if part.data is not None and other is not None and not holds_records(part.data):
                    stats = ObjectStats(foreign=other)
                elif part.data is not None:
                    stats = self.builder.add(name, part.data, part.damage, budget)
                    if stats.foreign is not None and first:
                        other = other_file(name, part.data)
                elif part.damage is not None:
                    stats = ObjectStats(1, Rejects([Malformed(-1, part.damage, "")]))
                else:
                    stats = ObjectStats()
                stats.member, stats.last, stats.ends, stats.offset = part.member, part.last, part.ends, before
                has_records |= stats.foreign is None
                if has_records or not part.last:
                    # A piece without records does not make the whole object foreign.
                    stats.foreign = None
                stats.other = other if stats.foreign is not None else None
                before, has_records = (0, False) if part.last else (before + stats.records, has_records)
                first = part.last
                yield stats
        except NotFetchedError as error:
            yield ObjectStats(missed=error)
        except OSError as error:
            yield ObjectStats(1, Rejects([Malformed(-1, f"cannot be read: {error.strerror or error}", "")]))

    def cut(self) -> ChunkIds | None:
        """End the chunk and return its ids; None if it is empty. The next may be decoded before this one is written."""
        self._chunk = self.builder.finish()
        self._cut_objects, self._objects = self._objects, {}
        if not len(self._chunk):
            return None
        times = self._chunk.times()
        days = dedup.days_of(times).tobytes()
        span = int(times.min()), int(times.max())
        return ChunkIds(self._chunk.ids.tobytes(), self._chunk.crc32.tobytes(), days, *span)

    def write(self, fresh: bytes, differs: bytes, removed: RemovedDays = NOTHING_REMOVED) -> ChunkResult:
        """Store the rows that are new, but for those of days that retention has ``removed``.

        ``differs``: numbers of the rows that repeat an id with another text.
        """
        assert self._chunk is not None
        chunk = self._chunk
        self._chunk = None
        copies = self._copies(chunk, np.frombuffer(differs, np.int64))
        mask = np.frombuffer(fresh, bool)
        if not mask.any():
            return ChunkResult([], {}, copies, 0)
        stored, counted = still_kept(chunk.times(), removed) if removed else (None, None)
        if stored is None or stored[mask].all():
            return self._stored(chunk, mask, copies)
        assert counted is not None
        result = self._stored(chunk, mask & stored, copies, np.flatnonzero(mask & counted))
        result.dropped[RETENTION] += int((mask & ~stored).sum())
        return replace(result, too_old=int((mask & ~stored).sum()))

    def _stored(self, chunk: Chunk, mask: Mask, copies: bytes, counted: Ints | None = None) -> ChunkResult:
        """Store the rows of a mask, as rules and streams decide; ``counted``: the rows in the summaries, if others."""
        new = None if mask.all() else np.flatnonzero(mask)
        lines = _lines(chunk, new if counted is None else counted) if counted is None or len(counted) else {}
        if not mask.any():
            return ChunkResult([], lines, copies, 0)
        if self.rules is not None or (chunk.others.column("weight").to_numpy() != 1).any():
            return self._sifted(chunk, mask, copies, lines)
        table = chunk.columns(CHUNK_SCHEMA.names, new)
        return ChunkResult(write_events(table, self.root, self._events), lines, copies, table.num_rows)

    def _copies(self, chunk: Chunk, rows: Ints) -> bytes:
        """Return rows that repeat an id with another text, packed."""
        packed = conflicts.pack(reread(chunk, rows, self._cut_objects, self.bounds)) if len(rows) else b""
        self._cut_objects.clear()
        return packed

    @cached_property
    def _events(self) -> schema.Table:
        return events_table(self.root)

    def _sifted(self, chunk: Chunk, mask: Mask, copies: bytes, lines: dict[str, bytes]) -> ChunkResult:
        """Store the new rows that rules keep: ours, or those of the stream that the rows come from.

        Wide columns are built only for the rows that are stored.
        """
        new = np.flatnonzero(mask)
        new_or_all = None if mask.all() else new
        looked_at = self.rules.looked_at if self.rules is not None else ()
        narrow = chunk.columns([*looked_at, "weight"], new_or_all)
        ids = chunk.ids[new]
        # A stream's decision stands: it hashes ids in the same way, so sampling again would add nothing.
        stream_weight = np.asarray(narrow.column("weight"))
        in_stream = stream_weight != 1
        if self.rules is None:
            decided = Decided(np.full(len(new), -1), stream_weight, np.zeros(len(new), bool))
            first, rank = np.empty(0, np.int64), np.empty(0, np.uint64)
        else:
            decided = self.rules.decide(narrow, ids)
            decided.weight[in_stream], decided.sampled[in_stream] = stream_weight[in_stream], False
            first, rank = self.rules.exemplars(narrow, ids, decided)
        del narrow
        kept = decided.weight > 0
        kept[first] = False
        rows = np.flatnonzero(kept)
        omit = self.rules.rules.omit if self.rules else ()
        table = select_rows(chunk, new[rows], decided.weight[rows], omit)
        away = ~kept
        away[first] = False
        dropped = _dropped_in_stream(chunk, new[stream_weight == 0])
        if self.rules is not None:
            away &= ~in_stream
            dropped += count_dropped(self.rules.names, decided.rule[away], decided.weight[away])
        held = b""
        if len(first):
            rows_held = select_rows(chunk, new[first], decided.weight[first], omit)
            held = to_stream(candidates(rows_held, rank, decided.rule[first]))
        return ChunkResult(write_events(table, self.root, self._events), lines, copies, len(rows), dropped, held)


def still_kept(times: Ints, removed: RemovedDays) -> tuple[Mask, Mask]:
    """Return which rows of these times (microseconds since 1970) may be stored, and which may be counted in summaries.

    An event of a removed day is counted all the same, unless the summaries of its day are removed, or closed.
    """
    nothing = np.iinfo(np.int64).min
    stored = times >= (nothing if removed.events is None else removed.events)
    counted = times >= (nothing if removed.summaries is None else removed.summaries)
    for first, last in removed.closed:
        counted &= (times < first * DAY) | (times >= (last + 1) * DAY)
    return stored & counted, counted


def _dropped_in_stream(chunk: Chunk, rows: Ints) -> Counter[str]:
    """Count the rows that a stream's rules have dropped or sampled away, by rule."""
    notes = Counter(chunk.columns(["rest"], rows).column(0).to_pylist() if len(rows) else ())
    by_rule: Counter[str] = Counter()
    for rest, number in notes.items():
        by_rule[json.loads(rest)[DROPPED_BY]] += number
    return by_rule


def _lines(chunk: Chunk, rows: Ints | None) -> dict[str, bytes]:
    """Return the summary lines of some rows or of all, as Arrow streams by table."""
    summaries = Summaries(chunk.factorized(NEEDED, rows))
    return {name: to_stream(lines) for name, lines in summaries.tables().items()}


def to_stream(table: pa.Table) -> bytes:
    """Return a table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_stream(data: bytes) -> pa.Table:
    """Return the table of an Arrow stream."""
    return pa.ipc.open_stream(data).read_all()


def serve(connection: Connection, root: Path, rules: Rules | None, bounds: Limits, begun: mmap | None) -> None:
    """Serve calls until None comes: a method name and its arguments in, the result out. End the process."""
    pa.set_cpu_count(1)
    worker = Worker(root, rules, bounds, begun)
    # Receive calls while one is being served: otherwise two sides that both send more than a pipe holds would deadlock.
    calls: SimpleQueue[Call | Exception | None] = SimpleQueue()
    try:
        threading.Thread(target=_receive, args=(connection, calls), daemon=True).start()
    except RuntimeError as error:
        _send(connection, error)
        os._exit(1)
    while (call := calls.get()) is not None:
        if isinstance(call, Exception):
            _send(connection, call)
            break
        method, arguments = call
        result: Any
        try:
            result = getattr(worker, method)(*arguments)
        except Exception as error:  # sent to the parent, which raises it
            result = error
        _send(connection, result)
        del result
    # Everything is written and sent. Tearing the interpreter down would only keep the parent waiting.
    os._exit(0)


def _send(connection: Connection, result: object) -> None:
    """Send a result. End the process if the parent is gone: nobody commits what this process has written."""
    try:
        connection.send(result)
    except OSError:
        os._exit(1)


def _receive(connection: Connection, calls: SimpleQueue[Call | Exception | None]) -> None:
    """Queue calls as they come, and None at their end.

    If the parent is gone, the process ends at once, in the middle of whatever it does: as after a kill, the next writer
    removes the files that were never committed.
    """
    try:
        while (call := connection.recv()) is not None:
            if call[0] == "decode":
                # Now, and not when its turn comes: the network works while this process decodes what came before.
                Worker.expect(call[1][0])
            calls.put(call)
    except (EOFError, OSError, MemoryError):
        os._exit(1)
    except Exception as error:
        # What was sent names something that this process does not have.
        calls.put(error)
    calls.put(None)
