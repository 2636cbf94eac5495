"""From inputs to a committed lake: find the new log objects, start the workers, and let ``coordinator`` drive them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import ConflictError, SourceError
from trailsift.ingest.counts import SIZES, CallbackError, Counts, Progress, Sizes
from trailsift.lake.commit import IngestedObject
from trailsift.lake.disk import write_errors
from trailsift.lake.home import mirror_of
from trailsift.lake.writer import LakeWriter
from trailsift.sources import open_source
from trailsift.sources.base import LogObject, Source, delivered_within
from trailsift.sources.files import FileSource

if TYPE_CHECKING:
    from trailsift.rules import Rules

__all__ = ["SIZES", "Counts", "Progress", "Sizes", "ingest"]

#: Below this many bytes, starting worker processes costs more than it saves.
INLINE_BYTES = 6 << 20
#: How often an ingest into a lake in S3 goes on after other writers were first with the same events.
_ATTEMPTS = 100


def ingest(
    inputs: Sequence[str] | Source,
    lake: Path,
    *,
    workers: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    again: bool = False,
    rules: Rules | None = None,
    compact: bool = True,
    hourly_partitions: bool | None = None,
    group_readable: bool = False,
    progress: Callable[[Progress], None] | None = None,
    sizes: Sizes = SIZES,
) -> Counts:
    """Ingest files, folders, globs and archives (``-``: standard input), or a source, into the lake.

    The lake is created if it is missing. ``since`` (inclusive) and ``until`` (exclusive) select log objects by the
    minute of delivery in their names (else by the time of the file); ``again`` also reads log objects that were
    ingested before; ``rules`` decide which of the new events are stored, while the summaries count all of them.
    ``compact`` allows some seconds of compaction afterwards if the lake has many small files. ``hourly_partitions`` is
    the layout of a new lake; an existing one must have it (None: whatever it has). ``group_readable``: the group of a
    new lake's folder may read it, else only the user.
    Raise SourceError if an input does not exist or holds no CloudTrail at all, LakeError if the lake cannot be written.
    KeyboardInterrupt leaves only what was committed.
    """
    started = time.monotonic()
    source = inputs if isinstance(inputs, Source) else open_source(inputs, exclude=lake)
    files = source.find()
    try:
        chosen = [file for file in files if delivered_within(file, since, until)]
        if files and not chosen:
            raise SourceError(f"none of the {len(files)} log objects was delivered in the time asked for")
        # Unreadable inputs are counted, not raised: an OSError here is about the lake.
        with write_errors(lake):
            opened = LakeWriter.create(
                lake, hourly_partitions=hourly_partitions, group_readable=group_readable, ahead=True
            )
            new = chosen if again else _only_new(opened, chosen)
            skipped = len(chosen) - len(new)
            counts = Counts(log_objects_known=skipped, log_objects_skipped=skipped)
            if isinstance(source, FileSource):
                counts.links_passed_over = source.links_passed_over
            if new:
                committed = _ingest_new(opened, new, counts, progress, sizes, rules, workers, started)
                if compact and committed:
                    _compact(opened, committed[0])
            else:
                # Objects are known, so a commit has been made and the tables exist. A writer that died after its last
                # commit left only this to do.
                opened.recover()
        counts.seconds = round(time.monotonic() - started, 3)
    except CallbackError as wrapped:
        raise wrapped.error from None
    finally:
        source.release()
    if not counts.records and not counts.log_objects_known:
        raise SourceError(f"no CloudTrail records in {source}: {len(files)} log objects were read")
    return counts


def _ingest_new(
    lake: LakeWriter,
    files: list[LogObject],
    counts: Counts,
    progress: Callable[[Progress], None] | None,
    sizes: Sizes,
    rules: Rules | None,
    workers: int | None,
    started: float,
) -> list[int]:
    """Ingest log objects; return the numbers of the commits.

    In S3, a writer on another machine may commit some of the same events first. Then the batch that was not committed
    is read again: which of its events are new is another question now.
    """
    # Imported lazily: an ingest of nothing new ends without them.
    from trailsift.ingest.pool import Pool

    committed: list[int] = []
    for attempt in range(_ATTEMPTS):
        before = replace(counts)
        with Pool(lake.root, _size(files, workers), rules, sizes.bounds) as pool:
            from trailsift.ingest.coordinator import Coordinator

            coordinator = Coordinator(lake, files, counts, progress, sizes, rules, started)
            try:
                coordinator.all(pool)
            except ConflictError:
                if mirror_of(lake.root) is None or attempt == _ATTEMPTS - 1:
                    raise
                coordinator.committed_counts.write(counts, before)
                committed += coordinator.committed
                left = _only_new(lake, files)
                others = max(len(files) - len(left) - (counts.log_objects - before.log_objects), 0)
                counts.log_objects_known += others
                counts.log_objects_skipped += others
                files = left
            else:
                return committed + coordinator.committed
    raise AssertionError


def _only_new(lake: LakeWriter, files: list[LogObject]) -> list[LogObject]:
    """Return the log objects that were not ingested before."""
    known = lake.known_objects([IngestedObject(file.name, file.version, file.delivered_on) for file in files])
    return [file for file in files if (file.name, file.version) not in known]


def _size(files: list[LogObject], workers: int | None) -> int:
    """Return the number of worker processes; 0 if they would cost more than they save."""
    if sum(file.size for file in files) < INLINE_BYTES and workers is None:
        return 0
    from multiprocessing import current_process

    if current_process().daemon:
        # A worker of somebody's pool must not have children.
        return 0
    return min(workers or os.cpu_count() or 1, len(files))


def _compact(lake: LakeWriter, first: int) -> None:
    """Compact what the commits from number ``first`` on made necessary. Everything is stored, so nothing is raised."""
    from trailsift.lake.maintenance import maintain

    try:
        maintain(lake, first - 1)
    except Exception as error:  # any: disk, catalog, Parquet, memory
        logging.getLogger("trailsift").warning(
            "everything was stored, but the lake could not be compacted (%s: %s); `trailsift compact --lake %s` tries "
            "again, and `--no-compact` skips this step",
            type(error).__name__,
            error,
            lake.root,
        )
