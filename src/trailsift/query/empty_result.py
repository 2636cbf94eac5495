"""Why a result has no rows: a sentence for the person who ran the query."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from trailsift.lake.index import FileFilter
from trailsift.lake.retention import Cut, RemovedDays, removed_days
from trailsift.query.planner import Plan, Scan
from trailsift.query.pruning import AllOf, Comparison, Predicate, file_filter
from trailsift.schema import TABLES

if TYPE_CHECKING:
    from trailsift.query.duckdb import DuckDBEngine
    from trailsift.query.result import Result

#: Columns of ``hourly`` with few distinct values, so that a value can be checked against all of them.
_CHECKED = ("service", "event_name", "caller", "role_arn", "account_id", "aws_region", "resource_arn", "error_code")

_COUNTS_STAY = " Their counts are in hourly, usage, profile, access and sessions, unless these are removed, too."


def why_empty(engine: DuckDBEngine, result: Result) -> str:
    """Return why ``result`` may have no rows: nothing stored, another time, a value that does not occur, or no row
    that meets all conditions. Read at most the distinct values of a column of ``hourly``."""
    plan = result.plan
    if not plan.files:
        return "The statement reads no table of the lake and produces no rows itself."
    removed = removed_days(plan.snapshot)
    for name in plan.files:
        if not plan.snapshot.files(name):
            if (before := _removed_before(removed, name)) is not None:
                return f"The table {name} is empty: retention has removed {_what(name)} before {_day(before)}."
            why = "nothing was rejected" if name == "rejects" else "nothing has been ingested yet (`trailsift ingest`)"
            return f"The table {name} is empty: {why}."
    if not plan.scans:
        return "The conditions contradict each other: no row can meet them all."
    for scan in plan.scans:
        reason = _other_time(plan, scan, removed) or _unknown_value(engine, plan, scan)
        if reason:
            return reason
    conditions = list(dict.fromkeys(text.removeprefix("optional: ") for scan in plan.scans for text in scan.filters))
    files = sum(len(files) for files in plan.files.values())
    more = _gone(plan, removed)
    if not conditions:
        return f"All {files:,} files were read, and no row meets the conditions of the statement.{more}"
    return f"{files:,} files that may hold such rows were read, and no row meets all of {'; '.join(conditions)}.{more}"


def _removed_before(removed: RemovedDays, table: str) -> int | None:
    """Return the time before which retention has removed the rows of a table; None if it has removed none."""
    return Cut(removed.events, removed.summaries).of(table)


def _what(table: str) -> str:
    return "the summaries" if TABLES[table].keys else "the events" if table == "events" else "what was rejected"


def _gone(plan: Plan, removed: RemovedDays) -> str:
    """Return a further sentence if the rows may have been removed by retention."""
    for scan in plan.scans:
        before = _removed_before(removed, scan.table)
        asked = file_filter(TABLES[scan.table], scan.predicate)
        if before is not None and (asked.min_time is None or asked.min_time < before):
            return f" Retention has removed {_what(scan.table)} before {_day(before)}."
    return ""


def _other_time(plan: Plan, scan: Scan, removed: RemovedDays) -> str | None:
    """Return a reason if the table holds nothing of the period of the statement."""
    files = plan.snapshot.files(scan.table)
    first, last = min(file.min_time for file in files), max(file.max_time for file in files)
    asked = file_filter(TABLES[scan.table], scan.predicate)
    late = asked.min_time is not None and asked.min_time > last
    early = asked.max_time is not None and asked.max_time < first
    if not late and not early:
        return None
    before = _removed_before(removed, scan.table)
    if early and before is not None and (asked.max_time or 0) < before:
        still = "" if TABLES[scan.table].keys or not plan.snapshot.files("hourly") else _COUNTS_STAY
        return (
            f"Retention has removed {_what(scan.table)} before {_day(before)}, and the statement asks for "
            f"{_span(asked)}.{still}"
        )
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
    """Return a reason if a column is compared with a value that it never has."""
    if not plan.snapshot.files("hourly"):
        return None
    for column, value in _equalities(scan):
        if column not in _CHECKED or column not in {c.name for c in TABLES[scan.table].columns}:
            continue
        rows = engine.sql(f"SELECT DISTINCT {column} FROM hourly WHERE {column} IS NOT NULL LIMIT 100000").rows()
        values = [str(row[0]) for row in rows]
        if value in values or "(other)" in values:
            continue
        return f"No event has the {column} {value!r}{_hint(value, values)}."
    return None


def _hint(value: str, values: list[str]) -> str:
    folded = value.lower()
    same = [text for text in values if text.lower() == folded]
    # People often name a role without its path, or a bucket without its ARN.
    ends = [text for text in values if text.lower().endswith(("/" + folded, ":" + folded, ":::" + folded))]
    near = same or ends or _close_matches(value, values)
    if near:
        return "; there is " + ", ".join(repr(text) for text in near[:3])
    if 0 < len(values) <= 12:
        return "; there are " + ", ".join(sorted(values))
    return ""


def _close_matches(value: str, values: list[str]) -> list[str]:
    import difflib

    return difflib.get_close_matches(value, values, n=3, cutoff=0.7)


def _equalities(scan: Scan) -> Iterator[tuple[str, str]]:
    """Yield the conditions ``column = 'text'`` that every row must meet."""
    yield from _required(scan.predicate)
    for text in scan.filters:
        column, equals, quoted = text.partition("=")
        if equals and column.isidentifier() and len(quoted) > 1 and quoted[0] == quoted[-1] == "'":
            value = quoted[1:-1]
            if "'" not in value.replace("''", ""):
                yield column, value.replace("''", "'")


def _required(predicate: Predicate | None) -> Iterator[tuple[str, str]]:
    if isinstance(predicate, Comparison) and predicate.op == "=" and isinstance(predicate.value, str):
        yield predicate.column, predicate.value
    elif isinstance(predicate, AllOf):
        for part in predicate.parts:
            yield from _required(part)
