"""The seam for bytes: objects by path, with versions for conditional writes.

A folder (``local``) and a prefix in S3 (``s3``) are the backends, and memory (``memory``) for tests. A version is an
opaque text, which on S3 is the ETag; ``put_if_match`` is a PUT with ``If-Match`` (or ``If-None-Match: *``
for an object that must not exist), as obstore's ``put(mode={"e_tag": ...})`` and ``put(mode="create")`` send it, and
status 412 or 409 becomes ConflictError; ``list`` is one LIST, which returns size, ETag and time of each object; and
``flush`` has nothing to do, because a PUT is durable when it returns.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol

from trailsift.errors import ConflictError, LakeError, S3Error, TrailsiftError

#: A part of a path: no control characters (C1 and line separators too), no backslash, no half of a surrogate pair.
#: The expression is compiled at first use: paths in ASCII, as nearly all are, pass without it.
_PART = r"(?!\.)[^/\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]+"
_PATH = rf"{_PART}(?:/{_PART})*"
#: Bytes of the longest name and the longest path that a file system takes.
_MAX_NAME, _MAX_PATH = 255, 4000
#: Attempts of ``update`` before it gives up, and the longest pause (in seconds) between two of them.
_ATTEMPTS = 100
_PAUSE = 0.02


class StoredObject(NamedTuple):
    """An object's path, size in bytes, version, and time of its last change (seconds since 1970)."""

    path: str
    size: int
    version: str
    modified: float


class Storage(Protocol):
    """Objects by path. Methods raise OSError if the storage fails, LakeError for a path that ``check_path`` refuses.

    Paths are relative, with ``/`` between their parts. No object's path may be the folder of another object.
    """

    @property
    def loses_answers(self) -> bool:
        """True if a write may take place and fail all the same, because its answer was lost on the way."""
        ...

    def read(self, path: str) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is no such object."""
        ...

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and the version that these bytes have. FileNotFoundError as for ``read``."""
        ...

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the object's end. FileNotFoundError as for ``read``."""
        ...

    def write(self, path: str, data: bytes) -> str:
        """Write an object, durably; return its version. A reader sees the old bytes or the new ones, never a part."""
        ...

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist); return the new version.

        ConflictError if it has another version. Of several callers with the same version, exactly one succeeds.
        """
        ...

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        ...

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        ...

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Yield the objects under a folder (default: all), in no particular order; none if there is no such folder."""
        ...

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield only the paths of the objects under a folder, which is cheaper than ``list`` on a local disk."""
        ...

    def delete(self, path: str) -> None:
        """Delete an object, if it exists."""
        ...

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        ...

    def flush(self, paths: Iterable[str]) -> None:
        """Wait until objects that something else wrote (Parquet and Iceberg files) are durable."""
        ...


def check_path(path: str) -> str:
    """Return ``path``. LakeError if it is not relative, or a part of it is empty, overlong, or begins with a dot.

    Names that begin with a dot belong to the storage itself: partial files, locks. Nor may a path have control
    characters, backslashes, or halves of surrogate pairs.
    """
    if not (_is_plain(path) or re.fullmatch(_PATH, path)):
        raise LakeError(
            f"{path!r} is not a path of an object: it must be relative, without empty, hidden or '..' parts, control "
            "characters and backslashes"
        )
    data = path.encode()
    if len(data) > _MAX_PATH or (len(data) > _MAX_NAME and max(map(len, data.split(b"/"))) > _MAX_NAME):
        raise LakeError(f"{path[:100]!r}... is not a path of an object: it is too long")
    return path


def _is_plain(path: str) -> bool:
    """Return whether a path is in ASCII and has the form that ``_PATH`` describes."""
    slashed = f"/{path}/"
    return path.isascii() and path.isprintable() and not ("\\" in path or "//" in slashed or "/." in slashed)


def update(storage: Storage, path: str, change: Callable[[bytes | None], bytes | None]) -> None:
    """Replace an object by what ``change`` makes of its bytes (None: there is no such object yet).

    ``change`` is called again whenever another writer was faster; it may return None to leave the object as it is.
    ConflictError if other writers keep being faster.

    Where answers get lost (S3), an object that is what was sent, or begins with it, has the change: so ``change`` may
    append or set something there, and not count.
    """
    sent: bytes | None = None
    for attempt in range(1, _ATTEMPTS + 1):
        data: bytes | None
        version: str | None
        try:
            data, version = storage.read_versioned(path)
        except FileNotFoundError:
            data = version = None
        if sent and data is not None and data.startswith(sent):
            return
        changed = change(data)
        if changed is None:
            return
        try:
            storage.put_if_match(path, changed, version)
            return
        except ConflictError:
            # The client itself sends again what was not answered, and that second request is the one refused.
            sent = changed if storage.loses_answers else None
            if attempt == _ATTEMPTS:
                raise
        except S3Error as error:
            if error.is_final or not _has(storage, path, changed):
                raise
            return
        # Writers that lost the same race must not meet again.
        time.sleep(int.from_bytes(os.urandom(2)) / 65536 * _PAUSE)


def _has(storage: Storage, path: str, sent: bytes) -> bool:
    """Return whether an object is what was sent, or begins with it; False if that cannot be found out."""
    try:
        return storage.read(path).startswith(sent)
    except (OSError, TrailsiftError):
        return False
