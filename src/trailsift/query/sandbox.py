"""The first of two walls around user SQL: one read-only statement over our tables, judged by its syntax tree.

DuckDB's own parser makes the tree (``json_serialize_sql`` supports SELECT statements only, so anything that writes
fails there). Every table, function and kind of expression that the tree names must be on a list of ours. The second
wall is the connection itself (``duckdb.py``): no access to files outside the lake's data folders, no extensions,
settings locked.
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from trailsift.errors import QueryError
from trailsift.query.diagnostics import from_duckdb, nearest, nearest_table, query_error
from trailsift.query.duckdb_client import duckdb
from trailsift.query.functions import NAMED, TABLE_FUNCTIONS, is_allowed
from trailsift.query.relations import FUNCTIONS, VIEWS, base_table, relations, text
from trailsift.schema import TABLES

ALLOWED = "`query` runs one read-only statement: SELECT, WITH, FROM, VALUES, TABLE, DESCRIBE, SUMMARIZE or SHOW TABLES"

#: The longest statement that is parsed, in characters.
MAX_LENGTH = 1_000_000
#: Names of DuckDB's own views begin so. A CTE must not be called like one: then a mistake about where the CTE is known
#: cannot lead to the view.
_CATALOG_NAMES = ("duckdb_", "information_schema", "pg_", "pragma_", "sqlite_")

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


def folded(name: str) -> str:
    """Return ``name`` in lower case as DuckDB compares names: ASCII only. Python's ``lower`` makes a k of U+212A."""
    return name.lower() if name.isascii() else name.translate(_ASCII_LOWER)


_ASCII_LOWER = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


class _Findings:
    """Names and properties collected in a walk over the syntax tree."""

    __slots__ = ("clock", "functions", "refused", "sql", "tables", "trusted", "volatile", "where_of", "wheres")

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
        #: The first function that is not allowed, and its place.
        self.refused: tuple[str, int | None] | None = None


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
    if findings.refused is not None:
        raise _refused_function(sql, cursor, *findings.refused)
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
    word = re.sub(r"(--[^\r\n]*([\r\n]|$)|/\*.*?\*/|[\s;(])+", " ", sql, flags=re.DOTALL).strip().split(" ")[0].upper()
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
        name, body = folded(entry["key"]), entry["value"]
        if name.startswith(_CATALOG_NAMES):
            raise query_error(findings.sql, f"a common table expression cannot be called {name}: use another name")
        recursive = body.get("query", {}).get("node", {}).get("type") == "RECURSIVE_CTE_NODE"
        _visit(body, inner | {name} if recursive else inner, findings)
        inner = inner | {name}
    if node.get("sample"):
        findings.volatile = True
    for key, value in node.items():
        if key in ("cast_type", "sample"):
            _visit_expressions_in(value, inner, findings)
        elif key != "cte_map":
            _visit(value, inner, findings)


def _visit_expressions_in(node: object, scope: frozenset[str], findings: _Findings) -> None:
    """Visit what stands in a type or a sample. These have no tables, and kinds of their own; expressions are judged."""
    if isinstance(node, list):
        for part in node:
            _visit_expressions_in(part, scope, findings)
    elif isinstance(node, dict):
        if "class" in node:
            _visit(node, scope, findings)
        else:
            for part in node.values():
                _visit_expressions_in(part, scope, findings)


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
        word = folded(str(names[0]))
        findings.clock = findings.clock or word in CLOCK_NAMES
        findings.volatile = findings.volatile or word in SESSION_NAMES


def _judge_function(node: dict[str, Any], findings: _Findings, place: int | None) -> None:
    name = folded(str(node.get("function_name", "")))
    schema, catalog = folded(str(node.get("schema", "") or "")), folded(str(node.get("catalog", "") or ""))
    if catalog not in ("", "system") or schema not in ("", "main"):
        raise _not_allowed(findings.sql, name, place)
    if not is_allowed(name) and name not in FUNCTIONS and findings.refused is None:
        findings.refused = (name, place)
    findings.functions.add(name)
    findings.clock = findings.clock or name in CLOCK_NAMES


def _not_allowed(sql: str, name: str, place: int | None) -> QueryError:
    hint = "files, the network, extensions and settings cannot be reached from a query"
    return query_error(sql, f"the function {name} is not allowed", place, hint)


def _refused_function(sql: str, cursor: duckdb.DuckDBPyConnection, name: str, place: int | None) -> QueryError:
    """Return the error for a function that is on no list of ours: one of DuckDB's, or none at all."""
    known = cursor.execute(
        f"SELECT count(*) FROM duckdb_functions() WHERE function_name = {text(name)} AND function_type <> 'pragma'"
    ).fetchone()
    if known and known[0]:
        return _not_allowed(sql, name, place)
    near = nearest(name, FUNCTIONS) or nearest(name, NAMED)
    return query_error(sql, f"there is no function {name}", place, f"did you mean {near}?" if near else "")


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
        name = folded(str(function.get("function_name", ""))) if isinstance(function, dict) else ""
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
    known = folded(name)
    if not schema and not catalog and known in scope:
        return
    if catalog or folded(schema) not in ("", "main") or known not in relations():
        qualified = ".".join(part for part in (catalog, schema, name) if part)
        raise query_error(findings.sql, f"there is no table {qualified}", place, nearest_table(name, sorted(scope)))
    findings.tables.add(known)
    findings.wheres.append((known, findings.where_of.get(id(node))))


def _place(node: dict[str, Any]) -> int | None:
    place = node.get("query_location")
    # DuckDB encodes "no place" as the largest unsigned integer.
    return place if isinstance(place, int) and place < 2**62 else None


#: A string, a quoted name, a comment, a dollar-quoted string, or one other character.
_LEXEMES = (
    r"""(?s)(?P<string>[eE]'(?:[^'\\]|\\.|'')*'|'(?:[^']|'')*'|"(?:[^"]|"")*"|(?P<tag>\$\w*\$).*?(?P=tag))"""
    r"""|(?P<comment>--[^\r\n]*|/\*.*?\*/)|(?P<other>.)"""
)


def _without_semicolon(sql: str, cursor: duckdb.DuckDBPyConnection, tree: dict[str, Any]) -> str:
    """Return the statement's text up to a closing semicolon, so that it can stand in parentheses."""
    for token in re.finditer(_LEXEMES, sql):
        if token["other"] == ";":
            statement = sql[: token.start()]
            # If the expression above misreads the quoting, the statement must not change.
            if statement.strip() and _parse(statement, cursor) == [tree]:
                return statement
            raise QueryError("cannot tell where the statement ends: leave out the closing semicolon")
    return sql


#: A statement in which white space is all that has to be looked at: no comments, escapes or other kinds of quotes, and
#: no characters that DuckDB might take for white space.
_SIMPLE = r"(?:(?!--|/\*)[ -#%-\[\]-~\t\n\r])*"
_QUOTED_OR_SPACE = r"""('(?:[^']|'')*'|"(?:[^"]|"")*")|[ \t\n\r]+"""


def normalised(sql: str) -> str:
    """Return ``sql`` with white space outside quotes collapsed, or as it is if anything about it is out of the
    ordinary: equal means the same statement."""
    return re.sub(_QUOTED_OR_SPACE, _collapsed, sql).strip(" ") if re.fullmatch(_SIMPLE, sql) else sql


def _collapsed(match: re.Match[str]) -> str:
    if match[1] is not None:
        return match[1]
    sql, start, end = match.string, match.start(), match.end()
    # Two strings are one if a line break is between them.
    between = sql[max(start - 1, 0) : start] in ("'", '"') and sql[end : end + 1] in ("'", '"')
    return match[0] if between else " "


def _show_tables() -> str:
    rows = [(name, table.meaning) for name, table in TABLES.items()] + [(name, view[0]) for name, view in VIEWS.items()]
    values = ", ".join(f"({text(name)}, {text(meaning)})" for name, meaning in rows)
    return f"SELECT * FROM (VALUES {values}) AS tables(name, meaning)"
