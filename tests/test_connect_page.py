"""The Python of docs/connect.md runs beside a lake, after the page's commands; and a database follows the lake."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.paths import ROOT
from test_docs import blocks
from trailsift import Lake
from trailsift.cli import main
from trailsift.lake.relocate import relocate

PAGE = ROOT / "docs" / "connect.md"


@pytest.fixture
def folder(small_lake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with ``my.lake``, in which the test runs."""
    shutil.copytree(small_lake, tmp_path / "my.lake")
    relocate(tmp_path / "my.lake")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes(folder: Path) -> None:
    """Commands and Python in the order of the page; each prints something."""
    pytest.importorskip("pandas")
    pytest.importorskip("polars")
    scripts = 0
    for block in blocks(PAGE):
        if block.language == "sh":
            for line in block.text.splitlines():
                assert main(shlex.split(line)[1:]) == 0, line
        elif block.language == "python":
            done = subprocess.run(
                [sys.executable, "-c", block.text], cwd=folder, capture_output=True, text=True, timeout=120
            )
            assert done.returncode == 0 and done.stdout, f"{block.line}: {done.stderr[-2000:]}"
            scripts += 1
    assert scripts == 4
    rows = Lake("my.lake").query("SELECT count(*) FROM events WHERE event_name = 'DeleteObject'").value()
    assert len((folder / "deleted.csv").read_text().splitlines()) >= rows + 1 > 1


def test_a_database_that_follows_the_lake(folder: Path, small_logs: Path) -> None:
    """It is written again after a commit, until Ctrl-C."""
    words = [sys.executable, "-m", "trailsift", "connect", "--lake", "new.lake", "--output", "lake.duckdb", "--follow"]
    logs = sorted((small_logs / "AWSLogs").rglob("*.json.gz"))
    Lake("new.lake").ingest(str(logs[0]))
    with subprocess.Popen(words, cwd=folder, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "as of the newest commit" in process.stderr.readline()
        before = (folder / "lake.duckdb").stat().st_ino
        Lake("new.lake").ingest(str(logs[-1]))
        end = time.monotonic() + 60
        while (folder / "lake.duckdb").stat().st_ino == before and time.monotonic() < end:
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 130
    import duckdb

    with duckdb.connect(str(folder / "lake.duckdb"), read_only=True) as db:
        (found,) = db.execute("SELECT count(*) FROM events").fetchone() or (0,)
    assert found == Lake("new.lake").query("SELECT count(*) FROM events").value()
    assert main(["connect", "--lake", "new.lake", "--follow"]) == 2
