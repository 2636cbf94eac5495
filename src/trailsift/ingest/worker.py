"""The part of an ingest that runs on every core: log objects to Parquet files and summary lines.

A chunk takes two steps, because which of its events are new only the one who sees all chunks can say: ``cut`` gives
the ids, ``write`` takes the answer.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import pyarrow as pa

from trailsift import schema
from trailsift.columns.arrow import CHUNK_SCHEMA, Indices
from trailsift.columns.summarize import NEEDED, Summaries
from trailsift.decode.envelope import Malformed, Rejects
from trailsift.decode.landing import DROPPED_BY
from trailsift.decode.stream import BOUNDS, Bounds, parts_of
from trailsift.ingest import conflicts as copies
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder, ObjectStats
from trailsift.ingest.exemplars import candidates
from trailsift.ingest.reread import whole
from trailsift.ingest.sift import ColumnarRules, Decided, counted, stored
from trailsift.lake.index import File
from trailsift.lake.parquet import events_table, write_events
from trailsift.rules import Rules
from trailsift.sources.base import LogObject

Mask = np.ndarray[Any, np.dtype[np.bool_]]
#: A method of ``Worker`` and its arguments.
Call = tuple[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class ChunkIds:
    """The ids of a chunk, a row each, and its span of event time in microseconds."""

    ids: bytes
    checks: bytes
    min_time: int
    max_time: int


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What a chunk became: files not yet committed, and the summary lines as Arrow streams by table.

    ``stored`` rows are in the files; ``held`` (an Arrow stream) are candidates that ``firsts`` will decide on,
    ``copies`` rows that repeat an id and may say something else.
    """

    files: list[File]
    lines: dict[str, bytes]
    copies: bytes
    stored: int
    dropped: Counter[str] = field(default_factory=Counter)
    held: bytes = b""


class Worker:
    """Decodes log objects into one chunk at a time."""

    def __init__(self, root: Path, rules: Rules | None = None, bounds: Bounds = BOUNDS) -> None:
        self.root = root
        self.sifting = ColumnarRules(rules) if rules else None
        self.builder = ChunkBuilder(thin=self.sifting.drops_all if self.sifting else None)
        self.bounds = bounds
        #: The files of log objects, where rows may have to be read again: of the chunk that is decoded, of that cut.
        self._objects: dict[str, LogObject] = {}
        self._cut_objects: dict[str, LogObject] = {}
        self._chunk: Chunk | None = None
        self._waiting: deque[LogObject] = deque()
        self._reading: Iterator[ObjectStats] | None = None

    def decode(self, files: Sequence[LogObject], rows: int) -> tuple[list[ObjectStats], int]:
        """Takes log objects into the chunk: what became of each, and the chunk's size now (``ChunkBuilder.size``).

        Where that is ``rows`` in the middle of a file, the file is left there, and the next call goes on; where it was
        before, nothing is read.
        """
        self._waiting += files
        tallies: list[ObjectStats] = []
        while self._waiting and self.builder.size < rows:
            if self._reading is None:
                self._reading = self._read(self._waiting[0])
            for tally in self._reading:
                tallies.append(tally)
                if not tally.ends and self.builder.size >= rows:
                    return tallies, self.builder.size
            self._waiting.popleft()
            self._reading = None
        return tallies, self.builder.size

    def _read(self, file: LogObject) -> Iterator[ObjectStats]:
        """What becomes of each piece of a file."""
        before, known = 0, False
        try:
            for part in parts_of(file.open(), self.bounds):
                if self.sifting is not None:
                    self._objects[file.name + part.member] = file
                if part.data is not None:
                    tally = self.builder.add(file.name + part.member, part.data, part.damage)
                elif part.damage is not None:
                    tally = ObjectStats(1, Rejects([Malformed(-1, part.damage, "")]))
                else:
                    tally = ObjectStats()
                tally.member, tally.last, tally.ends, tally.offset = part.member, part.last, part.ends, before
                known |= tally.foreign is None
                if known or not part.last:
                    # One piece of a log object tells nothing of the others.
                    tally.foreign = None
                before, known = (0, False) if part.last else (before + tally.records, known)
                yield tally
        except OSError as error:
            yield ObjectStats(1, Rejects([Malformed(-1, f"cannot be read: {error.strerror or error}", "")]))

    def cut(self) -> ChunkIds | None:
        """Ends the chunk; None where it is empty. The next may be decoded before this one is written."""
        self._chunk = self.builder.finish()
        self._cut_objects, self._objects = self._objects, {}
        if not len(self._chunk):
            return None
        return ChunkIds(self._chunk.ids.tobytes(), self._chunk.checks.tobytes(), *self._chunk.span())

    def write(self, fresh: bytes, differs: bytes) -> ChunkResult:
        """Stores the rows that are new; ``differs`` are the rows that repeat an id with another text."""
        assert self._chunk is not None
        chunk = self._chunk
        self._chunk = None
        other = self._copies(chunk, np.frombuffer(differs, np.int64))
        mask = np.frombuffer(fresh, bool)
        if not mask.any():
            return ChunkResult([], {}, other, 0)
        if self.sifting is not None or (chunk.others.column("weight").to_numpy() != 1).any():
            return self._sifted(chunk, mask, other)
        new = None if mask.all() else np.flatnonzero(mask)
        table = chunk.columns(CHUNK_SCHEMA.names, new)
        return ChunkResult(write_events(table, self.root, self._events), _lines(chunk, new), other, table.num_rows)

    def _copies(self, chunk: Chunk, rows: Indices) -> bytes:
        """Rows that repeat an id with another text, packed."""
        packed = copies.pack(whole(chunk, rows, self._cut_objects, self.bounds)) if len(rows) else b""
        self._cut_objects.clear()
        return packed

    @cached_property
    def _events(self) -> schema.Table:
        return events_table(self.root)

    def _sifted(self, chunk: Chunk, mask: Mask, other: bytes) -> ChunkResult:
        """The same where rules say what is stored, here or in the stream that the rows come from. Summaries are taken
        of all new rows; wide columns are made only of the rows that stay."""
        new = np.flatnonzero(mask)
        some = None if mask.all() else new
        lines = _lines(chunk, some)
        looked_at = self.sifting.looked_at if self.sifting is not None else ()
        narrow = chunk.columns([*looked_at, "weight"], some)
        ids = chunk.ids[new]
        # What a stream has decided on stays: its lottery is the same, so a second one would say nothing new.
        given = np.asarray(narrow.column("weight"))
        before = given != 1
        if self.sifting is None:
            decided = Decided(np.full(len(new), -1), given, np.zeros(len(new), bool))
            first, rank = np.empty(0, np.int64), np.empty(0, np.uint64)
        else:
            decided = self.sifting.decide(narrow, ids)
            decided.weight[before], decided.lottery[before] = given[before], False
            first, rank = self.sifting.firsts(narrow, ids, decided)
        del narrow
        here = decided.weight > 0
        here[first] = False
        rows = np.flatnonzero(here)
        omit = self.sifting.rules.omit if self.sifting else ()
        kept = stored(chunk, new[rows], decided.weight[rows], omit)
        away = ~here
        away[first] = False
        dropped = _dropped_before(chunk, new[given == 0])
        if self.sifting is not None:
            away &= ~before
            dropped += counted(self.sifting.names, decided.rule[away], decided.weight[away])
        held = b""
        if len(first):
            rows_held = stored(chunk, new[first], decided.weight[first], omit)
            held = to_stream(candidates(rows_held, rank, decided.rule[first]))
        return ChunkResult(write_events(kept, self.root, self._events), lines, other, len(rows), dropped, held)


def _dropped_before(chunk: Chunk, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Counter[str]:
    """Rows that a stream's rules have dropped or sampled away, by rule."""
    told = Counter(chunk.columns(["rest"], rows).column(0).to_pylist() if len(rows) else ())
    by_rule: Counter[str] = Counter()
    for rest, number in told.items():
        by_rule[json.loads(rest)[DROPPED_BY]] += number
    return by_rule


def _lines(chunk: Chunk, rows: Indices | None) -> dict[str, bytes]:
    """The summary lines of some rows or of all, as Arrow streams by table."""
    summaries = Summaries(chunk.alike(NEEDED, rows))
    return {
        schema.HOURLY.name: to_stream(summaries.hourly()),
        schema.USAGE.name: to_stream(summaries.usage()),
        schema.PROFILE.name: to_stream(summaries.profile()),
    }


def to_stream(table: pa.Table) -> bytes:
    """A table as an Arrow stream."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def from_stream(data: bytes) -> pa.Table:
    """The table of an Arrow stream."""
    return pa.ipc.open_stream(data).read_all()


def serve(connection: Connection, root: Path, rules: Rules | None, bounds: Bounds) -> None:
    """The loop of a worker process: a method name and its arguments in, the result out; None ends it."""
    pa.set_cpu_count(1)
    worker = Worker(root, rules, bounds)
    # Calls are taken in while one is worked on: else two that both send more than a pipe holds would wait for ever.
    calls: SimpleQueue[Call | None] = SimpleQueue()
    threading.Thread(target=_take_in, args=(connection, calls), daemon=True).start()
    while (call := calls.get()) is not None:
        method, arguments = call
        try:
            connection.send(getattr(worker, method)(*arguments))
        except Exception as error:  # handed to the parent, which raises it
            connection.send(error)
    # All is written and handed over. To take the interpreter apart would only keep the parent waiting.
    os._exit(0)


def _take_in(connection: Connection, calls: SimpleQueue[Call | None]) -> None:
    """What to do next, as it comes; None where there is nothing more, or nobody who asks."""
    call: Call | None = None
    try:
        while (call := connection.recv()) is not None:
            calls.put(call)
    except (EOFError, ConnectionError):
        pass
    finally:
        calls.put(None)
