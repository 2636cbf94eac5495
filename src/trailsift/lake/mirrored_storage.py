"""The storage of a lake in S3, as whoever works on its copy on the local disk sees it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from trailsift.lake import home
from trailsift.lake.cached_files import Use, is_fixed
from trailsift.lake.mirror import Mirror
from trailsift.lake.settings import LAKE_FILE
from trailsift.storage.base import StoredObject, check_path
from trailsift.storage.local import LocalStorage, make_folders


def open_mirror(url: str, use: Use) -> Mirror:
    """Return the lake at ``url`` with its copy for ``use``. Nothing is read yet."""
    mirror = Mirror(url, use)
    known = home.mirror_of(mirror.root)
    if isinstance(known, Mirror):
        return known
    home.add_mirror(mirror, MirroredStorage(mirror))
    return mirror


class MirroredStorage(LocalStorage):
    """The storage of a lake in S3 as whoever works on its copy sees it: writes reach S3 before they return."""

    loses_answers = True

    def __init__(self, mirror: Mirror) -> None:
        super().__init__(mirror.root)
        self.mirror = mirror

    def read(self, path: str) -> bytes:
        """Return an object's bytes. FileNotFoundError if there is no such object."""
        if is_fixed(path):
            self.mirror.fetch([path])
            return super().read(path)
        return self.mirror.remote.read(path)

    def read_versioned(self, path: str) -> tuple[bytes, str]:
        """Return an object's bytes and their version. FileNotFoundError if there is no such object."""
        return self.mirror.remote.read_versioned(path)

    def read_range(self, path: str, start: int, length: int) -> bytes:
        """Return ``length`` bytes from ``start`` on, fewer at the end of the object."""
        if is_fixed(path):
            self.mirror.fetch([path])
            return super().read_range(path, start, length)
        return self.mirror.remote.read_range(path, start, length)

    def write(self, path: str, data: bytes) -> str:
        """Write an object, in S3 and here; return its version."""
        version = self.mirror.remote.write(path, data)
        if path == LAKE_FILE:
            self.mirror.announce()
        else:
            super().write(path, data)
        return version

    def write_new(self, path: str, data: bytes) -> None:
        """Write a new file of the copy, which ``flush`` writes into the lake. FileExistsError if it exists."""
        target = self.root / check_path(path)
        make_folders(target.parent)
        with target.open("xb") as file:
            file.write(data)
        target.chmod(0o600)

    def put_if_match(self, path: str, data: bytes, version: str | None) -> str:
        """Write an object only if it still has ``version`` (None: only if it does not exist). ConflictError if not."""
        return self.mirror.remote.put_if_match(path, data, version)

    def stat(self, path: str) -> StoredObject | None:
        """Return an object's size, version and time; None if there is no such object."""
        return self.mirror.remote.stat(path)

    def stat_all(self, paths: Iterable[str]) -> Sequence[StoredObject | None]:
        """Return what ``stat`` returns for each path; many requests at once."""
        found: dict[str, StoredObject | None] = {}
        names = list(paths)
        self.mirror.each(lambda path: found.update({path: self.stat(path)}), names)
        return [found[name] for name in names]

    def exists(self, path: str) -> bool:
        """Return whether there is such an object."""
        return self.mirror.remote.exists(path)

    def list(self, folder: str = "") -> Iterator[StoredObject]:
        """Yield the objects under a folder (default: all)."""
        return self.mirror.remote.list(folder)

    def paths(self, folder: str = "") -> Iterator[str]:
        """Yield the paths of the objects under a folder (default: all)."""
        return self.mirror.remote.paths(folder)

    def written(self, folder: str) -> Iterator[str]:
        """Yield the paths of the files under a folder that were made here."""
        return (path for path in super().paths(folder) if path not in self.mirror.fetched)

    def delete(self, path: str) -> None:
        """Delete an object, and its copies here, if it exists."""
        self.mirror.remote.delete(path)
        self.mirror.drop([path])

    def delete_all(self, paths: Iterable[str]) -> None:
        """Delete objects, and their copies here, if they exist."""
        names = list(paths)
        self.mirror.remote.delete_all(names)
        self.mirror.drop(names)

    def checked_path(self, path: str) -> Path:
        """Return where a file is, which is fetched if it is not here yet. LakeError if it is behind a link."""
        if is_fixed(path):
            self.mirror.fetch([path])
        return super().checked_path(path)

    def describe(self, path: str) -> str:
        """Return where an object is, for messages."""
        return self.mirror.remote.describe(path)

    def flush(self, paths: Iterable[str]) -> None:
        """Write files of the copy into the lake."""
        self.mirror.upload(paths)

    def tidy(self, folder: str = "") -> None:
        """Do nothing: S3 has no partial objects."""
