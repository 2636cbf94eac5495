"""Limit the cardinality of summary tables: beyond a budget, the smallest lines of a closed hour or day are folded.

Their values become ``(other)``. Sums, first and last times and sketches of an ``(other)`` line are those of the lines
folded into it, so totals stay exact. Which values are kept depends on the lines alone: those with the most events, and
of equal ones the first by text.
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
from trailsift.times import DAY, HOUR

Ints = np.ndarray[Any, np.dtype[np.int64]]

OTHER = "(other)"


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on the values of ``column`` (distinct together with ``within``) in each group of ``group``."""

    setting: str
    column: str
    group: tuple[str, ...]
    within: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LineBudget:
    """A limit on the lines of each group of ``group``; the lines beyond it lose ``columns``, one after the other.

    It holds for the lines that name all columns, and again for those that lost the first, and so on.

    ``several``: columns of which several values in one of ``unit`` keep its lines: those of a session that was seen in
    two networks are folded last, however few its events are.
    """

    setting: str
    columns: tuple[str, ...]
    group: tuple[str, ...]
    unit: tuple[str, ...] = ()
    several: tuple[str, ...] = ()


#: Values of the settings that ``lake.json`` does not have.
DEFAULTS = {"resources": 10_000, "patterns": 1_000, "values": 1_000, "lines": 10_000}

#: In order of application.
_BUDGETS: dict[str, tuple[Budget, ...]] = {
    schema.HOURLY.name: (Budget("resources", "resource_arn", ("hour", "caller")),),
    schema.USAGE.name: (
        Budget("resources", "resource_arn", ("day", "caller")),
        # A pattern counts once per resource: otherwise the bound would be resources times patterns.
        Budget("patterns", "key_pattern", ("day", "caller"), ("resource_arn",)),
    ),
    schema.PROFILE.name: (Budget("values", "value", ("day", "caller", "dimension")),),
}
_LINE_BUDGETS: dict[str, LineBudget] = {
    # Never the kind: who deleted something stays known.
    schema.ACCESS.name: LineBudget("lines", ("source_network", "resource_arn"), ("day", "caller")),
    schema.SESSIONS.name: LineBudget(
        "lines",
        ("session_name", "source_network", "user_agent", "vpc_endpoint"),
        ("day", "caller"),
        ("day", "account_id", "caller", "session_name"),
        ("source_network", "user_agent"),
    ),
}
_LENGTH = {"hour": HOUR, "day": DAY}


def read_limit(setting: str, settings: object) -> int:
    """Return a budget from ``budgets`` of ``lake.json``, else the default. LakeError if it is not a positive number."""
    if settings is None:
        return DEFAULTS[setting]
    value = settings.get(setting, DEFAULTS[setting]) if isinstance(settings, dict) else settings
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise LakeError(f"the budget {setting} in lake.json is {value!r}: it must be a number, at least 1")
    return value


def smallest_limit(table: str, settings: object) -> float:
    """Return the number of lines up to which a file has nothing to fold."""
    budgets: list[Budget | LineBudget] = [*_BUDGETS.get(table, ())]
    if table in _LINE_BUDGETS:
        budgets.append(_LINE_BUDGETS[table])
    return min((read_limit(budget.setting, settings) for budget in budgets), default=float("inf"))


def fold(
    table: schema.Table, lines: pa.Table, settings: object, is_closed: Callable[[int], bool]
) -> tuple[pa.Table, int]:
    """Return merged lines within their budgets, and how many lines were folded.

    ``lines`` must hold all lines of their groups. ``is_closed`` returns whether the hour or day that ends at a time
    (microseconds since 1970) may be folded.
    """
    if table.name in _LINE_BUDGETS:
        return _fold_lines(table, lines, _LINE_BUDGETS[table.name], settings, is_closed)
    folded = np.zeros(lines.num_rows, bool)
    for budget in _BUDGETS[table.name]:
        limit = read_limit(budget.setting, settings)
        if lines.num_rows <= limit:
            continue
        rows = _closed(table, lines, is_closed) & _over_budget(lines, budget, limit)
        if rows.any():
            folded |= rows
            column = pc.if_else(pa.array(rows), OTHER, _array(lines, budget.column))
            lines = lines.set_column(lines.schema.get_field_index(budget.column), budget.column, column)
    if not folded.any():
        return lines, 0
    return summarize.merge(table, [lines]), int(folded.sum())


def _fold_lines(
    table: schema.Table, lines: pa.Table, budget: LineBudget, settings: object, is_closed: Callable[[int], bool]
) -> tuple[pa.Table, int]:
    limit = read_limit(budget.setting, settings)
    folded = 0
    for number in range(len(budget.columns)):
        if lines.num_rows <= limit:
            break
        # What was folded into the column before does not count, and what names the columns before it stays as it is.
        free = np.ones(lines.num_rows, bool)
        for name in budget.columns[: number + 1]:
            is_other = np.asarray(pc.fill_null(pc.equal(_array(lines, name), OTHER), False))
            free &= ~is_other if name == budget.columns[number] else is_other
        rows = np.flatnonzero(free & _closed(table, lines, is_closed))
        beyond = np.zeros(lines.num_rows, bool)
        beyond[rows] = _beyond(lines.take(pa.array(rows)), budget, limit)
        if beyond.any():
            folded += int(beyond.sum())
            # Also where there was no value: lines that are folded must not differ.
            name = budget.columns[number]
            column = pc.if_else(pa.array(beyond), OTHER, _array(lines, name))
            lines = lines.set_column(lines.schema.get_field_index(name), name, column)
            lines = summarize.merge(table, [lines])
    return lines, folded


def _closed(
    table: schema.Table, lines: pa.Table, is_closed: Callable[[int], bool]
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which lines are of a closed hour or day."""
    time = micros(_array(lines, table.time))
    ends, which = np.unique(time + _LENGTH[table.time], return_inverse=True)
    closed: np.ndarray[Any, np.dtype[np.bool_]] = np.array([is_closed(end) for end in ends.tolist()], bool)[which]
    return closed


def _beyond(lines: pa.Table, budget: LineBudget, limit: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which lines are beyond the budget of their group: those that count least."""
    if not lines.num_rows:
        return np.zeros(0, bool)
    group = _row_codes([_ranked(lines, name) for name in budget.group])
    kept_last = np.zeros(lines.num_rows, np.int64)
    if budget.unit:
        unit = _row_codes([_ranked(lines, name) for name in budget.unit])
        for name in budget.several:
            pairs = np.unique(np.stack([unit, _ranked(lines, name)]), axis=1)
            kept_last |= (np.bincount(pairs[0], minlength=int(unit.max()) + 1) > 1)[unit]
    # Lines come merged, in the order of their keys: equal ones keep it.
    order = np.lexsort((-np.asarray(_array(lines, "events")), -kept_last, group))
    ordered = group[order]
    start = np.searchsorted(ordered, ordered)
    over = np.zeros(lines.num_rows, bool)
    over[order] = np.arange(len(order)) - start >= limit
    return over


def _over_budget(lines: pa.Table, budget: Budget, limit: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return which lines hold a value beyond its group's budget."""
    value, names = ranks(_array(lines, budget.column))
    # Null is not folded, and what was folded before stays and does not count.
    free = value > 0
    if OTHER in names:
        free &= value != names.index(OTHER)
    rows = np.flatnonzero(free)
    if len(rows) <= limit:
        return np.zeros(lines.num_rows, bool)
    group = _row_codes([_ranked(lines, name)[rows] for name in budget.group])
    texts = [_ranked(lines, name)[rows] for name in budget.within] + [value[rows]]
    item = _row_codes([group, *texts])
    total = np.zeros(int(item.max()) + 1, np.int64)
    np.add.at(total, item, np.asarray(_array(lines, "events"))[rows])
    _, first = np.unique(item, return_index=True)
    order = np.lexsort((*(text[first] for text in reversed(texts)), -total, group[first]))
    ordered = group[first][order]
    start = np.searchsorted(ordered, ordered)
    is_over = np.zeros(len(total), bool)
    is_over[order] = np.arange(len(order)) - start >= limit
    over = np.zeros(lines.num_rows, bool)
    over[rows] = is_over[item]
    return over


def _ranked(lines: pa.Table, name: str) -> Ints:
    column = _array(lines, name)
    return ranks(column)[0] if pa.types.is_string(column.type) else micros(column)


def _row_codes(columns: list[Ints]) -> Ints:
    """Return a number for each distinct row of the columns, in their order."""
    numbers = np.zeros(len(columns[0]), np.int64)
    for column in columns:
        _, codes = np.unique(column, return_inverse=True)
        _, numbers = np.unique(numbers * (int(codes.max()) + 1) + codes, return_inverse=True)
    return numbers


def _array(lines: pa.Table, name: str) -> pa.Array:
    column = lines.column(name)
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
