"""Consoles, and the small pieces that every report is built from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from typing import IO, Any, Literal

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from trailsift.safe_text import safe, safe_lines
from trailsift.terminal.output import errors_raw, is_terminal

#: Width in a file or a pipe unless COLUMNS is set: wide enough for an ARN, so nothing is cut.
PIPE_WIDTH = 120


class SafeConsole(Console):
    """A console that escapes every text, whatever it is part of; only its own styles and cursor moves are sequences.

    Its reader may leave (`| head`): like any other command then, it ends with exit code 0.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        """Print renderables; a plain string is one line: a line end in it came from elsewhere."""
        super().print(*(safe(part) if isinstance(part, str) else part for part in objects), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield the pieces of a renderable, their texts escaped."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=safe_lines(segment.text))

    def on_broken_pipe(self) -> None:
        """Raise what the command line handles, instead of ending the process with exit code 1."""
        raise BrokenPipeError


def console(stream: IO[str] | None = None) -> Console:
    """Return a console on a stream, standard output by default. Colour only on a terminal without NO_COLOR."""
    stream = stream or sys.stdout
    width = None
    if not is_terminal(stream) and not os.environ.get("COLUMNS", "").isdigit():
        width = PIPE_WIDTH
    return SafeConsole(file=stream, width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)


def show(target: Console, *parts: RenderableType) -> None:
    """Print parts with a blank line after each."""
    for part in parts:
        target.print(part)
        target.print()


def error_console() -> Console:
    """Return a console on standard error, for progress."""
    return SafeConsole(file=errors_raw())


def hanging(target: Console, text: Text, indent: int) -> Text:
    """Return text folded to the console, all lines but the first indented: none can pass for a line of its own."""
    return Text("\n" + " " * indent).join(text.wrap(target, max(target.width - indent, 20)))


def unicode_fits(target: Console) -> bool:
    """Return whether block characters can be written to the console."""
    return (target.encoding or "").lower().replace("-", "").startswith("utf")


#: Least width of columns of ids and prose while optional columns can be hidden instead.
_LEAST = 28
_GAP = 2


def grid(
    out: Console,
    title: str,
    columns: Sequence[tuple[str, str]],
    rows: Iterable[Sequence[Any]],
    note: str = "",
    hidden_text: str = "Hidden on this width: {names}.",
) -> Group:
    """Return a table that fits the console, with its title and a note below.

    ``columns`` are (heading, kind): ``text``, ``id`` (one line, cut if it must be), ``prose`` (folded), ``number``,
    ``bad`` (a number, red unless 0) or ``faint``. A column whose kind begins with ``?`` is hidden if the console is too
    narrow, those with ``??`` before the others, the last one first; ``hidden_text`` says which.
    """
    cells = [[cell(value, kind.lstrip("?")) for value, (_, kind) in zip(row, columns, strict=True)] for row in rows]
    kept = _fitting(out.width, columns, cells)
    cut: Literal["ellipsis", "crop"] = "ellipsis" if unicode_fits(out) else "crop"
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1))
    for place in kept:
        heading, kind = columns[place][0], columns[place][1].lstrip("?")
        if kind in ("number", "bad"):
            table.add_column(heading, justify="right", no_wrap=True, overflow=cut)
        elif kind in ("faint", "text"):
            table.add_column(heading, style="dim" if kind == "faint" else "", no_wrap=True, overflow=cut)
        else:
            # If the console is narrow, rich shrinks the columns that may wrap; an id without blanks is then cut.
            table.add_column(heading, overflow=cut if kind == "id" else "fold")
    for row in cells:
        table.add_row(*(row[place] for place in kept))
    parts: list[RenderableType] = [Text(safe(title), style="bold")] if title else []
    parts.append(table)
    hidden = [heading for place, (heading, _) in enumerate(columns) if place not in kept]
    if hidden:
        note += ("\n" if note else "") + hidden_text.format(names=", ".join(hidden))
    if note:
        parts.append(Text(note, style="dim"))
    return Group(*parts)


def _fitting(width: int, columns: Sequence[tuple[str, str]], cells: Sequence[Sequence[Text]]) -> list[int]:
    """Return the positions of the columns that fit the width together."""
    needed = []
    for place, (heading, kind) in enumerate(columns):
        natural = max([len(heading), *(row[place].cell_len for row in cells)])
        needed.append(min(natural, _LEAST) if kind.lstrip("?") in ("id", "prose") else natural)
    kept = list(range(len(columns)))
    optional = sorted(kept, key=lambda place: (columns[place][1].count("?"), place), reverse=True)
    for place in optional:
        # rich puts a blank on both sides of every column but the outer ones.
        if sum(needed[position] for position in kept) + (len(kept) - 1) * (_GAP + 1) <= width:
            break
        if "?" in columns[place][1]:
            kept.remove(place)
    return kept


def cell(value: Any, kind: str) -> Text:
    """Return one value as it is shown."""
    if value is None:
        return Text("-", style="dim")
    if isinstance(value, bool) or not isinstance(value, int):
        return Text(safe(str(value)), style="dim" if value == "0 B" else "")
    return Text(f"{value:,}", style="red" if kind == "bad" and value else "dim" if not value else "")


def middle(text: str, width: int) -> str:
    """Return a text of at most ``width`` characters: a longer one loses its middle, for ends tell texts apart as well.

    ``text`` is harmless already.
    """
    if len(text) <= width:
        return text
    end = (width - 1) // 2
    return f"{text[: width - 1 - end]}…{text[len(text) - end :]}"


def short_resource(resource_arn: str | None) -> str | None:
    """Return a resource with its service, without region and account."""
    if resource_arn is None:
        return None
    parts = resource_arn.split(":", 5)
    return f"{parts[2]}:{parts[5]}" if len(parts) == 6 else resource_arn


def size(count: int | None) -> str:
    """Return a number of bytes with a unit."""
    if not count:
        return "0 B" if count == 0 else "-"
    value = float(count)
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    raise AssertionError


def duration(seconds: float) -> str:
    """Return a duration with the digits that matter."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min"


def plural(count: int, noun: str, nouns: str = "") -> str:
    """Return a count with its noun, in the plural unless it is 1."""
    return f"{count:,} {noun if count == 1 else nouns or noun + 's'}"
