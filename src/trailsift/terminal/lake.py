"""The output of the commands that maintain a lake: status, rejects, columns, compact, expire, relocate, verify."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group

from trailsift.analysis.shell import program, quoted
from trailsift.analysis.time_range import Period
from trailsift.lake.retention import period_of
from trailsift.safe_text import safe
from trailsift.schema import FORMAT_VERSION, TABLES, Table
from trailsift.terminal.console import console, duration, grid, plural, show, size

if TYPE_CHECKING:
    from trailsift.analysis.feed import Gap, Gaps
    from trailsift.analysis.rejects import RejectReport
    from trailsift.analysis.status import Connection, Status
    from trailsift.lake.compact import Compacted
    from trailsift.lake.expire_days import Expired
    from trailsift.lake.glue_setting import Target
    from trailsift.lake.register import Registered
    from trailsift.lake.relocate import Relocated
    from trailsift.lake.retention import Retention, TableDays
    from trailsift.lake.upgrade import Upgraded
    from trailsift.lake.verify import Verification


def show_status(status: Status, zone: Period) -> None:
    """Show the state of a lake."""
    out = console()
    events = status.events
    out.print(status.lake, style="bold", soft_wrap=True)
    if events.rows:
        headline = (
            f"{plural(events.rows, 'event')} from {zone.show(events.first_time)} to {zone.show(events.last_time)} "
            f"({zone.zone.key}), {size(sum(table.bytes for table in status.tables))} on disk, "
            f"{plural(status.commits, 'commit')}."
        )
    else:
        headline = f"No events yet. Next: {program()} ingest PATH --lake {quoted(status.lake)}"
    out.print(headline)
    if status.world_readable:
        out.print("Every user of this machine can read it. To keep it private:")
        out.print(f"  chmod -R go= {quoted(status.lake)}", soft_wrap=True)
    if status.format_version < FORMAT_VERSION:
        out.print(
            f"Format version {status.format_version}: it can be read. To upgrade it to {FORMAT_VERSION}, and write it:"
        )
        out.print(f"  {program()} compact --lake {quoted(status.lake)}", soft_wrap=True)
    elif status.version_1_days:
        days = ", ".join(status.version_1_days)
        out.print(f"Summary rows of format version 1, without caller and category: {days}.", soft_wrap=True)
    out.print()
    if events.rows or status.keeping.gone:
        show(out, _health(out, status, zone))
    show(out, _tables(out, status, zone), _counts(out, status))
    if status.latest:
        show(out, _commits(out, status))
    for todo in status.to_do:
        out.print(f"To do: {todo.why}.", style="bold")
        out.print(f"  {todo.command}", soft_wrap=True)


def _health(out: Console, status: Status, zone: Period) -> Group:
    """Return how far the lake is behind, what is missing, and what retention does."""
    lag = status.delivery.lag
    newest = status.delivery.delivery_time or status.delivery.event_time
    what = "log object delivered" if status.delivery.delivery_time is not None else "event"
    rows = [] if lag is None else [("newest", f"{what} {zone.show(newest)[:16]}, {_ago(lag)}")]
    if status.gaps is not None:
        rows.append(("gaps", _gap_line(status.gaps)))
        rows += [("", _gap(gap, zone)) for gap in status.gaps.listed[:_GAPS]]
    compacted = status.last_compaction
    rows.append(("compacted", f"{compacted[:16].replace('T', ' ')} UTC" if compacted else "never"))
    rows += _keeping(status)
    if status.glue is not None:
        rows.append(("Glue", _connection(status.glue)))
    return grid(out, "Health", [("what", "text"), ("now", "prose")], rows)


#: Gaps that are listed on a terminal.
_GAPS = 8


def _gap_line(gaps: Gaps) -> str:
    if not gaps.total:
        return "none in the last 7 days of the lake"
    hidden = f", of which {_GAPS} are listed; --json lists more" if gaps.total > _GAPS else ""
    return f"{plural(gaps.total, 'stretch', 'stretches')} without events that normally come{hidden}:"


def _gap(gap: Gap, zone: Period) -> str:
    names = ", ".join(f"{account} {region}" for account, region in gap.feeds)
    more = f" and {gap.number - len(gap.feeds):,} more" if gap.number > len(gap.feeds) else ""
    return (
        f"{zone.show(gap.first_time)[:16]}, {plural(gap.hours, 'hour')}: {names}{more} "
        f"(usually {plural(gap.usual, 'event')} an hour)"
    )


def _keeping(status: Status) -> list[tuple[str, str]]:
    keeping = status.keeping
    rows = []
    if keeping.problem is not None:
        rows.append(("retention", keeping.problem))
    elif keeping.setting is None:
        rows.append(("retention", "no setting: everything is kept"))
    elif not keeping.applies:
        rows.append(("retention", f"{_periods(keeping.setting)}, saved for another place: nothing is removed here"))
    elif keeping.next:
        bytes_gone = size(sum(table.bytes for table in keeping.next))
        rows.append(("retention", f"{_periods(keeping.setting)}; the next compaction removes {bytes_gone}:"))
        rows += [("", _days(table)) for table in keeping.next]
    else:
        then = f"; the next day goes on {keeping.next_on}" if keeping.next_on else ""
        rows.append(("retention", f"{_periods(keeping.setting)}{then}"))
    gone = [
        f"{what} before {day}"
        for what, day in (("events", keeping.events_before), ("summaries", keeping.summaries_before))
        if day is not None
    ]
    return [*rows, ("removed", ", ".join(gone))] if gone else rows


def _connection(glue: Connection) -> str:
    if glue.target is None:
        return glue.problem or "the setting cannot be used"
    follows = "its tables follow each commit" if glue.applies else "saved for another place, and not followed"
    return f"{glue.target.name}: {follows}"


def _periods(setting: Retention) -> str:
    """Return in words how long things are kept."""
    summaries = "without limit" if setting.summaries is None else period_of(setting.summaries)
    return f"events {period_of(setting.events or 0)}, summaries {summaries}"


def _days(table: TableDays) -> str:
    span = table.first_day if table.days == 1 else f"{table.first_day} to {table.last_day}"
    return f"{table.table}: {plural(table.days, 'day')}, {span}, {plural(table.rows, 'row')}, {size(table.bytes)}"


def _ago(seconds: int) -> str:
    """Return an age in words."""
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length:,} {unit}s ago"
    return "just now" if seconds < 60 else "a minute ago"


def _tables(out: Console, status: Status, zone: Period) -> Group:
    columns = [("table", "text"), ("rows", "number"), ("files", "number"), ("size", "number")]
    columns += [("first", "??faint"), ("last", "?faint")]
    rows = (
        (t.name, t.rows, t.files, size(t.bytes), zone.show(t.first_time), zone.show(t.last_time)) for t in status.tables
    )
    return grid(out, "Tables", columns, rows)


def _counts(out: Console, status: Status) -> Group:
    totals = status.totals
    rows = [("records read", totals["records"]), ("  stored", totals["stored"]), ("  duplicates", totals["duplicates"])]
    rows += [(f"  dropped: {name}", number) for name, number in status.dropped.items()]
    rows += [("  malformed", totals["malformed"])]
    note = "" if status.reconciled else "These counts do not add up: please report this as a bug."
    for rules in status.rules:
        omit = f"; left empty: {', '.join(rules['omit'])}" if rules["omit"] else ""
        line = safe(f"Rules applied: {rules['file']} ({rules['digest'][:12]}){omit}.")
        note += ("\n" if note else "") + line
    return grid(out, "All records ever read", [("outcome", "text"), ("records", "number")], rows, note)


def _commits(out: Console, status: Status) -> Group:
    columns = [("commit", "number"), ("at (UTC)", "faint"), ("kind", "text"), ("objects", "number")]
    columns += [("records", "number"), ("stored", "number"), ("duplicates", "?number"), ("malformed", "?bad")]
    names = ("log_objects", "records", "stored", "duplicates", "malformed")
    rows = (
        (c["commit"], c["committed_at"][:19].replace("T", " "), c["kind"], *(c.get(name, 0) for name in names))
        for c in status.latest
    )
    return grid(out, "Latest commits", columns, rows)


def show_rejects(rejects: RejectReport, zone: Period, reason: str = "") -> None:
    """Show what could not be stored: by reason, then the newest records with the beginning of their text."""
    out = console()
    if reason and not rejects.total:
        out.print(f"Nothing was rejected with a reason that contains {reason!r}.")
        return
    if not rejects.total:
        out.print("Nothing was rejected: every record is stored or counted as a duplicate.")
        return
    show(
        out,
        grid(
            out,
            "Reasons",
            [("records", "number"), ("reason", "prose"), ("log object of an example", "prose")],
            rejects.reasons,
        ),
    )
    rows = (
        (
            reject.reason,
            "all" if reject.position < 0 else reject.position,
            reject.log_object,
            shortened(reject.raw),
            zone.show(reject.ingested_at)[:16],
        )
        for reject in rejects.rows
    )
    columns = [
        ("reason", "prose"),
        ("position", "number"),
        ("log object", "prose"),
        ("text", "?prose"),
        ("at", "?faint"),
    ]
    hidden = rejects.total - len(rejects.rows)
    note = f"{hidden:,} more: --limit 0 shows all; --json has their full text" if hidden > 0 else ""
    show(out, grid(out, "Newest", columns, rows, note))


def shortened(text: str | None, width: int = 60) -> str:
    """Return the beginning of a text on one line."""
    line = " ".join((text or "").split())
    return line if len(line) <= width else line[: width - 1] + "…"


def show_columns(tables: Sequence[Table], functions: Mapping[str, str]) -> None:
    """Show every column with its type and meaning."""
    out = console()
    for table in tables:
        columns = [("column", "text"), ("type", "faint"), ("meaning", "prose")]
        rows = ((column.name, column.type, column.meaning) for column in table.columns)
        show(out, grid(out, f"{table.name}: {table.meaning}", columns, rows))
    if functions:
        show(out, grid(out, "Functions", [("function", "text"), ("returns", "prose")], functions.items()))


def columns_markdown(tables: Sequence[Table], functions: Mapping[str, str]) -> str:
    """Return the same as a Markdown page, which is `docs/schema.md`."""
    origin = "Generated by `trailsift columns --format markdown`; change `trailsift/schema.py` instead of this page."
    lines = ["# Tables", "", origin, ""]
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


def show_compacted(compacted: Compacted) -> None:
    """Show what a compaction did."""
    out = console()
    if compacted.upgraded is not None:
        out.print(_upgraded(compacted.upgraded), soft_wrap=True)
    if compacted.partitions:
        before = f"{plural(compacted.files_before, 'file')} ({size(compacted.bytes_before)})"
        after = f"{plural(compacted.files_after, 'file')} ({size(compacted.bytes_after)})"
        out.print(f"{before} merged into {after} in {duration(compacted.seconds)}.")
    else:
        out.print("Nothing to compact: every closed day is already compact.")
    for table, number in compacted.folded.items():
        out.print(f"{plural(number, 'row')} of {table} folded into (other): beyond the budget in lake.json.")
    if compacted.files_expired:
        rows, freed = plural(compacted.rows_expired, "row"), size(compacted.bytes_expired)
        out.print(f"Retention removed {rows} ({freed}): events before {compacted.events_before}, and what is older.")
    if compacted.seen_files_expired or compacted.log_objects_expired:
        files = plural(compacted.seen_files_expired, "file")
        names = plural(compacted.log_objects_expired, "log object name")
        out.print(f"{files} of event ids and {names} expired: too old to be delivered again.")
    if compacted.files_deleted:
        freed = size(compacted.bytes_deleted)
        out.print(f"{plural(compacted.files_deleted, 'replaced file')} deleted, {freed} freed.")


def show_expired(expired: Expired) -> None:
    """Show what retention removed, or would remove, and when it is gone from the disk."""
    out = console()
    limits = [
        f"{what} before {day}"
        for what, day in (("events", expired.events_before), ("summaries", expired.summaries_before))
        if day is not None
    ]
    if expired.files:
        columns = [("table", "text"), ("days", "number"), ("first", "text"), ("last", "text"), ("rows", "number")]
        columns += [("files", "number"), ("size", "number")]
        rows = ((t.table, t.days, t.first_day, t.last_day, t.rows, t.files, size(t.bytes)) for t in expired.tables)
        title = "Would be removed" if expired.dry_run else "Removed"
        show(out, grid(out, f"{title}: {' and '.join(limits)} (UTC)", columns, rows))
    else:
        out.print(f"Nothing to remove: the lake has no {' and no '.join(limits)} (UTC).")
    if expired.straddling:
        files = plural(expired.straddling, "file")
        out.print(f"{files} that another engine wrote also hold later days, and stay until all of them are past.")
    if expired.deleted_from is not None:
        at = expired.deleted_from[:16].replace("T", " ")
        out.print(
            f"{size(expired.bytes)} are out of every answer now, and still on the disk. The first `trailsift compact` "
            f"or `expire` after {at} UTC deletes the files; then nothing brings them back."
        )
    if expired.files_deleted:
        files, freed = plural(expired.files_deleted, "file"), size(expired.bytes_deleted)
        out.print(f"{files} that were removed or replaced earlier are deleted for good: {freed}.")
    if expired.dry_run and expired.files:
        out.print("Nothing was changed. Without --dry-run, this is removed.")


def show_retention(setting: Retention | None, status: Status) -> None:
    """Show how long a lake keeps things by its settings, and what the next compaction removes."""
    out = console()
    if setting is None:
        out.print("The lake has no setting: compaction removes no events.")
        return
    out.print(
        f"{_periods(setting)[0].upper()}{_periods(setting)[1:]}; nothing younger than {period_of(setting.at_least)} "
        "ever goes. `compact`, and ingests at their end, apply it."
    )
    for what, text in _keeping(status)[:-1] if status.keeping.gone else _keeping(status):
        out.print(text if what else f"  {text}")


def _upgraded(upgraded: Upgraded) -> str:
    """Return one line about an upgrade."""
    text = f"Upgraded to format version {FORMAT_VERSION}: {plural(upgraded.days_recomputed, 'day')} computed again"
    kept = upgraded.days_kept
    if not kept:
        return f"{text}."
    days = f"{plural(len(kept), 'day')} kept as {'it was' if len(kept) == 1 else 'they were'}: {', '.join(kept)}"
    return f"{text}, {days}, of which not all events are stored."


def show_registered(registered: Registered) -> None:
    """Show what was done with each table in Glue."""
    out = console()
    words = {
        "registered": "registered",
        "moved": "moved to commit {commit} from {before}",
        "current": "follows already",
        "ahead": "follows a later commit of another writer",
    }
    rows = [
        (state.table, words[state.what].format(commit=state.commit, before=state.before))
        for state in registered.tables
        if state.what in words
    ]
    show(out, grid(out, "", (("table", "text"), ("in Glue", "text")), rows))
    out.print(f"The {registered.target.name} follows each commit of {registered.lake} from now on.", soft_wrap=True)
    if registered.before is not None:
        out.print(
            f"The tables in the {registered.before.name} do not follow any longer, and stay as they are.",
            soft_wrap=True,
        )


def show_unregistered(lake: str, before: Target | None) -> None:
    """Show which database no longer follows a lake."""
    out = console()
    if before is None:
        out.print(f"No Glue database follows {lake}.", soft_wrap=True)
        return
    account = f" --catalog-id {before.catalog_id}" if before.catalog_id else ""
    out.print(
        f"The {before.name} does not follow {lake} any longer. Its tables stay as they are, and queries by them fail "
        "once the lake has replaced what they name. This removes them from Glue, and nothing from the lake:",
        soft_wrap=True,
    )
    out.print(
        f"  aws glue batch-delete-table --region {before.region}{account} --database-name {before.database} "
        f"--tables-to-delete {' '.join(TABLES)}",
        soft_wrap=True,
    )


def show_relocated(relocated: Relocated) -> None:
    """Show what a relocation did."""
    if relocated.tables:
        console().print(
            f"The lake from {relocated.moved_from} is now at {relocated.lake}: {plural(relocated.files, 'live file')}."
        )
    else:
        console().print(f"The lake at {relocated.lake} was not moved: nothing to do.")


#: Problems that are listed on a terminal.
_PROBLEMS = 50


def show_verified(found: Verification) -> None:
    """Show whether a lake is sound, else what is wrong with it and what to do."""
    out = console()
    extent = f"{plural(found.files, 'file')} ({size(found.bytes)}) and {plural(found.rows, 'row')} of the catalog"
    how = "sizes only" if found.quick else "content"
    if found.is_sound:
        out.print(f"No damage found: {extent} are as they were written ({how}), in {duration(found.seconds)}.")
    else:
        out.print(f"{plural(len(found.problems), 'problem')} found in {extent} ({how}).", style="bold")
    for advice in dict.fromkeys(problem.advice for problem in found.problems):
        alike = [problem for problem in found.problems if problem.advice == advice]
        out.print()
        for problem in alike[:_PROBLEMS]:
            out.print(safe(f"{problem.where}: {problem.what}"), style="red", soft_wrap=True)
        if len(alike) > _PROBLEMS:
            out.print(f"... and {len(alike) - _PROBLEMS:,} more; --json lists all.")
        out.print(f"  {advice}.")
    for note in found.notes:
        out.print(note, style="dim")
