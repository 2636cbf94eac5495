"""Envelopes and records: every form is read, nothing raises, nothing is lost."""

from __future__ import annotations

import gzip
import io
import json
import re
import uuid
import zipfile
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.records import ONE, TWO, comparable, sample, text
from trailsift import _native
from trailsift.decode import record
from trailsift.decode.envelope import find_records
from trailsift.decode.unwrap import looks_like_record


def zipped(**members: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return sink.getvalue()


BOTH = text({"Records": [ONE, TWO]})

FORMS = {
    "records object": (BOTH, 2, 0),
    "records object, spaced": (json.dumps({"Records": [ONE, TWO]}, indent=1).encode(), 2, 0),
    "records object, other members first": (text({"x": 1, "Records": [ONE, TWO]}), 2, 0),
    "array": (text([ONE, TWO]), 2, 0),
    "array, spaced": (json.dumps([ONE, TWO], indent=2).encode(), 2, 0),
    "one a line": (text(ONE) + b"\n" + text(TWO) + b"\n", 2, 0),
    "one a line, a blank line and CRLF": (text(ONE) + b"\r\n\r\n" + text(TWO), 2, 0),
    "one a line, one of them broken": (text(ONE) + b"\n{broken\n" + text(TWO), 2, 1),
    "single": (text(ONE), 1, 0),
    "single, spaced": (json.dumps(ONE, indent=3).encode(), 1, 0),
    "byte order mark": (b"\xef\xbb\xbf" + BOTH, 2, 0),
    "gzip": (gzip.compress(BOTH), 2, 0),
    "gzip of several members": (gzip.compress(BOTH[:100]) + gzip.compress(BOTH[100:]), 2, 0),
    "gzip in gzip": (gzip.compress(gzip.compress(BOTH)), 2, 0),
    "zip": (zipped(a=BOTH, b=text(ONE)), 3, 0),
    "zip of gzip": (zipped(a=gzip.compress(BOTH)), 2, 0),
    "no records": (b'{"Records":[]}', 0, 0),
    "empty": (b"", 0, 1),
    "blank": (b" \n ", 0, 1),
    "truncated gzip": (gzip.compress(BOTH, mtime=0)[:-40], None, 1),
    "truncated text": (BOTH[:-300], 1, 1),
    "a number among the records": (text({"Records": [ONE, 7]}), 1, 1),
    "not JSON": (b"hello", 0, 1),
    "truncated zip": (zipped(a=BOTH)[:-30], 0, 1),
    "not UTF-8": (BOTH.replace(b"part-1", b"part-\xe9"), 2, 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(form: str) -> None:
    data, records, malformed = FORMS[form]
    found = find_records(data)
    assert len(found.malformed) == malformed, found.malformed
    if records is not None:
        assert len(found.records) == records
        assert all(isinstance(json.loads(bytes(raw)), dict) for raw in found.records)


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    found = find_records(data)
    assert found.records or found.malformed or found.not_cloudtrail is not None or data.strip() == b'{"Records":[]}'


@given(st.integers(0, len(BOTH)), st.binary(max_size=3))
def test_no_damage_raises(at: int, put: bytes) -> None:
    for data in (BOTH[:at] + put + BOTH[at + 1 :], gzip.compress(BOTH)[:at] + put):
        for raw in find_records(data).records:
            bytes(raw)


def test_wrong_cut_is_seen() -> None:
    """The text at which records are cut may also occur inside a record."""
    from trailsift.ingest.chunk_builder import ChunkBuilder

    inner = sample(requestParameters={"list": [{"a": 1}, {"eventVersion": "1"}]})
    data = text({"Records": [ONE, inner, TWO | {"eventID": "x"}]})
    builder = ChunkBuilder()
    tally = builder.add("o", data)
    assert (tally.records, tally.malformed) == (3, [])
    assert builder.finish().table.num_rows == 3


CHANGES: dict[str, dict[str, Any]] = {
    "plain": {},
    "null members": {"userIdentity": None, "requestParameters": None, "resources": None, "additionalEventData": None},
    "null plain members": {"errorCode": None, "userAgent": None, "vpcEndpointId": None},
    "odd types": {"readOnly": "true", "errorCode": 200, "resources": "", "responseElements": "", "eventName": None},
    "floats": {"additionalEventData": {"bytesTransferredIn": 1.5, "bytesTransferredOut": 7.0}},
    "negative and huge counts": {"additionalEventData": {"bytesTransferredIn": -1, "bytesTransferredOut": 2**70}},
    "unknown members": {"newMember": {"a": [1, 2.0, None]}, "(absent)": ["x"], "(float)(float)": 1},
    "key in other case": {"requestParameters": {"bucketName": "data", "Key": "k"}},
    "key is an object": {"requestParameters": {"tableName": "t", "key": {"pk": "1"}}},
    "no key": {"requestParameters": {"bucketName": "data"}},
    "empty key": {"requestParameters": {"bucketName": "data", "key": ""}},
    "other resources": {"resources": [{"ARN": "arn:aws:s3:::elsewhere"}]},
    "lone surrogate": {"requestParameters": {"bucketName": "data", "key": "\ud800"}, "userAgent": "\udfff"},
    "escapes": {"requestParameters": {"bucketName": "data", "key": 'a"b\\c\n\u0000é'}},
    "milliseconds": {"eventTime": "2026-03-02T01:02:03.520Z"},
    "offset": {"eventTime": "2026-03-02T10:02:03+0900"},
    "blank in time": {"eventTime": "2026-03-02 01:02:03.123456789"},
    "old": {"eventVersion": "1.05", "eventCategory": "Management", "managementEvent": False},
    "category and flag disagree": {"managementEvent": True},
    "odd event id": {"eventID": "09a634f2-da7d-4c9e-a259-54aceexample"},
    "empty strings": {"recipientAccountId": "", "eventID": "", "sourceIPAddress": ""},
}
DROPPED = (
    "eventCategory",
    "managementEvent",
    "eventID",
    "resources",
    "recipientAccountId",
    "responseElements",
    "tlsDetails",
)


def _cases() -> dict[str, dict[str, Any]]:
    cases = {name: sample(**changes) for name, changes in CHANGES.items()}
    for member in DROPPED:
        cases[f"without {member}"] = {name: value for name, value in sample().items() if name != member}
    return cases


@pytest.mark.parametrize(("name", "case"), _cases().items())
def test_record_is_restored(name: str, case: dict[str, Any]) -> None:
    row = record.row(case, "object")
    assert record.same(record.restore(row), case)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
MEMBERS = st.sampled_from([*sample(), "newMember", "(absent)", "apiVersion", "sharedEventID", "errorMessage"])


def mutated() -> st.SearchStrategy[dict[str, Any]]:
    """Generate records with some members replaced, dropped or nested in others."""

    def build(changes: dict[str, Any], drops: list[str], inner: dict[str, Any]) -> dict[str, Any]:
        value = sample(**changes)
        for member in drops:
            value.pop(member, None)
        for member in ("requestParameters", "additionalEventData"):
            if isinstance(value.get(member), dict):
                value[member] = {**value[member], **inner}
        value["eventTime"] = "2026-03-02T01:02:03Z"
        return value

    inner = st.dictionaries(
        st.sampled_from(["key", "bucketName", "tableName", "bytesTransferredIn", "bytesTransferredOut", "uploadId"]),
        VALUES | st.just({"pk": "1"}) | st.just("a/b") | st.just(5.0) | st.just(12),
        max_size=3,
    )
    return st.builds(build, st.dictionaries(MEMBERS, VALUES, max_size=3), st.lists(MEMBERS, max_size=2), inner)


@given(mutated())
def test_any_record_is_restored(value: dict[str, Any]) -> None:
    assert record.same(record.restore(record.row(value, "object")), value)


_NAMES = [
    "GetObject",
    "UploadPart",
    "ListObjects",
    "ListObjectVersions",
    "GetItem",
    "BatchGetItem",
    "GetRecords",
    "Scan",
    "CopyObject",
    "UploadPartCopy",
    "AssumeRole",
    "ExecuteStatement",
]
_KEYS = ["a/b", "a/c", "", "é/한", 'say "hi"', "a", "/", {"pk": "1"}, {"pk": "2", "sk": "x"}, {"n": 1}, {}, None, "key"]
_COUNTS = [{}, {"bytesTransferredIn": 0}, {"bytesTransferredIn": 7.0, "x": "y"}, {"bytesTransferredOut": 10**15}, None]
_POINT = "arn:aws:s3:us-east-1:111122223333:accesspoint/ap"
_VARYING: dict[str, list[Any]] = {
    "prefix": ["", "a/b", "a/c", 'a"', None],
    "marker": ["m1", "m2", 3],
    "uploadId": ["u1", "u2", "\\", 5],
    "shardIterator": ["arn:aws:dynamodb:eu-west-1:1:table/t/stream/x|1|AAA=", "no bar", "t|AAA=", 't|1|AB"C'],
    "requestItems": [
        {"t": {"keys": [{"pk": "1"}]}},
        {"t": {"keys": [{"pk": "1"}, {"pk": "2"}]}},
        [{"key": {"a": "b"}}],
    ],
    "x-amz-copy-source": [
        "data/a b",
        "data/c",
        "/data/c",
        "other/a",
        "data",
        "arn:aws:s3:::a/b",
        "Data/a",
        "é",
        "",
        _POINT + "/object/a/b",
        _POINT + "/object/a/c",
        _POINT.replace(":", "%3A") + "/object/a%2Fb",
    ],
    "roleSessionName": ["s1", "s2", 'a"', 7],
    "segment": [1, 20, -1, 1.5, "3", None],
    "statement": [
        "SELECT * FROM \"t\" WHERE pk = 'a'",
        "SELECT * FROM \"t\" WHERE pk = 'b'",
        "SELECT * FROM \"u\" WHERE pk = 'b'",
        "SELECT * FROM t WHERE pk = ' from u ' AND sk = 'it''s'",
        "SELECT * FROM t WHERE pk = ' from v ' AND sk = 'it''s'",
        "UPDATE t SET a = 'x",
        "UPDATE t SET a = 'x\\'",
        "DELETE FROM \u00e9 WHERE a='b'",
        "SELECT 1 \x01 from t'",
        "SELECT ' from a' from '\x02' from b ' from c",
        {"no": "text"},
        "INSERT INTO t " + "x" * 8200 + " 'a'",
    ],
}
_SOURCES = {"AssumeRole": "sts.amazonaws.com"} | dict.fromkeys(
    ("GetItem", "BatchGetItem", "GetRecords", "Scan", "ExecuteStatement"), "dynamodb.amazonaws.com"
)


def alike() -> st.SearchStrategy[list[dict[str, Any]]]:
    """Generate records that differ only slightly, so that they share templates, which must not be shared too widely."""

    def build(name: str, sources: dict[str, str], details: list[tuple[Any, ...]]) -> list[dict[str, Any]]:
        records = []
        for key, arn_key, counts, (member, value), message, (recipient, caller) in details:
            call = sample(eventName=name, eventID=str(uuid.uuid4()), additionalEventData=counts)
            call["eventSource"] = sources.get(name, call["eventSource"])
            call["requestParameters"] = {"bucketName": "data", member: value} | ({} if key == "" else {"key": key})
            call["resources"] = [{"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::data/{arn_key}"}]
            if member == "x-amz-copy-source":
                call["resources"].append({"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::secret/{arn_key}"})
            call["recipientAccountId"] = recipient
            call["userIdentity"] = {"type": "AWSAccount", "principalId": "AIDAX", "accountId": caller}
            if message is not None:
                call |= {"errorCode": "AccessDenied", "errorMessage": message}
            records.append(call)
        return records

    varying = st.sampled_from(sorted(_VARYING)).flatmap(
        lambda member: st.tuples(st.just(member), st.sampled_from(_VARYING[member]))
    )
    messages = st.sampled_from([None, None, "no", 'no "a\\b"\n', "é", "\x01", ""])
    accounts = st.tuples(st.sampled_from(["111122223333", "111122223333", ""]), st.sampled_from(["1" * 12, "2" * 12]))
    keys = st.sampled_from(_KEYS)
    detail = st.tuples(keys, keys, st.sampled_from(_COUNTS), varying, messages, accounts)
    sources = st.sampled_from([{}, _SOURCES])
    return st.builds(build, st.sampled_from(_NAMES), sources, st.lists(detail, min_size=2, max_size=6))


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
@pytest.mark.parametrize("ascii_only", [True, False], ids=["ascii", "utf-8"])
@given(st.one_of(st.lists(mutated(), min_size=1, max_size=5), alike()))
def test_all_paths_agree(scan: bool, ascii_only: bool, records: list[dict[str, Any]]) -> None:
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if scan and not _native.available():
        pytest.skip("the accelerators are not built: no C compiler at hand")
    builder = ChunkBuilder(scan=scan)
    try:
        data = json.dumps({"Records": records}, separators=(",", ":"), ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    tally = builder.add("object", data)
    if tally.foreign is not None:
        return
    assert not any(malformed.reason.startswith("unforeseen") for malformed in tally.malformed)
    rows = builder.finish().table.to_pylist()
    good = [value for value in records if looks_like_record(value)]
    assert len(rows) == len(good)
    key = lambda row: json.dumps(row, sort_keys=True, default=str)  # noqa: E731
    expected = [comparable(record.row(value, "object")) for value in good]
    for row in rows:
        row["event_time"] = round(row["event_time"].timestamp() * 1_000_000)
    assert sorted(map(key, map(comparable, rows))) == sorted(map(key, expected))


@given(st.one_of(st.lists(mutated(), min_size=1, max_size=3), alike()), st.data())
def test_damaged_records_are_read_alike_by_all_paths(records: list[dict[str, Any]], data: st.DataObject) -> None:
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if not _native.available():
        pytest.skip("the accelerators are not built: no C compiler at hand")
    text_of_all = text({"Records": records})
    at = data.draw(st.integers(0, len(text_of_all)))
    damaged = text_of_all[:at] + data.draw(st.binary(max_size=3)) + text_of_all[at + data.draw(st.integers(0, 3)) :]
    outcomes = []
    for scan in (True, False):
        builder = ChunkBuilder(scan=scan)
        tally = builder.add("object", damaged)
        rows = [repr(sorted(comparable(row).items())) for row in builder.finish().table.to_pylist()]
        outcomes.append((tally.records, tally.foreign, [part.reason for part in tally.malformed], sorted(rows)))
    assert outcomes[0] == outcomes[1]


#: Members in CloudTrail's order, with few values each, so that sequences of them repeat.
_REPEATED: dict[str, list[Any]] = {
    "eventVersion": ["1.11"],
    "userIdentity": [{"type": "AWSService", "invokedBy": "x"}, {"type": "Role", "accountId": "1", "arn": "a" * 200}],
    "eventTime": ["2026-03-02T01:02:03Z"],
    "eventSource": ["s3.amazonaws.com", "dynamodb.amazonaws.com"],
    "eventName": ["GetObject", "PutObject"],
    "awsRegion": ["us-east-1", "eu-west-1"],
    "sourceIPAddress": ["10.0.0.7", "10.0.0.8"],
    "userAgent": [f"[aws-cli/2.1 {'x' * 120}]", "[Boto3/1.34]", "\u00e9"],
    "errorCode": ["AccessDenied"],
    "requestParameters": [{"bucketName": "a", "key": "k"}, {"bucketName": "b", "key": "l" * 60}, None],
    "responseElements": [None],
    "requestID": ["R"],
    "readOnly": [True],
    "eventType": ["AwsApiCall", "AwsServiceEvent"],
    "apiVersion": ["2012-08-10", "2015-03-31"],
    "managementEvent": [False],
    "recipientAccountId": ["1", "2"],
    "sharedEventID": ["S"],
    "vpcEndpointId": ["vpce-1"],
    "eventCategory": ["Data"],
    "tlsDetails": [{"clientProvidedHostHeader": "a"}, {"clientProvidedHostHeader": "b"}],
}


@st.composite
def repeated(draw: st.DrawFn) -> str:
    """Generate a record of members that other records share; one may be out of order, or occur twice."""
    absent = draw(st.sets(st.sampled_from(list(_REPEATED)[8:]), max_size=4)) | draw(
        st.sets(st.sampled_from(list(_REPEATED)))
    )
    if draw(st.booleans()):
        absent &= {"errorCode", "sharedEventID", "vpcEndpointId", "eventCategory", "tlsDetails", "apiVersion"}
    members = [
        f'"{name}":' + json.dumps(draw(st.sampled_from(values)), separators=(",", ":"))
        for name, values in _REPEATED.items()
        if name not in absent or name in ("eventVersion", "eventTime", "eventSource", "eventName")
    ]
    members.insert(draw(st.sampled_from([5, len(members) // 2])), f'"eventID":"{draw(st.uuids())}"')
    if draw(st.integers(0, 3)) == 0:
        member = members[draw(st.integers(0, len(members) - 1))]
        if draw(st.booleans()):
            members.remove(member)
        members.insert(draw(st.integers(0, len(members))), member)
    return "{" + ",".join(members) + "}"


def _members(number: int, *names: str) -> str:
    values = {name: json.dumps(_REPEATED[name][0], separators=(",", ":")) for name in _REPEATED}
    for name in ("awsRegion", "tlsDetails", "apiVersion"):
        values[name] = json.dumps(_REPEATED[name][number % 2], separators=(",", ":"))
    values["eventID"] = f'"11111111-2222-4333-8444-{number:012d}"'
    return "{" + ",".join(f'"{name}":{values[name]}' for name in names) + "}"


_CALL = ("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "sourceIPAddress", "userAgent")
_CLOSE = ("requestParameters", "eventID", "eventType", "managementEvent", "recipientAccountId")


@settings(max_examples=60)
@given(st.lists(repeated(), min_size=2, max_size=12))
# Members of a shared sequence that also occur elsewhere; a sequence that continues.
@example([_members(at, *_CALL, *["awsRegion"][: at % 3], *_CLOSE) for at in range(6)])
@example([_members(at, *_CALL, *_CLOSE, *["apiVersion"][: at % 3], *["tlsDetails"][: at % 3]) for at in range(6)])
@example([_members(at, *["awsRegion"][: at % 3], *_CALL, "awsRegion", *_CLOSE) for at in range(6)])
def test_sequences_that_records_share_are_read_as_in_a_single_record(records: list[str]) -> None:
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if not _native.available():
        pytest.skip("the accelerators are not built: no C compiler at hand")

    def rows(scan: bool, *logs: list[str]) -> list[str]:
        builder = ChunkBuilder(scan=scan)
        for log in logs:
            builder.add("object", ('{"Records":[' + ",".join(log) + "]}").encode())
        chunk = builder.finish()
        texts = [repr(sorted(comparable(row).items())) for row in chunk.table.to_pylist()]
        return sorted(map(repr, zip(chunk.ids.tolist(), chunk.crc32.tolist(), texts, strict=True)))

    alone = sorted(row for record in records for row in rows(True, [record]))
    assert rows(True, records) == rows(True, records[::-1], []) == rows(False, records) == alone


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
@pytest.mark.parametrize(
    ("user", "account"),
    [
        ('{"accountId":"1","x":%s}' % ("1" * 500), "1"),
        ('{"accountId":"","x":1}', None),
        ('{"accountId":"1","accountId":""}', None),
        ('{"accountId":"","accountId":"2"}', "2"),
        ('{"account\\u0049d":"1"}', "1"),
        ('{"accountId":"1","account\\u0049d":""}', None),
        ('{"accountId":5}', None),
        ('{"a":{"accountId":"1"}}', None),
        ("null", None),
        ("[]", None),
        ('"x"', None),
    ],
)
def test_who_names_an_account(scan: bool, user: str, account: str | None) -> None:
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if scan and not _native.available():
        pytest.skip("the accelerators are not built: no C compiler at hand")
    builder = ChunkBuilder(scan=scan)
    other = text(sample(eventID="11111111-2222-4333-8444-666666666666")).decode()
    mine = re.sub(
        r'"userIdentity":.*?,"eventTime"', lambda _: f'"userIdentity":{user},"eventTime"', text(sample()).decode()
    )
    mine = re.sub(r',"recipientAccountId":"[0-9]*"', "", mine)
    builder.add("object", f'{{"Records":[{other},{mine},{mine}]}}'.encode())
    rows = [row for row in builder.finish().table.to_pylist() if row["event_id"] == sample()["eventID"]]
    assert [(row["principal_account"], row["account_id"]) for row in rows] == [(account, account)] * 2


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
def test_a_number_that_python_does_not_read(scan: bool) -> None:
    """A record with such a number in userIdentity is rejected; the good record beside it is stored."""
    from trailsift.ingest.chunk_builder import ChunkBuilder

    user = '{"accountId":"1","x":%s}' % ("1" * 5000)
    mine = re.sub(r'"userIdentity":.*?,"eventTime"', lambda _: f'"userIdentity":{user},"eventTime"', text(ONE).decode())
    builder = ChunkBuilder(scan=scan)
    tally = builder.add("object", f'{{"Records":[{text(TWO).decode()},{mine}]}}'.encode())
    assert (tally.records, tally.malformed.parts, len(builder.finish())) == (2, 1, 1)


TIMES = {
    "2026-03-02T01:02:03Z": 1772413323000000,
    "2026-03-02T01:02:03.5Z": 1772413323500000,
    "2026-03-02T10:02:03+0900": 1772413323000000,
    "2026-03-02T10:02:03+09:00": 1772413323000000,
    "2026-03-02 01:02:03": 1772413323000000,
    "2026-03-02 01:02:03.123456789": 1772413323123456,
    1772413323: 1772413323000000,
    1772413323000: 1772413323000000,
    "2026-02-30T01:02:03Z": None,
    "yesterday": None,
    "": None,
    True: None,
    0: None,
    float("inf"): None,
}


@pytest.mark.parametrize(("given_time", "micros"), list(TIMES.items()))
def test_times(given_time: object, micros: int | None) -> None:
    assert record.parse_time(given_time) == micros


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
@pytest.mark.parametrize(
    "parameters",
    [
        '{"bucketName":"b","key":"x","partNumber":"1","key":"y"}',
        '{"bucketName":"b","key":"x","versionId":"1","part":{"key":"n"}}',
        '{"bucketName":"b","part":{"key":{"id":"n"}},"key":"x","uploadId":"1"}',
        '{"bucketName":"b","part":[{"get":{"key":"n"}}],"key":"x","key":"x","partNumber":"1"}',
    ],
)
def test_two_keys_are_read_as_by_the_slow_path(parameters: str, scan: bool) -> None:
    """Of a duplicate parameter the last counts, and a nested key is not the object key."""
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if scan and not _native.available():
        pytest.skip("there is no C compiler")
    raw = text(sample() | {"requestParameters": 0}).replace(
        b'"requestParameters":0', f'"requestParameters":{parameters}'.encode()
    )
    assert parameters.encode() in raw
    builder = ChunkBuilder(scan=scan)
    builder.add("object", b'{"Records":[' + raw + b"]}")
    row = builder.finish().table.to_pylist()[0]
    slow = record.row(json.loads(raw), "object")
    assert (row["object_key"], json.loads(row["request_parameters"])) == (
        slow["object_key"],
        json.loads(slow["request_parameters"]),
    )


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
@pytest.mark.parametrize(
    "source", [_POINT + "/object/reports/q1.csv", _POINT.replace(":", "%3A") + "%2Fobject/reports/q1.csv"]
)
@pytest.mark.parametrize("key", ["reports/q1.csv", "other.csv"])
def test_what_lies_behind_an_access_point_is_found(key: str, source: str, scan: bool) -> None:
    """Also if the copy has the same key, which is cut out of the ARNs of regular records."""
    call = sample(
        eventName="CopyObject", requestParameters={"bucketName": "dst", "key": key, "x-amz-copy-source": source}
    )
    arns = (f"arn:aws:s3:::dst/{key}", "arn:aws:s3:::secret/reports/q1.csv")
    call["resources"] = [{"type": "AWS::S3::Object", "ARN": arn} for arn in arns]
    (row,) = read_as(scan, call)
    assert (row["source_resource_arn"], row["source_object_key"]) == ("arn:aws:s3:::secret", "reports/q1.csv")
    assert row["resource_arn"] == "arn:aws:s3:::dst"


@pytest.mark.parametrize("scan", [True, False], ids=["scan", "python"])
@pytest.mark.parametrize("recipient", ["", None])
def test_the_account_of_a_caller_is_not_that_of_another(recipient: str | None, scan: bool) -> None:
    calls = []
    for account in ("1" * 12, "2" * 12):
        call = sample(eventID=str(uuid.uuid4()), recipientAccountId=recipient)
        calls.append(call | {"userIdentity": {"type": "AWSAccount", "principalId": "AIDAX", "accountId": account}})
        if recipient is None:
            del calls[-1]["recipientAccountId"]
    assert sorted(row["account_id"] for row in read_as(scan, *calls)) == ["1" * 12, "2" * 12]


def read_as(scan: bool, *records: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of records that the scanner reads, or the fast path of Python."""
    from trailsift.ingest.chunk_builder import ChunkBuilder

    if scan and not _native.available():
        pytest.skip("there is no C compiler")
    builder = ChunkBuilder(scan=scan)
    builder.add("object", json.dumps({"Records": records}, separators=(",", ":")).encode())
    rows: list[dict[str, Any]] = builder.finish().table.to_pylist()
    return rows
