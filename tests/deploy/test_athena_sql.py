"""SQL for Athena: derived from the schema, valid in Trino's grammar, and with our rows on a real Trino."""

from __future__ import annotations

import itertools
import json
import re
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
import sqlglot
from sqlglot import exp

from support.raw_table import into_trino
from support.trino import Trino
from trailsift import schema
from trailsift.cli import main
from trailsift.decode.envelope import find_records
from trailsift.deploy import athena_sql, glue_requests, tables
from trailsift.deploy.raw_columns import FROM_RAW
from trailsift.deploy.tables import StackConfig
from trailsift.errors import UsageError
from trailsift.generate import Options, generate

CONFIG = StackConfig(
    accounts=("123456789012", "210987654321"), regions=("us-east-1", "ap-northeast-2"), since=date(2026, 3, 2)
)
STATEMENTS = {statement.name: statement for statement in athena_sql.statements(CONFIG)}
#: Statements that only Athena has, not Trino.
ATHENA_ONLY = re.compile(r"database|raw|accounts|landing|lake_\w+|optimize_\w+|vacuum_\w+")


@pytest.mark.parametrize("name", STATEMENTS)
def test_statements_are_grammatical(name: str) -> None:
    if re.match("optimize|vacuum", name):
        assert re.fullmatch(r"OPTIMIZE \S+ REWRITE DATA USING BIN_PACK|VACUUM \S+", STATEMENTS[name].text)
        return
    for dialect in ("athena",) if ATHENA_ONLY.fullmatch(name) else ("athena", "trino"):
        (parsed,) = sqlglot.parse(STATEMENTS[name].text, dialect=dialect)
        assert parsed is not None and not isinstance(parsed, exp.Command), dialect


def test_tables_have_the_columns_of_the_schema() -> None:
    for table in schema.TABLES.values():
        (parsed,) = sqlglot.parse(tables.iceberg(CONFIG, table), dialect="athena")
        assert parsed is not None
        columns = parsed.find(exp.Schema)
        assert columns is not None
        assert [column.name for column in columns.expressions] == [column.name for column in table.columns]
    landed = re.findall(r"^  (\w+) \S+?,?$", tables.landing(CONFIG).partition("PARTITIONED")[0], re.MULTILINE)
    assert [*landed, *tables.LANDING_PARTITIONS[:3], "service"] == [c.name for c in schema.EVENTS.columns]
    assert set(FROM_RAW) <= {column.name for column in schema.EVENTS.columns}
    assert list(FROM_RAW)[-4:] == list(schema.EVENTS.partition), "Hive: partition columns last, in order"


def test_hours_are_known_again_by_equality() -> None:
    """A second run of MERGE changes nothing: NULL equals NULL, and only NULL, in every key."""
    (merge,) = sqlglot.parse(STATEMENTS["hourly"].text, dialect="trino")
    assert isinstance(merge, exp.Merge)
    condition = merge.args["on"]
    assert not list(condition.find_all(exp.NullSafeEQ))
    keys = {column.name for column in condition.find_all(exp.Column)}
    assert keys == set(schema.HOURLY.keys)
    filled = {"hour": "TIMESTAMP '2026-03-02 01:00:00'", "caller": "'none'", "category": "'Data'"}
    values = {
        column.name: ("NULL", "true", "false") if column.type == "bool" else ("NULL", "''", "'a'")
        for column in schema.HOURLY.columns
        if column.name in keys - filled.keys()
    }
    base = {name: filled.get(name, "NULL") for name in schema.HOURLY.keys}
    rows = [base, *(base | {name: value} for name, each in values.items() for value in each[1:])]
    listed = ", ".join(f"({number}, {', '.join(row.values())})" for number, row in enumerate(rows))
    table = f"(VALUES {listed}) AS {{}} (number, {', '.join(base)})"
    sql = (
        f"SELECT known.number, new.number FROM {table.format('known')} JOIN {table.format('new')} ON {condition.sql()}"
    )
    with duckdb.connect() as db:
        assert sorted(db.execute(sql).fetchall()) == [(number, number) for number in range(len(rows))]


def test_no_statement_writes_more_partitions_than_athena_does() -> None:
    for services in (1, 3, 8, 60, 200):
        parts = list(athena_sql.chunks(date(2026, 1, 1), date(2026, 4, 1), services))
        assert parts[0][0] == date(2026, 1, 1) and parts[-1][1] == date(2026, 4, 1)
        assert all(first[1] == second[0] for first, second in itertools.pairwise(parts))
        # A day of delivery holds events of the day before.
        most = max(((end - since).days + 1) * services for since, end in parts)
        assert most <= athena_sql.PARTITIONS or all(end - since == timedelta(1) for since, end in parts)


@pytest.mark.parametrize(
    "wrong",
    [{"trail": "x'; DROP"}, {"bucket": "UPPER"}, {"database": "a-b"}, {"accounts": ("1",)}, {"regions": ("moon",)}],
)
def test_invalid_names_never_reach_sql(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not a valid"):
        StackConfig(**wrong).checked()


BUCKETS = {
    "ab": "2 characters", "a" * 64: "64 characters", "My-Logs": "small letters", "my_logs": "small letters",
    "-logs": "begin and end", "logs.": "begin and end", "a..b": "two dots", "192.168.5.4": "IP address",
    "xn--logs": "begin with xn--", "logs-s3alias": "end with -s3alias", "logs--x-s3": "end with --x-s3",
    "s3://logs": "small letters", "로그": "2 characters",
}  # fmt: skip


@pytest.mark.parametrize("name", BUCKETS)
def test_a_bucket_that_s3_refuses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each rule of S3 in words, for both buckets."""
    words = ["aws", "sql", "--account", "111122223333", "--region", "eu-west-1", "--only", "raw"]
    for options in ([f"--trail={name}"], ["--trail", "good-logs", f"--bucket={name}"]):
        assert main([*words, *options]) == 2
        said = capsys.readouterr().err
        assert "is not a valid bucket name" in said and BUCKETS[name] in said and "Traceback" not in said
    assert main([*words, "--trail", "good.logs-1/prefix"]) == 0


def test_an_account_has_twelve_digits(capsys: pytest.CaptureFixture[str]) -> None:
    for account in ("12345", "1234-5678-9012", "\N{FULLWIDTH DIGIT ONE}23456789012"):
        assert main(["aws", "sql", "--trail", "good-logs", "--account", account]) == 2
        assert "is not a valid account: it has 12 digits" in capsys.readouterr().err


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["aws", "sql", "--trail", "t-bucket/logs", "--account", "111122223333", "--region", "eu-west-1"]
    assert main([*words, "--only", "raw"]) == 0
    out = capsys.readouterr().out
    assert "LOCATION 's3://t-bucket/logs/AWSLogs/'" in out and "'projection.account.values'='111122223333'" in out
    assert main([*words, "--from", "2026-02-01", "--to", "2026-02-01"]) == 2
    assert main([*words, "--day", "2026-02-01", "--to", "2026-02-01"]) == 2
    capsys.readouterr()
    assert main([*words, "--day", "2026-02-01", "--only", "load", "--only", "hourly"]) == 0
    out = capsys.readouterr().out
    assert "day >= '2026/02/01' AND day < '2026/02/02'" in out and out.count("MERGE INTO") == 2
    assert main([*words, "--only", "everything"]) == 2
    assert "'everything'" in capsys.readouterr().err
    assert main([*words, "--json"]) == 0
    assert [statement["name"] for statement in json.loads(capsys.readouterr().out)][:3] == [
        "database",
        "raw",
        "accounts",
    ]


def _valid(operation: str, request: dict[str, Any]) -> None:
    session = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    shape = session.get_session().get_service_model("glue").operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()


def test_glue_accepts_the_requests(capsys: pytest.CaptureFixture[str]) -> None:
    folder = "landing/year=2026/month=01/day=15/hour={}/service={}/x.gz"
    services = ("s3", "lambda", "dynamodb", "sns", "sqs")
    keys = [folder.format(f"{hour:02}", name) for hour in range(24) for name in services]
    requests = list(glue_requests.partitions(CONFIG, [*keys, *keys, folder.format("00", "_dropped")]))
    assert [len(request["PartitionInputList"]) for request in requests] == [100, 20]
    for request in requests:
        _valid("BatchCreatePartition", request)
    assert requests[0]["PartitionInputList"][0]["Values"] == ["2026", "01", "15", "00", "dynamodb"]
    _valid("CreateCrawler", glue_requests.crawler(CONFIG, "arn:aws:iam::123456789012:role/Crawler"))
    with pytest.raises(UsageError, match="not in a folder"):
        list(glue_requests.partitions(CONFIG, ["AWSLogs/x.gz"]))
    assert main(["aws", "glue", keys[0]]) == 0
    assert json.loads(capsys.readouterr().out)["TableName"] == "landing"
    assert main(["aws", "glue"]) == 2


# -- a real Trino ----------------------------------------------------------------------------------------------------


def test_trino_parses_the_statements(trino: Trino) -> None:
    for name, statement in STATEMENTS.items():
        if not ATHENA_ONLY.fullmatch(name):
            trino.parse(statement.text)


#: A database in Trino's Iceberg catalog; the raw table is in memory.
LAKE = StackConfig(database="lake", since=date(2026, 3, 2))
#: Services whose resources Athena does not derive.
OTHERS = ("sns", "sqs", "kinesis", "bedrock")
RESOURCES = ("resource_type", "resource_arn", "resource_account", "object_key")


def _in_iceberg(text: str) -> str:
    return text.replace("lake.cloudtrail_raw", "memory.default.cloudtrail_raw")


def _create_tables(trino: Trino) -> None:
    """Create the lake's tables as Athena's DDL does, in Trino's words for the same."""
    kinds = {"timestamp": "timestamp(6)", "string": "varchar", "bool": "boolean", "int64": "bigint"}
    kinds |= {"list<string>": "array(varchar)", "list<int64>": "array(bigint)"}
    trino.run_iceberg("CREATE SCHEMA IF NOT EXISTS iceberg.lake")
    for table in (schema.EVENTS, schema.HOURLY):
        columns = ", ".join(f"{column.name} {kinds.get(column.type, column.type)}" for column in table.columns)
        fields = ", ".join(f"'{name}'" for name in (*table.partition, f"day({table.time})"))
        trino.run_iceberg(f"DROP TABLE IF EXISTS lake.{table.name}")
        trino.run_iceberg(f"CREATE TABLE lake.{table.name} ({columns}) WITH (partitioning = ARRAY[{fields}])")


def _raw(trino: Trino, records: list[tuple[str, dict[str, Any]]]) -> None:
    for table in ("cloudtrail_raw", "cloudtrail_raw_given"):
        trino.run(f"DROP TABLE IF EXISTS {table}")
    into_trino(trino, "cloudtrail_raw", records)


def _run(trino: Trino, name: str, until: date = date(2026, 3, 22)) -> None:
    for statement in athena_sql.statements(LAKE, until):
        if re.fullmatch(rf"{name}(_\d+)?", statement.name):
            trino.run_iceberg(_in_iceberg(statement.text))


def _all(trino: Trino, table: str) -> list[list[str]]:
    names = ", ".join(column.name for column in schema.TABLES[table].columns)
    return sorted(trino.run_iceberg(f"SELECT {names} FROM lake.{table}"))


def _delivered(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    records = []
    for path in sorted(folder.rglob("*.json.gz")):
        delivered = re.search(r"_(\d{8}T\d{4}Z)_", path.name)
        assert delivered
        records += [(delivered[1], json.loads(bytes(raw))) for raw in find_records(path.read_bytes()).records]
    return records


def test_trino_gives_the_rows_of_the_lake(trino: Trino, tmp_path: Path) -> None:
    """Log files -> events -> hourly -> hourly_summary on Trino: the same rows as ``ingest`` and DuckDB."""
    from trailsift.ingest import ingest
    from trailsift.lake.open import open_snapshot
    from trailsift.query import DuckDBEngine

    generate(tmp_path / "logs", Options(events=500, days=4, seed=5))
    records = _delivered(tmp_path / "logs")
    data = [(day, record) for day, record in records if record.get("eventCategory") == "Data"]
    whole = tmp_path / "data.json"
    whole.write_text(json.dumps({"Records": [record for _, record in data]}))
    ingest([str(whole)], tmp_path / "lake")

    # Values of other kinds stop nothing; without a time, a record counts as malformed.
    odd = dict(data[0][1], eventID="odd", readOnly="perhaps", additionalEventData={"bytesTransferredIn": "many"})
    _raw(trino, [*records, *records[:100], (records[0][0], dict(odd, eventTime="yesterday"))])
    assert sum(statement.name.startswith("load") for statement in athena_sql.statements(LAKE, date(2026, 3, 22))) > 1
    _create_tables(trino)
    for name, table in (("load", "events"), ("hourly", "hourly")):
        _run(trino, name)
        first = _all(trino, table)
        _run(trino, name)
        assert _all(trino, table) == first, "a second run changes nothing"
    files = 'SELECT file_path FROM lake."hourly$files" ORDER BY 1'
    before = trino.run_iceberg(files)
    _run(trino, "hourly")
    assert trino.run_iceberg(files) == before and before, "and writes nothing"
    count = "SELECT count(*), count(DISTINCT event_id) FROM lake.events"
    assert trino.run_iceberg(count) == [[str(len(data))] * 2]

    wide = ("log_object", "request_parameters", "response_elements", "additional_event_data", "event_time", "weight")
    names = [name for name in FROM_RAW if name not in (*wide, *RESOURCES)]
    others = ", ".join(f"'{name}'" for name in OTHERS)
    listed = ", ".join([*names, *(f"if(service IN ({others}), NULL, {name}) AS {name}" for name in RESOURCES)])
    shown = [*names, *RESOURCES]
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as engine:
        theirs = trino.run_iceberg(f"SELECT {listed}, date_format(event_time, '%Y-%m-%d %H:%i:%s') FROM lake.events")
        ours = _texts(engine.sql(f"SELECT {listed}, strftime(event_time, '%Y-%m-%d %H:%M:%S') FROM events"))
        pairs = zip(sorted(theirs), ours, strict=True)
        differ = {(name, a, b) for row, other in pairs for name, a, b in zip(shown, row, other, strict=False) if a != b}
        assert not differ

        seen = ", ".join(f"'{name}'" for name in ("s3", "lambda", "dynamodb"))
        keys = ["date_format(hour, '%Y-%m-%d %H')", *schema.HOURLY.keys[1:], "events", "bytes_in", "bytes_out"]
        sketches = [f"array_join({name}, ',')" for name in ("source_ips", "object_keys")]
        where = f"FROM lake.hourly WHERE service IN ({seen})"
        theirs = trino.run_iceberg(f"SELECT {', '.join([*keys, *sketches])} {where}")
        keys[0] = "strftime(hour, '%Y-%m-%d %H')"
        sketches = [f"array_to_string({name}, ',')" for name in ("source_ips", "object_keys")]
        where = where.replace("lake.", "")
        assert sorted(theirs) == _texts(engine.sql(f"SELECT {', '.join([*keys, *sketches])} {where}"))

        statements = athena_sql.statements(LAKE)
        (view,) = [each.text.partition("AS\n")[2] for each in statements if each.name == "summary"]
        counts = "eventname, event_count, unique_ips"
        theirs = trino.run_iceberg(f"SELECT date_format(hour, '%Y-%m-%d %H'), {counts} FROM ({view}) AS view")
        ours = engine.sql(f"SELECT strftime(hour, '%Y-%m-%d %H'), {counts} FROM hourly_summary")
        assert sorted(theirs) == _texts(ours)


def test_a_second_run_of_nulls_changes_nothing(trino: Trino, tmp_path: Path) -> None:
    """Columns that are NULL in all rows: Trino's IS NOT DISTINCT FROM would match none of them."""
    generate(tmp_path / "logs", Options(events=200, days=2, seed=6))
    records = _delivered(tmp_path / "logs")
    plain = [
        (path, {name: value for name, value in record.items() if name not in ("errorCode", "resources", "readOnly")})
        for path, record in records
    ]
    for number, (_, record) in enumerate(plain):
        record.update(eventSource="newservice.amazonaws.com", eventCategory="Data", userIdentity=None)
        if number % 2:
            record.pop("eventID")
    _raw(trino, plain)
    _create_tables(trino)
    for name, table in (("load", "events"), ("hourly", "hourly")):
        _run(trino, name, date(2026, 3, 6))
        first = _all(trino, table)
        _run(trino, name, date(2026, 3, 6))
        assert _all(trino, table) == first and first
    ids = "SELECT count(*), count(DISTINCT event_id), count_if(event_id LIKE 'content-%') > 0 FROM lake.events"
    ((rows, distinct, derived),) = trino.run_iceberg(ids)
    assert rows == distinct and int(rows) > 100 and derived == "true"
    keys = "SELECT count(error_code), count(resource_arn), min(service), max(caller) FROM lake.hourly"
    assert trino.run_iceberg(keys) == [["0", "0", "newservice", "none"]]


def _texts(result: Any) -> list[list[str]]:
    words = {None: "null", True: "true", False: "false"}
    return sorted(
        [words[value] if value is None or isinstance(value, bool) else str(value) for value in row]
        for row in result.rows()
    )
