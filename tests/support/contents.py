"""The contents of a lake, read in every possible way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from trailsift import schema
from trailsift.lake.index import File
from trailsift.lake.open import open_snapshot
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine


def answers(lake: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Return the results of QUESTIONS. Those about one table each are asked together: planning takes longest."""
    tables = " UNION ALL ".join(
        f"SELECT '{name}', answer.* FROM ({QUESTIONS[name]}) AS answer" for name in schema.TABLES
    )
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        found: dict[str, list[tuple[Any, ...]]] = {name: [] for name in QUESTIONS}
        for name, *numbers in engine.query(tables, cache=False).rows():
            found[str(name)] = [tuple(numbers)]
        others = {name: sql for name, sql in QUESTIONS.items() if name not in schema.TABLES}
        return found | {name: engine.query(sql, cache=False).rows() for name, sql in others.items()}


def live(lake: Path) -> dict[str, int]:
    return {name: len(open_snapshot(lake).files(name)) for name in schema.TABLES}


def partitions(lake: Path) -> dict[tuple[int, str | None], list[File]]:
    found: dict[tuple[int, str | None], list[File]] = {}
    for file in open_snapshot(lake).files("events"):
        assert file.min_time // DAY == file.max_time // DAY
        found.setdefault((file.min_time // DAY, file.service), []).append(file)
    return found


def scanned(lake: Path) -> dict[str, int]:
    """Return the number of rows of each table, as PyIceberg's own scan reads them."""
    catalog = LakeWriter(lake).catalog
    return {name: catalog.load_table(("trailsift", name)).scan().to_arrow().num_rows for name in schema.TABLES}


def indexed(lake: Path) -> dict[str, int]:
    return {name: sum(file.rows for file in open_snapshot(lake).files(name)) for name in schema.TABLES}


DAY = 86_400_000_000


#: Queries whose results must not change; the sums of hashes reveal any change of any row.
QUESTIONS = {
    "rows": "SELECT count(*), sum(weight), count(DISTINCT event_id) FROM events",
    **{name: f"SELECT count(*), sum(hash({name})::HUGEINT) FROM {name}" for name in schema.TABLES},
    "role": "SELECT role_arn, count(*), min(event_time), max(event_time) FROM events GROUP BY ALL ORDER BY ALL",
    "top": "SELECT resource_arn, sum(events), sum(bytes_out) FROM hourly GROUP BY ALL ORDER BY ALL",
}
