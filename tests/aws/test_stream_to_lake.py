"""End to end on an emulator that runs the function: log objects into a stream, landing files, a lake."""

from __future__ import annotations

import gzip
import io
import json
import platform
import sys
import time
from datetime import UTC
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow.parquet as pq
import pytest

from support.logs import event_number
from support.records import text
from trailsift.decode import record
from trailsift.deploy import glue_requests, package, template
from trailsift.deploy.tables import StackConfig
from trailsift.errors import TrailsiftError

ARCH: package.Arch = "arm64" if platform.machine() == "aarch64" else "x86_64"


def _resolved(value: Any, names: dict[str, str]) -> Any:
    """Return the template's values with its references resolved."""
    if isinstance(value, dict):
        if "Fn::If" in value:
            return _resolved(value["Fn::If"][1], names)
        for key in ("Ref", "Fn::GetAtt", "Fn::Sub"):
            if key in value:
                name = value[key][0] if isinstance(value[key], list) else value[key]
                return names.get(name, name)
        return {name: _resolved(each, names) for name, each in value.items()}
    return [_resolved(each, names) for each in value] if isinstance(value, list) else value


class Stream(NamedTuple):
    """A stream of the template with its function."""

    s3: Any
    streams: Any
    name: str
    bucket: str

    def put(self, records: list[bytes]) -> None:
        for start in range(0, len(records), 100):
            part = [{"Data": each} for each in records[start : start + 100]]
            answer = self.streams.put_record_batch(DeliveryStreamName=self.name, Records=part)
            assert answer["FailedPutCount"] == 0

    def objects(self) -> list[tuple[str, bytes]]:
        """Return all objects of the bucket, decompressed."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        objects = [(key, self.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()) for key in keys]
        return [(key, gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data) for key, data in objects]


def started(ministack: str, tmp_path: Path, name: str, more: dict[str, Any] | None = None) -> Stream:
    """Start a stream. ``more``: settings of the destination beyond the template's; None removes a setting."""
    boto3 = pytest.importorskip("boto3")
    session = boto3.Session("x", "x", region_name="us-east-1")
    s3, functions, streams = (
        session.client(service, endpoint_url=ministack) for service in ("s3", "lambda", "firehose")
    )
    try:
        # The emulator runs the code with this machine's Python.
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        built = package.build(tmp_path / "firehose.zip", arch=ARCH, python=python)
    except TrailsiftError as error:
        pytest.skip(f"no network to download wheels: {error}")
    s3.create_bucket(Bucket=name)
    function = functions.create_function(
        FunctionName=name,
        Runtime=f"python{python}",
        Handler=package.HANDLER,
        Role="arn:aws:iam::000000000000:role/x",
        Code={"ZipFile": built.path.read_bytes()},
        Timeout=120,
        Environment={
            "Variables": {
                "AWS_ENDPOINT_URL": ministack,
                "AWS_ACCESS_KEY_ID": "x",
                "AWS_SECRET_ACCESS_KEY": "x",
                "AWS_DEFAULT_REGION": "us-east-1",
            }
        },
    )
    names = {"Bucket": f"arn:aws:s3:::{name}", "StreamRole": "arn:aws:iam::000000000000:role/x"}
    names["Function"] = function["FunctionArn"]
    stream = _resolved(template.template(StackConfig())["Resources"]["Stream"]["Properties"], names)
    target = stream["ExtendedS3DestinationConfiguration"] | (more or {})
    streams.create_delivery_stream(
        DeliveryStreamName=name,
        DeliveryStreamType="DirectPut",
        ExtendedS3DestinationConfiguration={key: value for key, value in target.items() if value is not None},
    )
    return Stream(s3, streams, name, name)


def test_log_objects_in_landing_files_out(ministack: str, tmp_path: Path) -> None:
    """Despite duplicates and garbage, the lake has each event once, and the summaries of a direct ingest."""
    from support.logs import merged
    from trailsift.cloudtrail.services import folder_of
    from trailsift.generate import Options, generate
    from trailsift.ingest import ingest

    stream = started(ministack, tmp_path, "analysis")
    generate(tmp_path / "logs", Options(events=600, days=2, seed=3))
    ingest([str(tmp_path / "logs" / "AWSLogs")], tmp_path / "direct")
    records = [batch for path in sorted((tmp_path / "logs").rglob("*.json.gz")) for batch in _logs(path)]
    stream.put([*records, b"poison", *records[:20]])
    objects = _landed(stream, 600)
    for number, (key, data) in enumerate(objects):
        path = tmp_path / "landed" / key.rpartition("/")[0] / f"{number}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    counts = ingest([str(tmp_path / "landed" / "landing")], tmp_path / "lake")
    assert counts.stored == 600 and counts.malformed == 0 and counts.duplicates > 0
    assert merged(tmp_path / "lake") == merged(tmp_path / "direct")
    for key, data in objects:
        if key.startswith("landing/"):
            first = json.loads(data.splitlines()[0])
            values = {**first, "service": folder_of(first["service"])}
            folder = "/".join(f"{name}={values[name]}" for name in ("year", "month", "day", "hour", "service"))
            assert key.startswith(f"landing/{folder}/"), key


def test_the_stream_can_write_parquet(ministack: str, tmp_path: Path) -> None:
    """The function's output fits Firehose's own conversion, with the columns that we register in Glue."""
    boto3 = pytest.importorskip("boto3")
    catalog = boto3.Session("x", "x", region_name="us-east-1").client("glue", endpoint_url=ministack)
    catalog.create_database(DatabaseInput={"Name": "columns"})
    table = {"Name": "landing", "StorageDescriptor": glue_requests.storage("s3://columns/landing/")}
    catalog.create_table(DatabaseName="columns", TableInput=table)
    role = "arn:aws:iam::000000000000:role/x"
    conversion = {
        "Enabled": True,
        "SchemaConfiguration": {"DatabaseName": "columns", "TableName": "landing", "RoleARN": role},
        "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
        "OutputFormatConfiguration": {"Serializer": {"ParquetSerDe": {}}},
    }
    # AWS accepts neither compression nor a file extension together with a conversion.
    other = {"CompressionFormat": None, "FileExtension": None, "DataFormatConversionConfiguration": conversion}
    stream = started(ministack, tmp_path, "columns", other)
    events = [event_number(number) for number in range(40)]
    stream.put([text({"Records": [event]}) for event in events])
    rows: dict[str, dict[str, Any]] = {}
    for _ in range(60):
        for key, data in stream.objects():
            assert not key.startswith("errors/"), data[:2000]
            rows |= {row["event_id"]: row for row in pq.read_table(io.BytesIO(data)).to_pylist()}
        if len(rows) == len(events):
            break
        time.sleep(1)
    for event in events:
        row, expected = rows[event["eventID"]], record.row(event, "")
        names = ("event_name", "role_arn", "resource_arn", "object_key", "bytes_out", "read_only", "source_ip")
        assert [row[name] for name in names] == [expected[name] for name in names]
        assert row["event_time"].replace(tzinfo=UTC).timestamp() * 1_000_000 == expected["event_time"]


def _logs(path: Path) -> list[bytes]:
    """Return a log object's records as CloudWatch Logs delivers them, one batch per hour and service.

    The function resends batches of several partitions to the stream, where this emulator deadlocks: it runs the
    function inside the call that puts the record. `test_firehose` covers them.
    """
    batches: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for event in json.loads(gzip.decompress(path.read_bytes()))["Records"]:
        batches.setdefault((event["eventTime"][:13], event["eventSource"]), []).append(event)
    payloads = []
    for batch in batches.values():
        events = [{"id": "1", "timestamp": 1, "message": json.dumps(event)} for event in batch]
        payloads.append(gzip.compress(text({"messageType": "DATA_MESSAGE", "logGroup": "g", "logEvents": events})))
    return payloads


def _landed(stream: Stream, events: int) -> list[tuple[str, bytes]]:
    """Return the objects of the bucket once it holds this many distinct events; fail after a minute."""
    for _ in range(60):
        objects = stream.objects()
        lines = [line for key, data in objects if key.startswith("landing/") for line in data.splitlines()]
        if len({json.loads(line)["event_id"] for line in lines if line.strip()}) >= events:
            return objects
        time.sleep(1)
    raise AssertionError(f"only {len(lines)} lines landed, in {len(objects)} objects")
