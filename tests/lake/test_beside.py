"""Maintenance beside a writer, in a process of its own, on a disk and in S3: the same lake afterwards, and smaller."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from s3_server import s3, s3_server
from support.logs import event_number, write
from support.s3_lakes import new_lake, own_cache
from trailsift import Lake
from trailsift.ingest import Sizes, ingest
from trailsift.lake import index
from trailsift.lake.beside import CLEAN_EVERY, Beside
from trailsift.lake.maintenance import LATE_FILES
from trailsift.lake.open import open_snapshot
from trailsift.lake.retention import KIND
from trailsift.lake.writer import LakeWriter

__all__ = ["new_lake", "own_cache", "s3", "s3_server"]

SERVICES = ("s3", "lambda", "dynamodb")
OLD, NEW = "2026-01-10", "2026-03-06"


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """Log objects with an event of each service on the new day, and one with three events of the old day."""
    folder = tmp_path / "logs"
    for number in range(LATE_FILES):
        events = [
            event_number(10 * number + at, eventTime=f"{NEW}T1{at}:00:0{number}Z", eventSource=f"{name}.amazonaws.com")
            for at, name in enumerate(SERVICES)
        ]
        write(folder, f"new-{number}.json.gz", events)
    write(folder, "old.json.gz", [event_number(900 + at, eventTime=f"{OLD}T10:00:0{at}Z") for at in range(3)])
    return folder


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path, logs: Path) -> Lake:
    """A lake with a commit per log object."""
    if request.param == "s3":
        pytest.importorskip("obstore", reason="the extra aws is not installed")
    lake = Lake(tmp_path / "lake" if request.param == "disk" else request.getfixturevalue("new_lake"))
    sizes = Sizes(chunk_rows=1, batch_rows=1)
    counts = ingest([str(logs)], lake._root("write"), workers=0, compact=False, sizes=sizes)
    assert counts.stored == 3 * LATE_FILES + 3
    return lake


def run(beside: Beside, commits: int) -> None:
    """Have it look once, and commit whatever it prepares."""
    beside.note_commits(commits)
    beside.step()
    end = time.monotonic() + 120
    while beside._is_busy:
        assert time.monotonic() < end
        beside.step()
        time.sleep(0.01)


def kinds(root: Path) -> list[str]:
    """Return the kinds of all commits, in order."""
    return index.read(root, lambda db: [kind for (kind,) in db.execute("SELECT kind FROM commit_log ORDER BY seq")])


def test_closed_days_are_rewritten_and_old_days_go(lake: Lake) -> None:
    """In S3 a commit is a swap of the catalog, so small rewrites share one; on a disk a writer waits least for one."""
    new = f"SELECT * FROM events WHERE event_time >= '{NEW}' ORDER BY ALL"
    before = lake.query(new, cache=False).rows()
    said: list[str] = []
    beside = Beside(LakeWriter(lake._root("write")), said.append)
    try:
        run(beside, CLEAN_EVERY)
        assert beside.counts.rows_expired == 0
        # As another process saves it while a watch runs.
        lake.set_retention("30d")
        run(beside, CLEAN_EVERY)
    finally:
        beside.close()
    assert said == []
    assert lake.query(new, cache=False).rows() == before and len(before) == 3 * LATE_FILES
    assert lake.query(f"SELECT count(*) FROM events WHERE event_time < '{NEW}'", cache=False).value() == 0
    assert lake.query("SELECT sum(events) FROM hourly", cache=False).value() == 3 * LATE_FILES + 3
    root = lake._root()
    files = open_snapshot(root).files("events")
    assert sorted(file.rows for file in files) == [LATE_FILES] * len(SERVICES)
    rewrites = kinds(root).count("compact")
    assert rewrites == 1 if isinstance(lake.path, str) else rewrites > len(SERVICES)
    # One more merged the files of event ids.
    assert (beside.counts.rewrites, beside.counts.rows_expired, beside.counts.files_expired) == (rewrites + 1, 3, 1)
    assert KIND in kinds(root) and lake.status().keeping.events_before is not None
    assert lake.verify().is_sound
