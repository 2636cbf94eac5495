"""The result of a statement: its columns, and its rows as they stream in."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import tzinfo
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

from trailsift.query.types import ColumnType, Row, converted, decoder, unique_names

if TYPE_CHECKING:
    import pyarrow

    from trailsift.query.planner import Plan


class RowSource(Protocol):
    """Where a result reads from; each call of ``rows`` or ``arrow`` runs the statement."""

    def plan(self) -> Plan: ...

    def rows(self) -> tuple[Plan, Iterator[list[Row]]]: ...

    def arrow(self) -> tuple[Plan, pyarrow.RecordBatchReader]: ...


class Result:
    """The result of one statement.

    Up to 10,000 rows are held in memory and can be read any number of times. A larger result streams: reading it
    again runs the statement again, on the same snapshot.

    ``columns``: (name, DuckDB type). ``snapshot_seq``: the snapshot that was read. ``seconds``: from the call to
    the last row read so far. ``from_cache``: the rows came from disk. ``count``: number of rows, once all are read.
    """

    def __init__(
        self, columns: list[ColumnType], zone: tzinfo, timezone: str, snapshot_seq: int, begun: float, source: RowSource
    ) -> None:
        self.columns = columns
        self.zone = zone
        self.timezone = timezone
        self.snapshot_seq = snapshot_seq
        self.seconds = 0.0
        self.from_cache = False
        self.count: int | None = None
        self._begun = begun
        self._source = source
        self._plan: Plan | None = None
        self._held: list[Row] | None = None
        self._begin: list[Row] | None = None
        self._rest: Iterator[list[Row]] | None = None
        self._arrow: pyarrow.RecordBatchReader | None = None

    @property
    def names(self) -> list[str]:
        """Column names; repeated ones are numbered."""
        return unique_names(self.columns)

    @property
    def plan(self) -> Plan:
        """The scans of the statement, and the files that they read."""
        if self._plan is None:
            self._plan = self._source.plan()
        return self._plan

    def fetched(self) -> Iterator[list[Row]]:
        """Yield the rows as they were fetched (see ``types``), up to 10,000 at a time."""
        if self._held is not None:
            yield self._held
            return
        if self._begin is None:
            self.open()
            if self._held is not None:
                yield self._held
                return
        first, rest = self._begin, self._rest
        self._begin = self._rest = None
        count = 0
        for rows in self._chained(first, rest):
            count += len(rows)
            yield rows
        self.count = count

    def rows(self) -> list[Row]:
        """Return all rows as Python values: times as aware datetimes in the engine's zone, dates, Decimals, bytes;
        intervals, UUIDs and times of day as text; structs and maps as dicts."""
        decoders = [decoder(kind, self.zone) for _, kind in self.columns]
        return [row for rows in converted(self.fetched(), decoders) for row in rows]

    def dicts(self) -> list[dict[str, Any]]:
        """Return all rows as dicts by column name."""
        names = self.names
        return [dict(zip(names, row, strict=True)) for row in self.rows()]

    def value(self) -> Any:
        """Return the first column of the first row; None if there is no row."""
        rows = self.rows()
        return rows[0][0] if rows else None

    def batches(self) -> pyarrow.RecordBatchReader:
        """Return the rows as the Arrow record batches that DuckDB makes (HUGEINT becomes decimal128(38, 0))."""
        if self._arrow is None:
            self.open_arrow()
        reader, self._arrow = self._arrow, None
        assert reader is not None
        return reader

    def arrow(self) -> pyarrow.Table:
        """Return all rows as one Arrow table."""
        return self.batches().read_all()

    def open(self) -> None:
        """Run the statement up to its first rows; errors in the SQL are raised here."""
        self._plan, chunks = self._source.rows()
        first = next(chunks, [])
        second = next(chunks, None)
        if second is None:
            self.hold(first)
        else:
            self._begin, self._rest = first, self._chained(second, chunks)
        self.seconds = perf_counter() - self._begun

    def open_arrow(self) -> None:
        """Run the statement for Arrow; errors in the SQL are raised here."""
        self._plan, self._arrow = self._source.arrow()
        self.seconds = perf_counter() - self._begun

    def hold(self, rows: list[Row], *, from_cache: bool = False) -> None:
        """Make ``rows`` the complete result."""
        self._held, self.count, self.from_cache = rows, len(rows), from_cache
        self.seconds = perf_counter() - self._begun

    def _chained(self, first: list[Row] | None, rest: Iterator[list[Row]] | None) -> Iterator[list[Row]]:
        yield first or []
        yield from rest or ()
        self.seconds = perf_counter() - self._begun
