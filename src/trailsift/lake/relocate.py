"""Makes a lake that was moved or copied usable where it is now.

Iceberg's metadata, manifest lists and manifests hold absolute paths. Rewriting all of them would keep a history that
no reader of ours asks for; instead each table gets one new snapshot of its live files, with the statistics that its
manifests have: no data file is opened. The older snapshots are dropped.

An interrupted run is run again: tables are staged beside the old metadata, change together in one transaction of the
catalog's database, and ``lake.json`` follows last.
"""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trailsift import schema
from trailsift.errors import LakeError
from trailsift.lake import expire, index
from trailsift.lake.iceberg import location
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.sqlite_catalog import SCHEME
from trailsift.lake.writer import LakeWriter
from trailsift.times import now_text


@dataclass(frozen=True, slots=True)
class Relocated:
    """What ``relocate`` did: tables with new metadata (0: the lake was in its place), live files, old place."""

    lake: str
    moved_from: str
    tables: int
    files: int


def relocate(root: Path) -> Relocated:
    """Makes the lake that now lies at ``root`` a lake of that place.

    The place it came from is not touched: where that still exists, there are two lakes from now on. LakeError where
    there is no lake, or the new path cannot be one.
    """
    lake = LakeWriter(root, moved=True)
    if set("%?#") & set(str(lake.root)):
        raise LakeError(f"{lake.root}: the characters %, ? and # cannot stand in the path of a lake; choose another")
    home = str(lake.settings.get("location"))
    tables = files = 0
    with lake.lock():
        try:
            with closing(index.connect(lake.root)) as db:
                pointers = index.live_locations(db)
            moved = {name: old for name in schema.TABLES if (old := _old_place(name, pointers, lake.root)) is not None}
            if moved:
                files = _repoint(lake, moved, pointers)
                tables = len(moved)
        except (sqlite3.DatabaseError, OSError) as error:
            raise LakeError(f"the lake at {lake.root} could not be relocated; nothing changed: {error}") from error
        _write_location(lake)
    if tables:
        _tidy(lake)
    return Relocated(str(lake.root), home, tables, files)


def _old_place(name: str, pointers: dict[str, str], root: Path) -> str | None:
    """The folder (as Iceberg writes it) that a table's metadata is of; None where that is here."""
    if name not in pointers:
        raise LakeError(f"the catalog of {root} has no table {name}: the lake was never finished being made")
    old, found, _ = pointers[name].rpartition(f"/{name}/metadata/")
    if not found or not old.startswith(SCHEME):
        raise LakeError(f"the metadata of {name} is at {pointers[name]}, outside a local lake: nothing to relocate")
    return None if old == location(root) else old


def _repoint(lake: LakeWriter, moved: dict[str, str], pointers: dict[str, str]) -> int:
    """Stages every table anew and makes all of them current together; the number of live files."""
    catalog = lake.catalog
    try:
        live: dict[str, list[str]] = {}
        for name, old in moved.items():
            live[name] = catalog.relocate(name, pointers[name], old, location(lake.root))
        with closing(index.connect(lake.root)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                (last, before) = db.execute(
                    "SELECT seq, locations FROM commit_log ORDER BY seq DESC LIMIT 1"
                ).fetchone()
                catalog.apply(db)
                # What another engine committed before the move is in no index yet: then it stays stale, and the next
                # reader has it made anew.
                known = json.loads(before)
                fresh = all(known.get(name) == pointer for name, pointer in pointers.items())
                locations = index.live_locations(db) if fresh else known
                db.execute(
                    "INSERT INTO commit_log VALUES (?, ?, 'relocate', '{}', ?)",
                    (int(last) + 1, now_text(), json.dumps(locations)),
                )
                db.execute("COMMIT")
            except BaseException:
                db.execute("ROLLBACK")
                raise
    except BaseException:
        catalog.discard()
        raise
    return sum(map(len, live.values()))


def _write_location(lake: LakeWriter) -> None:
    settings = {**lake.settings, "location": str(lake.root)}
    partial = lake.root / f".{LAKE_FILE}.{uuid.uuid4().hex}"
    with partial.open("w", encoding="utf-8") as file:
        file.write(json.dumps(settings, indent=2) + "\n")
        file.flush()
        os.fsync(file.fileno())
    partial.replace(lake.root / LAKE_FILE)


def _tidy(lake: LakeWriter) -> None:
    """Deletes the metadata of the old place: no reader here can be at it."""
    with lake.lock():
        for name in schema.TABLES:
            needed = lake.catalog.metadata_files(name)
            expire.delete_metadata(lake.root / name / "metadata", needed, datetime.now(UTC), timedelta(0))
