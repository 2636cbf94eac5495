"""Which files a statement reads: as few as possible, and never one too few."""

# ruff: noqa: E501 (one statement per line)

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from support.lakes import DAY, event, line, make_lake, open_engine
from trailsift.lake.index import Snapshot
from trailsift.query import DuckDBEngine, planner
from trailsift.schema import TABLES

DAYS = 5
SERVICES = ("s3", "lambda")
#: The last is a service, whose caller is not an ARN.
ROLES = ("arn:r/a", "arn:r/b", "arn:r/c", "s.amazonaws.com")
ZONES = ("UTC", "Asia/Seoul", "America/St_Johns")


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """2024-01-15 to 19: a file of events per day and service, two files of summaries per day, named by their content."""
    days = [DAY + timedelta(days=n) for n in range(DAYS)]
    events = [
        [event(day + timedelta(hours=h, minutes=h), service, ROLES[h // 3 % 4], bytes_out=h) for h in (0, 4, 9, 23)]
        for day in days
        for service in SERVICES
    ]
    hourly = [
        [line(day + timedelta(hours=h), role_arn=role, events=h) for h in (0, 12, 23)]
        for day in days
        for role in ("arn:r/a", "arn:r/b")
    ]
    usage = [
        [
            {"day": day.date(), "role_arn": "arn:r/a", "caller": "arn:r/a", "events": 2},
            {"day": day.date(), "caller": "none", "events": 3},
        ]
        for day in days
    ]
    return make_lake(tmp_path_factory.mktemp("plan") / "lake", {"events": events, "hourly": hourly, "usage": usage})


@pytest.fixture(scope="module")
def engines(lake: Path) -> Iterator[dict[str, DuckDBEngine]]:
    opened = {zone: open_engine(lake, timezone=zone) for zone in ZONES}
    yield opened
    for engine in opened.values():
        engine.close()


def read(engine: DuckDBEngine, sql: str) -> dict[str, str]:
    """Return for each table the days (and for events the services' first letters) of the files that ``sql`` reads."""
    chosen: dict[str, str] = {}
    for name, files in engine.plan(sql).files.items():
        days = [f"{datetime.fromtimestamp(f.min_time / 1e6, UTC).day}{(f.service or '')[:1]}" for f in files]
        chosen[name] = " ".join(dict.fromkeys(days))
    return chosen


ALL = "15l 15s 16l 16s 17l 17s 18l 18s 19l 19s"
CASES = [
    ("SELECT 1 FROM events", ALL),
    ("SELECT 1 FROM events WHERE event_time >= '2024-01-19'", "19l 19s"),
    ("SELECT 1 FROM events WHERE event_time > TIMESTAMP '2024-01-19 00:00:00'", "19l 19s"),
    ("SELECT 1 FROM events WHERE DATE '2024-01-16' > event_time", "15l 15s"),
    ("SELECT 1 FROM events WHERE event_time BETWEEN '2024-01-16' AND '2024-01-16 12:00'", "16l 16s"),
    ("SELECT 1 FROM events WHERE event_time >= '2024-01-16T00:00:00Z' AND event_time < '2024-01-17'", "16l 16s"),
    ("SELECT 1 FROM events WHERE date_trunc('day', event_time) = '2024-01-16'", "16l 16s"),
    ("SELECT 1 FROM events WHERE event_time::date = DATE '2024-01-16'", "16l 16s"),
    ("SELECT 1 FROM events WHERE event_time::date = '2024-01-16' AND service = 's3'", "16s"),
    ("SELECT 1 FROM events WHERE CAST(event_time AS date) BETWEEN '2024-01-16' AND '2024-01-17'", "16l 16s 17l 17s"),
    ("SELECT 1 FROM events WHERE event_time::timestamp < TIMESTAMP '2024-01-16'", "15l 15s"),
    ("SELECT 1 FROM events WHERE year(event_time) = 2023", ""),
    ("SELECT 1 FROM events WHERE event_time > now() - INTERVAL '7 days'", ""),
    ("SELECT 1 FROM events WHERE event_time < now() - INTERVAL 7 DAY", ALL),
    (
        "SELECT 1 FROM events WHERE event_time > current_timestamp - INTERVAL 100 YEAR AND service = 's3'",
        "15s 16s 17s 18s 19s",
    ),
    ("SELECT 1 FROM events WHERE event_time > to_timestamp(1705622400)", "19l 19s"),
    ("SELECT 1 FROM events WHERE event_time > make_timestamptz(2024, 1, 19, 0, 0, 0.0, 'UTC')", "19l 19s"),
    ("SELECT 1 FROM events WHERE year = '2024' AND month = '01' AND day = '16'", "16l 16s"),
    ("SELECT 1 FROM events WHERE year = 2024 AND month = 1 AND day = 16 AND service = 's3'", "16s"),
    ("SELECT 1 FROM events WHERE year = 2024 AND month = 1 AND day IN (16, 18)", "16l 16s 18l 18s"),
    ("SELECT 1 FROM events WHERE day IN ('16', '18')", "16l 16s 18l 18s"),
    ("SELECT 1 FROM events WHERE day BETWEEN '16' AND '17' AND year = '2024'", "16l 16s 17l 17s"),
    ("SELECT 1 FROM events WHERE month = '02'", ""),
    ("SELECT 1 FROM events WHERE service IN ('s3', 'sqs') AND day = '15'", "15s"),
    ("SELECT 1 FROM events WHERE service = 's3' OR service = 'sqs'", "15s 16s 17s 18s 19s"),
    (
        "SELECT 1 FROM events WHERE (day = '15' AND service = 's3') OR (day = '19' AND service = 'lambda')",
        "15l 15s 19l 19s",
    ),
    ("SELECT 1 FROM events WHERE role_arn = 'arn:q/x'", ""),
    ("SELECT 1 FROM events WHERE role_arn LIKE 'arn:q/x%'", ""),
    ("SELECT 1 FROM events WHERE caller LIKE 'arn:q%'", ""),
    ("SELECT 1 FROM events WHERE caller = 'service:s.amazonaws.com' AND service = 's3'", "15s 16s 17s 18s 19s"),
    # Not by a role that is not an ARN, and not from an ARN upwards: the caller may be anything.
    ("SELECT 1 FROM events WHERE role_arn = 's.amazonaws.com'", ALL),
    ("SELECT 1 FROM events WHERE role_arn >= 'arn:x'", ALL),
    ("SELECT 1 FROM events WHERE role_arn = 'arn:r/b' AND day = '15'", "15l 15s"),
    ("SELECT 1 FROM events e WHERE e.event_time >= '2024-01-19' ORDER BY e.event_time LIMIT 3", "19l 19s"),
    ("SELECT * FROM (SELECT *, event_time AS t FROM events) WHERE t >= '2024-01-19'", "19l 19s"),
    ("WITH e AS (SELECT * FROM events) SELECT count(*) FROM e WHERE event_time >= '2024-01-19'", "19l 19s"),
    ("SELECT 1 FROM events WHERE false", ""),
    ("SELECT 1 FROM events WHERE event_time > '2024-01-18' AND event_time < '2024-01-16'", ""),
    ("SELECT day, n FROM (SELECT day, count(*) AS n FROM events GROUP BY day) WHERE day = '17'", "17l 17s"),
    (
        "SELECT 1 FROM events WHERE event_time >= '2024-01-19' UNION ALL SELECT 2 FROM events WHERE day = '15'",
        "15l 15s 19l 19s",
    ),
    ("SELECT 1 FROM events a JOIN events b USING (day) WHERE a.day = '15'", "15l 15s"),
    ("SUMMARIZE SELECT day FROM events WHERE day = '15'", "15l 15s"),
    ("FROM events SELECT max(event_time) WHERE service = 's3' AND day = '15' HAVING max(bytes_out) > 3", "15s"),
]


@pytest.mark.parametrize(("sql", "expected"), CASES)
def test_only_the_files_that_matter(engines: dict[str, DuckDBEngine], sql: str, expected: str) -> None:
    assert read(engines["UTC"], sql)["events"] == expected


#: Conditions that must not prune, although similar ones do.
NOT_PRUNED = [
    "SELECT 1 FROM events WHERE NOT (event_time >= '2024-01-19')  OR service = 's3'",
    "SELECT 1 FROM events WHERE event_time >= '2024-01-19' OR bytes_out > 3",
    "SELECT 1 FROM events WHERE event_time <> '2024-01-19'",
    "SELECT count(*) FILTER (WHERE event_time >= '2024-01-19') FROM events",
    "SELECT (SELECT max(event_time) FROM events WHERE day = '15') FROM events",
    "SELECT 1 FROM hourly h LEFT JOIN events e ON h.role_arn = e.role_arn WHERE e.day IS NULL OR e.day = '15'",
    "SELECT 1 FROM events e LEFT JOIN hourly h ON e.role_arn = h.role_arn AND e.day = '15'",
    "SELECT row_number() OVER (ORDER BY event_time) AS n FROM events QUALIFY n > 3",
    "SELECT * FROM (SELECT event_time, row_number() OVER (ORDER BY event_time) FROM events) WHERE event_time >= '2024-01-19'",
    "SELECT * FROM (SELECT * FROM events ORDER BY event_time LIMIT 3) WHERE day = '15'",
    "SELECT '15' AS day, e.day FROM events e WHERE 1 = 1",
    "SELECT * FROM (SELECT role_arn AS service, service AS role_arn FROM events) WHERE service = 'arn:r/a' OR service = 'arn:r/c'",
    "SELECT 1 FROM events POSITIONAL JOIN (SELECT day AS d FROM events) WHERE d = '15'",
    "SELECT 1 FROM events WHERE role_arn = 'a' || chr(10) || 'day>''99''' OR day >= '15'",
    "SELECT 1 FROM events WHERE coalesce(service, 's3') <> 'x'",
]


@pytest.mark.parametrize("sql", NOT_PRUNED)
def test_what_could_matter_is_read(engines: dict[str, DuckDBEngine], sql: str) -> None:
    assert read(engines["UTC"], sql)["events"] == ALL


def test_text_with_line_breaks_is_not_mistaken_for_filters(engines: dict[str, DuckDBEngine]) -> None:
    # DuckDB prints the filters of a scan one per line, so that the text could be read as another filter.
    for text in ("a\nday>'99'\nb", "a\nday='99'", "'\nday='99'\n'", "a''\nday>'99'\n''b"):
        literal = text.replace("'", "''")
        sql = f"SELECT 1 FROM events WHERE user_agent = '{literal}'"
        assert read(engines["UTC"], sql)["events"] == ALL, text


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1 FROM hourly WHERE hour >= '2024-01-19'", "19"),
        ("SELECT 1 FROM hourly WHERE hour = '2024-01-16 23:00'", "16"),
        ("SELECT 1 FROM hourly_summary WHERE hour < '2024-01-16' AND eventname = 'GetObject'", "15"),
        ("SELECT 1 FROM hourly_summary WHERE hour <= '2024-01-16'", "15 16"),
        ("SELECT 1 FROM usage WHERE day = '2024-01-16'", "16"),
        ("SELECT 1 FROM usage WHERE day > DATE '2024-01-16' AND day <= DATE '2024-01-17'", "17"),
        ("SELECT 1 FROM usage WHERE day >= TIMESTAMP '2024-01-18 12:00:00'", "19"),
        ("SELECT 1 FROM usage WHERE day IN ('2024-01-15', '2024-01-19')", "15 19"),
        ("SELECT 1 FROM usage WHERE day >= current_date - 7", ""),
        ("SELECT 1 FROM usage WHERE year(day) = 2024", "15 16 17 18 19"),
    ],
)
def test_summaries_prune_by_hour_and_day(engines: dict[str, DuckDBEngine], sql: str, expected: str) -> None:
    (found,) = read(engines["UTC"], sql).values()
    assert found == expected


def test_literals_mean_the_session_zone(engines: dict[str, DuckDBEngine]) -> None:
    # 2024-01-17 00:00 in Seoul is 2024-01-16 15:00 UTC.
    sql = "SELECT event_time FROM events WHERE event_time >= '2024-01-17' AND event_time < '2024-01-18'"
    assert read(engines["Asia/Seoul"], sql)["events"] == "16l 16s 17l 17s"
    rows = engines["Asia/Seoul"].query(sql).rows()
    assert min(rows)[0].isoformat() == "2024-01-17T08:23:00+09:00"


def test_a_table_that_only_a_text_names_is_not_read(engines: dict[str, DuckDBEngine]) -> None:
    assert engines["UTC"].plan("WITH events AS (SELECT 1) SELECT 'hourly' FROM events").files == {}


TIMES = [f"2024-01-{d:02d}{t}" for d in (14, 15, 16, 17, 19, 21) for t in ("", " 00:00:00", " 04:04:00", " 09:09:00.5")]


def _texts(values: list[str]) -> st.SearchStrategy[str]:
    return st.sampled_from(values).map(lambda value: f"'{value}'")


_times = _texts(TIMES)
_dates = _texts([f"2024-01-{d:02d}" for d in (14, 15, 16, 17, 19, 21)])
_ops = st.sampled_from(["=", "<", "<=", ">", ">=", "<>", "IS NOT DISTINCT FROM"])
_leaves = st.one_of(
    st.tuples(_ops, _times).map(lambda t: f"event_time {t[0]} {t[1]}"),
    st.tuples(_ops, _times).map(lambda t: f"TIMESTAMP {t[1]} {t[0]} event_time"),
    st.tuples(_times, _times).map(lambda t: f"event_time BETWEEN {t[0]} AND {t[1]}"),
    st.tuples(_ops, _dates).map(lambda t: f"event_time::date {t[0]} {t[1]}"),
    st.tuples(_ops, _times).map(lambda t: f"event_time::timestamp {t[0]} TIMESTAMP {t[1]}"),
    st.tuples(st.sampled_from(["day", "hour", "month", "week"]), _ops, _times).map(
        lambda t: f"date_trunc('{t[0]}', event_time) {t[1]} {t[2]}"
    ),
    st.lists(_times, min_size=1, max_size=3).map(lambda t: f"event_time IN ({', '.join(t)})"),
    st.tuples(_ops, st.sampled_from(["'15'", "'16'", "'19'", "'2'", "'x'"])).map(lambda t: f"day {t[0]} {t[1]}"),
    st.lists(st.sampled_from(["15", "16", "18"]), min_size=1).map(lambda t: f"day IN ({', '.join(t)})"),
    st.sampled_from(
        [
            "year = '2024'",
            "year = 2024",
            "month = '01'",
            "month = 2",
            "year(event_time) <= 2023",
            "year > '2023'",
            "day = 17",
        ]
    ),
    st.tuples(_ops, _texts(["s3", "lambda", "S3", "m"])).map(lambda t: f"service {t[0]} {t[1]}"),
    st.tuples(_ops, _texts(["arn:r/a", "arn:r/b", "arn:r/", "s.amazonaws.com", "zz", "ro''le"])).map(
        lambda t: f"role_arn {t[0]} {t[1]}"
    ),
    st.sampled_from(
        [
            "role_arn LIKE 'arn:r/a%'",
            "caller = 'arn:r/a'",
            "caller > 'b'",
            "role_arn IS NULL",
            "bytes_out > 4",
            "service IN ('s3', 'x')",
            "NULL",
        ]
    ),
    st.sampled_from(
        [
            "event_time > now()",
            "event_time <= now()",
            "event_time::date < current_date",
            "age(event_time) > INTERVAL 1 DAY",
        ]
    ),
)
_conditions = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(lambda t: f"({t[0]} AND {t[1]})"),
        st.tuples(inner, inner).map(lambda t: f"({t[0]} OR {t[1]})"),
        inner.map(lambda text: f"NOT ({text})"),
        inner.map(lambda text: f"coalesce({text}, true)"),
        inner.map(lambda text: f"CASE WHEN {text} THEN bytes_out > 3 ELSE day = '16' END"),
    ),
    max_leaves=5,
)
_E = "event_id IS NULL"
_SHAPES = [
    "SELECT event_time, service FROM events WHERE {0}",
    "SELECT count(*), max(event_time) FROM events AS e WHERE {0} HAVING count(*) > 2",
    "SELECT event_time, service FROM (SELECT * FROM events WHERE {0}) WHERE {1}",
    "WITH x AS (SELECT * FROM events WHERE {0}), y AS (FROM x WHERE {1}) SELECT x.event_time, y.service FROM x JOIN y USING (day, service)",
    "SELECT event_time, service FROM events WHERE {0} UNION ALL SELECT event_time, 'x' FROM events WHERE {1}",
    "SELECT event_time FROM events WHERE {0} EXCEPT SELECT event_time FROM events WHERE {1}",
    "SELECT a.event_time, b.event_time FROM (FROM events WHERE {0}) a LEFT JOIN (FROM events WHERE {1}) b ON a.day = b.day AND a.service < b.service",
    "SELECT a.event_time, b.n FROM (FROM events WHERE {0}) a FULL JOIN (SELECT day, count(*) n FROM events WHERE {1} GROUP BY day) b USING (day)",
    "SELECT event_time, service FROM events WHERE {0} AND EXISTS (SELECT 1 FROM hourly h WHERE h.role_arn = events.role_arn AND h.hour >= '2024-01-17')",
    "SELECT event_time FROM events WHERE {0} AND event_time IN (SELECT max(event_time) FROM events WHERE {1} GROUP BY role_arn)",
    "SELECT event_time, (SELECT count(*) FROM events i WHERE i.day = o.day AND i.bytes_out > 3) FROM events o WHERE {0}",
    "SELECT service, event_time, sum(bytes_out) OVER (PARTITION BY service ORDER BY event_time) FROM events WHERE {0}",
    "SELECT * FROM (SELECT service, role_arn, event_time, row_number() OVER (PARTITION BY service ORDER BY event_time, role_arn) AS n FROM events) AS events JOIN (SELECT 1 AS bytes_out, '15' AS day, '2024' AS year, '01' AS month) ON true WHERE {0}",
    "SELECT a.event_time, b.event_time FROM (FROM events WHERE {0}) a ASOF JOIN (FROM events WHERE {1}) b ON a.service = b.service AND a.event_time >= b.event_time",
    "SELECT event_time FROM (SELECT event_time, role_arn AS service, service AS role_arn, day, month, year, bytes_out FROM events) WHERE {0}",
    "SELECT service, count(*) FROM events WHERE {0} GROUP BY ROLLUP (service)",
]


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(shape=st.sampled_from(_SHAPES), one=_conditions, two=_conditions, zone=st.sampled_from(ZONES))
def test_pruning_never_changes_a_result(
    engines: dict[str, DuckDBEngine], shape: str, one: str, two: str, zone: str
) -> None:
    sql, engine = shape.format(one, two), engines[zone]
    assert _rows(engine, sql) == _rows_unpruned(engine, sql), sql


def _rows(engine: DuckDBEngine, sql: str) -> list[tuple[str, ...]]:
    return sorted(tuple(map(str, row)) for row in engine.query(sql, cache=False).rows())


def _rows_unpruned(engine: DuckDBEngine, sql: str) -> list[tuple[str, ...]]:
    def everything(snapshot: Snapshot, scans: Any, stored: Any) -> planner.Plan:
        return planner.Plan(snapshot, tuple(scans), {name: snapshot.files(name) for name in stored})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trailsift.query.duckdb.choose_files", everything)
        return _rows(engine, sql)


_SUMMARY_LEAVES = st.one_of(
    st.tuples(st.sampled_from(["hour", "hour::timestamp", "date_trunc('day', hour)"]), _ops, _times).map(" ".join),
    st.tuples(st.just("hour::date"), _ops, _dates).map(" ".join),
    st.tuples(st.just("role_arn"), _ops, _texts(["arn:r/a", "arn:r/b"])).map(" ".join),
    st.tuples(st.just("events"), _ops, st.sampled_from(["0", "12"])).map(" ".join),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    source=st.sampled_from(["hourly", "(SELECT *, event_count AS events, 'arn:r/a' AS role_arn FROM hourly_summary)"]),
    parts=st.lists(st.tuples(_SUMMARY_LEAVES, st.sampled_from(["AND", "OR", "AND NOT"])), min_size=1, max_size=3),
    zone=st.sampled_from(ZONES),
)
def test_pruning_never_changes_a_summary(
    engines: dict[str, DuckDBEngine], source: str, parts: list[tuple[str, str]], zone: str
) -> None:
    condition = " ".join(f"{leaf} {joint}" for leaf, joint in parts) + " true"
    sql = f"SELECT hour, events FROM {source} WHERE {condition}"
    assert _rows(engines[zone], sql) == _rows_unpruned(engines[zone], sql)


def test_a_scan_that_is_not_understood_reads_all_files(lake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If DuckDB ever prints plans differently, results stay correct."""
    sql = "SELECT 1 FROM events WHERE event_time >= '2024-01-19'"
    with open_engine(lake) as engine:
        monkeypatch.setattr(planner, "_table_of", lambda node: None)
        assert read(engine, sql)["events"] == ALL
        monkeypatch.undo()
        monkeypatch.setattr(planner, "_plain", lambda text: "((" + text)
        assert read(engine, sql)["events"] == ALL


def test_every_column_is_named_as_in_the_schema(engines: dict[str, DuckDBEngine]) -> None:
    for name, table in TABLES.items():
        (scan,) = engines["UTC"].plan(f"SELECT * FROM {name}").scans
        assert scan.columns == {column.name for column in table.columns}
    (scan,) = engines["UTC"].plan("SELECT role_arn FROM events WHERE service = 's3' AND bytes_out > 3").scans
    assert scan.columns == {"role_arn", "service", "bytes_out"}
