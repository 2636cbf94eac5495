"""Open a lake for reading. Nothing in it is written, and what it names is checked before it is used."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

from trailsift import schema
from trailsift.errors import LakeError
from trailsift.lake import forms
from trailsift.lake.home import mirror_of
from trailsift.lake.index import LAST_COMMIT, File, Snapshot, differ, live_locations, read, snapshot_of
from trailsift.lake.settings import CATALOG_FILE, check_location, read_settings

#: The files of the last stale index that was rebuilt: (lake, commit, locations of the metadata) and what was found.
_Rebuilt = tuple[tuple[Path, int, tuple[tuple[str, str], ...]], tuple[tuple[File, int], ...]]
_last_rebuilt: _Rebuilt | None = None


def open_snapshot(root: Path) -> Snapshot:
    """Return the newest committed state.

    LakeError if there is no lake, if it was moved, or if it names something that no lake of ours does.
    """
    place = root.resolve()
    # By its own name too: a link in its place would lead to a folder that is not a copy.
    mirror = mirror_of(root) or mirror_of(place)
    if mirror is not None:
        mirror.open()
    settings = read_settings(root)
    check_location(root, settings)
    forms.check_folders(place)
    if not (root / CATALOG_FILE).exists():
        raise _incomplete(root)

    def newest(db: sqlite3.Connection) -> tuple[tuple[object, object, object] | None, dict[str, str]]:
        # One transaction: the newest commit and the catalog's pointers of the same moment.
        db.execute("BEGIN")
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone():
            return None, {}
        row = db.execute(LAST_COMMIT).fetchone()
        return row, live_locations(db) if row else {}

    row, live = read(place, newest)
    if row is None:
        raise _incomplete(root)
    snapshot = snapshot_of(place, row, settings)
    current = forms.known_locations(place, live)
    if not differ(snapshot.locations, current):
        return snapshot
    forms.expect_tables(root, snapshot.locations, current)
    return replace(snapshot, locations=current, rebuilt=_rebuilt(snapshot, current))


def _incomplete(root: Path) -> LakeError:
    from trailsift.lake.create import lost_catalog

    return lost_catalog(root) or LakeError(
        f"the lake at {root} was only partially created; run `trailsift ingest` again to complete it"
    )


def _rebuilt(snapshot: Snapshot, current: dict[str, str]) -> tuple[tuple[File, int], ...]:
    """Return the live files after another engine has committed, and the commit that added each.

    The next writer puts them into the index; until then, a commit after ours has added those that are not in it.
    """
    global _last_rebuilt
    key = (snapshot.root, snapshot.seq, tuple(sorted(current.items())))
    if _last_rebuilt is not None and _last_rebuilt[0] == key:
        return _last_rebuilt[1]
    from trailsift.lake.reindex import live_files

    by_hour = bool(snapshot.settings.get("hourly_partitions"))
    tables = schema.tables_of(hourly_partitions=by_hour, format_version=snapshot.format_version)
    found = live_files(snapshot.root, tables, current)

    def added(db: sqlite3.Connection) -> dict[tuple[str, str], int]:
        rows = db.execute("SELECT table_name, path, added FROM file WHERE removed IS NULL")
        return {(table, path): number for table, path, number in rows}

    known = read(snapshot.root, added)
    files = tuple((file, known.get((file.table, file.path), snapshot.seq + 1)) for file in found)
    _last_rebuilt = key, files
    return files
