"""Commands that keep a lake in shape: compact, relocate."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from trailsift.cli.options import JsonOption, LakeOption, QuietOption

if TYPE_CHECKING:
    from trailsift.lake.compact import Compacted


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
    from trailsift.lake.compact import Progress
    from trailsift.lake.compact import compact as run
    from trailsift.terminal.console import print_json
    from trailsift.terminal.progress import CountProgress

    with contextlib.ExitStack() as open_bar:
        bars: list[CountProgress] = []

        def update(now: Progress) -> None:
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
