"""Statements that cost any amount of time and memory: Ctrl-C, the time limit and the memory limit end each of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.lakes import DAY, event, line, make_lake, open_engine
from support.paths import ROOT
from trailsift.errors import EngineError, QueryMemoryError, QueryTimeoutError, UsageError
from trailsift.query import DuckDBEngine
from trailsift.query.deadline import left_behind

HEAVY = {case["name"]: case["sql"] for case in json.loads((ROOT / "tests/cases/heavy_statements.json").read_text())}
#: Those that DuckDB itself cannot interrupt, and that it computes while it plans.
STUBBORN = {
    "levenshtein": "SELECT levenshtein(repeat('a', 20000), repeat('b', 20000))",
    "in a condition": "FROM events WHERE levenshtein(repeat('a', 20000), repeat('b', 20000)) > bytes_out",
    "as an argument": "SELECT count(*) FROM range(levenshtein(repeat('a', 20000), repeat('b', 20000)))",
    "as a limit": "SELECT 1 LIMIT levenshtein(repeat('a', 20000), repeat('b', 20000))",
}


#: Seconds for what takes less than one on a core of its own. What is not stopped takes far longer.
PATIENCE = 5.0


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [event(DAY, bytes_out=n, event_id=f"{n}") for n in range(200)]
    return make_lake(tmp_path_factory.mktemp("heavy") / "lake", {"events": [rows], "hourly": [[line(DAY)]]})


@pytest.fixture
def engine(lake: Path) -> Iterator[DuckDBEngine]:
    with open_engine(lake, memory_limit="500MB", spill_limit="500MB") as engine:
        yield engine


def start(lake: Path, folder: Path, *options: str) -> subprocess.Popen[bytes]:
    """Start `trailsift query - OPTIONS` in a process of its own."""
    command = [sys.executable, "-m", "trailsift", "query", "-", "--lake", str(lake), "--no-cache", "--format", "csv"]
    return subprocess.Popen(
        [*command, "--output", str(folder / "out.csv"), *options],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "XDG_CACHE_HOME": str(folder / "cache")},
    )


def give(process: subprocess.Popen[bytes], sql: str) -> None:
    """Write the statement to standard input and close it."""
    assert process.stdin is not None
    process.stdin.write(sql.encode())
    process.stdin.close()
    process.stdin = None


def await_engine(process: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the engine is open: its folder for spilling is there. Or until the process has ended."""
    while process.poll() is None and not list((folder / "cache/trailsift/spill").glob("*")):
        time.sleep(0.02)


@pytest.mark.parametrize("name", HEAVY)
def test_interrupt_ends_it(lake: Path, tmp_path: Path, name: str) -> None:
    process = start(lake, tmp_path, "--memory", "1GB", "--spill", "1GB")
    give(process, HEAVY[name])
    await_engine(process, tmp_path)
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"trailsift: interrupted\n")
        assert time.monotonic() - begun < PATIENCE
    else:
        _, errors = process.communicate()
        assert process.returncode in (0, 1, 2), errors
        assert b"Traceback" not in errors and b"unexpected" not in errors
    assert list((tmp_path / "cache/trailsift/spill").glob("*")) == []
    assert list(tmp_path.glob("*.partial")) == []


@pytest.mark.parametrize("name", ["levenshtein", "cross join", "order by spill", "printf"])
def test_the_time_limit_ends_it(lake: Path, tmp_path: Path, name: str) -> None:
    process = start(lake, tmp_path, "--timeout", "1", "--memory", "1GB", "--spill", "1GB")
    give(process, HEAVY[name])
    await_engine(process, tmp_path)
    begun = time.monotonic()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    if b"more memory" not in errors:
        assert errors.startswith(b"trailsift: the query was stopped after 1 s: query a shorter period")
    assert errors.count(b"\n") == 1
    assert time.monotonic() - begun < 1 + PATIENCE


@pytest.mark.parametrize("name", STUBBORN)
def test_the_time_limit_includes_planning(engine: DuckDBEngine, name: str) -> None:
    begun = time.monotonic()
    with pytest.raises(QueryTimeoutError, match=r"stopped after 0\.3 s"):
        engine.query(STUBBORN[name], timeout=0.3, cache=False).rows()
    assert time.monotonic() - begun < 0.3 + PATIENCE
    # The engine answers further questions, with one call left behind or none.
    assert engine.query("SELECT count(*) FROM events", cache=False).value() == 200
    deadline = time.monotonic() + 60
    while left_behind() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not left_behind()


def test_the_time_limit_includes_reading_the_result(engine: DuckDBEngine) -> None:
    with pytest.raises(QueryTimeoutError):
        for _ in engine.query("SELECT range, hash(range) FROM range(100000000000)", timeout=0.5).fetched():
            pass


def test_explaining_has_a_time_limit(engine: DuckDBEngine) -> None:
    begun = time.monotonic()
    with pytest.raises(QueryTimeoutError):
        engine.plan(STUBBORN["in a condition"].replace("20000", "19999"), timeout=0.3)
    assert time.monotonic() - begun < 0.3 + PATIENCE


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), 1e12])
def test_a_time_limit_is_a_number_of_seconds(engine: DuckDBEngine, seconds: float) -> None:
    with pytest.raises(UsageError, match="is not a time limit"):
        engine.query("SELECT 1", timeout=seconds)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT len(list(range)) FROM range(1000000000)",
        "SELECT length(string_agg(repeat('x', 10000), '')) FROM range(1000000)",
        "SELECT count(*) FROM (SELECT DISTINCT repeat('x', 10000) || range FROM range(1000000))",
    ],
)
def test_memory_is_limited(lake: Path, sql: str) -> None:
    with (
        open_engine(lake, memory_limit="200MB", spill_limit="10MB") as engine,
        pytest.raises(QueryMemoryError, match=r"--memory"),
    ):
        engine.query(sql, timeout=300).rows()


def test_the_planner_has_the_memory_limit(engine: DuckDBEngine) -> None:
    with engine._planner.cursor() as cursor:
        assert cursor.execute("SELECT current_setting('memory_limit')").fetchone() == ("476.8 MiB",)
        # Nothing is written while planning, least of all into the current folder, which is DuckDB's default.
        assert cursor.execute("SELECT current_setting('temp_directory')").fetchone() == ("",)


def test_disk_is_limited(lake: Path) -> None:
    sql = "SELECT count(*) FROM (SELECT DISTINCT md5(range::VARCHAR) || md5((range + 1)::VARCHAR) FROM range(3000000))"
    with (
        open_engine(lake, memory_limit="100MB", spill_limit="10MB") as engine,
        pytest.raises(QueryMemoryError, match=r"more memory and disk than it may use.*--spill"),
    ):
        engine.query(sql, timeout=300).rows()


@pytest.mark.parametrize("limit", ["a lot", "", "-1GB", "1", "9MB", "2 elephants", "1e3GB", "\uff11GB", "99999999TB"])
def test_a_limit_is_a_size(lake: Path, limit: str) -> None:
    for name in ("memory_limit", "spill_limit"):
        with pytest.raises(UsageError, match="write 500MB or 2GB"):
            open_engine(lake, **{name: limit})


def test_two_interrupts_do_no_harm(lake: Path, tmp_path: Path) -> None:
    process = start(lake, tmp_path)
    give(process, STUBBORN["levenshtein"])
    await_engine(process, tmp_path)
    time.sleep(0.3)
    for _ in range(3):
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert b"Traceback" not in errors


def test_an_engine_error_is_the_parent_of_both() -> None:
    assert issubclass(QueryTimeoutError, EngineError) and issubclass(QueryMemoryError, EngineError)
