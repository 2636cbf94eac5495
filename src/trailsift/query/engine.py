"""The protocol that every query engine implements.

``DuckDBEngine`` reads the files of a local lake; ``Athena`` queries the same tables in AWS. An engine takes one
read-only statement in our SQL (DuckDB's dialect) and returns a ``Result``; ``tests/query/test_engines.py`` holds all
of them to the same answers.
"""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

if TYPE_CHECKING:
    from trailsift.lake.index import Snapshot
    from trailsift.query.result import Result


class QueryEngine(Protocol):
    """Runs SQL over the tables of ``schema.TABLES`` and the views over them."""

    @property
    def timezone(self) -> str:
        """The zone of times without an offset, and of times in results."""

    def query(self, sql: str) -> Result:
        """Run a user's statement. Raise QueryError if the SQL is wrong, EngineError if the engine fails."""

    def sql(self, sql: str, parameters: Any = None) -> Result:
        """Run a statement of this package, with values for its parameters."""

    def explain(self, sql: str) -> object:
        """Return what ``sql`` would read and cost, without running it; ``str()`` of it is for people."""

    def close(self) -> None:
        """Free what the engine holds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Engine(QueryEngine, Protocol):
    """A query engine over one snapshot of a local lake."""

    @property
    def snapshot(self) -> Snapshot:
        """The state of the lake that is read."""
