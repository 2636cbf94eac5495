"""Hostile lakes: no command runs code, leaves the lake, or ends in anything but words. And lakes that are private."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support.hostile_lakes import CASES
from support.paths import ROOT, TESTS, share
from trailsift.api import Lake
from trailsift.cli import main
from trailsift.ingest import ingest

NAMES = [case["name"] for case in json.loads(CASES.read_text("utf-8"))]
CHOSEN = share(NAMES, 24)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Run the variants, in a process of its own, which forks and so must not have threads; return what went wrong."""
    work = tmp_path_factory.mktemp("hostile-lakes") / "work"
    command = [sys.executable, "-m", "support.hostile_lakes", str(work), "--short"]
    command += [word for name in CHOSEN for word in ("--exactly", name)]
    path = os.pathsep.join([str(ROOT / "src"), str(TESTS)])
    subprocess.run(command, check=True, timeout=1800, cwd=work.parent, env={**os.environ, "PYTHONPATH": path})
    results: dict[str, Any] = json.loads((work / "results.json").read_text("utf-8"))
    return results


@pytest.mark.parametrize("name", CHOSEN)
def test_hostile_lake(name: str, found: dict[str, Any]) -> None:
    assert found["results"][name] == []


def modes(lake: Path) -> set[tuple[str, int]]:
    """Return the permissions of files and of folders."""
    paths = [lake, *lake.rglob("*")]
    return {("folder" if path.is_dir() else "file", stat.S_IMODE(path.stat().st_mode)) for path in paths}


@pytest.mark.parametrize(("group_readable", "expected"), [(False, (0o700, 0o600)), (True, (0o750, 0o640))])
def test_a_lake_is_private_whatever_the_umask(
    group_readable: bool, expected: tuple[int, int], small_logs: Path, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        ingest([str(small_logs)], tmp_path / "lake", group_readable=group_readable)
        Lake(tmp_path / "lake").detect()
        Lake(tmp_path / "lake").compact(everything=True)
    finally:
        os.umask(before)
    found = modes(tmp_path / "lake")
    assert found <= {("folder", expected[0]), ("file", expected[1])}, found


def test_status_says_who_can_read_a_lake(small_logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As a command that can be copied, on a line of its own."""
    lake = tmp_path / "lake"
    ingest([str(small_logs)], lake)
    assert main(["status", "--lake", str(lake)]) == 0
    assert "Every user" not in capsys.readouterr().out
    lake.chmod(0o755)
    assert main(["status", "--lake", str(lake)]) == 0
    assert f"  chmod -R go= {lake}" in capsys.readouterr().out.splitlines()
