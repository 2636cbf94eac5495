"""Workers are given more than they have answered: nothing waits for ever, and no chunk gets another's rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from support.logs import event_number, write
from trailsift.ingest.pool import Pool
from trailsift.ingest.worker import ChunkIds, ChunkResult, Worker
from trailsift.lake.writer import LakeWriter
from trailsift.sources.base import LogObject
from trailsift.sources.files import FileSource

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return LakeWriter.create(tmp_path / "lake").root


def log_files(folder: Path, objects: int, events: int) -> list[LogObject]:
    """Log objects of so many events each, all events different."""
    for at in range(objects):
        write(folder, f"{at:03}.json.gz", [event_number(at * events + number) for number in range(events)])
    return FileSource([str(folder)]).find()


def test_large_calls_and_large_answers_pass_each_other(root: Path, tmp_path: Path) -> None:
    """Both are more than a pipe holds."""
    missing = [LogObject(f"{at}{'x' * 400}", str(tmp_path / "none"), "1", 1, NOON) for at in range(5000)]
    answers: list[int] = []

    def talk() -> None:
        with Pool(root, 1) as pool:
            for _ in range(4):
                pool.call(0, "decode", missing, 10)
            while len(answers) < 4:
                answers.extend(len(tallies) for _, (tallies, _) in pool.answers())

    thread = threading.Thread(target=talk, daemon=True)
    thread.start()
    thread.join(120)
    assert answers == [5000] * 4


def test_a_full_chunk_takes_nothing_more(root: Path, tmp_path: Path) -> None:
    """What is sent to it is read for the next one."""
    files = log_files(tmp_path / "in", objects=5, events=20)
    worker = Worker(root)
    assert [tally.records for tally in worker.decode(files[:2], 30)[0]] == [20, 20]
    assert worker.decode(files[2:4], 30) == ([], 40)
    first = worker.cut()
    assert isinstance(first, ChunkIds) and len(first.ids) == 40 * 16
    tallies, rows = worker.decode([], 100)
    assert ([tally.records for tally in tallies], rows) == ([20, 20], 40)


def test_a_chunk_is_decoded_while_another_waits(root: Path, tmp_path: Path) -> None:
    """Both are stored as if they had come one after the other."""
    files = log_files(tmp_path / "in", objects=6, events=50)

    def chunks(ahead: bool) -> Iterator[ChunkResult]:
        worker = Worker(root)
        worker.decode(files[:3], 1000)
        for following in (files[3:], []):
            cut = worker.cut()
            assert isinstance(cut, ChunkIds)
            if ahead:
                worker.decode(following, 1000)
            fresh = np.arange(len(cut.ids) // 16) % 7 != 0
            yield worker.write(fresh.tobytes(), np.flatnonzero(~fresh).tobytes())
            if not ahead:
                worker.decode(following, 1000)

    for one, other in zip(chunks(True), chunks(False), strict=True):
        assert one.stored == other.stored > 0 and one.lines == other.lines and one.copies == other.copies
        assert [file[2:] for file in one.files] == [file[2:] for file in other.files] != []
