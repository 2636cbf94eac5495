"""Records whose texts were not kept (``Chunk.thin``), read again from their log objects.

That is seldom asked for: where an event comes twice with different texts and the rules drop it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.decode.stream import Bounds, parts_of
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder
from trailsift.sources.base import LogObject

Rows = np.ndarray[Any, np.dtype[np.int64]]

#: Rows held at a time, beside those that were asked for.
_AT_ONCE = 20_000


def whole(chunk: Chunk, rows: Rows, objects: Mapping[str, LogObject], bounds: Bounds) -> pa.Table:
    """Some rows of a chunk with all their columns, those with their texts first.

    ``objects`` are the files of the chunk's log objects by ``log_object``. Rows whose log object has gone in the
    meantime are left out.
    """
    thin = chunk.thin(rows)
    parts = [chunk.columns(CHUNK_SCHEMA.names, rows[~thin])]
    names = chunk.columns(["log_object"], rows[thin]).column(0).to_pylist()
    wanted: dict[str, Counter[tuple[bytes, int]]] = {}
    for name, row in zip(names, rows[thin].tolist(), strict=True):
        wanted.setdefault(name, Counter())[chunk.ids[row].tobytes(), int(chunk.checks[row])] += 1
    for file in {file.name: file for file in map(objects.__getitem__, wanted)}.values():
        for again in _read(file, bounds):
            parts.append(again.columns(CHUNK_SCHEMA.names, _chosen(again, wanted)))
    return pa.concat_tables(parts)


def _read(file: LogObject, bounds: Bounds) -> Iterator[Chunk]:
    builder = ChunkBuilder()
    try:
        for part in parts_of(file.open(), bounds):
            if part.data is not None:
                builder.add(file.name + part.member, part.data, part.damage)
            if builder.rows >= _AT_ONCE:
                yield builder.finish()
    except OSError:
        return
    yield builder.finish()


def _chosen(chunk: Chunk, wanted: Mapping[str, Counter[tuple[bytes, int]]]) -> Rows:
    """The rows that are wanted, which are taken off what is wanted."""
    checks = np.array([check for keys in wanted.values() for _, check in keys], np.uint32)
    candidates = np.flatnonzero(np.isin(chunk.checks, checks))
    chosen = []
    names = chunk.columns(["log_object"], candidates).column(0).to_pylist()
    for name, row in zip(names, candidates.tolist(), strict=True):
        left, key = wanted.get(name), (chunk.ids[row].tobytes(), int(chunk.checks[row]))
        if left is not None and left[key] > 0:
            left[key] -= 1
            chosen.append(row)
    return np.array(chosen, np.int64)
