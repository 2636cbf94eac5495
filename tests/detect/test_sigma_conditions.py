"""Sigma conditions in SQL give what a second reading in Python gives, on records of every shape."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("sigma", reason="pySigma is not installed: pip install 'trailsift[sigma]'")

from support.records import sample
from support.sigma_evaluator import is_match, values_of
from trailsift.detect.event_scan import EventScan
from trailsift.detect.sigma.documents import Document
from trailsift.detect.sigma.translate import translate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

Record = dict[str, Any]
Detection = dict[str, Any]

POLICY = json.dumps(
    {"Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::data/*"}]}
)
USER = {
    "type": "IAMUser", "principalId": "AIDA1", "arn": "arn:aws:iam::111122223333:user/Ann", "accountId": "111122223333",
    "accessKeyId": "AKIA1", "userName": "Ann",
}  # fmt: skip
ROOT = {
    "type": "Root",
    "principalId": "111122223333",
    "arn": "arn:aws:iam::111122223333:root",
    "accountId": "111122223333",
}
#: What makes each record differ from an ordinary read of an object.
CHANGES: list[Record] = [
    {},
    {"errorCode": "AccessDenied", "errorMessage": "not allowed: 100% denied_by policy"},
    {"errorCode": "", "sourceIPAddress": "2600:1F18::ab:1"},
    {"errorCode": 403, "sourceIPAddress": "10.1.255.255"},
    {"errorCode": ["AccessDenied", "Other"], "sourceIPAddress": "10.2.0.0"},
    {"errorCode": None, "sourceIPAddress": "300.1.1.1"},
    {"userIdentity": USER, "sourceIPAddress": "AWS Internal"},
    {"userIdentity": ROOT, "eventType": "AwsServiceEvent", "sourceIPAddress": "::1", "errorCode": "X"},
    {"userIdentity": {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}},
    {"userIdentity": {"type": "AWSAccount", "principalId": "ANONYMOUS_PRINCIPAL"}, "sourceIPAddress": "2600:1f18::"},
    {"sourceIPAddress": "2600:1f18:0:0:0:0:0:9"},
    {"userIdentity": None, "userAgent": None},
    {"userIdentity": {"type": ["Root", "IAMUser"], "arn": 7}},
    {"requestParameters": None, "resources": None},
    {"requestParameters": {}},
    {"requestParameters": {"bucketName": "data"}},
    {"requestParameters": {"bucketName": ["data", "DATA-2"], "key": None}},
    {"requestParameters": {"key": "a/b.c", "x-amz-acl": "public-read", 'we"ird': {"a.b": 1, "c\\d": "back\\slash"}}},
    {"requestParameters": {"key": 'quo"te', "a": {"b": [{"c": "one"}, {"c": ["two", "three"]}, {"d": 1}]}}},
    {"requestParameters": {"a": {"b": {"c": True}}, "n": 5, "f": 1.5, "big": 12345678901234567890}},
    {"requestParameters": {"a": [[{"b": "deep"}], {"b": {"c": None}}], "n": "05", "f": "x", "size": 10}},
    {"requestParameters": {"bucketPolicy": json.loads(POLICY), "n": -3}},
    {"requestParameters": {"policyDocument": POLICY, "n": " 7 "}},
    {"requestParameters": "a string", "responseElements": ["x", {"y": "z"}]},
    {"requestParameters": {"commandLine": "run -enc YWJj /f \u2013x", "percent": "50%_off", "path": "C:\\temp\\*"}},
    {"responseElements": {"ConsoleLogin": "Success", "publiclyAccessible": True, "credentials": None}},
    {"responseElements": {"ConsoleLogin": "Failure", "list": ["a", "", None, 0]}},
    {"additionalEventData": {"MFAUsed": "No", "bytesTransferredOut": 5_000_000, "bytesTransferredIn": 0}},
    {"additionalEventData": {"MFAUsed": "Yes", "LoginTo": "https://console.aws.amazon.com/?x=1&y=2"}},
    {"additionalEventData": None, "tlsDetails": {"tlsVersion": "TLSv1.2", "cipherSuite": "ECDHE"}},
    {"eventSource": "iam.amazonaws.com", "eventName": "CreateUser", "managementEvent": True,
     "eventCategory": "Management", "requestParameters": {"userName": "Ann"},
     "responseElements": {"user": {"userName": "ann", "tags": []}},
     "readOnly": False, "resources": None, "userIdentity": USER},
    {"eventSource": "IAM.amazonaws.com", "eventName": "createuser", "eventCategory": "Management", "readOnly": "true"},
    {"eventSource": "dynamodb.amazonaws.com", "eventName": "GetItem",
     "requestParameters": {"tableName": "t", "key": {"pk": {"s": "Kunde"}}},
     "resources": [{"accountId": "111122223333", "type": "AWS::DynamoDB::Table",
                    "ARN": "arn:aws:dynamodb:eu-west-1:111122223333:table/t"}]},
    {"eventTime": "2026-03-02T23:59:59Z", "requestID": "r\n2", "userAgent": "line\nbreak\tTab"},
    {"userAgent": "Ümlaut 한국어 😀", "errorMessage": "ß"},
    {"userAgent": "aws-cli/2.9 [S3 Browser/9.5] 'quoted' \"double\" \\", "vpcEndpointId": "vpce-1"},
    {"recipientAccountId": "", "serviceEventDetails": {"keyId": "k", "rotation": {"count": 3}}},
    {"eventVersion": "1.05", "apiVersion": "2026-01-01", "sessionCredentialFromConsole": "true"},
]  # fmt: skip
#: Members that are left out, so that columns are derived.
ABSENT = (("eventCategory", "managementEvent"), ("recipientAccountId",), ("resources",), ("readOnly", "errorCode"))

A = {"eventSource": "s3.amazonaws.com"}
CONDITIONS: dict[str, Detection] = {
    "equal": {"s": {"eventName": "GETOBJECT"}, "condition": "s"},
    "member in lower case": {"s": {"eventname": "GetObject", "USERIDENTITY.type": "Root"}, "condition": "s"},
    "list of values": {"s": {"eventName": ["CreateUser", "GetItem"]}, "condition": "s"},
    "two members": {"s": {"eventName": "CreateUser", "eventSource": "iam.amazonaws.com"}, "condition": "s"},
    "list of maps": {"s": [{"eventName": "GetItem"}, {"errorCode": "AccessDenied"}], "condition": "s"},
    "null": {"s": {"errorCode": None}, "condition": "s"},
    "null of an object": {"s": {"requestParameters": None}, "condition": "s"},
    "null inside": {"s": {"requestParameters.key": None}, "condition": "s"},
    "null or a value": {"s": {"errorCode": [None, "AccessDenied"]}, "condition": "s"},
    "empty": {"s": {"errorCode": ""}, "condition": "s"},
    "empty in a list": {"s": {"responseElements.list": ""}, "condition": "s"},
    "exists": {"s": {"errorCode|exists": True}, "condition": "s"},
    "exists not": {"s": {"requestParameters.key|exists": False}, "condition": "s"},
    "number": {"s": {"requestParameters.n": 5}, "condition": "s"},
    "number as text": {"s": {"requestParameters.n": "5"}, "condition": "s"},
    "number of a typed column": {"s": {"additionalEventData.bytesTransferredOut": 2048}, "condition": "s"},
    "float": {"s": {"requestParameters.f": 1.5}, "condition": "s"},
    "float of a column": {"s": {"additionalEventData.bytesTransferredIn": "0.0"}, "condition": "s"},
    "number against a number": {"s": {"errorCode": 403}, "condition": "s"},
    "boolean": {"s": {"responseElements.publiclyAccessible": True}, "condition": "s"},
    "boolean as text": {"s": {"responseElements.publiclyAccessible": "true"}, "condition": "s"},
    "boolean column": {"s": {"readOnly": True}, "condition": "s"},
    "derived flag": {"s": {"managementEvent": False}, "condition": "s"},
    "not": {"s": A, "f": {"errorCode": "AccessDenied"}, "condition": "s and not f"},
    "not of an absent member": {"s": A, "f": {"requestParameters.bucketName": "data"}, "condition": "s and not f"},
    "not null": {"f": {"errorCode": None}, "condition": "not f"},
    "neq": {"s": {"eventName|neq": "GetObject"}, "condition": "s"},
    "one of": {"selection_a": {"eventName": "GetItem"}, "selection_b": {"errorCode": "AccessDenied"},
               "condition": "1 of selection_*"},
    "all of": {"selection_a": A, "selection_b": {"errorCode": "AccessDenied"}, "condition": "all of selection*"},
    "them": {"a": {"eventName": "GetItem"}, "b": {"userIdentity.type": "Root"}, "condition": "any of them"},
    "parentheses": {"a": A, "b": {"errorCode": None}, "c": {"userIdentity.type": "Root"},
                    "condition": "a and not (b or not c)"},
    "precedence": {"a": {"eventName": "GetItem"}, "b": A, "c": {"errorCode": "AccessDenied"},
                   "condition": "a or b and c"},
    "several conditions": {"a": {"eventName": "GetItem"}, "b": {"errorCode": "AccessDenied"}, "condition": ["a", "b"]},
    "contains": {"s": {"userAgent|contains": "S3 browser"}, "condition": "s"},
    "contains all": {"s": {"requestParameters|contains|all": ['"s3:GetObject"', '"Allow"', "arn:aws:s3:::data/*"]},
                     "condition": "s"},
    "contains in JSON within JSON": {"s": {"requestParameters.policyDocument|contains": '"Effect": "Allow"'},
                                     "condition": "s"},
    "contains in an object": {"s": {"requestParameters|contains": "public-read"}, "condition": "s"},
    "contains the key": {"s": {"requestParameters|contains": "2026/03/02"}, "condition": "s"},
    "contains bytes": {"s": {"additionalEventData|contains": "5000000"}, "condition": "s"},
    "anything": {"s": {"errorMessage|contains": "*"}, "condition": "s"},
    "startswith": {"s": {"requestParameters.key|startswith": "IN/"}, "condition": "s"},
    "endswith": {"s": {"requestParameters.key|endswith": [".gz", ".c"]}, "condition": "s"},
    "wildcard inside": {"s": {"requestParameters.key": "in/*/part-?.gz"}, "condition": "s"},
    "one sign": {"s": {"eventName": "Get?tem"}, "condition": "s"},
    "escaped wildcard": {"s": {"requestParameters.path": "C:\\\\temp\\\\\\*"}, "condition": "s"},
    "percent and underscore": {"s": {"requestParameters.percent|contains": "%_"}, "condition": "s"},
    "percent is not a wildcard": {"s": {"requestParameters.percent": "5?%_*"}, "condition": "s"},
    "quote": {"s": {"userAgent|contains": "'quoted' \"double\" \\"}, "condition": "s"},
    "line break": {"s": {"userAgent": "line*tab"}, "condition": "s"},
    "letters beyond ASCII": {"s": {"userAgent|contains": ["ümlaut", "국어 😀"]}, "condition": "s"},
    "cased": {"s": {"userIdentity.userName|cased": "Ann"}, "condition": "s"},
    "cased not": {"s": {"eventName|cased": "createuser"}, "condition": "s"},
    "cased contains": {"s": {"userAgent|contains|cased": "S3 Browser"}, "condition": "s"},
    "re": {"s": {"userIdentity.arn|re": ".+:assumed-role/e.+"}, "condition": "s"},
    "re of case": {"s": {"eventName|re": "^create"}, "condition": "s"},
    "re ignoring case": {"s": {"eventName|re|i": "^GETI"}, "condition": "s"},
    "re of lines": {"s": {"userAgent|re|m": "^break"}, "condition": "s"},
    "re over lines": {"s": {"userAgent|re|s": "line.break"}, "condition": "s"},
    "re with quotes": {"s": {"userAgent|re": r"\['?S3 Browser/\d+\.\d\] '"}, "condition": "s"},
    "cidr": {"s": {"sourceIPAddress|cidr": "10.0.0.0/15"}, "condition": "s"},
    "cidr of all": {"s": {"sourceIPAddress|cidr": "0.0.0.0/0"}, "condition": "s"},
    "cidr of one": {"s": {"sourceIPAddress|cidr": "10.0.0.7/32"}, "condition": "s"},
    "cidr v6": {"s": {"sourceIPAddress|cidr": "2600:1f18::/32"}, "condition": "s"},
    "cidr v6 of one": {"s": {"sourceIPAddress|cidr": ["::1/128", "10.2.0.0/16"]}, "condition": "s"},
    "less": {"s": {"requestParameters.n|lt": 6}, "condition": "s"},
    "at least": {"s": {"additionalEventData.bytesTransferredOut|gte": 2048}, "condition": "s"},
    "more": {"s": {"additionalEventData.bytesTransferredOut|gt": 2048}, "condition": "s"},
    "at most": {"s": {"requestParameters.f|lte": 1.5}, "condition": "s"},
    "fieldref": {"s": {"userIdentity.userName|fieldref": "responseElements.user.userName"}, "condition": "s"},
    "fieldref ending": {"s": {"userIdentity.arn|fieldref|endswith": "requestParameters.userName"}, "condition": "s"},
    "base64": {"s": {"requestParameters.commandLine|base64|contains": "abc"}, "condition": "s"},
    "windash": {"s": {"requestParameters.commandLine|windash|contains": " -f"}, "condition": "s"},
    "nested": {"s": {"userIdentity.sessionContext.sessionIssuer.type": "Role"}, "condition": "s"},
    "list on the way": {"s": {"requestParameters.a.b.c": "one"}, "condition": "s"},
    "list in a list on the way": {"s": {"requestParameters.a.b.c": "three"}, "condition": "s"},
    "list at the end": {"s": {"requestParameters.bucketName": "data-2"}, "condition": "s"},
    "boolean below": {"s": {"requestParameters.a.b.c": "true"}, "condition": "s"},
    "list of lists": {"s": {"requestParameters.a|contains": "deep"}, "condition": "s"},
    "name with signs": {"s": {"requestParameters.x-amz-acl|startswith": "public"}, "condition": "s"},
    "name with a quote": {"s": {'requestParameters.we"ird.c\\d': "back\\slash"}, "condition": "s"},
    "item key": {"s": {"requestParameters.key.pk.s": "kunde"}, "condition": "s"},
    "item key as text": {"s": {"requestParameters.key|contains": "Kunde"}, "condition": "s"},
    "resources of a bucket": {"s": {"resources.type": "AWS::S3::Bucket"}, "condition": "s"},
    "resources of an object": {"s": {"resources.ARN|endswith": "part-1.gz"}, "condition": "s"},
    "resources of a table": {"s": {"resources.ARN|contains": ":table/t"}, "condition": "s"},
    "no resources": {"s": {"resources": None}, "condition": "s"},
    "top member that is an array": {"s": {"responseElements.y": "z"}, "condition": "s"},
    "member of rest": {"s": {"tlsDetails.tlsVersion": "TLSv1.2"}, "condition": "s"},
    "deep member of rest": {"s": {"serviceEventDetails.rotation.count": 3}, "condition": "s"},
    "derived account": {"s": {"recipientAccountId": "111122223333"}, "condition": "s"},
    "empty account": {"s": {"recipientAccountId": ""}, "condition": "s"},
    "derived category": {"s": {"eventCategory": "Data"}, "condition": "s"},
    "no category": {"s": {"eventCategory": None}, "condition": "s"},
    "account of an anonymous caller": {"s": {"userIdentity.accountId": "ANONYMOUS_PRINCIPAL"}, "condition": "s"},
    "a type that is a list": {"s": {"userIdentity.type": "Root"}, "condition": "s"},
    "an ARN that is a number": {"s": {"userIdentity.arn": 7}, "condition": "s"},
    "time": {"s": {"eventTime|startswith": "2026-03-02T23"}, "condition": "s"},
    "keyword": {"s": ["access", "한국어"], "condition": "s"},
    "many keywords": {"s": [*(f"word {number}" for number in range(200)), "CreateUser"], "condition": "s"},
    "keywords, all": {"s": {"|all": ["iam.amazonaws.com", "user/Ann"]}, "condition": "s"},
    "keyword with wildcard": {"s": ["arn:aws:iam::*user/ann"], "condition": "s"},
    "keyword below": {"s": ["PUBLIC-read"], "condition": "s"},
    "keyword not": {"s": ["Boto3"], "condition": "not s"},
    "keyword of a number": {"s": [5000000], "condition": "s"},
}  # fmt: skip


@pytest.fixture(scope="module")
def records() -> list[Record]:
    made = [sample(**change) for change in CHANGES]
    for names in ABSENT:
        made.append({name: value for name, value in sample().items() if name not in names})
    return [record | {"eventID": f"{number:08d}-0000-4000-8000-000000000000"} for number, record in enumerate(made)]


@pytest.fixture(scope="module")
def engine(records: list[Record], tmp_path_factory: pytest.TempPathFactory) -> Iterator[DuckDBEngine]:
    folder = tmp_path_factory.mktemp("sigma")
    (folder / "a.json").write_text(json.dumps({"Records": records}), "utf-8")
    counts = ingest([str(folder / "a.json")], folder / "lake")
    assert counts.stored == len(records)
    with DuckDBEngine(open_snapshot(folder / "lake")) as engine:
        yield engine


def rule_of(detection: Detection, number: int = 0) -> dict[str, Any]:
    return {
        "title": f"rule {number}",
        "id": f"{number:08d}-aaaa-4000-8000-000000000000",
        "logsource": {"product": "aws", "service": "cloudtrail"},
        "detection": detection,
        "level": "high",
    }


def scans_of(detections: list[Detection]) -> list[EventScan]:
    rules = [rule_of(detection, number) for number, detection in enumerate(detections)]
    report = translate(Document("x.yml", 1, 1, rule, "") for rule in rules)
    assert not report.problems, report.problems
    scans = [rule.detection.scan for rule in report.rules]
    assert len(scans) == len(detections)
    return [scan for scan in scans if scan is not None]


def hits(engine: DuckDBEngine, scans: list[EventScan]) -> list[set[str]]:
    """Return the ids of the events that each scan matches, in the form in which a run asks for them."""
    guarded = [f"{scan.gate} AND {scan.condition}" if scan.gate else scan.condition for scan in scans]
    out: list[set[str]] = []
    for begin in range(0, len(guarded), 50):
        part = guarded[begin : begin + 50]
        listed = ", ".join(f"CASE WHEN {sql} THEN true ELSE false END" for sql in part)
        rows = engine.query(f"SELECT event_id, [{listed}] FROM events", cache=False).rows()
        out += [{event_id for event_id, flags in rows if flags[place]} for place in range(len(part))]
    return out


@pytest.fixture(scope="module")
def found(engine: DuckDBEngine) -> dict[str, set[str]]:
    return dict(zip(CONDITIONS, hits(engine, scans_of(list(CONDITIONS.values()))), strict=True))


@pytest.mark.parametrize("name", CONDITIONS)
def test_condition(name: str, records: list[Record], found: dict[str, set[str]]) -> None:
    """SQL and the second reading agree, and the case tells something: it matches some records and not others."""
    wanted = {record["eventID"] for record in records if is_match({"detection": CONDITIONS[name]}, record)}
    assert found[name] == wanted
    assert 0 < len(wanted) < len(records)


def _fields(value: Any, path: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if "." not in name:
                yield from _fields(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for inner in value:
            yield from _fields(inner, path)
    if path:
        yield path


def _random_detection(chance: random.Random, records: list[Record], fields: list[str]) -> Detection:
    """Return a rule of one to three selections, with values taken from a record and changed a little."""

    def item() -> tuple[str, Any]:
        record, name = chance.choice(records), chance.choice(fields)
        modifier = chance.choice(
            ("", "", "", "contains", "startswith", "endswith", "cased", "exists", "re", "gt", "null")
        )
        if modifier == "exists":
            return f"{name}|exists", chance.random() < 0.5
        if modifier == "null":
            return name, None
        if modifier == "gt":
            return f"{name}|gt", chance.choice((0, 5, 2047, 1e6))
        value = chance.choice(values_of(record, name) or ["x"])
        begin = chance.randrange(len(value) + 1)
        if modifier == "re":
            signs = "".join(sign for sign in value if sign.isascii() and sign.isalnum())
            return f"{name}|re", signs[:4] + chance.choice(("", ".*", "[a-z]?", "$"))
        if modifier in ("contains", "startswith", "endswith"):
            cut = {"contains": value[begin : begin + 6], "startswith": value[:begin], "endswith": value[begin:]}
            return f"{name}|{modifier}", _escaped(cut[modifier]) or "*"
        escaped = _escaped(value)
        if chance.random() < 0.3 and value:
            escaped = _escaped(value[:begin]) + chance.choice("*?") + _escaped(value[begin + 1 :])
        return (f"{name}|cased" if modifier else name), escaped.swapcase() if chance.random() < 0.2 else escaped

    selections = {
        f"s{number}": dict(item() for _ in range(chance.randint(1, 2))) for number in range(chance.randint(1, 3))
    }
    words = [f"not {name}" if chance.random() < 0.3 else name for name in selections]
    return selections | {"condition": chance.choice((" or ", " and ")).join(words)}


def _escaped(value: str) -> str:
    return "".join("\\" + sign if sign in "\\*?" else sign for sign in value)


def test_random_rules(records: list[Record], engine: DuckDBEngine) -> None:
    """Rules that nobody thought of. TRAILSIFT_SIGMA_RULES and TRAILSIFT_SIGMA_SEED make it longer, and other rules."""
    seed = int(os.environ.get("TRAILSIFT_SIGMA_SEED", "1"))
    chance = random.Random(seed)
    fields = sorted({name for record in records for name in _fields(record)})
    count = int(os.environ.get("TRAILSIFT_SIGMA_RULES", "150"))
    detections = [_random_detection(chance, records, fields) for _ in range(count)]
    different = []
    some = 0
    for detection, got in zip(detections, hits(engine, scans_of(detections)), strict=True):
        wanted = {record["eventID"] for record in records if is_match({"detection": detection}, record)}
        some += 0 < len(wanted) < len(records)
        if wanted != got:
            different.append((detection, wanted ^ got))
    assert not different, different[:3]
    assert some > count // 5
