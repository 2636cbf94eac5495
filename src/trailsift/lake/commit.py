"""The contents of one commit of a lake."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field

from trailsift.lake.index import File
from trailsift.schema import Table

#: A further change to the catalog's database, made in the commit's transaction; given the commit's sequence number.
IndexChange = Callable[[sqlite3.Connection, int], None]


@dataclass(frozen=True, slots=True)
class IngestedObject:
    """A delivered log object: its name, its version (which differs if the content does), its delivery day (UTC)."""

    name: str
    version: str
    delivered_on: str


@dataclass(frozen=True, slots=True)
class Listed:
    """A note that a commit makes: of ``place``, for these accounts and regions (empty: all), everything that was
    delivered from ``since`` (None: ever) until ``through`` is in the lake. Both are minutes, ISO 8601 in UTC."""

    place: str
    accounts: tuple[str, ...]
    regions: tuple[str, ...]
    since: str | None
    through: str


@dataclass(slots=True)
class Batch:
    """Everything that becomes visible together."""

    files: list[File] = field(default_factory=list)
    #: Files that the new ones replace (compaction).
    removed: list[File] = field(default_factory=list)
    #: Tables that are made again, with the new files only (upgrade).
    renewed: dict[str, Table] = field(default_factory=dict)
    log_objects: list[IngestedObject] = field(default_factory=list)
    #: First and last time of the events whose ids are new (microseconds since 1970); None if no ids were offered.
    span: tuple[int, int] | None = None
    index_change: IndexChange | None = None
    #: Files of event ids that ``index_change`` names, and those that it marks as removed.
    seen_paths: list[str] = field(default_factory=list)
    seen_replaced: list[str] = field(default_factory=list)
