"""Log objects in files, folders, globs and archives, and on standard input."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import stat
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trailsift.decode.names import raw_name, safe_name
from trailsift.errors import SourceError
from trailsift.sources.base import LogObject, delivery_minute

STDIN = "-"


class FileSource:
    """Local paths: files, folders, globs, ``file://`` URLs, and ``-`` for standard input."""

    def __init__(self, inputs: Sequence[str], exclude: Path | None = None) -> None:
        """``exclude`` is a folder (the lake) that is not searched."""
        self._inputs = list(inputs)
        self._exclude = exclude
        #: Temporary files with what came from standard input.
        self._spooled: list[str] = []
        #: Links that lead out of the folder they are in, which are not followed.
        self.links_passed_over = 0

    def __str__(self) -> str:
        return ", ".join(self._inputs)

    def find(self) -> list[LogObject]:
        """Return the files behind all inputs in order of delivery, each once.

        Raise SourceError if an input does not exist, cannot be read, or is empty.
        """
        files: dict[str, LogObject] = {}
        try:
            for text in self._inputs:
                count = 0
                for file in self._expand(text):
                    files.setdefault(file.path, file)
                    count += 1
                if not count:
                    raise SourceError(f"{safe_name(text)} holds no files{self._links()}")
        except BaseException:
            self.release()
            raise
        return sorted(files.values(), key=lambda file: (file.delivered_at, file.name))

    def _links(self) -> str:
        count = self.links_passed_over
        return f" ({count:,} links out of it are not followed: name them on the command line)" if count else ""

    def release(self) -> None:
        """Remove the copy of standard input."""
        for path in self._spooled:
            Path(path).unlink(missing_ok=True)
        self._spooled.clear()

    def _expand(self, text: str) -> Iterator[LogObject]:
        """Yield the files behind one input."""
        if text == STDIN or _STREAM.fullmatch(text):
            yield self._spool(text)
            return
        path = Path(text.removeprefix("file://")).expanduser()
        if not path.exists() and not os.path.lexists(path):
            # The name of a log object in a lake may have escapes (`safe_name`).
            path = Path(raw_name(str(path)))
        if os.path.lexists(path):
            yield from self._walk(path, None)
            return
        # pathlib's own glob cannot take an absolute pattern.
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
        if not matches:
            problem = "no file matches" if glob.has_magic(text) else "there is no such file or folder:"
            raise SourceError(f"{problem} {safe_name(text)}")
        root = _fixed_part(path)
        for match in matches:
            yield from self._walk(Path(match), root)

    def _spool(self, text: str) -> LogObject:
        """Copy a stream to a file. Its content is its version, so the same content is recognized next time."""
        import tempfile

        if text in (STDIN, "/dev/stdin"):
            if sys.stdin is None or sys.stdin.isatty():
                raise SourceError("standard input is a terminal: pipe logs into it, or name a path")
            name, stream = "stdin", sys.stdin.buffer
        else:
            try:
                name, stream = "pipe", open(text, "rb")  # noqa: SIM115, PTH123
            except OSError as error:
                raise SourceError(f"{text} cannot be read: {error.strerror}") from error
        digest = hashlib.sha256()
        handle, path = tempfile.mkstemp(prefix="trailsift-stdin-")
        self._spooled.append(path)
        size = 0
        try:
            with os.fdopen(handle, "wb") as spool:
                while block := stream.read(1 << 20):
                    digest.update(block)
                    spool.write(block)
                    size += len(block)
        finally:
            if name == "pipe":
                stream.close()
        return LogObject(name, path, digest.hexdigest(), size, datetime.now(UTC))

    def _walk(self, path: Path, within: Path | None) -> Iterator[LogObject]:
        """Yield a file, or the files below a folder; hidden ones are skipped.

        Links that the user has named are followed (``within`` is None); others only to a place inside the folder that
        the user has named. An entry that cannot be read is a log object with a problem.
        """
        top = str(path.absolute())
        if within is not None and not _inside(top, os.path.realpath(within)):
            self.links_passed_over += 1
            return
        try:
            status = path.stat()
        except OSError as error:
            if within is None:
                raise SourceError(f"{safe_name(top)} cannot be read: {error.strerror}") from error
            yield _unreadable(top, error)
            return
        if stat.S_ISREG(status.st_mode):
            target = os.path.realpath(top) if path.is_symlink() else top
            yield _log_object(top, path.name, status, target)
        elif stat.S_ISDIR(status.st_mode):
            yield from self._walk_folder(top)
        elif within is None:
            raise SourceError(
                f"{safe_name(top)} is {_kind(status.st_mode)}, which is not read: pipe its content in, as "
                "`... | trailsift ingest -` or `trailsift ingest <(...)`"
            )

    def below(self, folder: str) -> Iterator[LogObject]:
        """Yield the files below a folder, as ``find`` finds them. Raise SourceError if it cannot be read."""
        yield from self._walk_folder(folder)

    def log_object(self, path: str) -> LogObject | None:
        """Return the log object of a file in the folder; None if it is gone, or a link that leads out of it."""
        top = os.path.realpath(self._inputs[0])
        try:
            target = os.path.realpath(path)
            status = os.stat(target)  # noqa: PTH116
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or not _inside(target, top):
            return None
        return _log_object(path, path.rpartition(os.sep)[2], status, target)

    def _walk_folder(self, top: str) -> Iterator[LogObject]:
        # Strings instead of Path objects: for ten thousand small files, Path objects cost more than the stat calls.
        skipped = str(self._exclude.resolve()) if self._exclude else None
        real_top = os.path.realpath(top)
        folders = [top]
        while folders:
            folder = folders.pop()
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if entry.name.startswith("."):
                            continue
                        try:
                            if entry.is_symlink():
                                yield from self._link(entry, real_top)
                            elif entry.is_dir(follow_symlinks=False):
                                if skipped is None or str(Path(entry.path).resolve()) != skipped:
                                    folders.append(entry.path)
                            elif entry.is_file(follow_symlinks=False):
                                yield _log_object(entry.path, entry.name, entry.stat(follow_symlinks=False))
                        except OSError as error:
                            yield _unreadable(entry.path, error)
            except OSError as error:
                if folder == top:
                    problem = f"the folder {safe_name(folder)} cannot be read: {error.strerror}"
                    raise SourceError(problem) from error
                yield _unreadable(folder, error)

    def _link(self, entry: os.DirEntry[str], top: str) -> Iterator[LogObject]:
        """Yield the file behind a link, if it lies inside the folder that is read."""
        target = os.path.realpath(entry.path)
        if not _inside(target, top):
            self.links_passed_over += 1
            return
        status = os.stat(target)  # noqa: PTH116
        if stat.S_ISREG(status.st_mode):
            yield _log_object(entry.path, entry.name, status, target)
        elif stat.S_ISLNK(status.st_mode) or not stat.S_ISDIR(status.st_mode):
            self.links_passed_over += 1


#: Streams that the shell hands over: standard input, and process substitution.
_STREAM = re.compile(r"/dev/stdin|(?:/dev/fd|/proc/self/fd)/\d+")


def _inside(path: str, folder: str) -> bool:
    """Return whether a path, with all links resolved, is a folder or lies inside it."""
    path = os.path.realpath(path)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _fixed_part(pattern: Path) -> Path:
    """Return the folder of a pattern in front of its first wildcard."""
    path = pattern.absolute()
    while glob.has_magic(str(path)):
        path = path.parent
    return path


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a named pipe"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _unreadable(path: str, error: OSError) -> LogObject:
    """Return what stands for an entry that cannot be read: one reject."""
    problem = error.strerror or str(error)
    return LogObject(safe_name(path), path, "unreadable", 0, datetime.now(UTC), problem=problem)


def _log_object(path: str, name: str, status: os.stat_result, target: str | None = None) -> LogObject:
    minute = delivery_minute(name)
    if minute is None:
        try:
            minute = datetime.fromtimestamp(status.st_mtime, UTC).replace(second=0, microsecond=0)
        except (ValueError, OverflowError):
            # A time that no calendar has.
            minute = datetime.now(UTC).replace(second=0, microsecond=0)
    version = f"{status.st_size}-{status.st_mtime_ns}"
    return LogObject(safe_name(path), target or path, version, status.st_size, minute)
