"""What every query engine can do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from trailsift.lake.index import Snapshot


class Engine(Protocol):
    """What a question needs of an engine: trusted SQL over the lake's tables."""

    @property
    def snapshot(self) -> Snapshot:
        """The state of the lake that is asked."""

    def sql(self, sql: str, parameters: Any = None) -> Any:
        """Runs one statement; its result has ``rows()``."""
