"""The overview and the summary tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from trailsift.analysis.period import Period
from trailsift.analysis.summary import GROUPS, Measures, Overview, Refusal, Summary
from trailsift.views import heat
from trailsift.views.console import console, grid, plural, short_resource, short_role, show, size

_HEADINGS = {
    "service": "service",
    "event_name": "event",
    "role_arn": "role",
    "resource_arn": "resource",
    "hour": "hour",
    "account_id": "account",
    "aws_region": "region",
    "error_code": "error",
}


def names_shown(column: str, value: Any, period: Period) -> str:
    """A value that lines are grouped by, as a person reads it."""
    if column == "role_arn":
        return short_role(value)
    if value is None:
        return {"resource_arn": "(none)", "error_code": "(no error)"}.get(column, "-")
    if column == "hour":
        return period.show(value)[:16]
    return short_resource(value) or "-" if column == "resource_arn" else str(value)


def show_overview(seen: Overview) -> None:
    """Totals, largest lines, refusals, and when."""
    out = console()
    show(out, headline(seen), *parts(out, seen))


def headline(seen: Overview) -> Text:
    """One paragraph of totals."""
    total = seen.total or Measures(0, 0, 0, 0, 0, 0, 0, 0, 0)
    line = Text(plural(total.events, "event"), style="bold")
    line.append(
        f" from {seen.period.show(total.first_time)} to {seen.period.show(total.last_time)} ({seen.period.zone.key}): "
        f"{plural(seen.roles.groups, 'role')}, {plural(seen.resources.groups, 'resource')}, "
        f"{plural(total.source_ips, 'address', 'addresses')}, {plural(total.object_keys, 'object key')}; ",
        style="not bold",
    )
    line.append(f"{total.denied:,} denied", style="red" if total.denied else "not bold")
    line.append(f", {size(total.bytes_in)} in, {size(total.bytes_out)} out", style="not bold")
    return line


def parts(out: Console, seen: Overview) -> list[Table | Group]:
    """What follows the headline."""
    picture = [Text("Events by hour", style="bold"), *heat.strip(out, seen.hours, seen.period)]
    shown: list[Table | Group] = [
        Group(*picture),
        table(seen.roles, "Busiest roles", narrow=True),
        table(seen.resources, "Most used resources", narrow=True),
        table(seen.events, "Most frequent calls", narrow=True),
    ]
    if seen.refusals:
        shown.append(refusal_table(seen.refusals, "Denied"))
    return shown


def show_summary(found: Summary) -> None:
    """One table, and what of it is not shown."""
    out = console()
    show(out, table(found, f"By {found.by}"))


def table(found: Summary, title: str, *, narrow: bool = False) -> Table:
    """The lines of a summary; ``narrow`` leaves out what does not fit beside others."""
    columns = GROUPS[found.by]
    heads = [(_HEADINGS[column], "id" if column.endswith("arn") else "text") for column in columns]
    pick: list[tuple[str, str, Callable[[Measures], Any]]] = [
        ("events", "number", lambda m: m.events),
        ("share", "text", lambda m: share(m.events, found.total)),
        ("denied", "bad", lambda m: m.denied),
        ("in", "text", lambda m: size(m.bytes_in)),
        ("out", "text", lambda m: size(m.bytes_out)),
        ("addresses", "number", lambda m: m.source_ips),
        ("keys", "number", lambda m: m.object_keys),
    ]
    if narrow:
        pick = [one for one in pick if one[0] not in ("in", "addresses")]
    rows = [
        (*(names_shown(c, v, found.period) for c, v in zip(columns, line.names, strict=True)),
         *(value(line.measures) for _, _, value in pick))
        for line in found.lines
    ]
    note = ""
    if found.groups > len(found.lines) and not narrow:
        note = f"{found.groups - len(found.lines):,} more: --limit 0 shows all"
    made = grid(title, [*heads, *((head, kind) for head, kind, _ in pick)], rows, note)
    for column in made.columns[len(heads) :]:
        column.justify = "right"
        column.no_wrap = True
    return made


def refusal_table(found: Sequence[Refusal], title: str) -> Table:
    """What was refused."""
    rows = (
        (refusal.events, short_role(refusal.role_arn), refusal.event_name, short_resource(refusal.resource_arn), refusal.error_code)
        for refusal in found
    )
    columns = [("calls", "bad"), ("role", "id"), ("event", "text"), ("resource", "id"), ("error", "faint")]
    return grid(title, columns, rows)


def share(events: int, total: Measures | None) -> str:
    """A part of the whole in percent."""
    if total is None or not total.events:
        return "-"
    part = 100 * events / total.events
    return "<0.1 %" if 0 < part < 0.1 else f"{part:.1f} %"
