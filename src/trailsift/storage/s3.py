"""Objects under one prefix of a bucket in S3, or of a server that speaks its protocol."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.errors import ConflictError, LakeError
from trailsift.storage.base import StoredObject, check_path
from trailsift.storage.local import MAX_OBJECT
from trailsift.storage.s3_client import S3Url, attempts, connect, failure_of, is_client_error, s3_errors

if TYPE_CHECKING:
    from obstore.store import S3Store

T = TypeVar("T")

#: Objects are uploaded in one request up to this size, in bytes; larger ones in parts.
_ONE_REQUEST = 64 << 20
_DELETED_AT_ONCE = 1000
#: Bytes that are read at once when an object goes to a file.
_BLOCK = 8 << 20


class S3Storage:
    """Objects below ``url``; nothing else in the bucket is read or written. Safe to use from several threads.

    An object's version is its ETag. What fails raises errors of our tree, or FileNotFoundError.
    """

    loses_answers = True

    def __init__(self, url: S3Url) -> None:
        self.url = url
        self._prefix = f"{url.key}/" if url.key else ""

    @cached_property
    def _store(self) -> S3Store:
        return connect(self.url.bucket)

    def read(self, path: str, limit: int = MAX_OBJECT) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is none, LakeError if it has more than ``limit``."""
        return self.read_versioned(path, limit)[0]

    def read_versioned(self, path: str, limit: int = MAX_OBJECT) -> tuple[bytes, str]:
        """Return an object's bytes and their version. Raise as ``read`` does."""
        found = self.read_if_changed(path, None, limit)
        assert found is not None
        return found

    def read_if_changed(self, path: str, version: str | None, limit: int = MAX_OBJECT) -> tuple[bytes, str] | None:
        """Return an object's bytes and version; None if it still has ``version``. Raise as ``read`` does."""
        import obstore
        from obstore.exceptions import NotModifiedError

        options: Any = {"if_none_match": version} if version else {}

        def get() -> tuple[bytes, str] | None:
            try:
                got = obstore.get(self._store, self._key(path), options=options)
            except NotModifiedError:
                return None
            size = got.meta["size"]
            if size > limit:
                raise LakeError(f"{self.describe(path)} is too large: it has {size:,} bytes, of {limit:,} at most")
            return bytes(got.bytes()), got.meta["e_tag"] or ""

        with self._errors(path, "s3:GetObject"):
            return _until_whole(get)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end of the object."""
        # An object may be shorter, and an empty range is an error of the protocol.
        return self.read(path)[start : start + length]

    def download(self, path: str, target: Path) -> int:
        """Write an object's bytes to a new file; return their number. FileNotFoundError if there is no such object."""
        import obstore

        def get() -> int:
            got = obstore.get(self._store, self._key(path))
            size = 0
            with target.open("wb") as file:
                for block in got.stream(min_chunk_size=_BLOCK):
                    file.write(block)
                    size += len(block)
            if size != got.meta["size"]:
                raise OSError(f"{self.describe(path)} was cut off at {size:,} of {got.meta['size']:,} bytes")
            return size

        with self._errors(path, "s3:GetObject"):
            return _until_whole(get)

    def write(self, path: str, data: bytes) -> str:
        """Write an object; return its version."""
        return self._put(path, data, "overwrite", "s3:PutObject")

    def upload(self, path: str, file: Path) -> str:
        """Write an object from a file; return its version."""
        import obstore

        with self._errors(path, "s3:PutObject"):
            if file.stat().st_size <= _ONE_REQUEST:
                return obstore.put(self._store, self._key(path), file.read_bytes(), use_multipart=False)["e_tag"] or ""
            return obstore.put(self._store, self._key(path), file, use_multipart=True)["e_tag"] or ""

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist). ConflictError if not."""
        mode: Any = "create" if version is None else {"e_tag": version}
        return self._put(path, data, mode, "s3:PutObject")

    def _put(self, path: str, data: bytes, mode: Any, action: str) -> str:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotFoundError, PreconditionError

        with self._errors(path, action):
            try:
                put = obstore.put(self._store, self._key(path), data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError) as error:
                raise ConflictError(f"another writer changed {self.describe(path)} first") from error
            except NotFoundError as error:
                # The object that was to be replaced is away.
                if isinstance(mode, dict):
                    raise ConflictError(f"another writer deleted {self.describe(path)} first") from error
                raise
            return put["e_tag"] or ""

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        import obstore

        try:
            with self._errors(path, "s3:GetObject"):
                return self._stored(obstore.head(self._store, self._key(path)))
        except FileNotFoundError:
            return None

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self.stat(path) is not None

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Return the objects under a folder (default: all)."""
        import obstore

        prefix = self._prefix + (f"{check_path(folder)}/" if folder else "")

        def listed() -> list[StoredObject]:
            pages = obstore.list(self._store, prefix or None)
            found = (self._stored(meta) for page in pages for meta in page)
            return [stored for stored in found if stored is not None]

        with self._errors(folder, "s3:ListBucket"):
            return iter(_until_whole(listed))

    def first(self, besides: str) -> StoredObject | None:
        """Return any object whose path does not begin with ``besides``; None if there is none. Few requests."""
        import obstore

        def found() -> StoredObject | None:
            pages = obstore.list(self._store, self._prefix or None, chunk_size=1)
            objects = (stored for page in pages for meta in page if (stored := self._stored(meta)))
            return next((stored for stored in objects if not stored.path.startswith(besides)), None)

        with self._errors("", "s3:ListBucket"):
            return _until_whole(found)

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of the objects under a folder (default: all)."""
        return (stored.path for stored in self.list(folder))

    def delete(self, path: str) -> None:
        """Delete an object, if it exists."""
        import obstore

        try:
            with self._errors(path, "s3:DeleteObject"):
                obstore.delete(self._store, self._key(path))
        except FileNotFoundError:
            pass

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects, if they exist: a thousand per request."""
        import obstore

        names = list(paths)
        for start in range(0, len(names), _DELETED_AT_ONCE):
            part = names[start : start + _DELETED_AT_ONCE]
            with self._errors(part[0], "s3:DeleteObject"):
                obstore.delete(self._store, [self._key(path) for path in part])

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        return f"{self.url}/{path}" if path else str(self.url)

    def flush(self, paths: Iterable[str]) -> None:
        """Do nothing: what is written is durable when the request returns."""

    def _key(self, path: str) -> str:
        return self._prefix + check_path(path)

    def _stored(self, meta: Any) -> StoredObject | None:
        """Return an object of a listing; None for one whose name is none of a lake's."""
        key = meta["path"]
        if not key.startswith(self._prefix):
            return None
        return StoredObject(
            key[len(self._prefix) :], meta["size"], meta["e_tag"] or "", meta["last_modified"].timestamp()
        )

    def _errors(self, path: str, action: str) -> Any:
        return s3_errors(self.describe(path), action)


def _until_whole(get: Callable[[], T]) -> T:
    """Return what ``get`` returns, which is tried again if an answer breaks off: the client itself does not."""
    last = attempts()
    for attempt in range(1, last + 1):
        try:
            return get()
        except Exception as error:
            if attempt == last or not is_client_error(error) or failure_of(error).kind != "network":
                raise
            time.sleep(min(0.1 * 2**attempt, 5.0))
    raise AssertionError
