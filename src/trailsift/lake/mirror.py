"""A lake in S3 beside its copy on the local disk: what is read is fetched once, what is written goes to S3 first.

A lake's files never change once they are written, so a copy is as good as the original; the one exception is the
catalog, a few megabytes, which is fetched again when it has another ETag and is changed by compare-and-swap. The rest
of trailsift works on the copy as on any local folder: the same planning, the same wall around SQL, and no credentials
near it.

Readers and writers have a copy each (`lake/cached_files.py`), so a reader gets the newest catalog while a writer
prepares the next one.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import time
from contextlib import AbstractContextManager, closing, suppress
from pathlib import Path

from trailsift.errors import ConflictError, LakeError, S3Error, TrailsiftError, UnknownOutcomeError, UsageError
from trailsift.lake.cached_files import CachedFiles, Use
from trailsift.lake.create import check_root, new_settings, settings_text
from trailsift.lake.packing import MAX_CATALOG, pack, unpack
from trailsift.lake.settings import CATALOG_FILE, LAKE_FILE, LOCK_FILE, MAX_SETTINGS
from trailsift.lake.turns import Turns
from trailsift.storage.local import LocalStorage
from trailsift.storage.s3 import S3Storage
from trailsift.storage.s3_client import parse_url

#: Seconds between two looks at all objects of a lake for what dead writers left.
SWEEP_SECONDS = 6 * 3600.0
#: Seconds for which a writer without an answer tries to read whether its commit took place.
READ_BACK_SECONDS = 60.0
#: Seconds after which a writer does not rely on what was opened for it: it needs milliseconds to come to that.
AHEAD_SECONDS = 5.0
#: How often a change of the settings is announced while other writers are first.
_ANNOUNCEMENTS = 20
#: Objects by which it is found out whether conditions are honoured, and by which writers ask to go first. They are
#: deleted at once, unless a writer dies.
PROBE_FOLDER = "probe"


class Mirror(CachedFiles):
    """One lake in S3 and its local copy for one use."""

    def __init__(self, url: str, use: Use) -> None:
        """``url``: ``s3://bucket/prefix`` of the lake. UsageError if it is not one."""
        parsed = parse_url(url)
        parsed = parsed._replace(key=parsed.key.rstrip("/"))
        if not parsed.key:
            raise UsageError(f"{url} is a bucket: name a prefix in it for the lake, such as {url.rstrip('/')}/lake")
        if "" in parsed.key.split("/"):
            raise UsageError(f"{url}: the prefix of a lake may have no empty part, as between two slashes")
        super().__init__(S3Storage(parsed), use)
        #: Holds the ETag of the catalog in the copy.
        self._head_file = self.folder / f"{use}.head"
        self._is_probed = False
        #: When ``open`` was last called by one who does not write, and leaves it to the writer that follows.
        self._opened_at: float | None = None
        self._turns = Turns(self.remote, PROBE_FOLDER)

    # -- the lake ------------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Bring the copy to the newest commit, unless a writer on this machine works on it; return if there is a lake.

        A writer takes the newest commit again when it has the lock.
        """
        self._opened_at = None
        if self.use == "read":
            return self.refresh()
        self.make_folders()
        with self.cache_errors(), self.locked(self.root / LOCK_FILE, wait=False) as is_free:
            if is_free and not self.take_head():
                # Settings change without a commit.
                self._fetch_settings()
        return (self.root / LAKE_FILE).exists()

    def open_ahead(self) -> bool:
        """Do what ``open`` does for an operation whose writer comes next, and need not do it again."""
        is_there = self.open()
        self._opened_at = time.monotonic()
        return is_there

    def open_once(self) -> bool:
        """Do what ``open`` does, unless it was done ahead; return if there is a lake."""
        opened_at, self._opened_at = self._opened_at, None
        if opened_at is None or time.monotonic() - opened_at > AHEAD_SECONDS:
            return self.open()
        return (self.root / LAKE_FILE).exists()

    def make(self, *, hourly_partitions: bool) -> None:
        """Make a new lake. LakeError if the prefix holds something else, or the server cannot have one."""
        check_root(self.url)
        self.make_folders()
        # Another process on this machine may be making it, too, and then works on the copy.
        with self.cache_errors(), self.locked(self.folder / "make.lock"):
            if not self.remote.exists(LAKE_FILE):
                self._expect_room()
                self.probe()
                for use in ("read", "write"):
                    shutil.rmtree(self.folder / use, ignore_errors=True)
                    (self.folder / f"{use}.head").unlink(missing_ok=True)
                self.make_folders()
                settings = new_settings(self.url, hourly_partitions=hourly_partitions, group_readable=False)
                with suppress(ConflictError):  # another writer was first
                    self.remote.put_if_match(LAKE_FILE, settings_text(settings), None)
            self._fetch_settings()

    def _expect_room(self) -> None:
        """Raise LakeError if there are objects under the prefix, or a lake above it."""
        found = self.remote.first(besides=f"{PROBE_FOLDER}/")
        if found is not None and not self.remote.exists(LAKE_FILE):
            raise LakeError(
                f"{self.url} is not empty and holds no lake (there is {found.path!r:.200}): name a prefix that nothing "
                "is under"
            )
        parts = self.remote.url.key.split("/")
        for number in range(len(parts)):
            above = S3Storage(self.remote.url._replace(key="/".join(parts[:number])))
            # Whoever may use only the lake's own prefix has no other lake around it.
            with suppress(S3Error):
                if above.exists(LAKE_FILE):
                    raise LakeError(f"{self.url} lies in the lake {above.url}: name a prefix outside of it")

    def probe(self) -> None:
        """Find out, once, whether the server honours conditions of writes. LakeError if it does not."""
        if self._is_probed:
            return
        path = f"{PROBE_FOLDER}/{os.urandom(16).hex()}"
        # Without a condition: whether this is the second attempt does not matter.
        self.remote.write(path, b"1")
        try:
            for version in (None, '"00000000000000000000000000000000"'):
                try:
                    self.remote.put_if_match(path, b"2", version)
                except ConflictError:
                    continue
                header = "If-None-Match" if version is None else "If-Match"
                raise LakeError(
                    f"the server of {self.url} ignores {header}, so two writers could undo each other's commits: keep "
                    "the lake in S3, on a server that honours conditional writes, or on a disk. Nothing was written"
                )
        finally:
            self.remote.delete(path)
        self._is_probed = True

    def announce(self) -> None:
        """Take settings that were changed in S3, and have others take them too, which they do after a commit.

        Only under the write lock.
        """
        from trailsift.lake.digest import commit_nothing

        self._fetch_settings()
        for attempt in range(1, _ANNOUNCEMENTS + 1):
            try:
                commit_nothing(self.root, "settings", {})
                break
            except ConflictError:
                if attempt == _ANNOUNCEMENTS:
                    raise
                self.take_head()

    def is_sweep_due(self) -> bool:
        """Return whether it is time to look for what dead writers left, and note that it is done now."""
        stamp = self.folder / "swept"
        with suppress(OSError):
            if 0 <= time.time() - stamp.stat().st_mtime < SWEEP_SECONDS:
                return False
        self.write_private(stamp, b"")
        return True

    # -- the catalog ---------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Fetch the catalog and the settings, if the catalog has changed; return whether the lake exists.

        For readers: the file is replaced, and whoever has the old one open goes on with it.
        """
        self.make_folders()
        with self.cache_errors(), self.locked(self.folder / f"{self.use}.lock"):
            found = self._fetch_catalog()
            if found is not None:
                data, version = found
                partial = self.root / f".catalog-{os.urandom(8).hex()}"
                self.write_private(partial, data)
                partial.replace(self.root / CATALOG_FILE)
                self._set_head(version)
            return (self.root / LAKE_FILE).exists()

    def renew(self) -> bool:
        """Fetch a reader's catalog again, which cannot be read; return False for a writer's."""
        if self.use != "read":
            return False
        with self.cache_errors():
            self._set_head(None)
        return self.refresh()

    def take_head(self) -> bool:
        """Bring a writer's copy of the catalog to the state in S3; return whether it had another one.

        Connections that are open see the new state. Only under the write lock of the copy.
        """
        self.make_folders()
        found = self._fetch_catalog()
        if found is None:
            return False
        data, version = found
        partial = self.root / f".catalog-{os.urandom(8).hex()}"
        self.write_private(partial, data)
        try:
            if (self.root / CATALOG_FILE).exists():
                _overwrite(partial, self.root / CATALOG_FILE)
            else:
                partial.replace(self.root / CATALOG_FILE)
        finally:
            partial.unlink(missing_ok=True)
        self._set_head(version)
        return True

    def let_others_finish(self) -> None:
        """Wait, for seconds at most, for writers that keep losing to others."""
        self._turns.wait()

    def ask_to_be_first(self) -> AbstractContextManager[None]:
        """Ask the other writers to wait meanwhile."""
        return self._turns.asked()

    def is_newest(self) -> bool:
        """Return whether the copy has the newest commit, as far as the server says."""
        stored, head = self.remote.stat(CATALOG_FILE), self._head()
        return stored is not None and stored.version == head

    def publish(self, db: sqlite3.Connection, commit_id: str | None = None) -> None:
        """Swap the catalog in S3 for the one that ``db`` has in its open transaction, and commit that here.

        ``commit_id``: a random text among the counts of the newest commit, by which it is recognized after a lost
        answer. ConflictError if another writer was first; UnknownOutcomeError if nobody can tell. After any other
        error of our tree nothing was committed; after anything else, such as KeyboardInterrupt, it may have been.
        """
        self.probe()
        version = self._swap(pack(db.serialize()), commit_id)
        # The order matters: a copy that is older than the head noted for it would undo commits.
        try:
            db.execute("COMMIT")
            self._set_head(version)
        except (sqlite3.Error, OSError):
            # On a full disk. What counts is the lake in S3: the copy is fetched again.
            if db.in_transaction:
                db.execute("ROLLBACK")

    def _swap(self, data: bytes, commit_id: str | None) -> str | None:
        """Write a catalog into S3 if it still has the one that it was made from; return its version, if it is known."""
        head = self._head()
        # Without an answer from here on, the copy is of an unknown state: it is fetched again.
        try:
            self._set_head(None)
        except OSError as error:
            raise LakeError(f"the cache {self.folder} cannot be written: {error.strerror}") from error
        try:
            return self.remote.put_if_match(CATALOG_FILE, data, head)
        except (OSError, TrailsiftError) as error:
            published = self._is_published(data, commit_id)
            if published:
                return None
            if published is None:
                raise UnknownOutcomeError(
                    f"no answer from S3 to the commit of {self.url}, and the lake cannot be read to see whether it "
                    f"took place ({error}): run the same command again; nothing is stored twice"
                ) from error
            if isinstance(error, ConflictError) or (isinstance(error, S3Error) and error.is_final):
                raise
            raise UnknownOutcomeError(
                f"no answer from S3 to the commit of {self.url} ({error}). It did not take place so far: run the same "
                "command again; nothing is stored twice"
            ) from error

    def _is_published(self, data: bytes, commit_id: str | None) -> bool | None:
        """Return whether the catalog in S3 is, or comes after, the one that was sent; None if it cannot be read."""
        found: bytes | None = None
        end, pause = time.monotonic() + READ_BACK_SECONDS, 0.1
        while found is None and time.monotonic() < end:
            try:
                found = self.remote.read(CATALOG_FILE)
            except FileNotFoundError:
                return False
            except (OSError, TrailsiftError):
                time.sleep(pause)
                pause *= 2
        if found is None:
            return None
        if found == data:
            return True
        return commit_id is not None and commit_id.encode() in unpack(found, self.url)

    def _fetch_catalog(self) -> tuple[bytes, str] | None:
        """Return the catalog's bytes and ETag, None if the copy has them already or there is none in S3."""
        head = self._head() if (self.root / CATALOG_FILE).exists() else None
        try:
            found = self.remote.read_if_changed(CATALOG_FILE, head, limit=MAX_CATALOG)
        except FileNotFoundError:
            if self.use == "read" or head is not None:
                (self.root / CATALOG_FILE).unlink(missing_ok=True)
                self._set_head(None)
            # Else it is the first one, which a writer prepares here.
            self._fetch_settings()
            return None
        if found is None:
            return None
        self._fetch_settings()
        return unpack(found[0], self.url), found[1]

    def _fetch_settings(self) -> None:
        try:
            data = self.remote.read(LAKE_FILE, limit=MAX_SETTINGS)
        except FileNotFoundError:
            (self.root / LAKE_FILE).unlink(missing_ok=True)
            return
        LocalStorage(self.root).write(LAKE_FILE, data)

    def _head(self) -> str | None:
        with suppress(OSError, UnicodeError):
            return self._head_file.read_text("utf-8") or None
        return None

    def _set_head(self, version: str | None) -> None:
        self.write_private(self._head_file, (version or "").encode())


def _overwrite(source: Path, target: Path) -> None:
    """Give an SQLite file the content of another one, in one transaction."""
    with closing(sqlite3.connect(source)) as new, closing(sqlite3.connect(target, timeout=60)) as old:
        new.backup(old)
