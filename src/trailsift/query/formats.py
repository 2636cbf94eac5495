"""Write results: a table for people; JSON, CSV, Parquet and Arrow, complete and exact, for machines."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any

from trailsift.errors import UsageError
from trailsift.query.result import Result
from trailsift.query.types import Decoder, Row, converted, is_number, writer
from trailsift.safe_text import safe, safe_json

#: The most rows that a table shows; machine formats have no limit.
TABLE_ROWS = 1000


def write(
    result: Result,
    format: str,
    out: IO[Any],
    *,
    max_rows: int | None = TABLE_ROWS,
    width: int | None = None,
    terminal: bool = False,
    formulas: bool = True,
) -> int:
    """Write all rows of ``result`` to ``out``, a text or binary stream; return their number.

    ``table``: for people; at most ``max_rows`` rows (None: all), long values folded to ``width`` columns (the
    terminal's by default), number of rows and time below. ``json``: a list of objects, one per row; integers as
    numbers however large, times in ISO 8601 with their zone, NaN and infinity as null, repeated column names
    numbered. ``csv``: with a header; null is an empty field, an empty text is ``""``, lists are JSON.
    ``parquet`` and ``arrow`` (an IPC stream): with their types; these need a binary stream.

    ``terminal``: escape control, direction and invisible characters in json (the same values) and in csv (for the eye
    only). ``formulas``: False writes an apostrophe before a text of csv that a spreadsheet would take for a formula.

    Raise UsageError for an unknown format, or for a text stream with a binary format.
    """
    if format not in FORMATS:
        raise UsageError(f"unknown format {format!r}: use one of {', '.join(FORMATS)}")
    if format in ("parquet", "arrow"):
        binary = out if not isinstance(out, io.TextIOBase) else getattr(out, "buffer", None)
        if binary is None:
            raise UsageError(f"the format {format} needs a binary stream")
        return _BINARY[format](result, binary)
    put = _put(out)
    if format == "table":
        return _write_table(result, put, max_rows, width)
    if format == "csv":
        return _write_csv(result, put, terminal=terminal, formulas=formulas)
    return _write_json(result, (lambda text: put(safe_json(text))) if terminal else put)


def _put(out: IO[Any]) -> Callable[[str], object]:
    """Return a function that writes text to either kind of stream, always as UTF-8."""
    if isinstance(out, io.TextIOBase):
        buffer = getattr(out, "buffer", None)
        if buffer is None:
            return out.write
        out.flush()
        return lambda text: buffer.write(text.encode("utf-8", "replace"))
    return lambda text: out.write(text.encode("utf-8", "replace"))


def _shown(result: Result) -> Iterator[list[Row]]:
    """Yield the rows with every value in its JSON form."""
    return converted(result.fetched(), [writer(kind, result.zone) for _, kind in result.columns])


def _write_json(result: Result, put: Callable[[str], object]) -> int:
    names = result.names
    count = 0
    for rows in _shown(result):
        lines = [json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False) for row in rows]
        if lines:
            put(("[\n" if count == 0 else ",\n") + ",\n".join(lines))
        count += len(rows)
    put("[]\n" if count == 0 else "\n]\n")
    return count


def _write_csv(result: Result, put: Callable[[str], object], *, terminal: bool, formulas: bool) -> int:
    field = _quoted if formulas else _inert
    if terminal:
        # Escaped before it is quoted: a line end in a cell does not begin a line on the screen.
        plain, field = field, lambda text: plain(safe(text))
    cells = [_cell_writer(writer(kind, result.zone), kind, field) for _, kind in result.columns]
    put(",".join(map(field, result.names)) + "\n")
    count = 0
    for rows in converted(result.fetched(), cells):
        put("".join(",".join(["" if cell is None else cell for cell in row]) + "\n" for row in rows))
        count += len(rows)
    return count


def _cell_writer(shown: Decoder | None, kind: str, field: Callable[[str], str]) -> Callable[[Any], str]:
    """Return a function from a fetched value to its CSV field; ``field`` makes a field of a text."""
    if is_number(kind):
        return str if shown is None else lambda value: "" if (number := shown(value)) is None else str(number)
    if shown is not None:
        return lambda value: field(_cell(shown(value)))
    return (lambda value: field(_cell(value))) if kind == "BOOLEAN" or kind.endswith("]") else field


def _quoted(text: str) -> str:
    """Return ``text`` as a field of CSV (RFC 4180). An empty text is quoted, because null is an empty field.

    The csv module examines each character separately, which takes longer than the query.
    """
    if text and "," not in text and '"' not in text and "\n" not in text and "\r" not in text:
        return text
    return '"' + text.replace('"', '""') + '"'


#: Spreadsheets take a cell that begins so for a formula, also behind blanks; and some skip what they cannot show.
_FORMULA = r"[\s\x00-\x1f]*[=+\-@\uff1d\uff0b\uff0d\uff20]|[\t\r\n]"


def _inert(text: str) -> str:
    """Return ``text`` as a field of CSV that a spreadsheet does not take for a formula."""
    return _quoted("'" + text) if re.match(_FORMULA, text) else _quoted(text)


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)


def _write_table(result: Result, put: Callable[[str], object], max_rows: int | None, width: int | None) -> int:
    header = [safe(name) for name, _ in result.columns]
    right = [is_number(kind) for _, kind in result.columns]
    cells: list[list[str]] = []
    count = 0
    for rows in _shown(result):
        left = len(rows) if max_rows is None else max(0, max_rows - count)
        cells += [[safe(_text(value)) for value in row] for row in rows[:left]]
        count += len(rows)
    columns = width or _terminal_columns()
    table = (_plain_table(header, right, cells, columns) or _rich_table(header, right, cells, columns)) if count else ""
    shown = count if max_rows is None else min(count, max_rows)
    rows_text = f"{count:,} row{'' if count == 1 else 's'}"
    if shown < count:
        rows_text = f"the first {shown:,} of {rows_text} (use --format json or csv for all of them)"
    origin = "from the cache, " if result.from_cache else ""
    put(table + f"{rows_text} in {_seconds(result.seconds)} ({origin}times in {result.timezone})\n")
    return count


def _terminal_columns() -> int:
    """Return the width of the terminal as ``shutil`` finds it, which would import all compressors for it."""
    with contextlib.suppress(KeyError, ValueError):
        if (columns := int(os.environ["COLUMNS"])) > 0:
            return columns
    with contextlib.suppress(OSError, ValueError, AttributeError):
        if (columns := os.get_terminal_size(sys.__stdout__.fileno()).columns) > 0:  # type: ignore[union-attr]
            return columns
    return 120


def _plain_table(header: list[str], right: list[bool], cells: list[list[str]], columns: int) -> str:
    """Return the table if its cells are simple and fit side by side, else "". Importing rich would take 30 ms."""
    simple = re.compile(r"[!-~]+(?: [!-~]+)*").fullmatch
    if not all(simple(cell) for row in (header, *cells) for cell in row):
        return ""
    widths = [max(map(len, column)) for column in zip(header, *cells, strict=True)]
    total = sum(widths) + 3 * (len(widths) - 1)
    if total > columns:
        return ""
    align = [str.rjust if to_the_right else str.ljust for to_the_right in right]
    lines = [
        "   ".join([pad(cell, w) for pad, cell, w in zip(align, row, widths, strict=True)]) for row in (header, *cells)
    ]
    return "\n".join([lines[0], "─" * total, *lines[1:], ""])


def _rich_table(header: list[str], right: list[bool], cells: list[list[str]], columns: int) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name, to_the_right in zip(header, right, strict=True):
        table.add_column(Text(name), justify="right" if to_the_right else "left", overflow="fold")
    for row in cells:
        table.add_row(*map(Text, row))
    text = io.StringIO()
    Console(file=text, width=columns, highlight=False, soft_wrap=False).print(table)
    return text.getvalue()


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float) and value != int(value):
        return f"{value:.6g}" if abs(value) < 1e6 else f"{value:.1f}"
    return _cell(value)


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _write_parquet(result: Result, out: IO[bytes]) -> int:
    from pyarrow import parquet

    reader = result.batches()
    count = 0
    with parquet.ParquetWriter(out, reader.schema, compression="zstd") as sink:
        for batch in reader:
            sink.write_batch(batch)
            count += batch.num_rows
    return _counted(result, count)


def _write_arrow(result: Result, out: IO[bytes]) -> int:
    from pyarrow import ipc

    reader = result.batches()
    count = 0
    with ipc.new_stream(out, reader.schema) as sink:
        for batch in reader:
            sink.write_batch(batch)
            count += batch.num_rows
    return _counted(result, count)


def _counted(result: Result, count: int) -> int:
    result.count = count
    return count


_BINARY = {"parquet": _write_parquet, "arrow": _write_arrow}
#: The formats of ``write``.
FORMATS = ("table", "json", "csv", *_BINARY)
