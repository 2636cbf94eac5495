"""From inputs to a committed lake: the few lines that join source, columnar, summarize and store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(slots=True)
class Counts:
    """What became of everything that was read; ``records`` is the sum of the four that follow it."""

    log_objects: int = 0
    #: Not taken: ingested before (``log_objects_known``), or JSON that holds no CloudTrail record.
    log_objects_skipped: int = 0
    log_objects_known: int = 0
    records: int = 0
    stored: int = 0
    duplicates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """The counts in the order and names of ``ingest --json``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def complete(self) -> bool:
        """Whether nothing was malformed and no input was skipped for any other reason than being known."""
        return not self.malformed and self.log_objects_skipped == self.log_objects_known


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest is. ``bytes_total`` is 0 while unknown (standard input)."""

    objects_total: int
    objects_done: int
    bytes_total: int
    bytes_done: int
    records: int
    stored: int
    duplicates: int
    malformed: int
    seconds: float


def ingest(
    inputs: Sequence[str],
    lake: Path,
    *,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Counts:
    """Ingests files, folders, globs and archives (``-``: standard input) into the lake, which is made if missing.

    Raises SourceError where an input does not exist or holds no CloudTrail at all, LakeError where the lake cannot be
    written. KeyboardInterrupt leaves what was committed and nothing else.
    """
    raise NotImplementedError
