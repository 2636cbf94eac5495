"""Where a term was found."""

from __future__ import annotations

from rich.text import Text

from trailsift.analysis.caller_names import short_caller, told_apart
from trailsift.analysis.search import SearchReport
from trailsift.analysis.shell import double_quoted, program, quoted
from trailsift.safe_text import safe
from trailsift.terminal.console import console, grid, plural, short_resource, show

#: The command that has more about a hit.
_COMMANDS = {"caller": "role", "resource": "resource"}


def show_search(report: SearchReport, lake: object) -> None:
    """Show what the summaries know of a term, the events that have it, and what was not looked through."""
    out = console()
    out.print(Text(safe(f"{report.term} ({', '.join(report.shapes)})"), style="bold"), soft_wrap=True)
    total = sum(report.event_counts.values())
    line = (
        f"{plural(sum(report.hit_counts.values()), 'name')} in the summaries, {plural(total, 'stored event')} with it"
    )
    out.print(line if report.found else "Not found.")
    for note in search_notes(report):
        out.print(Text(note, style="dim"))
    out.print()
    at = report.period.show
    if report.hits:
        columns = [("where", "text"), ("what", "id"), ("events", "number"), ("first", "?faint"), ("last", "faint")]
        callers = told_apart(hit.value for hit in report.hits if hit.where == "caller")
        rows = []
        for hit in report.hits:
            shown = callers[hit.value] if hit.where == "caller" else hit.value
            shown = short_resource(hit.value) or "" if hit.where == "resource" else shown
            rows.append((hit.where, shown, hit.events, at(hit.first_time)[:16], at(hit.last_time)[:16]))
        left = sum(report.hit_counts.values()) - len(report.hits)
        note = f"{left:,} more: --limit 0 shows all" if left else ""
        days = "" if report.period.on_days else ", whole UTC days"
        show(out, grid(out, f"In the summaries ({report.period.zone.key}{days})", columns, rows, note))
    if report.events:
        columns = [("time", "text"), ("found in", "?text"), ("event", "text"), ("caller", "id"), ("address", "id")]
        columns += [("error", "?text"), ("resource", "?id"), ("key", "?prose")]
        events = (
            (
                at(event.event_time),
                event.column,
                event.event_name,
                short_caller(event.caller),
                event.source_ip,
                event.error_code,
                short_resource(event.resource_arn),
                event.object_key,
            )
            for event in report.events
        )
        counts = ", ".join(f"{count:,} by {column}" for column, count in report.event_counts.items())
        left = total - len(report.events)
        note = f"Found: {counts}." + (" The newest are shown: --limit 0 shows all." if left > 0 else "")
        show(out, grid(out, f"Stored events ({report.period.zone.key})", columns, events, note))
    for command in _next(report):
        out.print(Text(safe(f"{command} --lake {quoted(lake)}"), style="cyan"), soft_wrap=True)


def _next(report: SearchReport) -> list[str]:
    first = next((hit for hit in report.hits if hit.where in _COMMANDS), None)
    commands = [] if first is None else [f"{program()} {_COMMANDS[first.where]} {quoted(first.value)}"]
    if report.query is not None:
        commands.append(f"{program()} query {double_quoted(report.query)}")
    return commands


def search_notes(report: SearchReport) -> list[str]:
    """Return where a term was looked for, and where it could not be."""
    notes = [f"Looked in {', '.join(report.places)}."]
    if report.missing:
        notes.append(
            f"{report.missing:,} of {report.counted:,} events are not stored as single events (rules dropped or "
            "sampled them, or retention removed them): the summaries count them by name and network, and their ids, "
            "keys and addresses cannot be found."
        )
    if "address" in report.shapes or "range of addresses" in report.shapes:
        notes.append("Summaries have networks (/24, /48), not addresses: a network there can be another address of it.")
        if "source_ip of events" not in report.places:
            notes.append("The range has too many addresses to look up their events.")
    else:
        notes.append(
            "Not looked in: parts of object keys, error messages and parameters of single events. A query can: "
            "WHERE contains(request_parameters, '...')."
        )
    return notes
