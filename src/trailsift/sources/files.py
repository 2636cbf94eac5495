"""Where log objects come from: files, folders, globs, archives and standard input."""

from __future__ import annotations

import glob
import hashlib
import os
import re
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from trailsift.errors import SourceError, UsageError
from trailsift.sources.base import LogObject

#: In CloudTrail's file names: the minute of delivery.
_DELIVERY = re.compile(r"_(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)Z_")
_STDIN = "-"


def find(inputs: Sequence[str], exclude: Path | None = None) -> list[LogObject]:
    """The files behind paths, folders, globs and ``-``, in order of delivery, each once.

    ``exclude`` is a folder (the lake) that is not looked into. Raises SourceError where an input does not exist,
    cannot be read, or is empty.
    """
    files: dict[str, LogObject] = {}
    for given in inputs:
        count = 0
        for file in _expand(given, exclude):
            files.setdefault(file.path, file)
            count += 1
        if not count:
            raise SourceError(f"{given} holds no files")
    return sorted(files.values(), key=lambda file: (file.delivered_at, file.name))


def delivered_within(file: LogObject, since: datetime | None, until: datetime | None) -> bool:
    """Whether a log object was delivered in a span of time; None is no limit."""
    minute = file.delivered_at
    return (since is None or minute >= since.replace(second=0, microsecond=0)) and (until is None or minute < until)


def _expand(given: str, exclude: Path | None) -> Iterator[LogObject]:
    if given == _STDIN:
        yield _spool()
        return
    if given.startswith("s3://"):
        raise UsageError(
            f"cannot read {given}: reading from S3 comes with the aws extra in a later version. "
            "Until then: `aws s3 sync` to a folder, then ingest the folder"
        )
    if "://" in given and not given.startswith("file://"):
        raise SourceError(f"{given}: only local paths can be read so far; copy the objects to a folder first")
    path = Path(given.removeprefix("file://")).expanduser()
    if path.exists():
        yield from _walk(path, exclude)
        return
    # pathlib's own glob cannot take an absolute pattern.
    matches = sorted(glob.glob(str(path), recursive=True)) if glob.has_magic(str(path)) else []  # noqa: PTH207
    if not matches:
        what = "no file matches" if glob.has_magic(given) else "there is no such file or folder:"
        raise SourceError(f"{what} {given}")
    for match in matches:
        yield from _walk(Path(match), exclude)


def _walk(path: Path, exclude: Path | None) -> Iterator[LogObject]:
    # Plain text paths: with ten thousand small objects, path objects cost more than looking at the files.
    top = str(path.absolute())
    if not path.is_dir():
        yield _file(top, path.name, path.stat())
        return
    skipped = str(exclude.resolve()) if exclude else None
    unreadable: list[OSError] = []
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
                        yield _file(entry.path, entry.name, entry.stat())
        except OSError as error:
            unreadable.append(error)
    for one in unreadable:
        raise SourceError(f"the folder {one.filename} cannot be read: {one.strerror}")


def _file(path: str, name: str, stat: os.stat_result) -> LogObject:
    return LogObject(path, path, f"{stat.st_size}-{stat.st_mtime_ns}", stat.st_size, _delivery(name, stat.st_mtime))


def _delivery(name: str, changed: float) -> datetime:
    match = _DELIVERY.search(name)
    if match:
        try:
            year, month, day, hour, minute = map(int, match.groups())
            return datetime(year, month, day, hour, minute, tzinfo=UTC)
        except ValueError:
            pass
    return datetime.fromtimestamp(changed, UTC).replace(second=0, microsecond=0)


def _spool() -> LogObject:
    """Standard input as a file: its content is its version, so the same again is known."""
    import tempfile

    if sys.stdin is None or sys.stdin.isatty():
        raise SourceError("standard input is a terminal: pipe logs into it, or name a path")
    digest = hashlib.sha256()
    handle, path = tempfile.mkstemp(prefix="trailsift-stdin-")
    size = 0
    with os.fdopen(handle, "wb") as spool:
        while part := sys.stdin.buffer.read(1 << 20):
            digest.update(part)
            spool.write(part)
            size += len(part)
    return LogObject("stdin", path, digest.hexdigest(), size, datetime.now(UTC))


def release(files: Sequence[LogObject]) -> None:
    """Removes what was spooled from standard input."""
    for file in files:
        if file.name == "stdin":
            Path(file.path).unlink(missing_ok=True)
