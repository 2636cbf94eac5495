"""Running a statement in DuckDB: start it, stream its rows, stop it, start it again if a file is gone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

from trailsift.errors import EngineError
from trailsift.query.deadline import Deadline, release
from trailsift.query.diagnostics import from_duckdb, is_missing_file, message_of, names_data_file
from trailsift.query.duckdb_client import duckdb
from trailsift.query.planner import Parameters, Plan
from trailsift.query.result_cache import Cache, Recorder
from trailsift.query.sandbox import CheckedStatement
from trailsift.query.types import ColumnType, Row, projection, unique_names
from trailsift.query.views import create_views
from trailsift.runtime import shortage

if TYPE_CHECKING:
    import pyarrow
T = TypeVar("T")

#: Rows fetched at a time; a result of at most this many rows is held in memory.
CHUNK = 10_000
#: Rows that DuckDB computes at a time, and the characters of text above which no more are fetched at a time.
_VECTOR = 2048
_WIDE = 16_000_000
#: Rows per Arrow batch.
BATCH = 50_000


class QueryRequest(NamedTuple):
    """A statement and how to run it; ``keep``: the cache key and age under which to keep its result."""

    statement: CheckedStatement
    parameters: Parameters
    deadline: Deadline
    keep: tuple[str, float | None] | None


class Session(Protocol):
    """The part of an engine that a running statement uses."""

    @property
    def cache(self) -> Cache:
        """Where results are kept."""

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection of its own to the confined database."""

    def plan_request(self, request: QueryRequest) -> Plan:
        """Return the plan of a request on the current snapshot."""

    def refresh(self) -> bool:
        """Move to the newest snapshot; return whether there was a newer one."""

    def keep(
        self, key: str, ttl: float | None, statement: CheckedStatement, columns: list[ColumnType], recorder: Recorder
    ) -> None:
        """Keep a complete result for the next time."""


#: What to do about a file that cannot be read.
_RESTORE = "Restore it, or ingest the logs into a new lake"


class Execution:
    """A running statement: its connection, its plan, and its deadline."""

    def __init__(self, request: QueryRequest, cursor: duckdb.DuckDBPyConnection, plan: Plan, prefix: int) -> None:
        self.cursor = cursor
        self.plan = plan
        self._request = request
        self._prefix = prefix

    def start(self, sql: str, begin: Callable[[duckdb.DuckDBPyConnection], T]) -> T:
        """Create the views, start ``sql``, and return what ``begin`` makes of the connection."""

        def start() -> T:
            create_views(self.cursor, self.plan, sorted(self._request.statement.tables))
            if self._request.parameters:
                self.cursor.execute(sql, self._request.parameters)
            else:
                self.cursor.execute(sql)
            return begin(self.cursor)

        return self._request.deadline.run(self.cursor, start)

    def go_on(self, step: Callable[[], T]) -> T:
        """Return ``step()``, which reads more of the result."""
        return self._request.deadline.run(self.cursor, step)

    def close(self) -> None:
        """Release a finished statement."""
        self.cursor.close()

    def failed(self, error: BaseException) -> BaseException:
        """Release a statement that failed or was abandoned; return what to raise for ``error``."""
        if isinstance(error, duckdb.Error):
            self.cursor.close()
        else:
            release(self.cursor)
        if isinstance(error, UnicodeDecodeError):
            # Writers store UTF-8 only, and DuckDB does not check what it reads from a file.
            return EngineError(f"a data file of the lake is damaged: {error}. {_RESTORE}")
        if not isinstance(error, duckdb.Error):
            return error
        if shortage(error):
            return EngineError(f"the query could not be run: {message_of(error)}")
        if is_missing_file(error):
            return EngineError(f"a data file of the lake is missing: {message_of(error)}. {_RESTORE}")
        if names_data_file(error, self.plan.snapshot.root):
            return EngineError(f"a data file of the lake is damaged: {message_of(error)}. {_RESTORE}")
        return from_duckdb(self._request.statement.text, error, self._prefix, self._request.statement.tables)


class ResultSource:
    """The source of a result's rows: runs the statement each time the result is read."""

    def __init__(self, engine: Session, request: QueryRequest, columns: list[ColumnType]) -> None:
        self._engine = engine
        self._request = request
        self._columns = columns

    def plan(self) -> Plan:
        """Return what the statement reads."""
        return self._engine.plan_request(self._request)

    def rows(self) -> tuple[Plan, Iterator[list[Row]]]:
        """Start the statement; return the plan and the fetched rows, in chunks."""
        text, selected, prefix = self._request.statement.text, projection(self._columns), 0
        if selected is not None:
            head = f"SELECT {selected} FROM (\n"
            names = ", ".join(f"c{i}" for i in range(len(self._columns)))
            text, prefix = f"{head}{text}\n) AS answer({names})", len(head)
        run, first = self._start(text, prefix, _fetch)
        return run.plan, self._chunks(run, first)

    def arrow(self) -> tuple[Plan, pyarrow.RecordBatchReader]:
        """Start the statement; return the plan and the Arrow batches that DuckDB makes."""
        from pyarrow import RecordBatchReader

        names = ", ".join('"' + name.replace('"', '""') + '"' for name in unique_names(self._columns))
        head = "SELECT * FROM (\n"
        text = f"{head}{self._request.statement.text}\n) AS answer({names})"
        run, (reader, first) = self._start(text, len(head), _first_batch)
        return run.plan, RecordBatchReader.from_batches(reader.schema, self._batches(run, reader, first))

    def _start(self, sql: str, prefix: int, begin: Callable[[duckdb.DuckDBPyConnection], T]) -> tuple[Execution, T]:
        """Plan ``sql`` (the statement with ``prefix`` bytes before it), start it and read its first rows.

        A file of a superseded snapshot may be deleted meanwhile: then try again, on the newest snapshot.
        """
        for last in (False, True):
            # A result that is read again runs again.
            request, self._request = self._request, self._request._replace(deadline=self._request.deadline.again())
            run = Execution(request, self._engine.cursor(), self._engine.plan_request(request), prefix)
            try:
                return run, run.start(sql, begin)
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
            batch = first
            while batch is not None:
                yield batch
                batch = run.go_on(lambda: next(reader, None))
        except OSError as error:
            # pyarrow's stream interface reports DuckDB's errors as its own.
            run.failed(error)
            raise EngineError(f"the query stopped early: {error}") from None
        except BaseException as error:
            raise run.failed(error) from None
        run.close()

    def _chunks(self, run: Execution, first: _Fetched) -> Iterator[list[Row]]:
        recorder = Recorder(self._engine.cache.max_answer) if self._request.keep else None
        rows, more = first
        try:
            while rows:
                if recorder is not None:
                    recorder.add(rows)
                yield rows
                rows, more = run.go_on(lambda: _fetch(run.cursor)) if more else ([], False)
        except BaseException as error:
            raise run.failed(error) from None
        run.close()
        if recorder is not None and self._request.keep is not None:
            key, ttl = self._request.keep
            self._engine.keep(key, ttl, self._request.statement, self._columns, recorder)


class _Fetched(NamedTuple):
    """Rows, and whether there may be more."""

    rows: list[Row]
    more: bool


def _fetch(cursor: duckdb.DuckDBPyConnection) -> _Fetched:
    """Fetch up to ``CHUNK`` rows; fewer if they hold much text, which would fill the memory."""
    rows: list[Row] = []
    while len(rows) < CHUNK:
        size = min(_VECTOR, CHUNK - len(rows))
        fetched = cursor.fetchmany(size)
        rows += fetched
        if len(fetched) < size:
            return _Fetched(rows, False)
        # A sample: texts differ, but not by orders of magnitude from row to row.
        sample = fetched[:: _VECTOR // 32]
        wide = sum(len(value) for row in sample for value in row if isinstance(value, str | list))
        if wide * len(rows) > _WIDE * len(sample):
            break
    return _Fetched(rows, True)


def _first_batch(
    cursor: duckdb.DuckDBPyConnection,
) -> tuple[pyarrow.RecordBatchReader, pyarrow.RecordBatch | None]:
    reader = cursor.to_arrow_reader(BATCH)
    return reader, next(reader, None)
