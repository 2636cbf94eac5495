"""Errors of writing a lake: whatever failed, one LakeError that says what to do."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from trailsift.errors import LakeError

#: No space, no quota, a file larger than allowed.
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def write_errors(root: Path) -> Iterator[None]:
    """Raise LakeError for what goes wrong with the disk or the catalog of the lake at ``root``.

    BlockingIOError passes: another writer has the lock.
    """
    try:
        yield
    except BlockingIOError:
        raise
    except (OSError, sqlite3.DatabaseError) as error:
        raise cannot_write(root, error) from error


def cannot_write(root: Path, error: OSError | sqlite3.DatabaseError) -> LakeError:
    """Return the error for a caller who tried to write the lake at ``root``."""
    safe = "what was committed before is safe, and nothing else is visible"
    code = getattr(error, "errno", None)
    if code in _FULL or "disk is full" in str(error) or _is_full(root):
        return LakeError(
            f"the disk of the lake at {root} is full ({error}): {safe}. Make room there and run the same command again"
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return LakeError(f"the lake at {root} cannot be written ({error}): allow it, or name another folder; {safe}")
    return LakeError(f"the lake at {root} cannot be written ({error}): {safe}")


def _is_full(root: Path) -> bool:
    """Return whether there is next to no room: SQLite reports a full disk as an I/O error in some cases."""
    try:
        disk = os.statvfs(root)
    except OSError:
        return False
    return disk.f_bavail * disk.f_frsize < 1 << 20
