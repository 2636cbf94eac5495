"""The tables of a lake for any DuckDB client: a script of views over the files of one commit, or a database of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import duckdb

from trailsift.errors import EngineError
from trailsift.lake.index import File, Snapshot
from trailsift.query.relations import DUCK_TYPES, MACROS, VIEWS, table_columns, text
from trailsift.query.views import merged, whole_and_parts
from trailsift.schema import TABLES, Column, Table


def script(snapshot: Snapshot) -> str:
    """SQL to be run by ``duckdb -init FILE``, or by any client that speaks DuckDB's SQL.

    It names every file of the snapshot by its absolute path: what is ingested later is not in it.
    """
    hourly = bool(snapshot.settings.get("hourly_partitions"))
    parts = [
        f"-- The trailsift lake {_one_line(snapshot.root)} as of commit {snapshot.seq} ({snapshot.committed_at}).",
        "-- Made by `trailsift connect`; make it again after an ingest: the views name the files of this commit.",
    ]
    for name, (meaning, sql) in MACROS.items():
        parts.append(f"-- {name}: {meaning}\n{sql.replace('CREATE MACRO', 'CREATE OR REPLACE MACRO', 1)};")
    for table in TABLES.values():
        columns = table_columns(table, hourly_partitions=hourly)
        parts.append(_view(table.name, table.meaning, _relation(snapshot, table, columns)))
    for name, view in VIEWS.items():
        parts.append(_view(name, view[0], view[2]))
    return "\n".join(parts) + "\n"


def _one_line(path: Path) -> str:
    return str(path).replace("\n", " ")


def _view(name: str, meaning: str, sql: str) -> str:
    return f"-- {meaning}\nCREATE OR REPLACE VIEW {name} AS\n{sql};"


def _relation(snapshot: Snapshot, table: Table, columns: Sequence[Column]) -> str:
    files = snapshot.files(table.name)
    names = ", ".join(column.name for column in columns)
    if not files:
        empty = ", ".join(f"CAST(NULL AS {DUCK_TYPES[column.type]}) AS {column.name}" for column in columns)
        return f"SELECT {empty} WHERE false"
    if not table.keys:
        return f"SELECT {names} FROM {_source(snapshot, files)}"
    whole, parts = whole_and_parts(files)
    pieces = [f"SELECT {names} FROM {_source(snapshot, whole)}"] if whole else []
    if parts:
        # A day that several commits added to holds parts of lines: they are put together here.
        pieces.append(merged(table, columns, _source(snapshot, parts)))
    return "\nUNION ALL\n".join(pieces)


def _source(snapshot: Snapshot, files: Sequence[File]) -> str:
    paths = ",\n  ".join(text(str(snapshot.root / file.path)) for file in files)
    return f"read_parquet([\n  {paths}\n], hive_partitioning = false)"


def write_database(path: Path, script: str) -> None:
    """Makes a database that has run ``script``; one that is there is replaced whole, or stays as it was.

    EngineError where it cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.unlink(missing_ok=True)
        with duckdb.connect(str(partial)) as db:
            db.execute(script)
        partial.replace(path)
    except (OSError, duckdb.Error) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise EngineError(f"the database {path} cannot be written: {error}") from error
