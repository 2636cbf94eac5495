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
    "open_storage",
    "update",
]

#: A local folder, or a storage that is open already.
Location = Path | Storage


def open_storage(location: Location) -> Storage:
    """Return the storage of a location."""
    return LocalStorage(location) if isinstance(location, Path) else location
