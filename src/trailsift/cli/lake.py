"""Commands that look after a lake, and what a lake is made of: status, rejects, connect, columns."""

from __future__ import annotations

import sys
from typing import Annotated, Literal

from cyclopts import Parameter

from trailsift.analysis.time_range import Period, zone_of
from trailsift.cli.options import JsonOption, LakeOption, LimitOption, OutputOption, ZoneOption
from trailsift.errors import UsageError


def status(*, lake: LakeOption, timezone: ZoneOption = "UTC", as_json: JsonOption = False) -> int:
    """What is in the lake: time range, tables, commits, and whether the books balance.

    Example: `trailsift status --lake lake`
    """
    from trailsift.analysis.status import status as ask
    from trailsift.terminal import lake as keep
    from trailsift.terminal.console import print_json

    zone = Period(zone=zone_of(timezone))
    found = ask(lake)
    if as_json:
        print_json(found.as_dict())
    else:
        keep.show_status(found, zone)
    return 0


def rejects(
    *, lake: LakeOption, limit: LimitOption = None, timezone: ZoneOption = "UTC", as_json: JsonOption = False
) -> int:
    """What could not be stored, where it is, and why.

    Example: `trailsift rejects --lake lake`
    """
    from trailsift.analysis.rejects import rejects as ask
    from trailsift.cli.session import engine_of
    from trailsift.terminal import lake as keep
    from trailsift.terminal.console import print_json

    zone = Period(zone=zone_of(timezone))
    found = ask(engine_of(lake), limit if limit is not None else 0 if as_json else 10)
    if as_json:
        print_json(found.as_dict())
    else:
        keep.show_rejects(found, zone)
    return 0


def connect(*, lake: LakeOption, output: OutputOption = None) -> int:
    """Write a script that gives any DuckDB client the lake's tables as views, or a database file that has them.

    The views name the files of the newest commit; make them again after an ingest. An output that ends with .duckdb
    or .db becomes a database, for clients that open files, such as Powerpipe.

    Examples: `trailsift connect --lake lake -o lake.sql`, then `duckdb -init lake.sql`;
    `trailsift connect --lake lake -o lake.duckdb`
    """
    from trailsift.lake.index import open_snapshot
    from trailsift.query.connect import script

    text = script(open_snapshot(lake))
    if output is None:
        sys.stdout.write(text)
        return 0
    if output.suffix in (".duckdb", ".db"):
        from trailsift.engine.database import write_database

        write_database(output, text)
        print(f"trailsift: wrote {output}: a DuckDB database with the lake's tables as views", file=sys.stderr)
        return 0
    output.write_text(text, "utf-8")
    print(f"trailsift: wrote {output}: `duckdb -init {output}` opens the lake", file=sys.stderr)
    return 0


def columns(
    table: Annotated[str | None, Parameter(name="TABLE", help="One table only.")] = None,
    /,
    *,
    form: Annotated[Literal["table", "json", "markdown"], Parameter(name=["--format", "-f"])] = "table",
    as_json: JsonOption = False,
) -> int:
    """The columns of the lake's tables, with what they mean.

    Example: `trailsift columns hourly`
    """
    from trailsift.analysis.schema import functions, relations
    from trailsift.terminal import lake as keep
    from trailsift.terminal.console import print_json

    known = relations()
    if table is not None and table not in {one.name for one in known}:
        raise UsageError(f"there is no table {table}: there are {', '.join(one.name for one in known)}")
    chosen = [one for one in known if table in (None, one.name)]
    also = functions() if table is None else {}
    if as_json or form == "json":
        tables = [
            {"name": one.name, "meaning": one.meaning, "columns": [column._asdict() for column in one.columns]}
            for one in chosen
        ]
        print_json({"tables": tables, "functions": also})
    elif form == "markdown":
        sys.stdout.write(keep.columns_markdown(chosen, also))
    else:
        keep.show_columns(chosen, also)
    return 0
