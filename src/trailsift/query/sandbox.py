"""The first of two walls around user SQL: one read-only statement over our tables, judged by its syntax tree.

DuckDB's own parser makes the tree (``json_serialize_sql`` supports SELECT statements only, so anything that writes
fails there). Every table and function that the tree names must be allowed. The second wall is the connection itself
(``duckdb.py``): no access to files outside the lake's data folders, no extensions, settings locked.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from trailsift.errors import QueryError
from trailsift.query.diagnostics import from_duckdb, nearest_table, query_error
from trailsift.query.duckdb_client import duckdb
from trailsift.query.relations import VIEWS, base_table, relations, text
from trailsift.schema import TABLES

ALLOWED = "`query` runs one read-only statement: SELECT, WITH, FROM, VALUES, TABLE, DESCRIBE, SUMMARIZE or SHOW TABLES"

#: The longest statement that is parsed, in characters.
MAX_LENGTH = 1_000_000
#: Table functions that compute and read nothing.
TABLE_FUNCTIONS = frozenset({"range", "generate_series", "unnest", "json_each", "json_tree", "repeat", "repeat_row"})
#: Functions that look outside the query: settings, environment, catalog, sessions, other SQL.
_DENIED_FUNCTIONS = frozenset(
    {
        "getenv",
        "getvariable",
        "current_setting",
        "set_config",
        "setseed",
        "sleep_ms",
        "write_log",
        "nextval",
        "currval",
        "query",
        "query_table",
        "which_secret",
        "json_serialize_plan",
        "json_execute_serialized_sql",
        "json_deserialize_sql",
        "current_query",
        "stats",
        "glob",
        "sniff_csv",
        "in_search_path",
        "checkpoint",
        "force_checkpoint",
        "col_description",
        "obj_description",
        "shobj_description",
        "format_pg_type",
    }
)
_DENIED_PREFIXES = ("read_", "duckdb_", "pragma_", "pg_", "has_", "parquet_", "enable_", "disable_", "sqlite_", "sql_")
_DENIED_SUFFIXES = ("_scan", "_attach", "_query", "_secret", "_secrets")

#: Names that read the clock, as functions and as bare words.
CLOCK_NAMES = frozenset(
    {
        "now",
        "ago",
        "today",
        "current_date",
        "current_time",
        "current_timestamp",
        "localtime",
        "localtimestamp",
        "get_current_time",
        "get_current_timestamp",
        "transaction_timestamp",
        "age",
    }
)
#: Bare words that DuckDB reads as functions of the session.
SESSION_NAMES = frozenset({"current_user", "current_role", "session_user", "user", "current_catalog", "current_schema"})

_NODE_TYPES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "RECURSIVE_CTE_NODE", "CTE_NODE"})
_PLAIN_TYPES = frozenset(
    {
        "JOIN",
        "SUBQUERY",
        "EXPRESSION_LIST",
        "EMPTY",
        "LIMIT_MODIFIER",
        "LIMIT_PERCENT_MODIFIER",
        "ORDER_MODIFIER",
        "DISTINCT_MODIFIER",
        "ORDER_DEFAULT",
        "ASCENDING",
        "DESCENDING",
    }
)
_EXPRESSIONS = frozenset(
    {
        "BETWEEN",
        "CASE",
        "CAST",
        "COLLATE",
        "COLUMN_REF",
        "COMPARISON",
        "CONJUNCTION",
        "CONSTANT",
        "FUNCTION",
        "LAMBDA",
        "LAMBDA_REF",
        "OPERATOR",
        "PARAMETER",
        "POSITIONAL_REFERENCE",
        "STAR",
        "SUBQUERY",
        "TYPE",
        "WINDOW",
    }
)


class CheckedStatement(NamedTuple):
    """One checked statement: ``text`` without a closing semicolon, and what it names.

    ``clock``: it may read the clock. ``volatile``: its rows may differ each time for another reason.
    ``wheres``: for each place that reads a table, the table's name and the WHERE of its SELECT as a syntax tree,
    or None if other relations are joined to it.
    """

    text: str
    tables: frozenset[str]
    functions: frozenset[str]
    clock: bool
    volatile: bool
    wheres: tuple[tuple[str, dict[str, Any] | None], ...] = ()

    @property
    def stored(self) -> frozenset[str]:
        """Return the stored tables behind the names."""
        return frozenset(base_table(name) for name in self.tables)


class _Findings:
    """Names and properties collected in a walk over the syntax tree."""

    __slots__ = ("clock", "functions", "sql", "tables", "trusted", "volatile", "where_of", "wheres")

    def __init__(self, sql: str, trusted: bool) -> None:
        self.sql = sql
        self.trusted = trusted
        self.tables: set[str] = set()
        self.functions: set[str] = set()
        self.clock = False
        self.volatile = False
        self.wheres: list[tuple[str, dict[str, Any] | None]] = []
        #: id of a FROM clause's tree -> the WHERE beside it.
        self.where_of: dict[int, dict[str, Any]] = {}


def check(sql: str, cursor: duckdb.DuckDBPyConnection, *, trusted: bool = False) -> CheckedStatement:
    """Parse and judge ``sql``. Raise QueryError unless it is one read-only statement over our tables.

    ``trusted`` SQL (our own) may use parameters; otherwise the same rules apply.
    """
    statements = _parse(sql, cursor)
    if not statements:
        raise QueryError(f"the SQL holds no statement. {ALLOWED}")
    if len(statements) > 1:
        raise QueryError(f"the SQL holds {len(statements)} statements. {ALLOWED}")
    node = statements[0]["node"]
    statement = _without_semicolon(sql, cursor, statements[0])
    if _is_show_tables(node):
        return CheckedStatement(_show_tables(), frozenset(), frozenset(), clock=False, volatile=False)
    findings = _Findings(sql, trusted)
    try:
        _visit(node, frozenset(), findings)
    except RecursionError:
        raise QueryError("the statement is nested too deeply to be checked") from None
    return CheckedStatement(
        statement,
        frozenset(findings.tables),
        frozenset(findings.functions),
        findings.clock,
        findings.volatile,
        tuple(findings.wheres),
    )


def _parse(sql: str, cursor: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    try:
        sql.encode()
    except UnicodeError:
        raise QueryError("the SQL is not valid Unicode text") from None
    if "\0" in sql:
        raise QueryError("the SQL holds a NUL character")
    if len(sql) > MAX_LENGTH:
        raise QueryError(f"the SQL has {len(sql):,} characters; the limit is {MAX_LENGTH:,}")
    try:
        row = cursor.execute(
            f"SELECT json_serialize_sql({text(sql)}, skip_null := true, skip_empty := true, skip_default := true)"
        ).fetchone()
        tree: dict[str, Any] = json.loads(row[0]) if row else {}
    except duckdb.Error as error:
        raise from_duckdb(sql, error) from None
    except RecursionError:
        raise QueryError("the statement is nested too deeply to be checked") from None
    if not tree.get("error"):
        return list(tree.get("statements", ()))
    message = str(tree.get("error_message", "cannot be parsed"))
    if tree.get("error_type") == "parser":
        position = str(tree.get("position", ""))
        raise query_error(sql, message, int(position) if position.isdigit() else None)
    raise QueryError(_not_a_select(sql, message))


def _not_a_select(sql: str, message: str) -> str:
    word = re.sub(r"(--[^\n]*(\n|$)|/\*.*?\*/|[\s;(])+", " ", sql, flags=re.DOTALL).strip().split(" ")[0].upper()
    if "SELECT statements" not in message:
        return f"{message}. {ALLOWED}"
    if word in ("EXPLAIN", "ANALYZE"):
        return f"{word} is not part of the SQL here: use `--explain`. {ALLOWED}"
    if word in ("SELECT", "WITH", "FROM", "PIVOT", "UNPIVOT"):
        return "PIVOT is not supported: write count(*) FILTER (WHERE ...) for each column instead"
    return f"{word or 'this'} is not allowed. {ALLOWED}"


def _is_show_tables(node: dict[str, Any]) -> bool:
    table = node.get("from_table")
    if not isinstance(table, dict) or table.get("type") != "SHOW_REF" or "query" in table:
        return False
    return str(table.get("table_name", "")).strip('"') == "tables"


def _visit(node: object, scope: frozenset[str], findings: _Findings) -> None:
    if isinstance(node, list):
        for part in node:
            _visit(part, scope, findings)
        return
    if not isinstance(node, dict):
        return
    kind = node.get("type")
    if "class" in node:
        _visit_expression(node, findings)
        if node["class"] == "CONSTANT":
            return
    elif isinstance(kind, str):
        _visit_relation(kind, node, scope, findings)
    inner = scope
    for entry in (node.get("cte_map") or {}).get("map", []):
        name, body = entry["key"].lower(), entry["value"]
        recursive = body.get("query", {}).get("node", {}).get("type") == "RECURSIVE_CTE_NODE"
        _visit(body, inner | {name} if recursive else inner, findings)
        inner = inner | {name}
    if node.get("sample"):
        findings.volatile = True
    for key, value in node.items():
        # Types and samples name no tables or functions.
        if key not in ("cte_map", "cast_type", "sample"):
            _visit(value, inner, findings)


def _visit_expression(node: dict[str, Any], findings: _Findings) -> None:
    kind = str(node["class"])
    place = _place(node)
    if kind not in _EXPRESSIONS:
        raise query_error(findings.sql, f"{kind.lower()} expressions are not allowed here", place)
    if kind == "PARAMETER" and not findings.trusted:
        raise query_error(findings.sql, "a parameter ($1, ?) has no value here: write the value itself", place)
    if kind in ("FUNCTION", "WINDOW"):
        _judge_function(node, findings, place)
    names = node.get("column_names")
    if kind == "COLUMN_REF" and isinstance(names, list) and len(names) == 1:
        word = str(names[0]).lower()
        findings.clock = findings.clock or word in CLOCK_NAMES
        findings.volatile = findings.volatile or word in SESSION_NAMES


def _judge_function(node: dict[str, Any], findings: _Findings, place: int | None) -> None:
    name = str(node.get("function_name", "")).lower()
    schema, catalog = str(node.get("schema", "") or ""), str(node.get("catalog", "") or "")
    denied = (
        name in _DENIED_FUNCTIONS
        or name.startswith(_DENIED_PREFIXES)
        or name.endswith(_DENIED_SUFFIXES)
        or catalog not in ("", "system")
        or schema not in ("", "main")
    )
    if denied:
        raise query_error(
            findings.sql,
            f"the function {name} is not allowed",
            place,
            "files, the network, extensions and settings cannot be reached from a query",
        )
    findings.functions.add(name)
    findings.clock = findings.clock or name in CLOCK_NAMES


def _visit_relation(kind: str, node: dict[str, Any], scope: frozenset[str], findings: _Findings) -> None:
    place = _place(node)
    if node.get("at_clause"):
        raise query_error(findings.sql, "AT (VERSION ...) is not supported: a query reads the newest snapshot", place)
    if kind == "SELECT_NODE":
        source, where = node.get("from_table"), node.get("where_clause")
        alone = isinstance(source, dict) and not source.get("sample") and not source.get("column_name_alias")
        if alone and isinstance(where, dict):
            findings.where_of[id(source)] = where
    if kind == "BASE_TABLE":
        _judge_table(node, scope, findings, place)
    elif kind == "TABLE_FUNCTION":
        function = node.get("function")
        name = str(function.get("function_name", "")).lower() if isinstance(function, dict) else ""
        if name not in TABLE_FUNCTIONS:
            allowed = "allowed after FROM: our tables and " + ", ".join(sorted(TABLE_FUNCTIONS))
            raise query_error(findings.sql, f"the table function {name} is not allowed", place, allowed)
    elif kind == "SHOW_REF":
        if "query" not in node or node.get("show_type") not in ("DESCRIBE", "SUMMARY"):
            raise query_error(findings.sql, "only a plain SHOW TABLES or DESCRIBE TABLE is allowed", place)
    elif kind not in _NODE_TYPES and kind not in _PLAIN_TYPES:
        raise query_error(findings.sql, f"{kind.lower().replace('_', ' ')} is not allowed here", place)


def _judge_table(node: dict[str, Any], scope: frozenset[str], findings: _Findings, place: int | None) -> None:
    name = str(node.get("table_name", ""))
    schema, catalog = str(node.get("schema_name", "") or ""), str(node.get("catalog_name", "") or "")
    if not schema and not catalog and name.lower() in scope:
        return
    if catalog or schema.lower() not in ("", "main") or name.lower() not in relations():
        qualified = ".".join(part for part in (catalog, schema, name) if part)
        raise query_error(findings.sql, f"there is no table {qualified}", place, nearest_table(name, sorted(scope)))
    findings.tables.add(name.lower())
    findings.wheres.append((name.lower(), findings.where_of.get(id(node))))


def _place(node: dict[str, Any]) -> int | None:
    place = node.get("query_location")
    # DuckDB encodes "no place" as the largest unsigned integer.
    return place if isinstance(place, int) and place < 2**62 else None


#: A string, a quoted name, a comment, a dollar-quoted string, or one other character.
_TOKEN = re.compile(
    r"""(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<tag>\$\w*\$).*?(?P=tag))"""
    r"""|(?P<comment>--[^\n]*|/\*.*?\*/)|(?P<other>.)""",
    re.DOTALL,
)


def _without_semicolon(sql: str, cursor: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    """Return the statement's text up to a closing semicolon, so that it can stand in parentheses."""
    for token in _TOKEN.finditer(sql):
        if token["other"] == ";":
            statement = sql[: token.start()]
            # If the expression above misreads the quoting, the statement must not change.
            if statement.strip() and _parse(statement, cursor) == [tree]:
                return statement
            raise QueryError("cannot tell where the statement ends: leave out the closing semicolon")
    return sql


def normalised(sql: str) -> str:
    """Return ``sql`` with comments dropped and white space outside quotes collapsed: equal means the same statement."""
    if "\\" in sql or "$" in sql or "/*" in sql:
        return sql.strip()
    parts = [" " if m["comment"] is not None else m[0] for m in _TOKEN.finditer(sql)]
    joined: list[str] = []
    for part in parts:
        space = len(part) == 1 and part.isspace()
        if space or part == " ":
            if joined and joined[-1] != " ":
                joined.append(" ")
        else:
            joined.append(part)
    return "".join(joined).strip()


def _show_tables() -> str:
    rows = [(name, table.meaning) for name, table in TABLES.items()] + [(name, view[0]) for name, view in VIEWS.items()]
    values = ", ".join(f"({text(name)}, {text(meaning)})" for name, meaning in rows)
    return f"SELECT * FROM (VALUES {values}) AS tables(name, meaning)"
