"""Which files a statement needs, decided without opening one.

DuckDB's optimizer knows best which condition reaches which table (through aliases, subqueries, joins, unions and
views), and it folds constants (``now() - INTERVAL 7 DAYS``). So the statement is explained over empty tables of our
schema, and the filters that DuckDB pushed into each scan are read back. Optimizer passes that look at the tables'
contents, or that rewrite scans only for speed, are off: only the pushed filters matter here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from trailsift.lake.event_days import event_days
from trailsift.lake.index import File, Snapshot
from trailsift.query.deadline import Deadline
from trailsift.query.diagnostics import from_duckdb
from trailsift.query.duckdb_client import duckdb
from trailsift.query.limits import Limits
from trailsift.query.pruning import (
    FilterReader,
    Predicate,
    all_of,
    asked_ids,
    by_caller,
    file_filter,
    may_pass,
    predicate_columns,
    range_reader,
)
from trailsift.query.relations import DUCK_TYPES, MACROS, VIEWS, table_columns, text
from trailsift.query.sandbox import CheckedStatement, check
from trailsift.query.types import UTC_NAMES
from trailsift.schema import TABLES
from trailsift.times import DAY

Parameters = Sequence[object] | Mapping[str, object] | None

#: Passes that move filters towards the scans, and passes that those depend on.
_KEPT_PASSES = frozenset(
    {
        "expression_rewriter",
        "filter_pullup",
        "filter_pushdown",
        "empty_result_pullup",
        "cte_filter_pusher",
        "cte_inlining",
        "regex_range",
        "deliminator",
        "unnest_rewriter",
        "unused_columns",
        "materialized_cte",
        "extension",
    }
)
#: Between planning and running, the clock moves on by less than this (microseconds).
_CLOCK_SLACK = 60_000_000
#: Fewer files are opened as fast as the days of events are looked up.
_FEW_FILES = 3
_TIME_AND_PATH = attrgetter("min_time", "path")
_EXPLAIN = "EXPLAIN (FORMAT JSON) "
_DESCRIBE = "DESCRIBE "


class Scan(NamedTuple):
    """One place where a statement reads a stored table: the columns it uses and the filters pushed down to it."""

    table: str
    columns: frozenset[str]
    filters: tuple[str, ...]
    predicate: Predicate | None


class Plan(NamedTuple):
    """The scans of a statement, and for each table the files that may hold a row it needs."""

    snapshot: Snapshot
    scans: tuple[Scan, ...]
    files: dict[str, list[File]]

    @property
    def bytes(self) -> int:
        """Size of the planned files."""
        return sum(file.bytes for files in self.files.values() for file in files)

    def scans_of(self, table: str) -> list[Scan]:
        """Return the scans of one table."""
        return [scan for scan in self.scans if scan.table == table]


class Planner:
    """Plans statements over empty tables, in a database of its own. Safe to share between threads.

    Binding and optimizing a statement computes its constants, so planning has the memory limit and the deadline of the
    statement itself.
    """

    def __init__(self, timezone: str, limits: Limits, *, hourly_partitions: bool = False) -> None:
        self._utc = timezone in UTC_NAMES
        self._db = connect(timezone, limits._replace(threads=1))
        passes = [name for (name,) in self._db.execute("SELECT name FROM duckdb_optimizers()").fetchall()]
        unused = ",".join(name for name in passes if name not in _KEPT_PASSES)
        statements = [f"SET GLOBAL disabled_optimizers = '{unused}'"]
        for table in TABLES.values():
            stored = table_columns(table, hourly_partitions=hourly_partitions)
            columns = ", ".join(f"{column.name} {DUCK_TYPES[column.type]}" for column in stored)
            statements.append(f"CREATE TABLE {table.name} ({columns})")
        statements += [f"CREATE VIEW {name} AS {view[2]}" for name, view in VIEWS.items()]
        self._db.execute(";".join(statements))
        lock(self._db)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to the empty tables, for parsing and binding."""
        return self._db.cursor()

    def check(self, sql: str, deadline: Deadline, *, trusted: bool = False) -> CheckedStatement:
        """Parse and judge ``sql`` (see ``sandbox.check``)."""
        return deadline.on_cursor(self._db, lambda cursor: check(sql, cursor, trusted=trusted))

    def close(self) -> None:
        """Free the database."""
        self._db.close()

    def result_columns(
        self, statement: CheckedStatement, parameters: Parameters, deadline: Deadline
    ) -> list[tuple[str, str]]:
        """Return (name, DuckDB type) of each column of the result. Raise QueryError if the statement does not bind."""
        if re.match(r"\s*(DESCRIBE|DESC|SHOW|SUMMARIZE)\b", statement.text, re.IGNORECASE):
            prefix, suffix = "DESCRIBE SELECT * FROM (", "\n)"
        else:
            prefix, suffix = _DESCRIBE, ""
        rows = self._run(prefix, statement, parameters, deadline, suffix)
        return [(str(row[0]), str(row[1])) for row in rows]

    def scans(self, statement: CheckedStatement, parameters: Parameters, deadline: Deadline) -> tuple[Scan, ...]:
        """Return the statement's scans of stored tables."""
        if not statement.stored:
            return ()
        rows = self._run(_EXPLAIN, statement, parameters, deadline)
        nodes = list(_nodes(json.loads(rows[0][1])))
        reads = [node for node in nodes if _table_of(node) is not None]
        seen = {_table_of(node) for node in reads}
        slack = _CLOCK_SLACK if statement.clock else 0
        scans = [self._with_written(self._scan(node, slack), statement, len(reads)) for node in reads]
        if not any(str(node.get("name", "")).strip() == "EMPTY_RESULT" for node in nodes):
            # If a table vanished from the plan for another reason, all of it is read.
            missing = [name for name in statement.stored if name not in seen]
            scans += [Scan(name, frozenset(c.name for c in TABLES[name].columns), (), None) for name in missing]
        return tuple(scans)

    def _run(
        self, prefix: str, statement: CheckedStatement, parameters: Parameters, deadline: Deadline, suffix: str = ""
    ) -> list[tuple[Any, ...]]:
        sql = prefix + statement.text + suffix

        def rows(cursor: duckdb.DuckDBPyConnection) -> list[tuple[Any, ...]]:
            return (cursor.execute(sql, parameters) if parameters else cursor.execute(sql)).fetchall()

        try:
            return deadline.on_cursor(self._db, rows)
        except duckdb.Error as error:
            raise from_duckdb(statement.text, error, len(prefix), statement.tables) from None

    def _with_written(self, scan: Scan, statement: CheckedStatement, reads: int) -> Scan:
        """Add to ``scan`` what only the statement's own text says, if that can be about no other scan."""
        if reads != 1 or len(statement.wheres) != 1 or statement.wheres[0][0] != scan.table:
            return scan
        where = statement.wheres[0][1]
        written = FilterReader(TABLES[scan.table], written=True).read(where) if where else None
        return scan._replace(predicate=all_of([scan.predicate, written]))

    def _scan(self, node: Mapping[str, Any], slack: int) -> Scan:
        table = TABLES[_table_of(node) or ""]
        info = node["extra_info"]
        filters = tuple(_texts(info.get("Filters")))
        reader = FilterReader(table, utc=self._utc, slack=slack)
        read = all_of([reader.read(tree) for tree in self._trees(filters)])
        predicate = by_caller(read)
        names = {column.name for column in TABLES[table.name].columns}
        used = (set(_texts(info.get("Projections"))) & names) | predicate_columns(read)
        used |= {name for name in names if any(re.search(rf"\b{name}\b", text) for text in filters)}
        return Scan(table.name, frozenset(used), filters, predicate)

    def _trees(self, filters: Sequence[str]) -> list[Mapping[str, Any]]:
        """Return the syntax trees of the filters that are complete expressions."""
        # DuckDB prints a scan's filters one per line. A string with a line break in it arrives as several, and a
        # fragment of one always has an odd number of quotes: then none of them can be trusted.
        if any(line.count("'") % 2 for line in filters):
            return []
        if not filters:
            return []
        trees: list[Mapping[str, Any]] = []
        # All in one statement: each costs a millisecond.
        parts = ", ".join(f"json_serialize_sql({text('SELECT ' + _plain(line))})" for line in filters)
        with self._db.cursor() as cursor:
            row = cursor.execute(f"SELECT {parts}").fetchone()
        for written in row or ():
            tree: dict[str, Any] = json.loads(written)
            if not tree["error"] and len(tree["statements"]) == 1:
                selected = tree["statements"][0]["node"].get("select_list", [])
                trees += selected if len(selected) == 1 else []
        return trees


def choose_files(snapshot: Snapshot, scans: Iterable[Scan], stored: Iterable[str]) -> Plan:
    """Return the files that any of ``scans`` may need; tables of ``stored`` that no scan reads need none."""
    scans = tuple(scans)
    files: dict[str, list[File]] = {name: [] for name in stored}
    for name in files:
        table = TABLES[name]
        predicates = dict.fromkeys(scan.predicate for scan in scans if scan.table == name)
        if None in predicates:
            # One scan reads everything, whatever the others exclude.
            predicates = {None: None}
        for predicate in predicates:
            candidates = snapshot.files(name, file_filter(table, predicate))
            if predicate is not None:
                ranges_of = range_reader(table, predicate_columns(predicate))
                candidates = [file for file in candidates if may_pass(predicate, ranges_of(file))]
                candidates = _of_events(snapshot, candidates, asked_ids(table, predicate))
            merged = sorted({*files[name], *candidates}, key=_TIME_AND_PATH) if files[name] else candidates
            files[name] = merged
    return Plan(snapshot, scans, files)


def _of_events(snapshot: Snapshot, files: list[File], event_ids: frozenset[str] | None) -> list[File]:
    """Return the files of the days on which events with these ids happened; all if that is not known."""
    if event_ids is None or len(files) < _FEW_FILES:
        return files
    found = event_days(snapshot, event_ids)
    if found is None:
        return files
    return [file for file in files if found.may_be_on(file.min_time // DAY, file.max_time // DAY)]


def connect(timezone: str, limits: Limits, spill: Path | None = None) -> duckdb.DuckDBPyConnection:
    """Return a database in memory with our macros, which loads no extension and sees no Python variable.

    ``spill``: the folder for what does not fit into the memory; None: then the statement fails.
    """
    db = duckdb.connect(
        ":memory:",
        config={
            "threads": limits.threads,
            "memory_limit": f"{limits.memory}B",
            # Never DuckDB's default, a folder in the current one.
            "temp_directory": "" if spill is None else str(spill),
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "errors_as_json": True,
        },
    )
    db.execute(";".join([f"SET GLOBAL TimeZone = {text(timezone)}", *(sql for _, sql in MACROS.values())]))
    return db


def lock(db: duckdb.DuckDBPyConnection) -> None:
    """Close off everything outside the database, then lock the settings; neither can be undone."""
    db.execute("SET enable_external_access = false; SET lock_configuration = true")


def _nodes(tree: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[str, Any]]:
    for node in tree:
        yield node
        yield from _nodes(node.get("children", ()))


def _table_of(node: Mapping[str, Any]) -> str | None:
    name = str((node.get("extra_info") or {}).get("Table", "")).rsplit(".", 1)[-1].strip('"')
    return name if name in TABLES else None


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value] if value else []
    return [str(text) for text in value] if isinstance(value, list) else []


_QUOTED = re.compile(r"('(?:[^']|'')*')")


def _plain(condition: str) -> str:
    """Return a filter without DuckDB's mark ``optional: `` (implied by another filter; helps to skip row groups)."""
    parts = _QUOTED.split(condition)
    outside = [part.replace("optional: ", "") for part in parts[::2]]
    if any("Dynamic Filter" in part for part in outside):
        return "NULL"
    parts[::2] = outside
    return "".join(parts)
