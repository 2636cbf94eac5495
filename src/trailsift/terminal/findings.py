"""The list of findings, one finding down to its events, and the evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.text import Text

from trailsift.analysis.shell import double_quoted, quoted
from trailsift.analysis.time_range import Period
from trailsift.detect.finding import Finding
from trailsift.detect.pipeline import FindingDetail
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, hanging, plural, short_resource, show, size

if TYPE_CHECKING:
    from trailsift.detect.experiment import ExperimentReport

_STYLES = {"high": "bold red", "medium": "yellow", "low": "dim"}


def show_findings(findings: Sequence[Finding], period: Period, lake: Path | str) -> None:
    """Show findings in rank order: severity, title and techniques, and the command that shows details."""
    out = console()
    show(out, Text(f"{plural(len(findings), 'finding')}, strongest first", style="bold"))
    for finding in findings:
        head = Text(f"{finding.severity:<6} ", style=_STYLES[finding.severity])
        head.append(f"{finding.score:.2f}  {finding.id}  ", style="dim")
        head.append(finding.title, style="")
        out.print(hanging(out, head, 7))
        if finding.techniques:
            out.print(Text(f"       MITRE ATT&CK {', '.join(finding.techniques)}", style="dim"))
    out.print()
    out.print(Text(f"Details: trailsift finding {findings[0].id} --lake {quoted(lake)}", style="dim"), soft_wrap=True)


def show_finding(detail: FindingDetail, period: Period, lake: Path | str) -> None:
    """Show one finding: title, reasons, summary rows, events, and the query for all of them."""
    out, finding = console(), detail.finding
    head = Text(f"{finding.severity} ", style=_STYLES[finding.severity])
    head.append(f"{finding.score:.2f} {finding.id}", style="")
    out.print(head)
    show(out, hanging(out, Text(finding.title), 2))
    show(out, Text("\n").join(hanging(out, Text(f"- {reason}"), 2) for reason in finding.reasons))
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
        for hour, _, name, resource, error, events, bytes_out in detail.lines
    ]
    show(out, grid(out, f"Summary (hours in {period.zone.key})", columns, rows))
    columns = [("time", "text"), ("event", "text"), ("key", "prose"), ("source", "text"), ("error", "text")]
    rows = [
        (
            f"{event['event_time'].astimezone(period.zone):%m-%d %H:%M:%S}",
            event["event_name"],
            event["object_key"] or short_resource(event["resource_arn"]),
            event["source_ip"],
            event["error_code"],
        )
        for event in detail.events
    ]
    gone = detail.removed_before
    note = f"Events before {gone} were removed by retention: of that time only summaries are left." if gone else ""
    title = f"First {plural(len(rows), 'event')}" if len(rows) != 1 else "First event"
    show(out, grid(out, title, columns, rows, note))
    command = f"trailsift query {double_quoted(finding.query)} --lake {quoted(lake)}"
    out.print(Text(safe(f"All events: {command}"), style="dim"), soft_wrap=True)
    command = f"trailsift finding {finding.id} --records --lake {quoted(lake)}"
    out.print(Text(f"Original records: {command}", style="dim"), soft_wrap=True)


def show_evaluation(table: ExperimentReport) -> None:
    """Show the evaluation: by strength and level left out, then by kind of incident."""
    out = console()
    report = table.as_dict()
    setup = f"{plural(report['seeds'], 'seed')}: {report['events']:,} events, {report['days']:g} days, "
    setup += plural(report["roles"], "role")
    for strength in report["strengths"]:
        columns = [("levels", "text"), ("found", "text"), ("in the day's top 10", "text"), ("false per day", "text")]
        columns.append(("per 1,000 roles", "text"))
        rows: list[Sequence[object]] = [
            (
                f"without {level['without']}" if level["without"] else "all",
                f"{level['found']:.0%}",
                f"{level['in_top_10']:.0%}",
                f"{level['false_per_day']:.2f}",
                f"{level['false_per_day_and_1000_roles']:.1f}",
            )
            for level in strength["levels"]
        ]
        show(out, grid(out, f"Incidents of strength {strength['strength']}, {setup}", columns, rows))
        kinds = strength["kinds"]
        levels = list(kinds[0]["found_without"]) if kinds else []
        columns = [("incident", "text"), ("planted", "number"), ("found", "text"), ("hours", "text")]
        columns += [(level, "text") for level in levels]
        rows = [
            [kind["kind"], kind["planted"], f"{kind['found']:.0%}", f"{kind['hours_to_detect']:.1f}"]
            + [f"{kind['found_without'][level]:.0%}" for level in levels]
            for kind in kinds
        ]
        note = "hours: from the first event to the finding. Columns on the right: found without that level."
        show(out, grid(out, f"By kind, strength {strength['strength']}", columns, rows, note))
    out.print(f"Without incidents: {report['quiet_false_per_day']:.2f} findings per day.")
