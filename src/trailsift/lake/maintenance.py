"""What an ingest does for its lake after the last commit, so that nobody has to remember ``compact``.

Everything here is bounded: in how often a row is written again, and in the time that one ingest gives.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from trailsift.lake import expire, index
from trailsift.lake.compact import Compacted, compact_partitions, compacted_files, needs_compaction
from trailsift.lake.open import open_snapshot
from trailsift.lake.partitions import Partition
from trailsift.lake.writer import LakeWriter

#: Seconds after which an ingest starts no further rewrite.
SECONDS = 20.0
#: A closed day is rewritten when so many files came since the last time, if they are a good part of it ...
LATE_FILES = 8
LATE_SHARE = 0.25
#: ... or when there are so many that readers feel them. So a row is written a few times in all.
MANY_FILES = 64
#: Commits between two looks: at what to rewrite, and at what to delete.
LOOK_EVERY = 8
CLEAN_EVERY = 50
#: Files of event ids, above which they are merged: each is searched by every ingest.
ID_FILES = 16


def upkeep(lake: LakeWriter, since: int, *, now: datetime | None = None, seconds: float = SECONDS) -> Compacted | None:
    """Does what the commits after number ``since`` made necessary; None where that is nothing.

    To be called without the lock. Raises what ``compact`` raises; nothing of the ingest depends on it.
    """
    started = time.monotonic()
    moment = now or datetime.now(UTC)
    with closing(index.connect(lake.root)) as db:
        (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
        (ids,) = db.execute("SELECT count(*) FROM seen_file WHERE removed IS NULL").fetchone()
    done = Compacted()
    if ids > ID_FILES:
        done.add(expire.merge_seen(lake, moment))
    if _crosses(since, last, LOOK_EVERY):
        for partition in needs_rewrite(lake.root, now=moment):
            if time.monotonic() - started >= seconds:
                break
            compact_partitions(lake, [partition], moment, done=done)
    if _crosses(since, last, CLEAN_EVERY):
        done.add(expire.clean(lake, moment))
    done.seconds = round(time.monotonic() - started, 3)
    return done if any(value for name, value in done.as_dict().items() if name != "seconds") else None


def needs_rewrite(root: Path, *, now: datetime) -> Sequence[Partition]:
    """The closed partitions that are worth a rewrite now, those with the most files first."""
    with closing(index.connect(root)) as db:
        sql = "SELECT count(*) FROM file WHERE removed IS NULL GROUP BY table_name, min_time / 86400000000, service"
        most = max((number for (number,) in db.execute(sql)), default=0)
    if most < LATE_FILES:
        return ()
    snapshot = open_snapshot(root)
    settled = compacted_files(snapshot)
    return [one for one in needs_compaction(snapshot, now=now, settled=settled) if should_rewrite(one, settled)]


def should_rewrite(partition: Partition, settled: set[str]) -> bool:
    """Whether a partition has so many files since its last rewrite that another one pays; ``settled`` had theirs."""
    late = [file for file in partition.files if file.path not in settled]
    share = sum(file.bytes for file in late) / max(partition.bytes, 1)
    return len(late) >= MANY_FILES or (len(late) >= LATE_FILES and share >= LATE_SHARE)


def _crosses(since: int, last: int, every: int) -> bool:
    return last // every > since // every
