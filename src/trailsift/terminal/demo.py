"""The report of `trailsift demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trailsift.analysis.shell import quoted
from trailsift.demo import Demo
from trailsift.terminal import summary
from trailsift.terminal.console import console, duration, grid, plural, short_role, show, size


def show_demo(demo: Demo) -> None:
    """Steps, the overview, what was planted, how long answers took, and what to try next."""
    out = console()
    _steps(out, demo)
    show(out, summary.headline(demo.seen), *summary.parts(out, demo.seen))
    _planted(out, demo)
    _speed(out, demo)
    _next(out, demo)


def _steps(out: Console, demo: Demo) -> None:
    made, counts = demo.generated, demo.counts
    lines = [
        (
            "generated",
            made.events,
            size(made.bytes),
            demo.generate_seconds,
            f"{plural(made.log_objects, 'log object')}",
        ),
        ("ingested", counts.stored, size(demo.lake_bytes), counts.seconds, "an Iceberg lake, sorted and summarized"),
    ]
    rows = (
        (name, events, held, duration(seconds), f"{events / seconds:,.0f}/s" if seconds else "-", what)
        for name, events, held, seconds, what in lines
    )
    columns = [("step", "text"), ("events", "number"), ("size", "number"), ("took", "number"), ("rate", "number")]
    show(out, Text(""), grid(out, "Made-up logs, a real lake", [*columns, ("as", "?faint")], rows))


def _planted(out: Console, demo: Demo) -> None:
    if not demo.planted:
        return
    columns = [
        ("incident", "prose"),
        ("role", "id"),
        ("from (UTC)", "text"),
        ("events", "number"),
        ("shows in", "?prose"),
    ]
    rows = (
        (one.title, short_role(one.role_arn), one.first_time[5:16].replace("T", " "), one.events, one.shows)
        for one in demo.planted
    )
    show(out, grid(out, "What was planted (truth.json has the whole story)", columns, rows))


def _speed(out: Console, demo: Demo) -> None:
    rows: list[tuple[str, str]] = [("(opening the lake, once)", duration(demo.open_seconds))]
    rows += [(one.question, duration(one.seconds)) for one in demo.asked]
    first = demo.asked[0]
    agreed = "same answer" if demo.same else "ANOTHER ANSWER: please report this as a defect"
    rows.append(("The first question, by DuckDB on the raw logs", duration(demo.raw.seconds)))
    times = demo.raw.seconds / first.seconds if first.seconds else 0
    note = f"{times:,.0f} times as long, {agreed}; and the raw logs are read again for every question"
    show(out, grid(out, "How long answers took", [("question", "prose"), ("took", "number")], rows, note))


def _next(out: Console, demo: Demo) -> None:
    out.print(Text("Try next", style="bold"))
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("trailsift") is None and activate.exists():
        # `make demo` runs in an environment that the reader's shell knows nothing of.
        here = activate.relative_to(Path.cwd()) if activate.is_relative_to(Path.cwd()) else activate
        out.print(Text("# Once, so that this shell finds trailsift", style="dim"))
        out.print(Text(f". {quoted(here)}", style="cyan"), soft_wrap=True)
    for one in demo.next:
        out.print(Text(f"# {one.says}", style="dim"))
        # Never folded: a command has to survive being copied.
        out.print(Text(one.command, style="cyan"), soft_wrap=True)
    out.print(Text(f"# Done? rm -r {quoted(demo.folder)}", style="dim"), soft_wrap=True)
