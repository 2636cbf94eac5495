"""The engine: SQL over one snapshot of a lake, by DuckDB, planned, confined and remembered."""

from __future__ import annotations

import os
import weakref
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import duckdb

from trailsift import __version__
from trailsift.errors import EngineError, SnapshotGoneError, UsageError
from trailsift.lake.index import Snapshot
from trailsift.lake.open import open_snapshot
from trailsift.query.execution import Call, ResultSource
from trailsift.query.planner import Parameters, Plan, Planner, choose_files, connect, lock
from trailsift.query.result import Result
from trailsift.query.result_cache import Cache, Recorder, key_of
from trailsift.query.sandbox import Statement, check, normalised
from trailsift.query.types import ColumnType
from trailsift.query.volatility import are_consistent
from trailsift.schema import TABLES


class DuckDBEngine:
    """Answers SQL on one snapshot of a lake. Safe to share between threads; close it, or use it with ``with``.

    ``timezone``: the zone of literals without one, of ``date_trunc`` and casts, and of times in answers.
    ``threads``: all cores by default. ``memory_limit``: as DuckDB writes it (``2GB``), 60 % of the memory by
    default; larger sorts and groups go to a private temporary folder. ``cache``: where answers are kept.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        *,
        threads: int | None = None,
        memory_limit: str | None = None,
        timezone: str = "UTC",
        cache: Cache | None = None,
    ) -> None:
        try:
            self.zone = ZoneInfo(timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise UsageError(f"there is no time zone {timezone!r}: give a name such as UTC or Asia/Seoul") from None
        self.snapshot = snapshot
        self.timezone = timezone
        self.cache = cache or Cache()
        self._planner = Planner(timezone, hourly_partitions=bool(snapshot.settings.get("hourly_partitions")))
        self._db = connect(timezone, threads=threads or _cores())
        self._close = weakref.finalize(self, _close, self._db, self._planner, self._prepare(memory_limit))

    def _prepare(self, memory_limit: str | None) -> Path:
        # Only the data folders: catalog.db and lake.json lie beside them and are none of a query's business.
        folders = [str(self.snapshot.root / name / "data") for name in TABLES]
        spill = _private_folder()
        try:
            self._db.execute("SET allowed_directories = $1", [folders])
            self._db.execute("SET GLOBAL memory_limit = $1", [memory_limit or f"{int(_memory() * 0.6)}B"])
            self._db.execute("SET GLOBAL temp_directory = $1", [str(spill)])
            self._db.execute("SET GLOBAL parquet_metadata_cache = true")
            lock(self._db)
        except duckdb.Error as error:
            raise UsageError(f"the memory limit {memory_limit!r} is not understood: write 500MB or 2GB") from error
        return spill

    def query(
        self,
        sql: str,
        *,
        cache: bool = True,
        ttl: float | None = None,
        timeout: float | None = None,
        arrow: bool = False,
    ) -> Result:
        """The answer to a user's SQL: one read-only statement over the tables and views of the lake.

        ``cache``: an answer to the same statement on the same snapshot may come from disk. ``ttl``: also an
        answer of at most so many seconds to a statement that reads the clock. ``timeout``: seconds after which
        it is stopped. ``arrow``: the answer will be read as Arrow (saves running it twice).

        QueryError says what is wrong with the SQL, where, and what was probably meant; EngineError where it ran
        out of memory or time.
        """
        begun = perf_counter()
        with self._planner.cursor() as cursor:
            statement = check(sql, cursor)
        keep = (self._key(statement), ttl) if cache and not arrow else None
        return self._answer(Call(statement, None, timeout, keep), begun, arrow=arrow)

    def sql(self, sql: str, parameters: Parameters = None, *, timeout: float | None = None) -> Result:
        """The answer to SQL of our own, with values for its ``$name`` or ``$1`` parameters. Never from the cache."""
        begun = perf_counter()
        with self._planner.cursor() as cursor:
            statement = check(sql, cursor, trusted=True)
        return self._answer(Call(statement, parameters, timeout, None), begun)

    def plan(self, sql: str, parameters: Parameters = None) -> Plan:
        """What ``sql`` would read; nothing is read."""
        with self._planner.cursor() as cursor:
            statement = check(sql, cursor, trusted=parameters is not None)
        self._planner.result_columns(statement, parameters)
        return self._plan(statement, parameters)

    def footers(self, paths: list[str], columns: list[str], time: str) -> list[tuple[Any, ...]]:
        """Of each row group of the files ``paths``: (path, bytes of ``columns``, least and greatest ``time``,
        least and greatest role), from the Parquet footers; bounds are texts or None."""
        bounds = ", ".join(
            f"any_value({stat}) FILTER (column_name = '{name}')"
            for name in (time, "role_arn")
            for stat in ("stats_min_value", "stats_max_value")
        )
        with self._db.cursor() as cursor:
            try:
                return cursor.execute(
                    "SELECT file_name, sum(total_compressed_size) FILTER (list_contains($2, column_name)),"
                    f" {bounds} FROM (SELECT *, string_split(path_in_schema, ', ')[1] AS column_name"
                    " FROM parquet_metadata($1)) GROUP BY file_name, row_group_id",
                    [paths, columns],
                ).fetchall()
            except duckdb.Error as error:
                raise EngineError(f"the footers of the lake's data files cannot be read: {error}") from None

    def refresh(self) -> bool:
        """Moves to the newest snapshot; whether there was a newer one."""
        newest = open_snapshot(self.snapshot.root)
        moved = newest.seq != self.snapshot.seq or newest.locations != self.snapshot.locations
        self.snapshot = newest
        return moved

    def close(self) -> None:
        """Frees the databases; answers that are still streaming end."""
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _plan(self, statement: Statement, parameters: Parameters) -> Plan:
        scans = self._planner.scans(statement, parameters)
        try:
            return choose_files(self.snapshot, scans, statement.stored)
        except SnapshotGoneError:
            # This engine has been open for days.
            self.refresh()
            return choose_files(self.snapshot, scans, statement.stored)

    def planned(self, call: Call) -> Plan:
        """The plan of a call on the present snapshot."""
        return self._plan(call.statement, call.parameters)

    def _answer(self, call: Call, begun: float, *, arrow: bool = False) -> Result:
        kept = self.cache.get(*call.keep) if call.keep else None
        if kept is not None:
            columns = kept.columns
            call = replace(call, keep=None)
        else:
            columns = self._planner.result_columns(call.statement, call.parameters)
        source = ResultSource(self, call, columns)
        result = Result(columns, self.zone, self.timezone, self.snapshot.seq, begun, source)
        if kept is not None:
            result.hold(kept.rows, from_cache=True)
        elif arrow:
            result.open_arrow()
        else:
            result.open()
        result.snapshot_seq = result.plan.snapshot.seq if kept is None else self.snapshot.seq
        return result

    def _key(self, statement: Statement) -> str:
        at = self.snapshot
        lake = (str(at.root), at.seq, at.committed_at, at.locations)
        return key_of(__version__, duckdb.__version__, self.timezone, lake, normalised(statement.text))

    def keep(
        self, key: str, ttl: float | None, statement: Statement, columns: list[ColumnType], done: Recorder
    ) -> None:
        """Keeps a whole answer for the next time, unless it could be another one then."""
        if done.chunks is None or key != self._key(statement):
            # Too large, or read from a newer snapshot than was asked for.
            return
        ages = statement.clock or statement.volatile
        if not ages:
            with self._planner.cursor() as cursor:
                ages = not are_consistent(statement.functions, cursor)
        if not ages or ttl is not None:
            self.cache.put(key, columns, done.chunks, ages=ages)

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the confined database, without views."""
        return self._db.cursor()


def _memory() -> int:
    """Bytes of memory that this process may use."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text("ascii").strip()
    except (OSError, ValueError):
        return total
    return min(total, int(limit)) if limit.isdigit() else total


def _private_folder() -> Path:
    """A new empty folder that only this user can enter; ``tempfile`` would cost a cold start 10 ms."""
    base = Path(os.environ.get("TMPDIR") or "/tmp")
    folder = base / f"trailsift-{os.getpid()}-{os.urandom(6).hex()}"
    try:
        folder.mkdir(mode=0o700)
    except OSError as error:
        raise EngineError(
            f"no temporary folder can be made in {base}: {error}. Set TMPDIR to a writable folder"
        ) from error
    return folder


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _close(db: duckdb.DuckDBPyConnection, planner: Planner, spill: Path) -> None:
    db.close()
    planner.close()
    if spill.exists():
        import shutil

        shutil.rmtree(spill, ignore_errors=True)
