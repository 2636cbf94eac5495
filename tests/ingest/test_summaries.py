"""Summary lines equal a plain recount of the events, however they are divided into batches."""

from __future__ import annotations

import itertools
import json
import random
from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.records import sample, text
from trailsift import schema
from trailsift.cloudtrail.call_kinds import call_kind
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.cloudtrail.origins import agent_family, source_network
from trailsift.columns.arrow import CHUNK_SCHEMA
from trailsift.columns.summarize import NEEDED, Summaries, hash64, merge
from trailsift.decode import record
from trailsift.ingest.chunk import Chunk
from trailsift.ingest.chunk_builder import ChunkBuilder

HOUR, DAY = 3_600_000_000, 86_400_000_000


def chunk(records: list[dict[str, Any]]) -> Chunk:
    builder = ChunkBuilder()
    builder.add("object", text({"Records": records}))
    return builder.finish()


SUMMARY_TABLES = [table for table in schema.TABLES.values() if table.keys]


def summarize(made: list[Summaries]) -> dict[str, list[dict[str, Any]]]:
    parts = [each.tables() for each in made]
    return {t.name: merge(t, [part[t.name] for part in parts]).to_pylist() for t in SUMMARY_TABLES}


def add(line: dict[str, Any], row: dict[str, Any]) -> None:
    line["events"] = line.get("events", 0) + 1
    for name in ("bytes_in", "bytes_out"):
        line[name] = line.get(name, 0) + (row[name] or 0)
    line["first_time"] = min(line.get("first_time", row["event_time"]), row["event_time"])
    line["last_time"] = max(line.get("last_time", row["event_time"]), row["event_time"])


def recount(records: list[dict[str, Any]]) -> dict[str, dict[tuple[Any, ...], dict[str, Any]]]:
    """Compute the tables by dictionaries and loops, from slow-path rows."""
    tables: dict[str, dict[tuple[Any, ...], dict[str, Any]]] = {t.name: defaultdict(dict) for t in SUMMARY_TABLES}
    for made in records:
        row = record.row(made, "object")
        key = row["object_key"]
        hour, day = row["event_time"] // HOUR * HOUR, row["event_time"] // DAY
        names = (
            "account_id",
            "aws_region",
            "service",
            "event_name",
            "caller",
            "role_arn",
            "resource_arn",
            "error_code",
            "read_only",
            "event_category",
        )
        line = tables["hourly"][(hour, *(row[name] for name in names))]
        add(line, row)
        for column, value in (("source_ips", row["source_ip"]), ("object_keys", key)):
            values = line.setdefault(column, set())
            if value is not None:
                values.add(hash64(value))
        if row["event_category"] == "Insight":
            continue
        denied = row["error_code"] in schema.DENIED_CODES
        caller_account = row["principal_account"]
        is_owner = bool(row["shared_event_id"]) and caller_account not in (
            None,
            "ANONYMOUS_PRINCIPAL",
            row["account_id"],
        )
        network = source_network(row["source_ip"])
        touches = [("target", row["resource_arn"], key, row)]
        if row["source_resource_arn"] is not None:
            copied = row | {"bytes_in": 0, "bytes_out": 0}
            touches.append(("source", row["source_resource_arn"], row["source_object_key"], copied))
        for touch, arn, key, each in touches:
            pattern = None if key is None else key_pattern(key)
            who = (day, row["account_id"], row["caller"], row["role_arn"], row["service"], row["event_name"])
            line = tables["usage"][(*who, arn, pattern, row["error_code"], touch, row["event_category"])]
            add(line, each)
            line["owner_side"] = line.get("owner_side", 0) + is_owner
            if key is not None:
                line["example_key"] = min(line.get("example_key", key), key, key=str.encode)
            kind = "read" if touch == "source" else call_kind(row["service"], row["event_name"], row["read_only"])
            who = (day, row["account_id"], arn, row["caller"], network)
            line = tables["access"][(*who, kind, touch, row["event_category"])]
            add(line, each)
            line["denied"] = line.get("denied", 0) + denied
            line["owner_side"] = line.get("owner_side", 0) + is_owner
        agent = agent_family(row["user_agent"])
        who = (day, row["account_id"], row["caller"], row["session_name"], network, agent, row["vpc_endpoint_id"])
        line = tables["sessions"][(*who, row["event_category"])]
        add(line, row)
        line["denied"] = line.get("denied", 0) + denied
        values = {
            "source_network": network,
            "user_agent": agent,
            "vpc_endpoint": row["vpc_endpoint_id"],
            "session_name": row["session_name"],
            "principal_account": row["principal_account"],
        }
        for dimension, value in values.items():
            if value is not None:
                who = (day, row["account_id"], row["caller"], row["role_arn"])
                line = tables["profile"][(*who, dimension, value, row["event_category"])]
                add(line, row)
                line["denied"] = line.get("denied", 0) + denied
    return tables


def compare(records: list[dict[str, Any]], cuts: list[int]) -> None:
    bounds = [0, *sorted(cuts), len(records)]
    batches = [records[low:high] for low, high in itertools.pairwise(bounds) if low < high]
    chunks = [chunk(batch) for batch in batches]
    got = summarize([Summaries(each.factorized(NEEDED)) for each in chunks])
    assert got == summarize([Summaries.of(each.table) for each in chunks])
    for name, want in recount(records).items():
        table = schema.TABLES[name]
        assert len(got[name]) == len(want), name
        for line in got[name]:
            for column in ("first_time", "last_time"):
                line[column] = round(line[column].timestamp() * 1_000_000)
            if name == "hourly":
                line["hour"] = round(line["hour"].timestamp() * 1_000_000)
            else:
                line["day"] = (line["day"] - type(line["day"])(1970, 1, 1)).days
            expected = want[tuple(line[key] for key in table.keys)]
            for column, value in expected.items():
                if isinstance(value, set):
                    value = sorted(value)[: schema.SKETCH_SIZE]
                if column in line:
                    assert line[column] == value, (name, column)
            assert set(line) - set(expected) - set(table.keys) <= {"example_key"}


IDENTITIES = [
    {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"},
    {"type": "AWSAccount", "principalId": "AIDAX", "accountId": "444455556666"},
    {"type": "AWSAccount", "principalId": "AROAX:one", "accountId": "444455556666"},
    {"type": "AWSService", "invokedBy": "athena.amazonaws.com"},
    {"type": "SAMLUser", "userName": "alice"},
    None,
]


def varied(rng: random.Random, number: int) -> dict[str, Any]:
    """Return a record that varies in the columns that the summaries group by."""
    bucket, key = rng.choice("abc"), f"in/2026/03/0{rng.randint(1, 3)}/part-{rng.randint(1, 30)}.gz"
    made = sample(
        eventID=f"{number:08x}-2222-4333-8444-555555555555",
        eventTime=f"2026-03-0{rng.randint(1, 2)}T{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}:00Z",
        eventName=rng.choice(["GetObject", "PutObject", "DeleteObject"]),
        sourceIPAddress=rng.choice(["10.0.0.7", "10.0.1.9", "203.0.113.5", "athena.amazonaws.com", ""]),
        userAgent=rng.choice(["[Boto3/1.34]", "aws-cli/2.1", None]),
        requestParameters={"bucketName": bucket, "Host": "h", "key": key} if rng.random() < 0.8 else None,
        resources=[
            {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{bucket}/{key}"},
            {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": f"arn:aws:s3:::{bucket}"},
        ],
        additionalEventData={
            "bytesTransferredIn": rng.choice([0, 5, 7.0]),
            "bytesTransferredOut": rng.randint(0, 10**12),
        },
    )
    if rng.random() < 0.3:
        made["errorCode"] = rng.choice(["AccessDenied", "NoSuchKey"])
    if rng.random() < 0.3:
        made["vpcEndpointId"] = "vpce-1"
    if rng.random() < 0.3:
        made["userIdentity"] = rng.choice(IDENTITIES)
    if rng.random() < 0.2:
        made["sharedEventID"] = f"{number:08x}-0000-4333-8444-555555555555"
    if rng.random() < 0.2:
        made["eventCategory"] = rng.choice(["Data", "NetworkActivity", "Management", "Insight"])
    if rng.random() < 0.2 and made["requestParameters"] is not None:
        source = rng.choice(["orders/q1/plan", "/orders/in/2026/03/01/x", "a/%20b?versionId=1", "orders"])
        made["eventName"] = rng.choice(["CopyObject", "UploadPartCopy"])
        made["requestParameters"]["x-amz-copy-source"] = f"{source}{rng.randint(1, 3)}"
    if rng.random() < 0.2:
        del made["readOnly"]
    return made


@settings(max_examples=40)
@given(st.integers(0, 2**32), st.integers(1, 120), st.lists(st.integers(0, 120), max_size=4))
def test_lines_equal_a_recount(seed: int, number: int, cuts: list[int]) -> None:
    rng = random.Random(seed)
    compare([varied(rng, at) for at in range(number)], [min(cut, number) for cut in cuts])


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.sets(st.integers(0, 79)))
def test_lines_of_some_rows(seed: int, chosen: set[int]) -> None:
    rng = random.Random(seed)
    whole = chunk([varied(rng, at) for at in range(80)])
    rows = np.array(sorted(chosen), np.int64)
    some = whole.factorized(NEEDED, rows)
    assert some.own.num_rows == len(rows) and (not len(rows) or some.sets.num_rows <= len(rows))
    assert summarize([Summaries(some)]) == summarize([Summaries.of(whole.columns(CHUNK_SCHEMA.names, rows))])


def test_no_events() -> None:
    nothing: dict[str, list[dict[str, Any]]] = {table.name: [] for table in SUMMARY_TABLES}
    assert summarize([Summaries(chunk([]).factorized(NEEDED))]) == nothing
    assert summarize([Summaries.of(chunk([]).table)]) == nothing


@pytest.mark.parametrize("distinct", [1, 100, schema.SKETCH_SIZE, schema.SKETCH_SIZE + 1, 20_000])
def test_sketch_keeps_the_smallest(distinct: int) -> None:
    keys = [f"k{number}" for number in range(distinct)]
    records = [
        json.loads(json.dumps(sample(requestParameters={"bucketName": "data", "key": key}, resources=None)))
        for key in keys
    ]
    half = len(records) // 2
    parts = [part for part in (records[half:], records[:half]) if part]
    lines = merge(schema.HOURLY, [Summaries(chunk(part).factorized(NEEDED)).hourly() for part in parts])
    (sketch,) = lines.column("object_keys").to_pylist()
    assert sketch == sorted(map(hash64, keys))[: schema.SKETCH_SIZE]
