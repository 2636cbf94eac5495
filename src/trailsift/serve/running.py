"""Requests within limits: a thread each, a number of them at once, seconds, and an end when nobody waits any longer.

Readers who ask the same of the same commit share one run, and its answer is kept: ten open pages cost what one does.
"""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.requests import Request

from trailsift.query.deadline import Patience, bounded
from trailsift.serve.answers import Body

#: Requests that are worked on at once; others wait.
WORKERS = 8
#: Bytes of answers that are kept, and of the largest one.
KEPT_BYTES, KEPT_MOST = 64 << 20, 4 << 20


class Gone(Exception):
    """The reader has gone away: there is nobody to answer."""


class _Run:
    """One run, and how many readers wait for it."""

    def __init__(self, work: Callable[[], Body], seconds: float, pool: ThreadPoolExecutor) -> None:
        self._patience = Patience(seconds)
        self._waiting = 0

        def call() -> Body:
            with bounded(self._patience):
                return work()

        loop = asyncio.get_running_loop()
        context = contextvars.copy_context()
        self.future = loop.run_in_executor(pool, context.run, call)

    async def result(self, gone: Awaitable[None]) -> Body:
        """Wait for the answer, or until the reader is gone: then raise Gone, and end the run if nobody else waits."""
        self._waiting += 1
        leaving = asyncio.ensure_future(gone)
        both: set[asyncio.Future[Any]] = {self.future, leaving}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not self.future.done():
                raise Gone
            return self.future.result()
        finally:
            leaving.cancel()
            self._waiting -= 1
            if not self._waiting and not self.future.done():
                self._patience.cancel()
                # Nobody will ask for the error of a run that was cancelled.
                self.future.add_done_callback(lambda done: done.cancelled() or done.exception())


class Runner:
    """Runs the work of requests. Used in the event loop; the work itself runs in threads."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="serve")
        self._running: dict[Hashable, _Run] = {}
        self._kept: OrderedDict[Hashable, tuple[Body, str]] = OrderedDict()
        self._bytes = 0
        #: Runs of all time: what was answered from what is kept is not among them.
        self.runs = 0

    @property
    def at_work(self) -> int:
        """The number of runs that are not over."""
        return len(self._running)

    async def run(self, request: Request, work: Callable[[], Body], key: Hashable | None) -> tuple[Body, str]:
        """Return the answer of ``work`` and its ETag. Raise what it raises, or Gone.

        ``key``: requests with the same one have the same answer; None: only this request has it.
        """
        if key is not None and key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        name: Hashable = object() if key is None else key
        run = self._running.get(name)
        if run is None:
            self.runs += 1
            run = self._running[name] = _Run(work, self._seconds, self._pool)
            run.future.add_done_callback(lambda _: self._running.pop(name, None))
        body = await run.result(disconnected(request))
        made = (body, f'"{hashlib.sha256(body.content).hexdigest()[:32]}"')
        if key is not None:
            self._keep(key, made)
        return made

    async def call(self, work: Callable[[], Body]) -> Body:
        """Return the answer of work of our own."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _keep(self, key: Hashable, made: tuple[Body, str]) -> None:
        size = len(made[0].content)
        if size > KEPT_MOST or key in self._kept:
            return
        self._kept[key] = made
        self._bytes += size
        while self._bytes > KEPT_BYTES:
            _, (old, _) = self._kept.popitem(last=False)
            self._bytes -= len(old.content)

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


async def disconnected(request: Request) -> None:
    """Return when the reader has gone away."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
