"""Progress on standard error: a live line on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from trailsift.ingest import Progress

#: Seconds between two plain lines.
EVERY = 5.0


class IngestProgress:
    """Shows an ingest while it runs; ``update`` is what ``ingest(progress=...)`` calls."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._on_terminal = False
        self._live: Bar | None = None
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> Self:
        # The bar starts with the first numbers: its thread would keep an ingest from forking its workers.
        self._on_terminal = not self._quiet and sys.stderr.isatty()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, now: Progress) -> None:
        """Takes the newest numbers."""
        if self._quiet:
            return
        if self._on_terminal and self._live is None:
            self._live = _bar("log objects")
            self._live.start()
            self._task = self._live.add_task("", total=None, said="starting")
        if self._live is not None:
            by_bytes = now.bytes_total > 0
            total = now.bytes_total if by_bytes else now.objects_total
            done = now.bytes_done if by_bytes else now.objects_done
            read = now.objects_total and now.objects_done >= now.objects_total
            # All is read, but the last batch is not yet committed.
            after = ", storing" if read else ""
            self._live.update(
                self._task, total=total or None, completed=total if read else done, said=said(now) + after
            )
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            _tell(said(now))


class CountProgress:
    """Shows how much of a known number is done."""

    def __init__(self, what: str, total: int, quiet: bool = False) -> None:
        self._what, self._total, self._quiet = what, total, quiet
        self._live: Bar | None = None
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._live = _bar(self._what)
            self._live.start()
            self._task = self._live.add_task("", total=self._total, said="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int) -> None:
        """Takes the number that is done."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(self._task, completed=done, said=f"{done:,} of {self._total:,} {self._what}")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            _tell(f"{done:,} of {self._total:,} {self._what}")


def _tell(line: str) -> None:
    # Nobody reads it any more: no reason to stop the work.
    with suppress(OSError):
        print(f"trailsift: {line}", file=sys.stderr, flush=True)


def said(now: Progress) -> str:
    """One line of an ingest's numbers, the rate last; what is 0 is left out, except what matters."""
    objects = f"{now.objects_done:,}" + (f" of {now.objects_total:,}" if now.objects_total else "")
    parts = [f"{objects} log objects", f"{now.records:,} records", f"{now.stored:,} stored"]
    if now.duplicates:
        parts.append(f"{now.duplicates:,} duplicates")
    if now.dropped:
        parts.append(f"{now.dropped:,} dropped")
    if now.malformed:
        parts.append(f"{now.malformed:,} malformed")
    if now.seconds > 0:
        parts.append(f"{now.records / now.seconds:,.0f}/s")
    return ", ".join(parts)


def _bar(what: str) -> Bar:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    return Progress(
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[said]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=Console(file=sys.stderr),
        transient=True,
        refresh_per_second=5,
    )
