"""Run a child process and measure its wall time, the peak memory of its process tree, and its JSON output."""

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

#: Seconds between two samples of the memory.
EVERY = 0.02
#: Seconds between two listings of the process tree: each takes milliseconds of CPU time from the child.
CENSUS = 0.5


class ChildError(Exception):
    """A child process failed; the text is the end of its standard error."""


@dataclass(frozen=True)
class Run:
    """Cost and output of a child. ``peak_bytes`` sums resident sizes over the tree: shared pages count repeatedly."""

    seconds: float
    peak_bytes: int
    answer: Any


def python(*arguments: str) -> list[str]:
    """Return a command line for this interpreter."""
    return [sys.executable, *arguments]


def run(command: Sequence[str], *, env: Mapping[str, str] | None = None, text: str | None = None) -> Run:
    """Run ``command`` with ``text`` on its standard input. Raise ChildError if it fails."""
    # As with an installed trailsift: modules are compiled once, not again in every process.
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
        out, errors = child.communicate(text)
        seconds = perf_counter() - started
        watch.stop()
    if child.returncode:
        raise ChildError(f"{' '.join(command[:4])} ended with {child.returncode}: {errors.strip()[-600:]}")
    return Run(seconds, watch.peak, json.loads(out) if out.strip() else None)


class _Watch(threading.Thread):
    """Samples the memory of a process and its children until it is stopped."""

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
        """Stop sampling."""
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
