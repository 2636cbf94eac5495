"""Rebuild the read index from the Iceberg tables, after another engine has committed to them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trailsift import schema
from trailsift.errors import LakeError
from trailsift.lake import digest, index, settings
from trailsift.lake.index import File
from trailsift.times import DAY, now_text

if TYPE_CHECKING:
    from trailsift.lake.iceberg import LakeCatalog


def catch_up(root: Path, tables: Mapping[str, schema.Table], catalog: LakeCatalog) -> None:
    """Read every table's live files from its manifests and write them as another entry of the commit log.

    Only under the lock. Does nothing if the index is not stale.
    """
    with closing(index.connect(root)) as db:
        if not index.is_stale(db):
            return
    files: list[File] = []
    locations: dict[str, str] = {}
    for name, table in tables.items():
        loaded = catalog.load_table((settings.NAMESPACE, name))
        locations[name] = loaded.metadata_location
        files += [_file(root, table, task.file, loaded.schema()) for task in loaded.scan().plan_files()]
    with closing(index.connect(root)) as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            seq = int(db.execute("SELECT max(seq) FROM commit_log").fetchone()[0]) + 1
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
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


def _file(root: Path, table: schema.Table, file: Any, columns: Any) -> File:
    path = file.file_path.removeprefix("file://")
    try:
        relative = str(Path(path).relative_to(root))
    except ValueError:
        raise LakeError(f"{path} belongs to the table {table.name} but lies outside the lake {root}") from None
    low, high = _bounds(file, columns, table.time)
    scale = DAY if table.column(table.time).type == "date" else 1
    low_time = 0 if low is None else int(low) * scale
    high_time = (1 << 62) if high is None else int(high) * scale + (scale - 1)
    return File(table.name, relative, file.record_count, file.file_size_in_bytes, low_time, high_time)


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
