"""The result of a query as users of the library get it: rows, Arrow, data frames, a printed or an HTML table."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeAlias

from trailsift.errors import EngineError, UsageError
from trailsift.query.formats import TABLE_ROWS, write
from trailsift.query.types import converted, writer
from trailsift.safe_text import safe

if TYPE_CHECKING:
    import pandas
    import polars
    import pyarrow

    from trailsift.query.duckdb import DuckDBEngine
    from trailsift.query.result import Result

StrPath: TypeAlias = "str | os.PathLike[str]"

#: Rows and characters per cell that a notebook shows.
HTML_ROWS = 50
HTML_CELL = 200


class QueryResult:
    """The result of one statement.

    Up to 10,000 rows are held and can be read repeatedly; a larger result streams, and reading it again runs the
    statement again. In a notebook it shows itself as a table of its first rows.

    Example:
        >>> result = lake.query("SELECT service, count(*) AS calls FROM events GROUP BY 1 ORDER BY 1 LIMIT 2")
        >>> result.names
        ['service', 'calls']
        >>> len(result.rows()), result.count
        (2, 2)
    """

    def __init__(self, result: Result, engine: DuckDBEngine | None = None) -> None:
        self._result = result
        self._engine = engine

    def __repr__(self) -> str:
        """Show the columns, and the number of rows if it is known."""
        rows = "streaming" if self.count is None else f"{self.count:,} row{'' if self.count == 1 else 's'}"
        return f"<QueryResult ({', '.join(self.names)}): {rows}>"

    @property
    def columns(self) -> list[tuple[str, str]]:
        """(name, DuckDB type) of each column."""
        return list(self._result.columns)

    @property
    def names(self) -> list[str]:
        """Column names; a repeated name is numbered."""
        return self._result.names

    @property
    def count(self) -> int | None:
        """Number of rows; None until all are read."""
        return self._result.count

    @property
    def seconds(self) -> float:
        """Time from the call to the last row read so far."""
        return self._result.seconds

    @property
    def from_cache(self) -> bool:
        """True if the rows came from the result cache."""
        return self._result.from_cache

    def rows(self) -> list[tuple[Any, ...]]:
        """Return all rows as Python values; times are aware datetimes in the lake's time zone.

        Example:
            >>> lake.query("SELECT 1 AS one, 'x' AS two").rows()
            [(1, 'x')]
        """
        return [tuple(row) for row in self._result.rows()]

    def dicts(self) -> list[dict[str, Any]]:
        """Return all rows as dicts by column name.

        Example:
            >>> lake.query("SELECT 1 AS one, 'x' AS two").dicts()
            [{'one': 1, 'two': 'x'}]
        """
        return self._result.dicts()

    def first(self, count: int) -> tuple[list[tuple[Any, ...]], bool]:
        """Return the first rows with each value as in JSON (times as text), and whether there are more.

        Args:
            count: Rows at most. No more are computed than that takes.

        Example:
            >>> lake.query("SELECT event_name FROM events").first(1)[1]
            True
        """
        writers = [writer(kind, self._result.zone) for _, kind in self._result.columns]
        found: list[tuple[Any, ...]] = []
        for rows in converted(self._result.fetched(), writers):
            found += map(tuple, rows)
            if len(found) > count:
                return found[:count], True
        return found, False

    def value(self) -> Any:
        """Return the first column of the first row; None if there are no rows.

        Example:
            >>> lake.query("SELECT count(*) FROM events").value()
            2000
        """
        return self._result.value()

    def arrow(self) -> pyarrow.Table:
        """Return all rows as an Arrow table.

        A sum of integers is a 128-bit HUGEINT in DuckDB; it becomes an int64 column if all its values fit, and a
        decimal column if not.

        Example:
            >>> lake.query("SELECT sum(events) AS events FROM hourly").arrow().to_pylist()
            [{'events': 2000}]
        """
        return _narrowed(self._result.arrow(), self.columns)

    def df(self) -> pandas.DataFrame:
        """Return all rows as a pandas data frame.

        Raises:
            UsageError: pandas is not installed.
        """
        _require("pandas", "df")
        return self.arrow().to_pandas()

    def pl(self) -> polars.DataFrame:
        """Return all rows as a Polars data frame.

        Raises:
            UsageError: Polars is not installed.
        """
        _require("polars", "pl")
        import polars

        frame = polars.from_arrow(self.arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def show(self, max_rows: int | None = TABLE_ROWS) -> None:
        """Print a table, as the command line does.

        Args:
            max_rows: Rows at most; None is all.

        Example:
            >>> lake.query("SELECT 'GetObject' AS event_name, 3 AS calls").show()
            event_name   calls
            ──────────────────
            GetObject        3
            1 row in ... (times in UTC)
        """
        self.write(sys.stdout, "table", max_rows=max_rows)

    def write(
        self,
        target: StrPath | IO[Any],
        format: str,
        *,
        max_rows: int | None = None,
        terminal: bool = False,
        formulas: bool = True,
    ) -> int:
        """Write all rows.

        Args:
            target: A file, which appears only when it is complete, or a stream (binary for parquet and arrow).
            format: table, line (a block per row), json, csv, parquet or arrow.
            max_rows: Rows of a table or of blocks at most; None is all.
            terminal: The stream is a terminal: escape control and invisible characters, in csv and json as well.
            formulas: False: write an apostrophe before texts of csv that a spreadsheet would take for a formula.

        Returns:
            The number of rows.

        Raises:
            UsageError: An unknown format, a text stream for a binary format, or a file inside a lake.

        Example:
            >>> lake.query("SELECT event_id, event_time FROM events").write("events.parquet", "parquet")
            2000
        """
        if isinstance(target, str | os.PathLike):
            from trailsift.storage.output_file import new_file

            with new_file(Path(target), "wb") as out:
                return write(self._result, format, out, max_rows=max_rows, formulas=formulas)
        return write(self._result, format, target, max_rows=max_rows, terminal=terminal, formulas=formulas)

    def why_empty(self) -> str:
        """Return why there are no rows, as far as it can be found out.

        Example:
            >>> lake.query("SELECT * FROM events WHERE event_name = 'getobject'").why_empty()
            "No event has the event_name 'getobject'; there is 'GetObject'."
        """
        if self._engine is None:
            return "nothing matched"
        from trailsift.query.empty_result import why_empty

        return why_empty(self._engine, self._result)

    def _repr_html_(self) -> str:
        """Return the first rows as an HTML table. Logs are hostile: every name and value is escaped."""
        first: list[Sequence[Any]] = []
        writers = [writer(kind, self._result.zone) for _, kind in self._result.columns]
        for rows in converted(self._result.fetched(), writers):
            first += rows
            if len(first) > HTML_ROWS:
                break
        shown = first[:HTML_ROWS]
        texts = [[_cell(value) for value in row] for row in shown]
        cut = any(len(text) > HTML_CELL for row in texts for text in row)
        head = "".join(f"<th>{_html(name)}</th>" for name in self.names)
        body = "".join("<tr>" + "".join(f"<td>{_html(text)}</td>" for text in row) + "</tr>" for row in texts)
        count = self.count
        if len(first) > len(shown):
            note = f"the first {HTML_ROWS} of {'more' if count is None else f'{count:,}'} rows"
        else:
            note = f"{len(shown):,} row{'' if len(shown) == 1 else 's'}"
        note += f"; values are cut after {HTML_CELL} characters" if cut else ""
        note += f"; times in {_html(self._result.timezone)}"
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table><p>{note}</p>"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


def _html(text: str) -> str:
    """Return text for HTML: cut, escaped, and without control, direction and invisible characters."""
    from html import escape

    cut = text if len(text) <= HTML_CELL else text[:HTML_CELL] + "…"
    return escape(safe(cut))


def _narrowed(table: pyarrow.Table, columns: list[tuple[str, str]]) -> pyarrow.Table:
    """Return the table with its 128-bit integers as int64, if all values of a column fit."""
    import pyarrow
    import pyarrow.compute

    for place, (name, kind) in enumerate(columns):
        if kind == "UHUGEINT":
            # DuckDB hands these over as signed numbers: the largest half would come out negative.
            lowest = pyarrow.compute.min(table.column(place)).as_py()
            if lowest is not None and lowest < 0:
                raise EngineError(f"the column {name} has numbers of 2^127 and more: cast it to VARCHAR or DOUBLE")
        if kind in ("HUGEINT", "UHUGEINT"):
            with contextlib.suppress(pyarrow.ArrowInvalid):
                table = table.set_column(place, name, table.column(place).cast(pyarrow.int64()))
    return table


def _require(package: str, method: str) -> None:
    from importlib.util import find_spec

    if package not in sys.modules and find_spec(package) is None:
        raise UsageError(f"{method}() needs {package}, which is not installed: pip install {package}")
