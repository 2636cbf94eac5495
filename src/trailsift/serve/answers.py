"""Answers in the format that was asked for: JSON, or a table as CSV, Arrow or Parquet."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from trailsift.errors import UsageError
from trailsift.query.json_objects import plain
from trailsift.query.query_result import QueryResult

Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
FORMATS: dict[str, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
#: Bytes of a file that is made of a statement's result.
MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Answer:
    """What an endpoint found: JSON values, and the same as a table where there is one."""

    data: Any
    table: Callable[[], Table] | None = None


@dataclass(frozen=True, slots=True)
class Body:
    """An answer as bytes."""

    content: bytes
    media_type: str


def encode(answer: Answer | Body, format: str, mask: Callable[[Any], Any] | None = None) -> Body:
    """Return an answer in a format; ``mask`` is applied to its values. UsageError if there is no such table."""
    if isinstance(answer, Body):
        return answer
    if format == "json":
        data = plain(answer.data)
        text = json.dumps(data if mask is None else mask(data), ensure_ascii=False, default=_other)
        # A line separator would end a string in what reads JSON as a script; half a pair of surrogates has no bytes.
        return Body(text.encode("utf-8", "replace"), FORMATS["json"])
    if answer.table is None:
        raise UsageError(f"this answer is not a table: it cannot be given as {format}")
    names, rows = answer.table()
    if mask is not None:
        rows = [tuple(mask(dict(zip(names, row, strict=True))).values()) for row in rows]
    return Body(_TABLES[format](list(names), [list(map(_cell, row)) for row in rows]), FORMATS[format])


class _Bounded(io.BytesIO):
    """Bytes in memory, up to a limit."""

    def write(self, data: Any) -> int:
        """Add bytes. Raise UsageError beyond the limit."""
        if self.tell() + len(data) > MOST_BYTES:
            raise UsageError(
                f"the result has more than {MOST_BYTES >> 20} MB: narrow the query, or run `trailsift query` with "
                "--output"
            )
        return super().write(data)


def of_query(result: QueryResult, format: str, most: int) -> Answer | Body:
    """Return the rows of a statement: as JSON with its columns, at most ``most`` rows; a file has all of them."""
    if format != "json":
        out = _Bounded()
        result.write(out, format, formulas=False)
        return Body(out.getvalue(), FORMATS[format])
    rows, more = result.first(most)
    return Answer(
        {
            "columns": [{"name": name, "type": kind} for name, kind in result.columns],
            "rows": rows,
            "more": more,
            "seconds": round(result.seconds, 4),
            "why_empty": None if rows else result.why_empty(),
        }
    )


def table_of(records: Sequence[Any]) -> Callable[[], Table]:
    """Return a table of NamedTuples or dicts that all have the same fields."""

    def made() -> Table:
        rows = [plain(record) for record in records]
        names = list(rows[0]) if rows else []
        return names, [list(row.values()) for row in rows]

    return made


def _cell(value: Any) -> Any:
    """Return what a table can hold in one column: nested values become JSON."""
    return json.dumps(value, ensure_ascii=False, default=_other) if isinstance(value, list | dict | tuple) else value


def _other(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _csv(names: list[str], rows: list[list[Any]]) -> bytes:
    import csv

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_inert(value) for value in row])
    return out.getvalue().encode("utf-8", "replace")


def _inert(value: Any) -> Any:
    """Return a text that a spreadsheet does not take for a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    return "'" + value if isinstance(value, str) and value.lstrip()[:1] in ("=", "+", "-", "@") and value else value


def _arrow_table(names: list[str], rows: list[list[Any]]) -> Any:
    import pyarrow as pa

    columns = [pa.array([row[place] for row in rows]) for place in range(len(names))]
    return pa.table(columns, names=names)


def _arrow(names: list[str], rows: list[list[Any]]) -> bytes:
    import pyarrow as pa

    table = _arrow_table(names, rows)
    out = io.BytesIO()
    with pa.ipc.new_stream(out, table.schema) as sink:
        sink.write_table(table)
    return out.getvalue()


def _parquet(names: list[str], rows: list[list[Any]]) -> bytes:
    from pyarrow import parquet

    out = io.BytesIO()
    parquet.write_table(_arrow_table(names, rows), out, compression="zstd")
    return out.getvalue()


_TABLES: dict[str, Callable[[list[str], list[list[Any]]], bytes]] = {"csv": _csv, "arrow": _arrow, "parquet": _parquet}
