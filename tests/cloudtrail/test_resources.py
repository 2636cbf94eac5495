"""touched_resources and canonical_resources: cases as data, hostile values, and the share on real records."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.paths import TESTS
from trailsift.cloudtrail.data_event_types import DATA_EVENT_TYPES
from trailsift.cloudtrail.resources import TouchedResources, canonical_resources, touched_resources

CASES: list[dict[str, Any]] = json.loads((TESTS / "cases/touched_resources.json").read_text(encoding="utf-8"))
REAL = Path(os.environ.get("TRAILSIFT_REAL_LOGS", "../shared/data/real")) / "events.jsonl.gz"

ACCOUNT = "210987654321"


def resources_of(case: dict[str, Any]) -> TouchedResources:
    return touched_resources(
        case["source"] + ".amazonaws.com",
        case["name"],
        case.get("params"),
        case.get("resources"),
        case.get("region", "us-east-1"),
        case.get("account", ACCOUNT),
        case.get("data", True),
    )


@pytest.mark.parametrize("case", CASES, ids=[case["case"] for case in CASES])
def test_case(case: dict[str, Any]) -> None:
    touched = resources_of(case)
    kind, arns, account, key = case["expect"]
    source = case.get("source_of_copy", (None, None))
    assert touched == TouchedResources(kind, arns[0] if arns else None, tuple(arns), account, key, *source)
    if "canonical" in case:
        assert (canonical_resources(touched) == case["resources"]) is case["canonical"]


# Any value in place of AWS's strings, lists and objects; keys and ARNs that the code looks for.
_names = st.sampled_from(
    ["key", "bucketName", "tableName", "functionName", "requestItems", "transactItems", "statement", "statements",
     "shardIterator", "put", "Key", "x-amz-copy-source", "ARN", "arn", "ARNPrefix", "accountId", "accountid", "type"]
)  # fmt: skip
_texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        [
            "arn:",
            "arn:aws:s3:::",
            "arn:aws:s3:::b/k",
            "arn:aws:s3express:us-east-1:1:",
            "arn:aws:s3-outposts:r:1:outpost",
            "arn:aws:s3:us-east-1:1:accesspoint/",
            "arn:aws:lambda:us-east-1:1:function",
            "arn:aws:lambda:us-east-1:1:function:f:2",
            "1:function:f",
            "function:",
            ":",
            "arn:aws:dynamodb:us-east-1:1:table/t/index/i",
            "SELECT * FROM ",
            "AWS::S3::Object",
            "AWS::DynamoDB::Stream",
            "b--x-s3",
        ]
    ),
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names | _texts, inner, max_size=3),
    max_leaves=8,
)
_sources = st.sampled_from(
    ["s3", "s3express", "s3-outposts", "s3-object-lambda", "lambda", "dynamodb", "kms", "", None]
).map(lambda name: name and f"{name}.amazonaws.com")


@settings(max_examples=800, deadline=None)
@given(_sources, _json, _json, st.none() | _texts, st.none() | _texts, st.booleans())
def test_never_raises_and_keeps_its_promises(
    source: str | None, params: object, resources: object, region: str | None, account: str | None, is_data: bool
) -> None:
    touched = touched_resources(source, None, params, resources, region, account, is_data)
    assert all(value is None or isinstance(value, str) for value in (touched[0], touched[1], touched[3], touched[4]))
    assert all(isinstance(arn, str) and arn for arn in touched.resource_arns)
    assert len(set(touched.resource_arns)) == len(touched.resource_arns)
    assert touched.resource_arns[:1] == ((touched.resource_arn,) if touched.resource_arn else ())
    canonical = canonical_resources(touched)
    if canonical is not None:
        assert touched.resource_account == canonical[-1]["accountId"]
        assert all(entry.get("ARN") or entry.get("ARNPrefix") for entry in canonical)


def test_types_are_names_of_types() -> None:
    assert len(DATA_EVENT_TYPES) > 150
    assert all(name.startswith("AWS::") and name.count("::") == 2 for name in DATA_EVENT_TYPES)


def test_canonical_needs_an_account() -> None:
    lake = "arn:aws:s3:::lake"
    assert canonical_resources(TouchedResources("AWS::S3::Object", lake, (lake,), None, "k")) is None
    assert canonical_resources(TouchedResources(None, None, (), None, None)) is None


def test_real_records() -> None:
    """The stored ``resources`` column is empty for nearly all genuine data events."""
    if not REAL.is_file():
        pytest.skip(f"no real logs at {REAL} (set TRAILSIFT_REAL_LOGS)")
    shares: Counter[tuple[str, bool]] = Counter()
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        for line in lines:
            record = json.loads(line)
            is_data = record.get("eventCategory") == "Data" or record.get("managementEvent") is False
            touched = touched_resources(
                record.get("eventSource"),
                record.get("eventName"),
                record.get("requestParameters"),
                record.get("resources"),
                record.get("awsRegion"),
                record.get("recipientAccountId"),
                is_data,
            )
            if record.get("resources"):
                service = record["eventSource"].partition(".")[0]
                shares[service, canonical_resources(touched) == record["resources"]] += 1
                assert touched.resource_arn or not any(item.get("ARN") for item in record["resources"])
    for service in ("s3", "lambda", "dynamodb"):
        assert shares[service, True] >= 0.999 * (shares[service, True] + shares[service, False])
