"""The order in which workers read log objects."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence

from trailsift.ingest.counts import Sizes
from trailsift.sources.base import LogObject, Span


class WorkQueue:
    """Pieces of work for each worker.

    Each worker has its own part of the delivery times, so that workers rarely write files of the same partition. A
    worker that has finished takes pieces from the end of another's. A span is loaded when its first piece is needed.
    """

    def __init__(self, spans: Sequence[Span], sizes: Sizes, workers: int) -> None:
        self._sizes = sizes
        self._left: list[deque[Span | list[LogObject]]] = [deque() for _ in range(workers)]
        total = sum(span.bytes for span in spans) or 1
        before = 0
        for span in spans:
            # By the middle of the span: a single one may hold everything.
            self._left[min((before + span.bytes // 2) * workers // total, workers - 1)].append(span)
            before += span.bytes

    def __bool__(self) -> bool:
        return any(self._left)

    def take(self, worker: int) -> list[LogObject]:
        """Return the next piece for a worker; there must be one."""
        own = self._left[worker]
        if own:
            return self._first(own)
        other = max(self._left, key=lambda left: sum(map(_objects, left)))
        last = other.pop()
        if isinstance(last, list):
            return last
        own.append(last)
        return self._first(own)

    def _first(self, left: deque[Span | list[LogObject]]) -> list[LogObject]:
        first = left.popleft()
        if isinstance(first, list):
            return first
        pieces = list(_pieces(first.load(), self._sizes))
        left.extendleft(reversed(pieces[1:]))
        return pieces[0]


def _objects(part: Span | list[LogObject]) -> int:
    return len(part) if isinstance(part, list) else part.objects


def spans_of(files: Sequence[LogObject], sizes: Sizes) -> list[Span]:
    """Return log objects in order of delivery, which are in memory already, in spans of one piece each."""
    return [Span(len(piece), sum(file.size for file in piece), piece.copy) for piece in _pieces(files, sizes)]


def _pieces(files: Sequence[LogObject], sizes: Sizes) -> Iterator[list[LogObject]]:
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
