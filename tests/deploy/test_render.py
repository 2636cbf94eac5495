"""Dashboards, alarms and the template: valid, consistent with our metrics and tables, and with least privilege."""

from __future__ import annotations

import json
import re
import shutil
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
from trailsift.deploy import boards, package, render, template
from trailsift.deploy.tables import StackConfig
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.schema import TABLES

CONFIG = StackConfig(bucket="my-bucket", regions=("eu-west-1",))
TEMPLATE = template.template(CONFIG)


def test_the_command_writes_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["aws", "render", "--out", str(tmp_path), "--trail", "t-bucket", "--account", "111122223333"]
    assert main([*words, "--region", "eu-west-1", "--stack", "logs", "--arch", "x86_64", "--python", "3.12"]) == 0
    printed = capsys.readouterr().out.split()
    assert sorted(printed) == sorted(str(path) for path in tmp_path.rglob("*") if path.is_file())
    for path in map(Path, printed):
        text = path.read_text("utf-8")
        if path.suffix == ".json":
            assert json.loads(text)
        elif path.suffix == ".yaml":
            assert yaml.safe_load(text)["apiVersion"] == 1
    assert '"logs-transform"' in (tmp_path / "cloudwatch" / "dashboard.json").read_text()
    shown = json.loads((tmp_path / "cloudformation.json").read_text())["Parameters"]
    assert (shown["Architecture"]["Default"], shown["PythonVersion"]["Default"]) == ("x86_64", "3.12")
    assert main([*words, "--stack", "1"]) == 2
    assert main([*words, "--bucket", "one/prefix"]) == 2


def test_no_file_is_written_behind_a_link(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Somebody else may have put it into the folder: what lies behind stays as it is, and nothing is written at all."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    words = ["aws", "render", "--out", str(out), "--trail", "t-bucket", "--account", "111122223333"]
    for below in ("cloudwatch", "grafana", "grafana/provisioning/datasources"):
        elsewhere.mkdir()
        (out / below).parent.mkdir(parents=True)
        (out / below).symlink_to(elsewhere)
        assert main(words) == 2
        assert f"{out / below} is a link" in capsys.readouterr().err
        assert not list(elsewhere.iterdir()) and not list(out.rglob("*.json"))
        shutil.rmtree(out)
        elsewhere.rmdir()
    out.mkdir()
    (out / "steampipe").write_text("mine")
    assert main(words) == 2
    assert "is not a folder" in capsys.readouterr().err and (out / "steampipe").read_text() == "mine"
    # A link in place of a file is replaced; the folder that the user names may be one.
    shutil.rmtree(out)
    elsewhere.mkdir()
    out.symlink_to(elsewhere)
    (tmp_path / "foreign").write_text("mine")
    (elsewhere / "athena.sql").symlink_to(tmp_path / "foreign")
    assert main(words) == 0
    assert (tmp_path / "foreign").read_text() == "mine" and not (elsewhere / "athena.sql").is_symlink()


@pytest.mark.parametrize("command", [["aws", "sql"], ["aws", "render", "--out", "x"]])
def test_what_only_the_user_knows_is_asked_for(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """With another account's folders, every statement would find nothing without a word."""
    assert main([*command, "--account", "111122223333"]) == 2
    assert "--trail" in capsys.readouterr().err
    assert main([*command, "--trail", "t-bucket"]) == 2
    assert "--account" in capsys.readouterr().err


def test_the_template_fits_into_a_request() -> None:
    """https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html"""
    assert len(render.files(StackConfig(bucket="b" * 63, database="d" * 60), "s" * 41)["cloudformation.json"]) < 51_200


def test_a_bucket_that_exists_can_be_used() -> None:
    """No policy and no setting names a resource that is not there without the condition."""
    assert TEMPLATE["Resources"]["Bucket"]["Condition"] == "BucketCreated"
    assert TEMPLATE["Resources"]["Bucket"]["DeletionPolicy"] == "RetainExceptOnCreate"
    others = {name: value for name, value in TEMPLATE["Resources"].items() if value.get("Condition") != "BucketCreated"}
    text = json.dumps(others).replace(json.dumps({"Fn::GetAtt": ["Bucket", "Arn"]}), "")
    assert '{"Ref": "Bucket"}' not in text and "${Bucket}" not in text and "Bucket.Arn" not in text
    assert TEMPLATE["Outputs"]["Bucket"]["Value"] == {"Ref": "BucketName"}


def test_a_new_zip_is_a_change() -> None:
    """CloudFormation compares keys, never contents: none is given that would stay the same."""
    assert "Default" not in TEMPLATE["Parameters"]["CodeKey"]
    one, other = (package.Package(Path("x"), "arm64", "3.13", 1, digest * 32) for digest in ("ab", "cd"))
    assert one.key != other.key and one.key == "firehose-abababababababab.zip"


def test_trust_is_as_aws_documents_it() -> None:
    """https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html, and the page on subscription filters."""
    (stream,) = TEMPLATE["Resources"]["StreamRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    assert stream == {
        "Effect": "Allow",
        "Principal": {"Service": "firehose.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    (logs,) = TEMPLATE["Resources"]["SubscriptionRole"]["Properties"]["AssumeRolePolicyDocument"]["Statement"]
    source = "arn:${AWS::Partition}:logs:${AWS::Region}:${AWS::AccountId}:*"
    assert logs["Condition"] == {"StringLike": {"aws:SourceArn": {"Fn::Sub": source}}}


def test_failures_of_the_stream_raise_alarms() -> None:
    alarms = [value["Properties"] for name, value in TEMPLATE["Resources"].items() if name.endswith("Alarm")]
    watched = {alarm["MetricName"] for alarm in alarms if "MetricName" in alarm}
    assert watched >= {
        *("Failed", "Malformed", "Events", "ThrottledRecords", "ExecuteProcessing.Success", "DeliveryToS3.Success"),
        *("PartitionCountExceeded", "DeliveryErrors", "DeliveryThrottling", "Errors"),
    }
    (quota,) = [alarm["Metrics"] for alarm in alarms if "Metrics" in alarm]
    assert quota[0]["Expression"] == "used / 300 / most"
    names = [each["MetricStat"]["Metric"]["MetricName"] for each in quota[1:]]
    assert names == ["IncomingBytes", "BytesPerSecondLimit"]
    filters = TEMPLATE["Resources"]["Subscription"]["Properties"]["FilterName"]
    assert all(
        {"Name": "FilterName", "Value": filters} in alarm["Dimensions"]
        for alarm in alarms
        if "AWS/Logs" in alarm.values()
    )


def test_loads_have_a_workgroup_of_their_own() -> None:
    """The limit of questions would stop them. Nothing is created below answers/, which expires."""
    groups = [TEMPLATE["Resources"][name]["Properties"] for name in ("Workgroup", "LoadWorkgroup")]
    cutoffs = [group["WorkGroupConfiguration"]["BytesScannedCutoffPerQuery"]["Ref"] for group in groups]
    assert cutoffs == ["QueryCutoffBytes", "LoadCutoffBytes"]
    statements = render.files(CONFIG)["athena.sql"]
    assert "external_location" not in statements and "/answers/" not in statements
    assert "CREATE TABLE" not in re.sub(r"CREATE TABLE IF NOT EXISTS", "", statements)


def test_table_optimizers_wait_for_the_tables() -> None:
    found = [value for value in TEMPLATE["Resources"].values() if value["Type"] == "AWS::Glue::TableOptimizer"]
    assert {(each["Properties"]["TableName"], each["Properties"]["Type"]) for each in found} == {
        (table, kind) for table in ("events", "hourly") for kind in ("compaction", "retention", "orphan_file_deletion")
    }
    assert all(each["Condition"] == "Optimized" for each in found)
    assert TEMPLATE["Parameters"]["OptimizeTables"]["Default"] == "false"


def test_projected_locations_end_in_a_slash() -> None:
    """https://docs.aws.amazon.com/athena/latest/ug/partition-projection-setting-up.html"""
    templates = re.findall(r"'storage.location.template'='([^']*)'", render.files(CONFIG)["athena.sql"])
    landing = TEMPLATE["Resources"]["Landing"]["Properties"]["TableInput"]["Parameters"]["storage.location.template"]
    assert len(templates) == 2 and all(each.endswith("/") for each in [*templates, landing["Fn::Sub"]])


def test_the_files_name_the_same_things() -> None:
    """Template, statements and data sources use the same bucket, database and workgroup."""
    files = render.files(CONFIG, "logs")
    assert TEMPLATE["Parameters"]["BucketName"]["Default"] == CONFIG.bucket
    assert set(re.findall(r"s3://([a-z-]+)/(?:landing|lake)/", files["athena.sql"])) == {CONFIG.bucket}
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
    assert len(statements) == 11
    for statement in statements:
        assert all("*" not in action for action in statement["Action"]), statement
        assert statement["Resource"] not in ("*", ["*"]), statement


@pytest.mark.parametrize(("region", "partition"), [("eu-west-1", "aws"), ("us-gov-west-1", "aws-us-gov")])
def test_grafanas_policy_is_narrow(region: str, partition: str) -> None:
    """It has what the boards ask for, and names every resource that an action takes."""
    loaders = pytest.importorskip("botocore.session").get_session()
    config = StackConfig(bucket="my-bucket", regions=(region,), accounts=("111122223333",))
    policy = json.loads(render.files(config, "logs")["grafana/policy.json"])
    for statement in policy["Statement"]:
        resources = statement["Resource"] if isinstance(statement["Resource"], list) else [statement["Resource"]]
        assert (resources == ["*"]) == (statement["Sid"] == "Metrics")
        assert all(each == "*" or each.startswith(f"arn:{partition}:") for each in resources)
        for action in statement["Action"]:
            service, _, name = action.partition(":")
            # Its own name of the operation ListObjectsV2.
            known = loaders.get_service_model(service).operation_names
            assert name in known or action in ("s3:ListBucket", "s3:ListBucketMultipartUploads")
    written = [s["Resource"] for s in policy["Statement"] if "s3:PutObject" in s["Action"]]
    assert written == [f"arn:{partition}:s3:::my-bucket/answers/*"]
    assert f"arn:{partition}:athena:{region}:111122223333:workgroup/logs" in json.dumps(policy)


def test_firehose_accepts_the_stream() -> None:
    session = pytest.importorskip("botocore.session")
    from botocore.validate import ParamValidator

    def plain(value: Any) -> Any:
        """Return the template's values with ARNs in place of references."""
        if isinstance(value, dict):
            if set(value) & {"Ref", "Fn::GetAtt", "Fn::Sub", "Fn::If"}:
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
    assert sources == {"trailsift-cloudwatch", "trailsift-athena"}
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
