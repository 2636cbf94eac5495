"""Rebuild the read index from the Iceberg tables, after another engine has committed to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from trailsift import schema
from trailsift.lake import digest, forms, index
from trailsift.lake.index import File
from trailsift.times import DAY, now_text


def catch_up(root: Path, tables: Mapping[str, schema.Table]) -> None:
    """Read every table's live files from its manifests and write them as another entry of the commit log.

    Only under the lock. Does nothing if the index is not stale.
    """
    with closing(index.connect(root)) as db:
        if not index.is_stale(db):
            return
    with closing(index.connect(root)) as db:
        locations = forms.known_locations(root, index.live_locations(db))
    files = live_files(root, tables, locations)
    with closing(index.connect(root)) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            seq = index.next_number(db)
            before = {
                (table, path) for table, path in db.execute("SELECT table_name, path FROM file WHERE removed IS NULL")
            }
            after = {(file.table, file.path) for file in files}
            added = [file for file in files if (file.table, file.path) not in before]
            removed = sorted(before - after)
            index.record_files(db, seq, added, removed)
            db.execute(
                "INSERT INTO commit_log VALUES (?, ?, 'rebuild', '{}', ?)", (seq, now_text(), json.dumps(locations))
            )
            # The digests of the files themselves are added by the next compaction.
            digest.seal(db, seq, {}, [file.path for file in added] + [path for _, path in removed])
            index.commit(root, db)
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def live_files(root: Path, tables: Mapping[str, schema.Table], locations: Mapping[str, str]) -> list[File]:
    """Return the live files of the tables whose current metadata is at ``locations``.

    LakeError if it cannot be read, or names a file outside of its table's folder.
    """
    from trailsift.lake.file_io import metadata_errors
    from trailsift.lake.iceberg import LakeReader

    reader = LakeReader(root)
    forms.expect_tables(root, tables, locations)
    files = []
    for name, table in tables.items():
        found, columns = reader.live_files(name, locations[name])
        with metadata_errors(root, name):
            files += [_file(root, table, file, columns) for file in found]
    for name in tables:
        forms.check_files(name, [file for file in files if file.table == name])
    return files


def _file(root: Path, table: schema.Table, file: Any, columns: Any) -> File:
    path = forms.data_location(root, table.name, file.file_path)
    low, high = _bounds(file, columns, table.time)
    scale = DAY if table.column(table.time).type == "date" else 1
    low_time = 0 if low is None else int(low) * scale
    high_time = (1 << 62) if high is None else int(high) * scale + (scale - 1)
    return File(table.name, path, file.record_count, file.file_size_in_bytes, low_time, high_time)


def _bounds(file: Any, columns: Any, name: str) -> tuple[Any, Any]:
    """Return a column's lower and upper bound in the manifest; None for a missing one."""
    from pyiceberg.conversions import from_bytes

    field = columns.find_field(name)
    low = (file.lower_bounds or {}).get(field.field_id)
    high = (file.upper_bounds or {}).get(field.field_id)
    return (
        None if low is None else from_bytes(field.field_type, low),
        None if high is None else from_bytes(field.field_type, high),
    )
