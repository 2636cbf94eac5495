"""The Athena engine: translation with partitions, running, polling, stopping, cost."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlglot

from trailsift.cli import main
from trailsift.errors import EngineError, QueryError
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.query.athena import Athena, cost_of
from trailsift.query.trino_sql import partitions, translate

TRANSLATED = {
    "SELECT event_name, count(*) AS n FROM events GROUP BY ALL ORDER BY n DESC": "GROUP BY 1 ORDER BY n DESC",
    "SELECT date_trunc('hour', event_time) AS h, count(*) FROM events GROUP BY h": "GROUP BY 1",
    "SELECT service, sum(events)::BIGINT FROM hourly GROUP BY service": "CAST(SUM(events) AS BIGINT)",
    "SELECT 1 FROM events WHERE event_time >= '2026-03-02T09:00+09:00'": "CAST('2026-03-02 00:00:00' AS TIMESTAMP)",
    "SELECT count(*) FROM usage WHERE day = '2026-03-02'": "day = CAST('2026-03-02' AS DATE)",
    "SELECT count(*) FROM events WHERE day = '02'": "day = '02'",
    "WITH a AS (SELECT role_arn FROM events) SELECT * FROM a": "FROM trailsift.events AS events) SELECT * FROM a",
    "SELECT distinct_count(merge_sketches(list(source_ips))) FROM hourly": "SLICE(ARRAY_SORT(ARRAY_DISTINCT(FLATTEN(",
    "SELECT request_parameters->>'$.bucketName' FROM events": "JSON_EXTRACT_SCALAR(request_parameters, '$.bucketName')",
    "SELECT role_arn, sum(weight) AS weight2 FROM events GROUP BY 1 HAVING weight2 > 1": "HAVING (SUM(weight)) > 1",
    "WITH a AS (SELECT service, sum(events) AS n FROM hourly GROUP BY 1) SELECT sum(n) AS n FROM a HAVING sum(n) > 0": (
        "HAVING SUM(n) > 0"
    ),
    "WITH n AS (SELECT caller AS n, min(hour) AS h FROM hourly GROUP BY 1) SELECT n, n.h FROM n ORDER BY n.h": (
        "ORDER BY 2"
    ),
    "SELECT role_arn FROM events QUALIFY row_number() OVER (ORDER BY event_time) = 1": "WHERE _w = 1",
}


@pytest.mark.parametrize("asked", TRANSLATED)
def test_translated(asked: str) -> None:
    text = translate(asked, "trailsift").sql
    assert TRANSLATED[asked] in text and "MERGE_SKETCHES" not in text
    sqlglot.parse_one(text, dialect="trino")


REFUSED = {
    "SELECT * EXCLUDE (rest) FROM events": r"\* EXCLUDE \(rest\)",
    "SELECT quantile_cont(bytes_out, 0.5) FROM events": "only approx_percentile",
    "SELECT median(bytes_out) FROM events": "only approx_percentile",
    "SELECT list_zip(resource_arns, resource_arns) FROM events": "the function list_zip",
    "SELECT * FROM read_csv('x')": "the table function",
    "SELECT DISTINCT ON (role_arn) * FROM events": "DISTINCT ON",
    "SELECT * FROM events ORDER BY ALL": "ORDER BY ALL",
    "SELECT * FROM secrets": "no table secrets",
    "SELECT * FROM other.events": r"no table other\.events",
    "DROP TABLE events": "only queries",
    "SELECT 1; SELECT 2": "one statement",
    "SELECT FROM WHERE": "cannot parse",
    "SELECT count(*) FROM events WHERE event_time > 'yesterday'": "'yesterday' is not a valid time",
}


@pytest.mark.parametrize("asked", REFUSED)
def test_parts_that_cannot_be_translated_are_named(asked: str) -> None:
    with pytest.raises(QueryError, match=REFUSED[asked]):
        translate(asked, "trailsift")


WHERES = [
    "event_time >= '2026-03-02' AND event_time < '2026-03-03'",
    "event_time BETWEEN '2026-03-02T10:00:00' AND '2026-03-03T01:00:00' AND service = 's3'",
    "'2026-03-03' <= event_time",
    "event_time = '2026-03-02T00:00:41'",
    "(event_time > '2026-03-03T12:00:00') AND read_only",
    "event_time >= '2026-03-03' OR service = 's3'",
    "NOT event_time >= '2026-03-03'",
]


@pytest.mark.parametrize("where", WHERES)
def test_partition_conditions_lose_no_row(where: str, small_lake: Path) -> None:
    """Every row that meets the statement's own condition meets the added one."""
    added = translate(f"SELECT count(*) FROM events WHERE {where}", "trailsift").partitions
    assert bool(added) == ("OR" not in where and "NOT" not in where)
    with DuckDBEngine(open_snapshot(small_lake)) as engine:
        alone = engine.sql(f"SELECT count(*) FROM events WHERE {where}").value()
        partitioned = " AND ".join(added) or "true"
        both = engine.sql(f"SELECT count(*) FROM events WHERE ({where}) AND {partitioned}").value()
    assert alone == both


def test_partitions_of_long_times() -> None:
    def at(text: str) -> datetime:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)

    assert partitions(at("2026-03-02"), at("2026-03-02T23:00")) == "year = '2026' AND month = '03' AND day = '02'"
    whole = partitions(at("2025-12-20"), at("2026-02-10"))
    assert "(year = '2026' AND month = '01')" in whole and "day BETWEEN '20' AND '31'" in whole
    assert partitions(at("2020-01-01"), at("2026-01-01")) == "year >= '2020' AND year <= '2026'"
    assert partitions(None, at("2026-01-01")) == "year <= '2026'"
    assert partitions(at("2026-01-02"), at("2026-01-01")) == "year = ''"
    assert partitions(None, None) == ""


# -- running ---------------------------------------------------------------------------------------------------------


class Api:
    """Athena by its API; botocore's own rules check the requests."""

    def __init__(self, *states: dict[str, Any], rows: int = 2_500) -> None:
        self.states = list(states)
        self.rows = [[str(at), f"2026-03-02 10:30:00.{at % 1000:03d} UTC", None, "true"] for at in range(rows)]
        self.requests: list[dict[str, Any]] = []
        self.stopped: list[str] = []

    def _check(self, operation: str, request: dict[str, Any]) -> None:
        session = pytest.importorskip("botocore.session")
        from botocore.validate import ParamValidator

        shape = session.get_session().get_service_model("athena").operation_model(operation).input_shape
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), report.generate_report()

    def start_query_execution(self, **request: Any) -> dict[str, Any]:
        self._check("StartQueryExecution", request)
        self.requests.append(request)
        return {"QueryExecutionId": "q1"}

    def get_query_execution(self, **request: Any) -> dict[str, Any]:
        self._check("GetQueryExecution", request)
        state = self.states.pop(0) if len(self.states) > 1 else self.states[0]
        return {"QueryExecution": state}

    def get_query_results(self, **request: Any) -> dict[str, Any]:
        self._check("GetQueryResults", request)
        kinds = {"n": "bigint", "at": "timestamp with time zone", "nothing": "varchar", "yes": "boolean"}
        start = int(request.get("NextToken", 0))
        header = [] if start else [list(kinds)]
        rows = header + self.rows[start : start + 1000 - len(header)]
        end = start + len(rows) - len(header)
        page: dict[str, Any] = {
            "ResultSet": {
                "Rows": [{"Data": [{} if cell is None else {"VarCharValue": cell} for cell in row]} for row in rows],
                "ResultSetMetadata": {"ColumnInfo": [{"Name": name, "Type": kind} for name, kind in kinds.items()]},
            }
        }
        return page | ({"NextToken": str(end)} if end < len(self.rows) else {})

    def stop_query_execution(self, **request: Any) -> dict[str, Any]:
        self._check("StopQueryExecution", request)
        self.stopped.append(request["QueryExecutionId"])
        return {}

    def get_work_group(self, **request: Any) -> dict[str, Any]:
        return {"WorkGroup": {"Configuration": {"BytesScannedCutoffPerQuery": 10**12}}}


def state(name: str, reason: str = "", **error: Any) -> dict[str, Any]:
    return {
        "Status": {"State": name, "StateChangeReason": reason, "AthenaError": error},
        "Statistics": {"DataScannedInBytes": 3_000_000_000},
    }


def test_a_result_of_many_pages() -> None:
    pauses: list[float] = []
    api = Api(state("QUEUED"), *[state("RUNNING")] * 12, state("SUCCEEDED"))
    athena = Athena("work", client=api, sleep=pauses.append)
    rows = athena.query("SELECT * FROM events").rows()
    assert len(rows) == 2_500 and rows[7][0] == 7 and rows[7][2:] == (None, True)
    assert rows[7][1] == datetime(2026, 3, 2, 10, 30, 0, 7_000, tzinfo=UTC)
    assert pauses[0] < pauses[1] < pauses[5] <= pauses[-1] == 5.0
    assert athena.cost is not None and athena.cost.usd == pytest.approx(0.015)
    assert len(api.requests[0]["ClientRequestToken"]) >= 32 and not api.stopped


def test_ctrl_c_stops_the_query_in_athena_too() -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    api = Api(state("RUNNING"))
    with pytest.raises(KeyboardInterrupt):
        Athena("work", client=api, sleep=interrupted).query("SELECT * FROM events")
    assert api.stopped == ["q1"]


@pytest.mark.parametrize(
    ("end", "kind", "said"),
    [
        (state("FAILED", "SYNTAX_ERROR: line 1:8: Column 'x' ...", ErrorCategory=2), QueryError, "Column 'x'"),
        (state("FAILED", "internal", ErrorCategory=1), EngineError, "Athena failed: internal"),
        (
            state("CANCELLED", "Bytes scanned limit was exceeded"),
            EngineError,
            r"limit was exceeded.*3,000,000,000 bytes",
        ),
    ],
)
def test_failures(end: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Athena("work", client=Api(end)).query("SELECT * FROM events")


def test_cost() -> None:
    assert cost_of(1).usd == pytest.approx(5e-5), "10 MB at least"
    assert cost_of(2 * 10**12).usd == pytest.approx(10)
    assert cost_of(10**12, reused=True).usd == 0


# -- against an emulator ---------------------------------------------------------------------------------------------


def test_the_command_against_moto(on_moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    cells = [["event_name", "n"], ["GetObject", "41"], ["PutObject", "7"]]
    answer = {
        "rows": [{"Data": [{"VarCharValue": cell} for cell in row]} for row in cells],
        "column_info": [_column("event_name", "varchar"), _column("n", "bigint")],
    }
    body = json.dumps({"account_id": "123456789012", "region": "us-east-1", "results": [answer]}).encode()
    url = f"{on_moto}/moto-api/static/athena/query-results"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    urllib.request.urlopen(request, timeout=10).close()
    sql = "SELECT event_name, count(*) AS n FROM events WHERE event_time >= '2026-03-02' GROUP BY ALL"
    words = ["query", sql, "--engine", "athena", "--workgroup", "primary", "--format", "json"]
    assert main(words) == 0
    out, said = capsys.readouterr()
    assert json.loads(out) == [{"event_name": "GetObject", "n": 41}, {"event_name": "PutObject", "n": 7}]
    assert "Athena read" in said and "$" in said
    assert "the workgroup primary has no limit of bytes per query" in said
    assert main([*words[:6], "--explain"]) == 0
    explanation = json.loads(capsys.readouterr().out)
    assert explanation["partitions"] == ["year >= '2026'"] and "GROUP BY 1" in explanation["sql"]
    assert main(["query", sql, "--engine", "athena", "--workgroup", "none-such", "--explain"]) == 1
    assert "none-such" in capsys.readouterr().err


@pytest.fixture
def events_in_glue(on_moto: str, small_lake: Path) -> Iterator[dict[str, dict[str, Any]]]:
    """The small lake's events as an Iceberg table in moto's Glue and S3, one file per day and service, written by
    PyIceberg: path -> its Parquet footer."""
    import boto3
    import pyarrow.parquet as pq
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.transforms import IdentityTransform

    from trailsift.lake.iceberg import _partition_spec, iceberg_schema
    from trailsift.schema import EVENTS

    boto3.client("s3").create_bucket(Bucket="lake")
    keys = {"s3.endpoint": on_moto, "s3.access-key-id": "x", "s3.secret-access-key": "x", "s3.region": "us-east-1"}
    catalog = GlueCatalog("glue", **{"glue.endpoint": on_moto, "warehouse": "s3://lake", **keys})
    catalog.create_namespace("trailsift")
    schema = iceberg_schema(EVENTS)
    # PyIceberg does not write partitions of a time; filters on one then use the files' bounds.
    keys_only = [one for one in _partition_spec(EVENTS, schema).fields if isinstance(one.transform, IdentityTransform)]
    table = catalog.create_table("trailsift.events", schema, partition_spec=PartitionSpec(*keys_only))
    with DuckDBEngine(open_snapshot(small_lake)) as engine:
        rows = engine.query("SELECT * FROM events", cache=False, arrow=True).arrow()
    table.append(rows.cast(table.schema().as_arrow()))
    footers = {}
    for task in table.scan().plan_files():
        with table.io.new_input(task.file.file_path).open() as file:
            footers[task.file.file_path] = pq.read_metadata(file)
    yield footers
    catalog.drop_table("trailsift.events")
    catalog.drop_namespace("trailsift")


def test_the_estimate_is_what_the_files_hold(
    events_in_glue: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bytes of the used columns in the remaining files, by the footers of the files."""
    sql = "SELECT role_arn, count(*) FROM events WHERE event_time >= '2026-03-03' AND service = 's3' GROUP BY 1"
    wanted = ("role_arn", "event_time", "service")
    named = [path for path in events_in_glue if re.search(r"month=03/day=0[34].*service=s3", path)]
    truth = 0
    for path in named:
        groups = [events_in_glue[path].row_group(at) for at in range(events_in_glue[path].num_row_groups)]
        chunks = [group.column(at) for group in groups for at in range(group.num_columns)]
        truth += sum(one.total_compressed_size for one in chunks if one.path_in_schema in wanted)
    primary = ["--engine", "athena", "--workgroup", "primary"]
    assert main(["query", sql, *primary, "--explain"]) == 0
    out, said = capsys.readouterr()
    explanation = json.loads(out)
    assert (explanation["files"], explanation["of_files"]) == (len(named), len(events_in_glue)) and 0 < len(
        named
    ) < explanation["of_files"]
    assert explanation["bytes"] == truth > 0 and explanation["usd"] == pytest.approx(5e-5), "at least 10 MB are charged"
    assert f"in {len(named)} of {len(events_in_glue)} files" in said
    assert main(["query", "SELECT * FROM hourly", *primary, "--explain"]) == 0
    out, said = capsys.readouterr()
    assert json.loads(out)["bytes"] is None and "trailsift.hourly in Glue" in said


def _column(name: str, kind: str) -> dict[str, Any]:
    return {"CatalogName": "hive", "SchemaName": "", "TableName": "", "Name": name, "Label": name, "Type": kind,
            "Precision": 0, "Scale": 0, "Nullable": "UNKNOWN", "CaseSensitive": False}  # fmt: skip


def test_what_nothing_fills_is_refused_by_name(
    events_in_glue: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """An empty table would say that nothing matched: the tables in Glue are not those of a lake here."""
    words = ["--engine", "athena", "--workgroup", "primary"]
    for name in ("usage", "profile", "access", "sessions", "rejects"):
        assert main(["query", f"SELECT count(*) FROM {name}", *words]) == 2
        said = capsys.readouterr().err
        assert f"nothing fills the table {name}" in said and "connect --glue" in said
    assert main(["query", "SELECT resource_arns FROM events", *words]) == 2
    assert "nothing fills the column resource_arns" in capsys.readouterr().err


def test_a_registered_lake_has_all_tables() -> None:
    registered = {"usage": True, "events": True}
    asked: list[str] = []

    def known(name: str) -> bool | None:
        asked.append(name)
        return registered.get(name)

    sql = "SELECT caller, count(*) FROM usage GROUP BY 1"
    assert Athena("work", client=Api(state("SUCCEEDED"), rows=1), registered=known).query(sql).rows()
    sql = "SELECT rest FROM events WHERE event_time >= now() - INTERVAL 1 DAY"
    assert Athena("work", client=Api(state("SUCCEEDED"), rows=1), registered=known).query(sql).rows()
    assert asked == ["usage", "events"]
    # Nobody is refused because Glue does not tell.
    assert Athena("work", client=Api(state("SUCCEEDED"), rows=1), registered=known).query("SELECT * FROM access").rows()
    with pytest.raises(QueryError, match="nothing fills the table profile"):
        Athena("work", client=Api(state("SUCCEEDED")), registered=lambda _: False).query("SELECT * FROM profile")


def test_a_missing_table_is_explained() -> None:
    failed = state("FAILED", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.x.usage' does not exist")
    with pytest.raises(QueryError, match="connect --glue"):
        Athena("work", client=Api(failed)).query("SELECT * FROM usage")
    failed = state("FAILED", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.x.hourly_summary' does not exist")
    with pytest.raises(QueryError, match="aws sql --only summary"):
        Athena("work", client=Api(failed)).query("SELECT * FROM hourly_summary")


def test_times_are_those_of_the_zone() -> None:
    api = Api(state("SUCCEEDED"), rows=1)
    Athena("work", client=api, timezone="Asia/Seoul").query("SELECT 1 FROM events WHERE event_time >= '2026-03-02'")
    assert "CAST('2026-03-01 15:00:00' AS TIMESTAMP)" in api.requests[0]["QueryString"]


def test_functions_that_athena_lacks_are_named() -> None:
    for sql in ("time_bucket(INTERVAL 1 HOUR, event_time)", "list_aggregate(resource_arns, 'min')", "age(event_time)"):
        with pytest.raises(QueryError, match="Athena cannot run"):
            translate(f"SELECT {sql} FROM events", "trailsift")
    with pytest.raises(QueryError, match="in the time zone Asia/Seoul"):
        translate("SELECT time_bucket(INTERVAL 1 HOUR, event_time) FROM events", "trailsift", "Asia/Seoul")


def test_now_selects_partitions() -> None:
    now = datetime(2026, 3, 9, 12, tzinfo=UTC)
    for sql in ("event_time >= now() - INTERVAL 2 DAY", "event_time >= current_date - 2"):
        found = translate(f"SELECT 1 FROM events WHERE {sql} AND event_time < now()", "trailsift", now=now)
        assert found.partitions == ("year = '2026' AND month = '03' AND day BETWEEN '07' AND '09'",)


def test_without_credentials(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pytest.importorskip("boto3")
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    words = ["query", "SELECT count(*) FROM events", "--engine", "athena"]
    assert main(["query", "SELECT * EXCLUDE (rest) FROM events", *words[2:]]) == 2, "refused before AWS is asked"
    assert "EXCLUDE" in capsys.readouterr().err
    assert main(words) == 1
    assert "no region is set" in capsys.readouterr().err
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert main(words) == 1
    assert "no AWS credentials" in capsys.readouterr().err
