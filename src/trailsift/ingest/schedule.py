"""The order in which workers read log objects."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator

from trailsift.ingest.counts import Sizes
from trailsift.sources.base import LogObject


class WorkQueue:
    """Pieces of work for each worker.

    Each worker has its own span of delivery times, so that workers rarely write files of the same partition. A worker
    that has finished takes pieces from the end of another's.
    """

    def __init__(self, files: list[LogObject], sizes: Sizes, workers: int) -> None:
        pieces = list(_pieces(files, sizes))
        bounds = [len(pieces) * number // workers for number in range(workers + 1)]
        self._left = [deque(pieces[low:high]) for low, high in itertools.pairwise(bounds)]

    def __bool__(self) -> bool:
        return any(self._left)

    def take(self, worker: int) -> list[LogObject]:
        """Return the next piece for a worker; there must be one."""
        if self._left[worker]:
            return self._left[worker].popleft()
        return max(self._left, key=len).pop()


def _pieces(files: list[LogObject], sizes: Sizes) -> Iterator[list[LogObject]]:
    """Yield files in order of delivery, in pieces of limited size."""
    piece: list[LogObject] = []
    size = 0
    for file in files:
        if piece and (size + file.size > sizes.task_bytes or len(piece) >= sizes.task_objects):
            yield piece
            piece, size = [], 0
        piece.append(file)
        size += file.size
    if piece:
        yield piece
