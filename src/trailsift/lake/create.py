"""The folder of a new lake."""

from __future__ import annotations

import json
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from trailsift.errors import LakeError
from trailsift.lake import disk as durable
from trailsift.lake.disk import cannot_write
from trailsift.lake.settings import CATALOG_FILE, FORMAT_VERSION, LAKE_FILE, LOCK_FILE, MARKER_FILE

if TYPE_CHECKING:
    pass

#: What ``lake.json`` is called until it is whole.
_PARTIAL = f".{LAKE_FILE}."


#: A file of that age that was to become lake.json never will.
_LEFT_SECONDS = 3600


def make_folder(root: Path, *, hourly_partitions: bool) -> None:
    """The folder of a new lake, with its settings."""
    mine = (LOCK_FILE, MARKER_FILE, CATALOG_FILE)
    if root.is_dir() and any(path.name not in mine and not path.name.startswith(_PARTIAL) for path in root.iterdir()):
        if (root / LAKE_FILE).exists():
            # Made by another writer, this moment.
            return
        raise LakeError(f"{root} is not empty and holds no lake: name an empty or a new folder")
    if set("%?#") & set(str(root)):
        raise LakeError(f"{root}: the characters %, ? and # cannot stand in the path of a lake; choose another")
    try:
        root.mkdir(parents=True, exist_ok=True)
        settings = {
            "format": "trailsift-lake",
            "format_version": FORMAT_VERSION,
            "catalog": {"type": "sql", "file": CATALOG_FILE},
            "hourly_partitions": hourly_partitions,
            "location": str(root.resolve()),
        }
        partial = root / f"{_PARTIAL}{uuid.uuid4().hex}"
        partial.write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
        durable.flush([partial], root)
        _put(partial, root / LAKE_FILE)
        for path in root.glob(f"{_PARTIAL}*"):
            # What a crash left, not what another writer is making now.
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > _LEFT_SECONDS:
                    path.unlink()
    except OSError as error:
        raise cannot_write(root, error) from error


def _put(partial: Path, target: Path) -> None:
    """Gives a finished file its name, unless another writer was first."""
    try:
        os.link(partial, target)
    except FileExistsError:
        pass
    except OSError:
        # A file system without hard links.
        partial.replace(target)
    partial.unlink(missing_ok=True)
