"""From inputs to a committed lake: finds what is new, starts the workers, and has ``batches`` drive them.

What drives them takes a second to import: it is imported while the workers start.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import SourceError
from trailsift.ingest.counts import SIZES, CallbackError, Counts, Progress, Sizes
from trailsift.lake.commit import IngestedObject
from trailsift.lake.disk import cannot_write
from trailsift.lake.writer import LakeWriter
from trailsift.sources import open_source
from trailsift.sources.base import LogObject, Source, delivered_within

if TYPE_CHECKING:
    from trailsift.rules import Rules

__all__ = ["SIZES", "Counts", "Progress", "Sizes", "ingest"]

#: Below this many bytes starting worker processes costs more than they give.
INLINE_BYTES = 6 << 20


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
    progress: Callable[[Progress], None] | None = None,
    sizes: Sizes = SIZES,
) -> Counts:
    """Ingests files, folders, globs and archives (``-``: standard input) into the lake, which is made if missing.

    ``since`` (included) and ``until`` (not included) select log objects by the minute of their delivery, as their names
    tell it (else by the time of the file); ``again`` also reads log objects that were ingested before; ``rules`` say
    which of the new events are stored, while the summaries count all of them. ``compact`` allows to tidy the lake up
    afterwards, for some seconds, where its many small files ask for it. ``hourly_partitions`` says how a new lake is
    laid out; one that is there must be so (None: as it is).
    Raises SourceError where an input does not exist or holds no CloudTrail at all, LakeError where the lake cannot be
    written. KeyboardInterrupt leaves what was committed and nothing else.
    """
    started = time.monotonic()
    source = inputs if isinstance(inputs, Source) else open_source(inputs, exclude=lake)
    try:
        files = source.find()
        chosen = [file for file in files if delivered_within(file, since, until)]
        if files and not chosen:
            raise SourceError(f"none of the {len(files)} files was delivered in the time asked for")
        opened = LakeWriter.create(lake, hourly_partitions=hourly_partitions, ahead=True)
        new = chosen if again else _not_known(opened, chosen)
        known = len(chosen) - len(new)
        counts = Counts(log_objects_known=known, log_objects_skipped=known)
        if new:
            # Imported lazily: an ingest of nothing new ends without them.
            from trailsift.ingest.pool import Pool

            pool = Pool(opened.root, _size(new, workers), rules, sizes.bounds)
            with pool:
                from trailsift.ingest.coordinator import Coordinator

                run = Coordinator(opened, new, counts, progress, sizes, rules, started)
                run.all(pool)
            if compact and run.committed:
                _tidy_up(opened, run.committed[0])
        else:
            # Objects are known, so a commit has been made and the tables exist. A writer that died after its last
            # commit left only this to do.
            opened.recover()
        counts.seconds = round(time.monotonic() - started, 3)
    except CallbackError as passed:
        raise passed.error from None
    except (OSError, sqlite3.DatabaseError) as error:
        # Inputs that cannot be read are counted, one by one: what comes here was about the lake.
        raise cannot_write(lake, error) from error
    finally:
        source.release()
    if not counts.records and not counts.log_objects_known:
        raise SourceError(f"no CloudTrail records in {source}: {len(files)} log objects were read")
    return counts


def _not_known(lake: LakeWriter, files: list[LogObject]) -> list[LogObject]:
    """The files that were not ingested before."""
    known = lake.known_objects([IngestedObject(file.name, file.version, file.delivered_on) for file in files])
    return [file for file in files if (file.name, file.version) not in known]


def _size(files: list[LogObject], workers: int | None) -> int:
    """How many worker processes there should be; 0 where they would cost more than they give."""
    if sum(file.size for file in files) < INLINE_BYTES and workers is None:
        return 0
    return min(workers or os.cpu_count() or 1, len(files))


def _tidy_up(lake: LakeWriter, first: int) -> None:
    """What the commits from number ``first`` on made necessary. What was ingested is safe: nothing here is an error."""
    from trailsift.lake.maintenance import upkeep

    try:
        upkeep(lake, first - 1)
    except Exception as error:  # of any kind: disk, catalog, Parquet, memory
        logging.getLogger("trailsift").warning(
            "everything was stored, but the lake could not be tidied up (%s: %s); `trailsift compact --lake %s` tries "
            "again, `--no-compact` leaves it to you",
            type(error).__name__,
            error,
            lake.root,
        )
