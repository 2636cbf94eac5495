"""What `status`, `rejects` and `columns` show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group

from trailsift.analysis.shell import quoted
from trailsift.analysis.time_range import Period
from trailsift.schema import Table
from trailsift.terminal.console import console, grid, plural, show, size

if TYPE_CHECKING:
    from trailsift.analysis.rejects import RejectReport
    from trailsift.analysis.status import Status


def show_status(status: Status, zone: Period) -> None:
    """The state of a lake as a person reads it."""
    out = console()
    events = status.events
    out.print(status.lake, style="bold", soft_wrap=True)
    if events.rows:
        told = (
            f"{plural(events.rows, 'event')} from {zone.show(events.first_time)} to {zone.show(events.last_time)} "
            f"({zone.zone.key}), {size(sum(table.bytes for table in status.tables))} on disk, "
            f"{plural(status.commits, 'commit')}."
        )
    else:
        told = f"No events yet. Next: trailsift ingest PATH --lake {quoted(status.lake)}"
    show(out, told, _tables(out, status, zone), _books(out, status))
    if status.latest:
        show(out, _commits(out, status))


def _tables(out: Console, status: Status, zone: Period) -> Group:
    columns = [("table", "text"), ("rows", "number"), ("files", "number"), ("size", "number")]
    columns += [("first", "??faint"), ("last", "?faint")]
    rows = (
        (t.name, t.rows, t.files, size(t.bytes), zone.show(t.first_time), zone.show(t.last_time)) for t in status.tables
    )
    return grid(out, "Tables", columns, rows)


def _books(out: Console, status: Status) -> Group:
    totals = status.totals
    rows = [("records read", totals["records"]), ("  stored", totals["stored"]), ("  duplicates", totals["duplicates"])]
    rows += [(f"  dropped: {name}", number) for name, number in status.dropped.items()]
    rows += [("  malformed", totals["malformed"])]
    note = "" if status.reconciled else "These do not add up: please report this as a defect."
    for rules in status.rules:
        omit = f"; left empty: {', '.join(rules['omit'])}" if rules["omit"] else ""
        note += ("\n" if note else "") + f"Sifted by {rules['file']} ({rules['digest'][:12]}){omit}."
    return grid(out, "Everything ever read", [("what became of it", "text"), ("records", "number")], rows, note)


def _commits(out: Console, status: Status) -> Group:
    columns = [("commit", "number"), ("at (UTC)", "faint"), ("kind", "text"), ("objects", "number")]
    columns += [("records", "number"), ("stored", "number"), ("duplicates", "?number"), ("malformed", "?bad")]
    names = ("log_objects", "records", "stored", "duplicates", "malformed")
    rows = (
        (c["commit"], c["committed_at"][:19].replace("T", " "), c["kind"], *(c.get(name, 0) for name in names))
        for c in status.latest
    )
    return grid(out, "Latest commits", columns, rows)


def show_rejects(rejects: RejectReport, zone: Period) -> None:
    """What could not be stored: by reason, then the newest of them with the beginning of their text."""
    out = console()
    if not rejects.total:
        out.print("Nothing was rejected: every record that was read is stored or counted as a duplicate.")
        return
    show(
        out,
        grid(
            out,
            "Why",
            [("records", "number"), ("reason", "prose"), ("an example's log object", "prose")],
            rejects.reasons,
        ),
    )
    rows = (
        (
            r.reason,
            "whole" if r.position < 0 else r.position,
            r.log_object,
            shortened(r.raw),
            zone.show(r.ingested_at)[:16],
        )
        for r in rejects.rows
    )
    columns = [
        ("reason", "prose"),
        ("position", "number"),
        ("log object", "prose"),
        ("text", "?prose"),
        ("at", "?faint"),
    ]
    left = rejects.total - len(rejects.rows)
    note = f"{left:,} more: --limit 0 shows all, --json gives their whole text" if left > 0 else ""
    show(out, grid(out, "Newest", columns, rows, note))


def shortened(text: str | None, width: int = 60) -> str:
    """The beginning of a text on one line."""
    line = " ".join((text or "").split())
    return line if len(line) <= width else line[: width - 1] + "…"


def show_columns(tables: Sequence[Table], functions: Mapping[str, str]) -> None:
    """Every column with its type and meaning."""
    out = console()
    for table in tables:
        columns = [("column", "text"), ("type", "faint"), ("meaning", "prose")]
        rows = ((column.name, column.type, column.meaning) for column in table.columns)
        show(out, grid(out, f"{table.name}: {table.meaning}", columns, rows))
    if functions:
        show(out, grid(out, "Functions", [("function", "text"), ("returns", "prose")], functions.items()))


def columns_markdown(tables: Sequence[Table], functions: Mapping[str, str]) -> str:
    """Return the columns as a Markdown page: `docs/schema.md`."""
    note = "Generated by `trailsift columns --format markdown`: change `trailsift/schema.py`, not this page."
    lines = ["# Tables", "", note, ""]
    if len(tables) > 1:
        lines += [*(f"- [`{table.name}`](#{table.name}): {table.meaning}" for table in tables), ""]
    for table in tables:
        lines += [f"## {table.name}", "", table.meaning, ""]
        if table.keys:
            lines += ["One row per combination of " + ", ".join(f"`{key}`" for key in table.keys) + ".", ""]
        lines += ["| column | type | from | meaning |", "|---|---|---|---|"]
        for column in table.columns:
            source = f"`{column.source}`" if column.source else ""
            lines.append(f"| `{column.name}` | {column.type} | {source} | {column.meaning.replace('|', '&#124;')} |")
        lines.append("")
    if functions:
        lines += ["## Functions", "", *(f"- `{name}`: {meaning}" for name, meaning in functions.items()), ""]
    return "\n".join(lines)
