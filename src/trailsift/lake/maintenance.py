"""Maintenance that an ingest does after its last commit, so that ``compact`` need not be run by hand.

All of it is bounded: how often a row is rewritten, and how much time one ingest spends.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from trailsift.lake import expire, expire_days, expire_seen, index
from trailsift.lake.compact import (
    Compacted,
    add_digests,
    compact_partitions,
    compacted_files,
    groups_beside,
    needs_compaction,
)
from trailsift.lake.home import others_first
from trailsift.lake.open import open_snapshot
from trailsift.lake.partitions import Partition
from trailsift.lake.writer import LakeWriter

#: Seconds after which an ingest starts no further rewrite.
SECONDS = 20.0
#: A closed day is rewritten after this many new files, if they are this share of it ...
LATE_FILES = 8
LATE_SHARE = 0.25
#: ... or after so many that queries slow down. So a row is rewritten a few times in all.
MANY_FILES = 64
#: Commits of ingests between two checks for what to rewrite, and commits of all kinds between two for what to delete.
LOOK_EVERY = 8
CLEAN_EVERY = 50
#: Number of files of event ids, or of names of log objects of one day, above which they are merged: every ingest
#: searches each of them.
ID_FILES = 16


def maintain(
    lake: LakeWriter, since: int, *, now: datetime | None = None, seconds: float = SECONDS
) -> Compacted | None:
    """Do what the commits after number ``since`` made necessary; return None if that is nothing.

    To be called without the lock. Raises what ``compact`` raises; the ingest does not depend on it.
    """
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    with closing(index.connect(lake.root)) as db:
        (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
        (ids,) = db.execute("SELECT count(*) FROM seen_file WHERE removed IS NULL").fetchone()
        by_day = "SELECT count(*) AS files FROM object_file WHERE removed IS NULL GROUP BY day"
        (objects,) = db.execute(f"SELECT coalesce(max(files), 0) FROM ({by_day})").fetchone()
        # Each rewrite is a commit, too: they would put off the next check.
        ingests = "SELECT count(*) FROM commit_log WHERE kind = 'ingest' AND seq <= ?"
        before, after = (db.execute(ingests, (seq,)).fetchone()[0] for seq in (since, last))
    report = Compacted()
    if max(ids, objects) > ID_FILES:
        with others_first(lake.root):
            report.add(expire_seen.merge_seen(lake, moment))
    # A day at a time, as each becomes too old.
    with others_first(lake.root):
        report.add_retention(expire_days.apply_settings(lake, moment))
    if _crosses(before, after, LOOK_EVERY):
        for group in groups_beside(lake.root, needs_rewrite(lake.root, now=moment)):
            if time.monotonic() - started >= seconds:
                break
            compact_partitions(lake, group, moment, report=report)
    if report.files_expired or _crosses(since, last, CLEAN_EVERY):
        with others_first(lake.root):
            report.add(expire.clean(lake, moment))
        with others_first(lake.root):
            report.digests_added += add_digests(lake, lambda: time.monotonic() - started >= seconds)
    report.seconds = round(time.monotonic() - started, 3)
    return report if any(value for name, value in report.as_dict().items() if name != "seconds") else None


def needs_rewrite(root: Path, *, now: datetime) -> Sequence[Partition]:
    """Return the closed partitions that are worth a rewrite now, those with the most files first."""
    with closing(index.connect(root)) as db:
        sql = "SELECT count(*) FROM file WHERE removed IS NULL GROUP BY table_name, min_time / 86400000000, service"
        most = max((number for (number,) in db.execute(sql)), default=0)
    if most < LATE_FILES:
        return ()
    snapshot = open_snapshot(root)
    compacted = compacted_files(snapshot)
    partitions = needs_compaction(snapshot, now=now, compacted=compacted)
    return [partition for partition in partitions if should_rewrite(partition, compacted)]


def should_rewrite(partition: Partition, compacted: set[str]) -> bool:
    """Return whether a partition has enough files since its last rewrite, which wrote those in ``compacted``."""
    late = [file for file in partition.files if file.path not in compacted]
    share = sum(file.bytes for file in late) / max(partition.bytes, 1)
    return len(late) >= MANY_FILES or (len(late) >= LATE_FILES and share >= LATE_SHARE)


def _crosses(since: int, last: int, every: int) -> bool:
    return last // every > since // every
