"""The output of `estimate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trailsift.analysis.caller_names import short_caller
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.callers import is_arn
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, middle, plural, show, size

if TYPE_CHECKING:
    from trailsift.analysis.estimate import DistinctCount, Estimate, IntervalEstimate


def show_estimate(estimate: Estimate, zone: Period) -> None:
    """Show the groups with their intervals, and whether the numbers are exact."""
    out = console()
    # Numbers and their intervals take half of the line.
    width = max((out.width - 56) // max(len(estimate.by), 1), 20)
    columns = [(name, "text") for name in estimate.by]
    columns += [("events", "number"), ("95 % interval", "number"), ("bytes out", "number"), ("95 % interval", "number")]
    columns += [("addresses", "?number"), ("keys", "?number"), ("stored", "??number")]
    rows = []
    for group in estimate.groups:
        names = [
            middle(safe(str(shown)), width) if isinstance(shown := _name(name, value, zone), str) else shown
            for name, value in zip(estimate.by, group.names, strict=True)
        ]
        mark = " (rough)" if group.rough else ""
        rows.append(
            (
                *names,
                group.events.estimate,
                _span(group.events) + mark,
                size(group.bytes_out.estimate),
                _span(group.bytes_out, size),
                _distinct(group.source_ips),
                _distinct(group.object_keys),
                group.stored,
            )
        )
    title = "By " + ", ".join(estimate.by) if estimate.by else "Total"
    show(out, grid(out, title, columns, rows, safe(_note(estimate))))


def _name(name: str, value: Any, zone: Period) -> Any:
    if name == "caller":
        # An ARN stays whole: roles of several accounts may have the same name.
        return value if is_arn(value) else short_caller(value)
    return zone.show(value) if name in ("hour", "event_time") and isinstance(value, int) else value


def _span(value: IntervalEstimate, form: Any = "{:,}".format) -> str:
    return "exact" if value.exact else f"{form(value.low)} - {form(value.high)}"


def _distinct(distinct: DistinctCount) -> str:
    return f"{distinct.number:,}" if distinct.exact else f">= {distinct.number:,}" if distinct.number else "-"


def _note(estimate: Estimate) -> str:
    if estimate.source != "events":
        return f"Exact: from the summary table {estimate.source}, which counts every event, stored or not."
    if not estimate.groups and estimate.not_stored:
        note = (
            f"No stored event matches; up to {plural(estimate.not_stored, 'event')} that rules sampled away may match. "
            "Group by columns of `hourly` or `usage` for an exact number."
        )
    elif estimate.is_complete:
        note = "Exact: no matching event was sampled."
    else:
        note = (
            "Estimated from the weights of the stored events; rough: fewer than 50 sampled events. "
            "Distinct counts are lower bounds."
        )
    if estimate.counted_from:
        note += f" Counted from {estimate.counted_from} on: retention has removed the events before that day."
    if estimate.dropped:
        dropped = plural(sum(estimate.dropped.values()), "event")
        note += f" Not counted: {dropped} of the whole lake, dropped by the rules {', '.join(estimate.dropped)}."
    if estimate.omitted:
        note += f" Rules left {', '.join(estimate.omitted)} empty in some events, which count as having no value."
    return note
