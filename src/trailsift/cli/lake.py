"""Commands that maintain a lake: status, rejects, connect, columns, compact, expire, relocate, verify."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.cli.options import (
    ForceOption,
    JsonOption,
    LakeOption,
    LimitOption,
    OutputOption,
    QuietOption,
    ZoneOption,
)
from trailsift.cli.session import open_lake, output_file
from trailsift.errors import UsageError
from trailsift.terminal.output import say

if TYPE_CHECKING:
    from pathlib import Path

    from trailsift.api import Lake
    from trailsift.lake.compact import CompactionProgress


def status_command(lake: LakeOption, *, timezone: ZoneOption = "UTC", as_json: JsonOption = False) -> int:
    """Show what is in the lake, how far it is behind, and what to do about it.

    Time range, tables, commits, and whether the counts reconcile; the newest delivery; hours in which an account and
    region that normally delivers did not; the last compaction; what retention removes next. Each ends in a command.

    Example: `trailsift status lake`
    """
    from trailsift.terminal.lake import show_status
    from trailsift.terminal.output import print_json

    handle = open_lake(lake, timezone)
    status = handle.status()
    if as_json:
        print_json(status.as_dict())
    else:
        show_status(status, handle.period())
    return 0


def rejects_command(
    lake: LakeOption,
    *,
    reason: Annotated[str, Parameter(show_default=False, help="Only reasons that contain this text.")] = "",
    limit: LimitOption = None,
    timezone: ZoneOption = "UTC",
    as_json: JsonOption = False,
) -> int:
    """Show what could not be stored, where it is, and why.

    Second copies of an event that differ from the stored one are here too: `conflicting-time`,
    `conflicting-content`, `fuller-copy` if the stored one is a part of it, and `reduced-copy`.

    Examples: `trailsift rejects --lake lake`, `trailsift rejects --lake lake --reason conflicting-time`
    """
    from trailsift.terminal.lake import show_rejects
    from trailsift.terminal.output import print_json

    handle = open_lake(lake, timezone)
    default = 0 if as_json else 10
    report = handle.rejects(default if limit is None else limit, reason=reason)
    if as_json:
        print_json(report.as_dict())
    else:
        show_rejects(report, handle.period(), reason)
    return 0


def connect_command(
    lake: LakeOption,
    *,
    output: OutputOption = None,
    force: ForceOption = False,
    follow: Annotated[
        bool,
        Parameter(
            name="--follow", show_default=False, help="Write the output again after each commit, until Ctrl-C stops it."
        ),
    ] = False,
    glue: Annotated[
        str | None, Parameter(help="Register the tables in this Glue database, and let it follow each commit.")
    ] = None,
    no_glue: Annotated[
        bool, Parameter(name="--no-glue", show_default=False, help="Let no Glue database follow any longer.")
    ] = False,
    region: Annotated[
        str | None, Parameter(help="Region of the Glue database. Default: that of the environment.")
    ] = None,
    catalog_id: Annotated[str | None, Parameter(help="Account of the Glue database, if it is another one.")] = None,
    replace: Annotated[
        bool,
        Parameter(
            name="--replace",
            show_default=False,
            help="With --glue: also take back tables of this lake that another engine has changed.",
        ),
    ] = False,
    as_json: Annotated[
        bool, Parameter(name="--json", show_default=False, help="With --glue: print one JSON document.")
    ] = False,
) -> int:
    """Connect another program to the lake: any DuckDB client, or Athena, Spark and Trino by Glue.

    For DuckDB it writes a script, or a database file, that has the lake's tables as views. They name the files of the
    newest commit: `--follow` writes it again after each, and so does running it again with --force. An output that
    ends in .duckdb or .db becomes a database, for clients that open files, such as Powerpipe.

    With `--glue`, the tables of a lake in S3 are registered in a Glue database. It follows each commit from then on,
    by a setting of the lake; run it again to repair what does not follow.

    Examples: `trailsift connect --lake lake -o lake.sql`, then `duckdb -init lake.sql`;
    `trailsift connect --lake lake -o lake.duckdb`; `trailsift connect --lake s3://bucket/lake --glue cloudtrail`
    """
    from trailsift.analysis.shell import quoted
    from trailsift.terminal.output import print_script

    if output is not None:
        output_file(output, force)
    handle = open_lake(lake)
    if glue is None and (region or catalog_id or replace):
        raise UsageError("--region, --catalog-id and --replace are for --glue DATABASE")
    if glue is not None or no_glue:
        if follow or output is not None or (glue is not None and no_glue):
            raise UsageError("use one of --output, --glue and --no-glue; --follow is for --output")
        _connect_glue(handle, glue, region, catalog_id, replace, as_json)
    elif as_json:
        raise UsageError("--json is for --glue and --no-glue")
    elif follow:
        _connect_follow(handle, output)
    elif output is None:
        print_script(handle.connect_script())
    elif _write_views(handle, output):
        say(f"wrote {output}, a DuckDB database with the lake's tables as views")
    else:
        say(f"wrote {output}; `duckdb -init {quoted(output)}` opens the lake")
    return 0


def _write_views(handle: Lake, output: Path) -> bool:
    """Write a database or a script; return whether it is a database."""
    from trailsift.storage.output_file import new_file

    if output.suffix in (".duckdb", ".db"):
        handle.connect_database(output)
        return True
    text = handle.connect_script()
    with new_file(output, "w", encoding="utf-8") as file:
        file.write(text)
    return False


def _connect_follow(handle: Lake, output: Path | None) -> None:
    """Write the output after each commit. Whoever has the former one open keeps it: it is replaced as a whole."""
    if output is None:
        raise UsageError("--follow needs a file to write: name it with --output, such as lake.duckdb")
    for _ in handle.commits():
        _write_views(handle, output)
        say(f"wrote {output} as of the newest commit; waiting for the next, Ctrl-C stops")


def _connect_glue(
    handle: Lake, database: str | None, region: str | None, catalog_id: str | None, replace: bool, as_json: bool
) -> None:
    from trailsift.terminal.lake import show_registered, show_unregistered
    from trailsift.terminal.output import print_json

    if database is None:
        before = handle.unregister()
        if as_json:
            print_json({"lake": str(handle.path), "glue": None, "before": before and before.as_dict()})
        else:
            show_unregistered(str(handle.path), before)
        return
    registered = handle.register(database, region=region, catalog_id=catalog_id, replace=replace)
    if as_json:
        print_json(registered.as_dict())
    else:
        show_registered(registered)


def columns_command(
    table: Annotated[str | None, Parameter(name="TABLE", help="One table only.")] = None,
    /,
    *,
    form: Annotated[
        Literal["table", "json", "markdown"], Parameter(name=["--format", "-f"], help="Format of the list.")
    ] = "table",
    as_json: JsonOption = False,
) -> int:
    """List the columns of the lake's tables and their meaning.

    Example: `trailsift columns hourly`
    """
    from trailsift.query.relations import described, functions
    from trailsift.terminal.lake import columns_markdown, show_columns
    from trailsift.terminal.output import print_json, print_script

    tables = described()
    names = [table.name for table in tables]
    if table is not None and table not in names:
        raise UsageError(f"there is no table {table}: the tables are {', '.join(names)}")
    chosen = [candidate for candidate in tables if table in (None, candidate.name)]
    macros = functions() if table is None else {}
    if as_json or form == "json":
        listed = [
            {"name": shown.name, "meaning": shown.meaning, "columns": [column._asdict() for column in shown.columns]}
            for shown in chosen
        ]
        print_json({"tables": listed, "functions": macros})
    elif form == "markdown":
        print_script(columns_markdown(chosen, macros))
    else:
        show_columns(chosen, macros)
    return 0


def compact_command(
    lake: LakeOption,
    *,
    everything: Annotated[
        bool, Parameter(name="--all", show_default=False, help="Also compact days that still receive events.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Merge many small files into few large ones, and delete files that are no longer needed.

    Answers stay the same, also while it runs. Replaced files are deleted by the next `compact`, ten minutes later at
    the earliest. A lake of format version 1 is upgraded first: it can be read before, but not written. If the lake has
    settings for it (`trailsift expire --save`), events that are too old are removed first.

    Example: `trailsift compact --lake lake`
    """
    from trailsift.terminal.lake import show_compacted
    from trailsift.terminal.output import print_json
    from trailsift.terminal.progress import CountProgress

    with contextlib.ExitStack() as open_bar:
        bars: dict[str, CountProgress] = {}

        def update(now: CompactionProgress) -> None:
            # The total is known from the first report on. What follows an upgrade has a bar of its own.
            if now.parts not in bars:
                open_bar.close()
                bars[now.parts] = open_bar.enter_context(CountProgress(now.parts, now.partitions_total, quiet))
            bars[now.parts].update(now.partitions_done)

        compacted = open_lake(lake).compact(everything=everything, progress=update)
    if as_json:
        print_json(compacted.as_dict())
    else:
        show_compacted(compacted)
    return 0


_EventsOption = Annotated[
    str | None, Parameter(help="Keep events for this long: 90d, 26w, 2y. Default: what the lake's settings say.")
]
_SummariesOption = Annotated[
    str | None, Parameter(help="Keep summaries for this long. Default: without limit, or as the settings say.")
]


def expire_command(
    lake: LakeOption,
    *,
    events: _EventsOption = None,
    summaries: _SummariesOption = None,
    at_least: Annotated[str | None, Parameter(help="Never remove what is younger. Default: 30d.")] = None,
    dry_run: Annotated[
        bool, Parameter(name="--dry-run", show_default=False, help="Only show what would be removed.")
    ] = False,
    save: Annotated[
        bool,
        Parameter(
            name="--save",
            show_default=False,
            help="Remove nothing now, but keep this as a setting, which `compact` and ingests apply.",
        ),
    ] = False,
    show: Annotated[bool, Parameter(name="--show", show_default=False, help="Show the lake's setting.")] = False,
    forget: Annotated[
        bool, Parameter(name="--forget", show_default=False, help="Take the setting out of the lake.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Remove events, and their counts, that are older than you want to keep them.

    Whole days go, by the time of the event in UTC, in one commit. Their files are deleted by the first `expire` or
    `compact` that runs a day later, and then nothing brings them back. Logs of removed days that are ingested later
    are not stored: they count as dropped by `retention`, and the summaries count them.

    Examples: `trailsift expire --events 90d --summaries 2y --dry-run --lake lake`,
    `trailsift expire --events 90d --summaries 2y --save --lake lake`
    """
    from trailsift.terminal.lake import show_expired, show_retention
    from trailsift.terminal.output import print_json

    if save + show + forget + dry_run > 1:
        raise UsageError("use one of --dry-run, --save, --show and --forget")
    handle = open_lake(lake)
    if show or forget or save:
        if (show or forget) and (events or summaries or at_least):
            raise UsageError("--show and --forget take no periods")
        if save and events is None:
            raise UsageError("say how long to keep events, as with --events 90d")
        if save or forget:
            handle.set_retention(events, summaries, at_least=at_least)
        setting = handle.retention()
        if as_json:
            print_json({"lake": str(lake), "retention": setting and setting.as_dict()})
        else:
            show_retention(setting, handle.status(gaps=False))
        return 0
    expired = handle.expire(events=events, summaries=summaries, at_least=at_least, dry_run=dry_run)
    if as_json:
        print_json(expired.as_dict())
    else:
        show_expired(expired)
    return 0


def relocate_command(lake: LakeOption, *, as_json: JsonOption = False) -> int:
    """Repair a lake after it was moved or copied here. The original is not touched.

    Example: `mv lake archive/lake`, then `trailsift relocate --lake archive/lake`
    """
    from trailsift.terminal.lake import show_relocated
    from trailsift.terminal.output import print_json

    relocated = open_lake(lake).relocate()
    if as_json:
        print_json(dataclasses.asdict(relocated))
    else:
        show_relocated(relocated)
    return 0


def verify_command(
    lake: LakeOption,
    *,
    quick: Annotated[
        bool, Parameter(name="--quick", show_default=False, help="Compare sizes of files, and not their content.")
    ] = False,
    as_json: JsonOption = False,
) -> int:
    """Look for damage in the lake, and say what to do about it. Nothing is written.

    Checks what a lake from somebody else may contain, the catalog and its rows, and the SHA-256 of each file of data,
    event ids, Iceberg metadata and manifests. It finds what disks and mistakes do, not a skilled forger; queries do not
    look for damage. Files of earlier versions get their digests from the next `compact`.

    Exit code 3: something is wrong. Exit code 1: the lake could not be checked.

    Example: `trailsift verify --lake lake`
    """
    from trailsift.terminal.lake import show_verified
    from trailsift.terminal.output import print_json

    found = open_lake(lake).verify(quick=quick)
    if as_json:
        print_json(found.as_dict())
    else:
        show_verified(found)
    return 0 if found.is_sound else 3
