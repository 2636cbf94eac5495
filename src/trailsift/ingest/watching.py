"""A whole watch: open the place and the lake, commit what arrives, tidy up."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.ingest.watch import Hooks, Pace, Watch, WatchStatus
from trailsift.lake.beside import Beside
from trailsift.lake.disk import write_errors
from trailsift.lake.known import KnownObjects
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.writer import LakeWriter
from trailsift.prices import load_prices
from trailsift.sources import WatchOptions, open_arrivals
from trailsift.sources.base import Known, NothingKnown

if TYPE_CHECKING:
    from trailsift.rules import Rules
    from trailsift.sources.arrivals import Arrivals


def watch(
    place: str,
    root: Path,
    options: WatchOptions,
    hooks: Hooks,
    pace: Pace,
    stop: threading.Event,
    *,
    rules: Rules | None = None,
    workers: int | None = None,
    compact: bool = True,
    hourly_partitions: bool | None = None,
    group_readable: bool = False,
) -> WatchStatus:
    """Watch a place until ``stop`` is set or the pace says so; return the totals.

    The lake is made when the place is known to be one: a mistake writes nothing. Raise TrailsiftError if the place
    cannot be watched, LakeError if the lake cannot be made.
    """

    def known() -> Known:
        return KnownObjects(root.resolve()) if (root / LAKE_FILE).exists() else NothingKnown()

    arrivals = open_arrivals(place, root, options, known, load_prices, hooks.trouble)
    return watch_arrivals(
        arrivals,
        root,
        hooks,
        pace,
        stop,
        rules=rules,
        workers=workers,
        compact=compact,
        hourly_partitions=hourly_partitions,
        group_readable=group_readable,
    )


def watch_arrivals(
    arrivals: Arrivals,
    root: Path,
    hooks: Hooks,
    pace: Pace,
    stop: threading.Event,
    *,
    rules: Rules | None = None,
    workers: int | None = None,
    compact: bool = True,
    hourly_partitions: bool | None = None,
    group_readable: bool = False,
) -> WatchStatus:
    """Watch what arrives, wherever it comes from, as ``watch`` does."""
    try:
        hooks.started(arrivals.start())
        with write_errors(root):
            lake = LakeWriter.create(root, hourly_partitions=hourly_partitions, group_readable=group_readable)
            # A reader can open the lake before anything has arrived.
            lake.ready()
    except BaseException:
        arrivals.close()
        raise
    beside = Beside(lake, hooks.trouble) if compact else None
    before = lake.last_commit_number()
    running = Watch(arrivals, lake, hooks, pace, rules=rules, workers=workers, beside=beside)
    status = running.run(stop)
    if compact and pace.once and status.commits:
        _compact(lake, before, hooks)
    return status


def _compact(lake: LakeWriter, before: int, hooks: Hooks) -> None:
    """Do the maintenance of an ingest: a watch that is over has none beside it. Nothing is raised."""
    from trailsift.lake.maintenance import maintain

    try:
        maintain(lake, before)
    except Exception as error:  # any: disk, catalog, Parquet, memory
        hooks.trouble(f"everything was stored, but the lake could not be compacted ({type(error).__name__}: {error})")
