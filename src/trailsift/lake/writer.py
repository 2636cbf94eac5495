"""The lake as a writer sees it: made, locked, committed to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift import schema
from trailsift.errors import LakeError
from trailsift.lake import disk, index
from trailsift.lake.commit import Batch, IngestedObject
from trailsift.lake.create import make_folder
from trailsift.lake.disk import cannot_write
from trailsift.lake.index import File
from trailsift.lake.settings import LAKE_FILE, LOCK_FILE, MARKER_FILE, check_location, read_settings
from trailsift.times import now_text

if TYPE_CHECKING:
    from trailsift.lake.dedup import DedupIndex
    from trailsift.lake.iceberg import LakeCatalog


_SCHEMA = (
    index.SCHEMA
    + """
CREATE TABLE IF NOT EXISTS log_object (
    name TEXT NOT NULL,
    version TEXT NOT NULL,
    delivered_on TEXT NOT NULL,
    seq INTEGER NOT NULL,
    PRIMARY KEY (name, version)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS log_object_day ON log_object (delivered_on);
CREATE TABLE IF NOT EXISTS seen_file (
    path TEXT PRIMARY KEY,
    ids INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    added INTEGER NOT NULL,
    removed INTEGER
);
"""
)


class WriteLock:
    """The one writer's lock of a lake: the operating system's, so it goes with the process.

    Data files are written under it only. So whoever gets it and finds the marker of a writer that did not end well
    may remove what no commit names.
    """

    def __init__(self, lake: LakeWriter) -> None:
        self._lake = lake
        self._marker = lake.root / MARKER_FILE
        self._handle: int | None = None

    def acquire(self, *, wait: bool = True) -> None:
        """Gets the lock; BlockingIOError where another writer has it and nobody may ``wait``."""
        try:
            self._handle = os.open(self._lake.root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Before the sweep: a file that another engine has committed is named by the index only then.
            self._lake.catch_up()
            if self._marker.exists():
                self._lake.sweep()
            self._marker.touch()
        except BaseException as error:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
            if isinstance(error, (OSError, sqlite3.DatabaseError)) and not isinstance(error, BlockingIOError):
                raise cannot_write(self._lake.root, error) from error
            raise

    def release(self, *, clean: bool) -> None:
        """Lets others in; ``clean`` says that no file was left behind."""
        if self._handle is not None:
            if clean:
                self._marker.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(clean=kind is None)


class LakeWriter:
    """A lake opened for writing. Use as a context manager; ``lock`` before dedupe, until the commit."""

    def __init__(self, root: Path, *, moved: bool = False) -> None:
        """``moved``: opens also a lake that is not where it was made (for ``relocate``)."""
        self.root = root.resolve()
        self.settings = read_settings(self.root)
        if not moved:
            check_location(self.root, self.settings)
        self.tables = schema.tables_of(hourly_partitions=bool(self.settings.get("hourly_partitions")))
        self._catalog: LakeCatalog | None = None
        # An ingest opens the catalog ahead, in a thread. Of two catalogs, one would stage and the other apply nothing.
        self._opening = threading.RLock()
        self._is_ready = False
        self._seen_at = -1
        self._moved = moved

    @cached_property
    def seen(self) -> DedupIndex:
        """The ids of the lake's events. Imported lazily: numpy is slow to import, and many ingests have nothing new."""
        from trailsift.lake.dedup import DedupIndex

        return DedupIndex()

    @classmethod
    def create(cls, root: Path, *, hourly_partitions: bool | None = None, ahead: bool = False) -> LakeWriter:
        """Makes an empty lake, or opens the one that is there. LakeError where that cannot be.

        ``hourly_partitions`` is for a new lake; one that is there must have it so (None: as it is). ``ahead`` leaves
        making the tables of a new lake to ``ready``, which takes a second.
        """
        root = root.absolute()
        if not (root / LAKE_FILE).exists():
            make_folder(root, hourly_partitions=bool(hourly_partitions))
        lake = cls(root)
        found = bool(lake.settings.get("hourly_partitions"))
        if hourly_partitions is not None and hourly_partitions != found:
            how = {False: "by day", True: "by hour"}
            raise LakeError(
                f"the lake at {root} is partitioned {how[found]}, which cannot be changed: ingest without asking for "
                f"partitions {how[hourly_partitions]}, or into a new lake"
            )
        lake._make_index()
        if not ahead:
            lake.ready()
        return lake

    def _make_index(self) -> None:
        try:
            with closing(index.connect(self.root)) as db:
                db.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)
        except (sqlite3.DatabaseError, OSError) as error:
            raise cannot_write(self.root, error) from error

    def ready(self) -> None:
        """Makes the tables of a lake that has none yet, and opens the catalog. Safe to call from several threads."""
        with self._opening:
            if self._is_ready:
                return
            try:
                with closing(index.connect(self.root)) as db:
                    if not _has_tables(db):
                        with self.lock():
                            self._make_tables(db)
            except (sqlite3.DatabaseError, OSError) as error:
                raise cannot_write(self.root, error) from error
            assert self.catalog is not None
            self._is_ready = True

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not _has_tables(db):
            locations = self.catalog.make_tables(list(self.tables.values()))
            # Not the database itself: to open and close it here would take SQLite's locks off it. SQLite flushes it.
            disk.flush(map(Path, self._metadata_files()), self.root)
            db.execute("INSERT INTO commit_log VALUES (0, ?, 'create', '{}', ?)", (now_text(), json.dumps(locations)))

    @property
    def catalog(self) -> LakeCatalog:
        """The Iceberg catalog; imported on first use, for it takes a second."""
        with self._opening:
            if self._catalog is None:
                from trailsift.lake.iceberg import LakeCatalog

                self._catalog = LakeCatalog(self.root)
            return self._catalog

    def lock(self) -> WriteLock:
        """Keeps other writers out, as a context manager or by ``acquire`` and ``release``."""
        return WriteLock(self)

    def recover(self) -> None:
        """Takes away what a writer left that died; nothing where another one is at work."""
        if (self.root / MARKER_FILE).exists():
            lock = self.lock()
            with contextlib.suppress(BlockingIOError):
                lock.acquire(wait=False)
                lock.release(clean=True)

    def sweep(self) -> int:
        """Removes data files that no commit names: what a writer left that died. Only under the lock. Their number."""
        with closing(index.connect(self.root)) as db:
            db.executescript(_SCHEMA)  # the writer may have died before it made them
            named = {path for (path,) in db.execute("SELECT path FROM file UNION SELECT path FROM seen_file")}
        folders = [self.root / name / "data" for name in schema.TABLES] + [self.root / "seen"]
        removed = 0
        for folder in folders:
            for path in folder.rglob("*.*"):
                if path.is_file() and path.relative_to(self.root).as_posix() not in named:
                    path.unlink(missing_ok=True)
                    removed += 1
        return removed

    def catch_up(self) -> None:
        """Makes the index anew where another engine has committed to the tables; only under the lock."""
        with closing(index.connect(self.root)) as db:
            made = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone()
            stale = made is not None and index.is_stale(db)
        if stale and not self._moved:
            from trailsift.lake.reindex import catch_up

            catch_up(self.root, self.tables, self.catalog)

    def live_files(self, table: str) -> list[File]:
        """The files of a table as the last commit left them."""
        return index.last_commit(self.root).files(table)

    def left_out(self) -> set[str] | None:
        """The columns that rules have ever left empty in what is stored; None where no rule was ever at work.

        Neither here nor in a stream, whose landing files count what it has dropped.
        """
        with closing(index.connect(self.root)) as db:
            sql = (
                "SELECT DISTINCT json_extract(counts, '$.rules.omit') FROM commit_log"
                ' WHERE counts LIKE \'%"rules"%\' OR counts LIKE \'%"dropped": {"%\''
            )
            omitted = [json.loads(columns or "[]") for (columns,) in db.execute(sql)]
        return {column for columns in omitted for column in columns} if omitted else None

    def refresh(self) -> None:
        """Loads what other writers have committed; to be called under the lock."""
        with closing(index.connect(self.root)) as db:
            (seq,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
            if seq == self._seen_at:
                return
            paths = [path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NULL ORDER BY added")]
        self.seen.load(self.root, paths)
        self._seen_at = seq

    def known_objects(self, objects: Sequence[IngestedObject]) -> set[tuple[str, str]]:
        """Which of these log objects are in the lake already, as (name, version)."""
        known: set[tuple[str, str]] = set()
        with closing(index.connect(self.root)) as db:
            if db.execute("SELECT 1 FROM log_object LIMIT 1").fetchone() is None:
                return known
            for start in range(0, len(objects), 500):
                part = objects[start : start + 500]
                marks = ",".join(["(?,?)"] * len(part))
                values = [value for o in part for value in (o.name, o.version)]
                sql = f"SELECT name, version FROM log_object WHERE (name, version) IN (VALUES {marks})"
                known.update(db.execute(sql, values))
        return known

    def commit(self, batch: Batch, kind: str = "ingest") -> int:
        """Makes a batch visible, all of it or nothing; its sequence number. To be called under the lock."""
        staged = time.monotonic()
        catalog = self.catalog
        before = self._metadata_files()
        try:
            self.catch_up()
            for name, table in self.tables.items():
                added = [file for file in batch.files if file.table == name]
                removed = [file for file in batch.removed if file.table == name]
                if added or removed:
                    catalog.change(table, added, removed)
            seen_row = self._write_seen(batch)
            written = [self.root / file.path for file in batch.files] + [self.root / path for path in batch.seen_paths]
            written += [self.root / seen_row[0]] if seen_row else []
            disk.flush([*written, *map(Path, self._metadata_files() - before)], self.root)
            with closing(index.connect(self.root)) as db:
                seq = self._apply(db, batch, kind, seen_row)
        except (sqlite3.DatabaseError, OSError) as error:
            catalog.discard()
            raise cannot_write(self.root, error) from error
        except BaseException:
            catalog.discard()
            raise
        self.seen.committed()
        self._seen_at = -1
        self.commit_seconds = time.monotonic() - staged
        return seq

    def _metadata_files(self) -> set[str]:
        # As text: many commits in a short time leave thousands of files, until ``clean`` may take them.
        folders = [self.root / name / "metadata" for name in self.tables]
        return {f"{folder}/{name}" for folder in folders if folder.is_dir() for name in os.listdir(folder)}  # noqa: PTH208

    def _write_seen(self, batch: Batch) -> tuple[Any, ...] | None:
        number = sum(map(len, batch.ids))
        if not number:
            return None
        from trailsift.lake import dedup

        path = f"seen/{uuid.uuid4().hex}.ids"
        dedup.write(batch.ids, self.root / path)
        return path, number, batch.min_time, batch.max_time

    def _apply(self, db: sqlite3.Connection, batch: Batch, kind: str, seen_row: tuple[Any, ...] | None) -> int:
        db.execute("BEGIN IMMEDIATE")
        try:
            (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
            seq = int(last) + 1
            if not self._moved and index.is_stale(db):
                raise sqlite3.IntegrityError("another engine committed during the commit")
            self.catalog.apply(db)
            locations = index.live_locations(db)
            index.record_files(db, seq, batch.files, [(file.table, file.path) for file in batch.removed])
            if seen_row is not None:
                db.execute("INSERT INTO seen_file VALUES (?, ?, ?, ?, ?, NULL)", (*seen_row, seq))
            db.executemany(
                "INSERT OR IGNORE INTO log_object VALUES (?, ?, ?, ?)",
                [(o.name, o.version, o.delivered_on, seq) for o in batch.log_objects],
            )
            if batch.also is not None:
                batch.also(db, seq)
            db.execute(
                "INSERT INTO commit_log VALUES (?, ?, ?, ?, ?)",
                (seq, now_text(), kind, json.dumps(batch.counts), json.dumps(locations)),
            )
            db.execute("COMMIT")
        except BaseException:
            # Where the disk is full, SQLite has taken everything back already.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return seq

    def history(self, each: Callable[[dict[str, Any]], None]) -> None:
        """Hands every commit's counts to ``each``, oldest first."""
        with closing(index.connect(self.root)) as db:
            for seq, committed_at, kind, counts in db.execute(
                "SELECT seq, committed_at, kind, counts FROM commit_log ORDER BY seq"
            ):
                each({"seq": seq, "committed_at": committed_at, "kind": kind, **json.loads(counts)})


def _has_tables(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM commit_log LIMIT 1").fetchone() is not None
