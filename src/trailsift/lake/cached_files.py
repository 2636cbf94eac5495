"""The copy of a lake in S3 on the local disk: files that never change, fetched once.

Readers and writers have a copy each. Copies lie in the user's cache folder; the least recently used files go first when
it is full.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from trailsift.errors import LakeError, UsageError
from trailsift.lake.settings import MARKER_FILE
from trailsift.storage.base import check_path
from trailsift.storage.local import make_folders, sync, user_cache
from trailsift.storage.s3 import S3Storage

#: Bytes of the files that are kept on the disk, and the environment variable that says otherwise.
CACHE_BYTES = 10 << 30
CACHE_VARIABLE = "TRAILSIFT_CACHE_BYTES"
#: Requests in flight.
_AT_ONCE = 16
#: The cache is looked through for what may be deleted after this share of its size was fetched, or so many seconds.
_ROOM, _ROOM_SECONDS = 50, 30.0
#: Bytes that a file of unknown size, such as a manifest, is taken for.
_UNKNOWN_BYTES = 1 << 15
#: Folders whose files never change.
_FIXED = ("data", "metadata")

Use = Literal["read", "write"]


class CachedFiles:
    """The files of one lake in S3 that have a copy for one use."""

    def __init__(self, remote: S3Storage, use: Use) -> None:
        self.url = str(remote.url)
        self.use = use
        self.remote = remote
        self.folder = _cache_folder() / _folder_name(self.url)
        self.root = self.folder / use
        #: Files that came from S3: all others in the copy were made here.
        self.fetched: set[str] = set()
        self._lock = threading.Lock()
        self._takes_copies = True
        #: Bytes that may be fetched until the cache is looked through again, and the time until which that holds.
        self._room = 0, 0.0

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

    def make_folders(self) -> None:
        with self._lock, self.cache_errors():
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
    def cache_errors(self) -> Iterator[None]:
        """Raise LakeError if the disk of the cache fails: S3 itself raises no OSError."""
        try:
            yield
        except OSError as error:
            raise LakeError(
                f"the cache folder {self.folder} cannot be used: {error.strerror or error}: make room there, or set "
                "XDG_CACHE_HOME to a folder that can be written"
            ) from error

    @contextmanager
    def locked(self, place: Path, *, wait: bool = True) -> Iterator[bool]:
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

    def distrust(self) -> None:
        """Remove the copies of files, so that each is read from S3 again."""
        for folder in self.root.iterdir() if self.root.is_dir() else ():
            if folder.is_dir() and not folder.is_symlink():
                shutil.rmtree(folder, ignore_errors=True)
        self._takes_copies = False

    def drop(self, paths: Iterable[str]) -> None:
        """Remove files from the copies here only."""
        for path in paths:
            for use in ("read", "write"):
                with suppress(OSError):
                    (self.folder / use / check_path(path)).unlink()

    def write_private(self, path: Path, data: bytes) -> None:
        partial = path.with_name(f".{path.name.lstrip('.')}.{os.urandom(8).hex()}")
        try:
            partial.write_bytes(data)
            partial.chmod(0o600)
            # After a power cut, the head that is noted must not be that of a catalog which is not there.
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def cache_bytes() -> int:
    """Return how many bytes of lakes in S3 are kept on the disk. UsageError if the environment says nonsense."""
    text = os.environ.get(CACHE_VARIABLE, "")
    if not text:
        return CACHE_BYTES
    if not (text.isascii() and text.isdecimal()) or int(text) < 1 << 20:
        raise UsageError(f"{CACHE_VARIABLE} is {text!r:.40}: it must be a number of bytes, at least {1 << 20:,}")
    return int(text)


def is_fixed(path: str) -> bool:
    """Return whether the file at a path of a lake never changes once it is written."""
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
