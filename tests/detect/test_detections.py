"""The detections that come with trailsift: each example by itself, every shape of giving access away, odd requests."""

# ruff: noqa: E501 (one case per line)
from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from trailsift.detect.acts import ACT_COLUMNS, acts_relations
from trailsift.detect.detection_examples import IDENTITIES, run_examples
from trailsift.detect.detection_file import SEVERITY_RARITY, Problem, builtin_rules, parse
from trailsift.detect.detection_rules import run_detection, run_detections, run_rules
from trailsift.detect.finding import Signal
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

RULES = builtin_rules()[0]
OWN, OTHER = "111122223333", "999988887777"
ORGANIZATION = {"StringEquals": {"aws:PrincipalOrgID": "o-1abcdefg"}}


def test_there_are_many_and_each_has_its_texts() -> None:
    assert len(RULES) >= 60 and not builtin_rules()[1]
    assert len({rule.title for rule in RULES}) == len({rule.title_ko for rule in RULES}) == len(RULES)
    for rule in RULES:
        assert rule.mitre and all(re.fullmatch(r"T\d{4}(\.\d{3})?", technique) for technique in rule.mitre), rule.id
        assert re.search("[가-힣]", rule.title_ko), rule.id
        assert {example.by for example in [*rule.matches, *rule.ignores]} <= IDENTITIES.keys(), rule.id


def test_each_matching_example_is_found_by_itself() -> None:
    """Of detections that need one call only: an example that others cover up could be wrong."""
    alone = [
        replace(rule, id=f"{rule.id}-{place}", matches=(example,))
        for rule in RULES
        if rule.test
        for place, example in enumerate(rule.matches)
    ]
    assert len(alone) > 60
    assert run_examples(alone) == []


def record(name: str, parameters: Any, service: str = "s3", number: int = 0, **more: Any) -> dict[str, Any]:
    user = {"type": "IAMUser", "arn": f"arn:aws:iam::{OWN}:user/u", "accountId": OWN, "userName": "u"}
    return {
        "eventVersion": "1.11", "eventID": f"e{number}", "eventTime": f"2026-03-02T10:{number // 60 % 60:02d}:{number % 60:02d}Z",
        "eventSource": f"{service}.amazonaws.com", "eventName": name, "awsRegion": "us-east-1", "userIdentity": user,
        "sourceIPAddress": "192.0.2.9", "userAgent": "aws-cli/2.15", "requestParameters": parameters,
        "responseElements": None, "recipientAccountId": OWN,
    } | more  # fmt: skip


def lake_of(folder: Path, records: Sequence[dict[str, Any]]) -> Path:
    (folder / "a.json").write_text(json.dumps({"Records": list(records)}))
    ingest([str(folder / "a.json")], folder / "lake")
    return folder / "lake"


def statement(principal: Any, condition: Any = None, **more: Any) -> dict[str, Any]:
    out = {"Effect": "Allow", "Principal": principal, "Action": "s3:GetObject", "Resource": "arn:aws:s3:::b/*", **more}
    return out | ({"Condition": condition} if condition is not None else {})


def policy(*statements: Any) -> dict[str, Any]:
    return {"bucketName": "b", "bucketPolicy": {"Version": "2012-10-17", "Statement": list(statements)}}


EVERYONE, ACCOUNT = ["everyone"], [f"account {OTHER}"]
ACL_IDS = {"Owner": {"ID": "a" * 64}}
GROUP = "http://acs.amazonaws.com/groups/global/"
#: Name -> event, request, to whom it gives access.
SHAPES: dict[str, tuple[str, Any, list[str]]] = {
    "star": ("s3:PutBucketPolicy", policy(statement("*")), EVERYONE),
    "star of AWS": ("s3:PutBucketPolicy", policy(statement({"AWS": "*"})), EVERYONE),
    "list of star": ("s3:PutBucketPolicy", policy(statement({"AWS": ["*"]})), EVERYONE),
    "star among others": ("s3:PutBucketPolicy", policy(statement({"AWS": [f"arn:aws:iam::{OWN}:root", "*"]})), EVERYONE),
    "not principal": ("s3:PutBucketPolicy", policy({"Effect": "Allow", "NotPrincipal": {"AWS": OWN}, "Action": "*"}), EVERYONE),
    "statement alone": ("s3:PutBucketPolicy", {"bucketName": "b", "bucketPolicy": {"Statement": statement("*")}}, EVERYONE),
    "second statement": ("s3:PutBucketPolicy", policy(statement({"AWS": OWN}), statement("*")), EVERYONE),
    "deny": ("s3:PutBucketPolicy", policy(statement("*", Effect="Deny")), []),
    "own account": ("s3:PutBucketPolicy", policy(statement({"AWS": f"arn:aws:iam::{OWN}:root"})), []),
    "own account id": ("s3:PutBucketPolicy", policy(statement({"AWS": OWN})), []),
    "service": ("s3:PutBucketPolicy", policy(statement({"Service": "cloudtrail.amazonaws.com"})), []),
    "distribution": ("s3:PutBucketPolicy", policy(statement({"AWS": "arn:aws:iam::cloudfront:user/CloudFront Origin Access Identity E1"})), []),
    "account id": ("s3:PutBucketPolicy", policy(statement({"AWS": OTHER})), ACCOUNT),
    "root of account": ("s3:PutBucketPolicy", policy(statement({"AWS": f"arn:aws:iam::{OTHER}:root"})), ACCOUNT),
    "user of account": ("s3:PutBucketPolicy", policy(statement({"AWS": [f"arn:aws:iam::{OTHER}:user/p/u"]})), ACCOUNT),
    "session of account": ("s3:PutBucketPolicy", policy(statement({"AWS": f"arn:aws:sts::{OTHER}:assumed-role/r/s"})), ACCOUNT),
    "account in China": ("s3:PutBucketPolicy", policy(statement({"AWS": f"arn:aws-cn:iam::{OTHER}:root"})), ACCOUNT),
    "canonical user": ("s3:PutBucketPolicy", policy(statement({"CanonicalUser": "b" * 64})), ["canonical user"]),
    "organization": ("s3:PutBucketPolicy", policy(statement("*", ORGANIZATION)), ["organization o-1abcdefg"]),
    "account in organization": ("s3:PutBucketPolicy", policy(statement({"AWS": OTHER}, ORGANIZATION)), ["organization o-1abcdefg"]),
    "vpc": ("s3:PutBucketPolicy", policy(statement("*", {"StringEquals": {"aws:SourceVpc": "vpc-1"}})), []),
    "endpoint, other case": ("s3:PutBucketPolicy", policy(statement("*", {"StringEquals": {"AWS:sourceVpce": ["vpce-1", "vpce-2"]}})), []),
    "any of": ("s3:PutBucketPolicy", policy(statement("*", {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": "o-1abcdefg/*"}})), ["organization o-1abcdefg"]),
    "network": ("s3:PutBucketPolicy", policy(statement("*", {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}})), []),
    "whole internet": ("s3:PutBucketPolicy", policy(statement("*", {"IpAddress": {"aws:SourceIp": ["0.0.0.0/0"]}})), EVERYONE),
    "half of it": ("s3:PutBucketPolicy", policy(statement("*", {"IpAddress": {"aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"]}})), EVERYONE),
    "all but one network": ("s3:PutBucketPolicy", policy(statement("*", {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}})), EVERYONE),
    "all but one endpoint": ("s3:PutBucketPolicy", policy(statement("*", {"StringNotEquals": {"aws:SourceVpce": "vpce-1"}})), EVERYONE),
    "if it exists": ("s3:PutBucketPolicy", policy(statement("*", {"StringEqualsIfExists": {"aws:SourceVpce": "vpce-1"}})), EVERYONE),
    "all values": ("s3:PutBucketPolicy", policy(statement("*", {"ForAllValues:StringEquals": {"aws:PrincipalAccount": OWN}})), EVERYONE),
    "any organization": ("s3:PutBucketPolicy", policy(statement("*", {"StringLike": {"aws:SourceVpce": "*"}})), EVERYONE),
    "transport only": ("s3:PutBucketPolicy", policy(statement("*", {"Bool": {"aws:SecureTransport": "true"}})), EVERYONE),
    "referer": ("s3:PutBucketPolicy", policy(statement("*", {"StringLike": {"aws:Referer": "https://example.org/*"}})), EVERYONE),
    "named account": ("s3:PutBucketPolicy", policy(statement("*", {"StringEquals": {"aws:PrincipalAccount": OTHER}})), ACCOUNT),
    "own account named": ("s3:PutBucketPolicy", policy(statement("*", {"StringEquals": {"aws:PrincipalAccount": OWN}})), []),
    "acl": ("s3:PutBucketAcl", {"bucketName": "b", "x-amz-acl": "public-read"}, EVERYONE),
    "acl in a list": ("s3:PutBucketAcl", {"bucketName": "b", "x-amz-acl": ["authenticated-read"]}, EVERYONE),
    "private acl": ("s3:PutBucketAcl", {"bucketName": "my-public-read", "x-amz-acl": "private"}, []),
    "grant header": ("s3:PutBucketAcl", {"bucketName": "b", "x-amz-grant-read": f'uri="{GROUP}AllUsers"'}, EVERYONE),
    "grant by id": ("s3:PutBucketAcl", {"bucketName": "b", "x-amz-grant-full-control": f'id="{"b" * 64}"'}, ["canonical user"]),
    "group": ("s3:PutBucketAcl", {"bucketName": "b", "AccessControlPolicy": ACL_IDS | {"AccessControlList": {"Grant": [{"Grantee": {"URI": f"{GROUP}AuthenticatedUsers"}, "Permission": "READ"}]}}}, EVERYONE),
    "one grant": ("s3:PutBucketAcl", {"bucketName": "b", "AccessControlPolicy": ACL_IDS | {"AccessControlList": {"Grant": {"Grantee": {"ID": "b" * 64}}}}}, ["canonical user"]),
    "owner": ("s3:PutBucketAcl", {"bucketName": "b", "AccessControlPolicy": ACL_IDS | {"AccessControlList": {"Grant": {"Grantee": {"ID": "a" * 64}}}}}, []),
    "log delivery": ("s3:PutBucketAcl", {"bucketName": "b", "AccessControlPolicy": ACL_IDS | {"AccessControlList": {"Grant": {"Grantee": {"URI": "http://acs.amazonaws.com/groups/s3/LogDelivery"}}}}}, []),
    "snapshot for all": ("ec2:ModifySnapshotAttribute", {"createVolumePermission": {"add": {"items": [{"group": "all"}]}}}, EVERYONE),
    "snapshot": ("ec2:ModifySnapshotAttribute", {"createVolumePermission": {"add": {"items": [{"userId": OWN}, {"userId": OTHER}]}}}, ACCOUNT),
    "snapshot taken back": ("ec2:ModifySnapshotAttribute", {"createVolumePermission": {"remove": {"items": [{"userId": OTHER}]}}}, []),
    "image": ("ec2:ModifyImageAttribute", {"launchPermission": {"add": {"items": [{"organizationArn": f"arn:aws:organizations::{OTHER}:organization/o-1abcdefg"}]}}}, ["organization o-1abcdefg"]),
    "database snapshot": ("rds:ModifyDBSnapshotAttribute", {"attributeName": "restore", "valuesToAdd": [OTHER]}, ACCOUNT),
    "topic": ("sns:SetTopicAttributes", {"attributeName": "Policy", "attributeValue": json.dumps({"Statement": [statement("*")]})}, EVERYONE),
    "name of a topic": ("sns:SetTopicAttributes", {"attributeName": "DisplayName", "attributeValue": "*"}, []),
    "queue": ("sqs:SetQueueAttributes", {"attributes": {"Policy": json.dumps({"Statement": statement({"AWS": OTHER})})}}, ACCOUNT),
    "queue, older call": ("sqs:AddPermission", {"aWSAccountIds": [OTHER], "actions": ["*"]}, ACCOUNT),
    "secret": ("secretsmanager:PutResourcePolicy", {"resourcePolicy": json.dumps({"Statement": [statement("*")]})}, EVERYONE),
    "registry": ("ecr:SetRepositoryPolicy", {"policyText": json.dumps({"Statement": [statement({"AWS": f"arn:aws:iam::{OTHER}:root"})]})}, ACCOUNT),
    "key": ("kms:PutKeyPolicy", {"policy": json.dumps({"Statement": [statement({"AWS": "*"}, {"StringEquals": {"kms:CallerAccount": OWN}})]})}, []),
    "grant of a key": ("kms:CreateGrant", {"granteePrincipal": f"arn:aws:iam::{OTHER}:user/u"}, ACCOUNT),
    "function": ("lambda:AddPermission20150331v2", {"principal": "*", "action": "lambda:InvokeFunction"}, EVERYONE),
    "function for a bucket": ("lambda:AddPermission20150331v2", {"principal": "*", "sourceArn": "arn:aws:s3:::b"}, []),
    "function for an account": ("lambda:AddPermission20150331v2", {"principal": OTHER}, ACCOUNT),
    "role": ("iam:CreateRole", {"assumeRolePolicyDocument": json.dumps({"Statement": [statement({"AWS": "*"})]})}, EVERYONE),
    "share": ("ram:CreateResourceShare", {"principals": [OTHER, f"arn:aws:iam::{OWN}:role/r"]}, ACCOUNT),
    "document": ("ssm:ModifyDocumentPermission", {"accountIdsToAdd": ["all"]}, EVERYONE),
}  # fmt: skip


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, list[str]]]:
    folder = tmp_path_factory.mktemp("shapes")
    records = []
    for number, (event, request, _) in enumerate(SHAPES.values()):
        service, _, name = event.partition(":")
        records.append(record(name, request, service, number))
    with DuckDBEngine(open_snapshot(lake_of(folder, records))) as engine:
        sql = f"WITH {acts_relations(event for event, _, _ in SHAPES.values())} SELECT event_time, opens FROM acts_all"
        rows = sorted(engine.query(sql).rows())
    yield dict(zip(SHAPES, (opens for _, opens in rows), strict=True))


@pytest.mark.parametrize("shape", SHAPES)
def test_access_given_away(shape: str, shapes: dict[str, list[str]]) -> None:
    assert shapes[shape] == SHAPES[shape][2]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 10**13) | st.sampled_from(["*", "", OTHER, '"', "Allow", "all", "{", "o-1a"]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["Statement", "Principal", "AWS", "Effect", "Condition", "StringEquals", "aws:SourceVpc", "items", 'a"b', "$.x"]),
        inner,
        max_size=3,
    ),
    max_leaves=12,
)  # fmt: skip
MEMBERS = ["bucketPolicy", "policyDocument", "createVolumePermission", "valuesToAdd", "AccessControlPolicy", "principal", "attributes",
    "userName", "x-amz-acl", "ReplicationConfiguration", "eventSelectors", "withDecryption", "ipPermissions", "secretIdList"]  # fmt: skip


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests=st.lists(st.dictionaries(st.sampled_from(MEMBERS), JSON, max_size=4) | JSON, min_size=40, max_size=40))
def test_no_request_makes_a_detection_fail(requests: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever a log claims that a request was, every detection runs, and runs in the shared statement."""
    calls = sorted({call for rule in RULES for call in rule.calls})
    records = []
    for number, request in enumerate(requests):
        for place in range(8):
            service, _, name = calls[(number * 8 + place) % len(calls)].partition(":")
            records.append(
                record(
                    name, request, service, number * 8 + place, responseElements=request, additionalEventData=request
                )
            )
    with DuckDBEngine(open_snapshot(lake_of(tmp_path_factory.mktemp("odd"), records))) as engine:
        found = run_rules(engine, [(rule, 0) for rule in RULES])
        assert [str(rows) for rows in found if isinstance(rows, Problem)] == []


GOOD = """title = "T"
severity = "hint"
description = "D"
calls = ["iam:CreateUser"]
where = "done AND target LIKE '%/u'"
[[matches]]
event = "iam:CreateUser"
parameters = { userName = "u" }
[[ignores]]
event = "iam:CreateUser"
parameters = { userName = "other" }
"""


@pytest.mark.parametrize(
    ("old", "new", "line", "text"),
    [
        ('["iam:CreateUser"]', '"iam:CreateUser"', 4, "calls is a list"),
        ('["iam:CreateUser"]', '["CreateUser"]', 4, 'write "service:Action"'),
        ('where = "done', 'sql = "SELECT 1"\nwhere = "done', 6, "where and sql exclude each other"),
        ("where =", "least = 0\nwhere =", 5, "least is a number of calls, 1 or more"),
        ("where =", "within = true\nwhere =", 5, "within is a number of minutes"),
        ('calls = ["iam:CreateUser"]', "", 1, "needs sql, a string, or calls with where"),
        ('{ userName = "u" }', '{ userName = "u" }\nbyy = "user"', 9, "unknown key byy of an example"),
    ],
)
def test_mistakes_in_files(old: str, new: str, line: int, text: str) -> None:
    from trailsift.detect.detection_file import DetectionError

    with pytest.raises(DetectionError, match=re.escape(text)) as caught:
        parse("x.toml", GOOD.replace(old, new, 1))
    assert caught.value.line == line


def test_a_wrong_condition_spoils_no_other_detection(tmp_path: Path) -> None:
    """The shared statement fails as a whole; each is then run by itself, and the wrong one is named."""
    wrong = parse("wrong.toml", GOOD.replace("done AND", "no_such_column AND"))
    right = parse("right.toml", GOOD)
    lake = lake_of(tmp_path, [record("CreateUser", {"userName": "u"}, "iam")])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        signals, problems = run_detections(engine, [wrong, right])
        assert [signal.rule for signal in signals] == ["right"]
        (problem,) = problems
        assert str(problem).startswith("wrong.toml:5: its SQL fails")
        rows = run_detection(engine, right, since=30_000)
        assert rows == []


def test_a_hint_is_no_finding_and_three_are(tmp_path: Path) -> None:
    calls = [("iam", "CreateUser"), ("iam", "AddUserToGroup"), ("monitoring", "DeleteAlarms")]
    records = [record(name, {"userName": "x", "groupName": "g"}, service, i) for i, (service, name) in enumerate(calls)]
    for count, expected in ((1, []), (2, []), (3, ["low"])):
        folder = tmp_path / str(count)
        folder.mkdir()
        with DuckDBEngine(open_snapshot(lake_of(folder, records[:count]))) as engine:
            found = detect(engine, DetectOptions(budget=0), RULES).findings
        assert [finding.severity for finding in found] == expected
    assert SEVERITY_RARITY["hint"] < SEVERITY_RARITY["low"]


def denied(pages: Sequence[tuple[str, str]], repeats: int = 4, **more: Any) -> list[dict[str, Any]]:
    return [
        record(name, None, service, place * repeats + i, errorCode="AccessDenied", readOnly=True, **more)
        for place, (service, name) in enumerate(pages)
        for i in range(repeats)
    ]


PAGES = [("account", "GetAccountInformation"), ("notifications", "ListNotificationHubs"), ("organizations", "DescribeOrganization"),
    ("ce", "GetCostAndUsage"), ("health", "DescribeEventAggregates"), ("ec2", "DescribeRegions"), ("ec2", "DescribeInstances"),
    ("ssm", "DescribeInstanceInformation"), ("rds", "DescribeDBInstances"), ("iam", "ListUsers"), ("iam", "ListRoles"),
    ("cloudwatch", "DescribeAlarms"), ("logs", "DescribeLogGroups"), ("lambda", "ListFunctions20150331"), ("kms", "ListKeys")]  # fmt: skip
BROWSER = IDENTITIES["console"]["userAgent"]


def names_of(tmp_path: Path, records: Sequence[dict[str, Any]]) -> set[str | None]:
    with DuckDBEngine(open_snapshot(lake_of(tmp_path, records))) as engine:
        signals: Sequence[Signal] = run_detections(engine, RULES)[0]
        return {signal.rule for signal in signals} & {"denied-burst", "permissions-tried"}


def test_pages_of_the_console_are_no_probing(tmp_path: Path) -> None:
    assert names_of(tmp_path, denied(PAGES, userAgent=BROWSER)) == set()


def test_the_same_calls_by_a_script_are(tmp_path: Path) -> None:
    assert names_of(tmp_path, denied(PAGES)) == {"denied-burst", "permissions-tried"}


def test_a_tool_that_claims_to_be_a_browser_and_writes(tmp_path: Path) -> None:
    writes = [
        record("CreateUser", {"userName": "x"}, "iam", 900, errorCode="AccessDenied", readOnly=False, userAgent=BROWSER)
    ]
    assert "permissions-tried" in names_of(tmp_path, [*denied(PAGES, userAgent=BROWSER), *writes])


def test_a_tool_that_claims_to_be_a_browser_and_walks_resources(tmp_path: Path) -> None:
    walk = [
        record(
            "GetBucketPolicy",
            {"bucketName": f"b{i}"},
            "s3",
            900 + i,
            errorCode="AccessDenied",
            readOnly=True,
            userAgent=BROWSER,
        )
        for i in range(25)
    ]
    assert "permissions-tried" in names_of(tmp_path, [*denied(PAGES, userAgent=BROWSER), *walk])


def test_columns_of_acts_are_documented() -> None:
    documented = {name.strip() for names in ACT_COLUMNS for name in names.split(",")}
    used = {
        word
        for rule in RULES
        for word in re.findall(r"\b(by_\w+|opens|full_access|own|agent|done|refused)\b", rule.test)
    }
    assert used <= documented


def test_coverage_names_every_technique_of_the_detections() -> None:
    """The table in docs/detections.md claims nothing that has no detection or level, and leaves none out."""
    script = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "detection_page.py"))
    assert script["unknown"](RULES) == []
    named = {technique for rule in RULES for technique in rule.mitre}
    for row in script["techniques"]():
        assert row["covered"] in ("yes", "part", "no") and row["what"], row["id"]
        assert row["covered"] != "no" or row["id"] not in named, row["id"]
