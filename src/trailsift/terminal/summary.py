"""The overview and the summary tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rich.console import Console, Group
from rich.text import Text

from trailsift.analysis.summary import GROUPS, Measures, Overview, Refusal, Summary
from trailsift.analysis.time_range import Period
from trailsift.terminal import heatmap
from trailsift.terminal.console import console, grid, plural, short_resource, short_role, show, size

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
#: (heading, kind, value) of a line's numbers; ``?`` marks what a narrow terminal can do without.
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
    line = Text()
    line.append(plural(total.events, "event"), style="bold")
    line.append(
        f" from {seen.period.show(total.first_time)} to {seen.period.show(total.last_time)} ({seen.period.zone.key}): "
        f"{plural(seen.roles.groups, 'role')}, {plural(seen.resources.groups, 'resource')}, "
        f"{plural(total.source_ips or 0, 'source address', 'source addresses')}, "
        f"{plural(total.object_keys or 0, 'object key')}; "
    )
    line.append(f"{total.denied:,} denied", style="red" if total.denied else "")
    line.append(f"; {size(total.bytes_in)} in, {size(total.bytes_out)} out")
    return line


def parts(out: Console, seen: Overview) -> list[Group]:
    """What follows the headline."""
    shown = [
        Group(Text("Events by hour", style="bold"), *heatmap.strip(out, seen.hours, seen.period)),
        table(out, seen.roles, "Busiest roles"),
        table(out, seen.resources, "Most used resources"),
        table(out, seen.events, "Most frequent calls"),
    ]
    if seen.refusals:
        shown.append(refusal_table(out, seen.refusals))
    return shown


def show_summary(found: Summary) -> None:
    """One table, and what of it is not shown."""
    out = console()
    left = found.groups - len(found.lines)
    zone = f" ({found.period.zone.key})" if found.by == "hour" else ""
    show(out, table(out, found, f"By {found.by}{zone}", f"{left:,} more: --limit 0 shows all" if left else ""))


def table(out: Console, found: Summary, title: str, note: str = "") -> Group:
    """The lines of a summary."""
    columns = GROUPS[found.by]
    numbers = [one for one in _NUMBERS if any(one[2](line.measures, found.total) is not None for line in found.lines)]
    heads = [(_HEADINGS[column], "id" if column.endswith("arn") else "text") for column in columns]
    rows = [
        (
            *(names_shown(column, value, found.period) for column, value in zip(columns, line.names, strict=True)),
            *(value(line.measures, found.total) for _, _, value in numbers),
        )
        for line in found.lines
    ]
    return grid(out, title, [*heads, *((head, kind) for head, kind, _ in numbers)], rows, note)


def refusal_table(out: Console, found: Sequence[Refusal]) -> Group:
    """What was refused."""
    rows = (
        (r.events, short_role(r.role_arn), r.event_name, short_resource(r.resource_arn), r.error_code) for r in found
    )
    columns = [("calls", "bad"), ("role", "id"), ("event", "text"), ("resource", "id"), ("error", "?faint")]
    return grid(out, "Denied", columns, rows)


def share(events: int, total: Measures | None) -> str:
    """A part of the whole in percent."""
    if total is None or not total.events:
        return "-"
    part = 100 * events / total.events
    return "<0.1 %" if 0 < part < 0.1 else f"{part:.1f} %"
