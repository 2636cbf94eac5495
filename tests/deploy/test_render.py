"""Dashboards, alarms and the template: valid, consistent with our metrics and tables, and with least privilege."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlglot
import yaml
from sqlglot import exp

from support import servers
from support.logs import event_number, write
from trailsift.aws.transform import metrics
from trailsift.cli import main
from trailsift.deploy import boards, render, template
from trailsift.deploy.tables import StackConfig
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.schema import TABLES

CONFIG = StackConfig(bucket="my-bucket", regions=("eu-west-1",))
TEMPLATE = template.template(CONFIG)


def test_the_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["aws", "render", "--out", str(tmp_path), "--region", "eu-west-1", "--stack", "logs"]) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    for path in map(Path, printed):
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            assert json.loads(text)
        elif path.suffix == ".yaml":
            assert yaml.safe_load(text)["apiVersion"] == 1
    assert '"logs-transform"' in (tmp_path / "cloudwatch" / "dashboard.json").read_text()
    assert main(["aws", "render", "--out", str(tmp_path), "--stack", "1"]) == 2
    assert main(["aws", "render", "--out", str(tmp_path), "--bucket", "one/prefix"]) == 2


def test_the_files_name_the_same_things() -> None:
    """Template, statements and data sources use the same bucket, database and workgroup."""
    files = render.files(CONFIG, "logs")
    assert TEMPLATE["Parameters"]["BucketName"]["Default"] == CONFIG.bucket
    assert set(re.findall(r"s3://([a-z-]+)/(?:landing|lake|columnar)/", files["athena.sql"])) == {CONFIG.bucket}
    sources = yaml.safe_load(files["grafana/provisioning/datasources/trailsift.yaml"])["datasources"]
    (athena,) = [source["jsonData"] for source in sources if source["type"] == "grafana-athena-datasource"]
    assert athena["workgroup"] == "logs" and athena["database"] == CONFIG.database
    assert TEMPLATE["Resources"]["Workgroup"]["Properties"]["Name"] == {"Fn::Sub": "${AWS::StackName}"}


def test_cfn_lint_finds_nothing(tmp_path: Path) -> None:
    lint = servers.program("cfn-lint")
    path = tmp_path / "cloudformation.json"
    path.write_text(boards.to_json(TEMPLATE))
    done = subprocess.run([lint, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def _statements(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if value.get("Effect") == "Allow" and "Principal" not in value:
            yield value
        for each in value.values():
            yield from _statements(each)
    elif isinstance(value, list):
        for each in value:
            yield from _statements(each)


def test_every_policy_names_actions_and_resources() -> None:
    statements = list(_statements(TEMPLATE))
    assert len(statements) == 7
    for statement in statements:
        assert all("*" not in action for action in statement["Action"]), statement
        assert statement["Resource"] not in ("*", ["*"]), statement


def test_firehose_accepts_the_stream() -> None:
    session = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    def plain(value: Any) -> Any:
        """Return the template's values with ARNs in place of references."""
        if isinstance(value, dict):
            if set(value) & {"Ref", "Fn::GetAtt", "Fn::Sub"}:
                return "arn:aws:x:::y"
            return {name: plain(each) for name, each in value.items()}
        return [plain(each) for each in value] if isinstance(value, list) else value

    request = plain(TEMPLATE["Resources"]["Stream"]["Properties"])
    shape = session.get_session().get_service_model("firehose").operation_model("CreateDeliveryStream").input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    folders = request["ExtendedS3DestinationConfiguration"]["Prefix"]
    assert re.findall(r"(\w+)=!\{partitionKeyFromLambda:\1\}/", folders) == ["year", "month", "day", "hour", "service"]


def _exists(metric: boards.Metric) -> bool:
    if metric.namespace != metrics.NAMESPACE:
        return True
    match = dict(metric.match)
    if not match:
        return metric.name in metrics.TOTALS
    return metric.name in metrics.ACTION_METRICS and match["event_name"] in metrics.NAMED_ACTIONS[match["service"]]


def test_dashboards_and_alarms_use_existing_metrics() -> None:
    shown = [metric for panel in boards.PANELS for metric in panel.metrics] + [alarm.metric for alarm in boards.ALARMS]
    assert len(shown) > 20 and all(map(_exists, shown))
    for panel in boards.PANELS:
        assert bool(panel.metrics) != bool(panel.sql), panel.title


def shown_queries() -> dict[str, str]:
    """Return the SQL of each panel, as Grafana gets it."""
    boards_shown = [json.loads(text) for path, text in render.files(CONFIG).items() if path.endswith(".json")]
    panels = [panel for board in boards_shown if "panels" in board for panel in board["panels"]]
    return {panel["title"]: target["rawSQL"] for panel in panels for target in panel["targets"] if "rawSQL" in target}


def test_every_query_is_shown() -> None:
    assert shown_queries().keys() == {panel.title for panel in boards.PANELS if panel.sql}


@pytest.mark.parametrize("title", [panel.title for panel in boards.PANELS if panel.sql])
def test_dashboard_queries_are_valid_trino(title: str) -> None:
    text = shown_queries()[title].replace("$__timeFilter(hour)", "hour > TIMESTAMP '2026-01-01 00:00'")
    assert "{" not in text
    parsed = sqlglot.parse_one(text, dialect="trino")
    (table,) = parsed.find_all(exp.Table)
    columns = {column.name for column in TABLES[table.name].columns}
    aliases = {alias.alias for alias in parsed.find_all(exp.Alias)}
    assert {column.name for column in parsed.find_all(exp.Column)} <= columns | aliases


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Calls of a role, of a user of another account, of nobody known; a management event, and an Insight."""
    foreign = {"type": "AWSAccount", "principalId": "AIDAX", "accountId": "444455556666"}
    management = {"eventCategory": "Management", "managementEvent": True, "eventName": "CreateBucket"}
    records = [
        event_number(1),
        event_number(2, userIdentity=foreign, errorCode="AccessDenied"),
        event_number(3, userIdentity=foreign),
        event_number(4, userIdentity=None),
        event_number(5, **management),
        event_number(6, userIdentity=None, eventCategory="NetworkActivity", eventType="AwsVpceEvent"),
        event_number(7, userIdentity=None, eventCategory="Insight", eventType="AwsCloudTrailInsight", eventName=None),
    ]
    folder = tmp_path_factory.mktemp("boards")
    write(folder / "logs", "a.json.gz", records)
    ingest([str(folder / "logs")], folder / "lake")
    return folder / "lake"


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("Busiest callers", {"arn:aws:iam::111122223333:role/etl": 2, "account:444455556666/AIDAX": 2, "none": 2}),
        ("Calls by caller", {"arn:aws:iam::111122223333:role/etl": 2, "account:444455556666/AIDAX": 2, "none": 2}),
        ("Denied calls", {"account:444455556666/AIDAX": 1}),
        (
            "Largest sources of events",
            {"arn:aws:iam::111122223333:role/etl": 1, "account:444455556666/AIDAX": 2, "none": 2},
        ),
        ("Cost of data events", {"s3": 5e-06}),
    ],
)
def test_panels_show_every_caller_and_no_insight(title: str, expected: dict[str, float], lake: Path) -> None:
    text = shown_queries()[title].replace("$__timeFilter(hour)", "true").replace(f"{CONFIG.database}.", "")
    with DuckDBEngine(open_snapshot(lake)) as engine:
        result = engine.sql(sqlglot.transpile(text, read="trino", write="duckdb")[0])
        names = [name for name, _ in result.columns]
        key = names.index("caller" if "caller" in names else "service")
        value = names.index("events" if "events" in names else "usd")
        shown: dict[str, float] = {}
        for row in result.rows():
            shown[row[key]] = shown.get(row[key], 0) + float(row[value])
    assert shown == pytest.approx(expected)


def test_grafana_files_are_consistent() -> None:
    made = render.files(CONFIG)
    sources = set(re.findall(r"uid: (\S+)", made["grafana/provisioning/datasources/trailsift.yaml"]))
    assert sources == {"trailsift-cloudwatch", "trailsift-athena", "trailsift-prometheus"}
    for board in ("operations", "roles", "cost"):
        dashboard = json.loads(made[f"grafana/dashboards/{board}.json"])
        assert len(dashboard["panels"]) >= 3
        places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
        assert len(places) == len(dashboard["panels"]), "panels lie on each other"
        for panel in dashboard["panels"]:
            assert panel["datasource"]["uid"] in sources and panel["targets"]
            assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_the_dashboard_is_one_that_cloudwatch_takes() -> None:
    body = boards.cloudwatch_dashboard("eu-west-1", "stream", "function")
    for widget in body["widgets"]:
        assert widget["x"] + widget["width"] <= 24
        for line in widget["properties"]["metrics"]:
            names = line[:-1]
            assert len(names) % 2 == 0 and all(isinstance(name, str) and "{" not in name for name in names)
    assert TEMPLATE["Resources"]["Dashboard"]["Properties"]["DashboardBody"]["Fn::Sub"].count("${Stream}") == 2
