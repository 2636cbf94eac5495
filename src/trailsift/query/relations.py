"""The names that a query can use: our tables, the views over them, and our SQL functions."""

from __future__ import annotations

from collections.abc import Iterable

from trailsift.schema import DENIED_CODES, HOUR_COLUMN, SKETCH_SIZE, TABLES, Column, Table

#: Type of a column in ``schema`` -> type in DuckDB.
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

#: Our SQL functions: name -> (meaning, SQL). A sketch is the sorted list of the smallest signed 64-bit hashes of the
#: values seen (k minimum values). If it is full, and f is the share of the hash space up to its k-th hash,
#: (k - 1) / f estimates the number of distinct values (Bar-Yossef et al. 2002, Beyer et al. 2007).
MACROS = {
    "is_denied": (
        "true if an error code means that permission was lacking: is_denied(error_code)",
        "CREATE MACRO is_denied(code) AS coalesce(code IN ("
        + ", ".join(f"'{code}'" for code in sorted(DENIED_CODES))
        + "), false)",
    ),
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
    """Return the names that can stand after FROM."""
    return (*TABLES, *VIEWS)


def columns_of(relation: str) -> list[tuple[str, str]]:
    """Return (name, source) of each column of a table or view; an empty list for any other name."""
    if relation in TABLES:
        return [(c.name, c.source) for c in TABLES[relation].columns]
    return [(c.name, c.source) for c in VIEWS[relation][3]] if relation in VIEWS else []


def table_columns(table: Table, *, hourly_partitions: bool = False) -> tuple[Column, ...]:
    """Return the columns as stored: ``events`` has one more in a lake partitioned by hour."""
    if table.name == "events" and hourly_partitions:
        return (*table.columns, HOUR_COLUMN)
    return table.columns


def base_table(relation: str) -> str:
    """Return the stored table that a relation reads."""
    return VIEWS[relation][1] if relation in VIEWS else relation


def text(value: str) -> str:
    """Return a string constant in SQL.

    Constants are used instead of parameters wherever SQL is ours: to bind a parameter, DuckDB's client imports numpy
    and pandas if they are installed, which can take a second.
    """
    return "'" + value.replace("'", "''") + "'"


def texts(values: Iterable[str]) -> str:
    """Return a list of string constants in SQL."""
    return f"[{', '.join(map(text, values))}]"


def described() -> list[Table]:
    """Return the tables, then the views over them (which have no partitions of their own)."""
    views = [Table(name, view[0], view[3], (), "", ()) for name, view in VIEWS.items()]
    return [*TABLES.values(), *views]


def functions() -> dict[str, str]:
    """Return the SQL functions that come with the lake, and their meanings."""
    return {name: meaning for name, (meaning, _) in MACROS.items()}
