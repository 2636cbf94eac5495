"""Write results: a table or blocks for people; JSON, CSV, Parquet and Arrow, complete and exact, for machines."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import IO, Any

from trailsift.errors import UsageError
from trailsift.query.result import Result
from trailsift.query.table_text import Column, TableText, blocks, table, terminal_columns
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

    ``table``: for people; at most ``max_rows`` rows (None: all) in ``width`` columns (the terminal's by default): long
    values are cut, then columns left out, which the last line says. ``line``: each row as a block, a column per line,
    complete. Both end with the number of rows and the time. ``json``: a list of objects, one per row; integers as
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
    if format == "line":
        return _write_lines(result, put, max_rows, width, terminal=terminal)
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
    columns = [Column(safe(name), is_number(kind), is_number(kind) or _is_time(kind)) for name, kind in result.columns]
    cells: list[list[str]] = []
    count = 0
    for rows in _shown(result):
        left = len(rows) if max_rows is None else max(0, max_rows - count)
        cells += [[safe(_text(value)) for value in row] for row in rows[:left]]
        count += len(rows)
    made = table(columns, cells, width or terminal_columns()) if count else TableText("", "")
    put(made.text + _footer(result, count, max_rows, made.left_out))
    return count


def _write_lines(
    result: Result, put: Callable[[str], object], max_rows: int | None, width: int | None, *, terminal: bool
) -> int:
    names = [safe(name) for name in result.names]
    folded = width or (terminal_columns() if terminal else None)
    count = 0
    for rows in _shown(result):
        left = len(rows) if max_rows is None else max(0, max_rows - count)
        put(blocks(names, [[safe(_text(value)) for value in row] for row in rows[:left]], count + 1, folded))
        count += len(rows)
    put(_footer(result, count, max_rows))
    return count


def _footer(result: Result, count: int, max_rows: int | None, left_out: str = "") -> str:
    shown = count if max_rows is None else min(count, max_rows)
    text = f"{count:,} row{'' if count == 1 else 's'}"
    if shown < count:
        text = f"the first {shown:,} of {text} (use --format json or csv for all of them)"
    origin = "from the cache, " if result.from_cache else ""
    text = f"{text} in {_seconds(result.seconds)} ({origin}times in {result.timezone})\n"
    return f"{text}{left_out}\n" if left_out else text


def _is_time(kind: str) -> bool:
    return kind.startswith(("TIMESTAMP", "DATE", "TIME"))


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
FORMATS = ("table", "line", "json", "csv", *_BINARY)
#: The end of a file's name -> its format, if none is named.
SUFFIXES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".arrows": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".txt": "table",
}
