"""A log object, wherever it comes from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class LogObject:
    """One file to read. ``version`` tells this content from a later one of the same name; ``size`` is in bytes."""

    name: str
    path: str
    version: str
    size: int
    #: Minute of delivery (UTC), of the file's time where the name does not tell it.
    delivered_at: datetime

    @property
    def delivered_on(self) -> str:
        """Day of delivery (UTC), ISO 8601."""
        return self.delivered_at.isoformat()[:10]
