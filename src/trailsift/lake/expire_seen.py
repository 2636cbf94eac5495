"""Expire and merge what tells a lake what it has seen: the ids of events, and the names of log objects."""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from trailsift.errors import LakeError
from trailsift.lake import dedup, digest, forms, index, log_objects
from trailsift.lake.commit import IngestedObject
from trailsift.lake.log_objects import ObjectFile
from trailsift.lake.writer import LakeWriter
from trailsift.storage import LocalStorage
from trailsift.times import DAY, log_text

if TYPE_CHECKING:
    from trailsift.lake.transaction import Transaction

#: Days for which ids and the list of log objects are kept (setting ``seen_days``).
SEENDAYS = 35
MAX_DAYS = 100_000
#: Number of files of ids above which they are merged.
SEEN_FILES = 8

_WEEK = 7 * DAY


@dataclass(frozen=True, slots=True)
class SeenFile:
    """A file of event ids: times of its events in microseconds since 1970; ``added``: the commit of its newest ids."""

    path: str
    ids: int
    min_time: int
    max_time: int
    added: int


def seen_days(settings: dict[str, object]) -> int:
    """Return for how many days ids are kept. LakeError if the setting is not a positive number."""
    days = settings.get("seen_days", SEENDAYS)
    if type(days) is not int or not 1 <= days <= MAX_DAYS:
        raise LakeError(f"seen_days in lake.json is {days!r:.100}: it must be a number of days, from 1 to {MAX_DAYS:,}")
    return days


@dataclass(frozen=True, slots=True)
class ObjectsPlan:
    """What is to be done about the names of log objects: files to drop, groups of files of a day to merge, and what an
    earlier version kept in the catalog, the newest of it by commit ``newest``. ``number_expired`` are forgotten."""

    expired: list[ObjectFile]
    groups: list[list[ObjectFile]]
    from_catalog: list[IngestedObject]
    newest: int
    number_expired: int
    has_rows: bool

    def __bool__(self) -> bool:
        return bool(self.expired or self.groups or self.has_rows)

    @property
    def removed(self) -> list[str]:
        """The paths of the files that expire, or are merged."""
        return [file.path for file in (*self.expired, *(file for group in self.groups for file in group))]


@dataclass(frozen=True, slots=True)
class SeenPlan:
    """What is to be done about event ids: files to drop, groups of files to merge; and about log objects."""

    expired: list[SeenFile]
    groups: list[list[SeenFile]]
    objects: ObjectsPlan

    def __bool__(self) -> bool:
        return bool(self.expired or self.groups or self.objects)


def merge_seen(lake: LakeWriter, now: datetime) -> Counter[str]:
    """Drop ids and log objects that are too old to be delivered again, and merge the files of the rest."""
    with lake.begin() as transaction:
        plan = plan_seen(lake, now)
        if not plan:
            return Counter()
        merged = [merge_ids(lake, group, lake.storage) for group in plan.groups]
        return commit_seen(transaction, plan, merged, merge_objects(lake, plan, lake.storage))


def plan_seen(lake: LakeWriter, now: datetime) -> SeenPlan:
    """Return what is to be done."""
    days = seen_days(lake.settings)
    with closing(index.connect(lake.root)) as db:
        sql = "SELECT path, ids, min_time, max_time, added FROM seen_file WHERE removed IS NULL"
        files = [_seen_file(row) for row in db.execute(sql)]
        cutoff = log_text(now - timedelta(days=days))
        (old,) = db.execute("SELECT max(seq) FROM commit_log WHERE committed_at < ?", (cutoff,)).fetchone()
        objects = _plan_objects(db, f"{now - timedelta(days=days):%Y-%m-%d}", old or 0)
    expired = expired_seen(files, days, old or 0)
    groups = mergeable([file for file in files if file not in expired])
    return SeenPlan(expired, groups, objects)


def _plan_objects(db: sqlite3.Connection, day: str, old: int) -> ObjectsPlan:
    """Return what is to be done about log objects: those of days before ``day``, read by commit ``old``, expire."""
    files = log_objects.files(db)
    expired = [file for file in files if file.day < day and file.added <= old]
    groups = log_objects.mergeable([file for file in files if file not in expired])
    # Earlier versions kept the names in the catalog.
    rows = db.execute("SELECT name, version, delivered_on, seq FROM log_object").fetchall()
    kept = [row for row in rows if row[2] >= day or row[3] > old]
    from_catalog = [IngestedObject(*map(str, row[:3])) for row in kept]
    newest = max((forms.commit_number(row[3]) for row in kept), default=0)
    number = sum(file.objects for file in expired) + len(rows) - len(kept)
    return ObjectsPlan(expired, groups, from_catalog, newest, number, bool(rows))


def merge_ids(lake: LakeWriter, group: Sequence[SeenFile], storage: LocalStorage) -> SeenFile:
    """Write one file of several into ``storage``. LakeError if one of them is damaged."""
    digest.check(lake.root, [file.path for file in group])
    return _merge(lake.storage, group, storage)


def merge_objects(lake: LakeWriter, plan: SeenPlan, storage: LocalStorage) -> list[ObjectFile]:
    """Write the planned files of log objects into ``storage``. LakeError if one of the old ones is damaged."""
    merged = []
    for group in plan.objects.groups:
        digest.check(lake.root, [file.path for file in group])
        merged.append(log_objects.merge(lake.storage, group, storage))
    moved = log_objects.write(storage, plan.objects.from_catalog)
    return merged + [file._replace(added=plan.objects.newest) for file in moved]


def commit_seen(
    transaction: Transaction, plan: SeenPlan, merged: Sequence[SeenFile], objects: Sequence[ObjectFile]
) -> Counter[str]:
    """Commit what was planned. ``merged``, ``objects``: the new files, which are in the lake."""
    removed = [file.path for file in (*plan.expired, *(file for group in plan.groups for file in group))]

    def change(db: sqlite3.Connection, seq: int) -> None:
        db.executemany("UPDATE seen_file SET removed = ? WHERE path = ?", [(seq, path) for path in removed])
        # The commit of the newest ids stays with them, because their age counts from there.
        rows = [(file.path, file.ids, file.min_time, file.max_time, file.added) for file in merged]
        db.executemany("INSERT INTO seen_file VALUES (?, ?, ?, ?, ?, NULL)", rows)
        gone = [(seq, path) for path in plan.objects.removed]
        db.executemany("UPDATE object_file SET removed = ? WHERE path = ?", gone)
        log_objects.record(db, seq, objects)
        if plan.objects.has_rows:
            db.execute("DELETE FROM log_object")
            db.execute("DELETE FROM row_digest WHERE table_name = 'log_object'")

    counts = Counter(
        seen_files_merged=sum(map(len, plan.groups)),
        seen_files_expired=len(plan.expired),
        log_objects_expired=plan.objects.number_expired,
    )
    new_paths = [file.path for file in merged] + [file.path for file in objects]
    transaction.change_index(change, new_paths, [*removed, *plan.objects.removed])
    # Events up to this time are stored again, if they come again (``lake.event_days``).
    to = {"expired_to": max(file.max_time for file in plan.expired)} if plan.expired else {}
    transaction.commit({**counts, **to}, "seen")
    return counts


def expired_seen(files: Sequence[SeenFile], days: int, old: int) -> list[SeenFile]:
    """Return the files that were added by commit ``old``, and whose events are all ``days`` older than the newest."""
    newest = max((file.max_time for file in files), default=0)
    return [file for file in files if file.max_time < newest - days * DAY and file.added <= old]


def mergeable(files: Sequence[SeenFile]) -> list[list[SeenFile]]:
    """Return groups of files to be merged, if there are too many.

    Only files of one week (of their newest event) are merged, so that old weeks can expire; and only files of similar
    size, so that a large one is not rewritten for each small one.
    """
    if len(files) <= SEEN_FILES:
        return []
    weeks: dict[int, list[SeenFile]] = {}
    for file in files:
        weeks.setdefault(file.max_time // _WEEK, []).append(file)
    groups = []
    for week in weeks.values():
        group: list[SeenFile] = []
        total = 0
        for file in sorted(week, key=lambda file: (file.ids, file.path)):
            if len(group) >= 2 and file.ids > 2 * total:
                break
            group.append(file)
            total += file.ids
        if len(group) > 1:
            groups.append(group)
    return groups


def _seen_file(row: tuple[Any, ...]) -> SeenFile:
    """Return a row of the index. LakeError if it is not what a commit writes."""
    forms.ids_path(row[0])
    forms.check_spans([(row[2], row[3])])
    forms.commit_number(row[4])
    return SeenFile(*row)


def _merge(storage: LocalStorage, group: Sequence[SeenFile], target: LocalStorage | None = None) -> SeenFile:
    """Write one sorted file of several, into another storage if one is given."""
    parts = [dedup.read(storage.checked_path(file.path), file.ids) for file in group]
    path = f"seen/{uuid.uuid4().hex}.ids"
    dedup.write(parts, (target or storage).local_path(path))
    spans = [(file.min_time, file.max_time) for file in group]
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    return SeenFile(path, sum(map(len, parts)), low, high, max(file.added for file in group))
