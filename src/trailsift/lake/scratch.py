"""Private folders in a lake for files that no commit names yet, made by whoever rewrites something."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PREFIX = ".compact-"


@contextmanager
def scratch_folder(root: Path) -> Iterator[Path]:
    """Make a folder, which is locked while it is used and deleted afterwards.

    Not ``TemporaryDirectory``: where it may not delete, it calls itself without end, which hides the first error. What
    stays behind is removed by the next compaction.
    """
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=root))
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        with suppress(OSError):
            # Some network file systems lock no folders: there, a compaction beside another one may have to start again.
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # What is moved from here into the lake has the permissions of its folder.
        folder.chmod(stat.S_IMODE(root.stat().st_mode))
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def remove_left(root: Path) -> None:
    """Delete the folders of processes that died."""
    for folder in root.glob(f"{_PREFIX}*"):
        try:
            handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            # A link, or deleted meanwhile.
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue
        else:
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(handle)
