"""Servers that stand in for AWS, started by the tests that want them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest


def program(name: str) -> str:
    """A program of the extra ``emulators``; the test is skipped where there is none.

    Looked for in the folder that TRAILSIFT_EMULATORS names, and beside the Python that runs the tests. Not on the PATH,
    which may have other versions than were tested.
    """
    folders = [os.environ.get("TRAILSIFT_EMULATORS", ""), str(Path(sys.executable).parent)]
    for folder in filter(None, folders):
        found = shutil.which(name, path=folder)
        if found is not None:
            return found
    return pytest.skip(f"no {name}: `make test-aws` installs it, or the extra `emulators`")


@contextlib.contextmanager
def served(words: list[str], port_word: str, health: str, folder: Path, env: dict[str, str]) -> Iterator[str]:
    """The address of a server while it runs. ``port_word``: the option or the variable that takes its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    if port_word.startswith("-"):
        words = [*words, port_word, port]
    else:
        env = {**env, port_word: port}
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(words, env=os.environ | env, cwd=folder, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(150):
            if process.poll() is not None:
                break
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{url}/{health}", timeout=1).close()
                yield url
                return
            time.sleep(0.2)
        raise AssertionError(f"{words[0]} does not answer: {log.read_text()[-2000:]}")
    finally:
        process.terminate()
        process.wait()
