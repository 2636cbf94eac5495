"""Emulators of AWS, started by the tests that need them."""

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
    """Return the path of a program of the extra ``emulators``; skip the test if it is not installed.

    Searched in the folder that TRAILSIFT_EMULATORS names, and beside the Python that runs the tests; not on the PATH,
    which may have untested versions.
    """
    folders = [os.environ.get("TRAILSIFT_EMULATORS", ""), str(Path(sys.executable).parent)]
    for folder in filter(None, folders):
        path = shutil.which(name, path=folder)
        if path is not None:
            return path
    return pytest.skip(f"no {name}: `make test-aws` installs it, or the extra `emulators`")


@contextlib.contextmanager
def served(words: list[str], port_word: str, health: str, folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run a server and yield its address. ``port_word``: the option or environment variable that takes its port."""
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
