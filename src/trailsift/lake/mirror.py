"""A lake in S3 beside its copy on the local disk: what is read is fetched once, what is written goes to S3 first.

A lake's files never change once they are written, so a copy is as good as the original; the one exception is the
catalog, a few megabytes, which is fetched again when it has another ETag and is changed by compare-and-swap. The rest
of trailsift works on the copy as on any local folder: the same planning, the same wall around SQL, and no credentials
near it.

Readers and writers have a copy each, so a reader gets the newest catalog while a writer prepares the next one. Copies
lie in the user's cache folder; the least recently used files go first when it is full.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Literal

from trailsift.errors import ConflictError, LakeError, S3Error, TrailsiftError, UnknownOutcomeError, UsageError
from trailsift.lake import home
from trailsift.lake.create import check_root, new_settings, settings_text
from trailsift.lake.settings import CATALOG_FILE, LAKE_FILE, LOCK_FILE, MARKER_FILE, MAX_SETTINGS
from trailsift.lake.turns import Turns
from trailsift.storage.base import StoredObject, check_path
from trailsift.storage.local import LocalStorage, make_folders, sync, user_cache
from trailsift.storage.s3 import S3Storage
from trailsift.storage.s3_client import parse_url

#: Bytes of the files that are kept on the disk, and the environment variable that says otherwise.
CACHE_BYTES = 10 << 30
CACHE_VARIABLE = "TRAILSIFT_CACHE_BYTES"
#: Seconds between two looks at all objects of a lake for what dead writers left.
SWEEP_SECONDS = 6 * 3600.0
#: Seconds for which a writer without an answer tries to read whether its commit took place.
READ_BACK_SECONDS = 60.0
#: Seconds after which a writer does not rely on what was opened for it: it needs milliseconds to come to that.
AHEAD_SECONDS = 5.0
#: How often a change of the settings is announced while other writers are first.
_ANNOUNCEMENTS = 20
#: Requests in flight.
_AT_ONCE = 16
#: The largest catalog that is unpacked, in bytes, and how a packed one begins.
_MAX_CATALOG = 1 << 30
#: The cache is looked through for what may be deleted after this share of its size was fetched, or so many seconds.
_ROOM, _ROOM_SECONDS = 50, 30.0
#: Bytes that a file of unknown size, such as a manifest, is taken for.
_UNKNOWN_BYTES = 1 << 15
_GZIP = b"\x1f\x8b"
#: Objects by which it is found out whether conditions are honoured, and by which writers ask to go first. They are
#: deleted at once, unless a writer dies.
PROBE_FOLDER = "probe"
#: Folders whose files never change.
_FIXED = ("data", "metadata")

Use = Literal["read", "write"]


class Mirror:
    """One lake in S3 and its local copy for one use."""

    def __init__(self, url: str, use: Use) -> None:
        """``url``: ``s3://bucket/prefix`` of the lake. UsageError if it is not one."""
        parsed = parse_url(url)
        parsed = parsed._replace(key=parsed.key.rstrip("/"))
        if not parsed.key:
            raise UsageError(f"{url} is a bucket: name a prefix in it for the lake, such as {url.rstrip('/')}/lake")
        if "" in parsed.key.split("/"):
            raise UsageError(f"{url}: the prefix of a lake may have no empty part, as between two slashes")
        self.url = str(parsed)
        self.use = use
        self.remote = S3Storage(parsed)
        self.folder = _cache_folder() / _folder_name(self.url)
        self.root = self.folder / use
        #: Files that came from S3: all others in the copy were made here.
        self.fetched: set[str] = set()
        #: Holds the ETag of the catalog in the copy.
        self._head_file = self.folder / f"{use}.head"
        self._lock = threading.Lock()
        self._is_probed = False
        #: When ``open`` was last called by one who does not write, and leaves it to the writer that follows.
        self._opened_at: float | None = None
        self._takes_copies = True
        #: Bytes that may be fetched until the cache is looked through again, and the time until which that holds.
        self._room = 0, 0.0
        self._turns = Turns(self.remote, PROBE_FOLDER)

    # -- the lake ------------------------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Bring the copy to the newest commit, unless a writer on this machine works on it; return if there is a lake.

        A writer takes the newest commit again when it has the lock.
        """
        self._opened_at = None
        if self.use == "read":
            return self.refresh()
        self._make_folders()
        with self._cache_errors(), self._locked(self.root / LOCK_FILE, wait=False) as is_free:
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
        self._make_folders()
        # Another process on this machine may be making it, too, and then works on the copy.
        with self._cache_errors(), self._locked(self.folder / "make.lock"):
            if not self.remote.exists(LAKE_FILE):
                self._expect_room()
                self.probe()
                for use in ("read", "write"):
                    shutil.rmtree(self.folder / use, ignore_errors=True)
                    (self.folder / f"{use}.head").unlink(missing_ok=True)
                self._make_folders()
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

    def distrust(self) -> None:
        """Remove the copies of files, so that each is read from S3 again."""
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        self._takes_copies = False

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

    def drop(self, paths: Iterable[str]) -> None:
        """Remove files from the copies here only."""
        for path in paths:
            for use in ("read", "write"):
                with suppress(OSError):
                    (self.folder / use / check_path(path)).unlink()

    def is_sweep_due(self) -> bool:
        """Return whether it is time to look for what dead writers left, and note that it is done now."""
        stamp = self.folder / "swept"
        with suppress(OSError):
            if 0 <= time.time() - stamp.stat().st_mtime < SWEEP_SECONDS:
                return False
        self._write(stamp, b"")
        return True

    # -- the catalog ---------------------------------------------------------------------------------------------------

    def refresh(self) -> bool:
        """Fetch the catalog and the settings, if the catalog has changed; return whether the lake exists.

        For readers: the file is replaced, and whoever has the old one open goes on with it.
        """
        self._make_folders()
        with self._cache_errors(), self._locked(self.folder / f"{self.use}.lock"):
            found = self._fetch_catalog()
            if found is not None:
                data, version = found
                partial = self.root / f".catalog-{os.urandom(8).hex()}"
                self._write(partial, data)
                partial.replace(self.root / CATALOG_FILE)
                self._set_head(version)
            return (self.root / LAKE_FILE).exists()

    def renew(self) -> bool:
        """Fetch a reader's catalog again, which cannot be read; return False for a writer's."""
        if self.use != "read":
            return False
        with self._cache_errors():
            self._set_head(None)
        return self.refresh()

    def take_head(self) -> bool:
        """Bring a writer's copy of the catalog to the state in S3; return whether it had another one.

        Connections that are open see the new state. Only under the write lock of the copy.
        """
        self._make_folders()
        found = self._fetch_catalog()
        if found is None:
            return False
        data, version = found
        partial = self.root / f".catalog-{os.urandom(8).hex()}"
        self._write(partial, data)
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
            found = self.remote.read_if_changed(CATALOG_FILE, head, limit=_MAX_CATALOG)
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
        self._write(self._head_file, (version or "").encode())

    def _write(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f".{path.name.lstrip('.')}.{os.urandom(8).hex()}")
        try:
            partial.write_bytes(data)
            partial.chmod(0o600)
            # After a power cut, the head that is noted must not be that of a catalog which is not there.
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    # -- files that never change ---------------------------------------------------------------------------------------

    def fetch(self, paths: Iterable[str], sizes: Mapping[str, int] | None = None) -> None:
        """Have files on the disk that are in the lake; a missing one stays missing, and its reader says so.

        ``sizes``: their bytes, as far as they are known. LakeError if they do not fit into the cache.
        """
        known = sizes or {}
        missing = [path for path in dict.fromkeys(paths) if not self._use(path, known.get(path))]
        missing = [path for path in missing if not self._takes_copies or not self._link(path, known.get(path))]
        if not missing:
            return
        self._make_room(sum(known.get(path, _UNKNOWN_BYTES) for path in missing))
        self.each(lambda path: self._download(path, is_sized=path in known), missing)

    def upload(self, paths: Iterable[str]) -> None:
        """Write new files of the copy into the lake, and hand them to the readers on this machine."""
        names = list(paths)
        self.each(lambda path: self.remote.upload(path, self.root / check_path(path)), names)
        other = self.folder / "read"
        if self.use == "write" and other.is_dir():
            for path in names:
                with suppress(OSError):
                    make_folders((other / path).parent)
                    os.link(self.root / path, other / path)

    def _link(self, path: str, size: int | None) -> bool:
        """Take a file from the copy for the other use, if it is there."""
        other = self.folder / ("write" if self.use == "read" else "read") / path
        if other.is_symlink() or not other.is_file() or (size is not None and other.stat().st_size != size):
            return False
        make_folders((self.root / path).parent)
        try:
            self.fetched.add(path)
            os.link(other, self.root / path, follow_symlinks=False)
        except FileExistsError:
            return True
        except OSError:
            return False
        return True

    def _use(self, path: str, size: int | None) -> bool:
        """Return whether a file is there, of its size if that is known, and note that it was used."""
        place = self.root / check_path(path)
        try:
            os.utime(place, follow_symlinks=False)
        except FileNotFoundError:
            return False
        # As after a power cut: what was fetched shortly before may be empty. A link is an error of whoever reads it.
        with suppress(FileNotFoundError):
            if size is None or place.is_symlink() or place.stat().st_size == size:
                return True
            place.unlink()
        return False

    def _download(self, path: str, *, is_sized: bool) -> None:
        target = self.root / path
        make_folders(target.parent)
        partial = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
        try:
            self.remote.download(path, partial)
            self.fetched.add(path)
            partial.chmod(0o600)
            if not is_sized:
                sync(partial)
            partial.replace(target)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise LakeError(
                    f"the disk of the cache {self.folder} is full: make room there, or set XDG_CACHE_HOME to another "
                    f"disk; {self.url} itself is unchanged"
                ) from error
            raise
        finally:
            partial.unlink(missing_ok=True)

    def _make_room(self, needed: int) -> None:
        """Delete the least recently used files until ``needed`` bytes fit. LakeError if they can never fit."""
        limit = cache_bytes()
        with self._lock:
            room, until = self._room
            if needed <= room and time.monotonic() < until:
                # To look through a cache of thousands of files before each small fetch takes longer than the fetch.
                self._room = room - needed, until
                return
        if needed > limit:
            raise LakeError(
                f"this reads {needed / 1e9:,.1f} GB of {self.url}, and the cache on the disk takes {limit / 1e9:,.1f} "
                f"GB: narrow the time range, or set {CACHE_VARIABLE} to a larger number of bytes"
            )
        kept = sorted(_cached(self.folder.parent))
        used = sum(size for _, size, _ in kept)
        for _, size, path in kept:
            if used + needed <= limit:
                break
            with suppress(OSError):
                path.unlink()
            used -= size
        with self._lock:
            self._room = min(max(limit - used - needed, 0), limit // _ROOM), time.monotonic() + _ROOM_SECONDS

    def each(self, call: Callable[[str], object], paths: Sequence[str]) -> None:
        """Make many requests at once. Raise what the first failing one raises."""
        from concurrent.futures import ThreadPoolExecutor

        if len(paths) == 1:
            call(paths[0])
            return
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for _ in pool.map(call, paths):
                pass

    def _make_folders(self) -> None:
        with self._lock, self._cache_errors():
            for place in (self.folder.parent, self.folder, self.root):
                with suppress(FileExistsError):
                    place.mkdir(mode=0o700, parents=True)
                state = place.lstat()
                if not stat.S_ISDIR(state.st_mode) or state.st_uid != os.geteuid() or state.st_mode & 0o022:
                    raise LakeError(
                        f"the cache folder {place} is not private: it must be a folder of yours that nobody else may "
                        "write (chmod 700), or set XDG_CACHE_HOME to another one"
                    )

    @contextmanager
    def _cache_errors(self) -> Iterator[None]:
        """Raise LakeError if the disk of the cache fails: S3 itself raises no OSError."""
        try:
            yield
        except OSError as error:
            raise LakeError(
                f"the cache folder {self.folder} cannot be used: {error.strerror or error}: make room there, or set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from error

    @contextmanager
    def _locked(self, place: Path, *, wait: bool = True) -> Iterator[bool]:
        """Keep other processes out that lock this file; yield whether that was possible."""
        handle = os.open(place, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(handle)


class MirroredStorage(LocalStorage):
    """The storage of a lake in S3 as whoever works on its copy sees it: writes reach S3 before they return."""

    loses_answers = True

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(mirror.root)
        self.mirror = mirror

    def read(self, path: str) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is no such object."""
        if _is_fixed(path):
            self.mirror.fetch([path])
            return super().read(path)
        return self.mirror.remote.read(path)

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and their version. FileNotFoundError if there is no such object."""
        return self.mirror.remote.read_versioned(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end of the object."""
        if _is_fixed(path):
            self.mirror.fetch([path])
            return super().read_range(path, start, length)
        return self.mirror.remote.read_range(path, start, length)

    def write(self, path: str, data: bytes) -> str:
        """Write an object, in S3 and here; return its version."""
        version = self.mirror.remote.write(path, data)
        if path == LAKE_FILE:
            self.mirror.announce()
        else:
            super().write(path, data)
        return version

    def write_new(self, path: str, data: bytes) -> None:
        """Write a new file of the copy, which ``flush`` writes into the lake. FileExistsError if it exists."""
        target = self.root / check_path(path)
        make_folders(target.parent)
        with target.open("xb") as file:
            file.write(data)
        target.chmod(0o600)

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist). ConflictError if not."""
        return self.mirror.remote.put_if_match(path, data, version)

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        return self.mirror.remote.stat(path)

    def stat_all(self, paths: Iterable[str]) -> Sequence[StoredObject | None]:
        """Return what ``stat`` returns for each path; many requests at once."""
        found: dict[str, StoredObject | None] = {}
        names = list(paths)
        self.mirror.each(lambda path: found.update({path: self.stat(path)}), names)
        return [found[name] for name in names]

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self.mirror.remote.exists(path)

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Yield the objects under a folder (default: all)."""
        return self.mirror.remote.list(folder)

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of the objects under a folder (default: all)."""
        return self.mirror.remote.paths(folder)

    def written(self, folder: str) -> Iterator[str]:
        """Yield the paths of the files under a folder that were made here."""
        return (path for path in super().paths(folder) if path not in self.mirror.fetched)

    def delete(self, path: str) -> None:
        """Delete an object, and its copies here, if it exists."""
        self.mirror.remote.delete(path)
        self.mirror.drop([path])

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects, and their copies here, if they exist."""
        names = list(paths)
        self.mirror.remote.delete_all(names)
        self.mirror.drop(names)

    def checked_path(self, path: str) -> Path:
        """Return where a file is, which is fetched if it is not here yet. LakeError if it is behind a link."""
        if _is_fixed(path):
            self.mirror.fetch([path])
        return super().checked_path(path)

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        return self.mirror.remote.describe(path)

    def flush(self, paths: Iterable[str]) -> None:
        """Write files of the copy into the lake."""
        self.mirror.upload(paths)

    def tidy(self, folder: str = "") -> None:
        """Do nothing: S3 has no partial objects."""


def open_mirror(url: str, use: Use) -> Mirror:
    """Return the lake at ``url`` with its copy for ``use``. Nothing is read yet."""
    mirror = Mirror(url, use)
    known = home.mirror_of(mirror.root)
    if isinstance(known, Mirror):
        return known
    home.add_mirror(mirror, MirroredStorage(mirror))
    return mirror


def pack(catalog: bytes) -> bytes:
    """Return a catalog as it is stored in S3: a fifth of its size, since paths and roles repeat."""
    from isal import igzip

    # Level 3 takes 30 ms more than level 1 for the catalog of a year and saves 130 KB on the way; zlib's own level 6
    # would save 200 KB more and take 200 ms. The same catalog gives the same bytes: there is no time in them.
    return bytes(igzip.compress(catalog, 3, mtime=0))


def unpack(data: bytes, url: str) -> bytes:
    """Return a catalog from S3; one that was copied there from a disk is not packed. LakeError if it is too large."""
    import zlib

    if data[:2] != _GZIP:
        return data
    unpacker = zlib.decompressobj(31)
    try:
        catalog = unpacker.decompress(data, _MAX_CATALOG)
    except zlib.error as error:
        raise LakeError(f"{url}/{CATALOG_FILE} is damaged: {error}") from error
    if not unpacker.eof:
        raise LakeError(f"{url}/{CATALOG_FILE} is cut off, or too large for the catalog of a lake")
    return catalog


def unpack_in_place(root: Path) -> None:
    """Unpack the catalog of a lake that was copied from S3 to a folder."""
    place = root / CATALOG_FILE
    if place.is_symlink() or not place.is_file():
        return
    with place.open("rb") as file:
        if file.read(2) != _GZIP:
            return
        data = b"".join((_GZIP, file.read(_MAX_CATALOG)))
    LocalStorage(root).write(CATALOG_FILE, unpack(data, str(root)))


def cache_bytes() -> int:
    """Return how many bytes of lakes in S3 are kept on the disk. UsageError if the environment says nonsense."""
    text = os.environ.get(CACHE_VARIABLE, "")
    if not text:
        return CACHE_BYTES
    if not (text.isascii() and text.isdecimal()) or int(text) < 1 << 20:
        raise UsageError(f"{CACHE_VARIABLE} is {text!r:.40}: it must be a number of bytes, at least {1 << 20:,}")
    return int(text)


def _is_fixed(path: str) -> bool:
    parts = path.split("/")
    return parts[0] in ("seen", "objects") or (len(parts) > 2 and parts[1] in _FIXED)


def _cache_folder() -> Path:
    return (user_cache() / "lakes").resolve()


def _folder_name(url: str) -> str:
    """Return the name of a lake's copies: two endpoints may have a bucket of the same name."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    return hashlib.sha256(f"{endpoint} {url}".encode()).hexdigest()[:32]


def _cached(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Yield time of use, size and path of the files in the cache that can be fetched again."""
    for at, _, names in os.walk(folder):
        parts = set(Path(at).parts)
        if not parts & {*_FIXED, "seen", "objects"}:
            continue
        since = _writing_since(Path(at))
        for name in names:
            path = Path(at) / name
            with suppress(OSError):
                state = path.lstat()
                if since is not None and state.st_mtime_ns >= since:
                    # A writer may not have written it into the lake yet.
                    continue
                # A file of both copies takes its bytes once; nothing is won by deleting one of the two.
                yield state.st_mtime, state.st_size // max(state.st_nlink, 1), path


def _writing_since(place: Path) -> int | None:
    """Return since when (nanoseconds since 1970) a writer works on the copy that ``place`` lies in; None: nobody."""
    for folder in place.parents:
        if folder.name == "write":
            with suppress(OSError):
                return (folder / MARKER_FILE).lstat().st_mtime_ns
            return None
    return None


def _overwrite(source: Path, target: Path) -> None:
    """Give an SQLite file the content of another one, in one transaction."""
    from contextlib import closing

    with closing(sqlite3.connect(source)) as new, closing(sqlite3.connect(target, timeout=60)) as old:
        new.backup(old)
