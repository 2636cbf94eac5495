"""Group rows by several columns, each as small integers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import _native
from trailsift.columns.arrays import Ints


class DictionaryColumn:
    """A column as small integers (0: null), and the values they stand for."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        self.values: pa.Array = encoded.dictionary
        self.codes: Ints = filled(encoded.indices) + 1
        self.size = len(self.values) + 1

    @cached_property
    def texts(self) -> list[str]:
        """The values as Python strings."""
        texts: list[str] = self.values.to_pylist()
        return texts

    def mapped(self, function: Callable[[list[str]], Sequence[str | None]]) -> DictionaryColumn:
        """Return the column with all values replaced by ``function`` of them; equal results share a code."""
        return self.replaced(pa.array(function(self.texts), pa.string()).dictionary_encode())

    def replaced(self, results: pa.DictionaryArray) -> DictionaryColumn:
        """Return the column with every value replaced by the result at its place."""
        each = DictionaryColumn(results)
        return DictionaryColumn._of(each.values, np.concatenate([np.zeros(1, np.int64), each.codes])[self.codes])

    def at(self, rows: Ints) -> DictionaryColumn:
        """Return the column of some rows."""
        return DictionaryColumn._of(self.values, self.codes[rows])

    @staticmethod
    def _of(values: pa.Array, codes: Ints) -> DictionaryColumn:
        column = object.__new__(DictionaryColumn)
        column.values, column.codes, column.size = values, codes, len(values) + 1
        return column

    def take(self, rows: Ints) -> pa.Array:
        """Return the values of some rows."""
        codes = self.codes[rows]
        return self.values.take(pa.array(codes - 1, mask=codes == 0))


def text_buffers(values: pa.StringArray) -> tuple[memoryview, Any]:
    """Return the offsets (one more than there are texts) and the bytes of all texts; there must be at least one."""
    _, ends, text = values.buffers()
    first = values.offset * 4
    return memoryview(ends)[first : first + 4 * len(values) + 4], text or b""


def filled(indices: pa.Array) -> Ints:
    """Return integers with -1 for null."""
    return np.asarray(pc.fill_null(indices, -1)).astype(np.int64)


def grouped(key: Ints) -> tuple[Ints, Ints, Ints]:
    """Return the rows ordered so that equal keys are adjacent, the start of each run of them, and each row's run."""
    if _native.groups is not None:
        order, starts, group = (
            np.frombuffer(part, np.int64) for part in _native.groups.groups(np.ascontiguousarray(key))
        )
        return order, starts, group
    order = np.argsort(key)
    ordered = key[order]
    is_start = np.empty(len(ordered), bool)
    is_start[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=is_start[1:])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(is_start) - 1
    return order, np.flatnonzero(is_start), group


class GroupBy:
    """Groups of rows that are equal in several columns of codes. Groups are in no particular order."""

    def __init__(self, parts: Sequence[tuple[Ints, int]]) -> None:
        """``parts``: each column's codes, and the number of possible codes."""
        key, span = parts[0]
        for codes, size in parts[1:]:
            if span * size >= 1 << 62:
                _, key = np.unique(key, return_inverse=True)
                span = int(key.max()) + 1 if len(key) else 1
            key = key * size + codes
            span *= size
        self.order, self.starts, self.of_row = grouped(key)
        #: One row per group.
        self.first: Ints = self.order[self.starts]

    def __len__(self) -> int:
        return len(self.starts)

    def sum(self, values: Ints) -> Ints:
        """Return the sum per group."""
        return np.add.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def min(self, values: Ints) -> Ints:
        """Return the minimum per group."""
        return np.minimum.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def max(self, values: Ints) -> Ints:
        """Return the maximum per group."""
        return np.maximum.reduceat(values[self.order], self.starts) if len(self) else values[:0]

    def count(self) -> Ints:
        """Return the number of rows per group."""
        return np.diff(np.append(self.starts, len(self.order)))


def by_group(group: Ints, values: Ints, groups: int) -> Ints:
    """Return the rows ordered by group, then by value."""
    if _native.groups is None:
        return np.lexsort((values, group))
    order = np.argsort(values)
    return order[np.frombuffer(_native.groups.by_group(group[order], groups), np.int64)]


def smallest_text(column: DictionaryColumn, group: Ints, groups: int) -> pa.Array:
    """Return each group's smallest value by UTF-8 bytes, null if it has none. ``group``: the group of each row."""
    if _native.groups is not None and len(column.values):
        best = _native.groups.smallest(*text_buffers(column.values), column.codes, group, groups)
        code = np.frombuffer(best, np.int64)
        return column.values.take(pa.array(code - 1, mask=code == 0))
    order = np.asarray(pc.sort_indices(column.values)).astype(np.int64)
    none = len(order)
    rank = np.full(column.size, none, np.int64)
    rank[order + 1] = np.arange(none)
    smallest = np.full(groups, none, np.int64)
    np.minimum.at(smallest, group, rank[column.codes])
    places = np.append(order, 0)[smallest]
    return column.values.take(pa.array(places, mask=smallest == none))


def offset(values: Ints) -> tuple[Ints, int]:
    """Return the values relative to the smallest, and the number of possible values."""
    if not len(values):
        return values, 1
    low = int(values.min())
    return values - low, int(values.max()) - low + 1
