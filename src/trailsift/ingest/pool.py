"""Worker processes of an ingest (``work``), and the calls that they are busy with.

Starting them comes before everything that takes long to import, so that they import it on the other cores meanwhile.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import multiprocessing.connection
import signal
from collections import deque
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType
from typing import Any

from trailsift.decode.stream import READ_LIMITS, ReadLimits
from trailsift.errors import TrailsiftError
from trailsift.rules import Rules
from trailsift.runtime import keep_memory, without_pandas


class Pool:
    """Worker processes and the calls they are busy with; or one worker in this process."""

    def __init__(self, root: Path, size: int, rules: Rules | None = None, bounds: ReadLimits = READ_LIMITS) -> None:
        self.size = size
        self._inline: Any = None
        if size == 0:
            from trailsift.ingest.worker import Worker

            self._inline = Worker(root, rules, bounds)
        self._answers: deque[tuple[int, Any]] = deque()
        self._processes: list[multiprocessing.process.BaseProcess] = []
        self.connections: list[Connection] = []
        context = multiprocessing.get_context("spawn")
        for _ in range(size):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, root, rules, bounds), daemon=True)
            process.start()
            theirs.close()
            self._processes.append(process)
            self.connections.append(ours)

    def __enter__(self) -> Pool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def call(self, worker: int, method: str, *arguments: Any) -> None:
        """Asks a worker to do something; ``answers`` has the result later."""
        if self._inline is not None:
            self._answers.append((worker, getattr(self._inline, method)(*arguments)))
            return
        try:
            self.connections[worker].send((method, arguments))
        except OSError as error:
            raise _died(self._processes[worker]) from error

    def answers(self) -> Iterator[tuple[int, Any]]:
        """Waits for at least one result."""
        if self._inline is not None:
            yield self._answers.popleft()
            return
        for ready in multiprocessing.connection.wait(self.connections):
            assert isinstance(ready, Connection)
            try:
                answer = ready.recv()
            except (EOFError, OSError) as error:
                raise _died(self._processes[self.connections.index(ready)]) from error
            if isinstance(answer, Exception):
                raise answer
            yield self.connections.index(ready), answer

    def close(self, *, at_once: bool) -> None:
        """Ends the processes."""
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


def _serve(connection: Connection, root: Path, rules: Rules | None, bounds: ReadLimits) -> None:
    """What a worker process does."""
    # Ctrl-C is for the parent, which decides what is committed.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Decoding makes millions of objects and no cycles: collecting would only walk over them, and over the modules.
    gc.disable()
    keep_memory()
    with without_pandas():
        from trailsift.ingest.worker import serve

        serve(connection, root, rules, bounds)


def _died(process: multiprocessing.process.BaseProcess) -> TrailsiftError:
    process.join(5)
    safe = "what was committed before is safe"
    if (process.exitcode or 0) > 0:
        # Python's own: a worker that is killed has a negative code.
        return TrailsiftError(
            f"a worker process could not start; {safe}. Each worker imports the script that calls ingest() anew: a "
            'script must call it under `if __name__ == "__main__":`. What the worker said itself stands above'
        )
    return TrailsiftError(
        f"a worker process died, most likely for lack of memory; {safe}. "
        "Run the same command again, with --workers 1 if it happens again"
    )
