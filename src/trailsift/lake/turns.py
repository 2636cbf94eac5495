"""Fairness between writers of one lake in S3: who keeps losing asks the others to let it go first.

A writer that has lost to others a few times leaves a small object in the lake; whoever begins a commit and sees it
waits until it is gone. That is a courtesy: what is committed is right without it, and a writer that died while it asked
holds the others up once, for seconds.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator

from trailsift.errors import TrailsiftError
from trailsift.storage.base import StoredObject
from trailsift.storage.s3 import S3Storage

#: Seconds for which others wait, and after which an object is that of a dead writer, as far as clocks agree.
_WAIT, _DEAD = 10.0, 60.0
_PAUSE = 0.1
_CONTENT = b"after me"


class Turns:
    """The objects in a folder by which writers ask to go first."""

    def __init__(self, remote: S3Storage, folder: str) -> None:
        self._remote = remote
        self._folder = folder
        #: Those that were waited for in vain.
        self._ignored: set[str] = set()

    @contextlib.contextmanager
    def asked(self) -> Iterator[None]:
        """Ask the others to wait while the block runs."""
        path = f"{self._folder}/{os.urandom(16).hex()}"
        with contextlib.suppress(TrailsiftError, OSError):
            self._remote.write(path, _CONTENT)
        try:
            yield
        finally:
            with contextlib.suppress(TrailsiftError, OSError):
                self._remote.delete(path)

    def wait(self) -> None:
        """Wait until nobody asks to go first, for ten seconds at most."""
        end = time.monotonic() + _WAIT
        while asking := self._asking():
            if time.monotonic() > end:
                self._ignored |= asking
                return
            time.sleep(_PAUSE)

    def _asking(self) -> set[str]:
        # Who may not list the lake is not polite.
        with contextlib.suppress(TrailsiftError, OSError):
            return {item.path for item in self._remote.list(self._folder) if self._counts(item)}
        return set()

    def _counts(self, item: StoredObject) -> bool:
        is_alive = time.time() - item.modified < _DEAD
        return item.size == len(_CONTENT) and is_alive and item.path not in self._ignored
