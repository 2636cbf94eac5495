"""The cost of what fills the log."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.text import Text

from trailsift.analysis.caller_names import told_apart
from trailsift.analysis.cost import CHARGED, CostGroup, CostReport
from trailsift.analysis.shell import program, quoted
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, plural, short_resource, show
from trailsift.terminal.resource import days_text
from trailsift.terminal.rules import dollars

_TITLES = {
    "caller": "By caller",
    "resource": "By resource",
    "event": "By action",
    "pattern": "By key pattern",
}


def show_cost(report: CostReport, lake: object) -> None:
    """Show what a trail charges, by group; what is paid twice; what could be left out."""
    out = console()
    line = Text(f"${dollars(report.usd)} a month", style="bold")
    line.append(f" for {plural(report.events, 'data and network-activity event')} in {plural(report.days, 'day')}")
    out.print(line)
    for note in cost_notes(report):
        out.print(Text(safe(note), style="dim"))
    out.print()
    for group in report.groups:
        if group.lines:
            show(out, _table(out, group))
    _twice(out, report)
    if report.avoidable.lines:
        left = report.avoidable
        out.print(
            f"The whole lake has {plural(left.lines, 'line')} of steady volume, ${dollars(left.usd)} a month. Event "
            f"selectors without them save that, and lose who touched which of {plural(left.keys, 'object key')}:"
        )
        out.print(Text(safe(f"{program()} suggest --lake {quoted(lake)}"), style="cyan"), soft_wrap=True)


def _table(out: Console, group: CostGroup) -> Group:
    columns = {
        "caller": [("caller", "id")],
        "resource": [("resource", "id")],
        "event": [("service", "text"), ("event", "text")],
        "pattern": [("resource", "id"), ("key pattern", "prose")],
    }[group.by]
    callers = told_apart(line.names[0] for line in group.lines) if group.by == "caller" else {}
    rows: list[Sequence[object]] = []
    for line in group.lines:
        names: list[object] = list(line.names)
        if group.by == "caller":
            names = [callers[line.names[0]]]
        elif group.by != "event":
            names[0] = short_resource(line.names[0]) or "(none)"
        usd = "not known" if line.usd is None else dollars(line.usd)
        rows.append((*names, line.events, f"{line.share:.1%}", usd))
    columns += [("events", "number"), ("share", "?number"), ("$ a month", "number")]
    left = group.groups - len(group.lines)
    return grid(out, _TITLES[group.by], columns, rows, f"{left:,} more: --limit 0 shows all" if left else "")


def cost_notes(report: CostReport) -> list[str]:
    """Return what the dollars stand for, and which are not known."""
    price = report.price
    looked_up = ", ".join(part for part in (price.date, price.source) if part)
    notes = [
        f"At the rate of the {days_text(report.period)}, per month of 30 days, for one trail: ${dollars(price.usd)} per "
        f"{price.per:,.0f} events ({looked_up})."
    ]
    unknown = [line for line in report.regions if line.usd is None]
    if unknown:
        events = sum(line.events for line in unknown)
        regions = ", ".join(str(line.aws_region) for line in unknown)
        notes.append(f"Not priced: {plural(events, 'event')} of {regions}, whose price is not known here (--prices).")
    others = [line.aws_region or "no region" for line in report.regions if line.usd is not None]
    elsewhere = [region for region in others if not region.startswith("us-east-")]
    if elsewhere:
        notes.append(f"The list price is that of us-east; it is also taken for {', '.join(elsewhere[:6])}.")
    free = [f"{line.events:,} {line.category}" for line in report.categories if line.category not in CHARGED]
    if free:
        notes.append(
            f"Beside them: {', '.join(free)} events. The first trail's copy of management events is free; the prices "
            "of further copies and of Insights are not known here."
        )
    return notes


def _twice(out: Console, report: CostReport) -> None:
    twice = report.twice
    lines = []
    if twice.duplicates:
        lines.append(
            f"{plural(twice.duplicates, 'record')} came a second time, of all time: ${dollars(twice.usd_duplicates)} "
            "if another trail delivered them; nothing if the same logs were ingested again."
        )
    if twice.network_activity:
        usd = "not known" if twice.usd_network_activity is None else f"${dollars(twice.usd_network_activity)} a month"
        lines.append(f"Logged as NetworkActivity, too: {plural(twice.network_activity, 'call')}, {usd}.")
    texts = [Text("Paid twice", style="bold"), *map(Text, lines or ["Nothing that the lake can tell."])]
    show(out, Group(*texts))
