"""A statement on its way through DuckDB: started, streamed, stopped, started again where a file is gone."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import duckdb

from trailsift.errors import EngineError
from trailsift.query.diagnostics import from_duckdb, is_missing_file
from trailsift.query.planner import Parameters, Plan
from trailsift.query.result_cache import Cache, Recorder
from trailsift.query.sandbox import Statement
from trailsift.query.types import ColumnType, Row, projection, unique_names
from trailsift.query.views import create_views

if TYPE_CHECKING:
    import pyarrow
T = TypeVar("T")

#: Rows fetched at a time; an answer of no more rows is held as a whole.
CHUNK = 10_000
#: Rows of an Arrow batch.
BATCH = 50_000


@dataclass(frozen=True, slots=True)
class Call:
    """A statement and how it was asked; ``keep``: the cache key and age under which to keep the answer."""

    statement: Statement
    parameters: Parameters
    timeout: float | None
    keep: tuple[str, float | None] | None


class Session(Protocol):
    """What a running statement needs of its engine."""

    @property
    def cache(self) -> Cache:
        """Where answers are kept."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the confined database."""

    def planned(self, call: Call) -> Plan:
        """Return the plan of a call on the present snapshot."""

    def refresh(self) -> bool:
        """Move to the newest snapshot; return whether there was a newer one."""

    def keep(
        self, key: str, ttl: float | None, statement: Statement, columns: list[ColumnType], done: Recorder
    ) -> None:
        """Keep a whole answer for the next time."""


class Execution:
    """A running statement: its connection, its plan, and the timer that stops it."""

    def __init__(self, call: Call, cursor: duckdb.DuckDBPyConnection, plan: Plan, prefix: int) -> None:
        self.cursor = cursor
        self.plan = plan
        self._call = call
        self._prefix = prefix
        self._expired = False
        self._timer: threading.Timer | None = None
        if call.timeout is not None:
            self._timer = threading.Timer(call.timeout, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def execute(self, sql: str) -> None:
        """Makes the views and starts ``sql``."""
        create_views(self.cursor, self.plan, sorted(self._call.statement.tables))
        if self._call.parameters:
            self.cursor.execute(sql, self._call.parameters)
        else:
            self.cursor.execute(sql)

    def close(self) -> None:
        """Ends what is done."""
        if self._timer is not None:
            self._timer.cancel()
        self.cursor.close()

    def failed(self, error: BaseException) -> BaseException:
        """Ends what failed or was given up; what to raise for ``error``."""
        if self._timer is not None:
            self._timer.cancel()
        stopped = not isinstance(error, duckdb.Error) or isinstance(error, duckdb.InterruptException)
        if stopped:
            with contextlib.suppress(duckdb.Error):
                self.cursor.interrupt()
            # Some joins notice that they are stopped only after a while, and closing waits for them.
            threading.Thread(target=self.cursor.close, daemon=True).start()
        else:
            self.cursor.close()
        if isinstance(error, duckdb.InterruptException) and self._expired:
            return EngineError(
                f"the query was stopped after {self._call.timeout:g} s: ask for less time or fewer columns"
            )
        if isinstance(error, RuntimeError) and "interrupted" in str(error):
            # What DuckDB's client makes of Ctrl-C.
            return KeyboardInterrupt()
        if not isinstance(error, duckdb.Error):
            return error
        if is_missing_file(error):
            return EngineError(f"a data file of the lake is missing: {error}. `trailsift verify` says what is there")
        return from_duckdb(self._call.statement.text, error, self._prefix, self._call.statement.tables)

    def _expire(self) -> None:
        self._expired = True
        with contextlib.suppress(duckdb.Error):
            self.cursor.interrupt()


class ResultSource:
    """Where a result's rows come from: runs its statement, as often as it is read anew."""

    def __init__(self, engine: Session, call: Call, columns: list[ColumnType]) -> None:
        self._engine = engine
        self._call = call
        self._columns = columns

    def plan(self) -> Plan:
        """What the statement reads."""
        return self._engine.planned(self._call)

    def rows(self) -> tuple[Plan, Iterator[list[Row]]]:
        """Starts the statement; the plan and the fetched rows, some at a time."""
        text, selected, prefix = self._call.statement.text, projection(self._columns), 0
        if selected is not None:
            head = f"SELECT {selected} FROM (\n"
            names = ", ".join(f"c{i}" for i in range(len(self._columns)))
            text, prefix = f"{head}{text}\n) AS answer({names})", len(head)
        run, first = self._start(text, prefix, lambda cursor: cursor.fetchmany(CHUNK))
        return run.plan, self._chunks(run, first)

    def arrow(self) -> tuple[Plan, pyarrow.RecordBatchReader]:
        """Starts the statement; the plan and Arrow batches straight from DuckDB."""
        from pyarrow import RecordBatchReader

        names = ", ".join('"' + name.replace('"', '""') + '"' for name in unique_names(self._columns))
        head = "SELECT * FROM (\n"
        text = f"{head}{self._call.statement.text}\n) AS answer({names})"
        run, (reader, first) = self._start(text, len(head), _first_batch)
        return run.plan, RecordBatchReader.from_batches(reader.schema, self._batches(run, reader, first))

    def _start(self, sql: str, prefix: int, begin: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[Execution, T]:
        """Plans ``sql`` (the statement with ``prefix`` bytes before it), starts it and reads its first rows.

        A file of a superseded snapshot may be deleted meanwhile: then once more, on the newest snapshot.
        """
        for last in (False, True):
            run = Execution(self._call, self._engine.cursor(), self._engine.planned(self._call), prefix)
            try:
                run.execute(sql)
                return run, begin(run.cursor)
            except BaseException as error:
                ours = run.failed(error)
                if isinstance(error, duckdb.Error) and is_missing_file(error) and not last and self._engine.refresh():
                    continue
                raise ours from None
        raise AssertionError("unreachable")

    def _batches(
        self, run: Execution, reader: pyarrow.RecordBatchReader, first: pyarrow.RecordBatch | None
    ) -> Iterator[pyarrow.RecordBatch]:
        try:
            if first is not None:
                yield first
                yield from reader
        except OSError as error:
            # pyarrow's stream interface reports DuckDB's errors as its own.
            run.failed(error)
            raise EngineError(f"the query broke off: {error}") from None
        except BaseException as error:
            raise run.failed(error) from None
        run.close()

    def _chunks(self, run: Execution, first: list[Row]) -> Iterator[list[Row]]:
        recorder = Recorder(self._engine.cache.max_answer) if self._call.keep else None
        rows = first
        try:
            while rows:
                if recorder is not None:
                    recorder.add(rows)
                yield rows
                rows = run.cursor.fetchmany(CHUNK) if len(rows) == CHUNK else []
        except BaseException as error:
            raise run.failed(error) from None
        run.close()
        if recorder is not None and self._call.keep is not None:
            key, ttl = self._call.keep
            self._engine.keep(key, ttl, self._call.statement, self._columns, recorder)


def _first_batch(
    cursor: duckdb.DuckDBPyConnection,
) -> tuple[pyarrow.RecordBatchReader, pyarrow.RecordBatch | None]:
    reader = cursor.to_arrow_reader(BATCH)
    return reader, next(iter(reader), None)
