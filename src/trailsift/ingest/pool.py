"""Worker processes of an ingest (``worker``), and the calls that they are busy with.

They are forked if that is safe, else started as new interpreters, which import their modules while the parent imports
its own.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib
import logging
import mmap
import multiprocessing
import multiprocessing.connection
import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from trailsift.decode.limits import LIMITS, Limits
from trailsift.errors import TrailsiftError
from trailsift.rules import Rules
from trailsift.runtime import keep_memory, without_pandas
from trailsift.sources.base import LogObject

#: Size of the number of log objects that a worker has begun.
BEGUN_BYTES = 8


class Pool:
    """Worker processes and the calls they are busy with; or one worker in this process."""

    def __init__(self, root: Path, size: int, rules: Rules | None = None, bounds: Limits = LIMITS) -> None:
        """Start ``size`` processes (0: the worker is this process); fewer, with a warning, if the system refuses."""
        self.size = size
        self._inline: Any = None
        self._answers: deque[tuple[int, Any]] = deque()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self.connections: list[Connection] = []
        #: The last log objects that each worker was given, their number before those, and the number of those that it
        #: has begun: shared with forked workers.
        self._given: list[list[LogObject]] = [[] for _ in range(size)]
        self._forgotten = [0] * size
        self._begun: list[mmap.mmap | None] = []
        fork = size > 0 and can_fork()
        context: Any = multiprocessing.get_context("fork" if fork else "spawn")
        try:
            for _ in range(size):
                self._start(context, root, rules, bounds, forked=fork)
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # The files that the workers hold are missing everywhere else.
                self.close(at_once=True)
            self.size = len(self._processes)
            logging.getLogger("trailsift").warning(
                "%d of %d worker processes could be started (%s); the ingest goes on with %s",
                self.size, size, error.strerror, self.size or "this process alone",
            )  # fmt: skip
        if self.size == 0:
            from trailsift.ingest.worker import Worker

            self._inline = Worker(root, rules, bounds)

    def _start(self, context: Any, root: Path, rules: Rules | None, bounds: Limits, *, forked: bool) -> None:
        """Start one process. Raise OSError if the system refuses."""
        ours, theirs = context.Pipe()
        try:
            # A forked process has the parent's ends too. It must close them: they would hide the parent's death.
            foreign = (*self.connections, ours) if forked else ()
            begun = mmap.mmap(-1, BEGUN_BYTES) if forked else None
            arguments = (theirs, root, rules, bounds, foreign, begun)
            process = context.Process(target=_serve, args=arguments, daemon=True)
            process.start()
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        self.connections.append(ours)
        self._processes.append(process)
        self._begun.append(begun)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def call(self, worker: int, method: str, *arguments: Any) -> None:
        """Send a call to a worker; ``answers`` yields its result later."""
        if self._inline is not None:
            if method == "decode":
                self._inline.expect(arguments[0])
            self._answers.append((worker, getattr(self._inline, method)(*arguments)))
            return
        try:
            if method == "decode" and self._begun[worker] is not None:
                self._remember(worker, arguments[0])
            self.connections[worker].send((method, arguments))
        except OSError as error:
            raise self._died(worker) from error

    def answers(self) -> Iterator[tuple[int, Any]]:
        """Wait for at least one result, and yield each with its worker's number."""
        if self._inline is not None:
            yield self._answers.popleft()
            return
        for ready in multiprocessing.connection.wait(self.connections):
            assert isinstance(ready, Connection)
            try:
                answer = ready.recv()
            except (EOFError, OSError) as error:
                raise self._died(self.connections.index(ready)) from error
            if isinstance(answer, Exception):
                raise answer
            yield self.connections.index(ready), answer

    def _remember(self, worker: int, files: Sequence[LogObject]) -> None:
        """Note what a worker is given, and forget what it has read."""
        read = max(self._begun_by(worker) - 1 - self._forgotten[worker], 0)
        self._given[worker] = [*self._given[worker][read:], *files]
        self._forgotten[worker] += read

    def _begun_by(self, worker: int) -> int:
        begun = self._begun[worker]
        return 0 if begun is None else int.from_bytes(begun[:BEGUN_BYTES], "little")

    def _died(self, worker: int) -> TrailsiftError:
        """Return the error for a worker that is gone, with the log object that it was reading."""
        at = self._begun_by(worker) - 1 - self._forgotten[worker]
        reading = self._given[worker][at].name if 0 <= at < len(self._given[worker]) else None
        return _died(self._processes[worker], reading)

    def close(self, *, at_once: bool) -> None:
        """End the processes: after their last call, or ``at_once`` by killing them."""
        for connection, process in zip(self.connections, self._processes, strict=True):
            if at_once:
                process.kill()
            else:
                with contextlib.suppress(OSError):
                    connection.send(None)
        for process in self._processes:
            process.join()
        self._processes.clear()
        self.connections.clear()


def can_fork() -> bool:
    """Return whether workers can be forked, with the modules they need imported once for all of them.

    Only if this process has a single thread: locks that other threads hold would stay locked in the child. Arrow's
    jemalloc starts one unless ``spare_memory`` was called first, so programs that import us get new interpreters.
    """
    if not _single_threaded():
        return False
    importlib.import_module("trailsift.ingest.worker")
    return _single_threaded()


def _single_threaded() -> bool:
    try:
        return len(os.listdir("/proc/self/task")) == 1  # noqa: PTH208
    except OSError:
        # Not Linux.
        return False


def _serve(
    connection: Connection,
    root: Path,
    rules: Rules | None,
    bounds: Limits,
    foreign: tuple[Connection, ...],
    begun: mmap.mmap | None,
) -> None:
    """Run a worker process; ``foreign`` are the parent's connections that it inherited."""
    for inherited in foreign:
        inherited.close()
    # Ctrl-C is for the parent, which decides what is committed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoding makes millions of objects and no cycles: collecting would only walk over them, and over the modules.
    gc.disable()
    keep_memory()
    with without_pandas():
        from trailsift.ingest.worker import serve

        serve(connection, root, rules, bounds, begun)


def _died(process: multiprocessing.process.BaseProcess, reading: str | None) -> TrailsiftError:
    process.join(5)
    safe = "everything committed before is safe"
    if (process.exitcode or 0) > 0:
        # Python's own exit code: a killed worker has a negative one.
        return TrailsiftError(
            f"a worker process could not start; {safe}. Each worker imports the script that calls ingest(): such a "
            'script must call it under `if __name__ == "__main__":`. The worker\'s own error is printed above'
        )
    while_reading = f" while it read {reading}" if reading else ""
    leave_out = " or move that log object out of the way" if reading else ""
    return TrailsiftError(
        f"a worker process died{while_reading}, most likely for lack of memory; {safe}. "
        f"Run the same command again; if it happens again, use --workers 1{leave_out}"
    )
