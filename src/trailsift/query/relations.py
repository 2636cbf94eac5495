"""What a query can name: our tables, the views over them, and our SQL functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trailsift.schema import HOUR_COLUMN, TABLES, Column, Table

if TYPE_CHECKING:
    pass

#: Type of a column here -> type in DuckDB.
DUCK_TYPES = {
    "timestamp": "TIMESTAMP WITH TIME ZONE",
    "date": "DATE",
    "string": "VARCHAR",
    "bool": "BOOLEAN",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "list<string>": "VARCHAR[]",
    "list<int64>": "BIGINT[]",
}

#: Hashes that a sketch keeps at most; fewer means that the sketch is exact.
SKETCH_SIZE = 2048

#: SQL functions of ours: name -> (meaning, SQL). A sketch is the sorted list of the smallest signed 64-bit
#: hashes of the values seen (k minimum values); with k of them, the k-th being the share f of the hash space,
#: (k - 1) / f estimates the number of distinct values (Bar-Yossef et al. 2002, Beyer et al. 2007).
MACROS = {
    "distinct_count": (
        "number of distinct values that a sketch stands for: exact below 2,048, within about 5 % above",
        "CREATE MACRO distinct_count(sketch) AS CAST(CASE"
        f" WHEN sketch IS NULL THEN 0 WHEN len(sketch) < {SKETCH_SIZE} THEN len(sketch)"
        f" ELSE round({SKETCH_SIZE - 1} * 18446744073709551616.0::DOUBLE"
        f" / (sketch[{SKETCH_SIZE}]::DOUBLE + 9223372036854775808.0::DOUBLE + 1)) END AS BIGINT)",
    ),
    "merge_sketches": (
        "one sketch of a list of sketches: distinct_count(merge_sketches(list(source_ips)))",
        "CREATE MACRO merge_sketches(sketches) AS"
        f" list_slice(list_sort(list_distinct(flatten(coalesce(sketches, [])))), 1, {SKETCH_SIZE})",
    ),
}
FUNCTIONS = tuple(MACROS)

#: Views over the tables: name -> (meaning, table it reads, SQL, columns).
VIEWS: dict[str, tuple[str, str, str, tuple[Column, ...]]] = {
    "hourly_summary": (
        "Calls and distinct source addresses by hour and API action; exact whatever was dropped or sampled.",
        "hourly",
        "SELECT hour, event_name AS eventname, sum(events)::BIGINT AS event_count,"
        " distinct_count(merge_sketches(list(source_ips))) AS unique_ips FROM hourly GROUP BY hour, event_name",
        (
            Column("hour", "timestamp", "eventTime", "start of the hour (UTC)"),
            Column("eventname", "string", "eventName", "the API action"),
            Column("event_count", "int64", "", "number of events"),
            Column("unique_ips", "int64", "sourceIPAddress", "number of distinct source addresses"),
        ),
    ),
}


def relations() -> tuple[str, ...]:
    """Names that can stand after FROM."""
    return (*TABLES, *VIEWS)


def columns_of(relation: str) -> list[tuple[str, str]]:
    """(name, source) of the columns of a table or view; empty for any other name."""
    if relation in TABLES:
        return [(c.name, c.source) for c in TABLES[relation].columns]
    return [(c.name, c.source) for c in VIEWS[relation][3]] if relation in VIEWS else []


def table_columns(table: Table, *, hourly_partitions: bool = False) -> tuple[Column, ...]:
    """The columns as stored: a lake partitioned by hour has one more in ``events``."""
    if table.name == "events" and hourly_partitions:
        return (*table.columns, HOUR_COLUMN)
    return table.columns


def base_table(relation: str) -> str:
    """The stored table that a name reads."""
    return VIEWS[relation][1] if relation in VIEWS else relation


def text(value: str) -> str:
    """A string constant in SQL."""
    return "'" + value.replace("'", "''") + "'"


def described() -> list[Table]:
    """The tables, then the views over them (which have no partitions of their own)."""
    views = [Table(name, view[0], view[3], (), "", ()) for name, view in VIEWS.items()]
    return [*TABLES.values(), *views]


def functions() -> dict[str, str]:
    """SQL functions that come with the lake, and what they return."""
    return {name: meaning for name, (meaning, _) in MACROS.items()}
