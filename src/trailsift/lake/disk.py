"""Files that a commit names are on the disk before the commit is: a power cut leaves all of it or nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path

#: One after the other, 2,000 small files take seconds, for each waits for the file system's journal; 16 at once share
#: what the journal writes: 0.18 s (ext4; 4 at once 0.29, 32 at once 0.13), 70 microseconds of CPU a file. `sync` takes
#: 0.02 s there, but waits for what everybody else has written, and hides errors on older kernels.
_AT_ONCE = 16


def flush(paths: Iterable[Path], root: Path) -> None:
    """Waits until the files, and the folders that name them up to ``root``, are on the disk. Raises OSError."""
    files = list(paths)
    folders = {folder for file in files for folder in file.parents if folder.is_relative_to(root)}
    _each(chain(files, folders))


def _each(paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(_flush, paths):
            pass


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
