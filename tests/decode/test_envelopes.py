"""Every form in which records are delivered is read completely and distinguished from similar objects."""

from __future__ import annotations

import ast
import base64
import bz2
import csv
import gzip
import io
import json
import lzma
import os
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.paths import REAL_LOGS, ROOT, TESTS
from trailsift.decode import record
from trailsift.decode.envelope import find_records
from trailsift.decode.limits import LIMITS, Budget, Limits
from trailsift.decode.tabular import words
from trailsift.ingest.chunk_builder import ChunkBuilder, ObjectStats

EXPECTED: dict[str, dict[str, Any]] = json.loads((TESTS / "cases" / "envelopes.json").read_text())


# -- helpers ---------------------------------------------------------------------------------------------------------


def ingested(data: bytes, limits: Limits = LIMITS) -> tuple[ObjectStats, list[dict[str, Any]]]:
    """Return the counts of a log object, and its records as a lake restores them."""
    builder = ChunkBuilder()
    tally = builder.add("object", data, budget=Budget(limits, len(data)))
    rows = builder.finish().table.to_pylist()
    for row in rows:
        seconds = row["event_time"].replace(microsecond=0).timestamp()
        row["event_time"] = round(seconds) * 1_000_000 + row["event_time"].microsecond
    assert tally.records == len(rows) + len(tally.malformed)
    assert not (tally.foreign and tally.records)
    assert not any(malformed.reason.startswith("unforeseen") for malformed in tally.malformed)
    return tally, [record.restore(row) for row in rows]


def canon(records: list[Any]) -> list[str]:
    """Return records in a canonical order, with int distinct from float."""
    return sorted(json.dumps(value, sort_keys=True) for value in records)


def text(value: Any) -> bytes:
    return json.dumps(value).encode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def event(number: int, **changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "eventVersion": "1.11",
        "userIdentity": {"type": "AWSAccount", "principalId": "", "accountId": "111122223333"},
        "eventTime": f"2026-03-02T01:02:{number % 60:02}Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "192.0.2.1",
        "requestParameters": {"bucketName": "invented", "key": f"a/{number}"},
        "responseElements": None,
        "eventID": f"00000000-0000-4000-8000-{number:012}",
        "readOnly": True,
        "eventType": "AwsApiCall",
        "recipientAccountId": "111122223333",
    }
    return values | changes


A, B, C = event(1), event(2, readOnly=False), event(3, additionalEventData={"bytesTransferredOut": 5.0})


def batch(*messages: str, kind: str = "DATA_MESSAGE") -> dict[str, Any]:
    """Return a batch of CloudWatch Logs."""
    events = [{"id": str(at), "timestamp": 1, "message": message} for at, message in enumerate(messages)]
    return {
        "messageType": kind,
        "owner": "111122223333",
        "logGroup": "g",
        "logStream": "s",
        "subscriptionFilters": ["f"],
        "logEvents": events,
    }


def eventbridge(detail: dict[str, Any], kind: str = "AWS API Call via CloudTrail") -> dict[str, Any]:
    return {"version": "0", "id": "x", "detail-type": kind, "source": "aws.s3", "resources": [], "detail": detail}


def sns(message: Any) -> dict[str, Any]:
    return {"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:x:1:t", "Message": json.dumps(message)}


def sqs(*bodies: Any) -> dict[str, Any]:
    messages = [{"messageId": "m", "receiptHandle": "r", "body": json.dumps(body)} for body in bodies]
    return {"Records": [message | {"eventSource": "aws:sqs", "awsRegion": "eu-west-1"} for message in messages]}


def s3_notification(key: str = "AWSLogs/x.json.gz") -> dict[str, Any]:
    return {
        "eventVersion": "2.1",
        "eventSource": "aws:s3",
        "awsRegion": "eu-west-1",
        "eventTime": "2026-03-02T01:02:03.000Z",
        "eventName": "ObjectCreated:Put",
        "userIdentity": {"principalId": "AWS:x"},
        "s3": {"bucket": {"name": "logs"}, "object": {"key": key, "size": 1}},
    }


def kinesis(*blobs: bytes) -> dict[str, Any]:
    common = {"eventSource": "aws:kinesis", "eventVersion": "1.0", "eventName": "aws:kinesis:record", "eventID": "s:1"}
    return {"Records": [common | {"kinesis": {"partitionKey": "p", "data": b64(blob)}} for blob in blobs]}


def firehose(*blobs: bytes) -> dict[str, Any]:
    records = [
        {"recordId": str(at), "approximateArrivalTimestamp": 1, "data": b64(blob)} for at, blob in enumerate(blobs)
    ]
    return {"invocationId": "i", "deliveryStreamArn": "a", "region": "eu-west-1", "records": records}


def lookup(value: dict[str, Any]) -> dict[str, Any]:
    return {"EventId": value["eventID"], "EventName": value["eventName"], "CloudTrailEvent": json.dumps(value)}


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


def tarred(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


RECORDS = text({"Records": [A, B]})
DIGEST = {"awsAccountId": "1", "digestS3Object": "d", "digestStartTime": "2026-03-02T01:00:00Z", "logFiles": []}
CONTROL = batch("CWL CONTROL MESSAGE: Checking health of destination Firehose.", kind="CONTROL_MESSAGE")
AGGREGATED = {
    "eventVersion": "1.0",
    "eventId": "x",
    "eventCategory": "Aggregated",
    "eventType": "AwsAggregatedEvent",
    "eventSource": "s3.amazonaws.com",
    "timeWindow": {},
    "summary": {},
}


# -- forms that hold records -----------------------------------------------------------------------------------------

#: Name -> bytes, the records in them, and the number of malformed parts.
FORMS: dict[str, tuple[bytes, list[dict[str, Any]], int]] = {
    "CloudWatch Logs, decoded": (text(batch(json.dumps(A), json.dumps(B))), [A, B], 0),
    "CloudWatch Logs, several messages joined": (text(batch(json.dumps(A) + json.dumps(B))), [A, B], 0),
    "CloudWatch Logs, batches joined": (text(batch(json.dumps(A))) + text(batch(json.dumps(B))), [A, B], 0),
    "CloudWatch Logs, Lambda event": (
        text({"awslogs": {"data": b64(gzip.compress(text(batch(json.dumps(A), json.dumps(C)))))}}),
        [A, C],
        0,
    ),
    "CloudWatch Logs, a message that is not JSON": (text(batch(json.dumps(A), "START Request")), [A], 1),
    "CloudWatch Logs, export to S3": (b"".join(b"2026-03-02T01:02:03.004Z %s\n" % text(e) for e in (A, B)), [A, B], 0),
    "CloudWatch Logs, by its API": (text({"events": [{"message": json.dumps(A), "timestamp": 1}]}), [A], 0),
    "CloudWatch Logs, Insights": (
        text({"results": [[{"field": "@timestamp", "value": "t"}, {"field": "@message", "value": json.dumps(A)}]]}),
        [A],
        0,
    ),
    "Firehose event": (
        text(firehose(text(A), gzip.compress(text(batch(json.dumps(B)))), text(CONTROL), b"not json")),
        [A, B],
        1,
    ),
    "Firehose HTTP event": (text({"requestId": "r", "timestamp": 1, "records": [{"data": b64(text(A))}]}), [A], 0),
    "Firehose delivery without delimiters": (text(A) + text(B) + text(C), [A, B, C], 0),
    "Firehose delivery, the last one cut": (text(A) + text(B)[:-9], [A], 1),
    "Firehose delivery, gzip members": (gzip.compress(text(A)) + gzip.compress(text(B)), [A, B], 0),
    "Kinesis event": (text(kinesis(text(A), gzip.compress(text(batch(json.dumps(B)))), b"Hello")), [A, B], 1),
    "Kinesis, by its API": (text({"Records": [{"Data": b64(text(A)), "SequenceNumber": "1"}]}), [A], 0),
    "EventBridge": (text(eventbridge(A)), [A], 0),
    "EventBridge, one a line": (text(eventbridge(A)) + b"\n" + text(eventbridge(B)), [A, B], 0),
    "EventBridge in SQS": (text(sqs(eventbridge(A), eventbridge(B))), [A, B], 0),
    "EventBridge in SNS": (text({"Records": [{"EventSource": "aws:sns", "Sns": sns(eventbridge(A))}]}), [A], 0),
    "EventBridge in SNS in SQS": (text(sqs(sns(eventbridge(A)))), [A], 0),
    "SQS, by its API": (text({"Messages": [{"MessageId": "m", "Body": json.dumps(eventbridge(A))}]}), [A], 0),
    "LookupEvents": (text({"Events": [lookup(A), lookup(B)], "NextToken": "t"}), [A, B], 0),
    "LookupEvents, one a line": (text(lookup(A)) + b"\n" + text(lookup(B)), [A, B], 0),
    "LookupEvents in a Records array": (text({"Records": [lookup(A), lookup(B)]}), [A, B], 0),
    "LookupEvents, array": (text([lookup(A), lookup(B)]), [A, B], 0),
    "Records, beginning inside a record": (text({"Records": [A, B, C]})[60:], [B, C], 1),
    "Records, beginning and ending inside a record": (text({"Records": [A, B, C, A]})[60:-40], [B, C], 2),
    "joined, beginning inside a record": ((text(A) + text(B) + text(C))[60:], [B, C], 1),
    "printed over lines, beginning inside a record": (json.dumps([A, B, C], indent=1).encode()[90:], [B, C], 1),
    "LookupEvents, cut short": (text({"Events": [lookup(A), lookup(B)]})[:-50], [A], 1),
    "raw text of a shipper, array": (text([{"_raw": json.dumps(A, indent=1), "_time": 1}]), [A], 0),
    "raw text of a shipper, lines": (text({"result": {"_raw": json.dumps(A)}, "preview": False}), [A], 0),
    "message of a shipper": (text({"@timestamp": "t", "message": json.dumps(A)}), [A], 0),
    "search engine dump": (text({"_index": "i", "_source": A}) + b"\n" + text({"_source": B}), [A, B], 0),
    "search engine answer": (text({"hits": {"total": 1, "hits": [{"_source": A}]}}), [A], 0),
    "records object, lines of them": (RECORDS + b"\n" + text({"Records": [C]}), [A, B, C], 0),
    "objects over several lines, joined": (b"\n".join(json.dumps(e, indent=2).encode() for e in (A, B)), [A, B], 0),
    "UTF-16": (json.dumps({"Records": [A]}).encode("utf-16"), [A], 0),
    "CRLF lines with a mark": (b"\xef\xbb\xbf" + text(A) + b"\r\n" + text(B) + b"\r\n", [A, B], 0),
    "tar": (tarred(a=RECORDS, b=gzip.compress(text({"Records": [C]}))), [A, B, C], 0),
    "tar.gz with a digest": (gzip.compress(tarred(a=RECORDS, d=text(DIGEST), **{"._a": b"junk"})), [A, B], 0),
    "tar.bz2": (bz2.compress(tarred(a=RECORDS)), [A, B], 0),
    "xz": (lzma.compress(RECORDS) + lzma.compress(b"\n"), [A, B], 0),
    "zip of tar": (zipped(t=tarred(a=RECORDS)), [A, B], 0),
    "zip with a member that is not a log": (zipped(a=RECORDS, b=b"read me"), [A, B], 1),
    "tar, cut short": (tarred(a=RECORDS, b=text({"Records": [C, A]}))[: 512 * 3 + len(RECORDS) + 600], None, 1),
    "tar.gz, cut short": (gzip.compress(tarred(a=RECORDS, b=RECORDS, c=text(C)))[:-40], None, 1),
    "bzip2, cut short": (bz2.compress(RECORDS)[:-30], [], 1),
    "gzip followed by other data": (gzip.compress(RECORDS) + b"trailing", [A, B], 1),
    "gzip, wrong checksum": (gzip.compress(RECORDS)[:-8] + b"12345678", [A, B], 1),
    "gzip, the trailer missing": (gzip.compress(RECORDS)[:-8], [A, B], 1),
    "gzip of lines, the last one cut": (gzip.compress(text(A) + b"\n" + text(B)[:-9] + b"", mtime=0)[:-4], [A], 1),
    "insight, network activity and management beside data": (
        text({
            "Records": [
                A,
                {"eventVersion": "1.08", "eventTime": "2026-03-02T01:02:03Z", "eventType": "AwsCloudTrailInsight",
                 "eventID": "i", "eventCategory": "Insight", "insightDetails": {"state": "Start"}},
                event(5, eventType="AwsVpceEvent", eventCategory="NetworkActivity"),
            ]
        }),
        [
            A,
            {"eventVersion": "1.08", "eventTime": "2026-03-02T01:02:03Z", "eventType": "AwsCloudTrailInsight",
             "eventID": "i", "eventCategory": "Insight", "insightDetails": {"state": "Start"}},
            event(5, eventType="AwsVpceEvent", eventCategory="NetworkActivity"),
        ],
        0,
    ),
    "notification among records": (text({"Records": [A, s3_notification(), B]}), [A, B], 0),
    "notification first, no blanks": (
        json.dumps({"Records": [s3_notification(), A]}, separators=(",", ":")).encode(),
        [A],
        0,
    ),
    "notification and event in SQS": (text(sqs({"Records": [s3_notification()]}, eventbridge(A))), [A], 0),
    "unknown object among records": (text({"Records": [A, {"hello": 1}]}), [A], 1),
    "record without a time": (text({"Records": [A, {k: v for k, v in B.items() if k != "eventTime"}]}), [A], 1),
    "damage in the middle": (text({"Records": [A, B, C]}).replace(b'"2026-03-02T01:02:02Z"', b'"2026'), [A, C], 1),
    "first lines broken": (b"garbage\nmore\nagain\n" + text(A) + b"\n" + text(B), [A, B], 3),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_form_is_read_completely(form: str) -> None:
    data, records, malformed = FORMS[form]
    tally, restored = ingested(data)
    assert len(tally.malformed) == malformed, tally.malformed
    if records is not None:
        assert canon(restored) == canon(records)
    assert tally.foreign is None
    for packed in (gzip.compress(data), zipped(member=data)):
        again, same = ingested(packed)
        assert (again.records, len(again.malformed), canon(same)) == (tally.records, malformed, canon(restored))


#: Name -> bytes without a record, and a word of the description that they get.
NOT_CLOUDTRAIL: dict[str, tuple[bytes, str]] = {
    "digest": (text(DIGEST), "digest"),
    "S3 notification": (text({"Records": [s3_notification()]}), "notification"),
    "S3 notifications, as S3 writes them": (
        json.dumps({"Records": [s3_notification("a"), s3_notification("b")]}, separators=(",", ":")).encode(),
        "notification",
    ),
    "S3 notification in SQS": (text(sqs({"Records": [s3_notification()]})), "notification"),
    "S3 notification in SNS in SQS": (text(sqs(sns({"Records": [s3_notification()]}))), "notification"),
    "S3 notification by EventBridge": (
        text(eventbridge({"bucket": {"name": "b"}, "object": {"key": "k"}}, "Object Created")),
        "notification",
    ),
    "S3 test message": (text({"Service": "Amazon S3", "Event": "s3:TestEvent", "Bucket": "b"}), "notification"),
    "CloudTrail's own notification": (text(sns({"s3Bucket": "b", "s3ObjectKey": ["k"]})), "notification"),
    "subscription": (text({"Type": "SubscriptionConfirmation", "TopicArn": "t", "Message": "m"}), "subscription"),
    "control message": (text(CONTROL), "control"),
    "control message in Firehose": (text(firehose(text(CONTROL))), "control"),
    "aggregated events": (text({"Records": [AGGREGATED]}), "aggregated"),
    "aggregated events, lines": (text(AGGREGATED) + b"\n" + text(AGGREGATED), "aggregated"),
    "stream of DynamoDB": (
        text({"Records": [{"eventID": "1", "eventName": "INSERT", "eventSource": "aws:dynamodb", "dynamodb": {}}]}),
        "DynamoDB",
    ),
    "another event of EventBridge": (text(eventbridge({"state": "running"}, "EC2 State-change")), "EventBridge"),
    "truth.json": (text({"seed": 7, "incidents": [{"what": "x"}]}), "no CloudTrail record"),
    "any JSON, lines": (b'{"a":1}\n{"b":2}\n', "no CloudTrail record"),
    "empty array": (b"[]", "empty list"),
    "empty envelope": (text({"Events": []}), "nothing in it"),
    "table without rows": (b"eventTime,eventName,eventSource\n", "without rows"),
    "empty zip": (zipped(), "empty archive"),
    "digests in a zip": (zipped(a=text(DIGEST), b=gzip.compress(text(DIGEST))), "digest"),
}  # fmt: skip


@pytest.mark.parametrize("form", NOT_CLOUDTRAIL)
def test_objects_without_records_are_described(form: str) -> None:
    data, word = NOT_CLOUDTRAIL[form]
    tally, records = ingested(data)
    assert (tally.records, tally.malformed, records) == (0, [], [])
    assert tally.foreign is not None and word in tally.foreign
    assert find_records(data, cut=False).not_cloudtrail == tally.foreign


def test_an_empty_list_of_records_is_cloudtrail() -> None:
    for data in (b'{"Records":[]}', b'{ "Records" : [ ] }\n', gzip.compress(b'{"Records":[]}')):
        tally, records = ingested(data)
        assert (tally.records, tally.malformed, tally.foreign, records) == (0, [], None, [])


# -- tables ----------------------------------------------------------------------------------------------------------

ATHENA = """"eventversion","useridentity","eventtime","eventsource","eventname","awsregion","sourceipaddress",\
"errorcode","requestparameters","responseelements","requestid","eventid","resources","readonly","vpcendpointid","year"
"1.08","{type=AssumedRole, principalid=AROA:job, arn=arn:aws:sts::1:assumed-role/etl/job, accountid=1, invokedby=null, \
sessioncontext={attributes={mfaauthenticated=false, creationdate=2026-03-02T00:00:00Z}, sessionissuer={type=Role, \
username=etl}}}","2026-03-02T01:02:03Z","s3.amazonaws.com","GetObject","eu-west-1","192.0.2.1","",\
"{""bucketName"":""b"",""key"":""a, b=c""}","null","R1","e1",\
"[{type=AWS::S3::Object, arn=arn:aws:s3:::b/a, b=c}, {accountid=1, type=AWS::S3::Bucket, arn=arn:aws:s3:::b}]",\
"True","","2026"
"1.08","","2026-03-02T01:02:04Z","s3.amazonaws.com","PutObject","eu-west-1","192.0.2.1","AccessDenied",\
"{not a struct","","R2","e2","","false","vpce-1","2026"
"""
ATHENA_RECORDS = [
    {
        "eventVersion": "1.08",
        "userIdentity": {
            "type": "AssumedRole",
            "principalId": "AROA:job",
            "arn": "arn:aws:sts::1:assumed-role/etl/job",
            "accountId": "1",
            "sessionContext": {
                "attributes": {"mfaAuthenticated": "false", "creationDate": "2026-03-02T00:00:00Z"},
                "sessionIssuer": {"type": "Role", "userName": "etl"},
            },
        },
        "eventTime": "2026-03-02T01:02:03Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "192.0.2.1",
        "requestParameters": {"bucketName": "b", "key": "a, b=c"},
        "responseElements": None,
        "requestID": "R1",
        "eventID": "e1",
        # `, b=` reads like a member: nothing is lost, but it ends up in another place.
        "resources": [
            {"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::b/a", "b": "c"},
            {"accountId": "1", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b"},
        ],
        "readOnly": True,
        "year": "2026",
    },
    {
        "eventVersion": "1.08",
        "eventTime": "2026-03-02T01:02:04Z",
        "eventSource": "s3.amazonaws.com",
        "eventName": "PutObject",
        "awsRegion": "eu-west-1",
        "sourceIPAddress": "192.0.2.1",
        "errorCode": "AccessDenied",
        "requestParameters": "{not a struct",
        "requestID": "R2",
        "eventID": "e2",
        "readOnly": False,
        "vpcEndpointId": "vpce-1",
        "year": "2026",
    },
]
ALERTS = """Event Type,Event Name,Request ID,User ID,Request Parameters,Alert,Event ID,Event DateTime,Source IP
AwsApiCall,HeadBucket,R1,"{'type': 'AWSAccount', 'accountId': None, 'more': [1, 2.5, True, ""it's""]}",{'Host': 'h'}, 12-x,e1,2026-03-02T01:02:03Z,192.0.2.1
"""  # noqa: E501
ALERT_RECORDS = [
    {
        "eventType": "AwsApiCall",
        "eventName": "HeadBucket",
        "requestID": "R1",
        "userIdentity": {"type": "AWSAccount", "accountId": None, "more": [1, 2.5, True, "it's"]},
        "requestParameters": {"Host": "h"},
        "Alert": " 12-x",
        "eventID": "e1",
        "eventTime": "2026-03-02T01:02:03Z",
        "sourceIPAddress": "192.0.2.1",
    }
]


def lake(*rows: dict[str, Any]) -> dict[str, Any]:
    cells = [[{name: cell} for name, cell in row.items()] for row in rows]
    return {"QueryStatus": "FINISHED", "QueryResultRows": cells}


LAKE_ROW = {
    "eventTime": "2026-03-02 01:02:03.000",
    "eventName": "GetObject",
    "userIdentity": "{type=AWSService, invokedby=config.amazonaws.com, sessioncontext=null}",
    "requestParameters": '{bucketName=b, filterSet={"items":[{"name":"x"}]}, Host=h}',
    "readOnly": "true",
    "errorCode": None,
    "anything": "else",
}
LAKE_RECORD = {
    "eventTime": "2026-03-02 01:02:03.000",
    "eventName": "GetObject",
    "userIdentity": {"type": "AWSService", "invokedBy": "config.amazonaws.com"},
    "requestParameters": {"bucketName": "b", "filterSet": '{"items":[{"name":"x"}]}', "Host": "h"},
    "readOnly": True,
    "anything": "else",
}


def athena_json(table: str) -> dict[str, Any]:
    rows = [[{"VarCharValue": cell} if cell else {} for cell in row] for row in csv.reader(io.StringIO(table))]
    return {"ResultSet": {"Rows": [{"Data": row} for row in rows]}}


def quoted(**cells: str) -> bytes:
    sink = io.StringIO()
    writer = csv.writer(sink)
    writer.writerow(cells)
    writer.writerow(cells.values())
    return sink.getvalue().encode()


def tabbed(table: str) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, delimiter="\t").writerows(csv.reader(io.StringIO(table)))
    return sink.getvalue().encode()


LARGE = {"eventTime": "2026-03-02T01:02:03Z", "eventName": "n", "eventSource": "s"}
LARGE_RECORD = LARGE | {"requestParameters": {"x": "y" * 200_000}}
TABLES: dict[str, tuple[bytes, list[dict[str, Any]], int]] = {
    "Athena CSV": (ATHENA.encode(), ATHENA_RECORDS, 0),
    "Athena CSV, CRLF, mark": (b"\xef\xbb\xbf" + ATHENA.replace("\n", "\r\n").encode(), ATHENA_RECORDS, 0),
    "Athena CSV, twice": (ATHENA.encode() * 2, ATHENA_RECORDS * 2, 0),
    "Athena JSON": (text(athena_json(ATHENA)), ATHENA_RECORDS, 0),
    "CSV with a row too short": (ATHENA.encode() + b'"1.08","x"\n', ATHENA_RECORDS, 1),
    "CSV, gzip without its end": (gzip.compress(ATHENA.encode())[:-8], ATHENA_RECORDS, 1),
    "CSV, gzip, cut in a row": (gzip.compress(ATHENA.encode()[:-12])[:-8], ATHENA_RECORDS[:1], 1),
    "tabs": (tabbed(ATHENA), ATHENA_RECORDS, 0),
    "CSV with repr": (ALERTS.encode(), ALERT_RECORDS, 0),
    "Lake": (text(lake(LAKE_ROW, LAKE_ROW)), [LAKE_RECORD] * 2, 0),
    "whole event in a column": (quoted(name="x", CloudTrailEvent=json.dumps(A)), [A], 0),
    "Insights CSV": (quoted(**{"@timestamp": "t", "@message": json.dumps(A)}), [A], 0),
    "a large cell": (quoted(**LARGE | {"requestParameters": json.dumps({"x": "y" * 200_000})}), [LARGE_RECORD], 0),
}  # fmt: skip


@pytest.mark.parametrize("form", TABLES)
def test_table_is_turned_back_into_records(form: str) -> None:
    data, records, malformed = TABLES[form]
    tally, restored = ingested(data)
    assert len(tally.malformed) == malformed, tally.malformed
    assert canon(restored) == canon(records)


def test_query_results_without_records() -> None:
    tally, _ = ingested(text(lake({"n": "12"}, {"n": "13"})))
    assert tally.foreign is not None and tally.records == 0


# -- hostile inputs --------------------------------------------------------------------------------------------------


def test_oddities_inside_records() -> None:
    """Written by hand, because Python's json cannot write some of them."""
    head = b'{"eventVersion":"1.11","eventTime":"2026-03-02T01:02:03Z","eventSource":"s3.amazonaws.com",'
    inner = [
        rb'"eventName":"X","eventName":"GetObject","eventID":"1"',
        rb'"eventName":"GetObject","eventID":"2","requestParameters":{"bucketName":"b","key":"x","key":"y"}',
        rb'"eventName":"GetObject","eventID":"3","requestParameters":{"key":"\ud800","bucketName":"\udfff"}',
        b'"eventName":"GetObject","eventID":"4","userAgent":"caf\xe9"',
        b'"eventName":"GetObject","eventID":"5","requestParameters":{"n":1E2,"m":1.0,"o":-0,"p":12345678901234567890}',
        b'"eventName":"GetObject","eventID":"6","requestParameters":' + b'{"a":' * 150 + b"1" + b"}" * 150,
        b'"eventName":"GetObject","eventID":"7","requestParameters":{"key":"' + b"k" * 250_000 + b'"}',
    ]  # fmt: skip
    data = b'{"Records":[' + b",".join(head + members + b"}" for members in inner) + b"]}"
    tally, restored = ingested(data)
    expected = json.loads(data.decode("utf-8", "replace"))["Records"]
    assert tally.malformed == []
    assert canon(restored) == canon(expected)
    assert len(expected) == len(inner)


@pytest.mark.parametrize("deep", [b'{"a":' * 100_000, b"[" * 100_000, b'{"a":[' * 3_000])
def test_deep_nesting_costs_one_record(deep: bytes) -> None:
    closing = {b"[": b"]", b"{": b"}"}
    end = b"".join(closing[bytes([sign])] for sign in reversed(deep) if sign in b"[{")
    bad = b'{"eventVersion":"1","eventID":"x","requestParameters":' + deep + b"1" + end + b"}"
    for data in (
        b'{"Records":[' + b",".join([text(A), bad, text(B)]) + b"]}",
        b"\n".join([text(A), bad, text(B)]),
        b'{"Records": [' + b", ".join([text(A), bad, text(B)]) + b"]}",
    ):
        tally, restored = ingested(data)
        assert len(tally.malformed) == 1
        assert canon(restored) == canon([A, B])


def test_numbers_that_python_does_not_read_cost_one_record() -> None:
    bad = text(C).replace(b"5.0", b"1" * 5_000)
    tally, restored = ingested(b'{"Records":[' + b",".join([text(A), bad, text(B)]) + b"]}")
    assert len(tally.malformed) == 1
    assert canon(restored) == canon([A, B])


def test_lone_surrogate_in_a_text_in_json() -> None:
    odd = event(9, userAgent="\ud800", requestParameters={"key": "\udfff\\"})
    escaped = json.dumps(odd)
    for inner in (escaped, escaped.replace("\\ud800", "\ud800")):
        _, restored = ingested(text(batch(inner)))
        assert canon(restored) == canon([odd])


def test_wrapping_is_bounded() -> None:
    wrapped: Any = eventbridge(A)
    for _ in range(20):
        wrapped = {"Records": [{"messageId": "m", "body": json.dumps(wrapped)}]} if _ % 2 else {"Records": [wrapped]}
        if len(json.dumps(wrapped)) > 1_000_000:
            break
    tally, restored = ingested(text(wrapped))
    assert (tally.records, len(tally.malformed), restored) == (1, 1, [])
    packed = RECORDS
    for _ in range(LIMITS.layers + 3):
        packed = gzip.compress(packed)
    tally, restored = ingested(packed)
    assert (tally.records, len(tally.malformed), restored) == (1, 1, [])


def test_a_bomb_is_cut_off() -> None:
    zeros, lines = bytes(20 << 20), (text(A) + b"\n") * 20_000
    for data in (zeros, b"x" * (20 << 20), b"[" * (20 << 20)):
        for packed in (gzip.compress(data), zipped(a=data), bz2.compress(data), lzma.compress(data)):
            tally, restored = ingested(packed, Limits(free=1 << 20))
            assert (tally.records, len(tally.malformed), restored) == (1, 1, [])
            assert "unpacked" in tally.malformed[0].reason
    for packed in (gzip.compress(lines), zipped(a=lines), lzma.compress(lines)):
        tally, restored = ingested(packed, Limits(free=1 << 20))
        assert len(tally.malformed) == 1 and len(restored) > 1_000
        assert set(canon(restored)) == set(canon([A]))


def test_a_bomb_of_many_members_is_cut_off() -> None:
    data = zipped(**{str(at): bytes(1 << 19) for at in range(50)})
    found = find_records(data, budget=Budget(Limits(free=1 << 20, growth=1, log_object=1 << 20), len(data)))
    assert not found.records and found.malformed


@pytest.mark.slow
def test_fifty_megabytes() -> None:
    count = 100_000
    records = [event(at) for at in range(count)]
    tight = [json.dumps(value, separators=(",", ":")) for value in records]
    for data in (
        ('{"Records":[' + ",".join(tight) + "]}").encode(),
        text({"Records": records}),
        "\n".join(tight).encode(),
    ):
        assert len(data) > 40_000_000
        builder = ChunkBuilder()
        tally = builder.add("object", gzip.compress(data, 1))
        assert (tally.records, tally.malformed) == (count, [])
        assert builder.finish().table.num_rows == count


def test_every_cut_of_a_gzip_counts_once() -> None:
    whole = gzip.compress(text({"Records": [event(at) for at in range(30)]}), mtime=0)
    last = -1
    for end in range(20, len(whole), 7):
        tally, restored = ingested(whole[:end])
        assert len(tally.malformed) == 1, end
        assert canon(restored) == canon([event(at) for at in range(len(restored))])
        assert len(restored) >= last
        last = len(restored)
    assert last >= 29


ITEMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(
        ["Records", json.dumps(A), b64(text(A)), b64(gzip.compress(RECORDS)), "{a=b, c=[d, {e=f}]}", "{'a': 1}"]
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(words(
            "Records records Events Messages logEvents events message messageType awslogs data Data kinesis detail "
            "detail-type source body messageId Sns Message TopicArn Type CloudTrailEvent QueryResultRows ResultSet "
            "Rows results field value VarCharValue _raw _source hits result s3 eventSource eventName eventTime eventID "
            "eventCategory userIdentity resources requestParameters readOnly"
        )),
        inner,
        max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(ITEMS)
def test_no_envelope_raises(value: Any) -> None:
    data = text(value)
    ingested(data)
    for raw in find_records(data, cut=False).records:
        assert isinstance(json.loads(bytes(raw)), dict)


SOURCES = [data for data, *_ in [*FORMS.values(), *NOT_CLOUDTRAIL.values(), *TABLES.values()] if len(data) < 20_000]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(SOURCES), st.integers(0, 4_000), st.integers(0, 40), st.binary(max_size=4))
def test_no_damage_raises(data: bytes, at: int, length: int, put: bytes) -> None:
    at %= len(data) or 1
    damaged = data[:at] + put + data[at + length :]
    ingested(damaged)
    tally, _ = ingested(gzip.compress(damaged)[:-5])
    assert tally.malformed


# -- the 28 files ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def envelopes() -> dict[str, Path]:
    """Return files of every form by number. They belong to other people and are not in any repository."""
    real = Path(os.environ.get(REAL_LOGS) or ROOT.parent / "shared" / "data" / "real")
    folder = real.parent / "envelopes"
    if not folder.is_dir():
        pytest.skip(f"no envelopes at {folder}: set {REAL_LOGS} to a folder beside one that has them")
    return {path.name[:2]: path for path in folder.iterdir() if path.name[:2].isdigit()}


@pytest.mark.parametrize("number", EXPECTED)
def test_counts_of_the_files(envelopes: dict[str, Path], number: str) -> None:
    tally, records = ingested(envelopes[number].read_bytes())
    counts = {"records": tally.records, "stored": len(records), "malformed": len(tally.malformed)}
    assert counts | {"foreign": tally.foreign is not None} == EXPECTED[number]


def test_every_file_is_expected(envelopes: dict[str, Path]) -> None:
    assert set(envelopes) == set(EXPECTED)


def _messages(value: Any) -> list[Any]:
    return [json.loads(event["message"]) for event in value["logEvents"]]


def _ungzip(text_: str) -> Any:
    return json.loads(gzip.decompress(base64.b64decode(text_)))


def _lines(data: bytes) -> list[Any]:
    return [json.loads(line) for line in data.decode("utf-8", "replace").splitlines()]


def _members(data: bytes) -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as opened:
        return [opened.read(name) for name in opened.namelist()]


def _firehose(value: Any) -> list[Any]:
    first, second = (base64.b64decode(item["data"]) for item in value["records"][:2])
    return [*_messages(json.loads(gzip.decompress(first))), json.loads(second)]


def _flat(cell: str, names: dict[str, str]) -> dict[str, str]:
    """Parse a struct that Athena printed, without nested structs."""
    pairs = (part.split("=", 1) for part in cell.strip("{}").split(", "))
    return {names.get(name, name): value for name, value in pairs}


_USER = {"principalid": "principalId", "accountid": "accountId", "invokedby": "invokedBy"}
_CAMEL = words(
    "eventVersion userIdentity eventTime eventSource eventName awsRegion sourceIPAddress userAgent errorCode "
    "errorMessage requestParameters responseElements additionalEventData requestID eventID resources eventType "
    "apiVersion readOnly recipientAccountId serviceEventDetails sharedEventID vpcEndpointId"
)


def _athena(data: bytes) -> list[Any]:
    rows = list(csv.reader(io.StringIO(data.decode())))[1:]
    records = [{name: cell for name, cell in zip(_CAMEL, row, strict=True) if cell} for row in rows]
    for values in records:
        values["userIdentity"] = _flat(values["userIdentity"], _USER)
        names = {"arn": "ARN", "accountid": "accountId"}
        values["resources"] = [_flat(struct, names) for struct in re.findall(r"\{.*?\}", values["resources"])]
        values["readOnly"] = values["readOnly"] == "True"
        for name in ("requestParameters", "additionalEventData"):
            values[name] = json.loads(values[name])
    return records


def _lake(value: Any) -> list[Any]:
    records = [{name: cell for pair in row for name, cell in pair.items()} for row in value["QueryResultRows"]]
    return [values | {"userIdentity": _flat(values["userIdentity"], _USER)} for values in records]


_TITLES = {
    "Event Type": "eventType",
    "Event Name": "eventName",
    "Request ID": "requestID",
    "User ID": "userIdentity",
    "Request Parameters": "requestParameters",
    "Event ID": "eventID",
    "Event DateTime": "eventTime",
    "Source IP": "sourceIPAddress",
    "Request User Agent": "userAgent",
}


def _alerts(data: bytes) -> list[Any]:
    rows = csv.DictReader(io.StringIO(data.decode()))
    records = [{_TITLES.get(title, title): cell for title, cell in row.items() if cell} for row in rows]
    for values in records:
        for name in ("userIdentity", "requestParameters"):
            values[name] = ast.literal_eval(values[name])
    return records


#: The records of each file, read with nothing but the standard library.
PLAIN: dict[str, Callable[[bytes], list[Any]]] = {
    "01": lambda data: json.loads(gzip.decompress(data))["Records"],
    "02": lambda data: json.loads(data)["Records"],
    "03": json.loads,
    "04": lambda data: _lines(_members(data)[0]),
    "05": lambda data: _messages(json.loads(data)),
    "06": lambda data: _messages(_ungzip(json.loads(data)["awslogs"]["data"])),
    "07": lambda data: _firehose(json.loads(data)),
    "08": lambda data: [json.loads(data)["detail"]],
    "09": lambda data: [json.loads(message["body"])["detail"] for message in json.loads(data)["Records"]],
    "10": lambda data: [json.loads(event["CloudTrailEvent"]) for event in _lines(data)],
    "11": lambda data: [json.loads(event["CloudTrailEvent"]) for event in json.loads(data)["Events"]],
    "16": lambda data: [value for member in _members(data) for value in json.loads(gzip.decompress(member))["Records"]],
    "17": _lines,
    "18": _athena,
    "19": lambda data: _lake(json.loads(data)),
    "20": lambda data: _alerts(_members(data)[0]),
    "21": json.loads,
    "24": lambda data: [json.loads(event["_raw"]) for event in json.loads(data)],
    "25": lambda data: json.loads(data.decode("utf-8-sig"))["Records"],
    "26": _lines,
    "27": lambda data: json.loads(data)["Records"],
}


@pytest.mark.parametrize("number", PLAIN)
def test_files_are_restored_as_the_standard_library_reads_them(envelopes: dict[str, Path], number: str) -> None:
    data = envelopes[number].read_bytes()
    _, restored = ingested(data)
    assert canon(restored) == canon(PLAIN[number](data))


def test_the_truncated_file_yields_the_records_before_the_cut(envelopes: dict[str, Path]) -> None:
    _, restored = ingested(envelopes["15"].read_bytes())
    whole = json.loads(gzip.decompress(envelopes["01"].read_bytes()))["Records"]
    assert canon(restored) == canon(whole[: len(restored)])
