"""A real Trino, if there is one."""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import TESTS


class Trino:
    """Trino in one process, with tables in memory."""

    def __init__(self, jars: str, folder: Path) -> None:
        source = TESTS / "trino" / "Run.java"
        classes = f"{jars}/*"
        subprocess.run(["javac", "-cp", classes, "-d", str(folder), str(source)], check=True)
        self.process = subprocess.Popen(
            ["java", "-Xmx1500m", "-cp", f"{folder}:{classes}", "Run"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def _call(self, kind: str, statement: str) -> list[list[str]]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{kind} {base64.b64encode(statement.encode()).decode()}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("> "):
                state, *found = line[2:].rstrip("\n").split("\t")
                assert state == "ok", f"{found}\n{statement}"
                return [row.split("\x01") for row in found]
        raise AssertionError("Trino ended")

    def parse(self, statement: str) -> None:
        self._call("p", statement)

    def run(self, statement: str) -> list[list[str]]:
        return self._call("x", statement)


@pytest.fixture(scope="module")
def trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trino]:
    """A Trino for the tests of a module; tests that use it are skipped without one."""
    jars = os.environ.get("TRAILSIFT_TRINO")
    if not jars or not shutil.which("javac"):
        pytest.skip("no Trino: tests/trino/pom.xml says how to get one, TRAILSIFT_TRINO names the folder of its jars")
    started = Trino(jars, tmp_path_factory.mktemp("trino"))
    yield started
    started.process.kill()
    started.process.wait()
