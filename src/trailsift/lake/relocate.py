"""Repair a lake after it was moved or copied.

Iceberg's metadata, manifest lists and manifests hold absolute paths. Rewriting all of them would keep a history that
no reader of ours needs. Instead each table gets one new snapshot of its live files, with the statistics from its
manifests: no data file is opened. The older snapshots are dropped.

An interrupted run can be run again: tables are staged beside the old metadata, change together in one transaction of
the catalog's database, and ``lake.json`` follows last.
"""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from trailsift.errors import LakeError
from trailsift.lake import digest, expire, forms, index
from trailsift.lake.create import check_root, settings_text
from trailsift.lake.disk import write_errors
from trailsift.lake.home import home, location, mirror_of
from trailsift.lake.settings import LAKE_FILE
from trailsift.lake.writer import LakeWriter
from trailsift.times import now_text

#: How the locations of a table begin that lies in a folder, or in S3.
_SCHEMES = ("file://", "s3://")


@dataclass(frozen=True, slots=True)
class Relocated:
    """The result of ``relocate``: tables with new metadata (0: the lake was in its place), live files, old folder."""

    lake: str
    moved_from: str
    tables: int
    files: int


def relocate(root: Path) -> Relocated:
    """Make the lake that now lies at ``root`` a lake of that folder.

    The folder it came from is not touched: if it still exists, there are two lakes from now on. LakeError if there is
    no lake, or if the new path cannot be that of a lake.
    """
    if mirror_of(root.resolve()) is None:
        from trailsift.lake.packing import unpack_in_place

        unpack_in_place(root)
    lake = LakeWriter(root, moved=True)
    check_root(home(lake.root))
    made_at = str(lake.settings.get("location"))
    tables = files = 0
    with lake.lock():
        try:
            with closing(index.connect(lake.root)) as db:
                pointers = index.live_locations(db)
            moved = {name: old for name in lake.tables if (old := _old_place(name, pointers, lake.root)) is not None}
            if moved:
                files = _repoint(lake, moved, pointers)
                tables = len(moved)
        except (sqlite3.DatabaseError, OSError) as error:
            raise LakeError(f"the lake at {lake.root} could not be relocated; nothing changed: {error}") from error
        with write_errors(lake.root):
            _write_location(lake)
    if tables:
        with write_errors(lake.root):
            _tidy(lake)
    return Relocated(home(lake.root), made_at, tables, files)


def _old_place(name: str, pointers: dict[str, str], root: Path) -> str | None:
    """Return a table's previous location (as Iceberg writes it); None if it has not moved."""
    if name not in pointers:
        raise LakeError(f"the catalog of {root} has no table {name}: the lake was only partially created")
    old, separator, _ = pointers[name].rpartition(f"/{name}/metadata/")
    if not separator or not old.startswith(_SCHEMES):
        raise LakeError(
            f"the metadata of {name} is at {pointers[name]}, which is not a place of a lake: nothing to relocate"
        )
    return None if old == location(root) else old


def _repoint(lake: LakeWriter, moved: dict[str, str], pointers: dict[str, str]) -> int:
    """Stage new metadata of every table and make all of it current together; return the number of live files."""
    catalog = lake.catalog
    try:
        live: dict[str, list[str]] = {}
        before_staging = {path for name in moved for path in lake.storage.written(f"{name}/metadata")}
        for name, old in moved.items():
            live[name] = catalog.relocate(name, pointers[name], old, location(lake.root))
        staged = [path for name in moved for path in lake.storage.written(f"{name}/metadata")]
        written = [path for path in staged if path not in before_staging]
        digests = digest.of_files(lake.storage, written)
        lake.storage.flush(written)
        with closing(index.connect(lake.root)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                _, before = index.last_commit_row(db)
                seq = index.next_number(db)
                catalog.apply(db)
                # If another engine committed before the move, the index does not have it yet: then it stays stale, and
                # the next reader rebuilds it.
                indexed = forms.logged_locations(before)
                is_fresh = all(indexed.get(name) == pointer for name, pointer in pointers.items())
                locations = index.live_locations(db) if is_fresh else indexed
                db.execute(
                    "INSERT INTO commit_log VALUES (?, ?, 'relocate', '{}', ?)",
                    (seq, now_text(), json.dumps(locations)),
                )
                digest.seal(db, seq, digests, ())
                index.commit(lake.root, db)
            except BaseException:
                # On a full disk, SQLite has rolled back already; a second error would hide the first.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
    except BaseException:
        catalog.discard()
        raise
    return sum(map(len, live.values()))


def _write_location(lake: LakeWriter) -> None:
    lake.storage.write(LAKE_FILE, settings_text({**lake.settings, "location": home(lake.root)}))


def _tidy(lake: LakeWriter) -> None:
    """Delete the metadata of the old folder: no reader here can be using it."""
    with lake.lock():
        for name in lake.tables:
            needed = lake.catalog.metadata_files(name)
            expire.delete_metadata(lake.storage, name, needed, datetime.now(UTC), timedelta(0))
