"""Records of many log objects -> a chunk of events.

Regular records share most of their text (``decode.fast_path``). The C scanner parses them if it was built, else
``InternTable.take``; all other records take the slow path (``decode.record``). All three give the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from isal import isal_zlib

from trailsift import _native
from trailsift.columns.arrays import Checksums, Ids
from trailsift.columns.arrow import CHUNK_SCHEMA, chunk_table, encoded, identities
from trailsift.decode import record
from trailsift.decode.compression import gunzip, inflate_whole
from trailsift.decode.envelope import find_records
from trailsift.decode.fast_path import CallTemplate, InternTable, Row
from trailsift.decode.json_text import dump_bytes, is_too_deep, parse, text_of
from trailsift.decode.limits import Budget, OverBudgetError
from trailsift.decode.outcome import Malformed, NotARecord, Rejects
from trailsift.decode.unwrap import looks_like_record
from trailsift.ingest.chunk import Chunk, file_order
from trailsift.sources.base import NotFetchedError


@dataclass(slots=True)
class ObjectStats:
    """The outcome for the records of one log object, or of one piece of it."""

    records: int = 0
    malformed: Rejects = field(default_factory=Rejects)
    foreign: str | None = None
    #: The kind of another file of the bucket (``decode.other_files``).
    other: str | None = None
    #: For an object that is read in pieces, or a member of an archive: as in ``decode.stream.Part``.
    member: str = ""
    last: bool = True
    ends: bool = True
    #: Number of records in the pieces before this one.
    offset: int = 0
    #: Why the object could not be fetched this time.
    missed: NotFetchedError | None = None


#: Texts of this size in bytes are turned into Arrow columns at once, whose offsets have 32 bits.
_TEXT_BYTES = 1 << 29
#: Longer texts are not scanned, which holds all places of unusual records at once.
_SCANNED_BYTES = 1 << 26
#: Unusual records in a text, above which it is read in the other way: what holds their places takes more than they do.
_MANY_OTHERS = 100_000
#: Records after which malformed ones are counted in the budget.
_CHECKED = 10_000


class ChunkBuilder:
    """Collects the records of many log objects and turns them into a chunk.

    ``flush`` every ``step`` records bounds the memory: Python objects live only until then. ``scan`` False does without
    the C scanner. Records whose template ``project`` accepts may be stored without their texts (``Chunk.projected``).
    """

    def __init__(
        self, step: int = 8_192, *, scan: bool = True, project: Callable[[CallTemplate], bool] | None = None
    ) -> None:
        self.step = step
        self.rows = self.projected = 0
        self._shared = InternTable(project)
        self._scanner = (
            _native.scan.Scanner(self._shared, isal_zlib.crc32) if scan and _native.scan is not None else None
        )
        self._start()

    def _start(self, in_use: int = 0) -> None:
        self._rows: list[Row] = []
        self._objects: list[str] = []
        self._crc32: list[int] = []
        self._scanned: list[str] = []
        self._slow: list[dict[str, Any]] = []
        self._slow_crc32: list[int] = []
        self._parts: list[_Part] = []
        self._slow_parts: list[_Part] = []
        self.rows = self.projected = 0
        if self._shared.trim(in_use) and self._scanner is not None:
            self._scanner.forget_names()

    @property
    def size(self) -> int:
        """Number of rows, where four projected ones count as one."""
        return self.rows - 3 * self.projected // 4

    def add(
        self, log_object: str, data: bytes | bytearray, damage: str | None = None, budget: Budget | None = None
    ) -> ObjectStats:
        """Decode one log object. Nothing raises; what cannot be used is in the stats.

        ``damage``: what is already known to be wrong with the end of ``data``; ``budget``: that of the file which it
        comes from.
        """
        if budget is None:
            budget = Budget(packed=len(data))
        stats = None
        if self._scanner is not None and damage is None and len(data) <= _SCANNED_BYTES:
            left = budget.snapshot()
            stats = self._add_scanned(log_object, data, budget)
            if stats is None:
                budget.restore(left)
        if stats is None:
            stats = self._add_any_form(log_object, bytes(data), damage, budget)
        budget.records += stats.records
        if len(self._rows) + len(self._slow) >= self.step or (
            self._scanner is not None and self._scanner.size >= _TEXT_BYTES
        ):
            self.flush()
        return stats

    def _add_scanned(self, log_object: str, data: bytes | bytearray, budget: Budget) -> ObjectStats | None:
        """Add a log object in CloudTrail's own form. Return None, with nothing added, if it has another form."""
        scanner = self._scanner
        assert scanner is not None
        text = _unpacked(data, budget)
        before, projected_before = scanner.rows, scanner.thin
        scanned = None if text is None else scanner.scan(text, len(self._scanned))
        if text is None or scanned is None:
            return None
        records, others = scanned
        if len(others) > _MANY_OTHERS:
            scanner.keep(before)
            return None
        raws = [bytes(text[start:end]) for _, start, end in others]
        irregular = self._add_fast(log_object, raws)
        if not all(_is_record(raws[at]) for at in irregular):
            # It begins like records but is something else (S3's notifications).
            scanner.keep(before)
            self._forget(len(raws) - len(irregular))
            return None
        self.rows += scanner.rows - before
        self.projected += scanner.thin - projected_before
        self._scanned.append(log_object)
        stats = ObjectStats(records)
        self._add_slow(log_object, [(others[at][0], raws[at]) for at in irregular], stats, budget)
        return stats

    def _add_any_form(self, log_object: str, data: bytes, damage: str | None, budget: Budget) -> ObjectStats:
        """Add a log object of any form."""
        left = budget.snapshot()
        outcome = find_records(data, damage=damage, budget=budget)
        irregular = self._add_fast(log_object, outcome.records)
        if outcome.cut and not all(_is_record(outcome.records[at]) for at in irregular):
            # The text was cut in a wrong place, or holds something that only begins like records (S3's notifications):
            # forget its records and parse it as a whole.
            self._forget(len(outcome.records) - len(irregular))
            budget.restore(left)
            outcome = find_records(data, cut=False, damage=damage, budget=budget)
            irregular = self._add_fast(log_object, outcome.records)
        stats = ObjectStats(len(outcome.records) + outcome.malformed.parts, outcome.malformed, outcome.not_cloudtrail)
        self._add_slow(log_object, [(at, bytes(outcome.records[at])) for at in irregular], stats, budget)
        return stats

    def _forget(self, count: int) -> None:
        if count:
            del self._rows[-count:], self._objects[-count:], self._crc32[-count:]
            self.rows -= count

    def _add_fast(self, log_object: str, raws: Sequence[bytes | memoryview]) -> list[int]:
        """Add all regular records. Return the positions of the others."""
        irregular: list[int] = []
        rows, checksums = self._rows, self._crc32
        crc32, take = isal_zlib.crc32, self._shared.take
        for at, raw in enumerate(raws):
            try:
                row = take(raw)
            except RecursionError:
                # The slow path finds the same, and rejects this record alone: it is nested too deeply.
                row = None
            if row is None:
                irregular.append(at)
            else:
                rows.append(row)
                checksums.append(crc32(raw))
        regular = len(raws) - len(irregular)
        self._objects += [log_object] * regular
        self.rows += regular
        return irregular

    def _add_slow(
        self, log_object: str, records: Sequence[tuple[int, bytes]], stats: ObjectStats, budget: Budget
    ) -> None:
        """Add records, each with its position in the log object, by the slow path."""
        before, rows = stats.malformed.parts, self.rows
        for number, (at, raw) in enumerate(records):
            if number % _CHECKED == _CHECKED - 1:
                parts = stats.malformed.parts
                try:
                    budget.take_malformed(parts - before, self.rows - rows)
                except OverBudgetError as error:
                    stats.malformed.keep(Malformed(-1, str(error), "", len(records) - number))
                    return
                before = parts
            if number % self.step == self.step - 1:
                # Bounds the memory: each is a dict of all columns until then.
                self.flush()
            value = parse(raw)
            if is_too_deep(raw):
                stats.malformed.keep(Malformed(at, "nested too deeply", text_of(raw)))
            elif isinstance(value, dict):
                self._take_slow(log_object, at, value, raw, stats)
            else:
                stats.malformed.keep(Malformed(at, "not JSON", text_of(raw)))

    def _take_slow(self, log_object: str, at: int, value: dict[str, Any], raw: bytes, stats: ObjectStats) -> None:
        try:
            row = record.row(value, log_object)
            checksum = isal_zlib.crc32(dump_bytes(value))
        except NotARecord as error:
            stats.malformed.keep(Malformed(at, str(error), text_of(raw)))
            return
        except RecursionError:
            stats.malformed.keep(Malformed(at, "nested too deeply", text_of(raw)))
            return
        except Exception as error:
            # One unforeseen record must not end the ingest of all others; it is kept whole in `rejects`.
            stats.malformed.keep(Malformed(at, f"unforeseen: {type(error).__name__}: {error}", text_of(raw)))
            return
        self._slow.append(row)
        self._slow_crc32.append(checksum)
        self.rows += 1

    def flush(self) -> None:
        """Turn the rows collected so far into Arrow columns and release the Python objects."""
        if self._scanner is not None and self._scanner.rows:
            self._parts.append(_scanned_part(self._scanner.take(), self._scanned))
            self._scanned = []
        if self._rows:
            ids = identities([row.event_id for row in self._rows])
            self._parts.append(_Part(_row_table(self._rows, self._objects), ids, np.array(self._crc32, np.uint32)))
            self._rows, self._objects, self._crc32 = [], [], []
        if self._slow:
            ids = identities([row["event_id"] for row in self._slow])
            self._slow_parts.append(_Part(_slow_table(self._slow), ids, np.array(self._slow_crc32, np.uint32)))
            self._slow, self._slow_crc32 = [], []

    def finish(self) -> Chunk:
        """Return the rows so far as a chunk; the builder is empty afterwards and keeps its caches."""
        self.flush()
        parts = [*self._parts, *self._slow_parts]
        ids = np.concatenate([np.empty(0, "V16"), *(part.ids for part in parts)])
        crc32 = np.concatenate([np.empty(0, np.uint32), *(part.crc32 for part in parts)])
        own, order, in_use = None, np.empty(0, np.int64), 0
        # Most rows are dropped, and summaries ignore the order: skip the sort.
        as_read = 2 * self.projected > self.rows
        if self._parts:
            own = pa.concat_tables([part.table for part in self._parts], promote_options="permissive").combine_chunks()
            if as_read:
                order = np.arange(len(own))
            else:
                order = file_order(own, self._shared)
                ids[: len(order)], crc32[: len(order)] = ids[order], crc32[order]
            in_use = max(len(pc.unique(own.column(kind))) for kind in ("who", "place", "what"))
        others = pa.concat_tables([CHUNK_SCHEMA.empty_table(), *(part.table for part in self._slow_parts)])
        shared = self._shared.who, self._shared.place, self._shared.what
        chunk = Chunk(own, order, *shared, others.combine_chunks(), ids, crc32, as_read)
        self._start(in_use)
        return chunk


class _Part(NamedTuple):
    """Some rows: the columns that differ per row (fast path) or all columns (slow path), ids and checksums."""

    table: pa.Table
    ids: Ids
    crc32: Checksums


def _unpacked(data: bytes | bytearray, budget: Budget) -> bytes | bytearray | None:
    """Return the text of a gzip file, or ``data`` if it is not one; None if it is damaged."""
    if data[:2] != b"\x1f\x8b":
        return data
    text = inflate_whole(data, min(budget.text_room, budget.limits.whole))
    if text is not None:
        budget.spend(len(text))
        return text
    piece = gunzip(bytes(data), budget)
    return piece.data if piece.damage is None else None


def _is_record(raw: bytes | memoryview) -> bool:
    value = parse(bytes(raw))
    return isinstance(value, dict) and looks_like_record(value)


# -- rows of one kind ------------------------------------------------------------------------------------------------


_ROW_TYPES: dict[str, pa.DataType] = {
    "who": pa.int32(),
    "place": pa.int32(),
    "what": pa.int32(),
    "event_time": pa.int64(),
    "bytes_in": pa.int64(),
    "bytes_out": pa.int64(),
}
#: The scanner's validity bits of nullable numbers.
_HAS = {"bytes_in": "has_in", "bytes_out": "has_out"}


def _row_table(rows: list[Row], objects: list[str]) -> pa.Table:
    """Return the columns that differ per row: one per field of Row, and the log object."""
    columns = {
        name: pa.array(values, _ROW_TYPES.get(name, pa.string()))
        for name, values in zip(Row._fields, zip(*rows, strict=True), strict=True)
    }
    columns["log_object"] = encoded(objects)
    return pa.table(columns)


def _scanned_part(columns: dict[str, Any], objects: list[str]) -> _Part:
    """Return the rows of ``Scanner.take``, in the columns of ``_row_table``."""
    rows = len(columns["what"]) // 4

    def numbers(name: str, kind: pa.DataType, valid: str | None = None) -> pa.Array:
        bits = columns[valid] if valid else None
        return pa.Array.from_buffers(kind, rows, [bits and pa.py_buffer(bits), pa.py_buffer(columns[name])])

    def texts(name: str) -> pa.Array:
        bits, offsets, data = columns[name]
        buffers = [bits and pa.py_buffer(bits), pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.string(), rows, buffers)

    own: dict[str, Any] = {}
    for name in Row._fields:
        kind = _ROW_TYPES.get(name)
        own[name] = texts(name) if kind is None else numbers(name, kind, _HAS.get(name))
    own["log_object"] = pa.DictionaryArray.from_arrays(numbers("object", pa.int32()), pa.array(objects, pa.string()))
    crc32 = np.frombuffer(columns["check"], np.uint32)
    return _Part(pa.table(own), np.frombuffer(columns["id"], "V16"), crc32)


def _slow_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Return slow-path rows as columns, in CHUNK_SCHEMA."""
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in CHUNK_SCHEMA.names}
    return chunk_table(columns)
