"""Commands that report and query: summary, roles, role, query, export."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.cli import STDIN
from trailsift.cli.options import (
    ForceOption,
    JsonOption,
    LakeOption,
    LimitOption,
    OptionalLakeOption,
    OutputOption,
    PricesOption,
    SinceOption,
    UntilOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake, output_file, say_why_empty
from trailsift.errors import UsageError
from trailsift.terminal.output import is_terminal, say

if TYPE_CHECKING:
    from pathlib import Path

    from trailsift.analysis.export import Skipped
    from trailsift.api import Lake

#: Rows of a table on a terminal, without --limit.
_SCREENFUL = 20
#: Events that an export names which it has left out.
_SKIPPED = 10


def summary_command(
    lake: LakeOption,
    *,
    by: Annotated[
        Literal["event", "caller", "role", "resource", "hour", "service", "account", "region", "error"] | None,
        Parameter(help="Show one table, grouped by this. Default: an overview."),
    ] = None,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show exact totals, whatever was dropped or sampled: an overview, or one table.

    Examples: `trailsift summary lake`, `trailsift summary --lake lake --by caller --since -7d`
    """
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    if by is None:
        overview = handle.summary(since=period.since, until=period.until, limit=limit)
        if as_json:
            _print_json(overview.as_dict())
        elif overview.total:
            from trailsift.terminal.summary import show_overview

            show_overview(overview)
            _hint_at_data_events(handle)
        if overview.total is None:
            say_why_empty(handle, period)
        return 0
    # A terminal gets a screenful; JSON and hours are complete unless a limit is given.
    default = 0 if as_json or by == "hour" else _SCREENFUL
    summary = handle.summary(by, since=period.since, until=period.until, limit=default if limit is None else limit)
    if as_json:
        _print_json(summary.as_dict())
    elif summary.lines:
        from trailsift.terminal.summary import show_summary

        show_summary(summary)
    if not summary.lines:
        say_why_empty(handle, period)
    return 0


def _hint_at_data_events(lake: Lake) -> None:
    """Say how to switch data events on if the lake has none."""
    if not lake.has_data_events():
        from trailsift.analysis.shell import program, quoted

        command = f"{program()} roles --need-data-events --lake {quoted(lake.path)}"
        say(f"this lake holds no data events: a trail logs them only if its selectors ask for them. See `{command}`")


def roles_command(
    lake: LakeOption,
    *,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    need_data_events: Annotated[
        bool, Parameter(show_default=False, help="List the callers worth switching data events on for, with reasons.")
    ] = False,
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """List all callers (roles, users, services, other accounts): how busy they are, what they touched, what they were
    denied.

    `--need-data-events` is derived from management events only, strongest first.

    Example: `trailsift roles --lake lake --since 2026-03-02 --until 2026-03-09`
    """
    if limit is not None and limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    handle = open_lake(lake, timezone)
    if need_data_events:
        return _data_event_candidates(handle, since, until, limit, as_json)
    from trailsift.analysis.base import plain

    period = handle.period(since, until)
    roles = handle.roles(since=period.since, until=period.until)
    if as_json:
        _print_json({"period": period.as_dict(), "roles": plain(roles[: limit or None])})
    elif roles:
        from trailsift.terminal.role import show_roles

        show_roles(roles, period, _SCREENFUL if limit is None else limit)
    if not roles:
        say_why_empty(handle, period)
    return 0


def _data_event_candidates(lake: Lake, since: str | None, until: str | None, limit: int | None, as_json: bool) -> int:
    from dataclasses import asdict

    from trailsift.analysis.shell import program, quoted
    from trailsift.terminal.aws import show_needs
    from trailsift.terminal.output import print_line

    period = lake.period(since, until)
    needs = lake.data_event_candidates(since=period.since, until=period.until)[: limit or None]
    if as_json:
        _print_json({"period": period.as_dict(), "roles": [asdict(need) for need in needs]})
    elif needs:
        show_needs(needs)
        # Selectors compare userIdentity.arn: other callers cannot be selected.
        first = next((need for need in needs if need.role_arn and need.role_arn.startswith("arn:")), None)
        if first is not None:
            service = ",".join(first.services) or "s3"
            print_line(
                f"Next: {program()} selectors --role {quoted(first.role_arn or '')} --service {quoted(service)} "
                f"--lake {quoted(lake.path)}"
            )
    else:
        say("no caller's management events call for data events")
    return 0


def role_command(
    name: Annotated[
        str,
        Parameter(name="ROLE", help="An ARN, a name, another caller as `roles` shows it, or a part that no other has."),
    ],
    /,
    *,
    lake: LakeOption,
    since: SinceOption = None,
    until: UntilOption = None,
    timezone: ZoneOption = "UTC",
    limit: LimitOption = None,
    as_json: JsonOption = False,
) -> int:
    """Show one caller: what it did, where, when and from where, and what it was denied.

    Examples: `trailsift role orders-etl-batch --lake lake --timezone Asia/Seoul`,
    `trailsift role "account 444455556666" --lake lake`
    """
    handle = open_lake(lake, timezone)
    period = handle.period(since, until)
    role = handle.role(name, since=period.since, until=period.until)
    if as_json:
        _print_json(role.as_dict())
    elif role.events:
        from trailsift.terminal.role import show_role

        show_role(role, 10 if limit is None else limit)
    if not role.events:
        say_why_empty(handle, period)
    return 0


def query_command(
    sql: Annotated[str, Parameter(name="SQL", help="One read-only statement; `-` reads it from standard input.")],
    /,
    *,
    lake: OptionalLakeOption = None,
    form: Annotated[
        Literal["table", "line", "json", "csv", "parquet", "arrow"] | None,
        Parameter(
            name=["--format", "-f"],
            help="Format of the result; line: each row as a block. Default: by the end of the output's name, or table.",
        ),
    ] = None,
    output: OutputOption = None,
    force: ForceOption = False,
    csv_safe: Annotated[
        bool,
        Parameter(show_default=False, help="In CSV, begin texts that a spreadsheet would run as formulas with a '."),
    ] = False,
    explain: Annotated[
        bool, Parameter(show_default=False, help="Show the read plan without running the query.")
    ] = False,
    engine: Annotated[Literal["duckdb", "athena"], Parameter(help="Engine that runs the SQL.")] = "duckdb",
    timezone: ZoneOption = "UTC",
    ttl: Annotated[
        float | None, Parameter(help="Cache results of queries that use now() for this many seconds.")
    ] = None,
    no_cache: Annotated[bool, Parameter(show_default=False, help="Bypass the result cache.")] = False,
    timeout: Annotated[
        float | None,
        Parameter(help="Stop the query after this many seconds. Default: no limit; Ctrl-C stops it at any time."),
    ] = None,
    memory: Annotated[
        str | None, Parameter(help="Memory that the query may use, such as 2GB. Default: 60 % of the memory.")
    ] = None,
    spill: Annotated[
        str | None,
        Parameter(help="Disk for what does not fit into the memory, such as 20GB. Default: half of what is free."),
    ] = None,
    workgroup: Annotated[
        str, Parameter(help="Athena workgroup, by default that of the stack; its limits apply.")
    ] = "trailsift",
    database: Annotated[str, Parameter(help="Athena database with the trailsift tables.")] = "trailsift",
    prices: PricesOption = None,
    as_json: Annotated[bool, Parameter(name="--json", show_default=False, help="The same as --format json.")] = False,
) -> int:
    """Run SQL over the tables events, hourly, usage, profile, access, sessions and rejects.

    `trailsift columns` lists their columns. A table says what it leaves out to fit the terminal; `--format line` shows
    all of each row.

    Examples: `trailsift query "SELECT event_name, count(*) FROM events GROUP BY 1 ORDER BY 2 DESC" --lake lake`,
    `trailsift query "SELECT * FROM hourly" --lake lake -o hourly.parquet`
    """
    from trailsift.cli import query

    text = sys.stdin.read() if sql == STDIN else sql
    chosen = "json" if as_json else form or query.format_of(output)
    target = query.OutputOptions(chosen, output and output_file(output, force), not csv_safe)
    if engine == "athena":
        if timeout is not None or memory is not None or spill is not None:
            raise UsageError(
                "--timeout, --memory and --spill are for the engine duckdb: Athena has the workgroup's limits"
            )
        reuse = 0 if no_cache else max(round((ttl or 3600) / 60), 1)
        athena = query.AthenaOptions(workgroup, database, reuse, prices)
        return query.run_on_athena(text, target, explain, timezone, athena)
    options = query.RunOptions(ttl, not no_cache, timeout, memory)
    handle = open_lake(lake, timezone, memory_limit=memory, spill_limit=spill)
    return query.run(handle, text, target, explain=explain, options=options)


def export_command(
    lake: LakeOption,
    *,
    where: Annotated[str | None, Parameter(help="An SQL condition on the columns of events.")] = None,
    form: Annotated[
        Literal["ndjson", "records", "parquet", "csv"] | None,
        Parameter(
            name=["--format", "-f"],
            help='One record per line, one {"Records":[...]} document, or the rows of events as Parquet or CSV. '
            "Default: by the end of the output's name, or ndjson.",
        ),
    ] = None,
    output: OutputOption = None,
    force: ForceOption = False,
) -> int:
    """Export the stored records as CloudTrail wrote them, or the rows of events as Parquet or CSV.

    Examples: `trailsift export --lake lake --where "event_name = 'DeleteObject'" > deleted.ndjson`,
    `trailsift export --lake lake --output events.parquet`
    """
    if output is not None:
        output_file(output, force)
    form = form or _export_form(output)
    handle = open_lake(lake)
    if form in ("parquet", "csv"):
        return _export_rows(handle, output, where, form)
    omitted = handle.omitted_columns()
    if omitted:
        say(f"the export is not lossless: rules left {', '.join(omitted)} out of some events")
    from trailsift.terminal.output import json_stream

    skipped: list[Skipped] = []
    target = json_stream() if output is None else output
    count = handle.export(target, where=where, form=form, on_skipped=skipped.append)
    if skipped:
        say(
            f"{len(skipped):,} event{'' if len(skipped) == 1 else 's'} left out, whose records cannot be restored from "
            "what is stored"
        )
    for event in skipped[:_SKIPPED]:
        say(f"  {event.event_id} of {event.log_object}: {event.reason}")
    if not count and not skipped:
        say_why_empty(handle, handle.period())
    elif output is not None:
        say(f"{count:,} record{'' if count == 1 else 's'} written to {output}")
    return 0


def _export_form(output: Path | None) -> Literal["ndjson", "parquet", "csv"]:
    forms: dict[str, Literal["parquet", "csv"]] = {".parquet": "parquet", ".csv": "csv"}
    return "ndjson" if output is None else forms.get(output.suffix.lower(), "ndjson")


def _export_rows(lake: Lake, output: Path | None, where: str | None, form: Literal["parquet", "csv"]) -> int:
    """Write the rows of events; nothing about records has to be restored for that."""
    from trailsift.cli import query

    if output is None and form == "parquet" and is_terminal(sys.stdout):
        raise UsageError("--format parquet cannot be shown on a terminal: name a file with --output, or use a pipe")
    count = query.write_result(lake.event_rows(where, arrow=form == "parquet"), query.OutputOptions(form, output))
    if not count:
        say_why_empty(lake, lake.period())
    elif output is not None:
        say(f"{count:,} row{'' if count == 1 else 's'} written to {output}")
    return 0


def _print_json(value: object) -> None:
    from trailsift.terminal.output import print_json

    print_json(value)
