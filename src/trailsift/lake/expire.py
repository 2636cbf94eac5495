"""Expire what is old in a lake: event ids, log objects, snapshots, and files that nothing needs any longer."""

from __future__ import annotations

import sqlite3
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from trailsift.errors import LakeError
from trailsift.lake import dedup, digest, forms, index
from trailsift.lake.scratch import remove_left
from trailsift.lake.writer import LakeWriter
from trailsift.storage import LocalStorage, Storage
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.lake.transaction import Transaction

#: A replaced file is kept for this long, for readers that planned before; afterwards they plan again.
GRACE = timedelta(minutes=10)
#: Files that the newest commits replaced are kept longer: a clock that jumps ahead ends the grace, but not this.
KEPT_COMMITS = 3
LONG_GRACE = timedelta(days=1)
#: The index remembers a deleted file for this long, so that a reader of an old snapshot meets a missing file, and plans
#: again, instead of an answer without its rows.
REMEMBERED = timedelta(days=7)
#: The same if more files than this are remembered: a lake that is watched replaces thousands in an hour.
MANY_REMEMBERED, SHORT_REMEMBERED = 5000, timedelta(minutes=20)

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
class SeenPlan:
    """What is to be done about event ids and log objects: files to drop, groups of files to merge, and how many log
    objects are forgotten, which were delivered before ``day`` and read up to commit ``old``."""

    expired: list[SeenFile]
    groups: list[list[SeenFile]]
    log_objects: int
    day: str
    old: int

    def __bool__(self) -> bool:
        return bool(self.expired or self.groups or self.log_objects)


def merge_seen(lake: LakeWriter, now: datetime) -> Counter[str]:
    """Drop ids and log objects that are too old to be delivered again, and merge the files of the rest."""
    with lake.begin() as transaction:
        plan = plan_seen(lake, now)
        if not plan:
            return Counter()
        return commit_seen(transaction, plan, [merge_ids(lake, group, lake.storage) for group in plan.groups])


def plan_seen(lake: LakeWriter, now: datetime) -> SeenPlan:
    """Return what is to be done."""
    days = seen_days(lake.settings)
    with closing(index.connect(lake.root)) as db:
        sql = "SELECT path, ids, min_time, max_time, added FROM seen_file WHERE removed IS NULL"
        files = [_seen_file(row) for row in db.execute(sql)]
        cutoff = _text(now - timedelta(days=days))
        (old,) = db.execute("SELECT max(seq) FROM commit_log WHERE committed_at < ?", (cutoff,)).fetchone()
        day = f"{now - timedelta(days=days):%Y-%m-%d}"
        (gone,) = db.execute(f"SELECT count(*) {_OLD_OBJECTS}", (day, old or 0)).fetchone()
    expired = expired_seen(files, days, old or 0)
    groups = mergeable([file for file in files if file not in expired])
    return SeenPlan(expired, groups, int(gone), day, old or 0)


_OLD_OBJECTS = "FROM log_object WHERE delivered_on < ? AND seq <= ?"


def merge_ids(lake: LakeWriter, group: Sequence[SeenFile], storage: LocalStorage) -> SeenFile:
    """Write one file of several into ``storage``. LakeError if one of them is damaged."""
    digest.check(lake.root, [file.path for file in group])
    return _merge(lake.storage, group, storage)


def commit_seen(transaction: Transaction, plan: SeenPlan, merged: Sequence[SeenFile]) -> Counter[str]:
    """Commit what was planned. ``merged``: a file in the lake for each group."""
    removed = [file.path for file in (*plan.expired, *(file for group in plan.groups for file in group))]

    def change(db: sqlite3.Connection, seq: int) -> None:
        db.executemany("UPDATE seen_file SET removed = ? WHERE path = ?", [(seq, path) for path in removed])
        # The commit of the newest ids stays with them, because their age counts from there.
        rows = [(file.path, file.ids, file.min_time, file.max_time, file.added) for file in merged]
        db.executemany("INSERT INTO seen_file VALUES (?, ?, ?, ?, ?, NULL)", rows)
        db.execute(f"DELETE {_OLD_OBJECTS}", (plan.day, plan.old))
        digest.forget_objects(db, plan.day, plan.old)

    counts = Counter(
        seen_files_merged=sum(map(len, plan.groups)),
        seen_files_expired=len(plan.expired),
        log_objects_expired=plan.log_objects,
    )
    transaction.change_index(change, [file.path for file in merged], removed)
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


def clean(lake: LakeWriter, now: datetime, grace: timedelta = GRACE) -> Counter[str]:
    """Expire old snapshots and delete the files that no kept snapshot holds and no reader can still be reading."""
    counts = Counter(snapshots_expired=expire_snapshots(lake, now, grace))
    with lake.lock():
        counts += delete_replaced(lake, now, grace)
    return counts


def delete_replaced(lake: LakeWriter, now: datetime, grace: timedelta = GRACE) -> Counter[str]:
    """Delete the files that no kept snapshot holds and no reader can still be reading.

    Also without the lock, beside other writers: none of them brings back a file that was replaced so long ago, and what
    they write is younger.
    """
    counts: Counter[str] = Counter()
    remove_left(lake.root)
    for folder in ("", "findings"):
        # What else is wrong there is reported to whoever reads it.
        with suppress(OSError, LakeError):
            lake.storage.tidy(folder)
    needed: dict[str, set[str]] = {}
    for name, path in _replaced(lake, now, grace):
        stored = lake.storage.stat(path)
        if stored is not None and name not in needed:
            needed[name] = lake.catalog.data_files(name) if name in lake.tables else set()
        if stored is not None and path not in needed[name]:
            counts["files_deleted"] += 1
            counts["bytes_deleted"] += stored.size
            lake.storage.delete(path)
    for name in lake.tables:
        delete_metadata(lake.storage, name, lake.catalog.metadata_files(name), now, grace)
    digest.forget_metadata(lake.root, metadata_files(lake), lake.storage)
    _forget(lake, now)
    return counts


def metadata_files(lake: LakeWriter) -> set[str]:
    """Return the paths of Iceberg's own files that the lake's tables need."""
    return {path for name in lake.tables for path in lake.catalog.metadata_files(name)}


def _is_past(age: timedelta, commits: int, grace: timedelta) -> bool:
    """Return whether what was replaced ``age`` ago, ``commits`` commits before the newest, may be deleted."""
    return age > max(grace, LONG_GRACE) or (age > grace and commits >= KEPT_COMMITS)


def expire_snapshots(lake: LakeWriter, now: datetime, grace: timedelta = GRACE) -> int:
    """Expire the snapshots that were replaced long enough ago; return their number."""
    expired = 0
    with lake.begin() as transaction:
        for name in lake.tables:
            snapshots = lake.catalog.snapshots(name)
            old = []
            for number, (snapshot_id, _) in enumerate(snapshots[:-1]):
                replaced = datetime.fromtimestamp(snapshots[number + 1][1] / 1000, UTC)
                if _is_past(now - replaced, len(snapshots) - number - 2, grace):
                    old.append(snapshot_id)
            if old:
                lake.catalog.expire(name, old)
                expired += len(old)
        if expired:
            transaction.commit({"snapshots_expired": expired}, "expire")
    return expired


def _replaced(lake: LakeWriter, now: datetime, grace: timedelta) -> list[tuple[str, str]]:
    """Return (table or ``seen``, path) of the files that were replaced long enough ago; some may be deleted already."""
    with closing(index.connect(lake.root)) as db:
        (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
        rows = db.execute(
            "SELECT f.table_name, f.path, f.removed, c.committed_at FROM commit_log c JOIN"
            " (SELECT table_name, path, removed FROM file WHERE removed IS NOT NULL"
            " UNION ALL SELECT 'seen', path, removed FROM seen_file WHERE removed IS NOT NULL) f ON f.removed = c.seq"
        ).fetchall()
    replaced = []
    for name, path, removed, at in rows:
        # What is deleted is checked first: a path of the index leads nowhere else.
        forms.ids_path(path) if name == forms.SEEN_FOLDER else forms.data_path(name, path)
        age = now - datetime.fromisoformat(forms.commit_time(at))
        if _is_past(age, last - removed, grace) and forms.may_delete(path):
            replaced.append((name, path))
    return replaced


def delete_metadata(storage: Storage, table: str, needed: set[str], now: datetime, grace: timedelta) -> None:
    """Delete Iceberg's own files that no kept snapshot names: of expired snapshots, and of commits that failed.

    Files that do not have a name of PyIceberg's stay.
    """
    for stored in list(storage.list(f"{table}/metadata")):
        age = now - datetime.fromtimestamp(stored.modified, UTC)
        if stored.path not in needed and age > grace and forms.is_own_metadata(stored.path):
            storage.delete(stored.path)


def _forget(lake: LakeWriter, now: datetime) -> None:
    """Remove files that were deleted long ago from the index: of very many, also those that were deleted just now."""
    with closing(index.connect(lake.root)) as db:
        (many,) = db.execute("SELECT count(*) FROM file WHERE removed IS NOT NULL").fetchone()
        kept = REMEMBERED if many < MANY_REMEMBERED else SHORT_REMEMBERED
        old = "removed IN (SELECT seq FROM commit_log WHERE committed_at < ?)"
        cutoff = (_text(now - kept),)
        files = db.execute(f"SELECT table_name, path, removed FROM file WHERE {old}", cutoff).fetchall()
        ids = db.execute(f"SELECT path FROM seen_file WHERE {old}", cutoff).fetchall()
        gone = [row for row in files if not lake.storage.exists(forms.data_path(row[0], row[1]))]
        gone_ids = [row for row in ids if not lake.storage.exists(forms.ids_path(row[0]))]
        if gone or gone_ids:
            db.execute("BEGIN IMMEDIATE")
            index.forget_files(db, gone)
            digest.forget(db, [path for _, path, _ in gone] + [path for (path,) in gone_ids])
            if gone:
                digest.seal_version(db)
            db.executemany("DELETE FROM seen_file WHERE path = ? AND removed IS NOT NULL", gone_ids)
            db.execute("COMMIT")


def _text(moment: datetime) -> str:
    """Return a time as the commit log writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
