"""The read index: which files make up each table, for planning in milliseconds.

Iceberg is the truth; this index sits beside it in the lake's SQLite file, changes in the same transaction as the
catalog's pointers, and remembers the metadata location it was made from. A reader that finds another location
(another engine has committed) has the index rebuilt and never trusts it as it is.

Nothing here imports PyIceberg, pyarrow or DuckDB: a cold query must not pay for them.
"""

from __future__ import annotations

import json
import operator
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from trailsift.errors import LakeError, SnapshotGoneError
from trailsift.lake import forms
from trailsift.lake.catalog_db import connect, copy, read
from trailsift.lake.home import location, mirror_of
from trailsift.lake.settings import NAMESPACE
from trailsift.schema import FORMAT_VERSION, TABLES, version_of

__all__ = ["connect", "read"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS commit_log (
    seq INTEGER PRIMARY KEY,
    committed_at TEXT NOT NULL,
    kind TEXT NOT NULL,
    counts TEXT NOT NULL,
    locations TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS file (
    table_name TEXT NOT NULL,
    path TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    service TEXT,
    min_role TEXT,
    max_role TEXT,
    added INTEGER NOT NULL,
    removed INTEGER,
    PRIMARY KEY (table_name, path)
);
CREATE INDEX IF NOT EXISTS file_time ON file (table_name, removed, min_time, max_time);
CREATE TABLE IF NOT EXISTS file_digest (
    path TEXT PRIMARY KEY,
    bytes INTEGER,
    sha256 BLOB,
    row_digest BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS row_digest (
    table_name TEXT NOT NULL,
    key TEXT NOT NULL,
    rows INTEGER NOT NULL,
    digest BLOB NOT NULL,
    PRIMARY KEY (table_name, key)
) WITHOUT ROWID;
"""

#: In S3 the catalog is swapped as a whole: paths, of which half are random, stand in it once. To find the files of a
#: day in those of a year takes 10 ms instead of 2.
SMALL_SCHEMA = SCHEMA.replace(
    "PRIMARY KEY (table_name, path)\n);", "PRIMARY KEY (table_name, path)\n) WITHOUT ROWID;"
).replace("CREATE INDEX IF NOT EXISTS file_time ON file (table_name, removed, min_time, max_time);\n", "")


class File(NamedTuple):
    """One live Parquet file. ``path`` is relative to the lake; times are microseconds since 1970 (UTC)."""

    table: str
    path: str
    rows: int
    bytes: int
    min_time: int
    max_time: int
    service: str | None = None
    min_caller: str | None = None
    max_caller: str | None = None


class SizedFile(NamedTuple):
    """A live file, and the bytes of each of its columns; for a file of deletes, all bytes under the empty name."""

    file: File
    column_bytes: dict[str, int]


@dataclass(frozen=True, slots=True)
class FileFilter:
    """Conditions by which a query excludes files without opening them: None means no limit.

    Times are microseconds since 1970 (UTC), both ends included. ``services`` and ``callers`` are exact values.
    """

    min_time: int | None = None
    max_time: int | None = None
    services: frozenset[str] | None = None
    callers: frozenset[str] | None = None

    def admits(self, file: File, table: str) -> bool:
        """Return whether a file of ``table`` may hold a row within these conditions."""
        return (
            file.table == table
            and (self.min_time is None or file.max_time >= self.min_time)
            and (self.max_time is None or file.min_time <= self.max_time)
            and (self.services is None or file.service is None or file.service in self.services)
            and (
                self.callers is None
                or file.min_caller is None
                or file.max_caller is None
                or any(file.min_caller <= caller <= file.max_caller for caller in self.callers)
            )
        )


NO_FILTER = FileFilter()
_ROLES = 50
_TIME_AND_PATH = operator.attrgetter("min_time", "path")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A committed state of the lake: all its readers see the same rows."""

    root: Path
    seq: int
    committed_at: str
    locations: dict[str, str] = field(hash=False)
    settings: dict[str, object] = field(hash=False)
    #: The live files, and the commit that added each, if another engine has committed since and the index is stale.
    rebuilt: tuple[tuple[File, int], ...] | None = field(default=None, hash=False, compare=False)

    @property
    def format_version(self) -> int:
        """The format of the tables in this state: 1 until ``compact`` upgrades the lake."""
        return version_of(self.locations)

    def files(self, table: str, only: FileFilter = NO_FILTER) -> list[File]:
        """Return the live files of ``table`` that may hold a row within ``only``, in order of time.

        SnapshotGoneError if this state is so old that the index has forgotten files of it.
        """
        if self.rebuilt is not None:
            return sorted((file for file, _ in self.rebuilt if only.admits(file, table)), key=_TIME_AND_PATH)
        sql = [
            "SELECT table_name, path, rows, bytes, min_time, max_time, service, min_role, max_role FROM file",
            "WHERE table_name = ? AND added <= ? AND (removed IS NULL OR removed > ?)",
        ]
        values: list[object] = [table, self.seq, self.seq]
        if only.min_time is not None:
            sql.append("AND max_time >= ?")
            values.append(only.min_time)
        if only.max_time is not None:
            sql.append("AND min_time <= ?")
            values.append(only.max_time)
        if only.services is not None:
            marks = ",".join("?" * len(only.services))
            sql.append(f"AND (service IS NULL OR service IN ({marks}))")
            values.extend(sorted(only.services))
        if only.callers is not None:
            # UTF-8 sorts as the text does. Of very many callers, only the range from the first to the last is tested.
            spans = [(caller, caller) for caller in sorted(only.callers)]
            spans = spans if len(spans) <= _ROLES else [(spans[0][0], spans[-1][0])]
            tests = " OR ".join(["(min_role <= ? AND max_role >= ?)"] * len(spans))
            sql.append(f"AND (min_role IS NULL OR max_role IS NULL{tests and ' OR '}{tests})")
            values.extend(value for low, high in spans for value in (high, low))

        def rows(db: sqlite3.Connection) -> list[File]:
            db.execute("BEGIN")
            if db.execute("PRAGMA user_version").fetchone()[0] > self.seq:
                raise SnapshotGoneError(
                    f"the state of the lake at {self.root} as of {self.committed_at} is no longer known: "
                    "open the lake again"
                )
            # Thousands of files must be planned in milliseconds: one tuple per file, and no sorting in SQLite.
            return list(map(File._make, db.execute(" ".join(sql), values)))

        files = read(self.root, rows)
        forms.check_files(table, files)
        files.sort(key=_TIME_AND_PATH)
        return files

    def added_after(self, table: str, seq: int) -> list[tuple[int, int]]:
        """Return first and last time (microseconds) of each live file of ``table`` added by a commit after ``seq``."""
        if self.rebuilt is not None:
            added = [file for file, number in self.rebuilt if file.table == table and number > seq]
            return [(file.min_time, file.max_time) for file in added]
        sql = "SELECT min_time, max_time FROM file WHERE table_name = ? AND added > ? AND added <= ? AND "
        values = (table, seq, self.seq, self.seq)

        def rows(db: sqlite3.Connection) -> list[tuple[int, int]]:
            return list(map(tuple, db.execute(sql + "(removed IS NULL OR removed > ?)", values)))

        spans = read(self.root, rows)
        forms.check_spans(spans)
        return spans


def last_commit_row(db: sqlite3.Connection) -> tuple[int, str]:
    """Return the number of the newest commit and its record of the tables' metadata. LakeError if none is left."""
    row = db.execute(LAST_COMMIT).fetchone()
    if row is None:
        raise LakeError(
            "the catalog has no commits any longer: it is damaged. Restore catalog.db from a copy of the lake, or "
            "ingest the logs into a new one"
        )
    return forms.commit_number(row[0]), row[2]


def next_number(db: sqlite3.Connection) -> int:
    """Return the number of the next commit. LakeError if no commit is left.

    A number is never given twice: if the row of the newest commit is lost, the digest of that row stays as the trace of
    the damage, and the files that it added keep a number of their own.
    """
    last, _ = last_commit_row(db)
    # Not the largest number of all digests: a lake that is watched has millions of commits.
    sql = "SELECT 1 FROM row_digest WHERE table_name = 'commit_log' AND key = ?"
    while db.execute(sql, (str(last + 1),)).fetchone():
        last += 1
    return forms.commit_number(last) + 1


LAST_COMMIT = "SELECT seq, committed_at, locations FROM commit_log ORDER BY seq DESC LIMIT 1"


def copy_catalog(snapshot: Snapshot, target: Path) -> None:
    """Copy a lake's SQLite file into the folder ``target``, as the catalog of a lake there with the same files."""
    copy(snapshot.root, target)
    there, here = location(snapshot.root), location(target)
    moved_to = {name: place.replace(there, here, 1) for name, place in snapshot.locations.items()}
    with closing(connect(target)) as db:
        db.execute("BEGIN")
        moved = [(place, NAMESPACE, name) for name, place in moved_to.items()]
        db.executemany(
            "UPDATE iceberg_tables SET metadata_location = ? WHERE table_namespace = ? AND table_name = ?", moved
        )
        db.execute("UPDATE commit_log SET locations = ? WHERE seq = ?", (json.dumps(moved_to), snapshot.seq))
        if snapshot.rebuilt is not None:
            db.execute("DELETE FROM file WHERE removed IS NULL")
            record_files(db, snapshot.seq, [file for file, _ in snapshot.rebuilt])
        db.execute("COMMIT")


def last_commit(root: Path) -> Snapshot:
    """Return the state that our last commit left, whatever another engine has done since.

    For a writer that holds the lock: ``open_snapshot`` would wait for that very lock to rebuild a stale index.
    """
    with closing(connect(root)) as db:
        row = db.execute(LAST_COMMIT).fetchone()
    return snapshot_of(root.resolve(), row, {})


def snapshot_of(root: Path, row: tuple[object, object, object], settings: dict[str, object]) -> Snapshot:
    """Return the state of a row of ``LAST_COMMIT``. LakeError if the row is not what a commit writes.

    Its locations may be of another folder: of a lake that was moved while its index was stale.
    """
    number, time, text = row
    logged = forms.logged_locations(text)
    locations = {name: logged[name] for name in TABLES if name in logged}
    return Snapshot(root, forms.commit_number(number), forms.commit_time(time), locations, settings)


def format_version(db: sqlite3.Connection) -> int:
    """Return the format version of the last commit: that of a new lake if there is none."""
    exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone()
    row = db.execute(LAST_COMMIT).fetchone() if exists else None
    return FORMAT_VERSION if row is None else version_of(forms.logged_locations(row[2]))


def is_stale(db: sqlite3.Connection) -> bool:
    """Return whether another engine wrote through the catalog, so that the index no longer describes the tables."""
    row = db.execute(LAST_COMMIT).fetchone()
    return row is not None and differ(forms.logged_locations(row[2]), live_locations(db))


def differ(logged: dict[str, str], live: dict[str, str]) -> bool:
    """Return whether a table's current metadata differs from that which the index was made from."""
    return any(live.get(name) != place for name, place in logged.items())


def live_locations(db: sqlite3.Connection) -> dict[str, str]:
    """Return the locations of the current metadata of the catalog's tables. LakeError if one has none."""
    sql = "SELECT table_name, metadata_location FROM iceberg_tables WHERE table_namespace = ?"
    live = dict(db.execute(sql, (NAMESPACE,)))
    for name, place in live.items():
        if not isinstance(name, str) or not isinstance(place, str):
            raise LakeError(f"the catalog has the table {name!r} at {place!r}: that is not a place of metadata")
    return live


def forget_files(db: sqlite3.Connection, files: Sequence[tuple[str, str, int]]) -> None:
    """Forget files that were removed and deleted, as (table, path, commit that removed it).

    Snapshots that held one of them can no longer be planned on: the newest such commit is kept in ``user_version``,
    which changes in the same transaction.
    """
    last = max([db.execute("PRAGMA user_version").fetchone()[0], *(removed for _, _, removed in files)])
    db.executemany("DELETE FROM file WHERE table_name = ? AND path = ? AND removed = ?", files)
    db.execute(f"PRAGMA user_version = {int(last)}")


def commit(root: Path, db: sqlite3.Connection, commit_id: str | None = None) -> None:
    """Commit the open transaction: of a lake in S3, there first, by compare-and-swap.

    ``commit_id``: the random text among the counts of the commit that is made. ConflictError if another writer was
    first; then the caller rolls back.
    """
    mirror = mirror_of(root)
    if mirror is None:
        db.execute("COMMIT")
    else:
        mirror.publish(db, commit_id)


def record_files(
    db: sqlite3.Connection, seq: int, added: Sequence[File], removed: Sequence[tuple[str, str]] = ()
) -> None:
    """Write a commit's file changes; called in the commit's SQLite transaction."""
    updates = [(seq, table, path) for table, path in removed]
    db.executemany("UPDATE file SET removed = ? WHERE table_name = ? AND path = ?", updates)
    db.executemany(
        "INSERT INTO file VALUES (?,?,?,?,?,?,?,?,?,?,NULL)",
        [
            (f.table, f.path, f.rows, f.bytes, f.min_time, f.max_time, f.service, f.min_caller, f.max_caller, seq)
            for f in added
        ],
    )
