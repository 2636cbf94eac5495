"""Emulators of AWS accept the requests and the template."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from trailsift.deploy import boards, glue_requests, render
from trailsift.deploy.tables import LANDING_PARTITIONS, StackConfig

CONFIG = StackConfig(bucket="my-bucket")


def test_registered_partitions_are_found_by_their_keys(on_moto: str) -> None:
    """moto evaluates Glue's expressions: it returns the partitions that a query selects, and no other."""
    import boto3

    client = boto3.client("glue")
    client.create_database(DatabaseInput={"Name": CONFIG.database})
    landing = {
        "Name": "landing",
        "TableType": "EXTERNAL_TABLE",
        "PartitionKeys": [{"Name": name, "Type": "string"} for name in LANDING_PARTITIONS],
        "StorageDescriptor": glue_requests.storage("s3://my-bucket/landing/"),
    }
    client.create_table(DatabaseName=CONFIG.database, TableInput=landing)
    folders = "landing/year=2026/month=01/day={:02}/hour={:02}/service={}/x.gz"
    keys = [folders.format(day, hour, name) for day in (9, 10) for hour in range(24) for name in ("s3", "sns", "sqs")]
    try:
        for request in glue_requests.partitions(CONFIG, keys):
            assert not client.batch_create_partition(**request).get("Errors")
        expression = "year = '2026' AND month = '01' AND day = '09' AND service = 's3'"
        pages = client.get_paginator("get_partitions").paginate(
            DatabaseName=CONFIG.database, TableName="landing", Expression=expression
        )
        partitions = [partition for page in pages for partition in page["Partitions"]]
        expected = [["2026", "01", "09", f"{hour:02}", "s3"] for hour in range(24)]
        assert sorted(each["Values"] for each in partitions) == expected
        (eight,) = [each["StorageDescriptor"]["Location"] for each in partitions if each["Values"][3] == "08"]
        assert eight == "s3://my-bucket/landing/year=2026/month=01/day=09/hour=08/service=s3/"
        # The same again, as a function that registers partitions on write would do: nothing breaks.
        (first, *_) = glue_requests.partitions(CONFIG, keys)
        again = client.batch_create_partition(**first)["Errors"]
        assert {error["ErrorDetail"]["ErrorCode"] for error in again} == {"AlreadyExistsException"}
        client.create_crawler(**glue_requests.crawler(CONFIG, "arn:aws:iam::123456789012:role/Crawler"))
    finally:
        client.delete_table(DatabaseName=CONFIG.database, Name="landing")
        client.delete_database(Name=CONFIG.database)


def test_the_dashboard_is_accepted(on_moto: str) -> None:
    """moto rejects invalid JSON, and returns the dashboard unchanged."""
    import boto3

    client = boto3.client("cloudwatch")
    body = render.files(CONFIG)["cloudwatch/dashboard.json"]
    client.put_dashboard(DashboardName="trailsift", DashboardBody=body)
    assert json.loads(client.get_dashboard(DashboardName="trailsift")["DashboardBody"]) == json.loads(body)
    with pytest.raises(client.exceptions.ClientError):
        client.put_dashboard(DashboardName="trailsift", DashboardBody=body[:-3])


def test_the_template_becomes_a_stack(ministack: str, tmp_path: Path) -> None:
    """Every resource of the template is created, and the stream has the function and the folders of the template."""
    boto3 = pytest.importorskip("boto3")
    session = boto3.Session("x", "x", region_name="us-east-1")

    def client(name: str) -> Any:
        return session.client(name, endpoint_url=ministack)

    client("s3").create_bucket(Bucket="code")
    client("s3").put_object(Bucket="code", Key="firehose.zip", Body=_zip())
    client("logs").create_log_group(logGroupName="trail")
    described = json.loads(render.files(CONFIG, "logs")["cloudformation.json"])
    # The emulator has no alarms on an expression of several metrics; cfn-lint checks this one.
    del described["Resources"]["QuotaAlarm"]
    text = json.dumps(described)
    parameters = {
        "CodeBucket": "code",
        "CodeKey": "firehose.zip",
        "TrailLogGroup": "trail",
        "AlarmTopicArn": "arn:aws:sns:us-east-1:000000000000:a",
    }
    formation = client("cloudformation")
    formation.create_stack(
        StackName="logs",
        TemplateBody=text,
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    stack: dict[str, Any] = {}
    for _ in range(100):
        (stack,) = formation.describe_stacks(StackName="logs")["Stacks"]
        if not stack["StackStatus"].endswith("IN_PROGRESS"):
            break
        time.sleep(0.1)
    events = formation.describe_stack_events(StackName="logs")["StackEvents"]
    assert stack["StackStatus"] == "CREATE_COMPLETE", [each for each in events if "FAILED" in each["ResourceStatus"]]
    resources = formation.describe_stack_resources(StackName="logs")["StackResources"]
    expected = {name for name, resource in described["Resources"].items() if resource.get("Condition") != "Optimized"}
    assert {resource["LogicalResourceId"] for resource in resources} == expected
    stream = client("firehose").describe_delivery_stream(DeliveryStreamName="logs")["DeliveryStreamDescription"]
    target = stream["Destinations"][0]["ExtendedS3DestinationDescription"]
    assert target["BucketARN"] == "arn:aws:s3:::my-bucket" and target["Prefix"].startswith("landing/year=!{")
    body = client("cloudwatch").get_dashboard(DashboardName="logs")["DashboardBody"]
    assert json.loads(body) == boards.cloudwatch_dashboard("us-east-1", "logs", "logs-transform")
    assert client("glue").get_table(DatabaseName="trailsift", Name="landing")["Table"]["PartitionKeys"]


def _zip() -> bytes:
    import io
    import zipfile

    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("trailsift/__init__.py", "")
    return out.getvalue()
