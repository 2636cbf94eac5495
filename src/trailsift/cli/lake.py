"""Commands that look after a lake: status, rejects, connect, columns, compact, relocate."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from trailsift.analysis.time_range import Period, zone_of
from trailsift.cli.options import JsonOption, LakeOption, LimitOption, OutputOption, QuietOption, ZoneOption
from trailsift.errors import UsageError

if TYPE_CHECKING:
    from trailsift.lake.compact import Compacted


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
    from trailsift.lake.open import open_snapshot
    from trailsift.query.connect import script

    text = script(open_snapshot(lake))
    if output is None:
        sys.stdout.write(text)
        return 0
    if output.suffix in (".duckdb", ".db"):
        from trailsift.query.connect import write_database

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
    from trailsift.query.relations import described, functions
    from trailsift.terminal import lake as keep
    from trailsift.terminal.console import print_json

    known = described()
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


def compact(
    *,
    lake: LakeOption,
    everything: Annotated[
        bool, Parameter(name="--all", show_default=False, help="Also days that still take events.")
    ] = False,
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> int:
    """Make few large files of many small ones, and delete what is no longer needed.

    Answers stay the same, also while it runs. Replaced files go ten minutes later at the earliest, with the next
    `compact`.

    Example: `trailsift compact --lake lake`
    """
    from trailsift.lake.compact import CompactionProgress
    from trailsift.lake.compact import compact as run
    from trailsift.terminal.console import print_json
    from trailsift.terminal.progress import CountProgress

    with contextlib.ExitStack() as open_bar:
        bars: list[CountProgress] = []

        def update(now: CompactionProgress) -> None:
            # How much there is to do is known with the first report only.
            if not bars:
                bars.append(open_bar.enter_context(CountProgress("days and services", now.partitions_total, quiet)))
            bars[0].update(now.partitions_done)

        done = run(lake, everything=everything, progress=update)
    if as_json:
        print_json(done.as_dict())
    else:
        _show_compacted(done)
    return 0


def _show_compacted(done: Compacted) -> None:
    from trailsift.terminal.console import console, duration, plural, size

    out = console()
    if done.partitions:
        out.print(
            f"{plural(done.files_before, 'file')} ({size(done.bytes_before)}) became "
            f"{plural(done.files_after, 'file')} ({size(done.bytes_after)}) in {duration(done.seconds)}."
        )
    else:
        out.print("Nothing to compact: every closed day is in order already.")
    for table, number in done.folded.items():
        out.print(f"{plural(number, 'line')} of {table} folded into (other): more than the budget in lake.json.")
    if done.seen_files_expired or done.log_objects_expired:
        out.print(
            f"{plural(done.seen_files_expired, 'file')} of event ids and "
            f"{plural(done.log_objects_expired, 'log object')} forgotten: too old to come again."
        )
    if done.files_deleted:
        out.print(f"{plural(done.files_deleted, 'replaced file')} deleted, {size(done.bytes_deleted)} freed.")


def relocate(*, lake: LakeOption, as_json: JsonOption = False) -> int:
    """Make a lake usable that was moved or copied here; the place it came from is not touched.

    Example: `mv lake archive/lake`, then `trailsift relocate --lake archive/lake`
    """
    from trailsift.lake.relocate import relocate as run
    from trailsift.terminal.console import console, plural, print_json

    done = run(lake)
    if as_json:
        print_json(dataclasses.asdict(done))
    elif done.tables:
        console().print(
            f"The lake from {done.moved_from} is at {done.lake} now: {plural(done.files, 'file')} in place."
        )
    else:
        console().print(f"The lake at {done.lake} is in its place: nothing to do.")
    return 0
