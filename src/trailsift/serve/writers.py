"""The server's end of the processes that write to the lake (``writing``): start, watch over, and end them."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import multiprocessing
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from trailsift.errors import TrailsiftError
from trailsift.safe_text import safe_lines
from trailsift.serve.writing import Plan, write
from trailsift.sources.firehose import Delivery

#: Seconds until a process that ended early is started again, at first and at most; after so long it counts as well.
_FIRST_PAUSE, _LONGEST_PAUSE, _WELL = 1.0, 60.0, 60.0
#: Seconds that the commit at work has when the server stops.
LAST_COMMIT = 60.0
#: Seconds that a process has until it writes.
_START = 120.0


class Refused(Exception):
    """A delivery that was not committed: the HTTP status, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class Writer:
    """One process, started again if it ends early."""

    def __init__(self, plan: Plan, on_commit: Callable[[], None], on_answer: Callable[[int, int, str], None]) -> None:
        """The functions are called by a thread."""
        self.plan = plan
        self.state = "starting"
        self.pid: int | None = None
        self.starts = 0
        self.totals: dict[str, Any] | None = None
        self.last: dict[str, Any] | None = None
        self.trouble: tuple[str, datetime] | None = None
        self.error: TrailsiftError | None = None
        self.ready = threading.Event()
        self._said = ""
        self._on_commit = on_commit
        self._on_answer = on_answer
        self._connection: Connection | None = None
        self._sending = threading.Lock()
        self._stopping = threading.Event()
        self._waiting: set[int] = set()
        self._thread = threading.Thread(target=self._run, daemon=True, name="writer")

    def start(self) -> None:
        """Start the process."""
        self._thread.start()

    def stop(self) -> None:
        """Ask it to end after the commit at work."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._send("stop")

    def join(self, seconds: float) -> None:
        """Wait for its end, if it was started."""
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def deliver(self, delivery: Delivery) -> None:
        """Hand over a request; the answer comes through ``on_answer``, whatever happens."""
        self._waiting.add(delivery.number)
        if self._stopping.is_set() or not self._send("deliver", delivery):
            self._refuse({delivery.number}, "the server is stopping" if self._stopping.is_set() else self._why())

    def as_dict(self) -> dict[str, Any]:
        """Return its state for the API."""
        trouble = self.trouble
        return {
            "kind": "firehose" if self.plan.place is None else "watch",
            "place": self.plan.place,
            "state": self.state,
            "says": safe_lines(self._said),
            "starts": self.starts,
            "trouble": None
            if trouble is None
            else {"at": trouble[1].isoformat(timespec="seconds"), "message": safe_lines(trouble[0])},
            "totals": self.totals,
            "last_commit": self.last,
        }

    # -- the thread ------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            error = self._once()
            self._refuse(set(self._waiting), self._why())
            if self._stopping.is_set():
                break
            if not self.ready.is_set():
                # What it was asked to do is wrong: to try again would not help.
                self.error = error or TrailsiftError("the process that writes to the lake ended at its start")
                break
            self.state = "failed"
            self._note_trouble(str(error or "the process that writes to the lake ended early; it is started again"))
            if time.monotonic() - began > _WELL:
                pause = _FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
        self.state = "stopped"
        self.ready.set()

    def _once(self) -> TrailsiftError | None:
        """Run one process to its end; return its error."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=write, args=(theirs, self.plan), name="trailsift-writer")
        process.start()
        theirs.close()
        self.pid = process.pid
        self.starts += 1
        with self._sending:
            self._connection = ours
        if self._stopping.is_set():
            self._send("stop")
        error = None
        try:
            while True:
                message = ours.recv()
                if message[0] == "end":
                    error = message[1]
                else:
                    self._take(message)
        except (EOFError, OSError):
            pass
        with self._sending:
            self._connection = None
        ours.close()
        process.join()
        return error

    def _take(self, message: tuple[Any, ...]) -> None:
        match message:
            case "answer", number, status, reason:
                self._waiting.discard(number)
                self._on_answer(number, status, reason)
            case "commit", committed:
                self.last = committed
                if committed["commit"] is not None:
                    self._on_commit()
            case "status", totals:
                self.totals = totals
                self.state = "running"
                self.ready.set()
            case "started", text:
                self._said = text
                # The lake is opened or made next: the first totals say that it is there.
            case "trouble", text:
                self._note_trouble(text)

    def _note_trouble(self, text: str) -> None:
        self.trouble = text, datetime.now(UTC)

    def _why(self) -> str:
        return f"the lake cannot be written now: {self.trouble[0]}" if self.trouble else "the writer is not running"

    def _refuse(self, numbers: set[int], reason: str) -> None:
        for number in numbers & self._waiting:
            self._waiting.discard(number)
            self._on_answer(number, 503, reason)

    def _send(self, *message: Any) -> bool:
        with self._sending:
            if self._connection is None:
                return False
            try:
                self._connection.send(message)
            except (OSError, ValueError):
                return False
        return True


class Writers:
    """All processes that write beside one server. Used in the event loop, but for ``start``."""

    def __init__(
        self,
        lake: str,
        places: Sequence[str] = (),
        *,
        firehose: bool = False,
        rules: str | None = None,
        every: float = 1.0,
    ) -> None:
        """``places`` are watched; ``firehose``: requests of streams are taken, too; ``rules``, ``every``: see Plan."""
        #: Bodies of requests; of our own.
        self.folder = Path(tempfile.mkdtemp(prefix="trailsift-firehose-")) if firehose else None
        plans = [Plan(lake, place, rules, every=every) for place in places]
        if self.folder is not None:
            plans.append(Plan(lake, None, rules, str(self.folder), every))
        self.all = [Writer(plan, self._committed, self._answered) for plan in plans]
        self._loop: asyncio.AbstractEventLoop | None = None
        self._answers: dict[int, asyncio.Future[None]] = {}
        self._numbers = 0
        self._on_commit: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start all, and wait until they write. Raise TrailsiftError if one of them cannot."""
        if not self.all:
            return
        # Before multiprocessing waits for its children at the end, which wait for the connections to end.
        atexit.register(self.stop)
        for writer in self.all:
            writer.start()
        end = time.monotonic() + _START
        for writer in self.all:
            ready = writer.ready.wait(max(0.0, end - time.monotonic()))
            if writer.error is not None or not ready:
                self.end()
                raise writer.error or TrailsiftError(f"writing to the lake did not begin within {_START:.0f} s")

    def follow(self, on_commit: Callable[[], None]) -> None:
        """Begin to serve in the running loop; ``on_commit`` is called in it after each commit."""
        self._loop = asyncio.get_running_loop()
        self._on_commit = on_commit

    def stop(self) -> None:
        """Ask all to end after the commit at work. Safe in any thread."""
        for writer in self.all:
            writer.stop()

    def stop_soon(self) -> None:
        """Do what ``stop`` does; safe in a signal's handler, where a send may be under way."""
        threading.Thread(target=self.stop, daemon=True).start()

    async def close(self) -> None:
        """Do what ``end`` does, beside the loop."""
        await asyncio.to_thread(self.end)

    def end(self) -> None:
        """End all, and wait for the commits at work."""
        self.stop()
        end = time.monotonic() + LAST_COMMIT
        for writer in self.all:
            writer.join(max(0.0, end - time.monotonic()))
        atexit.unregister(self.stop)
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def as_list(self) -> list[dict[str, Any]]:
        """Return the states of all."""
        return [writer.as_dict() for writer in self.all]

    # -- deliveries ------------------------------------------------------------------------------------------------

    def next_number(self) -> int:
        """Return a number for a delivery."""
        self._numbers += 1
        return self._numbers

    async def deliver(self, delivery: Delivery, seconds: float) -> None:
        """Have a request committed. Raise Refused if it was not within so many seconds."""
        writer = self.all[-1]
        assert writer.plan.place is None
        answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._answers[delivery.number] = answer
        writer.deliver(delivery)
        try:
            async with asyncio.timeout(seconds):
                await answer
        except TimeoutError:
            why = f": {writer.trouble[0]}" if writer.trouble else ""
            raise Refused(503, f"the request was not committed within {seconds:.0f} s{why}") from None
        finally:
            self._answers.pop(delivery.number, None)

    def _answered(self, number: int, status: int, reason: str) -> None:
        self._in_loop(self._settle, number, status, reason)

    def _settle(self, number: int, status: int, reason: str) -> None:
        answer = self._answers.get(number)
        if answer is None or answer.done():
            return
        if status == 200:
            answer.set_result(None)
        else:
            answer.set_exception(Refused(status, reason))

    def _committed(self) -> None:
        self._in_loop(self._on_commit)

    def _in_loop(self, function: Callable[..., None], *values: Any) -> None:
        # The loop may be closed already.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(function, *values)
