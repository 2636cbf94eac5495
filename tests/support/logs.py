"""Log files for tests, and the contents of lakes made of them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb

from support.records import sample, text
from trailsift.decode import record
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine


def rows(lake: Path, table: str = "events", columns: str = "*") -> list[dict[str, Any]]:
    """Return the committed rows of a table, read without our engine."""
    files = [str(lake / file.path) for file in open_snapshot(lake).files(table)]
    if not files:
        return []
    with duckdb.connect() as db:
        sql = f"SELECT {columns} FROM read_parquet(?, hive_partitioning = false)"
        result: list[dict[str, Any]] = db.execute(sql, [files]).to_arrow_table().to_pylist()
        return result


def exported(lake: Path) -> Counter[str]:
    out: Counter[str] = Counter()
    for row in rows(lake, columns="* REPLACE (epoch_us(event_time) AS event_time)"):
        out[json.dumps(record.restore(row), sort_keys=True)] += 1
    return out


def event_number(number: int, **changes: Any) -> dict[str, Any]:
    return sample(eventID=f"{number:08x}-2222-4333-8444-555555555555", **changes)


def write(folder: Path, name: str, records: list[Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_bytes(gzip.compress(text({"Records": records})))
    return path


def merged(lake: Path) -> dict[str, list[str]]:
    """Return the merged rows of the summaries as a reader sees them, including sketches."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        names = ("hourly", "usage", "profile", "access", "sessions")
        return {name: sorted(map(repr, engine.sql(f"SELECT * FROM {name}").rows())) for name in names}
