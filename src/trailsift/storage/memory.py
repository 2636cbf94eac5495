"""Objects in memory: for tests of whatever reads and writes through a storage."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterable, Iterator

from trailsift.errors import ConflictError
from trailsift.storage.base import StoredObject, check_path


class MemoryStorage:
    """A storage whose objects live as long as it does. Safe to use from several threads."""

    loses_answers = False

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, StoredObject]] = {}
        self._versions = itertools.count(1)
        self._lock = threading.Lock()

    def read(self, path: str) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is no such object."""
        return self.read_versioned(path)[0]

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and their version. FileNotFoundError if there is no such object."""
        try:
            data, stored = self._objects[check_path(path)]
        except KeyError:
            raise FileNotFoundError(2, "No such object", path) from None
        return data, stored.version

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end of the object."""
        return self.read(path)[start : start + length]

    def write(self, path: str, data: bytes) -> str:
        """Write an object; return its version."""
        with self._lock:
            return self._put(check_path(path), data)

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist). ConflictError if not."""
        with self._lock:
            _, stored = self._objects.get(check_path(path), (b"", None))
            if (stored and stored.version) != version:
                raise ConflictError(f"another writer changed {path} first")
            return self._put(path, data)

    def _put(self, path: str, data: bytes) -> str:
        if any(name.startswith(f"{path}/") or path.startswith(f"{name}/") for name in self._objects):
            raise NotADirectoryError(20, "Not a folder", path)
        stored = StoredObject(path, len(data), str(next(self._versions)), time.time())
        self._objects[path] = bytes(data), stored
        return stored.version

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        return self._objects.get(check_path(path), (b"", None))[1]

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return check_path(path) in self._objects

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Yield the objects under a folder (default: all)."""
        prefix = f"{check_path(folder)}/" if folder else ""
        with self._lock:
            objects = [stored for _, stored in self._objects.values()]
        return (stored for stored in objects if stored.path.startswith(prefix))

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of the objects under a folder (default: all)."""
        return (stored.path for stored in self.list(folder))

    def delete(self, path: str) -> None:
        """Delete an object, if it exists."""
        with self._lock:
            self._objects.pop(check_path(path), None)

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        return f"memory:{check_path(path)}"

    def flush(self, paths: Iterable[str]) -> None:
        """Do nothing: memory is as durable as it gets."""
