"""The tables of a snapshot as SQL: views over exactly the files that a reader needs.

The rows of one key of a summary table can be spread over several files of a day (each commit adds its share) until
compaction. Readers see one row per key, so the files of such a day are merged here; a day with one file needs no merge.

``table_sql`` makes the SQL; where the paths stand in it is up to its callers: the engine below, and ``connect``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from trailsift.lake.forms import check_links
from trailsift.lake.home import fetch_files
from trailsift.lake.index import File
from trailsift.query.planner import Plan
from trailsift.query.relations import DUCK_TYPES, VIEWS, table_columns, text, texts
from trailsift.schema import SKETCH_SIZE, TABLES, TARGET, UNKNOWN_CATEGORY, Column, Table
from trailsift.times import DAY

if TYPE_CHECKING:
    import duckdb

#: (name of a group of files, its files) -> SQL that can stand after FROM.
PlaceFiles = Callable[[str, Sequence[File]], str]


def create_views(cursor: duckdb.DuckDBPyConnection, plan: Plan, names: Sequence[str]) -> None:
    """Create the relations ``names`` and what they read, as temporary views of ``cursor``'s connection."""
    hourly = bool(plan.snapshot.settings.get("hourly_partitions"))
    version = plan.snapshot.format_version

    def place(group: str, files: Sequence[File]) -> str:
        # The paths are passed in a variable, as one text: with 5,000 of them a list literal takes ten times as long to
        # parse, and is parsed again wherever the view is used.
        fetch_files(plan.snapshot.root, files)
        check_links(plan.snapshot.root, files)
        paths = [f"{plan.snapshot.root}/{file.path}" for file in files]
        joined = f"string_split({text(chr(10).join(paths))}, chr(10))"
        value = texts(paths) if any("\n" in path for path in paths) else joined
        cursor.execute(f"SET VARIABLE trailsift_{group} = {value}")
        return f"read_parquet(getvariable('trailsift_{group}'), hive_partitioning = false)"

    for name, files in plan.files.items():
        table = TABLES[name]
        sql = table_sql(table, table_columns(table, hourly_partitions=hourly), files, place, version)
        cursor.execute(f"CREATE TEMP VIEW {name} AS {sql}")
    for name in names:
        if name in VIEWS:
            cursor.execute(f"CREATE TEMP VIEW {name} AS {VIEWS[name][2]}")


#: What stands in for the columns that files of format version 1 do not have, by table.
_SINCE_2: dict[str, dict[str, str]] = {
    "events": {
        "principal_id": "NULL",
        "caller": "role_arn",
        "source_resource_arn": "NULL",
        "source_object_key": "NULL",
    },
    "hourly": {"caller": "role_arn", "category": text(UNKNOWN_CATEGORY)},
    "usage": {
        "caller": "role_arn",
        "touch": text(TARGET),
        "category": text(UNKNOWN_CATEGORY),
        "owner_side": "NULL",
    },
    "profile": {"caller": "role_arn", "category": text(UNKNOWN_CATEGORY)},
}


def table_sql(
    table: Table, columns: Sequence[Column], files: Sequence[File], place: PlaceFiles, format_version: int
) -> str:
    """Return a SELECT of the rows of ``table`` in ``files``, one row per key.

    ``format_version``: that of the files; those of version 1 are read as if they had the columns of today.
    """
    since = _SINCE_2.get(table.name, {})
    if format_version == 1 and since:
        place = _completed(place, {name: (since[name], table.column(name).type) for name in since})
    names = ", ".join(column.name for column in columns)
    if not files:
        empty = ", ".join(f"CAST(NULL AS {DUCK_TYPES[column.type]}) AS {column.name}" for column in columns)
        return f"SELECT {empty} WHERE false"
    if not table.keys:
        return f"SELECT {names} FROM {place(table.name, files)}"
    alone, sharing = split_by_shared_days(files)
    selects = []
    if alone:
        selects.append(f"SELECT {names} FROM {place(f'{table.name}_whole', alone)}")
    if sharing:
        selects.append(_merged(table, columns, place(f"{table.name}_parts", sharing)))
    return "\nUNION ALL\n".join(selects)


def _completed(place: PlaceFiles, added: Mapping[str, tuple[str, str]]) -> PlaceFiles:
    """Return SQL of files with columns that they do not have."""
    columns = ", ".join(f"CAST({sql} AS {DUCK_TYPES[kind]}) AS {name}" for name, (sql, kind) in added.items())
    return lambda group, files: f"(SELECT *, {columns} FROM {place(group, files)})"


def split_by_shared_days(files: Sequence[File]) -> tuple[list[File], list[File]]:
    """Return (files that share no UTC day with another file, files that do)."""
    alone: list[File] = []
    sharing: list[File] = []
    group: list[File] = []
    last_day = 0
    for file in sorted(files, key=lambda file: file.min_time):
        if group and file.min_time // DAY > last_day:
            (alone if len(group) == 1 else sharing).extend(group)
            group = []
        last_day = max(last_day, file.max_time // DAY) if group else file.max_time // DAY
        group.append(file)
    (alone if len(group) == 1 else sharing).extend(group)
    return alone, sharing


def _merged(table: Table, columns: Sequence[Column], source: str) -> str:
    """Return SQL that merges the partial rows of ``source`` into one row per key."""
    selected = [column.name if column.name in table.keys else _merged_column(column) for column in columns]
    # Grouped by position: an alias such as `events` must not shadow the column that it sums.
    keys = ", ".join(str(number) for number, column in enumerate(columns, 1) if column.name in table.keys)
    return f"SELECT {', '.join(selected)} FROM {source} GROUP BY {keys}"


def _merged_column(column: Column) -> str:
    name = column.name
    if column.type == "int64":
        return f"sum({name})::BIGINT AS {name}"
    if column.type == "list<int64>":
        # Most keys are in one file only: their sketch needs no merge.
        merge = f"list_slice(list_sort(list_distinct(flatten(coalesce(list({name}), [])))), 1, {SKETCH_SIZE})"
        return f"CASE WHEN count(*) = 1 THEN any_value({name}) ELSE {merge} END AS {name}"
    return f"{'max' if name.startswith('last_') else 'min'}({name}) AS {name}"
