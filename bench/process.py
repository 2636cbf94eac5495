"""One measured child process: its wall time, the peak memory of its process tree, and the JSON that it printed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import psutil

#: Seconds between two looks at the memory.
EVERY = 0.02
#: Seconds between two looks for the processes of the tree: each takes some milliseconds, which the child would lack.
CENSUS = 0.5


class ChildError(Exception):
    """A child ended with an exit code that was not expected; the text is what it said last."""


@dataclass(frozen=True)
class Run:
    """What a child took. ``peak_bytes`` sums resident sizes over the tree: pages that processes share count in each."""

    seconds: float
    peak_bytes: int
    answer: Any


def python(*arguments: str) -> list[str]:
    """A command line for this interpreter."""
    return [sys.executable, *arguments]


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, text: str | None = None) -> Run:
    """Runs ``command``, with ``text`` on its standard input; ChildError where it does not end with 0."""
    # As where trailsift is installed: modules are compiled once, not by every process anew.
    env = {name: value for name, value in (env or os.environ).items() if name != "PYTHONDONTWRITEBYTECODE"}
    started = perf_counter()
    with subprocess.Popen(
        command,
        env=env,
        text=True,
        stdin=subprocess.PIPE if text is not None else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        watch = _Watch(child.pid)
        watch.start()
        out, said = child.communicate(text)
        seconds = perf_counter() - started
        watch.stop()
    if child.returncode:
        raise ChildError(f"{' '.join(command[:4])} ended with {child.returncode}: {said.strip()[-600:]}")
    return Run(seconds, watch.peak, json.loads(out) if out.strip() else None)


class _Watch(threading.Thread):
    """Looks at the memory of a process and its children until told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.peak = 0
        self._pid = pid
        self._done = threading.Event()

    def run(self) -> None:
        tree: list[psutil.Process] = []
        counted = 0.0
        while not self._done.wait(EVERY):
            if perf_counter() - counted >= CENSUS:
                tree, counted = _tree(self._pid), perf_counter()
            self.peak = max(self.peak, sum(map(_bytes, tree)))

    def stop(self) -> None:
        """Ends the watch."""
        self._done.set()
        self.join()


def _tree(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    return []


def _bytes(process: psutil.Process) -> int:
    with contextlib.suppress(psutil.NoSuchProcess):
        size: int = process.memory_info().rss
        return size
    return 0
