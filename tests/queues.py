"""A real server of SQS, SNS and EventBridge for tests: moto's, one per test process."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote_plus

import pytest

from s3_server import KEY, SECRET, Server
from support.logs import event_number
from support.records import text


@dataclass
class Queues:
    """The server. ``client`` returns boto3's clients of it."""

    url: str

    def client(self, service: str) -> Any:
        import boto3

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def new(self, name: str, **attributes: str) -> str:
        """Create a queue; return its URL."""
        return str(self.client("sqs").create_queue(QueueName=name, Attributes=attributes)["QueueUrl"])

    def send(self, queue: str, *bodies: str) -> None:
        sqs = self.client("sqs")
        for start in range(0, len(bodies), 10):
            part = bodies[start : start + 10]
            sqs.send_message_batch(
                QueueUrl=queue, Entries=[{"Id": str(n), "MessageBody": body} for n, body in enumerate(part)]
            )

    def left(self, queue: str) -> tuple[int, int]:
        """Return the number of messages that are visible, and of those that are not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        found = self.client("sqs").get_queue_attributes(QueueUrl=queue, AttributeNames=names)["Attributes"]
        return int(found[names[0]]), int(found[names[1]])


@pytest.fixture(scope="session")
def queue_server() -> Iterator[Queues]:
    moto = pytest.importorskip("moto.server", reason="no server of SQS to test with: install the extra `emulators`")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Queues(f"http://{host}:{port}")
    with suppress(Exception):
        server.stop()


@pytest.fixture
def queues(queue_server: Queues, s3: Server, monkeypatch: pytest.MonkeyPatch) -> Queues:
    """The server of queues beside that of S3, both set in AWS's standard environment."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SQS", queue_server.url)
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    return queue_server


def name(number: int, folder: str = "AWSLogs/111122223333/CloudTrail/us-east-1/2026/03/02/") -> str:
    minute = f"20260302T{number // 60 % 24:02}{number % 60:02}Z"
    return f"{folder}111122223333_CloudTrail_us-east-1_{minute}_{number:016}.json.gz"


def log(*numbers: int) -> bytes:
    """Return a log object with these events."""
    return gzip.compress(text({"Records": [event_number(number) for number in numbers]}))


def notice(bucket: str, key: str, size: int = 1, e_tag: str = "x", event: str = "ObjectCreated:Put") -> str:
    """Return a message as S3 sends it: keys are escaped as in a form."""
    record = {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "us-east-1",
        "eventTime": "2026-03-02T01:02:03.456Z",
        "eventName": event,
        "s3": {
            "s3SchemaVersion": "1.0",
            "bucket": {"name": bucket, "arn": f"arn:aws:s3:::{bucket}"},
            "object": {"key": quote_plus(key, safe="/"), "size": size, "eTag": e_tag, "sequencer": "0A"},
        },
    }
    return json.dumps({"Records": [record]})


#: To make a client takes longer than to use it.
_clients: dict[str, Any] = {}


def put(s3: Server, bucket: str, key: str, data: bytes) -> str:
    """Write an object; return the message about it."""
    if s3.url not in _clients:
        _clients[s3.url] = s3.client()
    answer = _clients[s3.url].put_object(Bucket=bucket, Key=key, Body=data)
    return notice(bucket, key, len(data), answer["ETag"].strip('"'))


def by_event_bridge(body: str) -> str:
    """Return a message of S3 as EventBridge sends it: keys are not escaped."""
    from urllib.parse import unquote_plus

    record = json.loads(body)["Records"][0]
    item = record["s3"]["object"]
    detail = {
        "version": "0",
        "bucket": {"name": record["s3"]["bucket"]["name"]},
        "object": {"key": unquote_plus(item["key"]), "size": item["size"], "etag": item["eTag"]},
        "reason": "PutObject",
    }
    kind = {"detail-type": "Object Created", "source": "aws.s3", "region": "us-east-1"}
    return json.dumps({"version": "0", "id": "1", **kind, "time": "2026-03-02T01:02:03Z", "detail": detail})
