"""The counts and the progress of an ingest, and the sizes it is cut into."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trailsift.decode.limits import LIMITS, Limits


@dataclass(slots=True)
class Counts:
    """The outcome of everything that was read; ``records`` is the sum of the four counts that follow it."""

    log_objects: int = 0
    #: Ingested before (``log_objects_known``), other files of the bucket, or JSON without a CloudTrail record.
    log_objects_skipped: int = 0
    log_objects_known: int = 0
    records: int = 0
    stored: int = 0
    duplicates: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    #: Duplicates that are not the stored event again, by kind (``conflicts``): their records are in ``rejects``.
    conflicts: dict[str, int] = field(default_factory=dict)
    #: Digests, flow logs and other files that AWS writes into the same bucket, by kind (``decode.other_files``).
    other_files: dict[str, int] = field(default_factory=dict)
    #: Links out of a folder of logs, which are not followed.
    links_passed_over: int = 0
    #: Log objects that could not be fetched, which the next run tries again; and those that were deleted or replaced
    #: after they were listed.
    log_objects_failed: int = 0
    log_objects_gone: int = 0
    #: The first of both, by name: why.
    not_fetched: dict[str, str] = field(default_factory=dict)
    #: Folders and objects in a bucket that hold other logs and are not fetched, by kind.
    passed_over: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the counts in the order and with the names of ``ingest --json``."""
        return {name: getattr(self, name) for name in self.__slots__}

    @property
    def complete(self) -> bool:
        """True if nothing was malformed, everything could be fetched, and all that was skipped is known: ingested
        before, or another file of AWS."""
        return not self.malformed and not self.strange and not self.log_objects_failed

    @property
    def strange(self) -> int:
        """Number of files that hold JSON, no CloudTrail record, and nothing else that is known."""
        return self.log_objects_skipped - self.log_objects_known - sum(self.other_files.values())


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an ingest has come. ``bytes_total`` is 0 if unknown (standard input)."""

    objects_total: int
    objects_done: int
    bytes_total: int
    bytes_done: int
    records: int
    stored: int
    duplicates: int
    dropped: int
    malformed: int
    seconds: float
    #: Log objects and folders listed so far, while that is all that is done.
    listed: int = 0
    folders: int = 0
    #: Whether log objects come over a network, and how many of all were known before.
    remote: bool = False
    known: int = 0


@dataclass(frozen=True, slots=True)
class Sizes:
    """How an ingest is cut into pieces."""

    #: A chunk is cut at this size (``ChunkBuilder.size``): large enough for good files, small enough for the memory.
    chunk_rows: int = 131_072
    #: A batch is committed at this many rows.
    batch_rows: int = 2_000_000
    #: Or earlier, when this many rows wait in memory for the commit (``exemplars``).
    held_rows: int = 200_000
    #: Or this many seconds after the first of its log objects were sent for; 0: never.
    batch_seconds: float = 0.0
    #: Workers get pieces of about this many bytes, or this many log objects.
    task_bytes: int = 4 << 20
    task_objects: int = 500
    #: How much of one file is held in memory.
    bounds: Limits = LIMITS


SIZES = Sizes()


class CallbackError(Exception):
    """An error of the caller's ``progress``, not to be mistaken for one of the lake."""

    def __init__(self, error: OSError) -> None:
        self.error = error
