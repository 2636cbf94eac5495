"""Where a lake is at home: in the folder that it is opened in, or in S3, of which the folder is a copy.

Nothing here imports what speaks to S3: a local lake does not pay for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import ConflictError, show_as
from trailsift.storage import register

if TYPE_CHECKING:
    from trailsift.lake.index import File
    from trailsift.lake.mirror import Mirror, MirroredStorage

_SCHEME = "file://"
_mirrors: dict[Path, Mirror] = {}


def add_mirror(mirror: Mirror, storage: MirroredStorage) -> None:
    """Have everything that works on the copy reach the lake in S3."""
    _mirrors[mirror.root] = mirror
    register(mirror.root, storage)
    show_as(str(mirror.root), mirror.url)


def mirror_of(root: Path) -> Mirror | None:
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


def fetch_files(root: Path, files: Iterable[File]) -> None:
    """Do what ``fetch`` does for data files, whose sizes the index knows. LakeError if the cache is too small."""
    mirror = mirror_of(root)
    if mirror is not None:
        sizes = {file.path: file.bytes for file in files}
        mirror.fetch(sizes, sizes)
