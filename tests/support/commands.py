"""Run commands one after the other, each in a process of its own that need not start an interpreter.

`python -m support.commands` reads a list of words per line, and writes the exit code and the output, both as JSON. Or
it reads an object with the words, a folder and environment variables, and writes output and errors apart.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from support.paths import ROOT, TESTS

#: Seconds that a command may take, memory in bytes that its process may have.
SECONDS = 40
MEMORY = 4 << 30
TOO_LONG = -999


class Commands:
    """A process that runs commands. It has no threads, so that it may fork; the tests have many."""

    def __init__(self, **environment: str) -> None:
        path = os.pathsep.join(part for part in (os.environ.get("PYTHONPATH"), str(ROOT / "src"), str(TESTS)) if part)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": path, **environment},
        )

    def run(self, words: list[str]) -> tuple[int, str]:
        """Return a command's exit code (or minus the signal) and what it printed."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        return code, output

    def run_in(self, folder: Path, words: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        """Run a command in a folder, with variables beside those of the process; return its exit code, what it printed
        and its messages."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps({"words": words, "folder": str(folder), "env": env}).encode() + b"\n")
        self._process.stdin.flush()
        code, out, err = json.loads(self._process.stdout.readline())
        return code, out, err

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def run_apart(order: dict[str, Any], folder: Path) -> tuple[int, str, str]:
    """Do what ``run_in`` asks for."""
    process = os.fork()
    if process == 0:
        for number, name in enumerate(("/dev/null", str(folder / "out"), str(folder / "err"))):
            os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        code = 99
        try:
            sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w")  # noqa: SIM115
            os.chdir(order["folder"])
            os.environ.update(order["env"])
            from trailsift.cli import main

            code = main(order["words"])
            sys.stdout.flush()
        except BaseException as error:
            print(f"Traceback: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, status = os.waitpid(process, 0)
    texts = [(folder / name).read_text(errors="replace") for name in ("out", "err")]
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def run(words: list[str], path: Path, seconds: float = SECONDS) -> tuple[int, str]:
    """Run a command in a process of its own, its output in a file. Only for processes without threads."""
    process = os.fork()
    if process == 0:
        child(words, path)
    end = time.monotonic() + seconds
    while True:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status), path.read_text(errors="replace")
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return TOO_LONG, "took too long"
        time.sleep(0.002)


def child(words: list[str], path: Path) -> None:
    """Run the command line; never return."""
    code = 99
    try:
        output = io.TextIOWrapper(path.open("wb"), "utf-8", write_through=True)
        sys.stdout = sys.stderr = output
        if "asan" not in os.environ.get("LD_PRELOAD", ""):
            # AddressSanitizer reserves terabytes of addresses.
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        from trailsift.cli import main

        code = main(words)
        output.flush()
    except BaseException as error:
        print(f"Traceback: {type(error).__name__}: {error}", flush=True)
    finally:
        os._exit(code)


def load() -> None:
    """Import what the commands need, so that it is there after a fork. Nothing here starts a thread."""
    for name in ("api", "cli.app", "detect.pipeline", "ingest.coordinator", "lake.compact", "lake.iceberg", "query"):
        importlib.import_module(f"trailsift.{name}")
    from trailsift.cli.app import load_commands

    load_commands()


def main() -> int:
    load()
    with tempfile.TemporaryDirectory(prefix="trailsift-commands-") as folder:
        for line in sys.stdin:
            order = json.loads(line)
            if isinstance(order, dict):
                print(json.dumps(run_apart(order, Path(folder))), flush=True)
            else:
                print(json.dumps(run(order, Path(folder) / "output")), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
