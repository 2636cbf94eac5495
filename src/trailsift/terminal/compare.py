"""Two periods side by side, a line per difference."""

from __future__ import annotations

from rich.text import Text

from trailsift.analysis.caller_names import short_caller
from trailsift.analysis.compare import Change, Comparison
from trailsift.analysis.shell import program, quoted
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, plural, short_resource, show, size
from trailsift.terminal.resource import days_text
from trailsift.times import DAY, moment


def show_comparison(comparison: Comparison, lake: object) -> None:
    """Show what is new, gone, more and less, those that matter most first."""
    out = console()
    out.print(Text(f"{days_text(comparison.period)} against {days_text(comparison.other)}", style="bold"))
    counts = ", ".join(f"{number:,} {kind}" for kind, number in comparison.total.items() if number)
    out.print(
        f"{plural(comparison.events, 'event')} in {plural(comparison.days, 'day')}, "
        f"{comparison.other_events:,} in {plural(comparison.other_days, 'day')} before; "
        f"{counts or 'no differences that matter'}"
    )
    notes = ["Whole UTC days are compared, by events per day. Dropped and sampled events are counted."]
    for period, days in ((comparison.period, comparison.days), (comparison.other, comparison.other_days)):
        whole = ((period.until or 0) - (period.since or 0)) // DAY
        if days < whole:
            notes.append(f"Of the {days_text(period)}, the lake reaches over {plural(days, 'day')}: they are the rate.")
    if not comparison.other_events:
        notes.append("The lake has no events of the days that are compared with: everything is new.")
    if not comparison.events:
        notes.append("The lake has no events of the days that are compared: everything is gone.")
    for note in notes:
        out.print(Text(note, style="dim"))
    out.print()
    if not comparison.changes:
        return
    columns = [("change", "text"), ("what", "prose"), ("before/day", "number"), ("now/day", "number")]
    columns += [("denied", "bad"), ("out", "?number")]
    rows = (
        (
            change.kind,
            what(change),
            _rate(change.before, comparison.other_days),
            _rate(change.now, comparison.days),
            change.denied_now,
            size(change.bytes_out_now),
        )
        for change in comparison.changes
    )
    left = sum(comparison.total.values()) - len(comparison.changes)
    note = "denied, out: in the days that are compared." + (f" {left:,} more: --limit 0 shows all" if left else "")
    show(out, grid(out, "What changed, the most important first", columns, rows, note))
    command = _next(comparison)
    if command:
        out.print(Text(safe(f"{program()} {command} --lake {quoted(lake)}"), style="cyan"), soft_wrap=True)


def what(change: Change) -> str:
    """Return what changed, in a few words."""
    first = change.names[0]
    last = change.names[-1] or "-"
    known = " (seen earlier)" if change.seen_before else ""
    if change.dimension == "caller":
        return f"caller {short_caller(first)}{known}"
    if change.dimension == "resource":
        return f"resource {short_resource(first)}{known}"
    if change.dimension == "pattern":
        return f"keys {last} in {short_resource(first) or '(none)'}{known}"
    if change.dimension == "network":
        return f"{short_caller(first)} from {last}{known}"
    return f"{short_caller(first)} calls {last}{known}"


def _rate(events: int, days: int) -> str:
    rate = events / days
    return "0" if not rate else f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"


def _next(comparison: Comparison) -> str:
    first = comparison.changes[0]
    name = first.names[0]
    if not name:
        return ""
    period = comparison.other if first.kind == "gone" else comparison.period
    command = "resource" if first.dimension in ("resource", "pattern") else "role"
    times = f"--since {moment(period.since or 0):%Y-%m-%d} --until {moment(period.until or DAY):%Y-%m-%d}"
    return f"{command} {quoted(name)} {times}"
