"""Standard streams that are closed, full or do not block, and outputs that are not regular files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

PROGRAM = f"{sys.executable} -m trailsift"


def shell(command: str, lake: Path) -> subprocess.CompletedProcess[str]:
    """Run a command in a shell, with $LAKE."""
    env = os.environ | {"LAKE": str(lake)}
    return subprocess.run(["bash", "-c", command], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("words", ["--version", "--help", "status --lake $LAKE", "query 'SELECT 1' --lake $LAKE"])
def test_closed_streams(words: str, small_lake: Path) -> None:
    """Nothing to write to is not an error, and nothing raises."""
    for redirection in (">&-", "2>&-", ">&- 2>&-"):
        done = shell(f"{PROGRAM} {words} {redirection}", small_lake)
        assert done.returncode == 0 and "Traceback" not in done.stderr, (redirection, done.stderr)


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
@pytest.mark.parametrize("words", ["--version", "status --lake $LAKE", "export --lake $LAKE"])
def test_a_full_disk_behind_standard_output(words: str, small_lake: Path) -> None:
    done = shell(f"{PROGRAM} {words} > /dev/full", small_lake)
    assert done.returncode == 1
    assert done.stderr == "trailsift: standard output: No space left on device\n"


def test_a_pipe_that_does_not_block_gets_everything(small_lake: Path) -> None:
    """The program waits until its reader has taken what does not fit."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with subprocess.Popen([*PROGRAM.split(), "export", "--lake", str(small_lake)], stdout=writer) as process:
        os.close(writer)
        lines = sum(block.count(b"\n") for block in iter(lambda: os.read(reader, 1 << 16), b""))
        os.close(reader)
    assert (lines, process.returncode) == (20_000, 0)


def test_outputs_that_are_not_regular_files(small_lake: Path, tmp_path: Path) -> None:
    """A pipe is written, not replaced; a link is replaced, not followed: anybody may have put it there."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target.ndjson"
    os.mkfifo(pipe)
    link.symlink_to(target)
    target.write_text("precious")
    lines: list[int] = []
    reader = threading.Thread(target=lambda: lines.append(pipe.read_text("utf-8").count("\n")))
    reader.start()
    for output in (pipe, f"{link} --force"):
        assert shell(f"{PROGRAM} export --lake $LAKE --output {output}", small_lake).returncode == 0
    reader.join(30)
    assert lines == [20_000] and pipe.is_fifo()
    assert not link.is_symlink() and link.read_text("utf-8").count("\n") == 20_000
    assert target.read_text() == "precious"


@pytest.mark.parametrize("words", ["summary --lake $LAKE", "status --lake $LAKE", "roles --lake $LAKE"])
def test_a_reader_that_leaves(words: str, small_lake: Path) -> None:
    """`| head` has seen enough: that is not an error of the command."""
    done = shell(f"set -o pipefail; {PROGRAM} {words} | true", small_lake)
    assert (done.returncode, done.stderr) == (0, "")
