"""`lake.json`: the settings of a lake, and the names of the files in it."""

from __future__ import annotations

import json
from pathlib import Path

from trailsift.errors import LakeError

#: Version of everything on disk; a lake with a larger one is refused.
FORMAT_VERSION = 1


LAKE_FILE = "lake.json"
CATALOG_FILE = "catalog.db"
#: Iceberg namespace and catalog name of our tables.
NAMESPACE = "trailsift"


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


LOCK_FILE = ".lock"


MARKER_FILE = ".writing"


def check_location(root: Path, settings: dict[str, object]) -> None:
    """Raise LakeError if the lake is not where it was made, or last relocated to."""
    home = settings.get("location")
    if home != str(root.resolve()):
        raise LakeError(
            f"the lake at {root.resolve()} was made at {home}: Iceberg metadata holds absolute paths. "
            f"Move it back, or run `trailsift relocate --lake {root}`"
        )
