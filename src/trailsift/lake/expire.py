"""Expire what is old in a lake: snapshots, files that nothing needs any longer, and lines of the catalog."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.errors import ConflictError, LakeError
from trailsift.lake import digest, forms, index
from trailsift.lake.home import mirror_of
from trailsift.lake.scratch import remove_left
from trailsift.lake.writer import LakeWriter
from trailsift.storage import Storage
from trailsift.times import log_text

if TYPE_CHECKING:
    pass

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
    for folder in ("", "findings", "queries"):
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
        cutoff = (log_text(now - kept),)
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
