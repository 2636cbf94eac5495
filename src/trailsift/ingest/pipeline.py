"""From inputs to a committed lake: find the new log objects, start the workers, and let ``coordinator`` drive them."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import SourceError
from trailsift.ingest.counts import SIZES, CallbackError, Counts, Progress, Sizes
from trailsift.ingest.schedule import spans_of
from trailsift.lake.commit import IngestedObject
from trailsift.lake.disk import write_errors
from trailsift.lake.home import mirror_of
from trailsift.lake.known import KnownObjects
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.writer import LakeWriter
from trailsift.sources import open_source
from trailsift.sources.base import (
    Found,
    LogObject,
    NothingKnown,
    RemoteSource,
    Source,
    Wanted,
    delivered_within,
)
from trailsift.sources.cloudtrail_layout import name_parts
from trailsift.sources.files import FileSource

if TYPE_CHECKING:
    from trailsift.ingest.pool import Pool
    from trailsift.rules import Rules

__all__ = ["SIZES", "Counts", "Progress", "Sizes", "ingest"]


def ingest(
    inputs: Sequence[str] | Source | RemoteSource,
    lake: Path,
    *,
    workers: int | None = None,
    since: datetime | None = None,
    until: datetime | None = None,
    again: bool = False,
    wanted: Wanted | None = None,
    requester_pays: bool = False,
    rules: Rules | None = None,
    compact: bool = True,
    hourly_partitions: bool | None = None,
    group_readable: bool = False,
    progress: Callable[[Progress], None] | None = None,
    announce: Callable[[Found], None] | None = None,
    sizes: Sizes = SIZES,
) -> Counts:
    """Ingest files, folders, globs and archives (``-``: standard input), or S3, or a source, into the lake.

    The lake is created if it is missing. ``since`` (inclusive) and ``until`` (exclusive) select log objects by the
    minute of delivery in their names (else by the time of the file); ``again`` also reads log objects that were
    ingested before; ``wanted`` says these three and more at once. ``rules`` decide which of the new events are stored,
    while the summaries count all of them. ``compact`` allows some seconds of compaction afterwards if the lake
    has many small files. ``hourly_partitions`` is the layout of a new lake; an existing one must have it (None:
    whatever it has). ``group_readable``: the group of a new lake's folder may read it, else only the user.
    ``announce`` is called with what was found before anything is read.
    Raise SourceError if an input does not exist or holds no CloudTrail at all, S3Error if S3 refuses or fails,
    LakeError if the lake cannot be written. KeyboardInterrupt leaves only what was committed.
    """
    started = time.monotonic()
    source = _opened(inputs, lake, requester_pays)
    wanted = wanted or Wanted(since, until, again=again)
    ahead = _forked_ahead(source, lake, workers, rules, sizes)
    try:
        found = _find(source, lake, wanted, progress, started)
        if announce is not None and not isinstance(found, list):
            announce(found)
        # Unreadable inputs are counted, not raised: an OSError here is about the lake.
        with write_errors(lake):
            opened = LakeWriter.create(
                lake, hourly_partitions=hourly_partitions, group_readable=group_readable, ahead=True
            )
            files = found if isinstance(found, list) else None
            if isinstance(found, list):
                found = only_new(opened, found, sizes, again=wanted.again)
            counts = Counts(log_objects_known=found.known, log_objects_skipped=found.known)
            counts.passed_over = dict(found.passed_over)
            if isinstance(source, FileSource):
                counts.links_passed_over = source.links_passed_over
            if found.spans:
                # Imported lazily: an ingest of nothing new ends without it.
                from trailsift.ingest.session import Session

                def find_again() -> Found:
                    # Standard input cannot be read again: its copy is among the files.
                    again = _find(source, lake, wanted, None, started) if files is None else files
                    return only_new(opened, again, sizes, again=wanted.again) if isinstance(again, list) else again

                with Session(opened, rules, sizes, workers, ahead) as session:
                    committed = session.ingest(found, counts, progress, started, find_again=find_again)
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
        if ahead is not None:
            ahead.close(at_once=True)
        source.release()
    if not counts.records and not counts.log_objects_known and (found.objects or found.is_first):
        raise _nothing(source, found, counts)
    return counts


def survey(
    inputs: Sequence[str],
    lake: Path,
    wanted: Wanted,
    *,
    requester_pays: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Found:
    """Return what an ingest would read, without reading it: nothing is written. Raise as ``ingest`` does."""
    source = _opened(inputs, lake, requester_pays)
    try:
        found = _find(source, lake, wanted, progress, time.monotonic())
        if isinstance(found, list):
            new = only_new(LakeWriter(lake), found, SIZES, again=wanted.again) if _is_lake(lake) else None
            found = new or Found(spans_of(found, SIZES))
    except CallbackError as wrapped:
        raise wrapped.error from None
    finally:
        source.release()
    return found


def _opened(inputs: Sequence[str] | Source | RemoteSource, lake: Path, requester_pays: bool) -> Source | RemoteSource:
    if isinstance(inputs, Source | RemoteSource):
        return inputs
    return open_source(inputs, exclude=lake, requester_pays=requester_pays)


def _forked_ahead(
    source: Source | RemoteSource, lake: Path, workers: int | None, rules: Rules | None, sizes: Sizes
) -> Pool | None:
    """Return workers that are forked before the client of a remote source starts threads, after which none can be.

    Only for a new lake: there is something to read then, and what they import is needed in any case. None if it is not
    one, or if processes cannot be forked.
    """
    if not isinstance(source, RemoteSource) or (lake / LAKE_FILE).exists() or mirror_of(lake) is not None:
        return None
    from multiprocessing import current_process

    from trailsift.ingest.pool import Pool, can_fork

    if current_process().daemon or not can_fork():
        return None
    return Pool(lake.resolve(), workers or os.cpu_count() or 1, rules, sizes.bounds)


def _find(
    source: Source | RemoteSource,
    lake: Path,
    wanted: Wanted,
    progress: Callable[[Progress], None] | None,
    started: float,
) -> Found | list[LogObject]:
    """Return what the source has that is wanted.

    What is known of a list of files is found out later, because a lake is not even opened for inputs that are wrong.
    """
    if not isinstance(source, RemoteSource):
        files = source.find()
        chosen = [file for file in files if _is_wanted(file, wanted)]
        if files and not chosen:
            source.release()
            raise SourceError(f"none of the {len(files)} log objects {_asked_for(wanted)}")
        return chosen

    def searched(objects: int, folders: int) -> None:
        if progress is not None:
            seconds = time.monotonic() - started
            now = Progress(0, 0, 0, 0, 0, 0, 0, 0, 0, seconds, listed=objects, folders=folders, remote=True)
            try:
                progress(now)
            except OSError as error:
                raise CallbackError(error) from error

    if not _is_lake(lake):
        return source.search(wanted, NothingKnown(), searched)
    with write_errors(lake):
        known = KnownObjects(LakeWriter(lake).root)
    try:
        return source.search(wanted, known, searched)
    finally:
        known.close()


def _is_lake(lake: Path) -> bool:
    """Return whether there is a lake already, in the folder or in S3."""
    mirror = mirror_of(lake)
    return (lake / LAKE_FILE).exists() if mirror is None else mirror.open()


def _is_wanted(file: LogObject, wanted: Wanted) -> bool:
    if not delivered_within(file, wanted.since, wanted.until):
        return False
    return not (wanted.accounts or wanted.regions) or wanted.takes(*name_parts(file.name))


def _asked_for(wanted: Wanted) -> str:
    if not wanted.accounts and not wanted.regions:
        return "was delivered in the time asked for"
    return "is of the account and region, and was delivered in the time, asked for"


def only_new(lake: LakeWriter, files: list[LogObject], sizes: Sizes, *, again: bool = False) -> Found:
    """Return the log objects that were not ingested before; all of them if they are wanted ``again``."""
    new = files
    if not again:
        known = lake.known_objects([IngestedObject(file.name, file.version, file.delivered_on) for file in files])
        new = [file for file in files if (file.name, file.version) not in known]
    return Found(spans_of(new, sizes), known=len(files) - len(new))


def _nothing(source: Source | RemoteSource, found: Found, counts: Counts) -> SourceError:
    """Return the error for an ingest that has read no record."""
    missed = counts.log_objects_failed + counts.log_objects_gone
    if missed:
        name, reason = next(iter(counts.not_fetched.items()))
        return SourceError(f"none of the {missed:,} log objects of {source} could be fetched: {name}: {reason}")
    return SourceError(f"no CloudTrail records in {source}: {found.objects} log objects were read")


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
