"""Running after commits: at once after an ingest, or as long as one likes, whenever a lake has a new commit."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from trailsift.errors import LakeError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

T = TypeVar("T")


def follow(
    lake: Path,
    run: Callable[[DuckDBEngine], T],
    every: float,
    wait: Callable[[float], None] = time.sleep,
    trouble: Callable[[LakeError], None] = lambda error: None,
) -> Iterator[T]:
    """``run`` over the lake as it is, and again after each commit; looks for one every so many seconds, without end.

    LakeError where the lake cannot be opened at first. Later, ``trouble`` is told once, and the lake is tried again.
    """
    seen: object = None
    troubled = False
    while True:
        try:
            snapshot = open_snapshot(lake)
            state = (snapshot.seq, snapshot.committed_at, snapshot.locations)
            if state != seen:
                with DuckDBEngine(snapshot) as engine:
                    found = run(engine)
                seen, troubled = state, False
                yield found
        except LakeError as error:
            if seen is None:
                raise
            if not troubled:
                trouble(error)
            troubled = True
        wait(every)
