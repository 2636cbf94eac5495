"""Log objects in memory: a twin of the remote sources, for tests and for callers that hold the bytes already."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from trailsift.errors import SourceError
from trailsift.sources.base import LogObject, delivery_minute


@dataclass(frozen=True, slots=True)
class _BytesReader:
    """Carries one object's bytes to the worker process."""

    data: bytes

    def open(self, log_object: LogObject) -> BinaryIO:
        """Return the bytes as a file."""
        return io.BytesIO(self.data)


class MemorySource:
    """Log objects by name, each with its bytes as CloudTrail delivers them (gzip or plain)."""

    def __init__(self, objects: Mapping[str, bytes]) -> None:
        self._objects = dict(objects)

    def __str__(self) -> str:
        return f"{len(self._objects)} log objects in memory"

    def find(self) -> list[LogObject]:
        """Return the log objects in order of delivery. Raise SourceError if there is none."""
        if not self._objects:
            raise SourceError("no log objects in memory")
        now = datetime.now(UTC).replace(second=0, microsecond=0)
        log_objects = [
            LogObject(
                name=name,
                path="",
                version=hashlib.sha256(data).hexdigest(),
                size=len(data),
                delivered_at=delivery_minute(name) or now,
                reader=_BytesReader(data),
            )
            for name, data in self._objects.items()
        ]
        return sorted(log_objects, key=lambda item: (item.delivered_at, item.name))

    def release(self) -> None:
        """Nothing is on the disk."""
