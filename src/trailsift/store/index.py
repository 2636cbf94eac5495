"""The read index: which files make up each table, for planning in milliseconds.

Iceberg is the truth; this index sits beside it in the lake's SQLite file, is changed in the same transaction as
the catalog's pointers, and remembers the metadata location it was made from. A reader that finds another location
(another engine has committed) asks for a rebuild and never trusts the index as it is.

Nothing here imports PyIceberg, pyarrow or DuckDB: a cold query must not pay for them.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from trailsift.errors import LakeError

#: Version of everything on disk; a lake with a larger one is refused.
FORMAT_VERSION = 1
LAKE_FILE = "lake.json"
CATALOG_FILE = "catalog.db"
#: Iceberg namespace and catalog name of our tables.
NAMESPACE = "trailsift"

SCHEMA = """
CREATE TABLE IF NOT EXISTS commit_log (
    seq INTEGER PRIMARY KEY,
    committed_at TEXT NOT NULL,
    kind TEXT NOT NULL,
    counts TEXT NOT NULL,
    locations TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS file (
    table_name TEXT NOT NULL,
    path TEXT NOT NULL,
    rows INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    min_time INTEGER NOT NULL,
    max_time INTEGER NOT NULL,
    service TEXT,
    min_role TEXT,
    max_role TEXT,
    added INTEGER NOT NULL,
    removed INTEGER,
    PRIMARY KEY (table_name, path)
);
CREATE INDEX IF NOT EXISTS file_time ON file (table_name, removed, min_time, max_time);
"""


@dataclass(frozen=True, slots=True)
class File:
    """One live Parquet file. ``path`` is relative to the lake; times are microseconds since 1970 (UTC)."""

    table: str
    path: str
    rows: int
    bytes: int
    min_time: int
    max_time: int
    service: str | None = None
    min_role: str | None = None
    max_role: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a query can exclude without opening a file: None means no limit.

    Times are microseconds since 1970 (UTC), both ends included. ``services`` and ``roles`` are exact values.
    """

    min_time: int | None = None
    max_time: int | None = None
    services: frozenset[str] | None = None
    roles: frozenset[str] | None = None


EVERYTHING = Wanted()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One committed state of the lake: all readers of it see the same rows."""

    root: Path
    seq: int
    committed_at: str
    locations: dict[str, str] = field(hash=False)
    settings: dict[str, object] = field(hash=False)

    def files(self, table: str, wanted: Wanted = EVERYTHING) -> list[File]:
        """The live files of ``table`` that may hold a wanted row, in order of time."""
        sql = [
            "SELECT table_name, path, rows, bytes, min_time, max_time, service, min_role, max_role FROM file",
            "WHERE table_name = ? AND added <= ? AND (removed IS NULL OR removed > ?)",
        ]
        values: list[object] = [table, self.seq, self.seq]
        if wanted.min_time is not None:
            sql.append("AND max_time >= ?")
            values.append(wanted.min_time)
        if wanted.max_time is not None:
            sql.append("AND min_time <= ?")
            values.append(wanted.max_time)
        if wanted.services is not None:
            marks = ",".join("?" * len(wanted.services))
            sql.append(f"AND (service IS NULL OR service IN ({marks}))")
            values.extend(sorted(wanted.services))
        sql.append("ORDER BY min_time, path")
        with closing(connect(self.root)) as db:
            files = [File(*row) for row in db.execute(" ".join(sql), values)]
        if wanted.roles is None:
            return files
        return [f for f in files if _may_hold_role(f, wanted.roles)]


def _may_hold_role(file: File, roles: Iterable[str]) -> bool:
    if file.min_role is None or file.max_role is None:
        return True
    return any(file.min_role <= role <= file.max_role for role in roles)


def connect(root: Path) -> sqlite3.Connection:
    """A connection to the lake's SQLite file. Writers wait up to a minute for each other."""
    return sqlite3.connect(root / CATALOG_FILE, timeout=60, isolation_level=None)


def read_settings(root: Path) -> dict[str, object]:
    """``lake.json`` of the lake at ``root``. LakeError where there is no lake, or one that cannot be read here."""
    path = root / LAKE_FILE
    try:
        settings = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise LakeError(
            f"there is no lake at {root}: {LAKE_FILE} is missing. `trailsift ingest PATH --lake {root}` makes one"
        ) from None
    except NotADirectoryError:
        raise LakeError(f"{root} is a file, not a lake") from None
    except (OSError, ValueError) as error:
        raise LakeError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != "trailsift-lake":
        raise LakeError(f"{path} is not the settings file of a trailsift lake")
    version = settings.get("format_version")
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise LakeError(
            f"the lake at {root} has format version {version}; this trailsift reads up to {FORMAT_VERSION}: upgrade it"
        )
    return settings


def open_snapshot(root: Path) -> Snapshot:
    """The newest committed state. LakeError where there is no lake, or it was moved."""
    settings = read_settings(root)
    home = settings.get("location")
    if home != str(root.resolve()):
        raise LakeError(
            f"the lake at {root.resolve()} was made at {home}: Iceberg metadata holds absolute paths. "
            f"Move it back, or run `trailsift relocate --lake {root}`"
        )
    unmade = LakeError(f"the lake at {root} was never finished being made: run `trailsift ingest` into it once more")
    if not (root / CATALOG_FILE).exists():
        raise unmade
    with closing(connect(root)) as db:
        try:
            # One transaction: the newest commit and the catalog's pointers of the same moment.
            db.execute("BEGIN")
            if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'commit_log'").fetchone():
                raise unmade
            row = db.execute("SELECT seq, committed_at, locations FROM commit_log ORDER BY seq DESC LIMIT 1").fetchone()
            live = live_locations(db) if row else {}
        except sqlite3.DatabaseError as error:
            raise LakeError(f"the catalog {root / CATALOG_FILE} cannot be read: {error}") from error
    if row is None:
        raise unmade
    locations: dict[str, str] = json.loads(row[2])
    if any(live.get(name) != location for name, location in locations.items()):
        # Another engine wrote through the catalog: the index no longer describes the tables.
        from trailsift.store.rebuild import rebuild_index

        rebuild_index(root)
        return open_snapshot(root)
    return Snapshot(root.resolve(), row[0], row[1], locations, settings)


def live_locations(db: sqlite3.Connection) -> dict[str, str]:
    """Where the catalog's tables have their current metadata."""
    sql = "SELECT table_name, metadata_location FROM iceberg_tables WHERE table_namespace = ?"
    return dict(db.execute(sql, (NAMESPACE,)))


def record_files(
    db: sqlite3.Connection, seq: int, added: Sequence[File], removed: Sequence[tuple[str, str]] = ()
) -> None:
    """Writes a commit's file changes; called inside the commit's transaction."""
    gone = [(seq, table, path) for table, path in removed]
    db.executemany("UPDATE file SET removed = ? WHERE table_name = ? AND path = ?", gone)
    db.executemany(
        "INSERT INTO file VALUES (?,?,?,?,?,?,?,?,?,?,NULL)",
        [
            (f.table, f.path, f.rows, f.bytes, f.min_time, f.max_time, f.service, f.min_role, f.max_role, seq)
            for f in added
        ],
    )
