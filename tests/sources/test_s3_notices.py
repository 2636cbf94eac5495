"""Messages about objects in S3: their forms, and everything else that somebody may send to the queue."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from queues import by_event_bridge, name, notice
from trailsift.sources.s3_notices import is_log_name, read_message, senders

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
ODD = "a b+c/100%/ключ/AWSLogs/1 2.json.gz"


def sns(body: str) -> str:
    return json.dumps({"Type": "Notification", "TopicArn": "arn:aws:sns:us-east-1:1:t", "Message": body})


@pytest.mark.parametrize("wrapped", [str, sns, lambda body: sns(sns(body))])
@pytest.mark.parametrize("made", [str, by_event_bridge])
def test_forms(wrapped: Any, made: Any) -> None:
    said = read_message(wrapped(made(notice("logs", ODD, 123, "abc"))), NOW)
    (one,) = said.notices
    assert (one.url.bucket, one.url.key, one.size, one.e_tag, one.region) == ("logs", ODD, 123, "abc", "us-east-1")
    assert one.at.replace(microsecond=0) == datetime(2026, 3, 2, 1, 2, 3, tzinfo=UTC)
    assert not said.problem and not said.other


def test_messages_in_messages_end() -> None:
    body = notice("logs", name(1))
    for _ in range(10):
        body = sns(body)
    assert "in a message" in read_message(body, NOW).problem


def test_tests_and_other_events() -> None:
    assert read_message(json.dumps({"Event": "s3:TestEvent", "Bucket": "logs"}), NOW).is_test
    assert read_message(sns(json.dumps({"Event": "s3:TestEvent"})), NOW).is_test
    assert read_message(notice("logs", name(1), event="ObjectRemoved:Delete"), NOW).other == 1
    deleted = json.dumps({"source": "aws.s3", "detail-type": "Object Deleted", "detail": {}})
    assert read_message(deleted, NOW).other == 1


def test_names() -> None:
    digest = "AWSLogs/1/CloudTrail-Digest/x/2026/03/02/1_CloudTrail-Digest_x.json.gz"
    others = [digest, "AWSLogs/111122223333/Config/x.json.gz", "cat.jpeg", "a/b.parquet", "x/.hidden.json", "film.mp4"]
    assert not any(map(is_log_name, others))
    assert all(map(is_log_name, [name(1), "x.json", "exports/logs.tar", "stream-1-2026", "a/landing.ndjson"]))


@pytest.mark.parametrize(
    ("key", "refused"),
    [
        ("AWSLogs/../../x.json", True),
        ("./x.json", True),
        ("a\nb.json", True),
        ("a\x00b.json", True),
        ("x" * 1025 + ".json", True),
        ("a//b.json", False),
        ("\\..\\x.json", False),
    ],
)
def test_keys_that_cannot_be(key: str, refused: bool) -> None:
    for body in (notice("logs", key, 5), by_event_bridge(notice("logs", key, 5))):
        said = read_message(body, NOW)
        assert bool(said.problem) == refused and bool(said.notices) != refused


@pytest.mark.parametrize(
    "bucket", ["", "a", "a/b", "../x", "arn:aws:s3:::x", "x y", "-x-", "a..b", "b@host:1", "x" * 300]
)
def test_buckets_that_cannot_be(bucket: str) -> None:
    said = read_message(notice(bucket, name(1), 5), NOW)
    assert not said.notices and (said.problem or said.other)


@pytest.mark.parametrize(
    "body",
    [
        "", "null", "[]", '"x"', "{}", "[" * 100_000, '{"Records": []}', '{"Records": {}}', '{"Records": [1]}',
        "\udcff", '{"Records": [{"eventSource": "aws:s3"}]}',
        '{"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:x"}]}',
        '{"Records": [{"eventSource": "aws:s3", "eventName": "ObjectCreated:x", "s3": {"bucket": [], "object": 1}}]}',
        '{"source": "aws.s3", "detail-type": "Object Created", "detail": {}}', '{"s3Bucket": "b", "s3ObjectKey": [1]}',
        '{"Message": "x", "TopicArn": 1}', '{"Message": 5, "Type": "Notification"}',
        '{"detail": "x", "source": "aws.s3"}',
        json.dumps({"Records": json.loads(notice("logs", "%ff.json"))["Records"] * 1001}),
        notice("logs", "x.json").replace("x.json", "%ff.json"), " " * (1 << 20) + "{}",
    ],
)  # fmt: skip
def test_what_is_no_notification(body: str) -> None:
    said = read_message(body, NOW)
    assert said.problem and not said.notices


@pytest.mark.parametrize("size", [-1, 1 << 60, True, "5", None, 1.5, [], {}])
def test_sizes_that_are_not_believed(size: object) -> None:
    message = json.loads(notice("logs", name(1)))
    message["Records"][0]["s3"]["object"]["size"] = size
    (one,) = read_message(json.dumps(message), NOW).notices
    assert one.size is None and one.e_tag is None


def test_times_and_tags_that_are_not_believed() -> None:
    message = json.loads(notice("logs", name(1), 5, 'x"\r\nEvil: 1'))
    message["Records"][0] |= {"eventTime": "9999-99-99T00:00:00Z", "awsRegion": "us-east-1.evil.example/"}
    (one,) = read_message(json.dumps(message), NOW).notices
    assert (one.at, one.region, one.e_tag) == (NOW, None, None)
    message["Records"][0]["eventTime"] = "2999-01-01T00:00:00.000Z"
    assert read_message(json.dumps(message), NOW).notices[0].at == NOW


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)
PLACES = ["", "Records", "Records.0", "Records.0.s3", "Records.0.s3.bucket", "Records.0.s3.bucket.name"]
PLACES += ["Records.0.s3.object", "Records.0.s3.object.key", "Records.0.eventName", "Records.0.eventTime"]


@given(st.sampled_from(PLACES), JSON, st.sampled_from([str, sns, by_event_bridge]))
def test_anything_anywhere(place: str, value: Any, wrapped: Any) -> None:
    """Whatever stands anywhere in a message: it is read without an error, and names only what S3 can have."""
    message: Any = {"of": json.loads(notice("logs", name(1), 5))}
    at, *rest = ["of", *filter(None, place.split("."))][::-1]
    holder = message
    for step in rest[::-1]:
        holder = holder[int(step) if isinstance(holder, list) else step]
    holder[int(at) if isinstance(holder, list) else at] = value
    body = json.dumps(message["of"])
    if wrapped is by_event_bridge:
        try:
            body = wrapped(body)
        except (TypeError, LookupError, AttributeError):
            return
    elif wrapped is sns:
        body = sns(body)
    said = read_message(body, NOW)
    for one in said.notices:
        assert 0 < len(one.url.key.encode()) <= 1024 and ".." not in one.url.key.split("/") and one.at <= NOW


def test_buckets_of_a_policy() -> None:
    def policy(*conditions: Any) -> str:
        statements = [{"Effect": "Allow", "Action": "sqs:SendMessage", "Condition": one} for one in conditions]
        return json.dumps({"Statement": statements})

    exact = {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::logs"}}
    two = {"ArnLike": {"AWS:SourceArn": ["arn:aws:s3:::a-logs", "arn:aws:s3:::b-logs"]}}
    assert senders(policy(exact)) == {"logs"} and senders(policy(exact, two)) == {"logs", "a-logs", "b-logs"}
    topic = {"ArnEquals": {"aws:SourceArn": "arn:aws:sns:us-east-1:1:t"}}
    for open_one in (
        topic,
        {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:*"}},
        {},
        {"StringEquals": {"x": "y"}},
        None,
        5,
    ):
        assert senders(policy(exact, open_one)) == frozenset()
    for text in (None, "", "{", "[]", '{"Statement": 5}', 7):
        assert senders(text) == frozenset()
