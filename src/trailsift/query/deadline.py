"""Calls into DuckDB that a time limit and Ctrl-C end.

While DuckDB works on a statement it does not return to Python, so neither Python's signal handlers nor a limit of ours
could end it. A call therefore runs in a thread of its own, and its caller waits for the thread, for the limit, or for
Ctrl-C. Then DuckDB is interrupted. A single function over one huge text does not notice that: after a short wait the
caller leaves the thread behind and goes on. The command line ends such a process at once (``left_behind``).
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from time import monotonic
from typing import Any, Generic, TypeVar

from trailsift.errors import EngineError, QueryTimeoutError, UsageError
from trailsift.query.duckdb_client import duckdb

T = TypeVar("T")

#: Seconds that DuckDB has to notice an interrupt; a person who pressed Ctrl-C waits for so long.
GRACE = 0.4
#: The longest time limit in seconds: what a lock can wait for.
MAX_SECONDS = 86_400 * 365

#: Seconds for which the end of a program waits for calls that were given up: the interpreter aborts if one of them
#: returns while it is dismantled.
_LAST_WAIT = 5.0

#: Calls that did not end when they were interrupted.
_left: set[_Call[Any]] = set()


def left_behind() -> bool:
    """Return whether a call that was given up still runs: closing its database would wait for it."""
    return any(not call.ended for call in list(_left))


def await_left_behind() -> None:
    """Wait a few seconds for the calls that were given up."""
    end = monotonic() + _LAST_WAIT
    for call in list(_left):
        if not call.ended:
            call.wait(max(0.0, end - monotonic()))


class _Worker:
    """A thread that runs one call after another: DuckDB is slower in a new thread, which has no memory of its own yet.

    Not ``threading.Thread``: nothing may wait for it at exit.
    """

    def __init__(self) -> None:
        self._call: _Call[Any] | None = None
        self._wake = _thread.allocate_lock()
        self._wake.acquire()
        _thread.start_new_thread(self._run, ())

    def start(self, call: _Call[Any]) -> None:
        """Run a call; only if no other runs."""
        self._call = call
        self._wake.release()

    def _run(self) -> None:
        while True:
            self._wake.acquire()
            call, self._call = self._call, None
            assert call is not None
            call.work()
            if len(_idle) < _MOST_IDLE:
                _idle.append(self)
                call.finish()
                del call
            else:
                call.finish()
                return


#: Workers that wait for a call.
_idle: list[_Worker] = []
_MOST_IDLE = 8
if hasattr(os, "register_at_fork"):
    # A new process has none of the threads.
    os.register_at_fork(after_in_child=_idle.clear)


def _worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        return _Worker()


class _Call(Generic[T]):
    """A function that runs in another thread."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.ended = False
        self._function: Callable[[], T] | None = function
        self._result: T
        self._error: BaseException | None = None
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        _worker().start(self)

    def work(self) -> None:
        """Call the function."""
        function, self._function = self._function, None
        assert function is not None
        try:
            self._result = function()
        except BaseException as error:
            self._error = error

    def finish(self) -> None:
        """Say that the call has ended."""
        self.ended = True
        _left.discard(self)
        self._lock.release()

    def wait(self, seconds: float = -1) -> bool:
        """Wait for the end of the call, at most ``seconds``; return whether it came. Ctrl-C raises."""
        return self._lock.acquire(timeout=seconds)

    def result(self) -> T:
        """Return what the function returned, or raise what it raised."""
        if self._error is not None:
            # The error would otherwise keep itself alive through its traceback, and with it the cursor.
            error, self._error = self._error, None
            raise error
        return self._result


class Patience:
    """What all statements of one piece of work share: a time limit, and that somebody still waits for the answer.

    ``cancel`` may be called from any thread.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = monotonic() + seconds
        self._lock = threading.Lock()
        self._cancelled = False
        self._cursors: list[duckdb.DuckDBPyConnection] = []

    def cancel(self) -> None:
        """End what runs, and have nothing more begin."""
        with self._lock:
            self._cancelled = True
            cursors = list(self._cursors)
        for cursor in cursors:
            with contextlib.suppress(duckdb.Error):
                cursor.interrupt()

    @contextlib.contextmanager
    def watching(self, cursor: duckdb.DuckDBPyConnection) -> Iterator[None]:
        """Have ``cancel`` interrupt a cursor meanwhile. Raise EngineError if it was called before."""
        with self._lock:
            if self._cancelled:
                raise EngineError("the query was cancelled: nobody waits for its result any longer")
            self._cursors.append(cursor)
        try:
            yield
        finally:
            with self._lock:
                self._cursors.remove(cursor)


#: The patience of the work that this thread, or this task, is a part of.
_patience: ContextVar[Patience | None] = ContextVar("patience", default=None)


@contextlib.contextmanager
def bounded(patience: Patience) -> Iterator[None]:
    """Have all statements that are run meanwhile, in this context, share a time limit and a way to be cancelled."""
    token = _patience.set(patience)
    try:
        yield
    finally:
        _patience.reset(token)


class Deadline:
    """The time limit of one request, from the moment it is made; ``seconds`` is None if there is none.

    Raise UsageError if the limit is not a positive number.
    """

    def __init__(self, seconds: float | None = None) -> None:
        if seconds is not None and not 0 < seconds <= MAX_SECONDS:
            raise UsageError(f"{seconds:g} s is not a time limit: use a number of seconds above 0, up to a year")
        self.seconds = seconds
        self._end = None if seconds is None else monotonic() + seconds
        self._patience = _patience.get()
        if self._patience is not None and (self._end is None or self._patience.end < self._end):
            self.seconds, self._end = self._patience.seconds, self._patience.end

    def again(self) -> Deadline:
        """Return the same limit, from now on."""
        return Deadline(self.seconds)

    def expired(self) -> QueryTimeoutError:
        """Return the error of a request that took too long."""
        return QueryTimeoutError(
            f"the query was stopped after {self.seconds or 0:g} s: query a shorter period or fewer columns, or allow "
            "more time"
        )

    def run(self, cursor: duckdb.DuckDBPyConnection, function: Callable[[], T]) -> T:
        """Return ``function()``, which uses ``cursor``. Raise QueryTimeoutError at the limit.

        Whoever gets that error, or KeyboardInterrupt, must not close the cursor but ``release`` it.
        """
        if self._patience is not None:
            with self._patience.watching(cursor):
                return self._run(cursor, function)
        return self._run(cursor, function)

    def _run(self, cursor: duckdb.DuckDBPyConnection, function: Callable[[], T]) -> T:
        if self._end is None and threading.current_thread() is not threading.main_thread():
            # Ctrl-C reaches the main thread only, and there is nothing else to wait for.
            return function()
        left = -1.0 if self._end is None else self._end - monotonic()
        if self._end is not None and left <= 0:
            raise self.expired()
        call = _Call(function)
        try:
            if call.wait(left):
                return call.result()
        except BaseException:
            if not call.ended:
                _stop(call, cursor)
            raise
        _stop(call, cursor)
        raise self.expired()

    def on_cursor(self, db: duckdb.DuckDBPyConnection, use: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Return ``use(cursor)`` with a new cursor of ``db``, which is closed afterwards."""
        cursor = db.cursor()

        def call() -> T:
            try:
                return use(cursor)
            finally:
                cursor.close()

        return self.run(cursor, call)


def release(cursor: duckdb.DuckDBPyConnection) -> None:
    """Stop what runs on ``cursor`` and close it; some joins notice an interrupt only after a while."""
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()
    if not left_behind():
        _give_up(_Call(cursor.close))


def _stop(call: _Call[Any], cursor: duckdb.DuckDBPyConnection) -> None:
    with contextlib.suppress(duckdb.Error):
        cursor.interrupt()
    _give_up(call)


def _give_up(call: _Call[Any]) -> None:
    """Wait a moment for the end of a call; remember it if it does not come."""
    try:
        ended = call.wait(GRACE)
    except KeyboardInterrupt:
        # Pressed twice: do not wait.
        ended = False
    if not ended:
        atexit.unregister(await_left_behind)
        atexit.register(await_left_behind)
        _left.add(call)
        if call.ended:
            _left.discard(call)
