"""The report of `trailsift demo`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from trailsift.analysis.caller_names import short_caller
from trailsift.analysis.shell import quoted
from trailsift.demo import Demo
from trailsift.terminal import summary
from trailsift.terminal.console import console, duration, grid, plural, show, size


def show_demo(demo: Demo) -> None:
    """Show the steps, the overview, the planted incidents, query times, and what to try next."""
    out = console()
    _steps(out, demo)
    show(out, summary.headline(demo.overview), *summary.parts(out, demo.overview))
    _planted(out, demo)
    _speed(out, demo)
    _next(out, demo)


def _steps(out: Console, demo: Demo) -> None:
    generated, counts = demo.generated, demo.counts
    lines = [
        (
            "generated",
            generated.events,
            size(generated.bytes),
            demo.generate_seconds,
            f"{plural(generated.log_objects, 'log object')}",
        ),
        ("ingested", counts.stored, size(demo.lake_bytes), counts.seconds, "Iceberg lake with summaries"),
    ]
    rows = (
        (name, events, stored, duration(seconds), f"{events / seconds:,.0f}/s" if seconds else "-", form)
        for name, events, stored, seconds, form in lines
    )
    columns = [("step", "text"), ("events", "number"), ("size", "number"), ("took", "number"), ("rate", "number")]
    show(out, Text(""), grid(out, "Synthetic logs, real lake", [*columns, ("result", "?faint")], rows))


def _planted(out: Console, demo: Demo) -> None:
    if not demo.planted:
        return
    columns = [
        ("incident", "prose"),
        ("role", "id"),
        ("from (UTC)", "text"),
        ("events", "number"),
        ("visible as", "?prose"),
    ]
    rows = (
        (
            incident.title,
            short_caller(incident.role_arn),
            incident.first_time[5:16].replace("T", " "),
            incident.events,
            incident.shows,
        )
        for incident in demo.planted
    )
    show(out, grid(out, "Planted incidents (details in truth.json)", columns, rows))


def _speed(out: Console, demo: Demo) -> None:
    rows: list[tuple[str, str]] = [("Open the lake, once", duration(demo.open_seconds))]
    rows += [(timed.question, duration(timed.seconds)) for timed in demo.asked]
    first = demo.asked[0]
    agreed = "same answer" if demo.same else "DIFFERENT ANSWER: please report this as a bug"
    rows.append(("The first query, by DuckDB on the raw logs", duration(demo.raw.seconds)))
    times = demo.raw.seconds / first.seconds if first.seconds else 0
    note = f"{times:,.0f}x slower, {agreed}; every query reads all raw logs again."
    show(out, grid(out, "Query times", [("query", "prose"), ("took", "number")], rows, note))


def _next(out: Console, demo: Demo) -> None:
    out.print(Text("Try next", style="bold"))
    activate = Path(sys.prefix, "bin", "activate")
    if shutil.which("trailsift") is None and activate.exists():
        # `make demo` runs in an environment that the reader's shell has not activated.
        here = activate.relative_to(Path.cwd()) if activate.is_relative_to(Path.cwd()) else activate
        out.print(Text("# First, once: let this shell find trailsift", style="dim"))
        out.print(Text(f". {quoted(here)}", style="cyan"), soft_wrap=True)
    for suggestion in demo.next:
        out.print(Text(f"# {suggestion.says}", style="dim"))
        # Never folded: a command must survive copying.
        out.print(Text(suggestion.command, style="cyan"), soft_wrap=True)
    out.print(Text(f"# Done? rm -r {quoted(demo.folder)}", style="dim"), soft_wrap=True)
