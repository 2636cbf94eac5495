"""Open a lake for reading."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from trailsift.errors import LakeError
from trailsift.lake.index import LAST_COMMIT, Snapshot, connect, differ, live_locations
from trailsift.lake.settings import CATALOG_FILE, check_location, read_settings


def open_snapshot(root: Path) -> Snapshot:
    """Return the newest committed state. LakeError if there is no lake, or if it was moved."""
    settings = read_settings(root)
    check_location(root, settings)
    incomplete = LakeError(
        f"the lake at {root} was only partially created; run `trailsift ingest` again to complete it"
    )
    if not (root / CATALOG_FILE).exists():
        raise incomplete
    with closing(connect(root)) as db:
        try:
            # One transaction: the newest commit and the catalog's pointers of the same moment.
            db.execute("BEGIN")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone():
                raise incomplete
            row = db.execute(LAST_COMMIT).fetchone()
            live = live_locations(db) if row else {}
        except sqlite3.DatabaseError as error:
            raise LakeError(f"the catalog {root / CATALOG_FILE} cannot be read: {error}") from error
    if row is None:
        raise incomplete
    locations: dict[str, str] = json.loads(row[2])
    if differ(locations, live):
        rebuild_index(root)
        return open_snapshot(root)
    return Snapshot(root.resolve(), row[0], row[1], locations, settings)


def rebuild_index(root: Path) -> None:
    """Rebuild a stale index."""
    from trailsift.lake.writer import LakeWriter

    with LakeWriter(root).lock():
        pass  # getting the lock brings the index up to date
