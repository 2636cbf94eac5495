"""Our tables in Arrow: schemas, dictionary-encoded columns, sorting, and event ids as 16 bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import schema
from trailsift.columns.arrays import Ids, Ints

_ARROW: dict[str, pa.DataType] = {
    "timestamp": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
}

#: Columns whose values rarely repeat; the others are dictionary-encoded in memory.
_VARIED = frozenset(
    {
        "event_id",
        "error_message",
        "object_key",
        "source_object_key",
        "request_id",
        "shared_event_id",
        "response_elements",
        "additional_event_data",
        "resources",
    }
)

#: Partition columns, which are derived from event_time when a file is written.
_DERIVED = frozenset({"year", "month", "day", "hour"})


def arrow_schema(table: schema.Table, *, partitions: bool = True) -> pa.Schema:
    """Return the Arrow schema of one of our tables."""
    columns = [c for c in table.columns if partitions or table is not schema.EVENTS or c.name not in _DERIVED]
    return pa.schema([pa.field(c.name, _ARROW[c.type]) for c in columns])


def _chunk_type(column: schema.Column) -> pa.DataType:
    if column.type == "string" and column.name not in _VARIED:
        return pa.dictionary(pa.int32(), pa.string())
    return _ARROW[column.type]


#: A chunk of events in memory: without partition columns, columns of low cardinality dictionary-encoded.
CHUNK_SCHEMA = pa.schema([pa.field(c.name, _chunk_type(c)) for c in schema.EVENTS.columns if c.name not in _DERIVED])


def encoded(values: Sequence[Any]) -> pa.DictionaryArray:
    """Return texts as a dictionary-encoded array."""
    return pa.array(values, pa.string()).dictionary_encode()


def ranks(column: pa.Array) -> tuple[Ints, list[str | None]]:
    """Return each row's rank in the order of the values (null first), and the value of each rank."""
    encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
    values = encoded.dictionary
    order = np.asarray(pc.sort_indices(values)).astype(np.int64)
    rank = np.zeros(len(values) + 1, np.int64)
    rank[order + 1] = np.arange(1, len(values) + 1)
    codes = np.asarray(pc.fill_null(encoded.indices, -1)).astype(np.int64) + 1
    return rank[codes], [None, *values.take(pa.array(order)).to_pylist()]


def ordered(*keys: Ints) -> Ints:
    """Return the rows sorted by several keys, the first key first; rows already in order stay as they are."""
    combined, span = np.zeros(len(keys[0]), np.int64), 1
    for key in keys:
        low = int(key.min()) if len(key) else 0
        size = int(key.max()) - low + 1 if len(key) else 1
        span *= size
        if span >= 1 << 62:
            return np.lexsort(keys[::-1])
        # Sorting one number is several times as fast as sorting four.
        combined = combined * size + (key - low)
    if (combined[1:] >= combined[:-1]).all():
        return np.arange(len(combined))
    return np.argsort(combined)


def chunk_table(columns: dict[str, Any], names: Sequence[str] = CHUNK_SCHEMA.names) -> pa.Table:
    """Return columns, which may be lists, as a table with some columns of CHUNK_SCHEMA."""
    arrays = []
    fields = pa.schema([CHUNK_SCHEMA.field(name) for name in names])
    for column in fields:
        values = columns[column.name]
        if not isinstance(values, pa.Array | pa.ChunkedArray):
            encode = pa.types.is_dictionary(column.type)
            values = encoded(values) if encode else pa.array(values, column.type)
        arrays.append(values)
    return pa.Table.from_arrays(arrays, schema=fields)


#: Value of each hexadecimal digit, 255 for other bytes.
_NIBBLE = np.full(256, 255, np.uint8)
_NIBBLE[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
#: Positions in a UUID.
_DASHES = (8, 13, 18, 23)
_DIGITS = [at for at in range(36) if at not in _DASHES]


def identities(event_ids: list[str]) -> Ids:
    """Return 16 bytes per event id: those of a UUID in its usual form, else the MD5 of the text."""
    # One byte more than a UUID has, to recognize longer ids.
    texts = np.array([text.encode() for text in event_ids], "S37")
    letters = texts.view(np.uint8).reshape(len(texts), 37)
    nibbles = _NIBBLE[letters[:, _DIGITS]]
    # By its length too: NumPy pads shorter texts with NULs, and an id may end in one.
    is_uuid = np.fromiter(map(len, event_ids), np.int64, len(event_ids)) == 36
    is_uuid &= (nibbles < 16).all(axis=1) & (letters[:, _DASHES] == 45).all(axis=1) & (letters[:, 36] == 0)
    packed = ((nibbles[:, 0::2] << 4) | (nibbles[:, 1::2] & 15)).astype(np.uint8)
    for row in np.flatnonzero(~is_uuid).tolist():
        digest = hashlib.md5(event_ids[row].encode(), usedforsecurity=False).digest()
        packed[row] = np.frombuffer(digest, np.uint8)
    return np.ascontiguousarray(packed).view("V16").reshape(len(texts))
