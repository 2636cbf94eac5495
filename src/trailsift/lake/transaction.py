"""One commit of a lake, from the lock to the end: offer event ids, add files, then commit or roll back.

A batch's events, summary lines, event ids and log objects become visible together. Iceberg's new metadata is staged
and everything is flushed first; then the pointers of all tables and the index change in one SQLite transaction.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol

from trailsift import schema
from trailsift.errors import ConflictError, TrailsiftError, UnknownOutcomeError
from trailsift.lake import dedup, digest, index, log_objects
from trailsift.lake.commit import Batch, IndexChange, IngestedObject
from trailsift.lake.disk import write_errors
from trailsift.lake.home import mirror_of
from trailsift.lake.index import File
from trailsift.lake.lock import WriteLock
from trailsift.storage import LocalStorage
from trailsift.times import now_text

if TYPE_CHECKING:
    from trailsift.lake.iceberg import LakeCatalog


#: How often a commit to a lake in S3 is tried while other writers are first.
_ATTEMPTS = 20
#: Attempts that a writer loses before it asks the others to wait.
_PATIENCE = 2


#: Seconds after which the files of a commit that lost to others are not relied on: a machine may have slept meanwhile,
#: and after a day they may be swept (``expire.ORPHAN_AGE``).
_FRESH_SECONDS = 6 * 3600.0


def _seconds() -> float:
    """Return seconds of a clock that goes on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.time()


class LakeState(Protocol):
    """The part of the lake's writer that a transaction uses."""

    storage: LocalStorage
    tables: dict[str, schema.Table]

    @property
    def ids(self) -> dedup.DedupIndex:
        """The ids of the lake's events."""
        ...

    @property
    def catalog(self) -> LakeCatalog:
        """The Iceberg catalog."""
        ...

    def refresh(self) -> None:
        """Load what other writers have committed."""
        ...

    def catch_up(self) -> None:
        """Rebuild the index if another engine has committed."""
        ...

    def sweep(self) -> int:
        """Remove the files that no commit names."""
        ...

    def discard(self) -> None:
        """Forget what the catalog has staged."""
        ...

    def take_head(self) -> bool:
        """Bring the catalog to the state in S3; return False for a local lake, which has no other."""
        ...

    def ask_to_be_first(self) -> contextlib.AbstractContextManager[None]:
        """Ask the other writers of a lake in S3 to wait meanwhile."""
        ...

    def known_objects(self, objects: Sequence[IngestedObject]) -> set[tuple[str, str]]:
        """Return which log objects are in the lake already, as (name, version)."""
        ...


class Transaction:
    """A commit being prepared, which keeps other writers out. It ends with ``commit`` or ``rollback``, exactly once.

    As a context manager it rolls back if its block raises, or ends without a commit. Everything that is called after
    the end, and a second end, raises RuntimeError.
    """

    def __init__(self, lake: LakeState, lock: WriteLock) -> None:
        """``lock`` is held, and is released when the transaction ends."""
        self._lake = lake
        self._lock = lock
        self._batch = Batch()
        self._is_fresh = False
        #: Files that were written into the lake already, by an attempt to commit that lost to another writer.
        self._flushed: dict[str, digest.FileDigest] = {}
        self._flushed_at: float | None = None
        #: Iceberg's files of this attempt.
        self._staged: list[str] = []
        #: Those of attempts that lost to another writer.
        self._lost: list[str] = []
        # What an attempt that failed has staged is nobody's: from here on, all that is written is this commit's.
        lake.catalog.take_written()
        self._seen_row: list[tuple[str, int, int, int]] | None = None
        self._object_files: list[log_objects.ObjectFile] | None = None
        #: True from the request that commits in S3 until it is known that nothing was committed.
        self._may_be_committed = False
        self._state: Literal["open", "failed", "committed", "rolled back"] = "open"

    def offer(self, ids: dedup.Ids, span: tuple[int, int]) -> tuple[dedup.Mask, dedup.Ints]:
        """Take the new ones of a chunk's event ids into the commit.

        ``span``: first and last time of the chunk (microseconds since 1970). Return for each row of the chunk whether
        it is new, and the rows that repeat an earlier id with another checksum.
        """
        self._expect_open("offer ids")
        if not self._is_fresh:
            with write_errors(self._lake.storage.root):
                self._lake.refresh()
            self._is_fresh = True
        low, high = self._batch.span or span
        self._batch.span = min(low, span[0]), max(high, span[1])
        return self._lake.ids.offer(ids)

    def add(self, files: Iterable[File], log_objects: Iterable[IngestedObject] = ()) -> None:
        """Add files, which are written and no commit names, and log objects that are read to their ends."""
        self._expect_open("add files")
        self._batch.files += files
        self._batch.log_objects += log_objects

    def replace(self, old: Iterable[File], new: Iterable[File]) -> None:
        """Add files that take the place of others."""
        self.add(new)
        self._batch.removed += old

    def renew(self, tables: Mapping[str, schema.Table]) -> None:
        """Have tables made again, with the files that are added and nothing else; new ones are made."""
        self._expect_open("make tables again")
        self._batch.renewed |= tables

    def change_index(
        self, change: IndexChange, seen_paths: Sequence[str] = (), seen_replaced: Sequence[str] = ()
    ) -> None:
        """Have ``change`` made in the commit's SQLite transaction.

        ``seen_paths``: new files of ids that it names; ``seen_replaced``: those that it marks as removed.
        """
        self._expect_open("change the index")
        self._batch.index_change = change
        self._batch.seen_paths += seen_paths
        self._batch.seen_replaced += seen_replaced

    def commit(self, counts: Mapping[str, Any], kind: str = "ingest") -> int:
        """Make everything visible, all of it or nothing, and let other writers in; return the commit's number.

        LakeError if that fails; then only ``rollback`` is left.
        """
        self._expect_open("commit")
        self._state = "failed"
        try:
            with write_errors(self._lake.storage.root):
                seq = self._commit_after_others(counts, kind)
        except BaseException:
            self._lake.discard()
            raise
        self._lake.ids.clear_batch()
        self._state = "committed"
        self._lock.release(clean=True)
        if mirror_of(self._lake.storage.root) is not None:
            from trailsift.lake.glue import follow

            follow(self._lake.storage.root)
        return seq

    def rollback(self) -> None:
        """Remove everything that was written, and let other writers in.

        That includes files which a worker was still writing: on a full disk their space is what others wait for.
        """
        if self._state not in ("open", "failed"):
            raise self._ended("roll back")
        self._state = "rolled back"
        self._lake.discard()
        self._lake.ids.clear_batch()
        self._withdraw()
        swept = False
        try:
            # A sweep that fails is left to the next writer, which finds the marker.
            with contextlib.suppress(OSError, sqlite3.DatabaseError):
                self._lake.sweep()
                swept = True
        finally:
            self._lock.release(clean=swept)

    def __enter__(self) -> Transaction:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._state == "open" and kind is None and self._batch == Batch():
            self._state = "rolled back"
            self._lock.release(clean=True)
        elif self._state in ("open", "failed"):
            self.rollback()

    def _expect_open(self, what: str) -> None:
        if self._state != "open":
            raise self._ended(what)

    def _ended(self, what: str) -> RuntimeError:
        state = {"open": "is open", "failed": "has failed to commit"}.get(self._state, f"was {self._state}")
        return RuntimeError(f"cannot {what}: the transaction {state}; begin another one")

    def _commit_after_others(self, counts: Mapping[str, Any], kind: str) -> int:
        """Commit; in S3, where writers on other machines may be first, after each of them again.

        ConflictError if what they committed has a part of this commit already, or replaced files that it replaces.
        """
        with contextlib.ExitStack() as stack:
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    seq = self._commit(counts, kind)
                except ConflictError:
                    self._lake.discard()
                    if not self._lake.take_head():
                        raise
                    self._lost += self._staged
                    self._staged.clear()
                    if attempt == _ATTEMPTS or self._may_be_swept() or not self._stands():
                        raise
                    # Again at once: whoever pauses, or tidies up first, is beaten again by one that has lost nothing.
                    if attempt == _PATIENCE:
                        stack.enter_context(self._lake.ask_to_be_first())
                else:
                    self._delete([*self._lost, *self._lake.catalog.take_replaced()])
                    return seq
        raise AssertionError

    def _may_be_swept(self) -> bool:
        """Return whether the files were written so long ago that others may take them for those of a dead writer."""
        return self._flushed_at is not None and _seconds() - self._flushed_at > _FRESH_SECONDS

    def _stands(self) -> bool:
        """Return whether the commit can be made on the lake's new head as it is."""
        lake, batch = self._lake, self._batch
        if batch == Batch() or batch.renewed or batch.index_change is not None:
            # What else is staged, as expired snapshots are, is of the old head.
            return False
        with closing(index.connect(lake.storage.root)) as db:
            sql = "SELECT 1 FROM file WHERE table_name = ? AND path = ? AND removed IS NULL"
            if not all(db.execute(sql, (file.table, file.path)).fetchone() for file in batch.removed):
                return False
        if lake.known_objects(batch.log_objects):
            return False
        mine = lake.ids.batch()
        lake.refresh()
        return not lake.ids.has_any(mine)

    def _withdraw(self) -> None:
        """Delete what attempts to commit have written into a lake in S3; on a local disk the sweep does it."""
        if mirror_of(self._lake.storage.root) is not None and not self._may_be_committed:
            self._delete([*self._flushed, *self._staged, *self._lost])

    def _delete(self, paths: Sequence[str]) -> None:
        # What stays is removed by a later compaction.
        with contextlib.suppress(OSError, TrailsiftError):
            self._lake.storage.delete_all(paths)

    def _commit(self, counts: Mapping[str, Any], kind: str) -> int:
        lake, batch = self._lake, self._batch
        if not batch.renewed:
            # What another engine commits now to a table that is made again is not in it: ``_apply`` notices that.
            lake.catch_up()
        changed = {file.table for file in (*batch.files, *batch.removed)} - batch.renewed.keys()
        lake.catalog.prefetch(table for name, table in lake.tables.items() if name in changed)
        for name, table in (lake.tables | batch.renewed).items():
            added = [file for file in batch.files if file.table == name]
            removed = [file for file in batch.removed if file.table == name]
            if name in batch.renewed:
                lake.catalog.renew(table, added)
            elif added or removed:
                lake.catalog.change(table, added, removed)
        if self._seen_row is None:
            self._seen_row = self._write_seen()
        if self._object_files is None:
            known = lake.known_objects(batch.log_objects)
            new = [o for o in batch.log_objects if (o.name, o.version) not in known]
            self._object_files = log_objects.write(lake.storage, new)
        seen_row = self._seen_row
        written = [file.path for file in batch.files] + batch.seen_paths + [row[0] for row in seen_row]
        written += [file.path for file in self._object_files]
        # What staging has written, and not what is new in the folders: many commits in a short time leave thousands of
        # files there, until ``clean`` may delete them.
        self._staged += lake.catalog.take_written()
        written = [*(path for path in written if path not in self._flushed), *self._staged]
        # Read back from the system's cache, while the disk is still writing.
        digests = digest.of_files(lake.storage, written)
        if self._flushed_at is None:
            self._flushed_at = _seconds()
        lake.storage.flush(written)
        self._flushed |= {path: digests[path] for path in written if path not in self._staged}
        digests |= self._flushed
        with closing(index.connect(lake.storage.root)) as db:
            return self._apply(db, counts, kind, seen_row, digests)

    def _write_seen(self) -> list[tuple[str, int, int, int]]:
        """Write the new ids; return their row of ``seen_file`` (path, ids, first and last time), if there are any."""
        parts = self._lake.ids.batch()
        number = sum(map(len, parts))
        if not number or self._batch.span is None:
            return []
        path = f"seen/{uuid.uuid4().hex}.ids"
        dedup.write(parts, self._lake.storage.local_path(path))
        return [(path, number, *self._batch.span)]

    def _apply(
        self,
        db: sqlite3.Connection,
        counts: Mapping[str, Any],
        kind: str,
        seen_row: Sequence[tuple[str, int, int, int]],
        digests: Mapping[str, digest.FileDigest],
    ) -> int:
        """Change the catalog's pointers and the index in one transaction; return the commit's number."""
        batch = self._batch
        # First among the counts, so that it stands in one piece in the database.
        commit_id = {} if mirror_of(self._lake.storage.root) is None else {"id": uuid.uuid4().hex}
        db.execute("BEGIN IMMEDIATE")
        try:
            seq = index.next_number(db)
            if index.is_stale(db):
                raise ConflictError(
                    f"another engine committed to the lake at {self._lake.storage.root} during the commit: "
                    "nothing was committed; run the same command again"
                )
            self._lake.catalog.apply(db)
            locations = index.live_locations(db)
            index.record_files(db, seq, batch.files, [(file.table, file.path) for file in batch.removed])
            db.executemany("INSERT INTO seen_file VALUES (?, ?, ?, ?, ?, NULL)", [(*row, seq) for row in seen_row])
            log_objects.record(db, seq, self._object_files or ())
            if batch.index_change is not None:
                batch.index_change(db, seq)
            db.execute(
                "INSERT INTO commit_log VALUES (?, ?, ?, ?, ?)",
                (seq, now_text(), kind, json.dumps({**commit_id, **counts}), json.dumps(locations)),
            )
            changed = [file.path for file in batch.removed] + batch.seen_replaced
            digest.seal(db, seq, digests, changed)
            self._send(db, commit_id.get("id"))
        except BaseException:
            # On a full disk, SQLite has rolled back already.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return seq

    def _send(self, db: sqlite3.Connection, commit_id: str | None) -> None:
        self._may_be_committed = True
        try:
            index.commit(self._lake.storage.root, db, commit_id)
        except UnknownOutcomeError:
            raise
        except TrailsiftError:
            self._may_be_committed = False
            raise
