"""Log objects in files, folders, globs and archives, and on standard input."""

from __future__ import annotations

import glob
import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

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
                    raise SourceError(f"{text} holds no files")
        except BaseException:
            self.release()
            raise
        return sorted(files.values(), key=lambda file: (file.delivered_at, file.name))

    def release(self) -> None:
        """Remove the copy of standard input."""
        for path in self._spooled:
            Path(path).unlink(missing_ok=True)
        self._spooled.clear()

    def _expand(self, text: str) -> Iterator[LogObject]:
        """Yield the files behind one input."""
        if text == STDIN:
            yield self._spool()
            return
        path = Path(text.removeprefix("file://")).expanduser()
        if path.exists():
            yield from _walk(path, self._exclude)
            return
        # pathlib's own glob cannot take an absolute pattern.
        matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
        if not matches:
            problem = "no file matches" if glob.has_magic(text) else "there is no such file or folder:"
            raise SourceError(f"{problem} {text}")
        for match in matches:
            yield from _walk(Path(match), self._exclude)

    def _spool(self) -> LogObject:
        """Copy standard input to a file. Its content is its version, so the same content is recognized next time."""
        import tempfile

        if sys.stdin is None or sys.stdin.isatty():
            raise SourceError("standard input is a terminal: pipe logs into it, or name a path")
        digest = hashlib.sha256()
        handle, path = tempfile.mkstemp(prefix="trailsift-stdin-")
        self._spooled.append(path)
        size = 0
        with os.fdopen(handle, "wb") as spool:
            while block := sys.stdin.buffer.read(1 << 20):
                digest.update(block)
                spool.write(block)
                size += len(block)
        return LogObject("stdin", path, digest.hexdigest(), size, datetime.now(UTC))


def _walk(path: Path, exclude: Path | None) -> Iterator[LogObject]:
    """Yield a file, or the files below a folder; hidden ones are skipped."""
    # Strings instead of Path objects: for ten thousand small files, Path objects cost more than the stat calls.
    top = str(path.absolute())
    if not path.is_dir():
        yield _log_object(top, path.name, path.stat())
        return
    skipped = str(exclude.resolve()) if exclude else None
    folders = [top]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    if entry.is_dir(follow_symlinks=False):
                        if skipped is None or str(Path(entry.path).resolve()) != skipped:
                            folders.append(entry.path)
                    elif entry.is_file():
                        yield _log_object(entry.path, entry.name, entry.stat())
        except OSError as error:
            raise SourceError(f"the folder {error.filename} cannot be read: {error.strerror}") from error


def _log_object(path: str, name: str, stat: os.stat_result) -> LogObject:
    minute = delivery_minute(name)
    if minute is None:
        minute = datetime.fromtimestamp(stat.st_mtime, UTC).replace(second=0, microsecond=0)
    return LogObject(path, path, f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size, minute)
