"""What `estimate` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from trailsift.analysis.time_range import Period
from trailsift.terminal.console import console, grid, plural, show, size

if TYPE_CHECKING:
    from trailsift.analysis.estimate import DistinctCount, Estimate, IntervalEstimate


def show_estimate(found: Estimate, zone: Period) -> None:
    """The groups with their intervals, and what kind of numbers these are."""
    out = console()
    columns = [(name, "prose") for name in found.by]
    columns += [("events", "number"), ("95 % interval", "number"), ("bytes out", "number"), ("95 % interval", "number")]
    columns += [("addresses", "?number"), ("keys", "?number"), ("stored", "??number")]
    rows = []
    for group in found.groups:
        names = [_name(name, value, zone) for name, value in zip(found.by, group.names, strict=True)]
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
    show(out, grid(out, "By " + ", ".join(found.by) if found.by else "Everything", columns, rows, _note(found)))


def _name(name: str, value: Any, zone: Period) -> Any:
    return zone.show(value) if name in ("hour", "event_time") and isinstance(value, int) else value


def _span(value: IntervalEstimate, form: Any = "{:,}".format) -> str:
    return "exact" if value.exact else f"{form(value.low)} - {form(value.high)}"


def _distinct(found: DistinctCount) -> str:
    return f"{found.number:,}" if found.exact else "-" if not found.number else f">= {found.number:,}"


def _note(found: Estimate) -> str:
    if found.source != "events":
        return f"Exact: from the summary table {found.source}, which counts all events, whatever was stored."
    told = (
        "Exact: nothing that was asked for is sampled."
        if found.exact
        else (
            "Estimated from the weights of the stored events; rough: fewer than 50 sampled events. "
            "Distinct numbers are lower bounds."
        )
    )
    if not found.groups and found.not_stored:
        told = (
            f"No stored event meets this; up to {plural(found.not_stored, 'event')} that rules have sampled away may. "
            "Ask by columns of `hourly` or `usage` for an exact number."
        )
    if found.dropped:
        told += f" Not counted: {plural(sum(found.dropped.values()), 'event')} of the whole lake, dropped by rules: "
        told += ", ".join(found.dropped) + "."
    if found.omitted:
        told += f" Rules have left {', '.join(found.omitted)} empty in some events: these count as having none."
    return told
