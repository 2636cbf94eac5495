"""A result as text for people: a table that fits its width, or each row as a block of lines.

What does not fit is left out and said: cells are cut, then columns are left out, those without any value first.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import NamedTuple

#: Width of a text column while others can be shown instead.
_LEAST = 20
#: A result of more columns is a listing (`SELECT *`), whose first columns say most; in smaller ones numbers matter.
_LISTING = 12
_GAP = "   "
_CUT = "…"


class Column(NamedTuple):
    """A column as it is shown: its name, whether it is a number, and whether its values must not be cut."""

    name: str
    is_number: bool
    is_whole: bool


class TableText(NamedTuple):
    """A table and a remark on what it leaves out; empty if it is complete."""

    text: str
    left_out: str


def table(columns: Sequence[Column], cells: Sequence[Sequence[str]], width: int) -> TableText:
    """Return rows of harmless texts as a table of at most ``width`` columns of the terminal."""
    needed = [max(map(_width, (column.name, *values))) for column, values in _with_values(columns, cells)]
    if len(columns) == 1 and needed[0] > width:
        return TableText(_folded_column(columns[0].name, [row[0] for row in cells], width), "")
    shown = _that_fit(columns, needed, cells, width)
    widths = _shares(shown, columns, needed, width)
    lines = [_line([column.name for column in columns], shown, widths, columns)]
    lines += ["─" * (sum(widths) + len(_GAP) * (len(widths) - 1))]
    lines += [_line(row, shown, widths, columns) for row in cells]
    is_cut = any(needed[place] > share for place, share in zip(shown, widths, strict=True))
    return TableText("\n".join([*lines, ""]), _left_out(len(columns), len(shown), is_cut))


def blocks(names: Sequence[str], rows: Sequence[Sequence[str]], first: int, width: int | None) -> str:
    """Return each row as lines of name and value under its number, from ``first`` on.

    ``width``: columns of a terminal, to fold long values to, indented; None: values stay on one line.
    """
    indent = max(map(_width, names), default=0) + len(_GAP)
    parts = []
    for number, row in enumerate(rows, first):
        head = f"── row {number:,} "
        parts.append(head + "─" * (min(width or 60, 60) - len(head)))
        for name, value in zip(names, row, strict=True):
            pieces = [value] if width is None else _folded(value, max(width - indent, _LEAST))
            begin = name + " " * (indent - _width(name))
            parts.append(begin + ("\n" + " " * indent).join(pieces))
    return "\n".join([*parts, ""]) if parts else ""


def terminal_columns() -> int:
    """Return the width of the terminal as ``shutil`` finds it, which would import all compressors for it."""
    with contextlib.suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if (columns := os.get_terminal_size(sys.__stdout__.fileno()).columns) > 0:  # type: ignore[union-attr]
            return columns
    return 120


def _with_values(columns: Sequence[Column], cells: Sequence[Sequence[str]]) -> list[tuple[Column, tuple[str, ...]]]:
    values: list[tuple[str, ...]] = list(zip(*cells, strict=True)) or [()] * len(columns)
    return list(zip(columns, values, strict=True))


def _least(column: Column, needed: int) -> int:
    return needed if column.is_whole else min(needed, _LEAST)


def _that_fit(
    columns: Sequence[Column], needed: Sequence[int], cells: Sequence[Sequence[str]], width: int
) -> list[int]:
    """Return the positions of the columns that are shown, in order."""
    order = list(range(len(columns)))
    if sum(_least(*pair) for pair in zip(columns, needed, strict=True)) + len(_GAP) * (len(order) - 1) <= width:
        return order
    if len(columns) <= _LISTING:
        order.sort(key=lambda place: place > 0 and not columns[place].is_number)
    # A column without a value says least.
    order.sort(key=lambda place: all(row[place] == "-" for row in cells))
    shown: list[int] = []
    left = width
    for place in order:
        least = _least(columns[place], needed[place])
        if shown and least > left:
            break
        shown.append(place)
        left -= least + len(_GAP)
    return sorted(shown)


def _shares(shown: Sequence[int], columns: Sequence[Column], needed: Sequence[int], width: int) -> list[int]:
    """Return the widths of the shown columns: all they need, or as much as there is for each of the long ones."""
    room = width - len(_GAP) * (len(shown) - 1)
    low, high = 1, max(width, 1)
    while low < high:
        limit = (low + high + 1) // 2
        if sum(needed[place] if columns[place].is_whole else min(needed[place], limit) for place in shown) <= room:
            low = limit
        else:
            high = limit - 1
    shares = [needed[place] if columns[place].is_whole else min(needed[place], low) for place in shown]
    return shares if len(shares) > 1 else [min(shares[0], max(width, 1))]


def _line(cells: Sequence[str], shown: Sequence[int], widths: Sequence[int], columns: Sequence[Column]) -> str:
    parts = []
    for place, width in zip(shown, widths, strict=True):
        text = _shortened(cells[place], width)
        blank = " " * (width - _width(text))
        parts.append(blank + text if columns[place].is_number else text + blank)
    return _GAP.join(parts).rstrip()


def _left_out(total: int, shown: int, is_cut: bool) -> str:
    parts = [f"{total:,} columns, {shown:,} shown"] if shown < total else []
    parts += ["long values are cut"] if is_cut else []
    return "; ".join(parts) + ": the format line shows everything" if parts else ""


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes. Importing rich would take longer than a query."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _shortened(text: str, width: int) -> str:
    if _width(text) <= width:
        return text
    if text.isascii():
        return text[: width - 1] + _CUT
    from rich.cells import set_cell_size

    return set_cell_size(text, width - 1).rstrip() + _CUT


def _folded(text: str, width: int) -> list[str]:
    if text.isascii():
        return [text[start : start + width] for start in range(0, len(text), width)] or [""]
    from rich.cells import chop_cells

    return chop_cells(text, width)


def _folded_column(name: str, values: Sequence[str], width: int) -> str:
    """Return one column of long texts: the lines of a value after its first are indented."""
    lines = [*_folded(name, max(width, 1)), "─" * width]
    for value in values:
        first, *rest = _folded(value, max(width - 2, 1))
        lines += [first, *(f"  {piece}" for piece in rest)]
    return "\n".join([*lines, ""])
