"""Export stored events as the records that CloudTrail wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from trailsift.decode.json_text import dump
from trailsift.decode.record import BYTES, PLAIN, restore
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine
    from trailsift.query.result import Result

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


class Skipped(NamedTuple):
    """An event whose record cannot be restored, because what is stored of it is not what ingest writes."""

    event_id: str
    log_object: str
    reason: str


#: Called with each event that is left out.
OnSkipped = Callable[[Skipped], None]

#: What damaged values raise.
_ERRORS = (ValueError, TypeError, AttributeError, KeyError, OverflowError, RecursionError)


def records(
    engine: DuckDBEngine, where: str | None = None, on_skipped: OnSkipped | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the records of all events, or of those that meet the SQL condition ``where``, in bounded memory.

    Events that cannot be restored are left out, and passed to ``on_skipped``. Raise QueryError if the condition is not
    valid SQL.
    """
    for record, _ in _restored(engine, where, on_skipped):
        yield record


def _restored(
    engine: DuckDBEngine, where: str | None, on_skipped: OnSkipped | None
) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the records and their JSON."""
    sql = f"SELECT {', '.join(COLUMNS)}, log_object, epoch_us(event_time) FROM events{_condition(where)}"
    names = (*COLUMNS, "log_object", "event_time")
    for fetched in engine.query(sql, cache=False).fetched():
        for row in fetched:
            columns = dict(zip(names, row, strict=True))
            try:
                record = restore(columns)
                text = dump(record)
            except _ERRORS as error:
                if on_skipped is not None:
                    reason = f"{type(error).__name__}: {error}"
                    on_skipped(Skipped(str(columns["event_id"]), str(columns["log_object"]), reason))
            else:
                yield record, text


def rows(engine: DuckDBEngine, where: str | None = None, *, arrow: bool = False) -> Result:
    """Return the rows of ``events``, or of those that meet the SQL condition ``where``. Raise as ``records`` does."""
    return engine.query(f"SELECT * FROM events{_condition(where)}", cache=False, arrow=arrow)


def _condition(where: str | None) -> str:
    if where is not None and not where.strip():
        raise UsageError("--where is empty: leave it out to export everything")
    # The line break keeps a comment at the end of the condition from swallowing the parenthesis.
    return "" if where is None else f" WHERE ({where}\n)"


def export(
    engine: DuckDBEngine,
    out: TextIO,
    where: str | None = None,
    form: str = "ndjson",
    on_skipped: OnSkipped | None = None,
) -> int:
    """Write the records to ``out``: one per line (``ndjson``), or one document as in a log file (``records``).

    Return their number. Events that cannot be restored are passed to ``on_skipped``.
    """
    count = 0
    as_document = form == "records"
    if as_document:
        out.write('{"Records":[')
    for _, text in _restored(engine, where, on_skipped):
        if as_document and count:
            out.write(",")
        out.write("\n" + text if as_document else text + "\n")
        count += 1
    if as_document:
        out.write("\n]}\n")
    return count
