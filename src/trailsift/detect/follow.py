"""Run after every commit of a lake: once after an ingest, or until stopped."""

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
    """Yield ``run`` over the lake as it is, and again after each commit, forever; check every ``every`` seconds.

    Raise LakeError if the lake cannot be opened at first. Later, ``trouble`` is called once per outage, and the lake is
    tried again.
    """
    seen: object = None
    failing = False
    while True:
        try:
            snapshot = open_snapshot(lake)
            state = (snapshot.seq, snapshot.committed_at, snapshot.locations)
            if state != seen:
                with DuckDBEngine(snapshot) as engine:
                    result = run(engine)
                seen, failing = state, False
                yield result
        except LakeError as error:
            if seen is None:
                raise
            if not failing:
                trouble(error)
            failing = True
        wait(every)
