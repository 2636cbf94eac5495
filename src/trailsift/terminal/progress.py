"""Progress on standard error: a live line on a terminal, else a plain line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trailsift.terminal.output import is_terminal, say_progress

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from trailsift.ingest import Progress
    from trailsift.ingest.survey import Survey

#: Seconds between two plain lines, and without news after which a line says that it still goes on.
EVERY = 5.0
_SILENCE = 20.0


class IngestProgress:
    """Show an ingest while it runs; pass ``update`` as ``ingest(progress=...)``."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._on_terminal = False
        self._live: Bar | None = None
        self._next = time.monotonic() + EVERY
        self._last: Progress | None = None
        self._told = time.monotonic()
        self._ended = threading.Event()

    def __enter__(self) -> Self:
        # The bar starts with the first numbers: its thread would keep an ingest from forking its workers.
        self._on_terminal = not self._quiet and is_terminal(sys.stderr)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._live is not None:
            self._live.stop()

    def announce(self, survey: Survey) -> None:
        """Say what was found in S3, before it is read."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if survey.remote and survey.log_objects and not self._quiet:
            from trailsift.terminal.ingest import survey_line

            say_progress(survey_line(survey))

    def update(self, now: Progress) -> None:
        """Show the newest numbers."""
        if self._quiet:
            return
        if now.remote and self._last is None:
            # S3 may be slow to answer. Its workers are not forked, so that a thread does no harm.
            threading.Thread(target=self._watch, daemon=True).start()
        self._last, self._told = now, time.monotonic()
        self._show(now, "")

    def _watch(self) -> None:
        """Show that the work goes on when there is no news."""
        while not self._ended.wait(_SILENCE / 4):
            silence = time.monotonic() - self._told
            if silence >= _SILENCE and self._last is not None:
                self._show(self._last, f", no answer for {silence:.0f} s")

    def _show(self, now: Progress, note: str) -> None:
        if self._on_terminal and self._live is None:
            self._live = _bar("log objects")
            self._live.start()
            self._task = self._live.add_task("", total=None, text="starting")
        if self._live is not None:
            by_bytes = now.bytes_total > 0
            total = now.bytes_total if by_bytes else now.objects_total
            done = now.bytes_done if by_bytes else now.objects_done
            read = now.objects_total and now.objects_done >= now.objects_total
            # Everything is read, but the last batch is not yet committed.
            after = note or (", storing" if read else "")
            self._live.update(
                self._task, total=total or None, completed=total if read else done, text=progress_line(now) + after
            )
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            say_progress(progress_line(now) + (note or _left(now)))


class CountProgress:
    """Show how much of a known total is done."""

    def __init__(self, what: str, total: int, quiet: bool = False) -> None:
        self._what, self._total, self._quiet = what, total, quiet
        self._live: Bar | None = None
        self._next = time.monotonic() + EVERY

    def __enter__(self) -> Self:
        if not self._quiet and is_terminal(sys.stderr):
            self._live = _bar(self._what)
            self._live.start()
            self._task = self._live.add_task("", total=self._total, text="")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, done: int) -> None:
        """Show the number that is done."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(self._task, completed=done, text=f"{done:,} of {self._total:,} {self._what}")
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + EVERY
            say_progress(f"{done:,} of {self._total:,} {self._what}")


def progress_line(now: Progress) -> str:
    """Return one line of an ingest's numbers, the rate last; zeros are left out, except what matters."""
    if now.remote and not now.objects_total:
        folders = f" in {now.folders:,} folder{'' if now.folders == 1 else 's'}"
        return f"listing S3: {now.listed:,} log object{'' if now.listed == 1 else 's'}{folders}"
    of_total = f" of {now.objects_total:,}" if now.objects_total else ""
    plural = "" if (now.objects_total or now.objects_done) == 1 else "s"
    parts = [f"{now.objects_done:,}{of_total} log object{plural}"]
    parts += [f"{now.records:,} record{'' if now.records == 1 else 's'}", f"{now.stored:,} stored"]
    if now.duplicates:
        parts.append(f"{now.duplicates:,} duplicate{'' if now.duplicates == 1 else 's'}")
    if now.dropped:
        parts.append(f"{now.dropped:,} dropped")
    if now.malformed:
        parts.append(f"{now.malformed:,} malformed")
    if now.seconds > 0:
        parts.append(f"{now.records / now.seconds:,.0f}/s")
    return ", ".join(parts)


def _left(now: Progress) -> str:
    """Return how much of a remote source is left, and for how long at this rate."""
    left = now.objects_total - now.objects_done
    fetched = now.objects_done - now.known
    if not now.remote or left <= 0 or fetched <= 0 or now.seconds <= 0:
        return ""
    rate = fetched / now.seconds
    seconds = left / rate
    eta = (
        f"{seconds:.0f} s"
        if seconds < 100
        else f"{seconds / 60:.0f} min"
        if seconds < 6000
        else f"{seconds / 3600:.1f} h"
    )
    return f", {left:,} left at {rate:,.0f} objects/s: {eta}"


def _bar(what: str) -> Bar:
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from trailsift.terminal.console import error_console

    return Progress(
        BarColumn(bar_width=16),
        TaskProgressColumn(),
        TextColumn("{task.fields[text]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=error_console(),
        transient=True,
        # Their texts would be taken apart for styles and links; `Messages` escapes them.
        redirect_stdout=False,
        redirect_stderr=False,
        refresh_per_second=5,
    )
