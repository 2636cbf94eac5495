"""What DuckDB says about a statement, as an error that a person can act on.

Every message names what is wrong, shows the line with a caret under the place, and the nearest name where a name
is unknown. Columns are also found by CloudTrail's own field names (``eventName`` -> ``event_name``).
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable

import duckdb

from trailsift.errors import EngineError, QueryError, TrailsiftError
from trailsift.query.relations import FUNCTIONS, columns_of, relations

#: DuckDB's exception types that speak of the statement; the rest speak of the machine or the lake.
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
#: Names that AWS's and the original document's queries use for our tables.
_OTHER_NAMES = {
    "cloudtrail_data_events": "events",
    "cloudtrail_raw_data": "events",
    "cloudtrail_logs": "events",
    "cloudtrail": "events",
    "aws_cloudtrail_event": "events",
    "cloudtrail_optimized": "events",
}


def query_error(sql: str, message: str, place: int | None = None, hint: str = "") -> QueryError:
    """A QueryError about ``sql``; ``place`` is a byte offset into it (DuckDB counts bytes)."""
    lines = [message]
    if place is not None:
        before = sql.encode()[: max(place, 0)].decode(errors="ignore")
        line = before.count("\n")
        column = len(before) - (before.rfind("\n") + 1)
        text = (sql.split("\n") or [""])[line].rstrip("\r")
        # A long line is cut around the place, so that the caret stays in sight.
        start = max(0, column - 80)
        lines[0] += f" (line {line + 1}, column {column + 1})"
        lines += ["  " + text[start : start + 120].replace("\t", " "), "  " + " " * (column - start) + "^"]
    if hint:
        lines.append(hint)
    return QueryError("\n".join(lines))


def nearest_table(name: str, also: Iterable[str] = ()) -> str:
    """``did you mean ...?`` for an unknown table, and what tables there are."""
    known = [*relations(), *also]
    found = _OTHER_NAMES.get(name.lower()) or _nearest(name, known)
    listing = "tables: " + ", ".join(relations())
    return f"did you mean {found}? ({listing})" if found else listing


def nearest_column(name: str, tables: Iterable[str], also: Iterable[str] = ()) -> str:
    """``did you mean ...?`` for an unknown column of ``tables``; empty where nothing is near."""
    by_name: dict[str, str] = {}
    for table in tables:
        for column, source in columns_of(table):
            by_name.setdefault(_bare(column), column)
            for label in (source, source.rsplit(".", 1)[-1]):
                if label:
                    by_name.setdefault(_bare(label), column)
    for column in also:
        by_name.setdefault(_bare(column), column)
    bare = _bare(name)
    found = by_name.get(bare)
    if found is None:
        near = _nearest(bare, list(by_name))
        found = by_name[near] if near else None
    return f"did you mean {found}?" if found else ""


def from_duckdb(sql: str, error: duckdb.Error, prefix: int = 0, tables: Iterable[str] = ()) -> TrailsiftError:
    """Our error for DuckDB's about ``sql``, which was run with ``prefix`` more bytes in front of it."""
    told = _parsed(error)
    kind = told.get("exception_type", "")
    text = told.get("exception_message", str(error)).strip()
    if kind == "Permission":
        return query_error(sql, "files, the network, extensions and settings cannot be reached from a query")
    if kind not in _ABOUT_THE_SQL:
        return _engine_error(kind, text)
    place = int(told["position"]) - prefix if told.get("position", "").isdigit() else None
    if place is not None and not 0 <= place <= len(sql.encode()):
        place = None
    subtype, name = told.get("error_subtype"), told.get("name", "")
    if subtype == "MISSING_ENTRY" and told.get("type", "").startswith("Table") and "Function" not in told["type"]:
        return query_error(sql, f"there is no table {name}", place, nearest_table(name))
    if subtype == "MISSING_ENTRY" and "Function" in told.get("type", ""):
        near = _nearest(name, FUNCTIONS) or told.get("candidates", "").split(",")[0]
        return query_error(sql, f"there is no function {name}", place, f"did you mean {near}?" if near else "")
    if subtype == "COLUMN_NOT_FOUND":
        candidates = [c.strip() for c in told.get("candidates", "").split(",") if c.strip()]
        return query_error(sql, f"there is no column {name}", place, nearest_column(name, tables, candidates))
    unknown = re.match(r'Referenced table "(.*)" not found', text)
    if unknown and place is not None:
        # `userIdentity.arn` is how CloudTrail nests what is a column here.
        path = re.match(rb"[\w.\[\]]+", sql.encode()[place:])
        whole = path[0].decode(errors="replace") if path else unknown[1]
        hint = nearest_column(whole, tables) if "." in whole else ""
        return query_error(sql, f"there is no table {unknown[1]} for {whole}", place, hint or text.partition("\n")[2])
    missing = re.match(r'Table "(.*)" does not have a column named "(.*)"', text)
    if missing:
        hint = nearest_column(missing[2], [missing[1]] if missing[1] in relations() else tables)
        return query_error(sql, f"{missing[1]} has no column {missing[2]}", place, hint)
    first, _, rest = text.partition("\n")
    hint = "\n".join(line.strip() for line in rest.splitlines() if line.strip())
    return query_error(sql, first, place, hint)


def is_missing_file(error: duckdb.Error) -> bool:
    """Whether a data file of the plan is gone (a newer snapshot replaced it and it was deleted)."""
    told = _parsed(error)
    text = told.get("exception_message", str(error))
    return told.get("exception_type", "IO") == "IO" and ("No such file" in text or "No files found" in text)


def _engine_error(kind: str, text: str) -> TrailsiftError:
    if kind == "Out of Memory":
        return EngineError(f"the query needs more memory than it may use: {text.splitlines()[0]}")
    if kind == "Interrupt":
        return EngineError("the query was stopped before it was done")
    return EngineError(f"DuckDB could not run the query ({kind or 'error'}): {text}")


def _parsed(error: duckdb.Error) -> dict[str, str]:
    """The fields of an error (connections run with ``errors_as_json``); empty where it is plain text."""
    text = str(error)
    start = text.find("{")
    if start < 0:
        return {}
    try:
        told = json.loads(text[start:])
    except ValueError:
        return {}
    if not isinstance(told, dict) or "exception_message" not in told:
        return {}
    return {str(key): str(value) for key, value in told.items()}


def _bare(name: str) -> str:
    return name.replace("_", "").replace("[]", "").lower()


def _nearest(name: str, known: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=0.6)
    return found[0] if found else None
