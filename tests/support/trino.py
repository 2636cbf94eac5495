"""A real Trino, if there is one."""

from __future__ import annotations

import base64
import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.paths import TESTS

#: The release of Java that this Trino needs.
JDK = 25


def _java() -> str | None:
    """Return the folder of a JDK's programs, with its last slash: JAVA_HOME's, or where Debian has them; else None."""
    homes = [Path(os.environ[name]) for name in ("JAVA_HOME",) if os.environ.get(name)]
    homes += sorted(Path("/usr/lib/jvm").glob(f"*{JDK}*"))
    for home in homes:
        release = home / "release"
        version = re.search(r'^JAVA_VERSION="(\d+)', release.read_text() if release.is_file() else "", re.MULTILINE)
        if version and int(version[1]) >= JDK and shutil.which(str(home / "bin" / "javac")):
            return f"{home}/bin/"
    return None


class TrinoError(AssertionError):
    """Trino's own words about a statement that it refuses."""


class Trino:
    """Trino in one process, with tables in memory, and with Iceberg tables in files."""

    def __init__(self, jars: str, java: str, folder: Path) -> None:
        source = TESTS / "trino" / "Run.java"
        classes = f"{jars}/*"
        (folder / "iceberg").mkdir()
        subprocess.run([f"{java}javac", "-cp", classes, "-d", str(folder), str(source)], check=True)
        flags = ["-Xmx2g", "--add-modules=jdk.incubator.vector", "--enable-native-access=ALL-UNNAMED"]
        self.process = subprocess.Popen(
            [f"{java}java", *flags, "-cp", f"{folder}:{classes}", "Run", str(folder / "iceberg")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip

    def _call(self, kind: str, statement: str) -> list[list[str]]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{kind} {base64.b64encode(statement.encode()).decode()}\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("> "):
                state, *found = line[2:].rstrip("\n").split("\t")
                if state != "ok":
                    raise TrinoError(f"{found}\n{statement}")
                return [row.split("\x01") for row in found]
        raise AssertionError("Trino ended")

    def parse(self, statement: str) -> None:
        self._call("p", statement)

    def run(self, statement: str) -> list[list[str]]:
        return self._call("x", statement)

    def run_iceberg(self, statement: str) -> list[list[str]]:
        """Run a statement in the catalog of Iceberg tables."""
        return self._call("i", statement)

    def add_iceberg(self, name: str, properties: Mapping[str, str]) -> None:
        """Create another catalog of Iceberg tables."""
        self._call("c", "\n".join([name, *(f"{key}={value}" for key, value in properties.items())]))


@pytest.fixture(scope="module")
def trino(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trino]:
    """A Trino for the tests of a module; tests that use it are skipped without one."""
    jars = os.environ.get("TRAILSIFT_TRINO")
    if not jars or not any(Path(jars).glob("trino-main-*.jar")):
        pytest.skip("no Trino: `make test-aws` installs one, TRAILSIFT_TRINO names the folder of its jars")
    java = _java()
    if java is None:
        pytest.skip(f"Trino needs a JDK {JDK}: JAVA_HOME names its folder")
    started = Trino(jars, java, tmp_path_factory.mktemp("trino"))
    yield started
    started.process.kill()
    started.process.wait()
