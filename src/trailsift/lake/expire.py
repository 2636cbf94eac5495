"""Expire what is old in a lake: event ids, log objects, snapshots, and files that nothing needs any longer."""

from __future__ import annotations

import json
import re
import sqlite3
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.errors import ConflictError, LakeError
from trailsift.lake import dedup, digest, forms, index, log_objects
from trailsift.lake.commit import IngestedObject
from trailsift.lake.home import mirror_of
from trailsift.lake.log_objects import ObjectFile
from trailsift.lake.scratch import remove_left
from trailsift.lake.writer import LakeWriter
from trailsift.storage import LocalStorage, Storage
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.lake.transaction import Transaction

T = TypeVar("T")

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
#: Commits whose rows stay as they are; of older ones that added no file which is still there, one row per day is left.
KEPT_ROWS = 1000

#: An object in S3 that no commit names is of a writer that died, if it is older than this: a commit follows its files
#: within minutes.
ORPHAN_AGE = timedelta(days=1)

#: How often a step of ``clean`` is tried while other writers are first.
_ATTEMPTS = 5

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
        cutoff = _text(now - timedelta(days=days))
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


def clean(lake: LakeWriter, now: datetime, grace: timedelta = GRACE) -> Counter[str]:
    """Expire old snapshots and delete the files that no kept snapshot holds and no reader can still be reading."""
    grace = _with_readers_of_glue(lake, grace)
    counts = Counter(snapshots_expired=_after_others(lake, lambda: expire_snapshots(lake, now, grace)))
    with lake.lock():
        counts += delete_replaced(lake, now, grace, is_locked=True)
    return counts


def delete_replaced(
    lake: LakeWriter, now: datetime, grace: timedelta = GRACE, *, is_locked: bool = False
) -> Counter[str]:
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
    gone = []
    replaced = _replaced(lake, now, grace)
    for (name, path), stored in zip(replaced, lake.storage.stat_all([path for _, path in replaced]), strict=True):
        if stored is not None and name not in needed:
            needed[name] = lake.catalog.data_files(name) if name in lake.tables else set()
        if stored is not None and path not in needed[name]:
            counts["files_deleted"] += 1
            counts["bytes_deleted"] += stored.size
            gone.append(path)
    lake.storage.delete_all(gone)
    for name in lake.tables:
        _delete_metadata(lake, name, now, grace)
    counts += sweep_orphans(lake)
    # In S3, whoever changes the catalog has to have its newest state.
    with nullcontext() if is_locked or mirror_of(lake.root) is None else lake.lock():
        _after_others(lake, lambda: digest.forget_metadata(lake.root, metadata_files(lake), lake.storage))
        _after_others(lake, lambda: _forget(lake, now))
        _after_others(lake, lambda: _fold_commits(lake))
    return counts


def _after_others(lake: LakeWriter, work: Callable[[], T]) -> T:
    """Return what ``work`` returns, which is done again if writers on other machines commit at the same time."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            return work()
        except ConflictError:
            if mirror_of(lake.root) is None or attempt == _ATTEMPTS:
                raise
            lake.take_head()
    raise AssertionError


def _with_readers_of_glue(lake: LakeWriter, grace: timedelta) -> timedelta:
    """Return for how long replaced files stay: as long as they may, if Glue still points to what has them."""
    if mirror_of(lake.root) is not None:
        from trailsift.lake.glue import is_behind

        if is_behind(lake.root, grace):
            return max(grace, LONG_GRACE)
    return grace


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
            " UNION ALL SELECT 'seen', path, removed FROM seen_file WHERE removed IS NOT NULL"
            " UNION ALL SELECT 'objects', path, removed FROM object_file WHERE removed IS NOT NULL) f"
            " ON f.removed = c.seq"
        ).fetchall()
    replaced = []
    for name, path, removed, at in rows:
        # What is deleted is checked first: a path of the index leads nowhere else.
        _CHECKS.get(name, partial(forms.data_path, name))(path)
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


def _delete_metadata(lake: LakeWriter, table: str, now: datetime, grace: timedelta) -> None:
    """Do what ``delete_metadata`` does; in S3, files that no commit has named are left to ``sweep_orphans``."""
    needed = lake.catalog.metadata_files(table)
    if mirror_of(lake.root) is None:
        delete_metadata(lake.storage, table, needed, now, grace)
        return
    with closing(index.connect(lake.root)) as db:
        sql = "SELECT path FROM file_digest WHERE path LIKE ?"
        committed = {path for (path,) in db.execute(sql, (f"{table}/metadata/%",))}
    stored = list(lake.storage.list(f"{table}/metadata"))
    # The server's clock, as far as its objects show it: this machine's may be wrong.
    newest = max((item.modified for item in stored), default=0.0)
    old = [item.path for item in stored if newest - item.modified > grace.total_seconds()]
    lake.storage.delete_all(path for path in old if path in committed - needed and forms.is_own_metadata(path))


def sweep_orphans(lake: LakeWriter) -> Counter[str]:
    """Delete what writers left in S3 that died: objects that no commit names and that are older than any batch.

    On a local disk the next writer's lock shows that nobody is at work; in S3 only time does. The time is that of the
    server's own clock, as far as the objects themselves show it.
    """
    mirror = mirror_of(lake.root)
    if mirror is None or not mirror.is_sweep_due():
        return Counter()
    from trailsift.lake.mirror import PROBE_FOLDER

    with closing(index.connect(lake.root)) as db:
        named = {path for (path,) in db.execute("SELECT path FROM file_digest")}
        named |= {row[1] for row in digest.index_rows(db)}
    folders = [f"{name}/{part}" for name in lake.tables for part in ("data", "metadata")]
    folders += [forms.SEEN_FOLDER, forms.OBJECTS_FOLDER, PROBE_FOLDER]
    stored = [item for folder in folders for item in lake.storage.list(folder)]
    newest = max((item.modified for item in stored), default=0.0)
    orphans = [
        item
        for item in stored
        if item.path not in named
        and newest - item.modified > ORPHAN_AGE.total_seconds()
        and (
            forms.is_own(item.path)
            or forms.is_own_metadata(item.path)
            or re.fullmatch(f"{PROBE_FOLDER}/[0-9a-f]{{32}}", item.path)
        )
    ]
    if orphans:
        # A writer that slept all the time and wakes up now must not commit them: the head that it knows is gone.
        digest.commit_nothing(lake.root, "sweep", {"orphans": len(orphans)})
        lake.storage.delete_all(item.path for item in orphans)
    return Counter(files_deleted=len(orphans), bytes_deleted=sum(item.size for item in orphans))


#: By folder: what makes sure that a path of the index leads nowhere else.
_CHECKS: dict[str, Callable[[object], str]] = {
    forms.SEEN_FOLDER: forms.ids_path,
    forms.OBJECTS_FOLDER: forms.objects_path,
}


def _forget(lake: LakeWriter, now: datetime) -> None:
    """Remove files that were deleted long ago from the index: of very many, also those that were deleted just now."""
    with closing(index.connect(lake.root)) as db:
        (many,) = db.execute("SELECT count(*) FROM file WHERE removed IS NOT NULL").fetchone()
        kept = REMEMBERED if many < MANY_REMEMBERED else SHORT_REMEMBERED
        old = "removed IN (SELECT seq FROM commit_log WHERE committed_at < ?)"
        cutoff = (_text(now - kept),)
        files = db.execute(f"SELECT table_name, path, removed FROM file WHERE {old}", cutoff).fetchall()
        ids = db.execute(f"SELECT path FROM seen_file WHERE {old}", cutoff).fetchall()
        objects = db.execute(f"SELECT path FROM object_file WHERE {old}", cutoff).fetchall()
        paths = [forms.data_path(row[0], row[1]) for row in files]
        paths += [forms.ids_path(row[0]) for row in ids] + [forms.objects_path(row[0]) for row in objects]
        found = lake.storage.stat_all(paths)
        left = {path for path, stored in zip(paths, found, strict=True) if stored is not None}
        gone = [row for row in files if row[1] not in left]
        gone_ids = [row for row in ids if row[0] not in left]
        gone_objects = [row for row in objects if row[0] not in left]
        if gone or gone_ids or gone_objects:
            db.execute("BEGIN IMMEDIATE")
            index.forget_files(db, gone)
            digest.forget(db, [path for _, path, _ in gone] + [path for (path,) in (*gone_ids, *gone_objects)])
            if gone:
                digest.seal_version(db)
            db.executemany("DELETE FROM seen_file WHERE path = ? AND removed IS NOT NULL", gone_ids)
            db.executemany("DELETE FROM object_file WHERE path = ? AND removed IS NOT NULL", gone_objects)
            index.commit(lake.root, db)


def _fold_commits(lake: LakeWriter) -> None:
    """Make one row of the commit log of many old ones: a lake that is written every second has 86,400 a day.

    Only rows that no file refers to, with counts that can be added up. The sums stay what they were.
    """
    with closing(index.connect(lake.root)) as db:
        (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
        rows = db.execute(_FOLDABLE, (last - KEPT_ROWS,)).fetchall()
        groups: dict[tuple[str, str, str], list[tuple[Any, ...]]] = {}
        for row in rows:
            counts = forms.counts(row[3])
            if all(_is_additive(name, value) for name, value in counts.items()):
                rules = json.dumps(counts.get("rules"), sort_keys=True)
                groups.setdefault((forms.commit_time(row[1])[:10], row[2], rules), []).append((*row[:3], counts))
        groups = {key: group for key, group in groups.items() if len(group) > 1}
        if sum(map(len, groups.values())) < KEPT_ROWS // 10:
            return
        db.execute("BEGIN IMMEDIATE")
        for group in groups.values():
            db.executemany("DELETE FROM commit_log WHERE seq = ?", [(row[0],) for row in group])
            digest.forget_commits(db, [row[0] for row in group])
            seq, at, kind, _ = group[-1]
            total = json.dumps(_sum_of([row[3] for row in group]))
            db.execute("INSERT INTO commit_log VALUES (?, ?, ?, ?, '{}')", (seq, at, kind, total))
            digest.seal_commit(db, seq)
        index.commit(lake.root, db)


#: Old commits that no file refers to.
_FOLDABLE = (
    "SELECT seq, committed_at, kind, counts FROM commit_log WHERE seq > 0 AND seq < ?"
    " AND kind IN ('ingest', 'compact', 'expire', 'seen') AND seq NOT IN ("
    + " UNION ".join(
        f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL"
        for table in ("file", "seen_file", "object_file")
        for column in ("added", "removed")
    )
    + ") ORDER BY seq"
)
#: Counts that are not numbers: rules are the same in all commits that become one row; ids of commits, and old notes on
#: what was listed, are of no use later.
_TAKEN_OVER = ("rules", "id", "listed")


def _is_additive(name: str, value: object) -> bool:
    if name in _TAKEN_OVER or type(value) is int:
        return name != "expired_to"
    if name == "delivered_to":
        return isinstance(value, str)
    return name in ("dropped", "folded") and isinstance(value, dict) and all(type(n) is int for n in value.values())


def _sum_of(group: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the counts of several commits together; ``commits`` is their number."""
    total: dict[str, Any] = {"commits": 0}
    for counts in group:
        for name, value in {"commits": 1, **counts}.items():
            if name == "rules":
                total[name] = value
            elif isinstance(value, dict):
                total[name] = dict(Counter(total.get(name, {})) + Counter(value))
            elif name == "delivered_to":
                total[name] = max(total.get(name, ""), value)
            elif name not in _TAKEN_OVER:
                total[name] = total.get(name, 0) + value
    return total


def _text(moment: datetime) -> str:
    """Return a time as the commit log writes it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
