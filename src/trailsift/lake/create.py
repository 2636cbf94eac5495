"""The folder of a new lake."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from trailsift.errors import ConflictError, LakeError
from trailsift.lake.disk import write_errors
from trailsift.lake.settings import CATALOG_FILE, LAKE_FILE, LOCK_FILE, MARKER_FILE
from trailsift.schema import FORMAT_VERSION, TABLES
from trailsift.storage import folder_storage
from trailsift.storage.local import LOCK_FILE as STORAGE_LOCK_FILE

#: Files of a lake whose creation was interrupted, and the beginning of the names of partial settings files.
_OURS = (LOCK_FILE, MARKER_FILE, CATALOG_FILE, STORAGE_LOCK_FILE)
_PARTIAL = f".{LAKE_FILE}."


def make_folder(root: Path, *, hourly_partitions: bool, group_readable: bool = False) -> None:
    """Make the folder of a new lake, with its settings. LakeError if it holds something else.

    It is private, whatever the umask says: logs hold addresses, names and request parameters. ``group_readable``: the
    group of the folder may read it too. Everything in the lake gets the permissions of its folder.
    """
    storage = folder_storage(root)
    if root.is_dir() and any(path.name not in _OURS and not path.name.startswith(_PARTIAL) for path in root.iterdir()):
        if storage.exists(LAKE_FILE):
            # Another writer has just made it.
            return
        raise LakeError(f"{root} is not empty and holds no lake: name an empty or a new folder")
    check_root(root)
    with write_errors(root):
        root.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            root.mkdir(0o700)
        # An empty folder that was there already becomes private as well.
        root.chmod(root.stat().st_mode & 0o7000 | (0o750 if group_readable else 0o700))
        here = str(root.resolve())
        settings = new_settings(here, hourly_partitions=hourly_partitions, group_readable=group_readable)
        with suppress(ConflictError):  # another writer was first
            storage.put_if_match(LAKE_FILE, settings_text(settings), None)
        storage.tidy()


def lost_catalog(root: Path) -> LakeError | None:
    """Return the error for a lake with commits, whose catalog is missing or empty; None if nothing was ever committed.

    A new catalog would be a second history, whose first writer removes the data of the first: no commit names it.
    """
    # Creation makes the metadata of each table numbered 00000; each commit adds the next.
    storage = folder_storage(root)
    metadata = (path for table in TABLES for path in storage.paths(f"{table}/metadata"))
    if all("/metadata/00000-" in path for path in metadata if path.endswith(".metadata.json")):
        return None
    return LakeError(
        f"{root / CATALOG_FILE} is lost, but the lake holds data: restore the file from a copy of the lake, or ingest "
        "the logs into a new one"
    )


def new_settings(place: str, *, hourly_partitions: bool, group_readable: bool) -> dict[str, object]:
    """Return the settings of a new lake at ``place``: its folder, or its URL in S3."""
    return {
        "format": "trailsift-lake",
        "format_version": FORMAT_VERSION,
        "catalog": {"type": "sql", "file": CATALOG_FILE},
        "hourly_partitions": hourly_partitions,
        "group_readable": group_readable,
        "location": place,
    }


def check_root(root: Path | str) -> None:
    """Raise LakeError if Iceberg cannot have a lake at ``root``: some characters mean something else in a location."""
    if set("%?#") & set(str(root)):
        raise LakeError(f"{root}: the characters %, ? and # cannot stand in the path of a lake; choose another")


def settings_text(settings: dict[str, object]) -> bytes:
    """Return the bytes of ``lake.json``."""
    return (json.dumps(settings, indent=2) + "\n").encode()
