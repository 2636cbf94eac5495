"""Export stored events as the records that CloudTrail wrote."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from trailsift.decode.json_text import dump
from trailsift.decode.record import BYTES, PLAIN, restore
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: The columns that ``restore`` reads.
COLUMNS = (
    *PLAIN.values(),
    *BYTES.values(),
    "read_only",
    "request_parameters",
    "response_elements",
    "additional_event_data",
    "resources",
    "rest",
    "resource_type",
    "resource_arn",
    "resource_arns",
    "resource_account",
    "object_key",
)


def records(engine: DuckDBEngine, where: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield the records of all events, or of those that meet the SQL condition ``where``, in bounded memory.

    Raise QueryError if the condition is not valid SQL.
    """
    if where is not None and not where.strip():
        raise UsageError("--where is empty: leave it out to export everything")
    # The line break keeps a comment at the end of the condition from swallowing the parenthesis.
    condition = "" if where is None else f" WHERE ({where}\n)"
    sql = f"SELECT {', '.join(COLUMNS)}, epoch_us(event_time) FROM events{condition}"
    names = (*COLUMNS, "event_time")
    for rows in engine.query(sql, cache=False).fetched():
        for row in rows:
            yield restore(dict(zip(names, row, strict=True)))


def export(engine: DuckDBEngine, out: TextIO, where: str | None = None, form: str = "ndjson") -> int:
    """Write the records to ``out``: one per line (``ndjson``), or one document as in a log file (``records``).

    Return their number.
    """
    count = 0
    as_document = form == "records"
    if as_document:
        out.write('{"Records":[')
    for record in records(engine, where):
        if as_document and count:
            out.write(",")
        out.write("\n" + dump(record) if as_document else dump(record) + "\n")
        count += 1
    if as_document:
        out.write("\n]}\n")
    return count
