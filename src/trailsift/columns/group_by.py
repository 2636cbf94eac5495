"""Rows that are equal: columns as small integers, and groups of rows by several of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import _native

Ints = np.ndarray[Any, np.dtype[np.int64]]


class DictionaryColumn:
    """A column as small integers, 0 for null, with the values they stand for."""

    def __init__(self, column: pa.Array) -> None:
        encoded = column if isinstance(column, pa.DictionaryArray) else column.dictionary_encode()
        self.values: pa.Array = encoded.dictionary
        self.codes: Ints = filled(encoded.indices) + 1
        self.size = len(self.values) + 1

    @cached_property
    def texts(self) -> list[str]:
        """The values as Python has them."""
        texts: list[str] = self.values.to_pylist()
        return texts

    def mapped(self, function: Callable[[list[str]], Sequence[str | None]]) -> DictionaryColumn:
        """The column with every value replaced by what ``function`` makes of all; equal results share a code."""
        return self.replaced(pa.array(function(self.texts), pa.string()).dictionary_encode())

    def replaced(self, results: pa.DictionaryArray) -> DictionaryColumn:
        """The column with every value replaced by another."""
        each = DictionaryColumn(results)
        return DictionaryColumn._of(each.values, np.concatenate([np.zeros(1, np.int64), each.codes])[self.codes])

    def at(self, rows: Ints) -> DictionaryColumn:
        """The column of some rows."""
        return DictionaryColumn._of(self.values, self.codes[rows])

    @staticmethod
    def _of(values: pa.Array, codes: Ints) -> DictionaryColumn:
        made = object.__new__(DictionaryColumn)
        made.values, made.codes, made.size = values, codes, len(values) + 1
        return made

    def take(self, rows: Ints) -> pa.Array:
        """The values of some rows."""
        codes = self.codes[rows]
        return self.values.take(pa.array(codes - 1, mask=codes == 0))


def text_buffers(values: pa.StringArray) -> tuple[memoryview, Any]:
    """Where each text ends (one place more than there are texts), and the bytes of all; there must be one."""
    _, ends, text = values.buffers()
    first = values.offset * 4
    return memoryview(ends)[first : first + 4 * len(values) + 4], text or b""


def filled(indices: pa.Array) -> Ints:
    """Integers with -1 for null."""
    return np.asarray(pc.fill_null(indices, -1)).astype(np.int64)


def grouped(key: Ints) -> tuple[Ints, Ints, Ints]:
    """The rows in an order in which equal keys stand together, where each run of them starts, and each row's run."""
    if _native.groups is not None:
        order, starts, group = (
            np.frombuffer(part, np.int64) for part in _native.groups.groups(np.ascontiguousarray(key))
        )
        return order, starts, group
    order = np.argsort(key)
    ordered = key[order]
    fresh = np.empty(len(ordered), bool)
    fresh[:1] = True
    np.not_equal(ordered[1:], ordered[:-1], out=fresh[1:])
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(fresh) - 1
    return order, np.flatnonzero(fresh), group


class GroupBy:
    """Rows that are equal in several columns of codes, as runs of an order of the rows. Groups come in any order."""

    def __init__(self, parts: Sequence[tuple[Ints, int]]) -> None:
        """``parts``: codes, and how many different ones there can be."""
        key, span = parts[0]
        for codes, size in parts[1:]:
            if span * size >= 1 << 62:
                _, key = np.unique(key, return_inverse=True)
                span = int(key.max()) + 1 if len(key) else 1
            key = key * size + codes
            span *= size
        self.order, self.starts, self.of_row = grouped(key)
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


def by_group(group: Ints, values: Ints, groups: int) -> Ints:
    """The rows by group, those of a group by value."""
    if _native.groups is None:
        return np.lexsort((values, group))
    order = np.argsort(values)
    return order[np.frombuffer(_native.groups.by_group(group[order], groups), np.int64)]


def smallest_text(column: DictionaryColumn, group: Ints, groups: int) -> pa.Array:
    """The smallest value of each group by UTF-8 bytes; null where a group has none. ``group``: that of each row."""
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
    found = np.append(order, 0)[smallest]
    return column.values.take(pa.array(found, mask=smallest == none))


def offset(values: Ints) -> tuple[Ints, int]:
    """Values counted from their smallest, and how many there can be."""
    if not len(values):
        return values, 1
    low = int(values.min())
    return values - low, int(values.max()) - low + 1
