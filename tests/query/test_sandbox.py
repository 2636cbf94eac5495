"""User SQL reads our tables and nothing else: by its syntax tree, and again by the connection it runs on."""

# ruff: noqa: E501 (one statement per line; some are meant to deceive)

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.lakes import DAY, event, line, make_lake, open_engine
from support.paths import TESTS
from trailsift.errors import QueryError, TrailsiftError
from trailsift.query import DuckDBEngine
from trailsift.query.functions import NAMED, TABLE_FUNCTIONS, is_allowed
from trailsift.query.relations import FUNCTIONS
from trailsift.query.sandbox import CLOCK_NAMES, SESSION_NAMES, check, normalised
from trailsift.query.volatility import _COMMON


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    root = make_lake(tmp_path_factory.mktemp("confine") / "lake", {"events": [[event(DAY)]], "hourly": [[line(DAY)]]})
    (root / "secret.csv").write_text("secret\n")
    (root / "events" / "data" / "planted.csv").write_text("planted\n")
    with open_engine(root) as engine:
        yield engine


ALLOWED = [
    "SELECT 1",
    "select count(*) from events",
    "FROM events",
    "FROM events SELECT event_id LIMIT 1",
    "TABLE events",
    "VALUES (1), (2)",
    "SHOW TABLES",
    "show tables;",
    "DESCRIBE events",
    "DESCRIBE SELECT 1",
    "DESC hourly_summary",
    "SUMMARIZE events",
    "SELECT * FROM (DESCRIBE events)",
    "SELECT * FROM main.events",
    'SELECT * FROM "events"',
    "SELECT * FROM EVENTS e",
    "WITH x AS (SELECT 1 AS a) SELECT * FROM x",
    "WITH x AS (SELECT 1 AS a), y AS (SELECT * FROM x) SELECT * FROM y, x",
    "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 5) SELECT * FROM t",
    "WITH events AS (SELECT 1 AS a) SELECT a FROM events",
    "SELECT * FROM range(3)",
    "SELECT unnest([1, 2])",
    "SELECT * FROM unnest([1, 2])",
    "SELECT * FROM events, generate_series(1, 3) AS g(i)",
    "SELECT e.key FROM json_each('{\"a\": 1}') AS e",
    "SELECT list_transform([1, 2], x -> x + 1), list_filter([1], lambda x: x > 0)",
    "SELECT count(*) FILTER (WHERE service = 's3') OVER (PARTITION BY role_arn ORDER BY event_time) FROM events",
    "SELECT * EXCLUDE (rest) REPLACE (upper(service) AS service) FROM events",
    "SELECT COLUMNS('.*_arn') FROM events",
    "SELECT service, count(*) FROM events GROUP BY ALL ORDER BY ALL",
    "SELECT DISTINCT ON (role_arn) role_arn FROM events ORDER BY role_arn, event_time DESC NULLS LAST LIMIT 10% OFFSET 0",
    "SELECT CASE WHEN read_only THEN 1 ELSE 2 END, {'a': 1}.a, [1, 2][1], MAP {'a': 1} FROM events",
    "SELECT * FROM events TABLESAMPLE 10%",
    "SELECT 'a' COLLATE NOCASE, TRY_CAST('x' AS INT), INTERVAL 3 DAY, DATE '2024-01-01', now(), current_date",
    "SELECT grouping(service) FROM events GROUP BY ROLLUP (service)",
    "SELECT (SELECT max(event_time) FROM events), EXISTS (FROM hourly), 1 IN (SELECT 1), 1 > ALL (SELECT 0)",
    "SELECT 1 UNION SELECT 2 INTERSECT SELECT 2 EXCEPT SELECT 3",
    "SELECT regexp_extract(user_agent, '(\\w+)', 1), json_extract_string(rest, '$.a') FROM events",
    "SELECT a.role_arn FROM events a ASOF JOIN hourly h ON a.role_arn = h.role_arn AND a.event_time >= h.hour",
    "SELECT * FROM events a SEMI JOIN hourly USING (role_arn)",
    "SELECT approx_quantile(bytes_out, 0.5), distinct_count(merge_sketches(list([1::BIGINT]))) FROM events",
    "SELECT ';', \"event_id\" -- a comment; with a semicolon\n FROM events /* another; one */ ;  -- the end",
    "SELECT $$a;b$$;",
    "SELECT E'it\\'s; fine';",
    "SELECT 'é', '한국어; '",
]


@pytest.mark.parametrize("sql", ALLOWED)
def test_allowed(engine: DuckDBEngine, sql: str) -> None:
    engine.query(sql, cache=False).rows()


CASES = json.loads((TESTS / "cases" / "hostile_statements.json").read_text("utf-8"))

#: Attacks. ``{lake}`` is the lake's folder.
ATTACKS = [
    *CASES["statements"],
    "SELECT " + "abs(" * 5000 + "1" + ")" * 5000,
    "SELECT " + "1 + " * 20000 + "1",
    "SELECT " + "NOT " * 5000 + "true",
    "SELECT 1 WHERE " + " OR ".join("(1 = 1 AND 2 = 2" for _ in range(3000)) + ")" * 3000,
    "SELECT * FROM (" * 2000 + "SELECT 1" + ")" * 2000,
    "SELECT (" * 2000 + "SELECT 1" + ")" * 2000,
    "SELECT 1" + " " * 2_000_000,
]


def refuse(engine: DuckDBEngine, sql: str) -> None:
    with pytest.raises(QueryError) as caught:
        engine.query(sql.replace("{lake}", str(engine.snapshot.root)))
    assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("sql", ATTACKS)
def test_refused(engine: DuckDBEngine, sql: str) -> None:
    refuse(engine, sql)


@pytest.mark.parametrize("place", CASES["places"])
def test_nothing_but_tables_is_read_in_any_place(engine: DuckDBEngine, place: str) -> None:
    with duckdb.connect() as parser:
        # With a table in its place the statement is SQL, so that nothing is refused for another reason.
        assert parser.extract_statements(place.replace("{call}", "hourly"))
    for call in CASES["relations"]:
        refuse(engine, place.replace("{call}", call))


@pytest.mark.parametrize("expression", CASES["expressions"])
def test_no_function_reaches_out_of_any_expression(engine: DuckDBEngine, expression: str) -> None:
    engine.query(expression.replace("{f}", "abs(1)"), cache=False).rows()
    for function in CASES["functions"]:
        refuse(engine, expression.replace("{f}", function))


def test_a_refusal_says_what_is_allowed(engine: DuckDBEngine) -> None:
    for sql in ("DROP VIEW events", "SELECT 1; SELECT 2", ""):
        with pytest.raises(QueryError, match="one read-only statement: SELECT, WITH, FROM"):
            engine.query(sql)
    with pytest.raises(QueryError, match=r"(?s)read_text is not allowed \(line 2, column 6\).*\n       \^\nallowed"):
        engine.query("SELECT *\nFROM read_text('/etc/passwd')")


#: Statements that DuckDB itself must refuse, in case the first wall has a hole.
BEHIND_THE_FIRST_WALL = [
    "SELECT * FROM '{lake}/secret.csv'",
    "SELECT * FROM read_text('{lake}/lake.json')",
    "SELECT * FROM read_blob('{lake}/catalog.db')",
    "SELECT * FROM read_text('{lake}/events/data/../../lake.json')",
    "SELECT * FROM read_text('/etc/passwd')",
    "SELECT * FROM read_csv('http://127.0.0.1:1/x.csv')",
    "SELECT * FROM glob('/etc/*')",
    "COPY (SELECT 1) TO '{lake}/x.csv'",
    "ATTACH '{lake}/x.db'",
    "ATTACH '{lake}/catalog.db' (TYPE sqlite)",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET lock_configuration = false",
    "SET allowed_directories = ['/']",
    "SET memory_limit = '1TB'",
    "SET GLOBAL TimeZone = 'Asia/Seoul'",
    "RESET memory_limit",
    "PRAGMA threads = 1",
    "SET temp_directory = '/tmp/x'",
    "SELECT * FROM found_in_python",
    "EXPORT DATABASE '{lake}/out'",
]


@pytest.mark.parametrize("sql", BEHIND_THE_FIRST_WALL)
def test_the_connection_refuses_too(engine: DuckDBEngine, sql: str) -> None:
    found_in_python = duckdb.sql("SELECT 1 AS x")
    assert found_in_python is not None
    with engine.cursor() as cursor, pytest.raises(duckdb.Error):
        cursor.execute(sql.replace("{lake}", str(engine.snapshot.root))).fetchall()


def test_the_planner_refuses_too(engine: DuckDBEngine) -> None:
    lake = str(engine.snapshot.root)
    for sql in ("FROM read_text('{lake}/lake.json')", "FROM '{lake}/events/data/planted.csv'", "SET threads = 2"):
        with engine._planner.cursor() as cursor, pytest.raises(duckdb.Error):
            cursor.execute(sql.replace("{lake}", lake))


def test_one_query_leaves_nothing_for_the_next(engine: DuckDBEngine) -> None:
    engine.query("SELECT * FROM events", cache=False).rows()
    with engine.cursor() as cursor:
        with pytest.raises(duckdb.Error):
            cursor.execute("SELECT * FROM events")
        assert cursor.execute("SELECT getvariable('trailsift_events')").fetchone() == (None,)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([
    "SELECT", "*", "FROM", "events", "(", ")", ";", "'", '"', "--", "\n", "/*", "*/", "$$", "1", ",", "glob('/*')",
    "read_text('/etc/passwd')", "WITH", "x", "AS", "UNION", "WHERE", "E'\\'", "=", "now()", "é",
]), max_size=14).map(" ".join))  # fmt: skip
def test_any_text_has_a_result_or_is_refused(engine: DuckDBEngine, sql: str) -> None:
    try:
        rows = engine.query(sql, cache=False).rows()
    except TrailsiftError as error:
        assert str(error)
    else:
        assert "root:" not in str(rows)


def test_the_lists_of_functions_match_duckdb(engine: DuckDBEngine) -> None:
    """Each name on the lists exists, and a function that a later DuckDB brings is refused until it is listed."""
    with engine.cursor() as cursor:
        rows = cursor.execute(
            "SELECT lower(function_name), bool_or(stability <> 'CONSISTENT' AND function_type NOT LIKE 'table%'),"
            " bool_or(function_type IN ('scalar', 'aggregate', 'macro'))"
            " FROM duckdb_functions() WHERE function_type <> 'pragma' GROUP BY 1"
        ).fetchall()
        names = {name for name, _, _ in rows}
        changing = {name for name, changes, _ in rows if changes}
        random = {"random", "uuid", "uuidv4", "uuidv7", "gen_random_uuid", "error"}
        session = {"txid_current", "current_transaction_id", "current_database", "current_schemas"}
        assert not changing & _COMMON
        assert {name for name in changing if is_allowed(name)} <= CLOCK_NAMES | SESSION_NAMES | random | session
        assert names >= TABLE_FUNCTIONS
        assert names >= NAMED
        outside = ("read_", "duckdb_", "pragma_", "pg_", "has_", "parquet_", "sql_", "scan", "secret", "setting", "env")
        assert [name for name in names if is_allowed(name) and name.startswith(outside)] == []
        for name, _, scalar in rows:
            if scalar and name.isidentifier() and not is_allowed(name) and name not in FUNCTIONS:
                with pytest.raises(QueryError, match=f"the function {name} is not allowed"):
                    check(f'SELECT "{name}"(1)', cursor)
            if name.isidentifier() and name not in TABLE_FUNCTIONS:
                with pytest.raises(QueryError, match=f"the table function {name} is not allowed"):
                    check(f'FROM "{name}"(1)', cursor)


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("SELECT  1\n FROM events", "SELECT 1 FROM events ", True),
        ("SELECT 1 -- x", "SELECT 1", False),
        ("SELECT 1 -- x\r, 2", "SELECT 1 -- x", False),
        ("SELECT 1 /* x */", "SELECT 1", False),
        ("SELECT 'a'\n'b'", "SELECT 'a' 'b'", False),
        ("SELECT 1\u00a0AS x", "SELECT 1 AS x", False),
        ("SELECT 1\x0cAS x", "SELECT 1 AS x", False),
        ("SELECT 1 ;", "SELECT 1;", False),
        ("SELECT 'a  b'", "SELECT 'a b'", False),
        ("SELECT 'a--b'", "SELECT 'a", False),
        ("SELECT \"a  b\"", "SELECT \"a b\"", False),
        ("SELECT 'it''s  x'", "SELECT 'it''s x'", False),
        ("SELECT $$a  b$$", "SELECT $$a b$$", False),
        ("SELECT E'\\'a  b'", "SELECT E'\\'a b'", False),
        ("SELECT 1 - -1", "SELECT 1--1", False),
        ("SELECT a", "SELECT A", False),
    ],
)  # fmt: skip
def test_normalised(first: str, second: str, same: bool) -> None:
    assert (normalised(first) == normalised(second)) is same


def test_what_a_statement_names(engine: DuckDBEngine) -> None:
    with engine._planner.cursor() as cursor:
        found = check("WITH x AS (FROM hourly_summary) SELECT upper(service), count(*) FROM x, Events;", cursor)
        assert found.tables == {"hourly_summary", "events"}
        assert found.stored == {"hourly", "events"}
        assert found.functions == {"upper", "count_star"}
        assert not found.clock
        assert not found.volatile
        for sql in (
            "SELECT now()",
            "SELECT current_date",
            "FROM usage WHERE day > CURRENT_DATE",
        ):
            assert check(sql, cursor).clock, sql
        for sql in ("SELECT current_user", "FROM events TABLESAMPLE 5 ROWS", "FROM events USING SAMPLE 5"):
            assert check(sql, cursor).volatile, sql


def test_a_link_out_of_the_lake_is_not_followed_for_a_user(engine: DuckDBEngine) -> None:
    link = Path(engine.snapshot.root) / "events" / "data" / "out.csv"
    link.symlink_to("/etc/passwd")
    try:
        with pytest.raises(QueryError):
            engine.query(f"SELECT * FROM read_csv('{link}')")
    finally:
        link.unlink()
