"""Limits of the system, and workers that lose their parent: said in words, without tracebacks and orphans."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import duckdb
import psutil
import pyarrow as pa
import pytest

from support.logs import event_number
from support.records import text
from trailsift.detect.detection_file import builtin_rules
from trailsift.detect.detection_rules import run_detections
from trailsift.errors import EngineError
from trailsift.generate import Options, generate
from trailsift.ingest.pool import Pool
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.runtime import shortage

linux_only = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits are enforced on Linux only")
CLI = [sys.executable, "-m", "trailsift"]


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    generate(folder, Options(events=30_000, days=2, seed=5))
    return folder / "AWSLogs"


@pytest.fixture(scope="module")
def lake(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    lake = tmp_path_factory.mktemp("lake") / "lake"
    subprocess.run([*CLI, "ingest", logs, "--lake", lake, "--no-compact"], check=True, capture_output=True)
    return lake


def _limited(limit: int, value: int, words: list[str | Path]) -> subprocess.CompletedProcess[str]:
    """Run a command with a limit of the system, without what other tests may have set."""
    code = "import resource, os, sys; n, v = map(int, sys.argv[1:3]); resource.setrlimit(n, (v, v)); "
    code += "os.execv(sys.argv[3], sys.argv[3:])"
    return subprocess.run(
        [sys.executable, "-c", code, str(limit), str(value), *CLI, *words],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip


COMMANDS: dict[str, Callable[[Path, Path, Path], list[str | Path]]] = {
    "ingest": lambda logs, lake, tmp: ["ingest", logs, "--lake", tmp / "new", "--workers", "2"],
    "one worker": lambda logs, lake, tmp: ["ingest", logs, "--lake", tmp / "new", "--workers", "1"],
    "summary": lambda logs, lake, tmp: ["summary", "--lake", lake],
    "query": lambda logs, lake, tmp: ["query", "SELECT count(*) FROM events", "--lake", lake],
    "detect": lambda logs, lake, tmp: ["detect", "--lake", lake],
    "export": lambda logs, lake, tmp: ["export", "--lake", lake, "-o", tmp / "out.ndjson"],
}


@linux_only
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("megabytes", [400])
def test_little_memory(logs: Path, lake: Path, tmp_path: Path, command: str, megabytes: int) -> None:
    """Done, or said what is missing and what to do."""
    done = _limited(resource.RLIMIT_AS, megabytes << 20, COMMANDS[command](logs, lake, tmp_path))
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert "ulimit -v" in done.stderr
    # Below zero: a library has aborted the process.
    assert done.returncode <= 1, done.stderr
    if done.returncode == 1:
        assert "memory" in done.stderr.splitlines()[-1]


@linux_only
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("files", [9, 16, 24])
def test_few_open_files(logs: Path, lake: Path, tmp_path: Path, command: str, files: int) -> None:
    done = _limited(resource.RLIMIT_NOFILE, files, COMMANDS[command](logs, lake, tmp_path))
    assert "Traceback" not in done.stderr and "unexpected" not in done.stderr
    assert done.returncode in (0, 1)
    assert done.returncode == 0 or "open" in done.stderr, done.stderr


class _Refusing(DuckDBEngine):
    """An engine whose statements all meet the limit of open files, as DuckDB reports it."""

    def query(self, *statement: Any, **options: Any) -> NoReturn:
        """Raise."""
        try:
            raise duckdb.IOException('Cannot open file "/lake/events/a.parquet": Too many open files')
        except duckdb.Error:
            raise EngineError("the query could not be run") from None


def test_no_file_for_a_detection(lake: Path) -> None:
    """The machine's fault is not the fault of one detection after the other."""
    rules, _ = builtin_rules()
    with _Refusing(open_snapshot(lake)) as engine, pytest.raises(EngineError) as raised:
        run_detections(engine, rules)
    assert "ulimit -n" in shortage(raised.value)


def _cause(error: BaseException, of: type[BaseException] = ValueError) -> BaseException:
    raised = of("outer")
    raised.__cause__ = error
    return raised


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (MemoryError(), "ulimit -v"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "ulimit -v"),
        (_cause(MemoryError()), "ulimit -v"),
        (ImportError("lib.so: failed to map segment from shared object"), "ulimit -v"),
        (duckdb.OutOfMemoryException("Failed to allocate block of 262144 bytes (bad allocation)"), "ulimit -v"),
        (duckdb.OutOfMemoryException("Out of Memory Error: Allocation failure"), "ulimit -v"),
        (duckdb.OutOfMemoryException("could not allocate block of size 256.0 KiB (1.0 MiB/1.0 MiB used)"), ""),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (
            pa.lib.ArrowException("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"),
            "ulimit -u",
        ),
        (_cause(OSError(errno.EMFILE, "Too many open files")), "ulimit -n"),
        (duckdb.IOException('Cannot open file "/lake/events/a.parquet": Too many open files'), "ulimit -n"),
        (OSError(errno.ENOSPC, "No space left on device"), ""),
        (RuntimeError("dictionary changed size during iteration"), ""),
        (ImportError("No module named 'x'"), ""),
    ],
)
def test_what_is_missing(error: BaseException, advice: str) -> None:
    assert advice in shortage(error) and bool(advice) == bool(shortage(error))


@linux_only
def test_no_new_threads(tmp_path: Path) -> None:
    """Real ones, refused by the system: their stacks do not fit into the address space that is left."""
    code = """
import resource, sys, threading
from trailsift import cli
def run(words):
    threading.stack_size(1 << 30)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    threading.Thread(target=print).start()
cli._run = run
sys.exit(cli.main(["status"]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "starts no more threads" in done.stderr and "Traceback" not in done.stderr


@linux_only
def test_fewer_workers_than_asked_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """No more files can be opened: those of the workers that were started are given back."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    # The lowest free numbers are used, so the limit is on the highest.
    highest = max(int(name) for name in os.listdir("/proc/self/fd"))  # noqa: PTH208
    spare = [os.dup(0) for _ in range(highest - opened + 1)]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 8, before[1]))
        pool = Pool(tmp_path, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        for number in spare:
            os.close(number)
    with pool:
        assert pool.size == 0
        pool.call(0, "decode", [], 1)
        assert list(pool.answers()) == [(0, ([], 0))]
    assert "0 of 20 worker processes could be started (Too many open files)" in caplog.text
    assert len(os.listdir("/proc/self/fd")) <= opened + 1  # noqa: PTH208


def _alive(processes: list[psutil.Process]) -> Iterator[int]:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE:
                yield process.pid


@pytest.mark.parametrize("seed", range(3))
def test_workers_end_with_their_parent(logs: Path, tmp_path: Path, seed: int) -> None:
    """Killed at a random moment: the workers stop at once, say nothing, and the next ingest stores everything."""
    lake, errors = tmp_path / "lake", tmp_path / "errors"
    command = [*CLI, "ingest", logs, "--lake", lake, "--no-compact"]
    with errors.open("wb") as stream:
        parent = subprocess.Popen([*command, "--workers", "3"], stdout=subprocess.DEVNULL, stderr=stream)
        own = psutil.Process(parent.pid)
        workers: list[psutil.Process] = []
        while len(workers) < 3 and parent.poll() is None:
            workers = own.children()
        time.sleep(random.Random(seed).uniform(0, 0.6))
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        killed = time.monotonic()
        while list(_alive(workers)) and time.monotonic() < killed + 20:
            time.sleep(0.01)
        assert time.monotonic() - killed < 5
    assert errors.read_bytes() == b""
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    count = [*CLI, "query", "SELECT count(*) AS n FROM events", "--lake", lake, "--format", "csv"]
    assert subprocess.run(count, capture_output=True, text=True, check=True, timeout=60).stdout.split() == [
        "n",
        "30000",
    ]


#: As the command does, so that workers are forked.
_INGEST = """
import io, os, signal, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
from trailsift.runtime import spare_memory
spare_memory()
from datetime import UTC, datetime
from pathlib import Path
from trailsift.errors import TrailsiftError
from trailsift.ingest import ingest
from trailsift.sources import LogObject

folder, deadly, lake = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

class Reader:
    def open(self, log_object):
        if log_object.name == deadly:
            # As for lack of memory.
            os.kill(os.getpid(), signal.SIGKILL)
        return io.BytesIO((folder / log_object.name).read_bytes())

class Objects:
    def find(self):
        names = sorted(path.name for path in folder.iterdir())
        return [LogObject(name, name, "1", 100, datetime.now(UTC), Reader()) for name in names]
    def release(self):
        pass

try:
    print(ingest(Objects(), lake, workers=2).stored)
except Exception as error:
    print(error, flush=True)
    os._exit(type(error) is not TrailsiftError)
"""


@linux_only
@pytest.mark.parametrize("deadly", [0, 17, 39])
def test_a_worker_that_dies_is_named_with_what_it_read(tmp_path: Path, deadly: int) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(40):
        (folder / f"{number:02}.json").write_bytes(text(event_number(number)))

    def ingested(name: str) -> str:
        words = [sys.executable, "-c", _INGEST, str(folder), name, str(tmp_path / "lake")]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout

    name = f"{deadly:02}.json"
    message = ingested(name)
    assert f"died while it read {name}," in message and "out of the way" in message
    (folder / name).unlink()
    assert ingested("none") == "39\n"


def test_a_call_that_cannot_be_received_is_an_error(tmp_path: Path) -> None:
    """A reader whose class the worker cannot import, as in a script without a file: said, and nothing waits for it."""
    (tmp_path / "a.json").write_bytes(text(event_number(1)))
    # A process with another thread does not fork.
    thread = "import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()"
    script = _INGEST.replace("spare_memory()", thread)
    words = [sys.executable, "-c", script, str(tmp_path), "none", str(tmp_path / "lake")]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1 and "get attribute 'Reader'" in done.stdout
