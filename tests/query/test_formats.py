"""Results in every format, and what a query reports without one: errors, reasons, explanations."""

# ruff: noqa: E501 (one case per line)

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from support.lakes import DAY, event, line, make_lake, open_engine
from trailsift.errors import QueryError, UsageError
from trailsift.query import FORMATS, DuckDBEngine, explain, why_empty, write

ROLE = "arn:aws:iam::111122223333:role/reports"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    days = [DAY + timedelta(days=n) for n in range(3)]
    events = [[event(day + timedelta(hours=h), role=ROLE, bytes_out=h) for h in range(20)] for day in days]
    hourly = [[line(day, role_arn=ROLE, resource_arn="arn:aws:s3:::logs", account_id="1")] for day in days]
    root = make_lake(tmp_path_factory.mktemp("formats") / "lake", {"events": events, "hourly": hourly})
    with open_engine(root) as engine:
        yield engine


def written(engine: DuckDBEngine, sql: str, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    write(engine.query(sql, cache=False), form, out, **options)
    return out.getvalue()


def value(engine: DuckDBEngine, expression: str) -> Any:
    (row,) = json.loads(written(engine, f"SELECT {expression} AS v", "json"))
    return row["v"]


@pytest.mark.parametrize(
    ("expression", "in_json", "in_python"),
    [
        ("NULL", None, None),
        ("true", True, True),
        ("170141183460469231731687303715884105727", 2**127 - 1, 2**127 - 1),
        ("9007199254740993", 9007199254740993, 9007199254740993),
        ("1.5::DOUBLE", 1.5, 1.5),
        ("0.1::DECIMAL(4, 2)", 0.1, Decimal("0.10")),
        ("7::DECIMAL(4, 0)", 7, Decimal(7)),
        ("'한 \"é\" \\ \n'", '한 "é" \\ \n', '한 "é" \\ \n'),
        ("TIMESTAMPTZ '2024-01-15 10:00:00.000001+09'", "2024-01-15T01:00:00.000001Z", datetime(2024, 1, 15, 1, 0, 0, 1, UTC)),
        ("TIMESTAMPTZ '1969-12-31 23:59:59.5+00'", "1969-12-31T23:59:59.500000Z", datetime(1969, 12, 31, 23, 59, 59, 500_000, UTC)),
        ("TIMESTAMP '2024-01-15 10:00:00'", "2024-01-15T10:00:00", datetime(2024, 1, 15, 10)),
        ("DATE '2024-01-15'", "2024-01-15", date(2024, 1, 15)),
        ("TIME '10:00:00'", "10:00:00", "10:00:00"),
        ("INTERVAL 1 MONTH", "1 month", "1 month"),
        ("'\\xAB'::BLOB", "AB", b"\xab"),
        ("'6e14b51f-75cb-4873-9e89-e01fc7f51425'::UUID", "6e14b51f-75cb-4873-9e89-e01fc7f51425", "6e14b51f-75cb-4873-9e89-e01fc7f51425"),
        ("[1, NULL, 3]", [1, None, 3], [1, None, 3]),
        ("[TIMESTAMPTZ '2024-01-15', NULL]", ["2024-01-15T00:00:00Z", None], [DAY, None]),
        ("{'a': 1, 'b': ['x']}", {"a": 1, "b": ["x"]}, {"a": 1, "b": ["x"]}),
        ("MAP {'a': 1}", {"a": 1}, {"a": 1}),
        ("[[1], [2]]", [[1], [2]], [[1], [2]]),
        ("'x'::ENUM('x', 'y')", "x", "x"),
    ],
)  # fmt: skip
def test_values(engine: DuckDBEngine, expression: str, in_json: Any, in_python: Any) -> None:
    assert value(engine, expression) == in_json
    found = engine.query(f"SELECT {expression}", cache=False).value()
    assert found == in_python
    assert type(found) is type(in_python)
    # The same from the cache.
    again = [engine.query(f"SELECT {expression} AS v", cache=True).rows() for _ in range(2)]
    assert again[0] == again[1] == [(in_python,)]


@pytest.mark.parametrize("expression", ["'nan'::DOUBLE", "'infinity'::FLOAT", "['nan'::DOUBLE][1]"])
def test_json_has_no_nan(engine: DuckDBEngine, expression: str) -> None:
    assert value(engine, expression) is None
    assert value(engine, "['nan'::DOUBLE, 1]") == [None, 1]


def test_times_in_another_zone(engine: DuckDBEngine) -> None:
    with open_engine(engine.snapshot.root, timezone="Asia/Seoul") as seoul:
        sql = "SELECT min(event_time) AS t, date_trunc('day', min(event_time)) AS d FROM events"
        assert json.loads(written(seoul, sql, "json")) == [
            {"t": "2024-01-15T09:00:00+09:00", "d": "2024-01-15T00:00:00+09:00"}
        ]
        moment = seoul.query(sql).rows()[0][0]
        assert moment == DAY
        assert moment.utcoffset() == timezone(timedelta(hours=9)).utcoffset(None)
        assert b"times in Asia/Seoul" in written(seoul, sql, "table")


def test_json_is_a_list_of_objects_one_row_per_line(engine: DuckDBEngine) -> None:
    text = written(engine, "SELECT i, 'x' AS s FROM range(3) t(i)", "json").decode()
    assert json.loads(text) == [{"i": i, "s": "x"} for i in range(3)]
    assert text.splitlines()[1] == '{"i": 0, "s": "x"},'
    assert json.loads(written(engine, "SELECT 1 WHERE false", "json")) == []


def test_repeated_column_names_are_numbered(engine: DuckDBEngine) -> None:
    sql = "SELECT 1 AS a, 2 AS a, 3 AS a_1, 4 AS a"
    (row,) = json.loads(written(engine, sql, "json"))
    assert row == {"a": 1, "a_2": 2, "a_1": 3, "a_3": 4}
    assert engine.query(sql, arrow=True).arrow().to_pylist() == [row]
    assert written(engine, sql, "csv").splitlines()[0] == b"a,a_2,a_1,a_3"


def test_csv_distinguishes_null_from_an_empty_text(engine: DuckDBEngine) -> None:
    assert written(engine, "SELECT NULL AS a, '' AS b, [] AS c, 'a\r' AS d", "csv") == b'a,b,c,d\n,"",[],"a\r"\n'


def test_csv(engine: DuckDBEngine) -> None:
    sql = """SELECT * FROM (VALUES (1, NULL, true, 'a,"b"', [1, 2]), (2, '', false, E'x\\ny', [])) t(n, e, b, s, l)"""
    rows = list(csv.reader(io.StringIO(written(engine, sql, "csv").decode())))
    assert rows == [
        ["n", "e", "b", "s", "l"],
        ["1", "", "true", 'a,"b"', "[1, 2]"],
        ["2", "", "false", "x\ny", "[]"],
    ]


@pytest.mark.parametrize("form", ["json", "csv", "arrow", "parquet"])
def test_machine_formats_are_complete(engine: DuckDBEngine, form: str) -> None:
    long = "x" * 5000
    data = written(engine, f"SELECT i, '{long}' AS s FROM range(12000) t(i)", form)
    if form == "json":
        rows = [(row["i"], row["s"]) for row in json.loads(data)]
    elif form == "csv":
        rows = [(int(row["i"]), row["s"]) for row in csv.DictReader(io.StringIO(data.decode()))]
    else:
        table = pa.ipc.open_stream(data).read_all() if form == "arrow" else pq.read_table(io.BytesIO(data))
        rows = list(zip(*(column.to_pylist() for column in table.columns), strict=True))
    assert rows == [(i, long) for i in range(12_000)]


def test_types_in_arrow_and_parquet(engine: DuckDBEngine) -> None:
    sql = "SELECT sum(bytes_out) AS h, min(event_time) AS t, list(DISTINCT role_arn) AS l FROM events"
    for form in ("arrow", "parquet"):
        data = written(engine, sql, form)
        table = pa.ipc.open_stream(data).read_all() if form == "arrow" else pq.read_table(io.BytesIO(data))
        assert table.schema.field("t").type == pa.timestamp("us", "UTC")
        assert table.to_pylist() == [{"h": Decimal(570), "t": DAY, "l": [ROLE]}]


def test_table_is_for_people(engine: DuckDBEngine) -> None:
    text = written(engine, "SELECT 'x' AS a, 12 AS n, NULL AS z", "table").decode()
    assert text.splitlines()[0].split() == ["a", "n", "z"]
    assert text.splitlines()[2].split() == ["x", "12", "-"]
    assert "1 row in" in text
    assert "times in UTC" in text
    wide = written(engine, "SELECT repeat('abc ', 100) AS a, 1 AS b", "table", width=40).decode()
    assert max(map(len, wide.splitlines()[:-1])) <= 40
    assert "long values are cut" in wide and wide.splitlines()[2].endswith("…   1")
    alone = written(engine, "SELECT repeat('abc ', 100) AS a", "table", width=40).decode()
    assert (
        "".join(line.lstrip() for line in alone.splitlines()).replace(" ", "").count("abc") == 100
        and max(map(len, alone.splitlines()[:-1])) <= 40
    )
    many = written(engine, "SELECT i FROM range(2500) t(i)", "table").decode()
    assert "the first 1,000 of 2,500 rows" in many
    assert len(written(engine, "SELECT i FROM range(2500) t(i)", "table", max_rows=None).splitlines()) > 2500
    assert written(engine, "SELECT 1 WHERE false", "table").startswith(b"0 rows in")


def test_log_text_cannot_control_a_terminal(engine: DuckDBEngine) -> None:
    text = written(
        engine, "SELECT chr(27) || '[31mred' || chr(8238) || chr(10) || '[bold]x[/bold]' AS a", "table"
    ).decode()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\\u001b[31mred\\u202e\\n[bold]x[/bold]" in text


def test_streams_and_formats(engine: DuckDBEngine) -> None:
    result = engine.query("SELECT 'é' AS a")
    text = io.StringIO()
    assert write(result, "json", text) == 1
    assert json.loads(text.getvalue()) == [{"a": "é"}]
    latin = io.TextIOWrapper(raw := io.BytesIO(), encoding="latin-1")
    write(result, "csv", latin)
    assert raw.getvalue() == "a\né\n".encode()
    with pytest.raises(UsageError, match="binary stream"):
        write(result, "parquet", io.StringIO())
    with pytest.raises(UsageError, match="table, line, json, csv, parquet, arrow"):
        write(result, "xml", text)
    assert FORMATS == ("table", "line", "json", "csv", "parquet", "arrow")


def test_json_and_csv_load_nothing_heavy(engine: DuckDBEngine, tmp_path: Path) -> None:
    program = (
        # pandas and numpy: DuckDB's client imports them as soon as a parameter is bound. duckdb: its Python package
        # reads metadata and opens a database of its own.
        "import sys; from pathlib import Path; from trailsift.query import DuckDBEngine, write;"
        "from trailsift.lake.open import open_snapshot;"
        "e = DuckDBEngine(open_snapshot(Path(sys.argv[1])));"
        "sql = 'SELECT event_time, role_arn FROM events WHERE hash(bytes_out) % 2 < 2 LIMIT 2';"
        "[write(e.query(sql), f, sys.stdout.buffer) for f in ('json', 'csv')]; e.close();"
        "heavy = {'pyarrow', 'numpy', 'pandas', 'rich', 'pytz', 'pyiceberg', 'sqlglot', 'duckdb'} & set(sys.modules);"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(engine.snapshot.root)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "2024-01-15T00:00:00Z" in done.stdout


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELEC 1", 'syntax error at or near "SELEC" (line 1, column 1)\n  SELEC 1\n  ^'),
        ("SELECT *\nFROM events\nWHRE x = 1", "(line 3, column 6)\n  WHRE x = 1\n       ^"),
        ("SELECT 'a", "unterminated quoted string"),
        ("SELECT * FROM evnts", "there is no table evnts (line 1, column 15)"),
        ("SELECT * FROM evnts", "did you mean events? (tables: events, hourly"),
        ("SELECT * FROM cloudtrail_data_events", "did you mean events?"),
        ("WITH mine AS (SELECT 1) SELECT * FROM mien", "did you mean mine?"),
        ("SELECT rolearn FROM events", "there is no column rolearn (line 1, column 8)"),
        ("SELECT rolearn FROM events", "did you mean role_arn?"),
        ("SELECT eventName FROM events", "did you mean event_name?"),
        ("SELECT e.sourceIPAddress FROM events e", "did you mean source_ip?"),
        ("SELECT userIdentity.arn FROM events", "did you mean principal_arn?"),
        ("SELECT useridentity.type FROM events", "did you mean principal_type?"),
        ("SELECT 'é한', bytesout FROM events", "(line 1, column 14)\n  SELECT 'é한', bytesout FROM events\n               ^"),
        ("SELECT eventcount FROM hourly_summary", "did you mean event_count?"),
        ("SELECT lenght('a')", "there is no function lenght (line 1, column 8)"),
        ("SELECT distinct_cuont([1])", "did you mean distinct_count?"),
        ("SELECT sum(bytes_out), role_arn FROM events", 'must appear in the GROUP BY'),
        ("SELECT 'x'::INT FROM events", "Could not convert string 'x' to INT32 (line 1, column 11)"),
        ("SELECT event_name::INT FROM events", "Could not convert string 'GetObject' to INT32"),
        ("SELECT * FROM events WHERE event_time > 'yesterdayish'", "invalid timestamp"),
        ("SELECT * FROM events a JOIN events b ON role_arn = 'x'", "Ambiguous reference"),
        ("SELECT 2::BIGINT ** 63 :: INT, 9223372036854775807 + bytes_out FROM events WHERE bytes_out = 3", "Overflow in addition"),
        ("SELECT substr(1, 2, 3, 4)", "No function matches"),
        ("SELECT event_time, FROM events WHERE event_time >", "syntax error at end of input (line 1, column 50)"),
        ("SELECT " + "x, " * 100 + "rolearn FROM events", "there is no column x (line 1, column 8)"),
    ],
)  # fmt: skip
def test_wrong_sql(engine: DuckDBEngine, sql: str, message: str) -> None:
    with pytest.raises(QueryError) as caught:
        engine.query(sql)
    assert message in str(caught.value)
    assert "{" not in str(caught.value).split("\n")[0]


def test_a_long_line_keeps_its_caret_visible(engine: DuckDBEngine) -> None:
    sql = f"SELECT {'1, ' * 200} rolearn FROM events"
    with pytest.raises(QueryError) as caught:
        engine.query(sql)
    _, shown, caret, _ = str(caught.value).split("\n")
    assert len(shown) <= 122
    assert shown[caret.index("^") :].startswith("rolearn")


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("FROM events WHERE event_time >= '2025-01-01'", "covers 2024-01-15..2024-01-17 UTC, but the statement asks for 2025-01-01 and later"),
        ("FROM events WHERE event_time < '2023-05-01'", "asks for 2023-0"),
        ("FROM events WHERE year = '2023' AND month = '05'", "asks for 2023-05-01..2023-05-31"),
        ("FROM hourly_summary WHERE hour > now() - INTERVAL 7 DAY", "The table hourly covers 2024-01-15..2024-01-17 UTC"),
        ("FROM events WHERE service = 'S3'", "No event has the service 'S3'; there is 's3'."),
        ("FROM events WHERE event_name = 'GetObjects'", "there is 'GetObject'"),
        ("FROM events WHERE role_arn = 'reports'", f"No event has the role_arn 'reports'; there is '{ROLE}'."),
        ("FROM events WHERE resource_arn = 'logs'", "there is 'arn:aws:s3:::logs'"),
        ("FROM events WHERE account_id = '2'", "there are 1"),
        ("FROM rejects", "The table rejects is empty: nothing was rejected."),
        ("FROM usage", "The table usage is empty: nothing has been ingested yet"),
        ("FROM events WHERE bytes_out > 1000", "3 files that may hold such rows were read, and no row meets all of bytes_out>1000."),
        ("FROM events WHERE lower(event_name) = 'x' OR bytes_out < 0", "All 3 files were read"),
        ("SELECT 1 WHERE false", "reads no table"),
        ("FROM events WHERE event_time > '2024-01-17' AND event_time < '2024-01-16'", "contradict each other"),
    ],
)  # fmt: skip
def test_zero_rows_say_why(engine: DuckDBEngine, sql: str, reason: str) -> None:
    result = engine.query(sql, cache=False)
    assert result.rows() == []
    assert reason in why_empty(engine, result)


def test_explain(engine: DuckDBEngine) -> None:
    explanation = explain(
        engine, "SELECT role_arn, sum(bytes_out) FROM events WHERE event_time >= '2024-01-17' GROUP BY 1"
    )
    (table,) = explanation.tables
    assert (table.table, table.files, table.of_files) == ("events", 1, 3)
    assert table.columns == ("bytes_out", "event_time", "role_arn")
    assert 0 < table.read_bytes < table.bytes < table.of_bytes
    assert (table.row_groups, table.of_row_groups) == (1, 1)
    assert explanation.athena_bytes == 10_000_000
    assert explanation.athena_dollars == pytest.approx(0.00005)
    text = str(explanation)
    assert "events: 1 of 3 files" in text
    assert "Athena would scan about 10 MB and charge $0.00005" in text
    assert json.loads(json.dumps(explanation.as_dict()))["tables"][0]["files"] == 1
    assert str(explain(engine, "SELECT 1")) == "no table is read"
    with pytest.raises(QueryError):
        explain(engine, "DROP VIEW events")


def test_explain_skips_row_groups(tmp_path: Path) -> None:
    rows = [event(DAY + timedelta(seconds=s)) for s in range(3000)]
    root = make_lake(tmp_path / "lake", {"events": [rows]})
    (file,) = root.rglob("*.parquet")
    pq.write_table(pq.read_table(file, partitioning=None), file, row_group_size=1000)
    with open_engine(root) as engine:
        (table,) = explain(engine, "SELECT event_id FROM events WHERE event_time > '2024-01-15 00:40'").tables
        assert (table.row_groups, table.of_row_groups) == (1, 3)
        assert engine.query("SELECT count(*) FROM events WHERE event_time > '2024-01-15 00:40'").value() == 599


def test_explain_estimates_from_a_sample_of_many_files(engine: DuckDBEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = explain(engine, "SELECT role_arn FROM events")
    monkeypatch.setattr("trailsift.query.explanation._FOOTERS", 2)
    about = explain(engine, "SELECT role_arn FROM events")
    assert about.estimated
    assert not exact.estimated
    assert about.read_bytes == pytest.approx(exact.read_bytes, rel=0.2)
    assert "reads about" in str(about)
