"""Projected records (``Chunk.projected``), read again from their log objects with all their texts.

This is rarely needed: only if an event comes twice with different texts and the rules drop it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import numpy as np
import pyarrow as pa

from trailsift.columns.arrays import Ints
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.decode.limits import Budget, Limits
from trailsift.decode.stream import parts_of
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.sources.base import LogObject

#: Rows held at a time, beside those to return.
_AT_ONCE = 20_000


def reread(chunk: Chunk, rows: Ints, objects: Mapping[str, LogObject], bounds: Limits) -> pa.Table:
    """Return some rows of a chunk with all their columns, those that were not projected first.

    ``objects``: the chunk's log objects by ``log_object``. Rows whose log object is gone by now are left out.
    """
    projected = chunk.projected(rows)
    parts = [chunk.columns(CHUNK_SCHEMA.names, rows[~projected])]
    names = chunk.columns(["log_object"], rows[projected]).column(0).to_pylist()
    missing: dict[str, Counter[tuple[bytes, int]]] = {}
    for name, row in zip(names, rows[projected].tolist(), strict=True):
        missing.setdefault(name, Counter())[chunk.ids[row].tobytes(), int(chunk.crc32[row])] += 1
    for file in {file.name: file for file in map(objects.__getitem__, missing)}.values():
        for full in _read(file, bounds):
            parts.append(full.columns(CHUNK_SCHEMA.names, _take_missing(full, missing)))
    return pa.concat_tables(parts)


def _read(file: LogObject, bounds: Limits) -> Iterator[Chunk]:
    """Yield the records of a file in chunks, with all their texts."""
    builder = ChunkBuilder()
    budget = Budget(bounds)
    try:
        for part in parts_of(file.open(), budget):
            if part.data is not None:
                builder.add(file.name + part.member, part.data, part.damage, budget)
            if builder.rows >= _AT_ONCE:
                yield builder.finish()
    except OSError:
        return
    yield builder.finish()


def _take_missing(chunk: Chunk, missing: Mapping[str, Counter[tuple[bytes, int]]]) -> Ints:
    """Return the chunk's rows that are missing, and subtract them from ``missing``."""
    checksums = np.array([checksum for keys in missing.values() for _, checksum in keys], np.uint32)
    candidates = np.flatnonzero(np.isin(chunk.crc32, checksums))
    rows = []
    names = chunk.columns(["log_object"], candidates).column(0).to_pylist()
    for name, row in zip(names, candidates.tolist(), strict=True):
        left, key = missing.get(name), (chunk.ids[row].tobytes(), int(chunk.crc32[row]))
        if left is not None and left[key] > 0:
            left[key] -= 1
            rows.append(row)
    return np.array(rows, np.int64)
