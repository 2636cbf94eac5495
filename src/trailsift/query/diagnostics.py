"""DuckDB's errors, as errors that a person can act on.

Every message says what is wrong, shows the line with a caret under the place, and suggests the nearest name for an
unknown one. Columns are also matched by CloudTrail's own field names (``eventName`` -> ``event_name``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from trailsift.errors import EngineError, QueryError, QueryMemoryError, TrailsiftError
from trailsift.query.duckdb_client import duckdb
from trailsift.query.relations import FUNCTIONS, columns_of, relations

#: DuckDB's exception types that are about the statement; the others are about the machine or the lake.
_ABOUT_THE_SQL = frozenset(
    {
        "Parser",
        "Syntax",
        "Binder",
        "Catalog",
        "Conversion",
        "Invalid Input",
        "Invalid type",
        "Mismatch Type",
        "Out of Range",
        "Not implemented",
        "Parameter Not Resolved",
        "Parameter Not Allowed",
        "Expression",
        "Executor",
        "Divide by Zero",
        "Decimal",
    }
)
#: Names for our tables in queries by AWS and in other documents.
_OTHER_NAMES = {
    "cloudtrail_data_events": "events",
    "cloudtrail_raw_data": "events",
    "cloudtrail_logs": "events",
    "cloudtrail": "events",
    "aws_cloudtrail_event": "events",
    "cloudtrail_optimized": "events",
}


def query_error(sql: str, message: str, place: int | None = None, hint: str = "") -> QueryError:
    """Return a QueryError about ``sql``; ``place`` is a byte offset into it (DuckDB counts bytes)."""
    lines = [message]
    if place is not None:
        before = sql.encode()[: max(place, 0)].decode(errors="ignore")
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1)
        text = (sql.split("\n") or [""])[line].rstrip("\r")
        # A long line is cut around the place, so that the caret stays visible.
        start = max(0, column - 80)
        lines[0] += f" (line {line + 1}, column {column + 1})"
        lines += ["  " + text[start : start + 120].replace("\t", " "), "  " + " " * (column - start) + "^"]
    if hint:
        lines.append(hint)
    return QueryError("\n".join(lines))


def nearest_table(name: str, others: Iterable[str] = ()) -> str:
    """Return ``did you mean ...?`` for an unknown table, and the list of tables."""
    near = _OTHER_NAMES.get(name.lower()) or nearest(name, [*relations(), *others])
    listing = "tables: " + ", ".join(relations())
    return f"did you mean {near}? ({listing})" if near else listing


def nearest_column(name: str, tables: Iterable[str], others: Iterable[str] = ()) -> str:
    """Return ``did you mean ...?`` for an unknown column of ``tables``; empty if nothing is near."""
    by_name: dict[str, str] = {}
    for table in tables:
        for column, source in columns_of(table):
            by_name.setdefault(_bare(column), column)
            for label in (source, source.rsplit(".", 1)[-1]):
                if label:
                    by_name.setdefault(_bare(label), column)
    for column in others:
        by_name.setdefault(_bare(column), column)
    bare = _bare(name)
    match = bare if bare in by_name else nearest(bare, by_name)
    return f"did you mean {by_name[match]}?" if match else ""


def from_duckdb(sql: str, error: duckdb.Error, prefix: int = 0, tables: Iterable[str] = ()) -> TrailsiftError:
    """Return our error for DuckDB's about ``sql``, which ran with ``prefix`` more bytes in front of it."""
    fields = _fields(error)
    kind = fields.get("exception_type", "")
    message = fields.get("exception_message", str(error)).strip()
    if kind == "Permission":
        return query_error(sql, "a query cannot reach files, the network, extensions or settings")
    if kind not in _ABOUT_THE_SQL:
        return _engine_error(kind, message)
    place = int(fields["position"]) - prefix if fields.get("position", "").isdigit() else None
    if place is not None and not 0 <= place <= len(sql.encode()):
        place = None
    fault = _Fault(sql, fields, message, place, tuple(tables))
    subtype = f"{fields.get('error_subtype', '')} {fields.get('type', '')}"
    for pattern, explain in _BY_SUBTYPE:
        if re.match(pattern, subtype):
            return query_error(sql, *explain(fault))
    for pattern, explain_match in _BY_MESSAGE:
        match = re.match(pattern, message)
        if match and (explained := explain_match(fault, match)):
            return query_error(sql, *explained)
    first, _, rest = message.partition("\n")
    hint = "\n".join(line.strip() for line in rest.splitlines() if line.strip())
    return query_error(sql, first, place, hint)


class _Fault(NamedTuple):
    """An error of DuckDB about a statement: its fields and message, the byte it points at, the tables in reach."""

    sql: str
    fields: dict[str, str]
    message: str
    place: int | None
    tables: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name that DuckDB does not know."""
        return self.fields.get("name", "")

    @property
    def candidates(self) -> list[str]:
        """Names that DuckDB suggests."""
        return [name.strip() for name in self.fields.get("candidates", "").split(",") if name.strip()]


#: (message, byte offset, hint): the arguments of ``query_error``.
_Explained = tuple[str, int | None, str]


def _unknown_table(fault: _Fault) -> _Explained:
    return f"there is no table {fault.name}", fault.place, nearest_table(fault.name)


def _unknown_function(fault: _Fault) -> _Explained:
    near = nearest(fault.name, FUNCTIONS) or next(iter(fault.candidates), None)
    return f"there is no function {fault.name}", fault.place, f"did you mean {near}?" if near else ""


def _unknown_column(fault: _Fault) -> _Explained:
    hint = nearest_column(fault.name, fault.tables, fault.candidates)
    return f"there is no column {fault.name}", fault.place, hint


def _unknown_qualifier(fault: _Fault, match: re.Match[str]) -> _Explained | None:
    if fault.place is None:
        return None
    # `userIdentity.arn` is how CloudTrail nests what is a column here.
    path = re.match(rb"[\w.\[\]]+", fault.sql.encode()[fault.place :])
    written = path[0].decode(errors="replace") if path else match[1]
    hint = nearest_column(written, fault.tables) if "." in written else ""
    return f"there is no table {match[1]} for {written}", fault.place, hint or fault.message.partition("\n")[2]


def _unknown_column_of(fault: _Fault, match: re.Match[str]) -> _Explained:
    hint = nearest_column(match[2], [match[1]] if match[1] in relations() else fault.tables)
    return f"{match[1]} has no column {match[2]}", fault.place, hint


#: DuckDB's subtype of an error, with the type of the missing entry -> how to explain it.
_BY_SUBTYPE: tuple[tuple[str, Callable[[_Fault], _Explained]], ...] = (
    ("MISSING_ENTRY .*Function", _unknown_function),
    ("MISSING_ENTRY Table", _unknown_table),
    ("COLUMN_NOT_FOUND", _unknown_column),
)
#: For errors without a subtype: what the message looks like -> how to explain it.
_BY_MESSAGE: tuple[tuple[str, Callable[[_Fault, re.Match[str]], _Explained | None]], ...] = (
    ('Referenced table "(.*)" not found', _unknown_qualifier),
    ('Table "(.*)" does not have a column named "(.*)"', _unknown_column_of),
)


def is_missing_file(error: duckdb.Error) -> bool:
    """Return whether a data file of the plan is gone (a newer snapshot replaced it and it was deleted)."""
    fields = _fields(error)
    message = fields.get("exception_message", str(error))
    return fields.get("exception_type", "IO") == "IO" and ("No such file" in message or "No files found" in message)


def names_data_file(error: duckdb.Error, root: Path) -> bool:
    """Return whether an error of a running statement is about a file of the lake: no statement can name one."""
    return f"{root}/" in str(error) and ".parquet" in str(error)


def message_of(error: duckdb.Error) -> str:
    """Return the first line of DuckDB's own words."""
    return _fields(error).get("exception_message", str(error)).strip().partition("\n")[0]


def _engine_error(kind: str, message: str) -> TrailsiftError:
    if kind == "Out of Memory":
        disk = "offload" in message or "max_temp_directory_size" in message
        what, options = ("memory and disk", "`--memory`, `--spill`") if disk else ("memory", "`--memory`")
        return QueryMemoryError(
            f"the query needs more {what} than it may use: {message.splitlines()[0].rstrip('. ')}. Query a shorter "
            f"period or fewer columns, or allow more ({options})"
        )
    if kind == "Interrupt":
        return EngineError("the query was stopped before it was done")
    return EngineError(f"DuckDB could not run the query ({kind or 'error'}): {message}")


def _fields(error: duckdb.Error) -> dict[str, str]:
    """Return the fields of an error (connections run with ``errors_as_json``); empty if it is plain text."""
    message = str(error)
    start = message.find("{")
    if start < 0:
        return {}
    try:
        fields = json.loads(message[start:])
    except ValueError:
        return {}
    if not isinstance(fields, dict) or "exception_message" not in fields:
        return {}
    return {str(key): str(value) for key, value in fields.items()}


def _bare(name: str) -> str:
    return name.replace("_", "").replace("[]", "").lower()


def nearest(name: str, names: Iterable[str]) -> str | None:
    """Return the one of ``names`` that looks most like ``name``; None if nothing is near."""
    import difflib

    return next(iter(difflib.get_close_matches(name.lower(), list(names), n=1, cutoff=0.6)), None)
