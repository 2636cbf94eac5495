"""The summary lines of a batch of events, and their merging.

Lines are taken from every distinct event before anything is dropped or sampled, so they are exact. Sums, minima,
maxima and sketches merge in any order to the same line: ``merge`` of the lines of two batches equals the lines of
the batches put together.

A sketch of distinct values is the sorted list of the ``SKETCH_SIZE`` smallest 64-bit hashes (k minimum values): exact
below that size; above it the standard error of the estimate is 1 / sqrt(k - 2), 2.2 %. Source: Bar-Yossef et al.,
Counting distinct elements in a data stream (2002); Beyer et al., On synopses for distinct-value estimation (2007).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import event
from trailsift.columnar import arrow_schema
from trailsift.origin import agent_family, source_network
from trailsift.pattern import key_patterns

_keys: ModuleType | None
_lines: ModuleType | None
try:
    from trailsift import _keys, _lines
except ImportError:
    # Built where there is a C compiler only.
    _keys = _lines = None

SKETCH_SIZE = 2048

_HOUR = 3_600_000_000
_DAY = 24 * _HOUR

Ints = np.ndarray[Any, np.dtype[np.int64]]

#: How each value column of a summary line is put together from several.
SUMS = ("events", "bytes_in", "bytes_out", "denied")
TIMES = ("first_time", "last_time")
SKETCHES = ("source_ips", "object_keys")


def hashes64(values: list[str]) -> Ints:
    """``hash64`` of each of many values."""
    if _keys is None:
        return np.array([hash64(value) for value in values], np.int64)
    return np.frombuffer(_keys.hashes(values), np.int64)


def hash64(value: str) -> int:
    """The hash that sketches hold: the first 8 bytes of the MD5, as a signed big-endian integer.

    Chosen because DuckDB, Trino and Spark can all compute it.
    """
    digest = hashlib.md5(value.encode(), usedforsecurity=False).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class _Codes:
    """A column as small integers, 0 for null, with the values they stand for."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        self.values: pa.Array = encoded.dictionary
        self.codes: Ints = _filled(encoded.indices) + 1
        self.size = len(self.values) + 1

    @cached_property
    def texts(self) -> list[str]:
        """The values as Python has them."""
        texts: list[str] = self.values.to_pylist()
        return texts

    def mapped(self, function: Callable[[list[str]], Sequence[str | None]]) -> _Codes:
        """The column with every value replaced by what ``function`` makes of all; equal results share a code."""
        results = pa.array(function(self.texts), pa.string())
        inner = _Codes(results)
        mapped = object.__new__(_Codes)
        mapped.values = inner.values
        mapped.codes = np.concatenate([np.zeros(1, np.int64), inner.codes])[self.codes]
        mapped.size = inner.size
        return mapped

    def take(self, rows: Ints) -> pa.Array:
        """The values of some rows."""
        codes = self.codes[rows]
        return self.values.take(pa.array(codes - 1, mask=codes == 0))


def _filled(indices: pa.Array) -> Ints:
    return np.asarray(pc.fill_null(indices, -1)).astype(np.int64)


def _grouped(key: Ints) -> tuple[Ints, Ints, Ints]:
    """The rows in an order in which equal keys stand together, where each run of them starts, and each row's run."""
    if _lines is not None:
        order, starts, group = (np.frombuffer(part, np.int64) for part in _lines.groups(np.ascontiguousarray(key)))
        return order, starts, group
    order = np.argsort(key)
    ordered = key[order]
    fresh = np.empty(len(ordered), bool)
    fresh[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(fresh) - 1
    return order, np.flatnonzero(fresh), group


class _Groups:
    """Rows that are equal in several code columns, as runs of an order of the rows. Groups come in any order."""

    def __init__(self, parts: Sequence[tuple[Ints, int]]) -> None:
        key = parts[0][0]
        span = parts[0][1]
        for codes, size in parts[1:]:
            if span * size >= 1 << 62:
                _, key = np.unique(key, return_inverse=True)
                span = int(key.max()) + 1 if len(key) else 1
            key = key * size + codes
            span *= size
        self.order, self.starts, self.of_row = _grouped(key)
        #: One row of each group.
        self.first: Ints = self.order[self.starts]

    def __len__(self) -> int:
        return len(self.starts)

    def sum(self, values: Ints) -> Ints:
        """Sum over each group."""
        return np.add.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def min(self, values: Ints) -> Ints:
        """Minimum over each group."""
        return np.minimum.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def max(self, values: Ints) -> Ints:
        """Maximum over each group."""
        return np.maximum.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def count(self) -> Ints:
        """Rows in each group."""
        return np.diff(np.append(self.starts, len(self.order)))

    def sketch(self, codes: Ints, hashes: Ints) -> pa.Array:
        """The smallest distinct hashes of each group; code 0 stands for no value, code n for the nth hash."""
        # Each value of a group once, before anything is sorted.
        order, starts, _ = _grouped(self.of_row * (len(hashes) + 1) + codes)
        rows = order[starts]
        rows = rows[codes[rows] > 0]
        return _smallest(self.of_row[rows], hashes[codes[rows] - 1], len(self))


def _by_group(group: Ints, values: Ints, groups: int) -> Ints:
    """The rows by group, those of a group by value."""
    if _lines is None:
        return np.lexsort((values, group))
    order = np.argsort(values)
    return order[np.frombuffer(_lines.by_group(group[order], groups), np.int64)]


def _smallest(group: Ints, values: Ints, groups: int) -> pa.Array:
    order = _by_group(group, values, groups)
    group, values = group[order], values[order]
    fresh = np.ones(len(group), bool)
    fresh[1:] = (group[1:] != group[:-1]) | (values[1:] != values[:-1])
    group, values = group[fresh], values[fresh]
    starts = np.searchsorted(group, np.arange(groups))
    rank = np.arange(len(group)) - starts[group]
    kept = rank < SKETCH_SIZE
    lengths = np.bincount(group[kept], minlength=groups)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values[kept]))


class Summaries:
    """The three summary tables of one batch. Columns follow ``event.HOURLY``, ``USAGE`` and ``PROFILE``."""

    def __init__(self, events: pa.Table) -> None:
        """``events``: a chunk in ``columnar.CHUNK_SCHEMA``, of distinct events."""
        self._rows = events.num_rows
        self._columns = {name: _combined(events.column(name)) for name in NEEDED}
        self._codes = {name: _Codes(self._columns[name]) for name in _CODED}
        self.time: Ints = np.asarray(self._columns["event_time"].cast(pa.int64()))
        self.bytes_in = np.asarray(pc.fill_null(self._columns["bytes_in"], 0)).astype(np.int64)
        self.bytes_out = np.asarray(pc.fill_null(self._columns["bytes_out"], 0)).astype(np.int64)
        flags = _filled(self._columns["read_only"].cast(pa.int8()))
        self.read_only = flags + 1

    def hourly(self) -> pa.Table:
        """Lines of ``hourly``."""
        names = ("account_id", "aws_region", "service", "event_name", "role_arn", "resource_arn", "error_code")
        hour, span = _offset(self.time // _HOUR)
        groups = _Groups([(hour, span), *(self._part(name) for name in names), (self.read_only, 3)])
        rows = groups.first
        columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
        columns["hour"] = _timestamps(self.time[rows] // _HOUR * _HOUR)
        columns["read_only"] = pa.array(self.read_only[rows] == 2, mask=self.read_only[rows] == 0)
        columns["source_ips"] = self._sketch(groups, "source_ip")
        columns["object_keys"] = self._sketch(groups, "object_key")
        return _table(event.HOURLY, columns, self._sums(groups))

    def usage(self) -> pa.Table:
        """Lines of ``usage``."""
        names = ("account_id", "role_arn", "service", "event_name", "resource_arn", "error_code")
        keys = self._codes["object_key"]
        patterns = keys.mapped(key_patterns)
        day, span = _offset(self.time // _DAY)
        groups = _Groups([(day, span), *(self._part(name) for name in names), (patterns.codes, patterns.size)])
        rows = groups.first
        columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in names}
        columns["day"] = _days(self.time[rows])
        columns["key_pattern"] = patterns.take(rows)
        columns["example_key"] = _smallest_text(groups, keys)
        return _table(event.USAGE, columns, self._sums(groups))

    def profile(self) -> pa.Table:
        """Lines of ``profile``."""
        values: dict[str, _Codes] = {
            "source_network": self._codes["source_ip"].mapped(lambda values: list(map(source_network, values))),
            "user_agent": self._codes["user_agent"].mapped(lambda values: list(map(agent_family, values))),
            "vpc_endpoint": self._codes["vpc_endpoint_id"],
            "session_name": self._codes["session_name"],
            "principal_account": self._codes["principal_account"],
        }
        day, span = _offset(self.time // _DAY)
        errors = self._codes["error_code"]
        refused = np.array([False, *(code in event.DENIED_CODES for code in errors.values.to_pylist())])
        denied = refused[errors.codes].astype(np.int64)
        # Most calls differ in nothing that is looked at here: they are counted once, not once a dimension.
        keys = [(day, span), self._part("account_id"), self._part("role_arn")]
        alike = _Groups([*keys, *((value.codes, value.size) for value in values.values())])
        sums = self._sums(alike) | {"denied": alike.sum(denied)}
        keys = [(codes[alike.first], size) for codes, size in keys]
        tables = []
        for dimension in event.PROFILE_DIMENSIONS:
            value = values[dimension]
            groups = _Groups([*keys, (value.codes[alike.first], value.size)])
            rows = alike.first[groups.first]
            columns: dict[str, Any] = {name: self._codes[name].take(rows) for name in ("account_id", "role_arn")}
            columns["day"] = _days(self.time[rows])
            columns["dimension"] = pa.array([dimension] * len(rows), pa.string())
            columns["value"] = value.take(rows)
            table = _table(event.PROFILE, columns, {name: _folded(groups, name, each) for name, each in sums.items()})
            tables.append(table.filter(pc.is_valid(table.column("value"))))
        return pa.concat_tables(tables)

    def _part(self, name: str) -> tuple[Ints, int]:
        return self._codes[name].codes, self._codes[name].size

    def _sketch(self, groups: _Groups, name: str) -> pa.Array:
        codes = self._codes[name]
        return groups.sketch(codes.codes, hashes64(codes.texts))

    def _sums(self, groups: _Groups) -> dict[str, Ints]:
        """What the lines of all tables count."""
        return {
            "events": groups.count(),
            "bytes_in": groups.sum(self.bytes_in),
            "bytes_out": groups.sum(self.bytes_out),
            "first_time": groups.min(self.time),
            "last_time": groups.max(self.time),
        }


def _folded(groups: _Groups, name: str, values: Ints) -> Ints:
    """A column that lines count, of several lines as one."""
    if name == "first_time":
        return groups.min(values)
    return groups.max(values) if name == "last_time" else groups.sum(values)


def _table(table: event.Table, columns: dict[str, Any], sums: dict[str, Ints]) -> pa.Table:
    for name, values in sums.items():
        columns[name] = _timestamps(values) if name in TIMES else pa.array(values)
    schema = arrow_schema(table)
    return pa.Table.from_arrays([_cast(columns[field.name], field.type) for field in schema], schema=schema)


_CODED = (
    "account_id",
    "aws_region",
    "service",
    "event_name",
    "role_arn",
    "resource_arn",
    "error_code",
    "source_ip",
    "user_agent",
    "vpc_endpoint_id",
    "session_name",
    "principal_account",
    "object_key",
)
#: Columns of ``events`` that the summaries are made of.
NEEDED = (*_CODED, "event_time", "bytes_in", "bytes_out", "read_only")


def _combined(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    combined = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(combined, pa.ChunkedArray):
        combined = combined.chunk(0) if combined.num_chunks else pa.array([], combined.type)
    return combined


def _offset(values: Ints) -> tuple[Ints, int]:
    """Values counted from their smallest, and how many there can be."""
    if not len(values):
        return values, 1
    low = int(values.min())
    return values - low, int(values.max()) - low + 1


def _timestamps(micros: Ints) -> pa.Array:
    return pa.array(micros.astype("datetime64[us]"), pa.timestamp("us", tz="UTC"))


def _days(micros: Ints) -> pa.Array:
    return pa.array((micros // _DAY).astype("datetime64[D]"))


def _cast(column: Any, kind: pa.DataType) -> pa.Array:
    return column if column.type == kind else column.cast(kind)


def _smallest_text(groups: _Groups, codes: _Codes) -> pa.Array:
    """The smallest value of each group by UTF-8 bytes; null where a group has none."""
    if _lines is not None and len(codes.values):
        _, offsets, text = codes.values.buffers()
        first = codes.values.offset * 4
        best = _lines.smallest(memoryview(offsets)[first:], text or b"", codes.codes, groups.of_row, len(groups))
        code = np.frombuffer(best, np.int64)
        return codes.values.take(pa.array(code - 1, mask=code == 0))
    order = np.asarray(pc.sort_indices(codes.values)).astype(np.int64)
    none = len(order)
    rank = np.full(codes.size, none, np.int64)
    rank[order + 1] = np.arange(none)
    smallest = groups.min(rank[codes.codes])
    found = np.append(order, 0)[smallest]
    return codes.values.take(pa.array(found, mask=smallest == none))


def merge(table: event.Table, parts: Iterable[pa.Table]) -> pa.Table:
    """One line per key from the lines of several batches of one summary table, in the table's sort order."""
    whole = pa.concat_tables(parts) if parts else arrow_schema(table).empty_table()
    if not whole.num_rows:
        return arrow_schema(table).empty_table()
    coded = {name: _Codes(_key_array(whole.column(name))) for name in table.keys}
    groups = _Groups([(codes.codes, codes.size) for codes in coded.values()])
    columns: dict[str, pa.Array] = {}
    for column in table.columns:
        values = _combined(whole.column(column.name))
        if column.name in table.keys:
            columns[column.name] = values.take(pa.array(groups.first))
        elif column.name in SUMS:
            columns[column.name] = pa.array(groups.sum(np.asarray(values)))
        elif column.name in TIMES:
            columns[column.name] = _timestamps(_folded(groups, column.name, np.asarray(values.cast(pa.int64()))))
        elif column.name in SKETCHES:
            columns[column.name] = _merge_sketches(groups, values)
        else:
            columns[column.name] = _smallest_text(groups, _Codes(values))
    merged = pa.table(columns, schema=arrow_schema(table))
    order = dict.fromkeys((*table.order, *table.keys))
    return merged.sort_by([(name, "ascending") for name in order])


def _key_array(column: pa.ChunkedArray) -> pa.Array:
    return _combined(column)


def _merge_sketches(groups: _Groups, lists: pa.Array) -> pa.Array:
    lists = lists.cast(pa.list_(pa.int64()))
    several = groups.count() > 1
    # Most keys have one line, and its sketch stays as it is.
    place = np.cumsum(several) - 1
    rows = np.flatnonzero(several[groups.of_row])
    parts = lists.take(pa.array(rows))
    group = place[groups.of_row[rows]][np.asarray(pc.list_parent_indices(parts))]
    merged = _smallest(group, np.asarray(pc.list_flatten(parts)).astype(np.int64), int(several.sum()))
    which = np.where(several, len(lists) + place, groups.first)
    return pa.concat_arrays([lists, merged]).take(pa.array(which))
