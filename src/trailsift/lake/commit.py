"""What one commit of a lake holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from trailsift.lake.index import File

if TYPE_CHECKING:
    from trailsift.lake import dedup


@dataclass(frozen=True, slots=True)
class IngestedObject:
    """One delivered log object: its name, what tells this content from another of the name, its delivery day (UTC)."""

    name: str
    version: str
    delivered_on: str


@dataclass(slots=True)
class Batch:
    """Everything that becomes visible together."""

    files: list[File] = field(default_factory=list)
    #: Files that the new ones replace (compaction).
    removed: list[File] = field(default_factory=list)
    log_objects: list[IngestedObject] = field(default_factory=list)
    #: Sorted lists of the ids of its events.
    ids: Sequence[dedup.Ids] = ()
    #: Files of ids that ``also`` names.
    seen_paths: list[str] = field(default_factory=list)
    min_time: int = 0
    max_time: int = 0
    counts: Mapping[str, Any] = field(default_factory=dict)
    #: What else changes in the catalog's database in the same transaction; given the commit's sequence number.
    also: Callable[[sqlite3.Connection, int], None] | None = None
