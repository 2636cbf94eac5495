"""A lake partitioned by hour: the same rows and summaries as one by day, from the same files of logs."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from support.contents import answers, indexed, scanned
from trailsift.cli import main
from trailsift.errors import LakeError
from trailsift.ingest import ingest
from trailsift.lake.compact import compact, needs_compaction
from trailsift.lake.iceberg import LakeCatalog
from trailsift.lake.open import open_snapshot
from trailsift.lake.writer import LakeWriter
from trailsift.query import DuckDBEngine
from trailsift.query.explanation import explain

HOUR = 3_600_000_000
NAMES = (
    "SELECT event_id, event_time, role_arn, log_object, year, month, day, service, rest FROM events ORDER BY event_id"
)


@pytest.fixture(scope="module")
def lakes(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """(by hour, by day) of some hours of one day, each in two commits."""
    folder = tmp_path_factory.mktemp("layouts")
    files = sorted(str(path) for path in (small_logs / "AWSLogs").rglob("03/*.json.gz"))[:40]
    made = folder / "hours", folder / "days"
    for part in (files[::2], files[1::2]):
        ingest(part, made[0], hourly_partitions=True, compact=False)
        ingest(part, made[1], compact=False)
    return made


def rows(lake: Path, sql: str = NAMES) -> list[tuple[Any, ...]]:
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        return engine.query(sql, cache=False).rows()


def test_same_rows_and_summaries(lakes: tuple[Path, Path]) -> None:
    hours, days = lakes
    assert rows(hours) == rows(days) != []
    ours, theirs = answers(hours), answers(days)
    del ours["events"], theirs["events"]  # a hash of whole rows, and one has a column more
    assert ours == theirs


def test_layout(lakes: tuple[Path, Path]) -> None:
    lake = lakes[0]
    files = open_snapshot(lake).files("events")
    assert len({file.min_time // HOUR for file in files}) > 3
    for file in files:
        start = datetime.fromtimestamp(file.min_time // HOUR * 3600, UTC)
        assert file.path.startswith(f"events/data/{start:year=%Y/month=%m/day=%d/hour=%H}/service={file.service}/")
        assert file.max_time // HOUR == file.min_time // HOUR
        (hour,) = set(pq.read_table(lake / file.path, partitioning=None, columns=["hour"]).column(0).to_pylist())
        assert hour == f"{start:%H}"
    spec = [field.name for field in LakeCatalog(lake).load_table(("trailsift", "events")).spec().fields]
    assert spec == ["year", "month", "day", "hour", "service", "event_time_day"]
    assert scanned(lake) == indexed(lake)


def test_pruned_is_unpruned(lakes: tuple[Path, Path]) -> None:
    lake = lakes[0]
    start = min(file.min_time for file in open_snapshot(lake).files("events")) // HOUR * HOUR + 2 * HOUR
    low = datetime.fromtimestamp(start / 1e6, UTC)
    high = low + timedelta(hours=1)
    column = "SELECT count(*), min(event_id), max(event_id) FROM events WHERE "
    within = f"event_time >= '{low.isoformat()}' AND event_time < '{high.isoformat()}'"
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        for sql in (within, f"hour = '{low:%H}' AND day = '{low:%d}'"):
            plan = engine.query(column + sql, cache=False)
            # What DuckDB cannot push down prunes nothing.
            unpruned = sql.replace("event_time", "(event_time + INTERVAL 0 HOUR)").replace("hour =", "hour || '' =")
            assert plan.rows() == engine.query(column + unpruned, cache=False).rows() != [(0, None, None)]
    files = open_snapshot(lake).files("events")
    wanted = [file for file in files if file.min_time < start + HOUR and file.max_time >= start]
    with DuckDBEngine(open_snapshot(lake), threads=2) as engine:
        read = explain(engine, column + within).tables[0].files
        by_column = explain(engine, f"{column} day = '{low:%d}' AND hour = '{low:%H}'").tables[0].files
    assert by_column == len(wanted)
    assert 0 < len(wanted) < len(files) and read == len(wanted)


def test_compaction(lakes: tuple[Path, Path], tmp_path: Path) -> None:
    """An hour is closed an hour later; its files become one."""
    lake = tmp_path / "lake"
    files = sorted({row[0] for row in rows(lakes[0], "SELECT log_object FROM events")})
    for part in (files[::2], files[1::2]):
        ingest(part, lake, hourly_partitions=True, compact=False)
    before, last = answers(lake), max(file.max_time for file in open_snapshot(lake).files("events"))
    now = datetime.fromtimestamp(last // HOUR * 3600 + 1800, UTC)
    found = needs_compaction(open_snapshot(lake), now=now)
    slots = {partition.day * 24 + (partition.hour or 0) for partition in found if partition.table == "events"}
    assert slots and max(slots) == last // HOUR - 2
    compact(lake)
    assert answers(lake) == before
    assert needs_compaction(open_snapshot(lake)) == []
    events = open_snapshot(lake).files("events")
    assert len(events) == len({(file.min_time // HOUR, file.service) for file in events})
    assert scanned(lake) == indexed(lake)


def test_the_layout_of_a_lake_stays(
    lakes: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    hours, days = lakes
    with pytest.raises(LakeError, match="by hour, which cannot be changed"):
        LakeWriter.create(hours, hourly_partitions=False)
    assert LakeWriter.create(hours).tables["events"].partition[3] == "hour"
    log = rows(days, "SELECT log_object FROM events LIMIT 1")[0][0]
    assert main(["ingest", log, "--lake", str(days), "--hourly-partitions"]) == 1
    assert "partitioned by day, which cannot be changed" in capsys.readouterr().err
    assert main(["ingest", log, "--lake", str(tmp_path / "new"), "--hourly-partitions", "--json"]) == 0
    assert open_snapshot(tmp_path / "new").settings["hourly_partitions"] is True
    shutil.rmtree(tmp_path / "new")
