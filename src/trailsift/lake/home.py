"""Where a lake is at home: in the folder that it is opened in, or in S3, of which the folder is a copy.

Nothing here imports what speaks to S3: a local lake does not pay for it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from trailsift.errors import ConflictError, show_as
from trailsift.storage import LocalStorage, register

_SCHEME = "file://"


class RemoteLake(Protocol):
    """What the lake's other modules ask of a lake in S3 and of its copy here (``lake.mirror``)."""

    url: str
    root: Path

    def open(self) -> bool:
        """Bring the copy to the newest commit if nobody works on it; return whether there is a lake."""
        ...

    def open_once(self) -> bool:
        """Do what ``open`` does, unless that was done a moment ago for the writer that comes next."""
        ...

    def make(self, *, hourly_partitions: bool) -> None:
        """Make a new lake. LakeError if that is impossible there."""
        ...

    def take_head(self) -> bool:
        """Bring a writer's copy to the newest commit; return whether it had another one."""
        ...

    def let_others_finish(self) -> None:
        """Wait, for seconds at most, for writers that keep losing to others."""
        ...

    def ask_to_be_first(self) -> AbstractContextManager[None]:
        """Ask the other writers to wait meanwhile."""
        ...

    def renew(self) -> bool:
        """Fetch a reader's catalog again, whatever is there."""
        ...

    def is_newest(self) -> bool:
        """Return whether the copy has the newest commit."""
        ...

    def publish(self, db: sqlite3.Connection, commit_id: str | None = None) -> None:
        """Commit the open transaction, in S3 first. ConflictError if another writer was first."""
        ...

    def fetch(self, paths: Iterable[str], sizes: Mapping[str, int] | None = None) -> None:
        """Have files on the disk before they are read."""
        ...

    def announce(self) -> None:
        """Take settings that were changed in S3, and have others take them too."""
        ...

    def drop(self, paths: Iterable[str]) -> None:
        """Remove files from the copy only."""
        ...

    def distrust(self) -> None:
        """Have each file read from S3 again."""
        ...

    def is_sweep_due(self) -> bool:
        """Return whether it is time to look for what dead writers left."""
        ...


class SizedFile(Protocol):
    """A file of the index, as far as fetching it needs."""

    @property
    def path(self) -> str:
        """Its path in the lake."""
        ...

    @property
    def bytes(self) -> int:
        """Its size."""
        ...


_mirrors: dict[Path, RemoteLake] = {}


def add_mirror(mirror: RemoteLake, storage: LocalStorage) -> None:
    """Have everything that works on the copy reach the lake in S3."""
    _mirrors[mirror.root] = mirror
    register(mirror.root, storage)
    show_as(str(mirror.root), mirror.url)


def mirror_of(root: Path) -> RemoteLake | None:
    """Return the lake in S3 that ``root`` is a copy of; None for a local lake."""
    return _mirrors.get(root) if _mirrors else None


def home(root: Path) -> str:
    """Return where the lake is: its folder, or its URL in S3."""
    mirror = mirror_of(root)
    return str(root) if mirror is None else mirror.url


def location(root: Path) -> str:
    """Return where the lake is as Iceberg writes it: a scheme and the path, with nothing percent-encoded."""
    mirror = mirror_of(root)
    return f"{_SCHEME}{root}" if mirror is None else mirror.url


@contextmanager
def others_first(root: Path) -> Iterator[None]:
    """Let upkeep of a lake in S3 pass that another writer was faster with: it is done, or the next upkeep does it."""
    try:
        yield
    except ConflictError:
        if mirror_of(root) is None:
            raise


def fetch(root: Path, paths: Iterable[str]) -> None:
    """Have files of a lake on the disk before they are read; those of a local lake are there."""
    mirror = mirror_of(root)
    if mirror is not None:
        mirror.fetch(paths)


def fetch_files(root: Path, files: Iterable[SizedFile]) -> None:
    """Do what ``fetch`` does for data files, whose sizes the index knows. LakeError if the cache is too small."""
    mirror = mirror_of(root)
    if mirror is not None:
        sizes = {file.path: file.bytes for file in files}
        mirror.fetch(sizes, sizes)
