"""One resource, and one object."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.text import Text

from trailsift.analysis.caller_names import short_caller, told_apart
from trailsift.analysis.object import ObjectReport, ObjectTouch
from trailsift.analysis.resource import ResourceReport
from trailsift.analysis.shell import double_quoted, program, quoted
from trailsift.analysis.time_range import Period
from trailsift.safe_text import safe
from trailsift.schema import UNKNOWN_CATEGORY
from trailsift.terminal import heatmap
from trailsift.terminal.console import console, grid, plural, short_resource, show, size
from trailsift.terminal.role import more
from trailsift.times import DAY, moment


def days_text(period: Period) -> str:
    """Return the whole UTC days that a report is on."""
    if period.whole:
        return "whole lake"
    first = "" if period.since is None else f"{moment(period.since):%Y-%m-%d}"
    last = "" if period.until is None else f"{moment(period.until - DAY):%Y-%m-%d}"
    if first == last:
        return f"UTC day {first}"
    if not first or not last:
        return f"UTC days {f'from {first}' if first else f'up to {last}'}"
    return f"UTC days {first} to {last}"


def show_resource(report: ResourceReport, limit: int, lake: object) -> None:
    """Show who uses a resource and how. ``limit`` 0: all rows."""
    out = console()
    _headline(out, report)
    at = report.period.show
    columns = [("what", "text"), ("events", "number"), ("denied", "bad"), ("callers", "number"), ("in", "number")]
    columns += [("out", "number"), ("first", "?faint"), ("last", "faint")]
    kinds = [
        (
            _KINDS.get(k.kind, k.kind),
            k.events,
            k.denied,
            k.callers,
            size(k.bytes_in),
            size(k.bytes_out),
            at(k.first_time)[:16],
            at(k.last_time)[:16],
        )
        for k in report.kinds
    ]
    if any(kind.kind != UNKNOWN_CATEGORY for kind in report.kinds):
        show(out, grid(out, f"Use ({report.period.zone.key})", columns, kinds))
    _callers(out, report, limit)
    _networks(out, report, limit)
    _patterns(out, report, limit)
    _firsts(out, report, limit)
    if report.hours:
        picture = heatmap.strip(out, report.hours, report.period)
        show(out, Group(Text(f"Events by hour ({report.period.zone.key})", style="bold"), *picture))
    _denied(out, report, limit)
    out.print(Text("Next", style="bold"))
    busiest = next((line.caller for line in report.callers if line.caller), None)
    if busiest:
        command = f"{program()} role {quoted(busiest)} --lake {quoted(lake)}"
        out.print(Text(safe(command), style="cyan"), soft_wrap=True)
    # The ARN is somebody's text: it may hold quotes.
    command = f"{program()} query {double_quoted(report.query)} --lake {quoted(lake)}"
    out.print(Text(safe(command), style="cyan"), soft_wrap=True)


_KINDS = {"copy": "copies out of it", "delete-batch": "batch deletes", "read": "reads", "write": "writes"}
_KINDS |= {"delete": "deletes", "list": "lists", UNKNOWN_CATEGORY: "not known"}


def _headline(out: Console, report: ResourceReport) -> None:
    out.print(Text(safe(report.resource_arn), style="bold"), soft_wrap=True)
    first = min(kind.first_time for kind in report.kinds)
    last = max(kind.last_time for kind in report.kinds)
    line = Text(f"{plural(report.events, 'event')} of {plural(len(report.callers), 'caller')}")
    if report.copies:
        line.append(f", and {plural(report.copies, 'copy', 'copies')} out of it")
    line.append(f", from {report.period.show(first)} to {report.period.show(last)} ({report.period.zone.key}); ")
    line.append(f"{report.denied:,} denied", style="red" if report.denied else "")
    out.print(line)
    for note in _notes(report):
        out.print(Text(note, style="dim"))
    out.print()


def _notes(report: ResourceReport) -> list[str]:
    notes = [f"Everything is counted for the {days_text(report.period)}, dropped and sampled events included."]
    second = report.second
    if second.accounts or second.network_activity:
        parts = []
        if second.accounts:
            parts.append(f"{second.accounts:,} by the caller's account and the owner's")
        if second.network_activity:
            parts.append(f"{second.network_activity:,} as NetworkActivity, too")
        logged = "These are" if report.calls != 1 else "This is"
        notes.append(f"{logged} at least {plural(report.calls, 'call')}: logged twice were {' and '.join(parts)}.")
    if report.folded:
        notes.append(
            f"{plural(report.folded, 'event')} of these days on rarely used resources are counted as (other): "
            "some can be of this one."
        )
    if report.without_kind:
        notes.append(
            f"{plural(report.without_kind, 'event')} were counted by format version 1, without networks and kinds of "
            "use: `trailsift status` names the days, `trailsift compact` computes what can be."
        )
    return notes


def _callers(out: Console, report: ResourceReport, limit: int) -> None:
    shown = report.callers[: limit or None]
    names = told_apart(line.caller for line in report.callers)
    at = report.period.show
    columns = [("caller", "id"), ("events", "number"), ("reads", "number"), ("writes", "number")]
    columns += [("deletes", "number"), ("lists", "?number"), ("copies", "?number"), ("denied", "bad")]
    columns += [("in", "??number"), ("out", "?number"), ("networks", "?number"), ("last", "??faint")]
    rows = (
        (
            names[line.caller],
            line.events,
            line.reads,
            line.writes,
            line.deletes,
            line.lists,
            line.copies,
            line.denied,
            size(line.bytes_in),
            size(line.bytes_out),
            line.networks,
            at(line.last_time)[:16],
        )
        for line in shown
    )
    show(out, grid(out, "Callers", columns, rows, more(len(report.callers), len(shown))))


def _networks(out: Console, report: ResourceReport, limit: int) -> None:
    if all(line.source_network is None for line in report.networks):
        return
    shown = report.networks[: limit or None]
    at = report.period.show
    columns = [("network", "id"), ("events", "number"), ("denied", "bad"), ("callers", "number"), ("out", "number")]
    columns += [("first", "?faint"), ("last", "faint")]
    rows = (
        (
            n.source_network,
            n.events,
            n.denied,
            n.callers,
            size(n.bytes_out),
            at(n.first_time)[:16],
            at(n.last_time)[:16],
        )
        for n in shown
    )
    show(out, grid(out, "From where", columns, rows, more(len(report.networks), len(shown))))


def _patterns(out: Console, report: ResourceReport, limit: int) -> None:
    if not report.patterns:
        return
    shown = report.patterns[: limit or None]
    columns = [("key pattern", "prose"), ("events", "number"), ("callers", "number"), ("calls", "prose")]
    columns += [("out", "?number"), ("last", "??faint")]
    rows = (
        (
            p.key_pattern,
            p.events,
            p.callers,
            ", ".join(p.event_names),
            size(p.bytes_out),
            report.period.show(p.last_time)[:16],
        )
        for p in shown
    )
    show(out, grid(out, "Key patterns", columns, rows, more(len(report.patterns), len(shown))))


def _firsts(out: Console, report: ResourceReport, limit: int) -> None:
    if not report.firsts:
        return
    shown = report.firsts[: limit or None]
    rows = (
        (
            report.period.show(first.first_time)[:16],
            "caller" if first.dimension == "caller" else "network",
            short_caller(first.value) if first.dimension == "caller" else first.value,
            first.events,
        )
        for first in shown
    )
    columns = [("first seen", "text"), ("new", "text"), ("who or where", "id"), ("events since", "number")]
    note = more(len(report.firsts), len(shown))
    show(out, grid(out, "New on this resource (later than its first day in the lake)", columns, rows, note))


def _denied(out: Console, report: ResourceReport, limit: int) -> None:
    if not report.refusals:
        show(out, Text("Nothing was denied."))
        return
    shown = report.refusals[: limit or None]
    columns = [("calls", "bad"), ("caller", "id"), ("event", "text"), ("error", "text"), ("last", "?faint")]
    rows = (
        (r.events, short_caller(r.caller), r.event_name, r.error_code, report.period.show(r.last_time)[:16])
        for r in shown
    )
    show(out, grid(out, "Denied", columns, rows, more(len(report.refusals), len(shown))))


def show_object(report: ObjectReport, lake: object) -> None:
    """Show the touches of an object, the last one first."""
    out = console()
    out.print(Text(safe(f"{report.resource_arn}/{report.key}"), style="bold"), soft_wrap=True)
    if report.total:
        line = f"touched {plural(report.total, 'time')} from {report.period.show(report.first_time)} to "
        line += f"{report.period.show(report.touches[0].event_time)} ({report.period.zone.key})"
        out.print(line + (f", {plural(report.keys, 'object')}" if "*" in report.key else ""))
    for note in object_notes(report):
        out.print(Text(note, style="dim"))
    out.print()
    if report.total:
        show(out, _touches(out, report))
        command = f"{program()} query {double_quoted(report.query)} --lake {quoted(lake)}"
        out.print(Text("Next", style="bold"))
        out.print(Text(safe(command), style="cyan"), soft_wrap=True)


def object_notes(report: ObjectReport) -> list[str]:
    """Return what a list of touches cannot show."""
    notes = []
    if report.missing:
        notes.append(
            f"{report.missing:,} of {report.counted:,} calls on this resource in these days are not stored as single "
            "events (rules dropped or sampled them, or retention removed them): touches can be among them."
        )
    if report.batches:
        notes.append(
            f"{plural(report.batches, 'DeleteObjects call')} on this bucket without the names of what "
            f"{'was' if report.batches == 1 else 'were'} deleted: the object can be among it."
        )
    return notes


def _touches(out: Console, report: ObjectReport) -> Group:
    columns = [("time", "text"), ("event", "text"), ("caller", "id"), ("address", "id"), ("error", "text")]
    columns += [("session", "?id")]
    is_pattern = "*" in report.key
    has_copies = any(touch.other_arn for touch in report.touches)
    columns += [("key", "prose")] if is_pattern else []
    columns += [("copy", "prose")] if has_copies else []
    columns += [("out", "?number"), ("user agent", "??prose"), ("records", "??number")]
    names = told_apart(touch.caller for touch in report.touches)
    rows: list[Sequence[object]] = []
    for touch in report.touches:
        row: list[object] = [report.period.show(touch.event_time), touch.event_name, names[touch.caller]]
        row += [touch.source_ip, touch.error_code, touch.session_name]
        row += [touch.object_key] if is_pattern else []
        row += [_copy(touch)] if has_copies else []
        rows.append([*row, size(touch.bytes_out), touch.user_agent, touch.records])
    return grid(out, "", columns, rows, more(report.total, len(report.touches)))


def _copy(touch: ObjectTouch) -> str:
    if not touch.other_arn:
        return ""
    word = "to" if touch.touch == "source" else "from"
    return f"{word} {short_resource(touch.other_arn)}/{touch.other_key or ''}"
