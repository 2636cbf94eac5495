"""Workers get calls ahead of their answers: nothing deadlocks, and no chunk gets another's rows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.logs import event_number, exported, rows, write
from support.records import text
from trailsift.ingest import ingest
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
    """Write log objects of different events, ``events`` each."""
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
    """Files sent meanwhile are read for the next chunk."""
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
            is_new = np.arange(len(cut.ids) // 16) % 7 != 0
            yield worker.write(is_new.tobytes(), np.flatnonzero(~is_new).tobytes())
            if not ahead:
                worker.decode(following, 1000)

    for first, second in zip(chunks(True), chunks(False), strict=True):
        assert first.stored == second.stored > 0 and first.lines == second.lines and first.copies == second.copies
        assert [file[2:] for file in first.files] == [file[2:] for file in second.files] != []


#: Starts two workers in a process with one thread, and dies.
_DIES = """
import os, signal, sys
from pathlib import Path
from trailsift.runtime import spare_memory
spare_memory()
from trailsift.ingest.pool import Pool
if len(sys.argv) > 2:
    import threading
    threading.Thread(target=threading.Event().wait, daemon=True).start()
if __name__ == "__main__":
    pool = Pool(Path(sys.argv[1]), 2)
    pool.call(0, "cut"), pool.call(1, "cut")
    answered = set()
    while len(answered) < 2:
        answered.update(worker for worker, _ in pool.answers())
    if type(pool._processes[0]).__name__ == "ForkProcess":
        assert "trailsift.ingest.worker" in sys.modules, "workers share what is imported before the fork"
    print(type(pool._processes[0]).__name__, *(process.pid for process in pool._processes), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems start new interpreters")
@pytest.mark.parametrize("kind", ["ForkProcess", "SpawnProcess"])
def test_workers_end_when_their_parent_is_killed(root: Path, tmp_path: Path, kind: str) -> None:
    """Forked workers, and those of a process with several threads, which must not fork."""
    script = tmp_path / "dies.py"
    script.write_text(_DIES, "utf-8")
    command = [sys.executable, str(script), str(root), *(["thread"] if kind == "SpawnProcess" else [])]
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == -signal.SIGKILL, done.stderr
    name, *pids = done.stdout.split()
    assert name == kind
    deadline = time.monotonic() + 60
    while any(_runs(int(pid)) for pid in pids):
        assert time.monotonic() < deadline, "a worker has outlived its parent"
        time.sleep(0.05)


def _runs(pid: int) -> bool:
    """Return whether a process is alive; a zombie, which stays in a container without a reaper, is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_worker_that_cannot_be_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The ingest goes on with those that were started before."""
    started: list[object] = []
    spawn = multiprocessing.get_context("spawn")

    class Context:
        @staticmethod
        def Pipe() -> tuple[Any, Any]:
            if started:
                raise BlockingIOError(11, "Resource temporarily unavailable")
            started.append(None)
            return spawn.Pipe()

        Process = staticmethod(spawn.Process)

    monkeypatch.setattr("trailsift.ingest.pool.multiprocessing.get_context", lambda kind: Context)
    with Pool(tmp_path, 3) as pool:
        assert pool.size == 1
        pool.call(0, "decode", [], 1)
        assert list(pool.answers()) == [(0, ([], 0))]
    assert "1 of 3 worker processes could be started (Resource temporarily unavailable)" in caplog.text
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("depth", [100, 300, 450, 500, 700, 900, 1_400, 100_000])
@pytest.mark.parametrize("form", ["lines", "Records"])
def test_a_record_nested_deeply_is_stored_or_one_reject(depth: int, form: str, tmp_path: Path) -> None:
    """Whatever way of reading gives up first, all other records are stored, and what is stored can be read."""
    values = [event_number(number) for number in range(3)]
    deep = text(values[1] | {"requestParameters": {"a": 7}}).replace(
        b"7}", b'[{"b":' * depth + b"1" + b"}]" * depth + b"}"
    )
    pieces = [text(values[0]), deep, text(values[2])]
    data = b'{"Records":[' + b",".join(pieces) + b"]}" if form == "Records" else b"\n".join(pieces)
    (tmp_path / "a.json").write_bytes(data)
    counts = ingest([str(tmp_path / "a.json")], tmp_path / "lake", workers=1)
    assert counts.stored + counts.malformed == 3 and counts.stored >= 2
    assert len(exported(tmp_path / "lake")) == counts.stored
    reasons = [row["reason"] for row in rows(tmp_path / "lake", "rejects")]
    assert len(reasons) == counts.malformed and not any("unforeseen" in reason for reason in reasons)
