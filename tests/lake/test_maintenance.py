"""A lake keeps itself in shape: many small ingests, and nobody ever runs `compact`."""

from __future__ import annotations

import logging
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from support.contents import answers, indexed, live, partitions, scanned
from trailsift.ingest import ingest
from trailsift.lake import expire, index, maintenance
from trailsift.lake.open import open_snapshot
from trailsift.lake.partitions import Partition
from trailsift.lake.writer import LakeWriter

COMMITS = 17


@pytest.fixture(scope="module")
def logs(small_logs: Path) -> list[str]:
    return sorted(str(path) for path in (small_logs / "AWSLogs").rglob("03/*.json.gz"))[: 3 * COMMITS]


@pytest.fixture(scope="module")
def untidy(logs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("untidy") / "lake"
    for number in range(COMMITS):
        ingest(logs[number::COMMITS], lake, compact=False)
    return lake


def test_many_small_ingests(logs: list[str], untidy: Path, tmp_path: Path) -> None:
    """Same rows, few files, few lists of ids."""
    lake = tmp_path / "lake"
    for number in range(COMMITS):
        ingest(logs[number::COMMITS], lake)
    assert answers(lake) == answers(untidy)
    assert max(map(len, partitions(untidy).values())) >= COMMITS - 2
    assert max(map(len, partitions(lake).values())) <= maintenance.LATE_FILES + maintenance.LOOK_EVERY
    assert live(lake)["hourly"] * 2 < live(untidy)["hourly"]
    with closing(index.connect(lake)) as db:
        (ids,) = db.execute("SELECT count(*) FROM seen_file WHERE removed IS NULL").fetchone()
    assert ids <= maintenance.ID_FILES < COMMITS
    assert scanned(lake) == indexed(lake)


def test_time_is_bounded(untidy: Path) -> None:
    files = live(untidy)
    assert len(maintenance.needs_rewrite(untidy, now=datetime.now(UTC))) > 3
    maintenance.maintain(LakeWriter(untidy), 0, seconds=0)
    assert live(untidy) == files


def test_open_days_are_left_alone(untidy: Path) -> None:
    first = min(file.min_time for file in open_snapshot(untidy).files("events"))
    assert not maintenance.needs_rewrite(untidy, now=datetime.fromtimestamp(first / 1e6, UTC))


def test_when_another_rewrite_pays() -> None:
    def partition(*sizes: int) -> Partition:
        files = tuple(index.File("events", f"f{at}", 1, size, 0, 1, "s3") for at, size in enumerate(sizes))
        return Partition("events", 0, "s3", files)

    eight = [10] * maintenance.LATE_FILES
    assert not maintenance.should_rewrite(partition(*eight[1:]), set())
    assert maintenance.should_rewrite(partition(*eight), set())
    assert maintenance.should_rewrite(partition(200, *eight), {"f0"})
    # So that a large day is not written again for each few small files ...
    assert not maintenance.should_rewrite(partition(1000, *eight), {"f0"})
    # ... but for many.
    assert maintenance.should_rewrite(partition(100_000, *([10] * maintenance.MANY_FILES)), {"f0"})


def test_what_goes_wrong_afterwards_is_no_error(
    logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(maintenance, "maintain", full)
    with caplog.at_level(logging.WARNING):
        assert ingest(logs[:2], tmp_path / "lake").stored
    assert "everything was stored" in caplog.text and "No space left" in caplog.text
    caplog.clear()
    assert ingest(logs[2:4], tmp_path / "lake", compact=False).stored
    assert not caplog.text


def test_deleting_is_part_of_it(untidy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Metadata of expired snapshots goes, every so many commits."""
    monkeypatch.setattr(maintenance, "CLEAN_EVERY", 1)
    monkeypatch.setattr(expire, "KEPT_COMMITS", 1)
    before = len(list((untidy / "events" / "metadata").iterdir()))
    done = maintenance.maintain(LakeWriter(untidy), 0, now=datetime.now(UTC) + timedelta(days=2), seconds=0)
    assert done is not None and done.snapshots_expired
    assert len(list((untidy / "events" / "metadata").iterdir())) < before
    assert scanned(untidy) == indexed(untidy)
