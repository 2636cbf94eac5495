"""Bytes by path, wherever they are: the lake's files, the findings' state and cached answers go through here.

``LocalStorage`` is a folder; ``trailsift.storage.memory`` has a twin in memory for tests.
"""

from __future__ import annotations

from pathlib import Path

from trailsift.storage.base import Storage, StoredObject, check_path, update
from trailsift.storage.local import LocalStorage

__all__ = [
    "LocalStorage",
    "Location",
    "Storage",
    "StoredObject",
    "check_path",
    "folder_storage",
    "open_storage",
    "register",
    "update",
]

#: A local folder, or a storage that is open already.
Location = Path | Storage

#: Folders that are copies of what is kept elsewhere, and the storages that know where.
_registered: dict[Path, LocalStorage] = {}


def register(folder: Path, storage: LocalStorage) -> None:
    """Have ``folder_storage`` return ``storage`` for a folder."""
    _registered[folder] = storage


def folder_storage(folder: Path) -> LocalStorage:
    """Return the storage of a local folder, or of what the folder is a copy of."""
    return _registered.get(folder) or LocalStorage(folder)


def open_storage(location: Location) -> Storage:
    """Return the storage of a location."""
    return folder_storage(location) if isinstance(location, Path) else location
