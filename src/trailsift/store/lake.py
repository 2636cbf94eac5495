"""The lake as a writer sees it: made, locked, committed to."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift import event
from trailsift.errors import LakeError
from trailsift.store import index, seen
from trailsift.store.index import CATALOG_FILE, FORMAT_VERSION, LAKE_FILE, File

if TYPE_CHECKING:
    from trailsift.store.catalog import LakeCatalog

LOCK_FILE = ".lock"

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


@dataclass(frozen=True, slots=True)
class LogObject:
    """One delivered log object: its name, what tells this content from another of the name, its delivery day (UTC)."""

    name: str
    version: str
    delivered_on: str


@dataclass(slots=True)
class Batch:
    """Everything that becomes visible together."""

    files: list[File] = field(default_factory=list)
    log_objects: list[LogObject] = field(default_factory=list)
    ids: seen.Ids | None = None
    min_time: int = 0
    max_time: int = 0
    counts: Mapping[str, Any] = field(default_factory=dict)


class Lake:
    """A lake opened for writing. Use as a context manager; ``lock`` before dedupe, until the commit."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.settings = index.read_settings(self.root)
        if self.settings.get("location") != str(self.root):
            index.open_snapshot(self.root)  # raises, and says what to do about a moved lake
        self.seen = seen.Seen()
        self._catalog: LakeCatalog | None = None
        self._seen_at = -1

    @classmethod
    def create(cls, root: Path) -> Lake:
        """Makes an empty lake, or opens the one that is there. LakeError where that cannot be."""
        root = root.absolute()
        if (root / LAKE_FILE).exists():
            lake = cls(root)
            lake._make_tables()
            return lake
        if root.is_dir() and any(path.name != LOCK_FILE for path in root.iterdir()) and not (root / CATALOG_FILE).exists():
            raise LakeError(f"{root} is not empty and holds no lake: name an empty or a new folder")
        if set("%?#") & set(str(root)):
            raise LakeError(f"{root}: the characters %, ? and # cannot stand in the path of a lake; choose another")
        try:
            root.mkdir(parents=True, exist_ok=True)
            settings = {
                "format": "trailsift-lake",
                "format_version": FORMAT_VERSION,
                "catalog": {"type": "sql", "file": CATALOG_FILE},
                "hourly_partitions": False,
                "location": str(root.resolve()),
            }
            partial = root / f".{LAKE_FILE}.{uuid.uuid4().hex}"
            partial.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
            partial.replace(root / LAKE_FILE)
        except OSError as error:
            raise LakeError(f"a lake cannot be made at {root}: {error.strerror or error}") from error
        lake = cls(root)
        lake._make_tables()
        return lake

    def _make_tables(self) -> None:
        with self.lock():
            try:
                with closing(index.connect(self.root)) as db:
                    db.executescript("PRAGMA journal_mode = WAL;" + _SCHEMA)
                    if db.execute("SELECT 1 FROM commit_log LIMIT 1").fetchone():
                        return
                    locations = self.catalog.make_tables(list(event.TABLES.values()))
                    db.execute(
                        "INSERT INTO commit_log VALUES (0, ?, 'create', '{}', ?)", (_now(), json.dumps(locations))
                    )
            except (sqlite3.DatabaseError, OSError) as error:
                raise LakeError(f"the lake at {self.root} cannot be written: {error}") from error

    @property
    def catalog(self) -> LakeCatalog:
        """The Iceberg catalog; imported on first use, for it takes a second."""
        if self._catalog is None:
            from trailsift.store.catalog import LakeCatalog

            self._catalog = LakeCatalog(self.root)
        return self._catalog

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Keeps other writers out. The lock is the operating system's: it goes with the process."""
        try:
            handle = os.open(self.root / LOCK_FILE, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise LakeError(f"the lake at {self.root} cannot be written: {error.strerror}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def refresh(self) -> None:
        """Loads what other writers have committed; to be called under the lock."""
        with closing(index.connect(self.root)) as db:
            (seq,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
            if seq == self._seen_at:
                return
            paths = [path for (path,) in db.execute("SELECT path FROM seen_file WHERE removed IS NULL ORDER BY added")]
        self.seen.load(self.root, paths)
        self._seen_at = seq

    def known_objects(self, objects: Sequence[LogObject]) -> set[tuple[str, str]]:
        """Which of these log objects are in the lake already, as (name, version)."""
        known: set[tuple[str, str]] = set()
        with closing(index.connect(self.root)) as db:
            for start in range(0, len(objects), 500):
                part = objects[start : start + 500]
                marks = ",".join(["(?,?)"] * len(part))
                values = [value for o in part for value in (o.name, o.version)]
                known.update(
                    db.execute(f"SELECT name, version FROM log_object WHERE (name, version) IN (VALUES {marks})", values)
                )
        return known

    def commit(self, batch: Batch, kind: str = "ingest") -> int:
        """Makes a batch visible, all of it or nothing; its sequence number. To be called under the lock."""
        staged = time.monotonic()
        catalog = self.catalog
        try:
            for name in event.TABLES:
                added = [self.root / file.path for file in batch.files if file.table == name]
                if added:
                    catalog.change(name, added)
            seen_row = self._write_seen(batch)
            with closing(index.connect(self.root)) as db:
                seq = self._apply(db, batch, kind, seen_row)
        except (sqlite3.DatabaseError, OSError) as error:
            catalog.discard()
            raise LakeError(f"the commit to {self.root} failed and nothing of it is visible: {error}") from error
        except BaseException:
            catalog.discard()
            raise
        self.seen.committed()
        self._seen_at = -1
        self.commit_seconds = time.monotonic() - staged
        return seq

    def _write_seen(self, batch: Batch) -> tuple[Any, ...] | None:
        if batch.ids is None or not len(batch.ids):
            return None
        path = f"seen/{uuid.uuid4().hex}.ids"
        seen.write(batch.ids, self.root / path)
        return path, len(batch.ids), batch.min_time, batch.max_time

    def _apply(self, db: sqlite3.Connection, batch: Batch, kind: str, seen_row: tuple[Any, ...] | None) -> int:
        db.execute("BEGIN IMMEDIATE")
        try:
            (last,) = db.execute("SELECT max(seq) FROM commit_log").fetchone()
            seq = int(last) + 1
            self.catalog.apply(db)
            locations = dict(
                db.execute(
                    "SELECT table_name, metadata_location FROM iceberg_tables WHERE table_namespace = ?",
                    (index.NAMESPACE,),
                )
            )
            index.record_files(db, seq, batch.files)
            if seen_row is not None:
                db.execute("INSERT INTO seen_file VALUES (?, ?, ?, ?, ?, NULL)", (*seen_row, seq))
            db.executemany(
                "INSERT OR IGNORE INTO log_object VALUES (?, ?, ?, ?)",
                [(o.name, o.version, o.delivered_on, seq) for o in batch.log_objects],
            )
            db.execute(
                "INSERT INTO commit_log VALUES (?, ?, ?, ?, ?)",
                (seq, _now(), kind, json.dumps(batch.counts), json.dumps(locations)),
            )
            db.execute("COMMIT")
        except BaseException:
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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
