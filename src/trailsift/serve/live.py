"""What the lake's commits bring, as server-sent events: one look at the lake for all readers, however many there are.

A reader who is slower than the lake misses rows, and is given their number: nothing piles up here. A reader who comes
back names the last commit that it has seen (``Last-Event-ID``), and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

from trailsift.analysis.arrivals import Arrivals
from trailsift.api import Lake
from trailsift.errors import TrailsiftError

#: Seconds between two looks at a lake on disk and at one in S3, where each is a request.
LOCAL, REMOTE = 0.25, 1.0
#: Seconds between two looks while nobody follows.
IDLE = 2.0
#: Rows of a message, readers at once, and seconds of silence after which a comment is sent.
ROWS, MOST_READERS, SILENCE = 60, 100, 15.0


class TooManyReaders(Exception):
    """More pages follow than the server serves."""


@dataclass(eq=False)
class _Reader:
    """One open page: what it has not been sent yet."""

    wake: asyncio.Event = field(default_factory=asyncio.Event)
    stored: int = 0
    skipped: int = 0
    rows: list[dict[str, Any]] = field(default_factory=list)
    seq: int = -1
    committed_at: str = ""
    trouble: str | None = None

    def add(self, news: Arrivals) -> None:
        """Add what commits brought; the oldest rows give way."""
        rows = [*news.rows, *self.rows]
        self.skipped += max(0, len(rows) - ROWS) + max(0, news.stored - len(news.rows))
        self.rows = rows[:ROWS]
        self.stored += news.stored
        self.seq, self.committed_at = news.seq, news.committed_at
        self.wake.set()

    def take(self) -> dict[str, Any]:
        """Return what is to be sent, and forget it."""
        message = {
            "commit": self.seq,
            "committed_at": self.committed_at,
            "stored": self.stored,
            "skipped": self.skipped,
            "rows": self.rows,
        }
        self.stored, self.skipped, self.rows = 0, 0, []
        self.wake.clear()
        return message


class Follower:
    """Looks at the lake as long as the server runs, and tells its readers."""

    def __init__(self, lake: Lake, mask: Callable[[Any], Any] | None = None) -> None:
        self._lake = lake
        self._mask = mask
        self._readers: set[_Reader] = set()
        self._every = REMOTE if isinstance(lake.path, str) else LOCAL
        self._looked = 0.0
        self._looking = asyncio.Lock()
        self._stopped = asyncio.Event()
        #: Number and time of the newest commit; None until the lake could be opened.
        self.state: tuple[int, str] | None = None
        self.trouble: TrailsiftError | None = None
        self.skipped = 0

    @property
    def readers(self) -> int:
        """The number of pages that follow."""
        return len(self._readers)

    async def current(self) -> tuple[int, str] | None:
        """Return the newest commit, of which at most a moment has passed; None if the lake cannot be opened."""
        if time.monotonic() - self._looked > self._every:
            await self.look()
        return self.state

    async def look(self) -> None:
        """Look at the lake, unless somebody does."""
        if self._looking.locked():
            async with self._looking:
                return
        async with self._looking:
            after = None if self.state is None else self.state[0]
            limit = ROWS if self._readers else 0
            try:
                news = await asyncio.to_thread(self._lake.arrivals, after, limit=limit)
            except TrailsiftError as error:
                self.trouble = error
                for reader in self._readers:
                    reader.trouble = str(error)
                    reader.wake.set()
            else:
                self.trouble = None
                new = self.state is not None and news.seq != self.state[0]
                self.state = (news.seq, news.committed_at)
                for reader in self._readers if new else ():
                    reader.add(news)
            self._looked = time.monotonic()

    async def run(self) -> None:
        """Look again and again until stopped."""
        while not self._stopped.is_set():
            await self.look()
            wait = self._every if self._readers else max(self._every, IDLE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopped.wait(), wait)

    def stop(self) -> None:
        """End all streams, and the looking."""
        self._stopped.set()
        for reader in self._readers:
            reader.wake.set()

    async def stream(self, after: int | None) -> AsyncIterator[bytes]:
        """Yield server-sent events for one reader. ``after``: the last commit that it has seen."""
        if len(self._readers) >= MOST_READERS:
            raise TooManyReaders
        reader = _Reader()
        self._readers.add(reader)
        try:
            yield b"retry: 2000\n\n"
            first = await asyncio.to_thread(self._first, after)
            if first is not None:
                reader.add(first)
            while not self._stopped.is_set():
                try:
                    await asyncio.wait_for(reader.wake.wait(), SILENCE)
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if self._stopped.is_set():
                    break
                if reader.trouble is not None:
                    yield _event("trouble", {"message": reader.trouble}, None)
                    reader.trouble = None
                    reader.wake.clear()
                    continue
                self.skipped += reader.skipped
                message = reader.take()
                message = message if self._mask is None else self._mask(message)
                yield _event("commit", message, message["commit"])
        finally:
            self._readers.discard(reader)

    def _first(self, after: int | None) -> Arrivals | None:
        try:
            return self._lake.arrivals(after, limit=ROWS)
        except TrailsiftError:
            # The next look at the lake says so.
            return None


def _event(name: str, data: dict[str, Any], id_: int | None) -> bytes:
    # ASCII alone: what reads the stream may take U+2028 and the like for the end of a line.
    text = json.dumps(data, default=str)
    head = f"event: {name}\n" + ("" if id_ is None else f"id: {id_}\n")
    return f"{head}data: {text}\n\n".encode()
