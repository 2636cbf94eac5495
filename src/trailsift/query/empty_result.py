"""Why an answer has no rows: a sentence for the person who asked."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trailsift.lake.index import FileFilter
from trailsift.query.planner import Plan, Scan
from trailsift.query.pruning import AllOf, AnyOf, Predicate, Test, wanted
from trailsift.schema import TABLES

if TYPE_CHECKING:
    from trailsift.query.duckdb import DuckDBEngine
    from trailsift.query.result import Result

#: Columns of ``hourly`` whose values are few: a value that does not exist can be told from one that does.
_KNOWN = ("service", "event_name", "role_arn", "account_id", "aws_region", "resource_arn", "error_code")


def why_empty(engine: DuckDBEngine, result: Result) -> str:
    """Why ``result`` may have no rows: nothing stored, another time, a value that does not occur, or no row that
    meets all conditions. Reads at most the distinct values of a column of ``hourly``."""
    plan = result.plan
    if not plan.files:
        return "The statement reads no table of the lake, and gives no rows by itself."
    for name in plan.files:
        if not plan.snapshot.files(name):
            why = "nothing was rejected" if name == "rejects" else "nothing is ingested yet (`trailsift ingest`)"
            return f"The table {name} is empty: {why}."
    if not plan.scans:
        return "The conditions contradict each other: no row can meet them all."
    for scan in plan.scans:
        reason = _other_time(plan, scan) or _unknown_value(engine, plan, scan)
        if reason:
            return reason
    conditions = list(dict.fromkeys(text.removeprefix("optional: ") for scan in plan.scans for text in scan.filters))
    files = sum(len(files) for files in plan.files.values())
    if not conditions:
        return f"All {files:,} files were read: no row meets the conditions of the statement."
    return f"{files:,} files may hold such rows and were read: no row meets all of {'; '.join(conditions)}."


def _other_time(plan: Plan, scan: Scan) -> str | None:
    """The lake does not reach the time that was asked for."""
    files = plan.snapshot.files(scan.table)
    first, last = min(file.min_time for file in files), max(file.max_time for file in files)
    asked = wanted(TABLES[scan.table], scan.predicate)
    late = asked.min_time is not None and asked.min_time > last
    early = asked.max_time is not None and asked.max_time < first
    if not late and not early:
        return None
    covered = f"{_day(first)}..{_day(last)} UTC"
    return f"The table {scan.table} covers {covered}, but the statement asks for {_span(asked)}."


def _span(asked: FileFilter) -> str:
    if asked.max_time is None:
        return f"{_day(asked.min_time or 0)} and later"
    if asked.min_time is None:
        return f"{_day(asked.max_time)} and earlier"
    first, last = _day(asked.min_time), _day(asked.max_time)
    return first if first == last else f"{first}..{last}"


def _day(micros: int) -> str:
    try:
        return datetime.fromtimestamp(micros // 1_000_000, UTC).strftime("%Y-%m-%d")
    except (OverflowError, ValueError, OSError):
        return f"{micros} microseconds since 1970"


def _unknown_value(engine: DuckDBEngine, plan: Plan, scan: Scan) -> str | None:
    """A column is compared with a value that it never has."""
    if not plan.snapshot.files("hourly"):
        return None
    for column, value in _equalities(scan):
        if column not in _KNOWN or column not in {c.name for c in TABLES[scan.table].columns}:
            continue
        rows = engine.sql(f"SELECT DISTINCT {column} FROM hourly WHERE {column} IS NOT NULL LIMIT 100000").rows()
        known = [str(row[0]) for row in rows]
        if value in known or "(other)" in known:
            continue
        return f"No event has the {column} {value!r}{_hint(value, known)}."
    return None


def _hint(value: str, known: list[str]) -> str:
    folded = value.lower()
    same = [text for text in known if text.lower() == folded]
    # A role is often asked for by its name, a bucket without its ARN.
    ends = [text for text in known if text.lower().endswith(("/" + folded, ":" + folded, ":::" + folded))]
    near = same or ends or difflib.get_close_matches(value, known, n=3, cutoff=0.7)
    if near:
        return "; there is " + ", ".join(repr(text) for text in near[:3])
    if 0 < len(known) <= 12:
        return "; there are " + ", ".join(sorted(known))
    return ""


def _equalities(scan: Scan) -> Iterator[tuple[str, str]]:
    """The conditions ``column = 'text'`` that every row must meet."""
    yield from _tests(scan.predicate)
    for text in scan.filters:
        column, equals, quoted = text.partition("=")
        if equals and column.isidentifier() and len(quoted) > 1 and quoted[0] == quoted[-1] == "'":
            value = quoted[1:-1]
            if "'" not in value.replace("''", ""):
                yield column, value.replace("''", "'")


def _tests(predicate: Predicate | None) -> Iterator[tuple[str, str]]:
    if isinstance(predicate, Test) and predicate.op == "=" and isinstance(predicate.value, str):
        yield predicate.column, predicate.value
    elif isinstance(predicate, AllOf):
        for part in predicate.parts:
            yield from _tests(part)
    elif isinstance(predicate, AnyOf):
        return
