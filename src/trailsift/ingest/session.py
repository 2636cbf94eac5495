"""A lake and its workers, kept open for one ingest after the other: ``ingest`` makes one, ``watch`` many."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType
from typing import TYPE_CHECKING, Self

from trailsift.errors import ConflictError
from trailsift.ingest.counts import SIZES, Counts, Progress, Sizes
from trailsift.ingest.pool import Pool
from trailsift.lake.home import mirror_of
from trailsift.lake.writer import LakeWriter
from trailsift.sources.base import Found, LogObject, NotFetchedError

if TYPE_CHECKING:
    from trailsift.rules import Rules

#: Below this many bytes, and requests, starting worker processes costs more than it saves.
INLINE_BYTES, INLINE_REQUESTS = 6 << 20, 1000
#: What was fetched over a network is committed this often, in seconds: a run that is cut short goes on from there.
REMOTE_SECONDS = 60.0
#: Seconds for which worker processes that nothing needs are kept.
KEPT = 60.0
#: How often an ingest into a lake in S3 goes on after other writers were first with the same events.
_ATTEMPTS = 100


class Session:
    """Ingests what it is given, with the lake's writer and the workers of before."""

    def __init__(
        self,
        lake: LakeWriter,
        rules: Rules | None = None,
        sizes: Sizes = SIZES,
        workers: int | None = None,
        ahead: Pool | None = None,
    ) -> None:
        """``workers``: processes (None: one per core for large ingests, none for small ones); ``ahead``: those that
        were started already, for a large one."""
        self.lake = lake
        self.rules = rules
        self.sizes = sizes
        self._workers = workers
        #: By whether it has processes of its own.
        self._pools: dict[bool, Pool] = {} if ahead is None else {True: ahead}
        self._needed_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(at_once=kind is not None)

    def ingest(
        self,
        found: Found,
        counts: Counts,
        progress: Callable[[Progress], None] | None = None,
        started: float | None = None,
        missed: Callable[[LogObject, NotFetchedError], None] | None = None,
        find_again: Callable[[], Found] | None = None,
    ) -> list[int]:
        """Ingest log objects and add to ``counts``; return the numbers of the commits.

        ``started``: monotonic time that the progress counts from; ``missed`` is called with each log object that could
        not be fetched. After an error nothing but what was committed before is left.

        In S3, a writer on another machine may commit some of the same events first. Then the batch that was not
        committed is read again, since which of its events are new is another question now: ``find_again`` returns
        what is left.
        """
        begun = time.monotonic() if started is None else started
        committed: list[int] = []
        for attempt in range(1, _ATTEMPTS + 1):
            before = replace(counts)
            pool = self._pool(found)
            # Imported lazily: new processes import their modules meanwhile.
            from trailsift.ingest.coordinator import Coordinator

            sizes = self.sizes
            if found.remote and not sizes.batch_seconds:
                sizes = replace(sizes, batch_seconds=REMOTE_SECONDS)
            coordinator = Coordinator(self.lake, found, counts, progress, sizes, self.rules, begun, missed)
            try:
                coordinator.all(pool)
            except ConflictError:
                self.close(at_once=True)
                if mirror_of(self.lake.root) is None or find_again is None or attempt == _ATTEMPTS:
                    raise
                coordinator.committed_counts.write(counts, before)
                committed += coordinator.committed
                objects, found = found.objects, find_again()
                others = max(objects - found.objects - (counts.log_objects - before.log_objects), 0)
                counts.log_objects_known += others
                counts.log_objects_skipped += others
            except BaseException:
                self.close(at_once=True)
                raise
            else:
                return committed + coordinator.committed
            if not found.spans:
                break
        return committed

    def _pool(self, found: Found) -> Pool:
        """Return the workers that are worth their cost for so much."""
        size = _size(found, self._workers)
        now = time.monotonic()
        if size:
            self._needed_at = now
        elif True in self._pools and now > self._needed_at + KEPT:
            self._pools.pop(True).close(at_once=False)
        if bool(size) not in self._pools:
            self._pools[bool(size)] = Pool(self.lake.root, size, self.rules, self.sizes.bounds)
        return self._pools[bool(size)]

    def close(self, *, at_once: bool = False) -> None:
        """End the workers: after their last call, or ``at_once``."""
        while self._pools:
            self._pools.popitem()[1].close(at_once=at_once)


def _size(found: Found, workers: int | None) -> int:
    """Return the number of worker processes; 0 if they would cost more than they save."""
    if workers is None and found.bytes < INLINE_BYTES and not (found.remote and found.objects > INLINE_REQUESTS):
        return 0
    from multiprocessing import current_process

    if current_process().daemon:
        # A worker of somebody's pool must not have children.
        return 0
    return min(workers or os.cpu_count() or 1, found.objects)
