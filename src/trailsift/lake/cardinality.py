"""Keeps the summary tables small: beyond a budget, the smallest values of a closed hour or day become ``(other)``.

Sums, first and last times and sketches of an ``(other)`` line are those of the lines in it, so totals stay exact.
Which values are kept depends on the lines alone: those with the most events, and of equal ones the first by text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from trailsift import schema
from trailsift.columns import summarize
from trailsift.columns.arrow import ranks
from trailsift.errors import LakeError
from trailsift.lake.parquet import micros

Ints = np.ndarray[Any, np.dtype[np.int64]]

OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Budget:
    """At most so many values of ``column`` (told apart with ``within``) in each group of ``group``."""

    setting: str
    column: str
    group: tuple[str, ...]
    within: tuple[str, ...] = ()


#: What each setting of ``lake.json`` is where it is not set.
DEFAULTS = {"resources": 10_000, "patterns": 1_000, "values": 1_000}

#: In the order in which they are applied.
_BUDGETS: dict[str, tuple[Budget, ...]] = {
    schema.HOURLY.name: (Budget("resources", "resource_arn", ("hour", "role_arn")),),
    schema.USAGE.name: (
        Budget("resources", "resource_arn", ("day", "role_arn")),
        # A pattern counts once for each resource: otherwise resources times patterns would be the bound.
        Budget("patterns", "key_pattern", ("day", "role_arn"), ("resource_arn",)),
    ),
    schema.PROFILE.name: (Budget("values", "value", ("day", "role_arn", "dimension")),),
}
_LENGTH = {"hour": 3_600_000_000, "day": 86_400_000_000}


def limit_of(setting: str, settings: object) -> int:
    """A budget as ``lake.json`` has it under ``budgets``, else the default. LakeError where it makes no sense."""
    if settings is None:
        return DEFAULTS[setting]
    value = settings.get(setting, DEFAULTS[setting]) if isinstance(settings, dict) else settings
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise LakeError(f"the budget {setting} in lake.json is {value!r}: it must be a number from 1 on")
    return value


def least_budget(table: str, settings: object) -> float:
    """A file of no more lines than this has nothing to fold."""
    return min((limit_of(budget.setting, settings) for budget in _BUDGETS.get(table, ())), default=float("inf"))


def fold(
    table: schema.Table, lines: pa.Table, settings: object, is_closed: Callable[[int], bool]
) -> tuple[pa.Table, int]:
    """Merged lines within their budgets, and how many lines went into others.

    ``lines`` must hold all lines of the groups that they touch. ``is_closed`` says of the end of an hour or day
    (microseconds since 1970) whether it may be folded.
    """
    folded = np.zeros(lines.num_rows, bool)
    for budget in _BUDGETS[table.name]:
        limit = limit_of(budget.setting, settings)
        if lines.num_rows <= limit:
            continue
        time = micros(_array(lines, table.time))
        ends, which = np.unique(time + _LENGTH[table.time], return_inverse=True)
        closed = np.array([is_closed(end) for end in ends.tolist()], bool)[which]
        rows = closed & _beyond(lines, budget, limit)
        if rows.any():
            folded |= rows
            column = pc.if_else(pa.array(rows), OTHER, _array(lines, budget.column))
            lines = lines.set_column(lines.schema.get_field_index(budget.column), budget.column, column)
    if not folded.any():
        return lines, 0
    return summarize.merge(table, [lines]), int(folded.sum())


def _beyond(lines: pa.Table, budget: Budget, limit: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which lines hold a value that its group has no room for."""
    value, names = ranks(_array(lines, budget.column))
    # No value is none to fold, and what was folded before stays and takes no room.
    free = value > 0
    if OTHER in names:
        free &= value != names.index(OTHER)
    rows = np.flatnonzero(free)
    if len(rows) <= limit:
        return np.zeros(lines.num_rows, bool)
    group = _numbers([_ranked(lines, name)[rows] for name in budget.group])
    texts = [_ranked(lines, name)[rows] for name in budget.within] + [value[rows]]
    item = _numbers([group, *texts])
    total = np.zeros(int(item.max()) + 1, np.int64)
    np.add.at(total, item, np.asarray(_array(lines, "events"))[rows])
    _, first = np.unique(item, return_index=True)
    order = np.lexsort((*(text[first] for text in reversed(texts)), -total, group[first]))
    ordered = group[first][order]
    start = np.searchsorted(ordered, ordered)
    out = np.zeros(len(total), bool)
    out[order] = np.arange(len(order)) - start >= limit
    beyond = np.zeros(lines.num_rows, bool)
    beyond[rows] = out[item]
    return beyond


def _ranked(lines: pa.Table, name: str) -> Ints:
    column = _array(lines, name)
    return ranks(column)[0] if pa.types.is_string(column.type) else micros(column)


def _numbers(columns: list[Ints]) -> Ints:
    """A number for each distinct row of the columns, in their order."""
    numbers = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, codes = np.unique(column, return_inverse=True)
        _, numbers = np.unique(numbers * (int(codes.max()) + 1) + codes, return_inverse=True)
    return numbers


def _array(lines: pa.Table, name: str) -> pa.Array:
    column = lines.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
