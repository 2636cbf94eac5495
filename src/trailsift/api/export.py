"""Give the lake's records and tables to others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from trailsift.api.handle import Handle

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import IO, Literal, TextIO

    from trailsift.analysis.export import Skipped
    from trailsift.api.handle import StrPath
    from trailsift.lake.glue_setting import Target
    from trailsift.lake.register import Registered
    from trailsift.query.query_result import QueryResult


class ExportMethods(Handle):
    """Methods that hand out records and tables."""

    def records(
        self, where: str | None = None, *, on_skipped: Callable[[Skipped], None] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Return the stored records as CloudTrail wrote them, one after the other.

        Args:
            where: An SQL condition on the columns of events.
            on_skipped: Called with each event that cannot be restored, and is left out.

        Raises:
            QueryError: The condition cannot run.

        Example:
            >>> next(lake.records("event_name = 'PutObject'"))["eventName"]
            'PutObject'
        """
        from trailsift.analysis.export import records

        return records(self._engine(), where, on_skipped)

    def export(
        self,
        target: StrPath | IO[Any],
        *,
        where: str | None = None,
        form: Literal["ndjson", "records", "parquet", "csv"] = "ndjson",
        on_skipped: Callable[[Skipped], None] | None = None,
    ) -> int:
        """Write the stored records as CloudTrail wrote them, or the rows of ``events`` as Parquet or CSV.

        Args:
            target: A file, which appears only when it is complete, or a stream (a binary one for parquet).
            where: An SQL condition on the columns of events.
            form: ``ndjson``: one record per line; ``records``: one document as in a log file; ``parquet`` and ``csv``:
                all columns of ``events``, with their types in Parquet.
            on_skipped: Called with each event that cannot be restored, and is left out.

        Returns:
            The number of records or rows.

        Raises:
            QueryError: The condition cannot run.

        Example:
            >>> lake.export("everything.ndjson")
            2000
        """
        from trailsift.analysis.export import export
        from trailsift.storage.output_file import new_file

        if form in ("parquet", "csv"):
            return self.event_rows(where, arrow=form == "parquet").write(target, form)
        engine = self._engine()
        if isinstance(target, str | os.PathLike):
            with new_file(Path(target), "w", encoding="utf-8", newline="\n") as out:
                return export(engine, out, where, form, on_skipped)
        return export(engine, cast("TextIO", target), where, form, on_skipped)

    def event_rows(self, where: str | None = None, *, arrow: bool = False) -> QueryResult:
        """Return the rows of ``events``, with all columns.

        Args:
            where: An SQL condition on the columns of events.
            arrow: They will be read as Arrow or written as Parquet (saves running the statement twice).

        Raises:
            QueryError: The condition cannot run.

        Example:
            >>> lake.event_rows("event_name = 'PutObject'").names[:2]
            ['event_time', 'event_id']
        """
        from trailsift.analysis.export import rows
        from trailsift.query.query_result import QueryResult

        engine = self._engine(self.timezone)
        return QueryResult(rows(engine, where, arrow=arrow), engine)

    def omitted_columns(self) -> tuple[str, ...]:
        """Return the columns that rules have left empty in some events: their export is not lossless.

        Example:
            >>> lake.omitted_columns()
            ()
        """
        from trailsift.analysis.status import omitted

        return omitted(self._engine().snapshot.root)

    def connect_script(self) -> str:
        """Return SQL that gives any DuckDB client the tables of the newest commit as views.

        Example:
            >>> "CREATE OR REPLACE VIEW events" in lake.connect_script()
            True
        """
        from trailsift.lake.open import open_snapshot
        from trailsift.query.connect import script

        return script(open_snapshot(self._root()))

    def connect_database(self, target: StrPath) -> None:
        """Write a DuckDB database that has the tables of the newest commit as views.

        Args:
            target: The database file; an existing one is replaced.

        Raises:
            EngineError: It cannot be written.

        Example:
            >>> lake.connect_database("lake.duckdb")
        """
        from trailsift.lake.open import open_snapshot
        from trailsift.query.connect import write_database

        write_database(Path(target), open_snapshot(self._root()))

    def commits(self, every: float = 1.0) -> Iterator[int]:
        """Yield the number of the newest commit, and again after each commit, forever.

        Args:
            every: Seconds between two looks.

        Example:
            >>> next(lake.commits()) > 0
            True
        """
        import time

        from trailsift.lake.open import open_snapshot

        seen: object = None
        while True:
            snapshot = open_snapshot(self._root())
            state = (snapshot.seq, snapshot.locations)
            if state != seen:
                seen = state
                yield snapshot.seq
            time.sleep(every)

    def register(
        self, database: str, *, region: str | None = None, catalog_id: str | None = None, replace: bool = False
    ) -> Registered:
        """Register the tables of a lake in S3 in a Glue database, for Athena, Spark and Trino, and keep that up.

        From now on each commit moves the tables' pointers in Glue. Only this makes tables there.

        Args:
            database: A Glue database that exists.
            region: Its region. Default: that of the environment.
            catalog_id: The account that it is in, if it is another one.
            replace: Also take back tables of this lake that another engine has changed.

        Raises:
            GlueError: There is no such database, it has tables of these names that are not of this lake, or Glue
                refuses.
            UsageError: The lake is in a folder, or a name cannot be one.

        Example:
            >>> lake.register("cloudtrail", region="eu-west-1")
            Traceback (most recent call last):
            trailsift.errors.UsageError: ...
        """
        from trailsift.lake.glue_setting import target_of
        from trailsift.lake.register import check_place, register

        check_place(self.path)
        return register(self._root("write"), target_of(database, region, catalog_id), replace=replace)

    def unregister(self) -> Target | None:
        """Move no pointers in Glue any longer; return the database that followed the lake, None if none did.

        The tables stay in Glue as they are, and queries through them fail once the lake has replaced what they name.

        Raises:
            UsageError: The lake is in a folder.

        Example:
            >>> lake.unregister()
            Traceback (most recent call last):
            trailsift.errors.UsageError: ...
        """
        from trailsift.lake.register import check_place, unregister

        check_place(self.path)
        return unregister(self._root("write"))

    def registration(self) -> Target | None:
        """Return the Glue database that follows the lake; None if none does.

        Raises:
            LakeError: The setting is not valid.

        Example:
            >>> lake.registration() is None
            True
        """
        from trailsift.lake.register import registration

        return registration(self._root("write"))
