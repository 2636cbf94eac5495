"""The DuckDB engine: SQL over one snapshot of a lake, with planned files, a sandbox and a result cache."""

from __future__ import annotations

import copy
import threading
import weakref
from datetime import UTC, tzinfo
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from trailsift import __version__
from trailsift.errors import EngineError, SnapshotGoneError, UsageError
from trailsift.lake.index import Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.query.deadline import Deadline, left_behind
from trailsift.query.duckdb_client import duckdb
from trailsift.query.execution import QueryRequest, ResultSource
from trailsift.query.limits import Limits, delete_spill_folder, limits_of, new_spill_folder
from trailsift.query.planner import Parameters, Plan, Planner, choose_files, connect, lock
from trailsift.query.relations import texts
from trailsift.query.result import Result
from trailsift.query.result_cache import Cache, Recorder, key_of
from trailsift.query.sandbox import CheckedStatement, normalised
from trailsift.query.types import ColumnType
from trailsift.query.volatility import are_consistent
from trailsift.schema import TABLES

if TYPE_CHECKING:
    from trailsift.query.explanation import Explanation


class DuckDBEngine:
    """Runs SQL on one snapshot of a lake. Safe to share between threads; close it, or use it with ``with``.

    ``timezone``: the zone of literals without an offset, of ``date_trunc`` and casts, and of times in results.
    ``threads``: all cores by default. ``memory_limit``: such as ``2GB``, 60 % of the memory by default; larger sorts
    and groups spill to a private folder beside the cache, up to ``spill_limit``, half of the free disk by default.
    ``cache``: where results are kept.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        threads: int | None = None,
        memory_limit: str | None = None,
        spill_limit: str | None = None,
        timezone: str = "UTC",
        cache: Cache | None = None,
    ) -> None:
        self.zone = _zone(timezone)
        self.snapshot = snapshot
        self.timezone = timezone
        self.cache = cache or Cache()
        spill = new_spill_folder(self.cache.folder.parent / "spill")
        database: _Opening | None = None
        try:
            limits = limits_of(memory_limit, spill_limit, threads, spill)
            database = _Opening(self._data_folders(), spill, limits, timezone)
            self._planner = Planner(
                timezone, limits, hourly_partitions=bool(snapshot.settings.get("hourly_partitions"))
            )
            self._db = database.result()
        except BaseException:
            if database is not None:
                database.abandon()
            delete_spill_folder(spill)
            raise
        self._close = weakref.finalize(self, _close, self._db, self._planner, spill)

    def _data_folders(self) -> list[str]:
        # Only the data folders: a query has no business with catalog.db and lake.json beside them.
        return [str(self.snapshot.root / name / "data") for name in TABLES]

    def query(
        self,
        sql: str,
        *,
        cache: bool = True,
        ttl: float | None = None,
        timeout: float | None = None,
        arrow: bool = False,
    ) -> Result:
        """Run a user's SQL: one read-only statement over the tables and views of the lake.

        ``cache``: the result of the same statement on the same snapshot may come from disk. ``ttl``: so may the
        result of a statement that reads the clock, if it is at most this many seconds old. ``timeout``: seconds
        from now on after which the query is stopped, wherever it is. ``arrow``: the result will be read as Arrow (saves
        running it twice).

        Raise QueryError with what is wrong in the SQL, where, and what was probably meant; QueryTimeoutError or
        QueryMemoryError if the query runs out of time, memory or disk.
        """
        begun = perf_counter()
        deadline = Deadline(timeout)
        statement = self._planner.check(sql, deadline)
        keep = (self._key(statement), ttl) if cache and not arrow else None
        return self._run(QueryRequest(statement, None, deadline, keep), begun, arrow=arrow)

    def sql(self, sql: str, parameters: Parameters = None, *, timeout: float | None = None) -> Result:
        """Run SQL of our own, with values for its ``$name`` or ``$1`` parameters. Never from the cache."""
        begun = perf_counter()
        deadline = Deadline(timeout)
        statement = self._planner.check(sql, deadline, trusted=True)
        return self._run(QueryRequest(statement, parameters, deadline, None), begun)

    def plan(self, sql: str, parameters: Parameters = None, *, timeout: float | None = None) -> Plan:
        """Return what ``sql`` would read, without reading it."""
        deadline = Deadline(timeout)
        statement = self._planner.check(sql, deadline, trusted=parameters is not None)
        self._planner.result_columns(statement, parameters, deadline)
        return self._plan(statement, parameters, deadline)

    def explain(self, sql: str, *, timeout: float | None = None) -> Explanation:
        """Return what ``sql`` would read, and what Athena would charge for it."""
        from trailsift.query.explanation import explain

        return explain(self, sql, timeout=timeout)

    def footers(self, paths: list[str], columns: list[str], time: str) -> list[tuple[Any, ...]]:
        """Read the Parquet footers of ``paths``. Return for each row group: (path, bytes of ``columns``, least and
        greatest ``time``, least and greatest caller); bounds are texts or None."""
        bounds = ", ".join(
            f"any_value({stat}) FILTER (column_name = '{name}')"
            for name in (time, "caller")
            for stat in ("stats_min_value", "stats_max_value")
        )
        sql = (
            "SELECT file_name,"
            f" sum(total_compressed_size) FILTER (list_contains({texts(columns)}, column_name)), {bounds}"
            " FROM (SELECT *, string_split(path_in_schema, ', ')[1] AS column_name"
            f" FROM parquet_metadata({texts(paths)})) GROUP BY file_name, row_group_id"
        )
        try:
            return Deadline().on_cursor(self._db, lambda cursor: cursor.execute(sql).fetchall())
        except duckdb.Error as error:
            raise EngineError(f"cannot read the footers of the lake's data files: {error}") from None

    def refresh(self) -> bool:
        """Move to the newest snapshot; return whether there was a newer one."""
        newest = open_snapshot(self.snapshot.root)
        moved = newest.seq != self.snapshot.seq or newest.locations != self.snapshot.locations
        self.snapshot = newest
        return moved

    def at(self, snapshot: Snapshot) -> Self:
        """Return an engine on another snapshot of the lake. It shares the databases and is closed with this one."""
        other = copy.copy(self)
        other.snapshot = snapshot
        return other

    def close(self) -> None:
        """Free the databases; results that are still streaming end."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _plan(self, statement: CheckedStatement, parameters: Parameters, deadline: Deadline) -> Plan:
        scans = self._planner.scans(statement, parameters, deadline)
        try:
            return choose_files(self.snapshot, scans, statement.stored)
        except SnapshotGoneError:
            # This engine has been open for days.
            self.refresh()
            return choose_files(self.snapshot, scans, statement.stored)

    def plan_request(self, request: QueryRequest) -> Plan:
        """Return the plan of a request on the current snapshot."""
        return self._plan(request.statement, request.parameters, request.deadline)

    def _run(self, request: QueryRequest, begun: float, *, arrow: bool = False) -> Result:
        cached = self.cache.get(*request.keep) if request.keep else None
        if cached is not None:
            columns = cached.columns
            request = request._replace(keep=None)
        else:
            columns = self._planner.result_columns(request.statement, request.parameters, request.deadline)
        source = ResultSource(self, request, columns)
        result = Result(columns, self.zone, self.timezone, self.snapshot.seq, begun, source)
        if cached is not None:
            result.hold(cached.rows, from_cache=True)
        elif arrow:
            result.open_arrow()
        else:
            result.open()
        result.snapshot_seq = result.plan.snapshot.seq if cached is None else self.snapshot.seq
        return result

    def _key(self, statement: CheckedStatement) -> str:
        at = self.snapshot
        lake = (str(at.root), at.seq, at.committed_at, at.locations)
        return key_of(__version__, duckdb.__version__, self.timezone, lake, normalised(statement.text))

    def keep(
        self, key: str, ttl: float | None, statement: CheckedStatement, columns: list[ColumnType], recorder: Recorder
    ) -> None:
        """Keep a complete result for the next time, unless the same statement could give another one then."""
        if recorder.chunks is None or key != self._key(statement):
            # Too large, or read from a newer snapshot than the key names.
            return
        ages = statement.clock or statement.volatile
        if not ages:
            with self._planner.cursor() as cursor:
                ages = not are_consistent(statement.functions, cursor)
        if not ages or ttl is not None:
            self.cache.put(key, columns, recorder.chunks, ages=ages)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a new connection to the sandboxed database, without views."""
        return self._db.cursor()


class _Opening:
    """The sandboxed database, opened in a thread while the planner opens its own: each takes 15 ms."""

    def __init__(self, folders: list[str], spill: Path, limits: Limits, timezone: str) -> None:
        self._error: BaseException | None = None
        self._options = (folders, spill, limits, timezone)
        # Not the thread itself: Python takes a thread for ended whose `join` Ctrl-C interrupts.
        self._ended = threading.Event()
        threading.Thread(target=self._open).start()

    def _open(self) -> None:
        folders, spill, limits, timezone = self._options
        try:
            self._db = connect(timezone, limits, spill)
            # DuckDB does not obey a `max_temp_directory_size` that it was opened with.
            self._db.execute(
                f"SET allowed_directories = {texts(folders)};"
                f"SET GLOBAL max_temp_directory_size = '{limits.spill}B';"
                "SET GLOBAL parquet_metadata_cache = true"
            )
            lock(self._db)
        except BaseException as error:
            self._error = error
        finally:
            self._ended.set()

    def result(self) -> duckdb.DuckDBPyConnection:
        """Return the database."""
        self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._db

    def abandon(self) -> None:
        """Close the database when it is open: one that is still being opened when the process ends aborts it."""
        self._ended.wait()
        if self._error is None:
            self._db.close()


def _close(db: duckdb.DuckDBPyConnection, planner: Planner, spill: Path) -> None:
    # A statement that notices no interrupt would keep us waiting; its database is freed when it is done.
    if not left_behind():
        db.close()
        planner.close()
    delete_spill_folder(spill)


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # the import of zoneinfo takes 3 ms
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise UsageError(f"unknown time zone {name!r}: use a name such as UTC or Asia/Seoul") from None
