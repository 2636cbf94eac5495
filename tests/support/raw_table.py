"""Records as Athena's table over CloudTrail's log files has them, in a real Trino or in DuckDB."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import duckdb
import sqlglot
from sqlglot import exp

from support.trino import Trino
from trailsift.deploy.tables import RAW

#: (name of the log object, record).
Logged = tuple[str, dict[str, Any]]


def _lowered(value: Any) -> Any:
    """Return a record as the JSON reader of CloudTrail's files does: names in lower case, inner objects as text."""
    if isinstance(value, dict):
        return {name.lower(): _lowered(each) for name, each in value.items()}
    return [_lowered(each) for each in value] if isinstance(value, list) else value


def document(record: dict[str, Any]) -> str:
    """Return the raw table's columns for one record, as JSON; values of string columns are text."""
    fields = {name.lower(): value for name, value in record.items()}
    row: dict[str, Any] = {}
    for name, kind in RAW.items():
        value = fields.get(name)
        plain = kind != "string" or value is None or isinstance(value, str)
        row[name] = _lowered(value) if plain else json.dumps(value, separators=(",", ":"))
    return json.dumps(row)


def _trino_type(hive: str) -> str:
    text = hive.replace("string", "varchar").replace("array<", "array(").replace("map<", "map(")
    text = re.sub(r"struct<", "row(", text).replace(">", ")")
    return re.sub(r"(\w+):", r"\1 ", text)


def into_trino(trino: Trino, table: str, logged: Sequence[Logged]) -> None:
    """Create the table in Trino, with the partitions ``account``, ``region`` and ``day`` (of the log object's name)."""
    for start in range(0, len(logged), 100):
        rows = ((document(record).replace("'", "''"), path) for path, record in logged[start : start + 100])
        given = ", ".join(f"('{text}', '{path}')" for text, path in rows)
        into = f"INSERT INTO {table}_given" if start else f"CREATE TABLE {table}_given AS"
        values = f"(VALUES {given}) AS v (doc, path)"
        trino.run(f"{into} SELECT CAST(doc AS varchar) AS doc, CAST(path AS varchar) AS path FROM {values}")
    kind = ", ".join(f"{name} {_trino_type(kind)}" for name, kind in RAW.items())
    members = ", ".join(f"r.{name}" for name in RAW)
    day = "substr(path, 1, 4) || '/' || substr(path, 5, 2) || '/' || substr(path, 7, 2)"
    trino.run(
        f"CREATE TABLE {table} AS SELECT {members}, '1' AS account, 'x' AS region, {day} AS day, path AS \"$path\""
        f" FROM (SELECT CAST(json_parse(doc) AS row({kind})) AS r, path FROM {table}_given) AS parsed"
    )


def _structure(hive: str) -> Any:
    """Return a type of Hive as the structure of DuckDB's ``from_json``."""
    if hive.startswith("struct<"):
        members, depth, start = {}, 0, 7
        for at, letter in enumerate(hive):
            depth += {"<": 1, ">": -1}.get(letter, 0)
            if (letter == "," and depth == 1) or (letter == ">" and depth == 0):
                name, _, kind = hive[start:at].partition(":")
                members[name], start = _structure(kind), at + 1
        return members
    if hive.startswith("array<"):
        return [_structure(hive[6:-1])]
    return "JSON" if hive.startswith("map<") else "VARCHAR"


def into_duckdb(db: duckdb.DuckDBPyConnection, table: str, logged: Sequence[Logged]) -> None:
    """Create the table in DuckDB."""
    db.execute(f"CREATE TABLE {table}_given (doc VARCHAR, path VARCHAR)")
    db.executemany(f"INSERT INTO {table}_given VALUES (?, ?)", [(document(record), path) for path, record in logged])
    structure = json.dumps({name: _structure(kind) for name, kind in RAW.items()})
    db.execute(
        f"CREATE TABLE {table} AS SELECT unnest(from_json(doc, '{structure}')), path AS \"$path\" FROM {table}_given"
    )


def to_duckdb(sql: str) -> str:
    """Translate a statement from Trino, with what sqlglot leaves out of its regular expressions."""
    tree = sqlglot.parse_one(sql, dialect="trino")
    for found in list(tree.find_all(exp.RegexpReplace)):
        if found.args.get("replacement") is not None:
            text = re.sub(r"\$(\d)", r"\\\1", found.args["replacement"].name)
            found.set("replacement", exp.Literal.string(text))
    for found in list(tree.find_all(exp.RegexpExtract)):
        if re.search(found.expression.name.replace(r"\z", r"\Z"), "") is None:
            # DuckDB returns an empty text where nothing matches.
            found.replace(exp.func("nullif", found.copy(), exp.Literal.string("")))
    return tree.sql(dialect="duckdb")
