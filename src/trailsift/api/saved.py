"""Queries that are kept in the lake under names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from pathlib import Path

    from trailsift.analysis.saved_queries import SavedQuery


class SavedQueryMethods(Handle):
    """Methods on the queries that the lake keeps."""

    def saved_queries(self) -> list[SavedQuery]:
        """Return the saved queries by name, 1,000 at most. One that cannot be read has a ``problem``.

        Example:
            >>> _ = lake.save_query("denied", "SELECT sum(denied) FROM access")
            >>> [saved.name for saved in lake.saved_queries()]
            ['denied']
        """
        from trailsift.analysis.saved_queries import saved_queries

        return saved_queries(self._opened())

    def saved_query(self, name: str) -> SavedQuery:
        """Return a saved query. ``lake.query("@NAME")`` runs it.

        Args:
            name: Its name, with or without ``@``.

        Raises:
            UsageError: There is none of that name; the message has the nearest.

        Example:
            >>> _ = lake.save_query("denied", "SELECT sum(denied) FROM access", replace=True)
            >>> lake.saved_query("denied").sql
            'SELECT sum(denied) FROM access'
        """
        from trailsift.analysis.saved_queries import saved_query

        return saved_query(self._opened(), name)

    def save_query(self, name: str, sql: str, *, replace: bool = False) -> SavedQuery:
        """Keep a query in the lake, for everybody who uses it.

        Args:
            name: Up to 64 letters a-z, digits, ``-`` and ``_``.
            sql: A statement that can run: it is checked, and not run.
            replace: Replace a query of that name.

        Raises:
            QueryError: The SQL cannot run.
            UsageError: The name cannot be one, or is taken.

        Example:
            >>> lake.save_query("busy", "SELECT caller, sum(events) FROM hourly GROUP BY 1").name
            'busy'
        """
        from trailsift.analysis.saved_queries import check_name, save_query

        check_name(name)
        self._engine(self.timezone).plan(sql)
        return save_query(self._root(), name, sql, replace=replace)

    def delete_query(self, name: str) -> None:
        """Delete a saved query.

        Args:
            name: Its name, with or without ``@``.

        Raises:
            UsageError: There is none of that name.

        Example:
            >>> _ = lake.save_query("for-today", "SELECT 1")
            >>> lake.delete_query("for-today")
        """
        from trailsift.analysis.saved_queries import delete_query

        delete_query(self._opened(), name)

    def _opened(self) -> Path:
        """Return the folder of the lake, after a look at whether it is one."""
        from trailsift.lake.open import open_snapshot

        root = self._root()
        open_snapshot(root)
        return root
