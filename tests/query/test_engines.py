"""One suite for all query engines: the same statements, on the same small lake, with the same results.

``duckdb``: the engine of the package. ``connect``: any DuckDB client with the script of `trailsift connect`.
``athena``: the Athena engine, with a client that runs the translated SQL on DuckDB (sqlglot: Trino -> DuckDB), so that
the meaning of a translation is compared, not only its grammar. ``trino``: the translated SQL on a real Trino.

A new engine is one more function here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot

from support.lakes import DAY, event, line, make_lake, open_engine
from support.trino import Trino
from trailsift.errors import QueryError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine, QueryEngine
from trailsift.query.athena import Athena
from trailsift.query.connect import script
from trailsift.query.relations import VIEWS, relations
from trailsift.query.trino_sql import translate
from trailsift.schema import TABLES

Run = Callable[..., list[tuple[Any, ...]]]
ENGINES = ("duckdb", "connect", "athena", "trino")

HOUR = timedelta(hours=1)
_JAN_15 = datetime(2024, 1, 15)

#: Statement -> its rows, in order. Times are UTC without a zone.
STATEMENTS: dict[str, list[tuple[Any, ...]]] = {
    # counting and grouping
    "SELECT count(*) FROM events": [(6,)],
    "SELECT service, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC, service": [
        ("s3", 4), ("dynamodb", 1), ("lambda", 1)
    ],
    "SELECT upper(service) AS name, count(*) FROM events GROUP BY name HAVING count(*) > 1": [("S3", 4)],
    "SELECT role_arn, sum(bytes_out) FROM events GROUP BY role_arn ORDER BY role_arn": [
        ("role/a", 300), ("role/b", None), ("role/c", 1), (None, 7)
    ],
    "SELECT role_arn FROM events WHERE service = 's3' GROUP BY 1 ORDER BY 1 DESC": [("role/b",), ("role/a",), (None,)],
    "SELECT count(DISTINCT source_ip), count(bytes_in), max(bytes_out), avg(bytes_out) FROM events": [
        (3, 1, 200, 77.0)
    ],
    "SELECT count(*) FILTER (WHERE error_code IS NOT NULL) AS denied, count_if(read_only) FROM events": [(1, 5)],
    "SELECT coalesce(sum(bytes_in), 0)::BIGINT FROM events WHERE service = 'lambda'": [(0,)],
    "SELECT DISTINCT event_name FROM events ORDER BY event_name LIMIT 2": [("GetItem",), ("GetObject",)],
    "SELECT max_by(event_name, event_time), min(event_time) FROM events": [("GetItem", _JAN_15 + HOUR)],
    # conditions
    "SELECT count(*) FROM events WHERE event_time >= '2024-01-16'": [(3,)],
    "SELECT count(*) FROM events WHERE event_time BETWEEN '2024-01-15T02:00:00' AND '2024-01-16'": [(3,)],
    "SELECT count(*) FROM events WHERE event_time < '2024-01-15T10:30:00+09:00'": [(1,)],
    "SELECT count(*) FROM events WHERE year = '2024' AND month = '01' AND day = '16'": [(2,)],
    "SELECT count(*) FROM events WHERE service IN ('s3', 'lambda') AND NOT read_only": [(1,)],
    "SELECT count(*) FROM events WHERE event_name LIKE 'Get%' AND role_arn IS NULL": [(1,)],
    "SELECT count(*) FROM events WHERE error_code IS DISTINCT FROM 'AccessDenied'": [(5,)],
    "SELECT count(*) FROM events WHERE event_time >= '2024-01-16' AND event_time < '2024-01-15'": [(0,)],
    # values
    "SELECT sum(bytes_out) / 2 FROM events WHERE role_arn = 'role/a' AND bytes_out < 200": [(50.0,)],
    "SELECT 7 / 2, 7 // 2, 7 % 2": [(3.5, 3, 1)],
    "SELECT round(1.2345::DOUBLE, 2), abs(-3), greatest(1, 5, 2)": [(1.23, 3, 5)],
    "SELECT lower('ABC') || '-' || substr('abcdef', 2, 3), length('é한'), replace('a.b', '.', '/')": [
        ("abc-bcd", 2, "a/b")
    ],
    "SELECT split_part('a/b/c', '/', 2), regexp_matches('role/abc', '^role/'), starts_with('abc', 'ab')": [
        ("b", True, True)
    ],
    "SELECT CASE WHEN bytes_out > 100 THEN 'large' ELSE 'small' END AS size, count(*) FROM events"
    " GROUP BY 1 ORDER BY 1": [
        ("large", 1), ("small", 5)
    ],
    "SELECT NULL IS NULL, true AND false, 1 = 1.0": [(True, False, True)],
    # times
    "SELECT date_trunc('hour', event_time) AS hour, count(*) FROM events GROUP BY hour ORDER BY hour LIMIT 2": [
        (_JAN_15 + HOUR, 1), (_JAN_15 + 2 * HOUR, 2)
    ],
    "SELECT CAST(event_time AS DATE) AS d, count(*) FROM events GROUP BY d ORDER BY d": [
        (date(2024, 1, 15), 3), (date(2024, 1, 16), 2), (date(2024, 1, 17), 1)
    ],
    "SELECT extract(hour FROM event_time) AS h FROM events ORDER BY event_time LIMIT 2": [(1,), (2,)],
    "SELECT date_diff('hour', min(event_time), max(event_time)) FROM events": [(47,)],
    "SELECT min(event_time) + INTERVAL 1 DAY FROM events": [(_JAN_15 + 25 * HOUR,)],
    "SELECT strftime(min(event_time), '%Y-%m-%d %H') FROM events": [("2024-01-15 01",)],
    "SELECT count(*) FROM events WHERE event_time >= now() - INTERVAL 1 DAY": [(0,)],
    "SELECT count(*) FROM events WHERE event_time < current_date - 7": [(6,)],
    "SELECT date_diff('day', min(day) - 1, min(day) + 1) FROM usage": [(2,)],
    "SELECT dayname(min(event_time)), monthname(min(event_time)) FROM events": [("Monday", "January")],
    "SELECT date_part('hour', min(event_time)) FROM events": [(1,)],
    "SELECT role_arn, max(event_time) AS last FROM events GROUP BY 1 HAVING last >= '2024-01-17' ORDER BY 1": [
        ("role/c", _JAN_15 + 48 * HOUR)
    ],
    "WITH l AS (SELECT role_arn AS r, max(event_time) AS t FROM events GROUP BY 1) SELECT r FROM l"
    " WHERE t >= '2024-01-17'": [("role/c",)],
    "SELECT t FROM (SELECT date_trunc('day', event_time) AS t FROM events) AS days WHERE t > '2024-01-16'": [
        (_JAN_15 + 48 * HOUR,)
    ],
    # what sqlglot passes on as it is
    "SELECT string_agg(DISTINCT event_name, ', ' ORDER BY event_name) FROM events WHERE service = 's3'": [
        ("GetObject, PutObject",)
    ],
    "SELECT string_agg(error_code, ',') FROM events WHERE service = 'dynamodb'": [(None,)],
    "SELECT contains('abc', 'b'), contains(event_name, 'Item') FROM events WHERE service = 'dynamodb'": [(True, True)],
    "SELECT 'abcdef'[2:4], event_name[1:3], event_name[4:] FROM events WHERE service = 'dynamodb'": [
        ("bcd", "Get", "Item")
    ],
    "SELECT split_part('a/b/c', '/', -1), split_part('a', '/', -2), suffix('abc', 'bc'), ends_with('abc', 'x')": [
        ("c", "", True, False)
    ],
    "SELECT any_value(service), md5('x') FROM events WHERE service = 'lambda'": [
        ("lambda", "9dd4e461268c8034f5c8564e155c67a6")
    ],
    # structure
    "WITH busy AS (SELECT role_arn, count(*) AS n FROM events GROUP BY 1) SELECT max(n) FROM busy": [(2,)],
    "SELECT event_name FROM events QUALIFY row_number() OVER (PARTITION BY service ORDER BY event_time) = 1"
    " ORDER BY 1": [
        ("GetItem",), ("GetObject",), ("Invoke",)
    ],
    "WITH e AS (SELECT * FROM events) SELECT e.event_name AS name, e.role_arn FROM e"
    " QUALIFY row_number() OVER (PARTITION BY service ORDER BY event_time DESC) = 1"
    " ORDER BY e.role_arn, name LIMIT 2": [
        ("Invoke", "role/b"), ("GetItem", "role/c")
    ],
    "SELECT count(*) FROM events e JOIN usage u ON e.role_arn = u.role_arn AND e.event_name = u.event_name": [(2,)],
    "SELECT e.event_name FROM events e WHERE NOT EXISTS (SELECT 1 FROM usage u WHERE u.event_name = e.event_name)"
    " ORDER BY 1": [("GetItem",), ("Invoke",), ("PutObject",)],
    "SELECT 'x' AS a UNION ALL SELECT service FROM events WHERE service = 'lambda' ORDER BY a": [("lambda",), ("x",)],
    "SELECT n FROM (VALUES (1), (2)) AS t(n) ORDER BY n": [(1,), (2,)],
    # summaries: rows of one key in several files are one row
    "SELECT event_name, events, bytes_out FROM hourly ORDER BY hour, event_name": [
        ("GetObject", 5, 50), ("PutObject", 1, 10), ("GetObject", 4, 40)
    ],
    "SELECT sum(events)::BIGINT FROM hourly WHERE hour >= '2024-01-15' AND hour < '2024-01-16'": [(6,)],
    "SELECT event_name, distinct_count(merge_sketches(list(source_ips))) FROM hourly GROUP BY 1 ORDER BY 1": [
        ("GetObject", 6), ("PutObject", 0)
    ],
    "SELECT hour, eventname, event_count, unique_ips FROM hourly_summary ORDER BY hour, eventname LIMIT 1": [
        (_JAN_15 + HOUR, "GetObject", 5, 3)
    ],
    "SELECT day, key_pattern, events FROM usage WHERE day >= '2024-01-15' ORDER BY day, key_pattern": [
        (date(2024, 1, 15), "a/{n}", 3), (date(2024, 1, 16), "b/{n}", 1)
    ],
    "SELECT count(*) FROM rejects": [(0,)],
}  # fmt: skip

#: Statement -> what the error of every engine of the package says.
REFUSED = {
    "DROP TABLE events": "SELECT",
    "SELECT 1; SELECT 2": "statement",
    "SELECT * FROM secrets": "no table secrets",
    "SELECT * FROM read_csv('/etc/passwd')": "read_csv|READ_CSV",
    "SELECT * FROM events WHERE": "(?i)syntax|cannot parse",
}


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six events of three days, and summaries with two files that share a day."""
    day_2, day_3 = DAY + 24 * HOUR, DAY + 48 * HOUR
    events = [
        [
            event(DAY + HOUR, bytes_out=100, source_ip="10.0.0.1", read_only=True),
            event(DAY + 2 * HOUR, bytes_out=200, source_ip="10.0.0.2", read_only=True),
            event(DAY + 2.5 * HOUR, role="role/b", event_name="PutObject", bytes_in=50, source_ip="10.0.0.1",
                  read_only=False),
        ],
        [event(day_2, "lambda", "role/b", event_name="Invoke", error_code="AccessDenied", read_only=True)],
        [event(day_2 + 5 * HOUR, role=None, bytes_out=7, source_ip="10.0.0.3", read_only=True)],
        [event(day_3, "dynamodb", "role/c", event_name="GetItem", bytes_out=1, read_only=True)],
    ]  # fmt: skip
    hourly = [
        [line(DAY + HOUR, 2, source_ips=[-5, 7]), line(DAY + HOUR, 1, event_name="PutObject")],
        [line(DAY + HOUR, 3, source_ips=[7, 9])],
        [line(day_2, 4, source_ips=[1, 2, 3])],
    ]
    one_day = {"day": DAY.date(), "role_arn": "role/a", "event_name": "GetObject", "key_pattern": "a/{n}"}
    times = {"first_time": DAY, "last_time": DAY + HOUR}
    usage = [
        [{**one_day, **times, "events": 1}],
        [{**one_day, **times, "events": 2}],
        [{**one_day, **times, "day": day_2.date(), "role_arn": "role/z", "key_pattern": "b/{n}", "events": 1}],
    ]
    return make_lake(tmp_path_factory.mktemp("engines") / "lake", {"events": events, "hourly": hourly, "usage": usage})


class AthenaOnDuckDB:
    """Athena's API over a DuckDB database: runs Trino's SQL after sqlglot has translated it back."""

    def __init__(self, db: duckdb.DuckDBPyConnection) -> None:
        self.db = db
        self.page: dict[str, Any] = {}

    def start_query_execution(self, **request: Any) -> dict[str, Any]:
        (sql,) = sqlglot.transpile(request["QueryString"], read="trino", write="duckdb")
        result = self.db.execute(sql)
        described = [(str(column[0]), _athena_type(str(column[1]))) for column in result.description or ()]
        rows = [[name for name, _ in described], *([_athena_text(value) for value in row] for row in result.fetchall())]
        cells = [{"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in rows]
        info = [{"Name": name, "Type": kind} for name, kind in described]
        self.page = {"ResultSet": {"Rows": cells, "ResultSetMetadata": {"ColumnInfo": info}}}
        return {"QueryExecutionId": "1"}

    def get_query_execution(self, **request: Any) -> dict[str, Any]:
        return {"QueryExecution": {"Status": {"State": "SUCCEEDED"}, "Statistics": {"DataScannedInBytes": 1}}}

    def get_query_results(self, **request: Any) -> dict[str, Any]:
        return self.page

    def stop_query_execution(self, **request: Any) -> dict[str, Any]:
        raise AssertionError("a query that has ended is not stopped")

    def get_work_group(self, **request: Any) -> dict[str, Any]:
        return {"WorkGroup": {"Configuration": {}}}


def _athena_type(kind: str) -> str:
    return {"HUGEINT": "bigint", "VARCHAR": "varchar"}.get(kind, kind.lower().partition("(")[0])


def _athena_text(value: Any) -> str | None:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}.{value.microsecond // 1000:03d}"
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def connected(lake: Path) -> duckdb.DuckDBPyConnection:
    """Return a DuckDB of its own that has run the script of `trailsift connect`."""
    db = duckdb.connect()
    db.execute("SET TimeZone = 'UTC'")
    db.execute(script(open_snapshot(lake)))
    return db


def athena_over(lake: Path) -> Athena:
    """Return the Athena engine over a DuckDB with the tables as Athena has them: times without a zone."""
    db = connected(lake)
    db.execute("CREATE SCHEMA trailsift")
    for name in relations():
        db.execute(f"CREATE TABLE trailsift.{name} AS SELECT {_without_zones(db, name)} FROM main.{name}")
    return Athena(client=AthenaOnDuckDB(db))


def _without_zones(db: duckdb.DuckDBPyConnection, name: str) -> str:
    described = db.execute(f"DESCRIBE main.{name}").fetchall()
    return ", ".join(
        f"{column} AT TIME ZONE 'UTC' AS {column}" if kind == "TIMESTAMP WITH TIME ZONE" else column
        for column, kind, *_ in described
    )


def trino_with(trino: Trino, lake: Path) -> Run:
    """Return a function that runs our SQL on ``trino``, which gets the tables of ``lake``."""
    kinds = {"timestamp": "timestamp(6)", "string": "varchar", "bool": "boolean", "int64": "bigint"}
    kinds |= {"list<string>": "array(varchar)", "list<int64>": "array(bigint)"}
    db = connected(lake)
    for table in TABLES.values():
        types = [kinds.get(column.type, column.type) for column in table.columns]
        rows = db.execute(f"SELECT {_without_zones(db, table.name)} FROM main.{table.name}").fetchall()
        selects = [
            ", ".join(
                f"CAST({_trino_literal(value)} AS {kind}) AS {column.name}"
                for value, kind, column in zip(row, types, table.columns, strict=True)
            )
            for row in rows or [(None,) * len(types)]
        ]
        # The runner knows no plain CREATE TABLE.
        trino.run(f"CREATE TABLE {table.name} AS SELECT {selects[0]}" + ("" if rows else " WHERE false"))
        for select in selects[1:]:
            trino.run(f"INSERT INTO {table.name} SELECT {select}")
    for name, view in VIEWS.items():
        trino.run(f"CREATE TABLE {name} AS {translate(view[2], 'default').sql}")
    return lambda sql, zone="UTC": [tuple(row) for row in trino.run(translate(sql, "default", zone).sql)]


def _trino_literal(value: Any) -> str:
    if isinstance(value, list):
        return f"ARRAY[{', '.join(map(_trino_literal, value))}]"
    if value is None or isinstance(value, bool | int | float):
        return "NULL" if value is None else str(value).lower()
    return "'" + str(value).replace("'", "''") + "'"


@pytest.fixture(scope="module", params=ENGINES)
def run(request: pytest.FixtureRequest, lake: Path) -> Iterator[Run]:
    """The function that runs SQL on each engine in turn."""
    if request.param == "duckdb":
        with open_engine(lake) as engine:
            yield lambda sql: engine.query(sql, cache=False).rows()
    elif request.param == "connect":
        with connected(lake) as db:
            yield lambda sql: _fetched(db, sql)
    elif request.param == "athena":
        with athena_over(lake) as athena:
            yield lambda sql: athena.query(sql).rows()
    else:
        yield request.getfixturevalue("trino_lake")


@pytest.fixture(scope="module")
def trino_lake(trino: Trino, lake: Path) -> Run:
    """The function that runs SQL on Trino, in a zone if one is given."""
    return trino_with(trino, lake)


def _fetched(db: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
    # Fetching a time with a zone needs pytz.
    kinds = [row[1] for row in db.execute(f"DESCRIBE {sql}").fetchall()]
    shown = [f"c{n} AT TIME ZONE 'UTC'" if kind.endswith("TIME ZONE") else f"c{n}" for n, kind in enumerate(kinds)]
    names = ", ".join(f"c{n}" for n in range(len(kinds)))
    return db.execute(f"SELECT {', '.join(shown)} FROM ({sql}) AS result({names})").fetchall()


@pytest.mark.parametrize("sql", STATEMENTS)
def test_every_engine_gives_the_same_rows(run: Run, sql: str) -> None:
    rows = [tuple(map(comparable, row)) for row in run(sql)]
    expected = [tuple(map(comparable, row)) for row in STATEMENTS[sql]]
    if rows and all(isinstance(value, str) for row in rows for value in row):
        # Trino's runner prints every value as text.
        expected = [tuple(map(trino_text, row)) for row in expected]
        rows = [tuple(map(str, row)) for row in rows]
    assert rows == expected


def comparable(value: Any) -> Any:
    """Return a value without its zone, in UTC."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(UTC).replace(tzinfo=None)
    return value


def trino_text(value: Any) -> str:
    """Return a value as Trino's runner prints it."""
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(value)


#: Statements whose rows depend on the zone: all values are texts.
ZONED = (
    "SELECT count(*)::VARCHAR FROM events WHERE event_time >= '2024-01-16'",
    "SELECT count(*)::VARCHAR FROM events WHERE event_time >= TIMESTAMP '2024-01-16' AND event_time < '2024-01-17'",
    "SELECT count(*)::VARCHAR FROM events WHERE event_time >= DATE '2024-01-16'",
    "SELECT count(*)::VARCHAR FROM events WHERE event_time >= '2024-01-16T00:00:00+03:00'",
    "SELECT CAST(event_time AS DATE)::VARCHAR AS d, count(*)::VARCHAR FROM events GROUP BY 1 ORDER BY 1",
    "SELECT strftime(date_trunc('day', event_time), '%Y-%m-%d %H') AS d, count(*)::VARCHAR FROM events"
    " GROUP BY 1 ORDER BY 1",
    "SELECT hour(min(event_time))::VARCHAR, dayname(max(event_time)), extract(day FROM max(event_time))::VARCHAR"
    " FROM events",
    "WITH d AS (SELECT date_trunc('day', event_time) AS t FROM events) SELECT count(*)::VARCHAR FROM d"
    " WHERE t = '2024-01-16'",
    "SELECT count(*)::VARCHAR FROM usage WHERE day = '2024-01-15'",
)


@pytest.mark.parametrize("sql", ZONED)
@pytest.mark.parametrize("zone", ["Asia/Seoul", "America/New_York"])
def test_trino_sees_times_in_the_zone_of_the_statement(trino_lake: Run, sql: str, zone: str, lake: Path) -> None:
    rows = trino_lake(sql, zone)
    with open_engine(lake, timezone=zone) as engine:
        assert [tuple(map(str, row)) for row in rows] == engine.query(sql, cache=False).rows()


@pytest.mark.parametrize("name", ["duckdb", "athena"])
@pytest.mark.parametrize("sql", REFUSED)
def test_every_engine_refuses(name: str, sql: str, lake: Path) -> None:
    engine: QueryEngine = open_engine(lake) if name == "duckdb" else athena_over(lake)
    with engine, pytest.raises(QueryError, match=REFUSED[sql]):
        engine.query(sql)


@pytest.mark.parametrize("name", ["duckdb", "athena"])
def test_every_engine_has_the_same_members(name: str, lake: Path) -> None:
    sql = "SELECT service AS s, count(*) AS n, count(*) AS n FROM events WHERE service = 's3' GROUP BY 1"
    with open_engine(lake) if name == "duckdb" else athena_over(lake) as engine:
        for result in (engine.query(sql), engine.sql(sql)):
            assert result.columns[0] == ("s", "VARCHAR") and result.names == ["s", "n", "n_1"]
            assert result.rows() == [("s3", 4, 4)] and result.value() == "s3" and result.count == 1
            assert result.dicts() == [{"s": "s3", "n": 4, "n_1": 4}]
            assert result.seconds > 0 and result.timezone == engine.timezone == "UTC"
        assert "events" in str(engine.explain(sql))


@pytest.mark.parametrize("engine", [DuckDBEngine, Athena])
def test_engines_implement_the_protocol(engine: type) -> None:
    for name, member in inspect.getmembers(QueryEngine, inspect.isfunction):
        if name in ("query", "sql", "explain", "close", "__enter__", "__exit__"):
            own = list(inspect.signature(getattr(engine, name)).parameters)
            assert own[: len(inspect.signature(member).parameters)] == list(inspect.signature(member).parameters)
