"""The list of findings, one finding down to its events, and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.analysis.time_range import Period
from trailsift.detect.finding import Finding
from trailsift.detect.pipeline import FindingDetail
from trailsift.terminal.console import console, grid, plural, safe, short_resource, show, size

if TYPE_CHECKING:
    from trailsift.detect.experiment import ExperimentReport

_STYLES = {"high": "bold red", "medium": "yellow", "low": "dim"}


def show_findings(found: Sequence[Finding], period: Period) -> None:
    """Findings in rank order: severity, sentence, reasons in short, and how to look closer."""
    out = console()
    show(out, Text(f"{plural(len(found), 'finding')}, the strongest first", style="bold"))
    for one in found:
        head = Text(f"{one.severity:<6} ", style=_STYLES[one.severity])
        head.append(f"{one.score:.2f}  {one.id}  ", style="dim")
        head.append(one.title, style="")
        out.print(head)
        if one.techniques:
            out.print(Text(f"       MITRE ATT&CK {', '.join(one.techniques)}", style="dim"))
    out.print()
    out.print(Text(f"Closer: trailsift finding {found[0].id} --lake ...", style="dim"))


def show_finding(drilled: FindingDetail, period: Period) -> None:
    """One finding: sentence, reasons, summary lines, events, query."""
    out, one = console(), drilled.finding
    head = Text(f"{one.severity} ", style=_STYLES[one.severity])
    head.append(f"{one.score:.2f} {one.id}\n{one.title}", style="")
    show(out, head)
    show(out, Text("\n".join(f"- {reason}" for reason in one.reasons)))
    columns = [("hour", "text"), ("event", "text"), ("resource", "id"), ("error", "text"), ("events", "number")]
    columns += [("out", "number")]
    rows: list[Sequence[object]] = [
        (
            f"{hour.astimezone(period.zone):%Y-%m-%d %H:%M}",
            name,
            short_resource(resource),
            error,
            events,
            size(bytes_out),
        )
        for hour, _, name, resource, error, events, bytes_out in drilled.lines
    ]
    show(out, grid(out, f"Summary (hours in {period.zone.key})", columns, rows))
    columns = [("time", "text"), ("event", "text"), ("key", "prose"), ("source", "text"), ("error", "text")]
    rows = [
        (
            f"{e['event_time'].astimezone(period.zone):%m-%d %H:%M:%S}",
            e["event_name"],
            e["object_key"] or short_resource(e["resource_arn"]),
            e["source_ip"],
            e["error_code"],
        )
        for e in drilled.events
    ]
    show(out, grid(out, f"The first {plural(len(rows), 'event')}", columns, rows))
    out.print(Text(safe(f"All of them: {one.query}"), style="dim"), soft_wrap=True)
    out.print(Text(f"As CloudTrail wrote them: trailsift finding {one.id} --records --lake ...", style="dim"))


def show_evaluation(table: ExperimentReport) -> None:
    """The evaluation: for each strength by level left out, then by kind of incident."""
    out = console()
    given = table.as_dict()
    cast = f"{plural(table.seeds, 'seed')}: {table.config.events:,} events, {table.config.days:g} days, "
    cast += plural(table.config.roles, "role")
    for one in given["strengths"]:
        columns = [("levels", "text"), ("found", "text"), ("in the top 10 of its day", "text"), ("false a day", "text")]
        columns.append(("of 1,000 roles", "text"))
        rows: list[Sequence[object]] = [
            (
                f"without {line['without']}" if line["without"] else "all",
                f"{line['found']:.0%}",
                f"{line['in_top_10']:.0%}",
                f"{line['false_per_day']:.2f}",
                f"{line['false_per_day_and_1000_roles']:.1f}",
            )
            for line in one["levels"]
        ]
        show(out, grid(out, f"Incidents of strength {one['strength']}, {cast}", columns, rows))
        levels = list(one["kinds"][0]["found_without"]) if one["kinds"] else []
        columns = [("incident", "text"), ("planted", "number"), ("found", "text"), ("hours", "text")]
        columns += [(level, "text") for level in levels]
        rows = [
            [k["kind"], k["planted"], f"{k['found']:.0%}", f"{k['hours_to_detect']:.1f}"]
            + [f"{k['found_without'][level]:.0%}" for level in levels]
            for k in one["kinds"]
        ]
        note = "Hours: from the first event to the finding. On the right: found without that level."
        show(out, grid(out, f"By kind, strength {one['strength']}", columns, rows, note))
    out.print(f"A quiet period has {given['quiet_false_per_day']:.2f} findings a day.")
