"""How much memory and disk a query may use, and where it spills to."""

from __future__ import annotations

import contextlib
import os
import re
import time
from pathlib import Path
from typing import NamedTuple

from trailsift.errors import EngineError, UsageError

#: Share of the memory that queries use, unless the user says otherwise.
MEMORY_SHARE = 0.6
#: Share of the free disk space that queries spill to, unless the user says otherwise.
SPILL_SHARE = 0.5
#: What a process takes beside the memory that DuckDB counts: libraries, texts that a function builds, rows in Python.
PROCESS_MEMORY = 1 << 30
#: The least that is accepted: DuckDB needs some for itself.
_LEAST = 10_000_000

#: Compiled at first use: most queries name no size and find no folder.
_SIZE = r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([KMGT]?)(I?)B?\s*"
_SPILL = r"([0-9]+)-[0-9a-f]{12}"
#: Seconds after which a folder of a process that is gone is deleted. Its number may mean nothing here: containers and
#: computers can share a home.
_STALE = 86_400


class Limits(NamedTuple):
    """Bounds of a database: bytes of memory, bytes on disk, threads."""

    memory: int
    spill: int
    threads: int


def size_of(text: str, name: str) -> int:
    """Return the bytes of ``500MB``, ``2 GB`` or ``1.5GiB``. Raise UsageError for anything else.

    ``name``: what the size limits, for the message.
    """
    match = re.fullmatch(_SIZE, text, re.IGNORECASE | re.ASCII)
    units = "KMGT"
    if match is not None:
        power = units.find(match[2].upper()) + 1 if match[2] else 0
        size = int(float(match[1]) * (1024 if match[3] else 1000) ** power)
        if _LEAST <= size < 2**62:
            return size
    raise UsageError(f"invalid {name} limit {text!r}: write 500MB or 2GB, at least 10MB")


def memory() -> int:
    """Return the bytes of memory that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
    except (OSError, ValueError):
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def limits_of(memory_limit: str | None, spill_limit: str | None, threads: int | None, spill: Path) -> Limits:
    """Return the limits that a user chose, and the defaults for the others. ``spill``: an existing folder.

    Raise UsageError for an invalid size.
    """
    bytes_ = int(memory() * MEMORY_SHARE) if memory_limit is None else size_of(memory_limit, "memory")
    if spill_limit is not None:
        disk = size_of(spill_limit, "spill")
    else:
        state = os.statvfs(spill)
        disk = int(state.f_bavail * state.f_frsize * SPILL_SHARE)
    return Limits(bytes_, disk, threads or cores())


def bound_process(memory_limit: str | None) -> None:
    """Let the system refuse this process memory beyond its limit: DuckDB does not count what a function builds.

    Only for a process that runs one query; refused memory becomes an error in words. Does nothing on systems without
    such a limit.
    """
    try:
        import resource
    except ImportError:
        return
    size = int(memory() * MEMORY_SHARE) if memory_limit is None else size_of(memory_limit, "memory")
    # Each thread has a stack, and an arena for what it allocates.
    size += PROCESS_MEMORY + cores() * (32 << 20)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY and hard <= size:
        return
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_DATA, (size, hard))


def new_spill_folder(base: Path) -> Path:
    """Create an empty folder that only this user can enter, in ``base`` or, if that is not possible, in TMPDIR.

    Folders that killed processes have left in ``base`` are deleted. Raise EngineError if no folder can be created.
    """
    # Importing `tempfile` would take 10 ms. The name cannot be guessed, and is created for this user or not at all.
    name = f"{os.getpid()}-{os.urandom(6).hex()}"
    try:
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sweep(base)
        folder = base / name
        folder.mkdir(mode=0o700)
        return folder
    except OSError:
        # A home that cannot be written.
        pass
    temporary = Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
    folder = temporary / f"trailsift-{name}"
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise EngineError(
            f"cannot create a temporary folder in {base} or {temporary}: {error}. Set TMPDIR to a writable folder"
        ) from error
    return folder


def delete_spill_folder(folder: Path) -> None:
    """Delete the folder and what is in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        pass
    except OSError:
        import shutil

        shutil.rmtree(folder, ignore_errors=True)


def _sweep(base: Path) -> None:
    now = time.time()
    for entry in os.scandir(base):
        match = re.fullmatch(_SPILL, entry.name)
        if match is None or not entry.is_dir(follow_symlinks=False):
            continue
        with contextlib.suppress(OSError):
            if now - entry.stat(follow_symlinks=False).st_mtime > _STALE and not _alive(int(match[1])):
                delete_spill_folder(Path(entry.path))


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True
    return True
