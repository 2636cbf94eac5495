"""Temporary folders in memory, where a system has enough of it: the tests wait for a disk many thousand times.

Each commit to a lake is made durable, which on a disk takes longer than all else that a commit of a few events does.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

#: A file system in memory, on Linux.
_MEMORY = Path("/dev/shm")
#: Bytes that must be free in it, and of memory: several times of what the tests leave there until they end.
_ROOM = 6 << 30
_NAME = re.compile(r"trailsift-tests-(\d+)")


def use_memory() -> Path | None:
    """Have all temporary folders of this process and its children in a folder in memory, which is returned.

    None if the system has too little, or if somebody has said where they go. Folders of ended runs are deleted.
    """
    if any(name in os.environ for name in ("TMPDIR", "PYTEST_DEBUG_TEMPROOT")) or not os.access(_MEMORY, os.W_OK):
        return None
    for path in _MEMORY.iterdir():
        match = _NAME.fullmatch(path.name)
        if match and path.stat().st_uid == os.getuid() and not Path("/proc", match[1]).exists():
            shutil.rmtree(path, ignore_errors=True)
    if min(shutil.disk_usage(_MEMORY).free, _available()) < _ROOM:
        return None
    folder = _MEMORY / f"trailsift-tests-{os.getpid()}"
    folder.mkdir(mode=0o700)
    os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None
    return folder


def _available() -> int:
    """Return the bytes of memory that are available; 0 if the system does not say."""
    with suppress(OSError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0
