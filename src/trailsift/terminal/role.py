"""All callers, and one in detail."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console, Group
from rich.text import Text

from trailsift.analysis.caller_names import account_of, short_caller, told_apart
from trailsift.analysis.roles import RoleReport, RoleSummary
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.callers import is_arn
from trailsift.safe_text import safe
from trailsift.terminal import heatmap
from trailsift.terminal.console import console, grid, plural, short_resource, show, size
from trailsift.terminal.summary import several

_ORIGINS = {
    "source_network": "Networks",
    "user_agent": "User agents",
    "vpc_endpoint": "VPC endpoints",
    "session_name": "Sessions",
    "principal_account": "Accounts of the callers",
}


def show_roles(roles: Sequence[RoleSummary], period: Period, limit: int = 0) -> None:
    """Show the list of all callers. ``limit``: rows at most; 0 is all."""
    out = console()
    columns = [("caller", "id"), ("events", "number"), ("share", "number"), ("denied", "bad"), ("resources", "number")]
    columns += [("out", "number"), ("account", "??faint"), ("first seen", "??faint"), ("last seen", "?faint")]
    columns += [("services", "??prose")]
    at = period.show
    names = told_apart(line.caller for line in roles)
    rows = (
        (
            names[line.caller],
            line.events,
            f"{100 * line.share:.1f} %",
            line.denied,
            line.resources,
            size(line.bytes_out),
            account_of(line.caller),
            at(line.first_time)[:16],
            at(line.last_time)[:16],
            ", ".join(line.services),
        )
        for line in roles[: limit or None]
    )
    notes = [more(len(roles), min(len(roles), limit or len(roles)))]
    notes += [several(sum(line.owner_side for line in roles), sum(line.network_activity for line in roles), period)]
    note = "\n".join(filter(None, notes))
    show(out, grid(out, f"{plural(len(roles), 'caller')}, times in {period.zone.key}", columns, rows, note))


def show_role(role: RoleReport, limit: int = 10) -> None:
    """Show one caller: totals, actions, resources, keys, hours, origins, denied calls. ``limit`` 0: all rows."""
    out = console()
    _headline(out, role)
    _actions(out, role, limit)
    picture = heatmap.strip(out, role.hours, role.period)
    show(out, Group(Text(f"Events by hour ({role.period.zone.key})", style="bold"), *picture))
    _where_from(out, role, limit)
    if not role.refusals:
        out.print("Nothing was denied.")
        return
    shown = role.refusals[: limit or None]
    columns = [("calls", "bad"), ("event", "text"), ("resource", "id"), ("error", "text"), ("last", "?faint")]
    rows = (
        (r.events, r.event_name, short_resource(r.resource_arn), r.error_code, role.period.show(r.last_time)[:16])
        for r in shown
    )
    show(out, grid(out, "Denied", columns, rows, more(len(role.refusals), len(shown))))


def _headline(out: Console, role: RoleReport) -> None:
    out.print(Text(safe(_title(role.caller)), style="bold"), soft_wrap=True)
    first = min(action.first_time for action in role.actions)
    last = max(action.last_time for action in role.actions)
    line = Text(f"{plural(role.events, 'event')}, {100 * role.share:.1f} % of all, from {role.period.show(first)} ")
    line.append(f"to {role.period.show(last)} ({role.period.zone.key}); ")
    line.append(f"{role.denied:,} denied", style="red" if role.denied else "")
    out.print(line)
    places = ", ".join(
        f"{place.account_id or 'no account'} {place.aws_region} ({place.events:,})" for place in role.places[:4]
    )
    out.print(Text(safe(f"in {places}"), style="dim"))
    note = several(role.owner_side, role.network_activity, role.period)
    if note:
        out.print(Text(note, style="dim"))
    out.print()


def _title(caller: str | None) -> str:
    """Return a caller in full: an ARN as it is, others by their short name and text."""
    short = short_caller(caller)
    return short if caller is None or short.startswith("(") else caller if is_arn(caller) else f"{short} ({caller})"


def _actions(out: Console, role: RoleReport, limit: int) -> None:
    shown = role.actions[: limit or None]
    columns = [("service", "text"), ("event", "text"), ("events", "number"), ("errors", "number"), ("denied", "bad")]
    columns += [("in", "number"), ("out", "number"), ("last", "?faint")]
    at = role.period.show
    rows: list[Sequence[object]] = [
        (
            a.service,
            a.event_name,
            a.events,
            a.errors,
            a.denied,
            size(a.bytes_in),
            size(a.bytes_out),
            at(a.last_time)[:16],
        )
        for a in shown
    ]
    show(out, grid(out, "Actions", columns, rows, more(len(role.actions), len(shown))))
    touched = role.resources[: limit or None]
    columns = [("resource", "id"), ("events", "number"), ("writes", "number"), ("denied", "bad"), ("keys", "number")]
    columns += [("in", "?number"), ("out", "?number")]
    rows = [
        (
            short_resource(r.resource_arn) or "(none)",
            r.events,
            r.writes,
            r.denied,
            r.object_keys,
            size(r.bytes_in),
            size(r.bytes_out),
        )
        for r in touched
    ]
    show(out, grid(out, "Resources", columns, rows, more(len(role.resources), len(touched))))
    if role.copy_sources:
        sources = role.copy_sources[: limit or None]
        columns = [("resource", "id"), ("copies", "number"), ("failed", "bad"), ("a key", "prose"), ("last", "?faint")]
        rows = [
            (short_resource(s.resource_arn), s.copies, s.failed, s.example_key, at(s.last_time)[:16]) for s in sources
        ]
        title = "Copied from" + by_day(role.period)
        show(out, grid(out, title, columns, rows, more(len(role.copy_sources), len(sources))))
    if role.patterns:
        patterns = role.patterns[: limit or None]
        columns = [("key pattern", "prose"), ("events", "number"), ("calls", "prose"), ("resource", "?id")]
        rows = [(p.key_pattern, p.events, ", ".join(p.event_names), short_resource(p.resource_arn)) for p in patterns]
        show(
            out, grid(out, "Key patterns" + by_day(role.period), columns, rows, more(len(role.patterns), len(patterns)))
        )


def _where_from(out: Console, role: RoleReport, limit: int) -> None:
    for dimension, title in _ORIGINS.items():
        origins = [origin for origin in role.origins if origin.dimension == dimension]
        if not origins:
            continue
        shown = origins[: min(limit or len(origins), 5) if dimension == "session_name" else limit or None]
        columns = [("value", "id"), ("events", "number"), ("denied", "bad"), ("first", "??faint"), ("last", "faint")]
        at = role.period.show
        rows = ((o.value, o.events, o.denied, at(o.first_time)[:16], at(o.last_time)[:16]) for o in shown)
        show(out, grid(out, title + by_day(role.period), columns, rows, more(len(origins), len(shown))))


def by_day(period: Period) -> str:
    """Return a remark if a table kept by day cannot follow the period to the minute."""
    return "" if period.on_days else " (whole UTC days)"


def more(total: int, shown: int) -> str:
    """Return a remark on what is not shown."""
    return f"{total - shown:,} more: --limit 0 shows all" if total > shown else ""
