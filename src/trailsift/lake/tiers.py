"""Which small files of days that still receive events are merged, so that a watched lake stays fast all day long.

Files of similar size are merged, many at a time, so that a row is rewritten a few times in all. The rewrite that a
closed day gets (``compact``) comes later, and once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from trailsift import schema
from trailsift.lake.compact import is_closed, partitions_of
from trailsift.lake.index import File, Snapshot
from trailsift.lake.partitions import Partition

#: Files of similar size that become one, and how many times larger than the smallest of its tier a file may be.
FAN = 16
#: The size of the files of the first tier at most, and that of files which are not merged any more, in bytes.
FIRST_TIER, LARGE = 64 << 10, 64 << 20
#: Bytes that are merged at once, about.
AT_ONCE = 256 << 20


def needs_merge(snapshot: Snapshot, now: datetime) -> list[Partition]:
    """Return parts of open partitions, of which the files become one. Reads the index only."""
    by_hour = bool(snapshot.settings.get("hourly_partitions"))
    return [
        replace(partition, files=tuple(group))
        for name in schema.TABLES
        for partition in partitions_of(name, snapshot.files(name), by_hour=by_hour and name == schema.EVENTS.name)
        if not is_closed(partition.end, now)
        for group in groups(partition.files)
    ]


def groups(files: Sequence[File]) -> list[list[File]]:
    """Return groups of files of similar size that are worth a merge."""
    tiers: dict[int, list[File]] = {}
    for file in files:
        if file.bytes < LARGE:
            tiers.setdefault(_tier(file.bytes), []).append(file)
    merged = []
    for tier in tiers.values():
        # A large tier is one of small files that came at once: several groups would only be merged again.
        total = 0
        group: list[File] = []
        for file in sorted(tier, key=lambda file: (file.min_time, file.path)):
            if total + file.bytes > AT_ONCE:
                break
            group.append(file)
            total += file.bytes
        if len(group) >= FAN:
            merged.append(group)
    return merged


def _tier(size: int) -> int:
    return 0 if size <= FIRST_TIER else math.ceil(math.log(size / FIRST_TIER, FAN))
