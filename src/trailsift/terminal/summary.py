"""The overview and the summary tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from trailsift.analysis.caller_names import short_caller, told_apart
from trailsift.analysis.summary import GROUPS, Measures, Overview, RecordsPerCall, Refusal, Summary
from trailsift.analysis.time_range import Period
from trailsift.terminal import heatmap
from trailsift.terminal.console import console, grid, plural, short_resource, show, size

_HEADINGS = {
    "service": "service",
    "event_name": "event",
    "caller": "caller",
    "resource_arn": "resource",
    "hour": "hour",
    "account_id": "account",
    "aws_region": "region",
    "error_code": "error",
}
#: (heading, kind, value) of a row's numbers; ``?`` marks what a narrow terminal can do without.
_NUMBERS: tuple[tuple[str, str, Callable[[Measures, Measures | None], Any]], ...] = (
    ("events", "number", lambda m, total: m.events),
    ("share", "number", lambda m, total: share(m.events, total)),
    ("denied", "bad", lambda m, total: m.denied),
    ("in", "??number", lambda m, total: size(m.bytes_in)),
    ("out", "number", lambda m, total: size(m.bytes_out)),
    ("keys", "?number", lambda m, total: m.object_keys),
    ("addresses", "??number", lambda m, total: m.source_ips),
)


def names_shown(column: str, value: Any, period: Period) -> str:
    """Return a value that rows are grouped by, as it is shown."""
    if column == "caller":
        return short_caller(value)
    if value is None:
        return {"resource_arn": "(none)", "error_code": "(no error)"}.get(column, "-")
    if column == "hour":
        return period.show(value)[:16]
    return short_resource(value) or "-" if column == "resource_arn" else str(value)


def show_overview(overview: Overview) -> None:
    """Show totals, events by hour, the largest groups, and denied calls."""
    out = console()
    show(out, headline(overview), *parts(out, overview))


def headline(overview: Overview) -> Text:
    """Return one paragraph of totals."""
    period, total = overview.period, overview.total or Measures(0, 0, 0, 0, 0, 0, 0, 0, 0)
    line = Text()
    line.append(plural(total.events, "event"), style="bold")
    line.append(
        f" from {period.show(total.first_time)} to {period.show(total.last_time)} ({period.zone.key}): "
        f"{plural(overview.roles.groups, 'caller')}, {plural(overview.resources.groups, 'resource')}, "
        f"{plural(total.source_ips or 0, 'source address', 'source addresses')}, "
        f"{plural(total.object_keys or 0, 'object key')}; "
    )
    line.append(f"{total.denied:,} denied", style="red" if total.denied else "")
    line.append(f"; {size(total.bytes_in)} in, {size(total.bytes_out)} out")
    return line


def parts(out: Console, overview: Overview) -> list[Group]:
    """Return what follows the headline."""
    shown = [
        Group(Text("Events by hour", style="bold"), *heatmap.strip(out, overview.hours, overview.period)),
        table(out, overview.roles, "Busiest callers"),
        table(out, overview.resources, "Most used resources"),
        table(out, overview.events, "Most frequent calls"),
    ]
    if overview.refusals:
        shown.append(refusal_table(out, overview.refusals))
    remarks = per_call(overview.per_call, overview.period)
    if remarks:
        shown.append(Group(Text(remarks, style="dim")))
    return shown


def per_call(counts: RecordsPerCall, period: Period) -> str:
    """Return which of the counted events are not a call of their own; empty if each is one."""
    lines = [several(counts.owner_side, counts.network_activity, period)]
    if counts.batch_deletes:
        lines.append(
            f"{_of_events(counts.batch_deletes)} DeleteObjects: since June 2025 S3 also logs a DeleteObject event "
            "for each object of a call."
        )
    if counts.insights:
        lines.append(f"{_of_events(counts.insights)} of category Insight: CloudTrail derived what nobody called.")
    return "\n".join(filter(None, lines))


def several(owner_side: int, network_activity: int, period: Period) -> str:
    """Return which of a caller's events can be second records of a call; empty if there are none."""
    lines = []
    if owner_side:
        days = "" if period.on_days else " (whole UTC days)"
        lines.append(
            f"{_of_events(owner_side)} what the resource owner logged of calls from another account{days}: 2 records "
            "of 1 call if the caller's account logs here too."
        )
    if network_activity:
        lines.append(
            f"{_of_events(network_activity)} NetworkActivity: 2 records of 1 call if its Data or Management event is "
            "logged too."
        )
    return "\n".join(lines)


def _of_events(count: int) -> str:
    return f"{count:,} of the events {'is' if count == 1 else 'are'}"


def show_summary(summary: Summary) -> None:
    """Show one table, and how many rows are not shown."""
    out = console()
    hidden = summary.groups - len(summary.lines)
    zone = f" ({summary.period.zone.key})" if summary.by == "hour" else ""
    notes = [f"{hidden:,} more: --limit 0 shows all" if hidden else "", per_call(summary.per_call, summary.period)]
    show(out, table(out, summary, f"By {summary.by}{zone}", "\n".join(filter(None, notes))))


def table(out: Console, summary: Summary, title: str, note: str = "") -> Group:
    """Return the rows of a summary as a table."""
    columns = GROUPS[summary.by]
    numbers = [
        number
        for number in _NUMBERS
        if any(number[2](line.measures, summary.total) is not None for line in summary.lines)
    ]
    heads = [(_HEADINGS[column], "id" if column in ("caller", "resource_arn") else "text") for column in columns]
    callers: dict[Any, str] = {}
    if "caller" in columns:
        callers = told_apart(line.names[columns.index("caller")] for line in summary.lines)
    rows = [
        (
            *(
                callers[value] if column == "caller" else names_shown(column, value, summary.period)
                for column, value in zip(columns, line.names, strict=True)
            ),
            *(value(line.measures, summary.total) for _, _, value in numbers),
        )
        for line in summary.lines
    ]
    return grid(out, title, [*heads, *((head, kind) for head, kind, _ in numbers)], rows, note)


def refusal_table(out: Console, refusals: Sequence[Refusal]) -> Group:
    """Return the denied calls as a table."""
    rows = (
        (r.events, short_caller(r.caller), r.event_name, short_resource(r.resource_arn), r.error_code) for r in refusals
    )
    columns = [("calls", "bad"), ("caller", "id"), ("event", "text"), ("resource", "id"), ("error", "?faint")]
    return grid(out, "Denied", columns, rows)


def share(events: int, total: Measures | None) -> str:
    """Return a share of the total in percent."""
    if total is None or not total.events:
        return "-"
    part = 100 * events / total.events
    return "<0.1 %" if 0 < part < 0.1 else f"{part:.1f} %"
