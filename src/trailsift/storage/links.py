"""Links within a folder are not followed: whoever made the folder could lead a reader, or a deletion, anywhere.

Links to folders that the user names in the environment are an exception: for a lake that has a part of it on
another disk.
"""

from __future__ import annotations

import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from trailsift.errors import LakeError

#: Folders outside of a lake that its links may lead to, separated by ``:``. It is the user who says so, not the lake.
LINKED_FOLDERS = "TRAILSIFT_LINKED_FOLDERS"

_following: Counter[Path] = Counter()
_following_lock = threading.Lock()


@contextmanager
def following(folder: Path) -> Iterator[None]:
    """Let links lead into ``folder`` meanwhile: for a lake of links that we make ourselves."""
    with _following_lock:
        _following[folder] += 1
    try:
        yield
    finally:
        with _following_lock:
            _following[folder] -= 1


def _may_follow(target: str) -> bool:
    named = [Path(name) for name in os.environ.get(LINKED_FOLDERS, "").split(os.pathsep) if name.startswith("/")]
    folders = [folder.resolve() for folder in named] + [folder for folder, count in _following.items() if count > 0]
    return any(Path(target).is_relative_to(folder) for folder in folders)


class Links:
    """Refuses paths of a folder that lead through links, or to a pipe or a device.

    It looks at each folder once: use one for a short time. Whoever may change the lake at this very moment can still
    put a link where none was.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._folders: set[str] = set()

    def check(self, paths: Iterable[str]) -> None:
        """Raise LakeError if one of the files is a link, or lies behind one. Files that do not exist pass."""
        for path in paths:
            folder, _, _ = path.rpartition("/")
            if folder not in self._folders:
                self.check_folder(folder)
            self._look(path)

    def check_folder(self, folder: str) -> None:
        """Raise LakeError if a folder is a link, or lies behind one. A folder that does not exist passes."""
        parts = folder.split("/") if folder else []
        for number in range(1, len(parts) + 1):
            place = "/".join(parts[:number])
            if place not in self._folders:
                self._look(place)
                self._folders.add(place)

    def _look(self, path: str) -> None:
        place = f"{self._root}/{path}"
        try:
            state = os.lstat(place)
            if stat.S_ISLNK(state.st_mode):
                target = os.path.realpath(place)
                if not _may_follow(target):
                    raise LakeError(
                        f"{place} is a link to {target}, and links within a lake are not followed. If it is your own "
                        f"and meant to be followed, name the folder in the environment variable {LINKED_FOLDERS}"
                    )
                state = Path(target).stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise LakeError(f"{place} cannot be read: {error.strerror or error}") from error
        if not stat.S_ISREG(state.st_mode) and not stat.S_ISDIR(state.st_mode):
            raise LakeError(f"{place} is a pipe or a device, not a file: it is not opened")
