"""What a watch shows: a live screen on a terminal, plain lines elsewhere, or a line of JSON per commit."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trailsift.analysis.shell import quoted
from trailsift.terminal.output import is_terminal, print_json_line, print_line, say, say_progress

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from trailsift.ingest.watch import Committed, WatchStatus

#: Seconds between two plain lines, and the same while nothing arrives.
EVERY, IDLE_EVERY = 10.0, 300.0
#: Log objects that are named of those of one commit that could not be fetched.
_NAMED = 3


class WatchScreen:
    """Shows a watch; its methods are what `Lake.watch` calls. Safe to use from several threads."""

    def __init__(self, lake: str, *, quiet: bool = False, as_json: bool = False) -> None:
        self.as_json = as_json
        self._lake = lake
        self._quiet = quiet
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._said_at = time.monotonic()
        self._said = (0, 0)
        self._place = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def started(self, text: str) -> None:
        """Say what is watched, and open the screen."""
        self._place = text
        if self._quiet:
            return
        say(text)
        if not self.as_json and is_terminal(sys.stderr):
            from rich.live import Live

            from trailsift.terminal.console import error_console

            self._live = Live(
                console=error_console(), refresh_per_second=4, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()

    def committed(self, done: Committed) -> None:
        """Show one commit."""
        if self.as_json:
            with self._lock:
                print_json_line(done.as_dict())
        for name, reason in done.set_aside.items():
            self.trouble(f"{name} {reason}")
        for name, reason in list((done.log_objects_gone | done.log_objects_again).items())[:_NAMED]:
            self.trouble(f"{name}: {reason}")

    def status(self, now: WatchStatus) -> None:
        """Show the totals."""
        if self._quiet:
            return
        if self._live is not None:
            self._live.update(screen(now, self._lake))
            return
        moment = time.monotonic()
        news = (now.commits, now.errors)
        if not self.as_json and moment - self._said_at >= (EVERY if news != self._said else IDLE_EVERY):
            self._said_at, self._said = moment, news
            say_progress(status_line(now))

    def trouble(self, text: str) -> None:
        """Say what went wrong."""
        with self._lock:
            if self._live is None:
                say(text)
            else:
                self._live.console.print(f"trailsift: {text}", soft_wrap=True)

    def finding(self, text: str) -> None:
        """Show a line about findings: with JSON, the finding as a document of its own."""
        with self._lock:
            if self.as_json:
                print_json_line({"finding": json.loads(text)})
            elif self._live is not None:
                self._live.console.print(text, soft_wrap=True)
            else:
                print_line(text)
                sys.stdout.flush()


def status_line(now: WatchStatus) -> str:
    """Return the totals in one line; zeros are left out, except what matters."""
    parts = [f"{now.received:,} received = {now.stored:,} stored + {now.duplicates:,} duplicates"]
    parts[0] += f" + {sum(now.dropped.values()):,} dropped + {now.malformed:,} malformed"
    parts.append(f"{now.commits:,} commits")
    if now.last_commit is not None:
        parts.append(f"the last at {now.last_commit:%H:%M:%S} UTC, {now.lag:.1f} s behind delivery")
    if now.waiting:
        parts.append(f"{now.waiting:,} waiting")
    if now.log_objects_gone:
        parts.append(f"{now.log_objects_gone:,} log objects were gone")
    if now.set_aside:
        parts.append(f"{now.set_aside:,} set aside")
    if now.errors:
        parts.append(f"{now.errors:,} errors")
    return ", ".join(parts)


def screen(now: WatchStatus, lake: str) -> Table:
    """Return the live screen."""
    from rich.table import Table
    from rich.text import Text

    from trailsift.safe_text import safe
    from trailsift.terminal.console import duration

    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    rows = [
        ("log objects", f"{now.log_objects:,}"),
        ("received", f"{now.received:,}"),
        ("  stored", f"{now.stored:,}"),
        ("  duplicates", f"{now.duplicates:,}"),
        ("  dropped", f"{sum(now.dropped.values()):,}"),
        ("  malformed", f"{now.malformed:,}"),
        ("waiting", f"{now.waiting:,}"),
        ("commits", f"{now.commits:,}"),
        ("last commit", "-" if now.last_commit is None else f"{now.last_commit:%Y-%m-%d %H:%M:%S} UTC"),
        ("behind delivery", "-" if now.last_commit is None else duration(now.lag)),
        ("running for", duration(now.seconds)),
        ("errors", f"{now.errors:,}"),
    ]
    for name, value in rows:
        table.add_row(Text(name), Text(value, style="red" if name == "errors" and now.errors else ""))
    if now.last_error:
        table.add_row(Text("last error"), Text(safe(now.last_error)[:200], style="red"))
    table.title = Text(safe(f"into {lake}; Ctrl-C stops"), style="bold")
    return table


def show_watched(status: WatchStatus, lake: Path | str, as_json: bool) -> None:
    """Show the totals at the end."""
    if as_json:
        print_json_line({"totals": status.as_dict()})
        return
    say(status_line(status))
    if status.malformed or status.set_aside:
        say(f"what could not be stored: `trailsift rejects --lake {quoted(lake)}`")
