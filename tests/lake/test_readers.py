"""Whoever may read a lake can ask it everything, whoever may not reads why: nothing in it is written.

Other users, closed permissions, read-only mounts, a full disk, a writer that has the lake open, and one that died.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.hostile_lakes import READING
from support.paths import ROOT, TESTS, variants
from trailsift import Lake
from trailsift.generate import Options, generate

COMMANDS = [" ".join(words) for words in READING]
#: A command of each way to open a lake and to use what is beside it: the answers' cache, findings, an output file.
FEW = variants(COMMANDS, [text for text in COMMANDS if text.split()[0] in ("status", "query", "detect", "export")])
#: Somebody else's user, and the words that take all privileges from root, who may then do no more than others.
NOBODY = 65534
_POWERLESS = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
_ROOT = os.geteuid() == 0
Answers = dict[str, tuple[int, str]]


@pytest.fixture(scope="module")
def small_lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake with findings, at the path at which each test puts a copy."""
    folder = tmp_path_factory.mktemp("readers")
    generate(folder / "logs", Options(events=400, days=1, seed=7))
    lake = folder / "lake"
    Lake(lake).ingest(folder / "logs")
    Lake(lake).detect()
    return lake


@pytest.fixture(scope="module")
def expected(small_lake: Path) -> Answers:
    """Return what the owner reads."""
    said = ask(small_lake)
    assert {command: code for command, (code, _) in said.items() if code} == {}
    return said


@pytest.fixture
def lake(small_lake: Path, tmp_path: Path) -> Iterator[Path]:
    """The lake, to be changed; afterwards it is as it was."""
    kept = tmp_path / "kept"
    shutil.copytree(small_lake, kept)
    yield small_lake
    open_up(small_lake)
    shutil.rmtree(small_lake)
    kept.rename(small_lake)


def ask(lake: Path, *before: str, commands: Sequence[str] = COMMANDS) -> Answers:
    """Return what reading commands say to somebody without privileges."""
    # Always the same path: it stands in answers, and decides where their lines break.
    answers = lake.parent / "answers"
    shutil.rmtree(answers, ignore_errors=True)
    answers.mkdir()
    words = [*before, *(_POWERLESS if _ROOT else []), sys.executable, "-m", "support.readers", str(lake), str(answers)]
    words += [str(COMMANDS.index(command)) for command in commands]
    path = os.pathsep.join([str(ROOT / "src"), str(TESTS)])
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, timeout=300)
    assert done.returncode == 0, done.stderr
    return {command: (code, text) for command, (code, text) in json.loads(done.stdout).items()}


def state(lake: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(lake)): (path.lstat().st_mode, path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in (lake, *lake.rglob("*"))
    }


def close_down(lake: Path, folders: int, files: int) -> None:
    """Give the lake to somebody else, if we may, with these permissions."""
    for path in (*lake.rglob("*"), lake):
        path.chmod(folders if path.is_dir() else files)
        if _ROOT:
            os.chown(path, NOBODY, NOBODY)


def open_up(lake: Path) -> None:
    for path in (lake, *lake.rglob("*")):
        if _ROOT:
            os.chown(path, 0, 0)
        with suppress(FileNotFoundError):
            path.chmod(0o700 if path.is_dir() else 0o600)


def same(text: str) -> str:
    """Return an answer without what differs between runs: times that it took, our notes, and where it was written."""
    text = re.sub(r"(?m)^trailsift: .* cannot be written: .*\n", "", text)
    text = re.sub(r"(?s)Every user of this.*?chmod -R go= [^\n]*\n", "", text)
    return re.sub(r"[0-9.,]+ (?:ms|s)\b|[0-9.,]+/s|[0-9.,]+x", "#", text)


def check(said: Answers, expected: Answers, commands: Sequence[str] = COMMANDS) -> None:
    assert list(said) == list(commands)
    for command, (code, text) in said.items():
        assert (command, code) == (command, 0), text
        if "--explain" not in command:
            assert (command, same(text)) == (command, same(expected[command][1]))


def needs_setpriv() -> None:
    if _ROOT and shutil.which("setpriv") is None:
        pytest.skip("no setpriv, to take root's privileges")


# -- other users -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("modes", [(0o755, 0o644), (0o555, 0o444)], ids=["another user's", "read-only"])
def test_every_reading_command(modes: tuple[int, int], lake: Path, expected: Answers, tmp_path: Path) -> None:
    needs_setpriv()
    commands = COMMANDS if modes == (0o555, 0o444) else FEW
    close_down(lake, *modes)
    before = state(lake)
    said = ask(lake, commands=commands)
    check(said, expected, commands)
    assert state(lake) == before
    assert "cannot be written" in said["detect"][1]


def test_a_private_lake_of_somebody_else(lake: Path, tmp_path: Path) -> None:
    needs_setpriv()
    if not _ROOT:
        pytest.skip("one's own lake is not somebody else's")
    close_down(lake, 0o700, 0o600)
    for command, (code, text) in ask(lake).items():
        if command != "columns":
            assert code == 1 and "Permission denied" in text and "unexpected" not in text, (command, text)


def test_one_file_that_may_not_be_read(lake: Path, tmp_path: Path) -> None:
    """A single file of the events is closed: what needs it says which, and everything else answers."""
    needs_setpriv()
    close_down(lake, 0o755, 0o644)
    closed = max((lake / "events/data").rglob("*.parquet"), key=lambda path: path.stat().st_size)
    closed.chmod(0)
    said = ask(lake)
    for command, (code, text) in said.items():
        assert code in (0, 1, 3) and "unexpected" not in text and "Traceback" not in text, (command, text)
    assert said["status"][0] == 0
    (exported,) = (answer for command, answer in said.items() if command.startswith("export"))
    assert exported[0] == 1 and closed.name in exported[1]


@contextmanager
def a_writer(lake: Path) -> Iterator[sqlite3.Connection]:
    """Have the catalog open, with a commit in its log."""
    with closing(sqlite3.connect(lake / "catalog.db", isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA wal_autocheckpoint = 0")
        db.execute("UPDATE commit_log SET kind = kind")
        yield db


def test_while_a_writer_has_the_lake_open(lake: Path, expected: Answers, tmp_path: Path) -> None:
    needs_setpriv()
    with a_writer(lake):
        close_down(lake, 0o755, 0o644)
        before = state(lake)
        check(ask(lake, commands=FEW), expected, FEW)
        assert state(lake) == before


@pytest.mark.parametrize("left", [("-wal",), ("-wal", "-shm")], ids=["its log", "its log and memory"])
def test_after_a_writer_died(left: tuple[str, ...], lake: Path, expected: Answers, tmp_path: Path) -> None:
    needs_setpriv()
    with a_writer(lake):
        for suffix in left:
            shutil.copyfile(lake / f"catalog.db{suffix}", tmp_path / f"kept{suffix}")
        shutil.copyfile(lake / "catalog.db", tmp_path / "kept.db")
    shutil.copyfile(tmp_path / "kept.db", lake / "catalog.db")
    for suffix in left:
        shutil.copyfile(tmp_path / f"kept{suffix}", lake / f"catalog.db{suffix}")
    close_down(lake, 0o755, 0o644)
    before = state(lake)
    check(ask(lake, commands=FEW), expected, FEW)
    assert state(lake) == before


# -- mounts ------------------------------------------------------------------------------------------------------------


def mounted(lake: Path, script: str) -> list[str]:
    """Return the words that run a command in mounts of its own, with the lake on a file system of its own."""
    if not _ROOT or shutil.which("unshare") is None:
        pytest.skip("only root can mount")
    tried = subprocess.run(["unshare", "-m", "mount", "-t", "tmpfs", "none", str(lake)], capture_output=True)
    if tried.returncode:
        pytest.skip("nothing can be mounted here")
    base = 'cp -a "$0" "$0.copy" && mount -t tmpfs -o size=8m none "$0" && cp -a "$0.copy/." "$0" && rm -r "$0.copy"'
    return ["unshare", "-m", "sh", "-c", f'{base} && {script} && exec "$@"', str(lake)]


def test_a_read_only_mount(lake: Path, expected: Answers, tmp_path: Path) -> None:
    check(ask(lake, *mounted(lake, 'mount -o remount,ro "$0"'), commands=FEW), expected, FEW)


def test_a_full_disk(lake: Path, expected: Answers, tmp_path: Path) -> None:
    fill = 'dd if=/dev/zero of="$0/findings/filled" bs=4k >/dev/null 2>&1; test -s "$0/findings/filled"'
    check(ask(lake, *mounted(lake, fill)), expected)
