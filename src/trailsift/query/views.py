"""The tables of a snapshot as DuckDB sees them: views over exactly the planned files.

A summary line can be spread over several files of a day (each commit adds its share) until compaction; readers
see one row per line, so the files of such a day are merged here. A day with one file is merged already.
"""

from __future__ import annotations

from collections.abc import Sequence

import duckdb

from trailsift.lake.index import File
from trailsift.query.planner import Plan
from trailsift.query.pruning import DAY
from trailsift.query.relations import DUCK_TYPES, SKETCH_SIZE, VIEWS, table_columns
from trailsift.schema import TABLES, Column, Table


def create_views(cursor: duckdb.DuckDBPyConnection, plan: Plan, names: Sequence[str]) -> None:
    """Makes the relations ``names`` and what they read, as temporary views of ``cursor``'s connection."""
    hourly = bool(plan.snapshot.settings.get("hourly_partitions"))
    for name, files in plan.files.items():
        table = TABLES[name]
        columns = table_columns(table, hourly_partitions=hourly)
        cursor.execute(f"CREATE TEMP VIEW {name} AS {_relation(cursor, plan, table, columns, files)}")
    for name in names:
        if name in VIEWS:
            cursor.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name][2]}")


def whole_and_parts(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """(files that share no UTC day with another one, files that do)."""
    whole: list[File] = []
    parts: list[File] = []
    group: list[File] = []
    last = 0
    for file in sorted(files, key=lambda file: file.min_time):
        if group and file.min_time // DAY > last:
            (whole if len(group) == 1 else parts).extend(group)
            group = []
        last = max(last, file.max_time // DAY) if group else file.max_time // DAY
        group.append(file)
    (whole if len(group) == 1 else parts).extend(group)
    return whole, parts


def merged(table: Table, columns: Sequence[Column], source: str) -> str:
    """SQL of one row per line of a summary table, from the partial rows of ``source``."""
    selected = [column.name if column.name in table.keys else _merge(column) for column in columns]
    # Grouped by position: an alias such as `events` must not shadow the column that it sums.
    keys = ", ".join(str(number) for number, column in enumerate(columns, 1) if column.name in table.keys)
    return f"SELECT {', '.join(selected)} FROM {source} GROUP BY {keys}"


def _merge(column: Column) -> str:
    name = column.name
    if column.type == "int64":
        return f"sum({name})::BIGINT AS {name}"
    if column.type == "list<int64>":
        # Most lines are in one file only: their sketch is taken as it is.
        merge = f"list_slice(list_sort(list_distinct(flatten(coalesce(list({name}), [])))), 1, {SKETCH_SIZE})"
        return f"CASE WHEN count(*) = 1 THEN any_value({name}) ELSE {merge} END AS {name}"
    return f"{'max' if name.startswith('last_') else 'min'}({name}) AS {name}"


def _relation(
    cursor: duckdb.DuckDBPyConnection, plan: Plan, table: Table, columns: Sequence[Column], files: Sequence[File]
) -> str:
    names = ", ".join(column.name for column in columns)
    if not files:
        empty = ", ".join(f"CAST(NULL AS {DUCK_TYPES[column.type]}) AS {column.name}" for column in columns)
        return f"SELECT {empty} WHERE false"
    if not table.keys:
        return f"SELECT {names} FROM {_source(cursor, plan, table.name, files)}"
    whole, parts = whole_and_parts(files)
    pieces = []
    if whole:
        pieces.append(f"SELECT {names} FROM {_source(cursor, plan, f'{table.name}_whole', whole)}")
    if parts:
        pieces.append(merged(table, columns, _source(cursor, plan, f"{table.name}_parts", parts)))
    return " UNION ALL ".join(pieces)


def _source(cursor: duckdb.DuckDBPyConnection, plan: Plan, name: str, files: Sequence[File]) -> str:
    """``read_parquet`` of exactly ``files``.

    The paths go through a variable, as one text: with 5,000 of them a list literal takes ten times as long to
    parse, and is parsed again wherever the view is used.
    """
    paths = [f"{plan.snapshot.root}/{file.path}" for file in files]
    variable = f"trailsift_{name}"
    if any("\n" in path for path in paths):
        cursor.execute(f"SET VARIABLE {variable} = $1", [paths])
    else:
        cursor.execute(f"SET VARIABLE {variable} = string_split($1, chr(10))", ["\n".join(paths)])
    return f"read_parquet(getvariable('{variable}'), hive_partitioning = false)"
