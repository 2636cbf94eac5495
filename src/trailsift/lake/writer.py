"""The lake as a writer sees it: create, open, lock, begin a transaction."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift import schema
from trailsift.errors import ConflictError, LakeError, UsageError
from trailsift.lake import digest, forms, index, log_objects
from trailsift.lake.commit import IngestedObject
from trailsift.lake.create import lost_catalog, make_folder, settings_text
from trailsift.lake.disk import write_errors
from trailsift.lake.home import fetch, mirror_of
from trailsift.lake.index import File
from trailsift.lake.lock import WriteLock
from trailsift.lake.retention import NOTHING_REMOVED, read_removed
from trailsift.lake.settings import CATALOG_FILE, LAKE_FILE, MARKER_FILE, check_location, read_settings
from trailsift.safe_text import quoted
from trailsift.storage import folder_storage
from trailsift.times import now_text

if TYPE_CHECKING:
    from trailsift.lake.dedup import DedupIndex
    from trailsift.lake.iceberg import LakeCatalog
    from trailsift.lake.transaction import Transaction


_OTHER_TABLES = (
    log_objects.SCHEMA
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


#: Ids whose files are compared with their digests before an ingest relies on them: 20 MB, 12 ms.
_CHECKED_IDS = 1_000_000
#: Seconds that a writer waits for another one that makes the lake at the same time.
_WAIT = 60.0


class LakeWriter:
    """A lake opened for writing: ``begin`` a transaction, or ``lock`` it for other work."""

    def __init__(self, root: Path, *, moved: bool = False, is_open: bool = False) -> None:
        """``moved``: also open a lake that is not where it was made (for ``relocate``).

        ``is_open``: the copy of a lake in S3 was brought to the newest commit just now.
        """
        self.root = root.resolve()
        self.storage = folder_storage(self.root)
        self._mirror = mirror_of(self.root)
        if self._mirror is not None and not is_open:
            self._mirror.open_once()
        self.settings = read_settings(self.root)
        if not moved:
            check_location(self.root, self.settings)
        forms.check_folders(self.root)
        #: The format version of the tables, which an upgrade changes, and its tables.
        self.format_version = schema.FORMAT_VERSION
        self.tables = schema.TABLES
        self._find_version()
        self._catalog: LakeCatalog | None = None
        # An ingest opens the catalog ahead, in a thread. Of two catalogs, one would stage and the other apply nothing.
        self._opening = threading.RLock()
        self._is_ready = False
        self._had_no_history = False
        #: The commit whose ids are loaded, and the days that retention had removed by then.
        self._loaded_seq = -1
        self.removed_days = NOTHING_REMOVED
        self._moved = moved

    @property
    def _schema(self) -> str:
        return (index.SCHEMA if self._mirror is None else index.SMALL_SCHEMA) + _OTHER_TABLES

    def _find_version(self) -> None:
        """Find out the format version: the catalog decides, and ``lake.json`` has it from the end of an upgrade on."""
        self.format_version = schema.FORMAT_VERSION
        if self.settings["format_version"] != schema.FORMAT_VERSION and (self.root / CATALOG_FILE).exists():
            self.format_version = index.read(self.root, index.format_version)
        by_hour = bool(self.settings.get("hourly_partitions"))
        self.tables = schema.tables_of(hourly_partitions=by_hour, format_version=self.format_version)

    def expect_current(self) -> None:
        """Raise LakeError if the lake has an earlier format version, which is read but not written."""
        if self.format_version != schema.FORMAT_VERSION:
            raise LakeError(
                f"the lake at {self.root} has format version {self.format_version}: `trailsift compact --lake "
                f"{quoted(self.root)}` upgrades it to {schema.FORMAT_VERSION}, then run this again"
            )

    @cached_property
    def ids(self) -> DedupIndex:
        """The ids of the lake's events. Imported lazily: numpy is slow to import, and many ingests have nothing new."""
        from trailsift.lake.dedup import DedupIndex

        return DedupIndex()

    @classmethod
    def create(
        cls,
        root: Path,
        *,
        hourly_partitions: bool | None = None,
        group_readable: bool | None = None,
        ahead: bool = False,
    ) -> LakeWriter:
        """Create an empty lake, or open the existing one. LakeError if neither is possible.

        ``hourly_partitions`` is for a new lake; an existing one must have the same (None: as it is). So is
        ``group_readable``: the group of the folder may read the lake, else only the user. ``ahead`` leaves the tables
        of a new lake to ``ready``, which takes a second.
        """
        root = root.absolute()
        mirror = mirror_of(root)
        is_open = False
        if mirror is not None:
            if group_readable:
                raise UsageError("a lake in S3 has no group that may read it: leave that out; policies say who may")
            is_open = mirror.open_once()
            if not is_open:
                mirror.make(hourly_partitions=bool(hourly_partitions))
        elif not (root / LAKE_FILE).exists():
            make_folder(root, hourly_partitions=bool(hourly_partitions), group_readable=bool(group_readable))
        lake = cls(root, is_open=is_open)
        lake.expect_current()
        by_hour = bool(lake.settings.get("hourly_partitions"))
        if hourly_partitions is not None and hourly_partitions != by_hour:
            how = {False: "by day", True: "by hour"}
            raise LakeError(
                f"the lake at {root} is partitioned {how[by_hour]}, which cannot be changed: ingest without asking for "
                f"partitions {how[hourly_partitions]}, or into a new lake"
            )
        if group_readable and lake.root.stat().st_mode & 0o050 != 0o050:
            raise LakeError(
                f"the lake at {root} exists and is private: ingest without asking for a shared one, or share it with "
                f"`chmod -R g+rX {quoted(root)}`; new files follow the permissions of its folder"
            )
        lake._make_index()
        if not ahead:
            lake.ready()
        return lake

    def _make_index(self) -> None:
        if not (self.root / CATALOG_FILE).exists():
            self._expect_no_history()
        end = time.monotonic() + _WAIT
        with write_errors(self.root):
            while True:
                with closing(index.connect(self.root, create=True)) as db:
                    try:
                        db.executescript("PRAGMA journal_mode = WAL;" + self._schema)
                    except sqlite3.OperationalError as error:
                        # SQLite does not wait here: two processes that make the lake could wait for each other.
                        if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                            raise
                    else:
                        return self._check_history(db)
                time.sleep(0.01)

    def _check_history(self, db: sqlite3.Connection) -> None:
        """Raise LakeError if the lake had commits, and the catalog knows of no table."""
        if not _has_tables(db):
            self._expect_no_history()

    def _expect_no_history(self) -> None:
        if self._had_no_history:
            return
        lost = lost_catalog(self.root)
        if lost is not None:
            if self._mirror is None or not self.storage.exists(CATALOG_FILE):
                raise lost
            # Another machine has made the tables since the copy was opened: they come with the lock.
            return
        # In S3 it takes seven requests to find that out.
        self._had_no_history = self._mirror is not None

    def ready(self) -> None:
        """Make the tables of a lake that has none yet, and open the catalog. Safe to call from several threads."""
        with self._opening:
            if self._is_ready:
                return
            with write_errors(self.root):
                with closing(index.connect(self.root)) as db:
                    if not _has_tables(db):
                        with self.lock():
                            self._make_tables(db)
                assert self.catalog is not None
            self._is_ready = True

    def _make_tables(self, db: sqlite3.Connection) -> None:
        if not _has_tables(db):
            locations = self.catalog.make_tables(list(self.tables.values()))
            # Not the database itself: to open and close it here would take SQLite's locks off it. SQLite flushes it.
            written = [path for name in self.tables for path in self.storage.written(f"{name}/metadata")]
            digests = digest.of_files(self.storage, written)
            self.storage.flush(written)
            sql = "INSERT INTO commit_log VALUES (0, ?, 'create', '{}', ?)"
            db.execute("BEGIN IMMEDIATE")
            try:
                db.execute(sql, (now_text(), json.dumps(locations)))
                digest.seal(db, 0, digests, ())
                index.commit(self.root, db)
            except ConflictError:
                # Another machine makes the same lake at this moment, and was first.
                db.execute("ROLLBACK")
                self.take_head()

    @property
    def catalog(self) -> LakeCatalog:
        """The Iceberg catalog; imported on first use, because the import takes a second."""
        with self._opening:
            if self._catalog is None:
                from trailsift.lake.iceberg import LakeCatalog

                self._catalog = LakeCatalog(self.root)
            return self._catalog

    def discard(self) -> None:
        """Forget what the catalog has staged; its files stay behind until they are expired."""
        if self._catalog is not None:
            self._catalog.discard()

    def begin(self) -> Transaction:
        """Wait for the write lock and begin a transaction.

        LakeError if the lake cannot be written, or has an earlier format version.
        """
        self.expect_current()
        return self._begin()

    def begin_upgrade(self) -> Transaction | None:
        """Wait for the write lock and begin the transaction of an upgrade; None if the lake needs none (any longer).

        LakeError if the lake cannot be written.
        """
        if self.format_version == schema.FORMAT_VERSION:
            self.settle_version()
            return None
        transaction = self._begin()
        if self.format_version == schema.FORMAT_VERSION:
            transaction.rollback()
            return None
        return transaction

    def _begin(self) -> Transaction:
        # Imported lazily, as numpy is: an ingest of nothing new begins no transaction.
        from trailsift.lake.transaction import Transaction

        self.ready()
        lock = self.lock()
        lock.acquire()
        return Transaction(self, lock)

    def settle_version(self) -> None:
        """Write the format version into ``lake.json`` if an upgrade has not come to that."""
        if self.settings["format_version"] != schema.FORMAT_VERSION:
            # Whoever gets the lock does it.
            with self.lock():
                pass

    def lock(self) -> WriteLock:
        """Return a lock that keeps other writers out: a context manager, or ``acquire`` and ``release``."""
        return WriteLock(self.root, self._prepare)

    def take_head(self) -> bool:
        """Bring the copy of a lake in S3 to its newest commit; return False for a local lake. Only under the lock."""
        if self._mirror is None:
            return False
        self._mirror.take_head()
        return True

    def _prepare(self, crashed: bool) -> None:
        """Put the lake in order for the writer that got the lock; ``crashed``: the last writer died."""
        if self._mirror is not None:
            self._mirror.let_others_finish()
        self.take_head()
        with closing(index.connect(self.root)) as db:
            # A lake of an earlier version has no tables of digests.
            db.executescript(self._schema)
            self._check_history(db)
        self._settle()
        # Before the sweep: a file that another engine has committed is named by the index only then.
        self.catch_up()
        if crashed:
            self.sweep()

    def _settle(self) -> None:
        """Find out the format version again, since another writer may have upgraded the lake. Only under the lock."""
        if self.settings["format_version"] == schema.FORMAT_VERSION:
            return
        self._find_version()
        if self.format_version == schema.FORMAT_VERSION:
            # The commit that upgraded the lake comes first, so its writer may have died before this.
            self.settings = read_settings(self.root) | {"format_version": schema.FORMAT_VERSION}
            self.storage.write(LAKE_FILE, settings_text(self.settings))

    def recover(self) -> None:
        """Remove what a writer left that died; do nothing while another one is at work."""
        if (self.root / MARKER_FILE).exists():
            lock = self.lock()
            with contextlib.suppress(BlockingIOError):
                lock.acquire(wait=False)
                lock.release(clean=True)

    def sweep(self) -> int:
        """Remove data files that no commit names, which a writer left that died. Only under the lock. Their number.

        FileNotFoundError if one of the lake's folders is away, as after a lost mount: it may come back with such files.
        """
        with closing(index.connect(self.root)) as db:
            needed = _needed_places(db)
            named = {row[1] for row in digest.index_rows(db)}
        folders = [*(f"{name}/data" for name in schema.TABLES), forms.SEEN_FOLDER, forms.OBJECTS_FOLDER]
        found = (path for folder in folders for path in self.storage.written(folder))
        # Only names that trailsift gives: whatever else somebody has put there is not a writer's.
        orphans = [path for path in found if path not in named and forms.is_own(path)]
        if self._mirror is not None:
            # Others write into the same lake: what is in S3 is left to ``expire``.
            self._mirror.drop(orphans)
            return len(orphans)
        for path in orphans:
            self.storage.delete(path)
        # Last: a folder that is there now was there all the time, or came back while it was looked at.
        for place in needed:
            if not self.storage.local_path(place).exists():
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.root / place))
        return len(orphans)

    def catch_up(self) -> None:
        """Rebuild the index if another engine has committed to the tables. Only under the lock."""
        with closing(index.connect(self.root)) as db:
            exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone() is not None
            row = db.execute(index.LAST_COMMIT).fetchone() if exists else None
            if row is not None:
                # A commit's number is the base of the next.
                forms.commit_number(row[0])
                forms.commit_time(row[1])
            stale = exists and index.is_stale(db)
        if stale and not self._moved:
            from trailsift.lake.reindex import catch_up

            catch_up(self.root, self.tables)

    def live_files(self, table: str) -> list[File]:
        """Return the files of a table as the last commit left them."""
        return index.last_commit(self.root).files(table)

    def last_commit_number(self) -> int:
        """Return the number of the newest commit."""
        return index.last_commit(self.root).seq

    def omitted_columns(self) -> set[str] | None:
        """Return the columns that rules have ever left empty in stored events; None if no rules were ever applied.

        That means neither here nor in a stream, whose landing files count what it has dropped.
        """
        with closing(index.connect(self.root)) as db:
            # What retention dropped, no rule did.
            sql = (
                "SELECT DISTINCT json_extract(counts, '$.rules.omit') FROM commit_log"
                ' WHERE counts LIKE \'%"rules"%\' OR (counts LIKE \'%"dropped": {"%\' AND'
                " (json_extract(counts, '$.dropped_by_retention') IS NULL OR"
                " json_extract(counts, '$.dropped') != json_object('retention', json_extract(counts,"
                " '$.dropped_by_retention'))))"
            )
            omitted = [json.loads(columns or "[]") for (columns,) in db.execute(sql)]
        return {column for columns in omitted for column in columns} if omitted else None

    def refresh(self) -> None:
        """Load the ids that other writers have committed, and which days were removed. Only under the lock."""
        with closing(index.connect(self.root)) as db:
            (seq,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
            if seq == self._loaded_seq:
                return
            self.removed_days = read_removed(db, self._loaded_seq, self.removed_days)
            rows = db.execute("SELECT path, ids FROM seen_file WHERE removed IS NULL ORDER BY added").fetchall()
            files = {forms.ids_path(path): forms.commit_number(count) for path, count in rows}
            new = [path for path in files if not self.ids.has(path)]
            fetch(self.root, new)
            self._check_ids(new, sum(files[path] for path in new))
        self.ids.load(self.storage, files)
        self._loaded_seq = seq

    def _check_ids(self, paths: Sequence[str], number: int) -> None:
        """Raise LakeError if a file of ids is not what its commit wrote. Of a large lake's, only sizes are compared."""
        if number > _CHECKED_IDS:
            return
        known = digest.digests(self.root, paths)
        for path, recorded in known.items():
            place = self.storage.checked_path(path)
            # A missing file, and one of another size, is what ``load`` reports.
            if place.exists() and place.stat().st_size == recorded.size and digest.of_file(place) != recorded:
                from trailsift.lake.dedup import damaged

                raise damaged(place, "is not what was written")

    def ask_to_be_first(self) -> contextlib.AbstractContextManager[None]:
        """Ask the other writers of a lake in S3 to wait meanwhile."""
        return contextlib.nullcontext() if self._mirror is None else self._mirror.ask_to_be_first()

    def known_objects(self, objects: Sequence[IngestedObject]) -> set[tuple[str, str]]:
        """Return which of these log objects are in the lake already, as (name, version)."""
        with closing(index.connect(self.root)) as db:
            return log_objects.known(self.storage, db, objects)


def _needed_places(db: sqlite3.Connection) -> list[str]:
    """Return paths that exist if all folders of the lake do: the tables' current metadata, and the folder of ids."""
    sql = "SELECT 1 FROM sqlite_master WHERE name = 'iceberg_tables'"
    live = index.live_locations(db) if db.execute(sql).fetchone() else {}
    places = [f"{name}/metadata/{live[name].rpartition('/')[2]}" for name in schema.TABLES if name in live]
    if db.execute("SELECT 1 FROM seen_file WHERE removed IS NULL").fetchone():
        places.append(forms.SEEN_FOLDER)
    if db.execute("SELECT 1 FROM object_file WHERE removed IS NULL").fetchone():
        places.append(forms.OBJECTS_FOLDER)
    return places


def _has_tables(db: sqlite3.Connection) -> bool:
    return db.execute("SELECT 1 FROM commit_log LIMIT 1").fetchone() is not None
