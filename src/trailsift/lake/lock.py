"""The lock that lets one writer at a time into a lake."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from trailsift.lake.disk import write_errors
from trailsift.lake.settings import LOCK_FILE, MARKER_FILE
from trailsift.storage.local import make_file, open_lock


class WriteLock:
    """The write lock of a lake. It is the operating system's, so it goes with the process.

    Data files are written under it only. So a writer that gets the lock and finds the marker of another one, which did
    not end well, may remove the files that no commit names.
    """

    def __init__(self, root: Path, prepare: Callable[[bool], None]) -> None:
        """``prepare`` is called once the lock is held, with whether the last writer died."""
        self._root = root
        self._prepare = prepare
        self._marker = root / MARKER_FILE
        self._handle: int | None = None

    def acquire(self, *, wait: bool = True) -> None:
        """Get the lock. BlockingIOError if another writer has it and ``wait`` is false."""
        try:
            with write_errors(self._root):
                self._handle = open_lock(self._root / LOCK_FILE, create=True)
                fcntl.flock(self._handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
                self._prepare(os.path.lexists(self._marker))
                with suppress(FileExistsError):
                    make_file(self._marker)
        except BaseException:
            if self._handle is not None:
                os.close(self._handle)
                self._handle = None
            raise

    def release(self, *, clean: bool) -> None:
        """Let other writers in; ``clean``: no file was left that no commit names."""
        if self._handle is not None:
            if clean:
                # If it stays, the next writer looks for files to remove, and finds none.
                with suppress(OSError):
                    self._marker.unlink(missing_ok=True)
            os.close(self._handle)
            self._handle = None

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.release(clean=kind is None)
