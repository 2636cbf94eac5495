"""What can stand next in a statement: tables, columns, functions, words of SQL, and values that the lake has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from trailsift.query.relations import FUNCTIONS, VIEWS, columns_of, relations
from trailsift.query.statements import part_at_end
from trailsift.safe_text import is_safe
from trailsift.schema import TABLES

#: Columns whose values are completed -> the table that counts them all.
VALUE_COLUMNS = {
    "caller": "hourly",
    "role_arn": "hourly",
    "event_name": "hourly",
    "eventname": "hourly_summary",
    "service": "hourly",
    "resource_arn": "hourly",
    "error_code": "hourly",
    "aws_region": "hourly",
    "account_id": "hourly",
    "category": "hourly",
    "kind": "access",
    "touch": "access",
    "dimension": "profile",
}
#: Candidates that are offered at most.
MOST = 200

_WORDS = """
    SELECT FROM WHERE GROUP BY ORDER LIMIT HAVING JOIN LEFT USING WITH AS AND OR NOT IN IS NULL LIKE ILIKE BETWEEN CASE
    WHEN THEN ELSE END DISTINCT DESC ASC UNION ALL FILTER INTERVAL DATE TIMESTAMP DESCRIBE SUMMARIZE SHOW TABLES EXCEPT
    INTERSECT OVER PARTITION OFFSET ON TRUE FALSE
    """.split()  # noqa: SIM905
_CALLS = """
    count sum min max avg coalesce date_trunc list string_agg now any_value arg_max median quantile_cont lower
    starts_with contains regexp_matches round strftime nullif epoch_ms
    """.split()  # noqa: SIM905
_VALUE_OF = re.compile(
    r"(\w+)\s*(?:=|<>|!=|==|(?:not\s+)?(?:i?like)|(?:not\s+)?in\s*\((?:[^()]*,)?)\s*$", re.IGNORECASE
)
_AFTER_FROM = re.compile(r"\b(?:from|join|describe|summarize|table)\s+$", re.IGNORECASE)
_WORD = re.compile(r"[A-Za-z_]\w*$")

#: A column -> its values, those with most events first.
Values = Callable[[str], Sequence[str]]


class Candidate(NamedTuple):
    """A text for the place ``length`` characters before the cursor and after it, and a word about it."""

    text: str
    length: int
    meaning: str


def complete(before: str, after: str, values: Values) -> list[Candidate]:
    """Return what can stand at the cursor of a statement, between the texts ``before`` and ``after``."""
    part = part_at_end(before)
    if part is None:
        return _names(before, after)
    if part.kind != "text" or before[part.start] != "'":
        return []
    match = _VALUE_OF.search(before[: part.start])
    column = match[1].lower() if match else ""
    if column not in VALUE_COLUMNS:
        return []
    typed = before[part.start + 1 :]
    wanted = typed.replace("''", "'").lower()
    end = "" if after.startswith("'") else "'"
    matching = [value for value in values(column) if wanted in value.lower() and is_safe(value)]
    matching.sort(key=lambda value: not value.lower().startswith(wanted))
    return [Candidate(value.replace("'", "''") + end, len(typed), column) for value in matching[:MOST]]


def values_sql(column: str) -> str:
    """Return SQL of the values of one of ``VALUE_COLUMNS``, those with most events first."""
    count = "event_count" if column == "eventname" else "events"
    return (
        f"SELECT {column} FROM {VALUE_COLUMNS[column]} WHERE {column} IS NOT NULL GROUP BY {column} "
        f"ORDER BY sum({count}) DESC, {column} LIMIT 5000"
    )


def _names(before: str, after: str) -> list[Candidate]:
    match = _WORD.search(before)
    typed = match[0] if match else ""
    head = before[: len(before) - len(typed)]
    if _AFTER_FROM.search(head):
        return _beginning(typed, ((name, "table") for name in relations()))
    named = [name for name in relations() if re.search(rf"\b{name}\b", f"{before} {after}", re.IGNORECASE)]
    if head.endswith("."):
        qualified = _WORD.search(head[:-1])
        own = [name for name in relations() if qualified and name == qualified[0].lower()]
        return _beginning(typed, _columns(own or named or relations()))
    listed = [*_columns(named or relations()), *((name, "table") for name in relations())]
    listed += [(name, "function") for name in (*FUNCTIONS, *_CALLS)]
    listed += [(word if typed.isupper() or not typed else word.lower(), "SQL") for word in _WORDS]
    return _beginning(typed, listed)


def _columns(tables: Iterable[str]) -> list[tuple[str, str]]:
    """Return the columns of tables, each once, with the tables that have it."""
    found: dict[str, list[str]] = {}
    for table in tables:
        for name, _ in columns_of(table):
            found.setdefault(name, []).append(table)
    return [(name, ", ".join(having[:3]) + (" ..." if len(having) > 3 else "")) for name, having in found.items()]


def _beginning(typed: str, names: Iterable[tuple[str, str]]) -> list[Candidate]:
    seen: dict[str, Candidate] = {}
    for name, meaning in names:
        if name.lower().startswith(typed.lower()):
            seen.setdefault(name.lower(), Candidate(name, len(typed), meaning))
    return list(seen.values())[:MOST]


def described(name: str) -> list[tuple[str, str, str]]:
    """Return (column, type, meaning) of each column of a table or view; an empty list for any other name."""
    columns = TABLES[name].columns if name in TABLES else VIEWS[name][3] if name in VIEWS else ()
    return [(column.name, column.type, column.meaning) for column in columns]


def meanings() -> list[tuple[str, str]]:
    """Return (name, meaning) of each table and view."""
    return [(name, TABLES[name].meaning if name in TABLES else VIEWS[name][0]) for name in relations()]
