"""Daily series of what callers read: the last days of each, in a bounded table.

A series is what a caller does in a day: all its calls, all calls on a resource, megabytes out of a resource, reads of
it by one call, and those of one key pattern.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from trailsift.detect.baseline import Column

#: Kinds of series: all that a caller does; all calls on a resource (only compared with the others); megabytes out of
#: it; reads of it by one call; and those of one key pattern.
CALLER, TOUCHES, BYTES, READS, PATTERN = range(5)

#: Active days of a caller that its expected amount is estimated from.
HISTORY_DAYS = 28
#: Active days after which an excess is taken for the new normal.
LONGEST_RUN = 14
#: Active days that are kept.
KEPT_DAYS = HISTORY_DAYS + LONGEST_RUN
#: Reads, or megabytes, per day from which on a series is stored.
MIN_AMOUNT = 3.0
_BOUND = 100_000


class DailyEgress(NamedTuple):
    """Activity of callers on one day (since 1970, UTC), one line per series; ``key``: a hash of the series' dimensions.

    ``under``: the key of the series that a line is part of. ``text``: caller, resource, call and key pattern of a line;
    CALLER has no resource, and only PATTERN has a pattern.
    """

    day: int
    kind: Column
    key: Column
    under: Column
    value: Column
    text: Callable[[int], Sequence[str | None]]


class DailySeries:
    """The last days of all series, bounded. Rows are in the order in which series were first seen."""

    def __init__(self, bound: int = _BOUND) -> None:
        self.bound = bound
        self.key = np.zeros(0, np.uint64)
        self.texts: list[tuple[str | None, str | None]] = []  # resource and pattern
        self.kind = np.zeros(0, np.int8)
        self.caller = np.zeros(0, np.int32)  # row of the caller's series
        self.parent = np.zeros(0, np.int32)  # row of the series that it is part of
        self.last = np.zeros(0, np.int32)
        # Of the days on which the caller was active; NaN if unknown.
        self.values = np.zeros((0, KEPT_DAYS), np.float32)
        self.weekdays = np.zeros((0, KEPT_DAYS), np.int8)

    def __len__(self) -> int:
        return len(self.key)

    def rows_of(self, keys: Column) -> Column:
        """Return the rows of keys; -1 for unknown ones."""
        order = np.argsort(self.key)
        at = np.searchsorted(self.key, keys, sorter=order)
        rows = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(keys), np.int64)
        present = self.key[rows] == keys if len(order) else np.zeros(len(keys), bool)
        out: Column = np.where(present, rows, -1)
        return out

    def add_new(self, day: DailyEgress) -> None:
        """Add rows for today's new series that are large enough."""
        new = (self.rows_of(day.key) < 0) & ((day.value >= MIN_AMOUNT) | (day.kind <= TOUCHES))
        for kind in range(PATTERN + 1):
            lines = np.flatnonzero(new & (day.kind == kind))
            if not len(lines):
                continue
            parent = self.rows_of(day.under[lines])
            lines, parent = (lines, parent) if kind == CALLER else (lines[parent >= 0], parent[parent >= 0])
            begin, count = len(self.key), len(lines)
            self.key = np.append(self.key, day.key[lines])
            self.kind = np.append(self.kind, np.full(count, kind, np.int8))
            self.parent = np.append(self.parent, parent.astype(np.int32))
            self.caller = np.append(
                self.caller, np.arange(begin, begin + count) if kind == CALLER else self.caller[parent]
            )
            self.last = np.append(self.last, np.zeros(count, np.int32))
            weekdays = np.zeros((count, KEPT_DAYS), np.int8) if kind == CALLER else self.weekdays[parent]
            self.weekdays = np.append(self.weekdays, weekdays, axis=0)
            # Nothing was read before of a resource that the caller knew. For a new key pattern, the past is unknown.
            before = np.full((count, KEPT_DAYS), np.nan, np.float32)
            if kind in (BYTES, READS):
                before = np.where(np.isnan(self.values[parent]), before, np.float32(0))
            self.values = np.append(self.values, before, axis=0)
            texts = [day.text(line) for line in lines.tolist()]
            self.texts += [(resource, pattern) for _, resource, _, pattern in texts]

    def learn(self, day: int, now: Column, active: Column, seen: Column) -> None:
        """Append a day: the amount of each row in ``now``, for rows of active callers; ``seen``: rows with a line."""
        self.last[seen] = day
        for array, today in ((self.values, now[active]), (self.weekdays, np.full(len(active), day % 7))):
            array[active, :-1] = array[active, 1:]
            array[active, -1] = today

    def history(self, of: Column, rows: Column, length: Column) -> Column:
        """Return the HISTORY_DAYS columns of ``of`` (values or weekdays) before the last ``length`` days."""
        out: Column = of[rows[:, None], np.arange(LONGEST_RUN, KEPT_DAYS)[None, :] - length[:, None]]
        return out

    def erase(self, row: int, length: int, quiet: int) -> None:
        """Mark the last ``length`` days as unknown, except the last ``quiet`` ones."""
        self.values[row, KEPT_DAYS - length : KEPT_DAYS - quiet] = np.nan

    def forget(self) -> Column | None:
        """Enforce the bound: drop what was not seen for longest, with its parts. Return a mask of the rows kept."""
        if len(self.key) <= self.bound:
            return None
        order = np.lexsort((self.key, self.kind, -self.last))
        kept = np.zeros(len(self.key), bool)
        kept[order[: self.bound * 9 // 10]] = True
        for kind in range(TOUCHES, PATTERN + 1):
            of_kind = self.kind == kind
            kept[of_kind] &= kept[self.parent[of_kind]]
        number = np.full(len(kept) + 1, -1, np.int32)
        number[:-1][kept] = np.arange(kept.sum())
        self.caller, self.parent = number[self.caller[kept]], number[self.parent[kept]]
        self.key, self.kind, self.last = self.key[kept], self.kind[kept], self.last[kept]
        self.values, self.weekdays = self.values[kept], self.weekdays[kept]
        self.texts = [self.texts[row] for row in np.flatnonzero(kept).tolist()]
        return kept
