"""Records of many log objects -> a chunk of events.

Regular records share most of what they say (``regular``). They are cut by ``_scan`` where it could be built, else by
``InternTable.take``; everything that is not regular takes the careful path. All three give the same rows.
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
from trailsift.columns.arrow import CHUNK_SCHEMA, chunk_table, encoded, identities
from trailsift.decode import record as careful
from trailsift.decode.compression import FREE, gunzip, inflate_whole
from trailsift.decode.envelope import find_records
from trailsift.decode.fast_path import CallTemplate, InternTable, Row
from trailsift.decode.json_text import dump_bytes, parse, text_of
from trailsift.decode.outcome import Malformed, NotARecord, Outcome, Rejects
from trailsift.decode.unwrap import looks_like_record
from trailsift.ingest.chunk import Chunk, file_order


@dataclass(slots=True)
class ObjectStats:
    """What became of one log object's records on the way to columns."""

    records: int = 0
    malformed: Rejects = field(default_factory=Rejects)
    foreign: str | None = None
    #: Of a log object that is read in pieces, or lies in an archive: as in ``decode.parts.Part``.
    member: str = ""
    last: bool = True
    ends: bool = True
    #: Records in the pieces before this one.
    offset: int = 0


#: Texts of so many bytes are turned into Arrow columns at once: its offsets are 32 bits wide.
_TEXT_BYTES = 1 << 29


class ChunkBuilder:
    """Collects the records of many log objects and turns them into one Arrow table.

    Memory is bounded by ``flush`` every ``step`` records: Python objects live only until then. ``scan`` False does
    without ``_scan``. Of records that ``thin`` names the texts may be missing (``Chunk.thin``).
    """

    def __init__(
        self, step: int = 8_192, *, scan: bool = True, thin: Callable[[CallTemplate], bool] | None = None
    ) -> None:
        self.step = step
        self.rows = self.thin = 0
        self._shared = InternTable(thin)
        self._scanner = (
            _native.scan.Scanner(self._shared, isal_zlib.crc32) if scan and _native.scan is not None else None
        )
        self._start()

    def _start(self, in_use: int = 0) -> None:
        self._rows: list[Row] = []
        self._objects: list[str] = []
        self._checks: list[int] = []
        self._scanned: list[str] = []
        self._slow: list[dict[str, Any]] = []
        self._slow_checks: list[int] = []
        self._parts: list[_Part] = []
        self._slow_parts: list[_Part] = []
        self.rows = self.thin = 0
        if self._shared.trim(in_use) and self._scanner is not None:
            self._scanner.forget_names()

    @property
    def size(self) -> int:
        """Rows, of which four thin ones take the room of one."""
        return self.rows - 3 * self.thin // 4

    def add(self, log_object: str, data: bytes | bytearray, damage: str | None = None) -> ObjectStats:
        """Decodes one log object. Nothing raises; what cannot be used is in the tally.

        ``damage``: what is wrong with the end of ``data``, where that is known already.
        """
        tally = self._add_scanned(log_object, data) if self._scanner is not None and damage is None else None
        if tally is None:
            tally = self._add_found(log_object, bytes(data), damage)
        if len(self._rows) + len(self._slow) >= self.step or (
            self._scanner is not None and self._scanner.size >= _TEXT_BYTES
        ):
            self.flush()
        return tally

    def _add_scanned(self, log_object: str, data: bytes | bytearray) -> ObjectStats | None:
        """Takes a log object in CloudTrail's own form; None, and nothing taken, where it is of another."""
        scanner = self._scanner
        assert scanner is not None
        text = _unpacked(data)
        before, thin = scanner.rows, scanner.thin
        scanned = None if text is None else scanner.scan(text, len(self._scanned))
        if text is None or scanned is None:
            return None
        records, others = scanned
        raws = [bytes(text[start:end]) for _, start, end in others]
        irregular = self._add_fast(log_object, raws)
        if not all(_is_record(raws[at]) for at in irregular):
            # It begins like records but holds something else (S3's notifications).
            scanner.keep(before)
            self._forget(len(raws) - len(irregular))
            return None
        self.rows += scanner.rows - before
        self.thin += scanner.thin - thin
        self._scanned.append(log_object)
        tally = ObjectStats(records)
        self._add_slow(log_object, [(others[at][0], raws[at]) for at in irregular], tally)
        return tally

    def _add_found(self, log_object: str, data: bytes, damage: str | None) -> ObjectStats:
        """Takes a log object of any form."""
        found = find_records(data, damage=damage)
        irregular = self._add_fast(log_object, found.records)
        if found.cut and not all(_is_record(found.records[at]) for at in irregular):
            # The text was cut in the wrong place somewhere, or holds what begins like records but is none (S3's
            # notifications): forget what was taken and read it whole.
            self._forget(len(found.records) - len(irregular))
            found = find_records(data, cut=False, damage=damage)
            irregular = self._add_fast(log_object, found.records)
        tally = ObjectStats(len(found.records) + found.malformed.parts, found.malformed, found.not_cloudtrail)
        self._add_slow(log_object, [(at, bytes(found.records[at])) for at in irregular], tally)
        return tally

    def _forget(self, count: int) -> None:
        if count:
            del self._rows[-count:], self._objects[-count:], self._checks[-count:]
            self.rows -= count

    def _add_fast(self, log_object: str, raws: Sequence[bytes | memoryview]) -> list[int]:
        """Takes every regular record; the positions of the others."""
        irregular: list[int] = []
        rows, checks = self._rows, self._checks
        crc, take = isal_zlib.crc32, self._shared.take
        for at, raw in enumerate(raws):
            row = take(raw)
            if row is None:
                irregular.append(at)
            else:
                rows.append(row)
                checks.append(crc(raw))
        regular = len(raws) - len(irregular)
        self._objects += [log_object] * regular
        self.rows += regular
        return irregular

    def _add_slow(self, log_object: str, records: Sequence[tuple[int, bytes]], tally: ObjectStats) -> None:
        """Takes records, each with its position in the log object, by the careful path."""
        for at, raw in records:
            value = parse(raw)
            if isinstance(value, dict):
                self._take_slow(log_object, at, value, raw, tally)
            else:
                tally.malformed.keep(Malformed(at, "not JSON", text_of(raw)))

    def _take_slow(self, log_object: str, at: int, value: dict[str, Any], raw: bytes, tally: ObjectStats) -> None:
        try:
            row = careful.row(value, log_object)
            check = isal_zlib.crc32(dump_bytes(value))
        except NotARecord as error:
            tally.malformed.keep(Malformed(at, str(error), text_of(raw)))
            return
        except Exception as error:
            # One record that we did not foresee must not end the ingest of all others; it is kept whole in `rejects`.
            tally.malformed.keep(Malformed(at, f"unforeseen: {type(error).__name__}: {error}", text_of(raw)))
            return
        self._slow.append(row)
        self._slow_checks.append(check)
        self.rows += 1

    def flush(self) -> None:
        """Turns what was collected into Arrow columns and lets the Python objects go."""
        if self._scanner is not None and self._scanner.rows:
            self._parts.append(_scanned_part(self._scanner.take(), self._scanned))
            self._scanned = []
        if self._rows:
            ids = identities([row.event_id for row in self._rows])
            self._parts.append(_Part(_row_table(self._rows, self._objects), ids, np.array(self._checks, np.uint32)))
            self._rows, self._objects, self._checks = [], [], []
        if self._slow:
            ids = identities([row["event_id"] for row in self._slow])
            self._slow_parts.append(_Part(_slow_table(self._slow), ids, np.array(self._slow_checks, np.uint32)))
            self._slow, self._slow_checks = [], []

    def finish(self) -> Chunk:
        """The rows so far; the builder is empty afterwards and keeps its caches."""
        self.flush()
        parts = [*self._parts, *self._slow_parts]
        ids = np.concatenate([np.empty(0, "V16"), *(part.ids for part in parts)])
        checks = np.concatenate([np.empty(0, np.uint32), *(part.checks for part in parts)])
        own, order, in_use = None, np.empty(0, np.int64), 0
        # Of most rows nothing is stored then, and summaries ask for no order.
        as_read = 2 * self.thin > self.rows
        if self._parts:
            own = pa.concat_tables([part.table for part in self._parts], promote_options="permissive").combine_chunks()
            if as_read:
                order = np.arange(len(own))
            else:
                order = file_order(own, self._shared)
                ids[: len(order)], checks[: len(order)] = ids[order], checks[order]
            in_use = max(len(pc.unique(own.column(kind))) for kind in ("who", "place", "what"))
        others = pa.concat_tables([CHUNK_SCHEMA.empty_table(), *(part.table for part in self._slow_parts)])
        shared = self._shared
        known = shared.who, shared.place, shared.what
        chunk = Chunk(own, order, *known, others.combine_chunks(), ids, checks, as_read)
        self._start(in_use)
        return chunk


class _Part(NamedTuple):
    """Some rows: their own columns (regular ones) or all columns (the others), ids and checksums."""

    table: pa.Table
    ids: np.ndarray[Any, np.dtype[np.void]]
    checks: np.ndarray[Any, np.dtype[np.uint32]]


def _unpacked(data: bytes | bytearray) -> bytes | bytearray | None:
    """What a gzip file holds, or the text that ``data`` is itself; None where something is wrong with it."""
    if data[:2] != b"\x1f\x8b":
        return data
    text = inflate_whole(data, FREE)
    if text is not None:
        return text
    found = Outcome()
    piece = gunzip(bytes(data), found)
    return None if piece.damage is not None or found.malformed else piece.data


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
#: Where _scan says whether there is a number at all.
_HAS = {"bytes_in": "has_in", "bytes_out": "has_out"}


def _row_table(rows: list[Row], objects: list[str]) -> pa.Table:
    """What the rows have for themselves, a column each field of Row, and the log object."""
    columns = {
        name: pa.array(values, _ROW_TYPES.get(name, pa.string()))
        for name, values in zip(Row._fields, zip(*rows, strict=True), strict=True)
    }
    columns["log_object"] = encoded(objects)
    return pa.table(columns)


def _scanned_part(columns: dict[str, Any], objects: list[str]) -> _Part:
    """The rows of ``Scanner.take``, in the columns of ``_row_table``."""
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
    checks = np.frombuffer(columns["check"], np.uint32)
    return _Part(pa.table(own), np.frombuffer(columns["id"], "V16"), checks)


def _slow_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Columns of careful rows, in CHUNK_SCHEMA."""
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in CHUNK_SCHEMA.names}
    return chunk_table(columns)
