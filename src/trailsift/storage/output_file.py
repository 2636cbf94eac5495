"""Files that a user names for output. Each appears under its name only when it is complete.

It is written under a name that nobody can guess, which must not exist, in the same folder, and then renamed. So a link
that somebody has put in its place, or beside it, is replaced and never followed; a full disk leaves the old file.

Inside a lake nothing is written: its files are changed by commits only.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from trailsift.errors import UsageError

#: Names of a stream that is open already, as a file system shows them.
_OPEN_STREAM = re.compile(r"/dev/(?:stdout|stderr|fd/([0-9]+))|/proc/(?:self|thread-self)/fd/([0-9]+)")
_STREAMS = {"/dev/stdout": 1, "/dev/stderr": 2}
_PRIVATE = 0o600
#: The file at the root of each lake (``lake.settings``).
_LAKE_FILE = "lake.json"


@contextmanager
def new_file(path: Path, mode: str, *, private: bool = True, **options: Any) -> Iterator[Any]:
    """Open a file that appears under its name only when it is complete. ``mode`` is "w" or "wb".

    ``private``: only the user may read a new file (what was in logs); otherwise the umask decides. An existing file
    hands down its permissions. A device, a pipe or ``/dev/stdout`` is written directly. Raise UsageError for a path
    inside a lake.
    """
    stream = _open_stream(path)
    if stream is not None:
        with open(os.dup(stream), mode, **options) as handle:  # noqa: PTH123 (a descriptor)
            yield handle
        return
    refuse_lake(path)
    state = _state(path)
    if state is not None and not stat.S_ISREG(state.st_mode) and not stat.S_ISLNK(state.st_mode):
        _refuse_foreign(path, state)
        with path.open(mode, **options) as handle:
            yield handle
        return
    partial = path.with_name(f".{os.urandom(16).hex()}.partial")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with open(os.open(partial, flags, _PRIVATE if private else 0o666), mode, **options) as handle:  # noqa: PTH123
            _hand_down(handle.fileno(), state)
            yield handle
        partial.replace(path)
    except OSError as error:
        if error.filename in (str(partial), None):
            error.filename = str(path)
        raise
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """Yield a path in a private folder, for what opens files by name; the file there then replaces ``path``.

    Raise OSError if ``path`` is a device or a pipe, UsageError if it is inside a lake.
    """
    refuse_lake(path)
    state = _state(path)
    if state is not None and not stat.S_ISREG(state.st_mode) and not stat.S_ISLNK(state.st_mode):
        raise OSError(0, "is not a file", str(path))
    folder = path.with_name(f".{os.urandom(16).hex()}.partial")
    folder.mkdir(0o700)
    try:
        made = folder / path.name
        yield made
        with made.open("rb") as file:
            os.fchmod(file.fileno(), _PRIVATE)
            _hand_down(file.fileno(), state)
        made.replace(path)
    finally:
        with suppress(OSError):
            for left in folder.iterdir():
                left.unlink(missing_ok=True)
            folder.rmdir()


def is_taken(path: Path) -> bool:
    """Return whether writing to a path would replace a file: not for a device, a pipe or an open stream."""
    if _open_stream(path) is not None:
        return False
    state = _state(path)
    return state is not None and (stat.S_ISREG(state.st_mode) or stat.S_ISLNK(state.st_mode))


def refuse_lake(path: Path) -> None:
    """Raise UsageError if a path is inside a lake."""
    folder = path.absolute().parent.resolve()
    for above in (folder, *folder.parents):
        if (above / _LAKE_FILE).is_file():
            raise UsageError(f"{path} is inside the lake {above}: name a file outside of it")


def _open_stream(path: Path) -> int | None:
    """Return the descriptor that a path stands for: what is behind it is not opened, or cut off, again."""
    match = _OPEN_STREAM.fullmatch(str(path))
    return match and (_STREAMS[match[0]] if match[0] in _STREAMS else int(match[1] or match[2]))


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _hand_down(handle: int, before: os.stat_result | None) -> None:
    if before is not None and stat.S_ISREG(before.st_mode):
        os.fchmod(handle, stat.S_IMODE(before.st_mode) & 0o777)


def _refuse_foreign(path: Path, state: os.stat_result) -> None:
    """Raise PermissionError for a pipe that another user has put there to read what is written."""
    if stat.S_ISFIFO(state.st_mode) and state.st_uid not in (0, os.geteuid()):
        raise PermissionError(0, "is a pipe of another user", str(path))
