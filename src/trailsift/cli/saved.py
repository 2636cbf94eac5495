"""Commands on the queries that a lake keeps under names: queries list, show, save, delete."""

from __future__ import annotations

import sys
from typing import Annotated

from cyclopts import App, Parameter

from trailsift.cli import STDIN
from trailsift.cli.options import JsonOption, LakeOption
from trailsift.cli.session import open_lake
from trailsift.terminal.output import print_json, print_line, print_lines, say

NameArgument = Annotated[str, Parameter(name="NAME", help="The name of a saved query, with or without @.")]

queries = App(
    name="queries", help="List, show, save and delete queries that the lake keeps under names.", help_epilogue=""
)


@queries.command(name="list", sort_key=1)
def list_command(lake: LakeOption, *, as_json: JsonOption = False) -> int:
    """List the saved queries. `trailsift query @NAME` runs one.

    Example: `trailsift queries list --lake lake`
    """
    handle = open_lake(lake)
    saved = handle.saved_queries()
    if as_json:
        print_json([query.as_dict() for query in saved])
    elif saved:
        from trailsift.terminal.saved import show_saved

        show_saved(saved)
    else:
        say("no queries are saved in this lake: `trailsift queries save NAME SQL` saves one")
    return 0


@queries.command(name="show", sort_key=2)
def show_command(name: NameArgument, /, *, lake: LakeOption) -> int:
    """Print the SQL of a saved query.

    Example: `trailsift queries show denied --lake lake`
    """
    print_lines(open_lake(lake).saved_query(name).sql)
    return 0


@queries.command(name="save", sort_key=3)
def save_command(
    name: Annotated[str, Parameter(name="NAME", help="Up to 64 letters a-z, digits, - and _.")],
    sql: Annotated[str, Parameter(name="SQL", help="One read-only statement; `-` reads it from standard input.")],
    /,
    *,
    lake: LakeOption,
    force: Annotated[bool, Parameter(name="--force", show_default=False, help="Replace a query of that name.")] = False,
) -> int:
    """Save a query in the lake, for everybody who uses it. It is checked, and not run.

    Example: `trailsift queries save denied "SELECT caller, sum(denied) FROM access GROUP BY 1" --lake lake`
    """
    from trailsift.analysis.shell import program, quoted

    saved = open_lake(lake).save_query(name, sys.stdin.read() if sql == STDIN else sql, replace=force)
    print_line(f"Saved. Next: {program()} query @{saved.name} --lake {quoted(lake)}")
    return 0


@queries.command(name="delete", sort_key=4)
def delete_command(name: NameArgument, /, *, lake: LakeOption) -> int:
    """Delete a saved query.

    Example: `trailsift queries delete denied --lake lake`
    """
    open_lake(lake).delete_query(name)
    print_line(f"deleted: @{name.removeprefix('@')}")
    return 0
