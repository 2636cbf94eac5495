"""Create lakes with exactly the rows that a test specifies."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from trailsift.lake.index import SCHEMA, File, record_files
from trailsift.lake.open import open_snapshot
from trailsift.lake.settings import CATALOG_FILE, LAKE_FILE, NAMESPACE
from trailsift.query import Cache, DuckDBEngine
from trailsift.query.relations import table_columns
from trailsift.schema import TABLES, Table

DAY = datetime(2024, 1, 15, tzinfo=UTC)


def make_lake(root: Path, tables: Mapping[str, Sequence[Rows]] = {}, **settings: object) -> Path:
    """Create a lake at ``root`` with one commit. ``tables``: for each table, the rows of each file."""
    root.mkdir(parents=True)
    with closing(sqlite3.connect(root / CATALOG_FILE)) as db:
        db.executescript(SCHEMA)
        db.execute("CREATE TABLE iceberg_tables (table_namespace TEXT, table_name TEXT, metadata_location TEXT)")
        db.commit()
    (root / LAKE_FILE).write_text(
        json.dumps({"format": "trailsift-lake", "format_version": 1, "location": str(root.resolve()), **settings})
    )
    commit(root, [write_file(root, TABLES[name], rows) for name, files in tables.items() for rows in files])
    return root


def write_file(root: Path, table: Table, rows: Rows, name: str = "") -> File:
    """Write one data file, with the partition columns derived from its rows."""
    hourly = bool(json.loads((root / LAKE_FILE).read_text()).get("hourly_partitions"))
    columns = table_columns(table, hourly_partitions=hourly)
    filled = [_filled(table, row) for row in rows]
    schema = pa.schema([pa.field(c.name, ARROW_TYPES[c.type]) for c in columns])
    data = pa.Table.from_pylist(filled, schema)
    folder = root / table.name / "data"
    first = filled[0]
    if table.name == "events":
        folder = folder.joinpath(*(f"{part}={first[part]}" for part in table.partition))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name or len(list(root.rglob('*.parquet')))}.parquet"
    pq.write_table(data, path, compression="zstd")
    times = [_micros(row[table.time]) for row in filled]
    callers = [row["caller"] for row in filled if row.get("caller") is not None]
    return File(
        table.name,
        str(path.relative_to(root)),
        len(filled),
        path.stat().st_size,
        min(times),
        max(times),
        first["service"] if table.name == "events" else None,
        min(callers, default=None),
        max(callers, default=None),
    )


def commit(root: Path, added: Sequence[File], removed: Sequence[File] = ()) -> int:
    """Add and remove files in one commit; return its number."""
    with closing(sqlite3.connect(root / CATALOG_FILE)) as db:
        seq = int(db.execute("SELECT coalesce(max(seq), 0) + 1 FROM commit_log").fetchone()[0])
        locations = {name: f"file://{root.resolve()}/{name}/metadata/{seq}.metadata.json" for name in TABLES}
        db.execute("DELETE FROM iceberg_tables")
        db.executemany(
            "INSERT INTO iceberg_tables VALUES (?, ?, ?)", [(NAMESPACE, *item) for item in locations.items()]
        )
        db.execute(
            "INSERT INTO commit_log VALUES (?, ?, 'ingest', '{}', ?)",
            (seq, f"2026-01-01T00:00:{seq % 60:02d}Z", json.dumps(locations)),
        )
        record_files(db, seq, added, [(file.table, file.path) for file in removed])
        db.commit()
    return seq


def event(time: datetime, service: str = "s3", role: str | None = "role/a", **more: Any) -> dict[str, Any]:
    """Return a row of ``events``."""
    base = {"event_time": time, "service": service, "role_arn": role, "caller": caller_of(role)}
    return {**base, "event_name": "GetObject", "weight": 1.0, **more}


def caller_of(role: str | None) -> str:
    """Return the caller with this role: the role if it is an ARN, else a service."""
    return "none" if role is None else role if role.startswith("arn:") else f"service:{role}"


def line(hour: datetime, events: int = 1, **more: Any) -> dict[str, Any]:
    """Return a row of ``hourly``."""
    first = {"first_time": hour + timedelta(minutes=5), "last_time": hour + timedelta(minutes=50)}
    base = {"hour": hour, "event_name": "GetObject", "role_arn": "role/a", "service": "s3", "source_ips": []}
    row = {**base, **first, "events": events, "bytes_out": 10 * events, **more}
    return {"caller": caller_of(row["role_arn"]), **row}


def open_engine(root: Path, **options: Any) -> DuckDBEngine:
    """Open an engine that caches its results beside the lake."""
    return DuckDBEngine(open_snapshot(root), cache=Cache(root.parent / f"{root.name}-answers"), threads=2, **options)


ARROW_TYPES = {
    "timestamp": pa.timestamp("us", "UTC"),
    "date": pa.date32(),
    "string": pa.string(),
    "bool": pa.bool_(),
    "int64": pa.int64(),
    "double": pa.float64(),
    "list<string>": pa.list_(pa.string()),
    "list<int64>": pa.list_(pa.int64()),
}


Rows = Sequence[Mapping[str, Any]]


def _filled(table: Table, row: Mapping[str, Any]) -> dict[str, Any]:
    filled = dict(row)
    if table.name == "events":
        time = filled["event_time"].astimezone(UTC)
        filled |= {"year": f"{time:%Y}", "month": f"{time:%m}", "day": f"{time:%d}", "hour": f"{time:%H}"}
    return filled


def _micros(value: date) -> int:
    if not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day, tzinfo=UTC)
    return (value - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
