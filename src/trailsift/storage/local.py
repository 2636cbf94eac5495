"""Objects as files of a local folder.

A file is written under a hidden name, flushed, and renamed, so a reader and a power cut meet the old bytes or the new
ones. A version is what a conditional write compares: time of change, size and inode, as obstore's local store has it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from trailsift.errors import ConflictError, UsageError
from trailsift.storage.base import StoredObject, check_path
from trailsift.storage.links import Links

#: In the storage's folder; made by the first write that compares versions.
LOCK_FILE = ".storage.lock"
#: The largest object that is read at once, in bytes. The baselines of detection take some 60 MB.
MAX_OBJECT = 256 << 20
#: A partial file of that age (in seconds) was left by a process that died.
_LEFT_SECONDS = 3600
#: ``.NAME.HEX``, as ``_write_partial`` names them.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]+")
#: Flushed one after the other, 2,000 small files take seconds, because each waits for the file system's journal; 16 at
#: once share what the journal writes: 0.18 s (ext4; 4 at once 0.29, 32 at once 0.13), 70 microseconds of CPU per file.
#: `sync` takes 0.02 s there, but waits for what all other processes have written, and hides errors on older kernels.
_FLUSHED_AT_ONCE = 16


#: A pipe that somebody has put in a file's place must not be waited for.
_PLAIN = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def make_file(path: Path) -> None:
    """Make an empty file, with the permissions of its folder. FileExistsError if there is something of that name.

    For what opens files by name: whoever may not enter the folder of a lake may not read a file in it either, whatever
    the umask says.
    """
    os.close(_make_file(path))


def _make_file(path: Path, mode: int | None = None) -> int:
    """Make an empty file and return its descriptor; ``mode``: its permissions instead of those of the folder."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    os.fchmod(handle, path.parent.stat().st_mode & 0o666 if mode is None else mode)
    return handle


def make_folders(folder: Path) -> None:
    """Make a folder and those above it that are missing, with the permissions of the one that exists."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    with suppress(FileExistsError):
        folder.mkdir(0o700)
        # Bits such as setgid are inherited, and stay.
        folder.chmod(stat.S_IMODE(folder.stat().st_mode) & ~0o777 | stat.S_IMODE(folder.parent.stat().st_mode) & 0o777)


class LocalStorage:
    """A folder of files, made by the first write. Safe to use from several threads and processes.

    Links in it are not followed (LakeError). What is made has the permissions of the folder itself.
    """

    loses_answers: bool = False

    def __init__(self, root: Path, *, private: bool = False, sync: bool = True) -> None:
        """``private``: only the user may read the files; ``sync``: wait for the disk (a cache need not)."""
        self.root = root
        self._private = private
        self._sync = sync

    def local_path(self, path: str) -> Path:
        """Return where an object lies, for what needs a file: memory maps, readers and writers of Parquet."""
        return self.root / check_path(path)

    def checked_path(self, path: str) -> Path:
        """Return where an object lies. LakeError if it is a link, or lies behind one."""
        place = self.local_path(path)
        Links(self.root).check([path])
        return place

    def _open(self, path: str) -> BinaryIO:
        place = self.checked_path(path)
        handle = os.open(place, os.O_RDONLY | (_PLAIN if not place.is_symlink() else os.O_CLOEXEC))
        return os.fdopen(handle, "rb")

    def read(self, path: str) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is no such object, OSError if it is too large."""
        with _no_folders(path), self._open(path) as file:
            return _bounded(file)

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and their version. FileNotFoundError if there is no such object."""
        with _no_folders(path), self._open(path) as file:
            return _bounded(file), _version(os.fstat(file.fileno()))

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end of the object."""
        with _no_folders(path), self._open(path) as file:
            file.seek(start)
            return file.read(length)

    def write(self, path: str, data: bytes) -> str:
        """Write an object, durably; return its version."""
        target = self.checked_path(path)
        partial = self._write_partial(target, data)
        try:
            with self._lock(create=False):
                version = _replace(partial, target, _state(target))
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        self._flush_folders(target)
        return version

    def write_new(self, path: str, data: bytes) -> None:
        """Write a new file that nobody looks for before ``flush`` has made it durable. FileExistsError if it exists."""
        target = self.checked_path(path)
        make_folders(target.parent)
        with os.fdopen(_make_file(target), "wb") as file:
            file.write(data)

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist). ConflictError if not."""
        target = self.checked_path(path)
        partial = self._write_partial(target, data)
        try:
            after = _create(partial, target) if version is None else None
            if after is None:
                # The version must match, or the file system has no hard links.
                with self._lock(create=True):
                    state = _state(target)
                    if (state and _version(state)) != version:
                        raise _conflict(target)
                    after = _replace(partial, target, state)
        finally:
            partial.unlink(missing_ok=True)
        self._flush_folders(target)
        return after

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        state = _state(self.checked_path(path))
        return state and _stored(path, state)

    def stat_all(self, paths: Iterable[str]) -> Sequence[StoredObject | None]:
        """Return what ``stat`` returns for each path."""
        return [self.stat(path) for path in paths]

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return _state(self.checked_path(path)) is not None

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Yield the objects under a folder (default: all)."""
        for path, entry in self._entries(folder):
            with suppress(FileNotFoundError):
                yield _stored(path, entry.stat(follow_symlinks=False))

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of the objects under a folder (default: all); none of them is looked at."""
        return (path for path, _ in self._entries(folder))

    def written(self, folder: str) -> Iterator[str]:
        """Yield the paths of the files under a folder that are on this disk: here, all of them."""
        return self.paths(folder)

    def delete(self, path: str) -> None:
        """Delete an object, if it exists."""
        with self._lock(create=False), suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            # A link in the object's own place is deleted, and not what it leads to.
            Links(self.root).check_folder(path.rpartition("/")[0])
            self.local_path(path).unlink()

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects, if they exist."""
        for path in paths:
            self.delete(path)

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        return str(self.local_path(path))

    def flush(self, paths: Iterable[str]) -> None:
        """Wait until files that something else wrote are on the disk, and the folders that name them."""
        from concurrent.futures import ThreadPoolExecutor

        files = [self.local_path(path) for path in paths]
        folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.root)}
        with ThreadPoolExecutor(_FLUSHED_AT_ONCE) as pool:
            for _ in pool.map(sync, [*files, *folders]):
                pass

    def touch(self, path: str) -> None:
        """Set an object's time to now, which also changes its version."""
        os.utime(self.checked_path(path))

    def tidy(self, folder: str = "") -> None:
        """Delete the partial files in a folder that processes left which died, not those being written now."""
        with os.scandir(self._folder(folder)) as entries:
            left = [entry for entry in entries if _PARTIAL.fullmatch(entry.name)]
        for entry in left:
            with suppress(FileNotFoundError):
                if entry.is_file(follow_symlinks=False) and time.time() - entry.stat().st_mtime > _LEFT_SECONDS:
                    Path(entry.path).unlink()

    def _folder(self, folder: str) -> Path:
        if not folder:
            return self.root
        place = self.local_path(folder)
        Links(self.root).check_folder(folder)
        return place

    def _entries(self, folder: str) -> Iterator[tuple[str, os.DirEntry[str]]]:
        """Yield files by path. Links are passed over."""
        folders = [(f"{folder}/" if folder else "", self._folder(folder))]
        while folders:
            prefix, place = folders.pop()
            try:
                entries = os.scandir(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
            with entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((f"{prefix}{entry.name}/", Path(entry.path)))
                    elif entry.is_file(follow_symlinks=False):
                        yield prefix + entry.name, entry

    def _write_partial(self, target: Path, data: bytes) -> Path:
        """Write a file that is to become ``target``, beside it."""
        if self._private:
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        make_folders(target.parent)
        partial = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
        try:
            with os.fdopen(_make_file(partial, 0o600 if self._private else None), "wb") as file:
                file.write(data)
                file.flush()
                if self._sync:
                    os.fsync(file.fileno())
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        return partial

    def _flush_folders(self, target: Path) -> None:
        if self._sync:
            for folder in target.parents:
                if not folder.is_relative_to(self.root):
                    break
                sync(folder)

    @contextmanager
    def _lock(self, *, create: bool) -> Iterator[None]:
        """Keep other writers out between the comparison of versions and the change.

        Without ``create`` nothing is locked if no write has ever compared versions here: a full disk has no room for
        the lock of a delete.
        """
        try:
            handle = open_lock(self.root / LOCK_FILE, create=create)
        except FileNotFoundError:
            yield
            return
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)


def is_being_written(path: str) -> bool | None:
    """Return whether any process has a file open for writing; None if the system does not say.

    Linux grants a lease for reading only if nobody writes: it is asked for and given back. That takes a file of one's
    own (or the right CAP_LEASE) on a local file system.
    """
    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        handle = os.open(path, os.O_RDONLY | _PLAIN & ~os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        # A writer that opens the file meanwhile waits for an instant, and the system sends a signal: not the one that
        # ends the process, but one that is ignored.
        fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGCHLD)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return True if error.errno in (errno.EAGAIN, errno.EBUSY) else None
    finally:
        os.close(handle)
    return False


def open_lock(path: Path, *, create: bool) -> int:
    """Open a file to lock it, and return its descriptor; it is made with the permissions of its folder."""
    if create:
        with suppress(FileExistsError):
            make_file(path)
    return os.open(path, os.O_RDWR | _PLAIN)


def _bounded(file: BinaryIO) -> bytes:
    """Return what is in a file. OSError if it is larger than anything that trailsift keeps as one object."""
    data = file.read(MAX_OBJECT + 1)
    if len(data) > MAX_OBJECT:
        raise OSError(errno.EFBIG, f"larger than {MAX_OBJECT >> 20} MB")
    return data


@contextmanager
def _no_folders(path: str) -> Iterator[None]:
    """Raise FileNotFoundError for a folder: it is not an object."""
    try:
        yield
    except (IsADirectoryError, NotADirectoryError):
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path) from None


def _state(path: Path) -> os.stat_result | None:
    try:
        state = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return state if stat.S_ISREG(state.st_mode) else None


def _version(state: os.stat_result) -> str:
    return f"{state.st_mtime_ns:x}-{state.st_size:x}-{state.st_ino:x}"


def _stored(path: str, state: os.stat_result) -> StoredObject:
    return StoredObject(path, state.st_size, _version(state), state.st_mtime)


def _conflict(target: Path) -> ConflictError:
    return ConflictError(f"another writer changed {target} first")


def _create(partial: Path, target: Path) -> str | None:
    """Give a finished file its name, and return its version; None if the file system has no hard links."""
    now = time.time_ns()
    os.utime(partial, ns=(now, now))
    version = _version(partial.stat())
    try:
        os.link(partial, target)
    except FileExistsError:
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target)) from None
        raise _conflict(target) from None
    except OSError:
        return None
    return version


def _replace(partial: Path, target: Path, state: os.stat_result | None) -> str:
    """Rename a finished file over ``target``, whose state was ``state``; return its version."""
    now = time.time_ns()
    if state is not None:
        partial.chmod(stat.S_IMODE(state.st_mode))
        # Inodes are used again at once: only a later time tells the new file from the one before the last.
        now = max(now, state.st_mtime_ns + 1)
    os.utime(partial, ns=(now, now))
    version = _version(partial.stat())
    partial.replace(target)
    return version


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def user_cache() -> Path:
    """Return trailsift's folder in the user's cache folder. UsageError if the user has none."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():
        return Path(base) / "trailsift"
    try:
        return Path.home() / ".cache" / "trailsift"
    except RuntimeError:
        raise UsageError(
            "there is no home folder for a cache: set XDG_CACHE_HOME to a folder that can be written"
        ) from None
