"""`lake.json`: the settings of a lake, and the names of the files in it."""

from __future__ import annotations

import json
from pathlib import Path

from trailsift.errors import LakeError
from trailsift.lake.home import home
from trailsift.safe_text import quoted
from trailsift.schema import FORMAT_VERSION
from trailsift.storage import LocalStorage

LAKE_FILE = "lake.json"
CATALOG_FILE = "catalog.db"
#: The write lock, and the marker of a writer at work.
LOCK_FILE = ".lock"
MARKER_FILE = ".writing"
#: The largest settings file that is read, in bytes.
MAX_SETTINGS = 1 << 20
_CATALOG = {"type": "sql", "file": CATALOG_FILE}
#: Settings that change what is read: their type, in Python and in words.
_SETTINGS = {
    "location": (str, "the path of the lake"),
    "hourly_partitions": (bool, "true or false"),
    "group_readable": (bool, "true or false"),
}
#: All settings that there are.
KNOWN_SETTINGS = frozenset(
    {*_SETTINGS, "format", "format_version", "catalog", "seen_days", "budgets", "retention", "glue"}
)
#: Iceberg namespace and catalog name of our tables.
NAMESPACE = "trailsift"


def read_settings(root: Path) -> dict[str, object]:
    """Return ``lake.json`` of the lake at ``root``. LakeError if there is no lake, or one that cannot be read here."""
    path = root / LAKE_FILE
    try:
        return parse_settings(root, LocalStorage(root).read_range(LAKE_FILE, 0, MAX_SETTINGS + 1))
    except FileNotFoundError:
        if root.is_file():
            raise LakeError(f"{root} is a file, not a lake") from None
        raise LakeError(
            f"there is no lake at {root}: {LAKE_FILE} is missing. "
            f"`trailsift ingest PATH --lake {quoted(root)}` makes one"
        ) from None
    except OSError as error:
        raise LakeError(f"{path} cannot be read: {error}") from error


def parse_settings(root: Path, text: bytes) -> dict[str, object]:
    """Return the settings in the bytes of ``lake.json`` of the lake at ``root``. LakeError as for ``read_settings``."""
    path = root / LAKE_FILE
    if len(text) > MAX_SETTINGS:
        raise LakeError(f"{path} is too large for the settings of a lake")
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise LakeError(f"{path} cannot be read: {error}") from error
    if not isinstance(settings, dict) or settings.get("format") != "trailsift-lake":
        raise LakeError(f"{path} is not the settings file of a trailsift lake")
    version = settings.get("format_version")
    if type(version) is not int or not 0 < version <= FORMAT_VERSION:
        raise LakeError(
            f"the lake at {root} has format version {version}; this trailsift reads up to {FORMAT_VERSION}: upgrade it"
        )
    for name, (kind, what) in _SETTINGS.items():
        if name in settings and type(settings[name]) is not kind:
            raise LakeError(f"{name} in {path} is {settings[name]!r:.100}: it must be {what}")
    if settings.get("catalog", _CATALOG) != _CATALOG:
        raise LakeError(
            f"{path} names another catalog than {CATALOG_FILE}: trailsift keeps a lake's catalog there only"
        )
    return settings


def check_location(root: Path, settings: dict[str, object]) -> None:
    """Raise LakeError if the lake is not where it was made, or last relocated to."""
    made_at, here = settings.get("location"), home(root.resolve())
    if made_at != here:
        raise LakeError(
            f"the lake at {here} was made at {made_at}: Iceberg metadata holds absolute paths. "
            f"Move it back, or run `trailsift relocate --lake {quoted(home(root))}`"
        )
