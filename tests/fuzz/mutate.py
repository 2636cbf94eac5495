"""Log objects that look real and are wrong somewhere."""

from __future__ import annotations

import functools
import gzip
import json
import random
import re
import tempfile
import uuid
from pathlib import Path
from typing import Any

from support.paths import TESTS
from support.records import sample
from trailsift.generate import Options, generate

#: A record: its members in order, each with the text of its value.
Members = list[tuple[str, str]]

_NUMBERS = (
    "0 7 -0 -1 12 1.0 0.0 1.5 1e3 1E+2 123456789012345 1234567890123456 12345678901234567890 5.00 2.0e1 0.1 "
    "1" + "0" * 5000 + " -1.0 01 +1 1. .5 1e 1e+ - -a NaN Infinity 0x10 1_000 true false null nul tru fals {} [] { ["
).split(" ")
_STRINGS = [
    *(
        "",
        "a",
        "data/a b",
        "logs/2026/03/02/part-1.gz",
        "a/b/c",
        "*",
        "arn:aws:s3:::data/x",
        "(absent)",
        "{}",
        "[]",
        "'",
    ),
    *(
        "it''s",
        "%",
        "null",
        "5.0",
        "a" * 31,
        "b" * 32,
        "c" * 33,
        "d" * 300,
        "|1|AAA=",
        "arn:a|1|B==",
        "x\\\\",
        "{",
        "}",
    ),
    *(
        "\\n",
        "\\u00e9",
        "\\u0000",
        "\\ud800",
        "\\ud83d\\ude00",
        '\\"',
        "\\/",
        "\\\\",
        "é",
        "한글",
        "\U0001f600",
        "\u2028",
    ),
    *(
        '\\"key\\":\\"x\\"',
        '\\"key\\":{\\"a\\":1}',
        "bytesTransferredIn",
        '\\"bytesTransferredOut\\":5',
        "\ufeff",
        "\x7f",
    ),
    *(
        "SELECT * FROM \\\"t\\\" WHERE a='b'",
        "SELECT 'x' FROM 't'",
        "UPDATE t SET a='x",
        "DELETE FROM t WHERE a=' from u '",
    ),
    # Not valid in a string.
    *("\x01", "\x1f", "\t", "\\x", "\\u12", "\\u12g4", "\\", '"', '","', '":"', "\x00"),
]
_KEYS = [
    "key",
    "keys",
    "prefix",
    "marker",
    "uploadId",
    "partNumber",
    "versionId",
    "shardIterator",
    "segment",
    "statement",
    "x-amz-copy-source",
    "Key",
    "roleSessionName",
    "bucketName",
    "tableName",
    "requestItems",
    "transactItems",
    "bytesTransferredIn",
    "bytesTransferredOut",
    "max-keys",
    "start-after",
    "continuation-token",
    "accountId",
    "arn",
    "sessionContext",
    "bytesTransferredInX",
    "(absent)",
    "(float)",
    "eventTime",
]
_MEMBERS = [
    "eventVersion",
    "userIdentity",
    "eventTime",
    "eventSource",
    "eventName",
    "awsRegion",
    "sourceIPAddress",
    "userAgent",
    "errorCode",
    "errorMessage",
    "requestParameters",
    "responseElements",
    "additionalEventData",
    "requestID",
    "eventID",
    "readOnly",
    "resources",
    "eventType",
    "apiVersion",
    "managementEvent",
    "recipientAccountId",
    "sharedEventID",
    "vpcEndpointId",
    "vpcEndpointAccountId",
    "eventCategory",
    "tlsDetails",
    "sessionCredentialFromConsole",
    "serviceEventDetails",
    "addendum",
    "eventI\\u0044",
    "(absent)",
    "Records",
]
_ACTIONS = [
    "GetObject",
    "HeadObject",
    "PutObject",
    "UploadPart",
    "ListParts",
    "ListObjects",
    "ListObjectVersions",
    "ListMultipartUploads",
    "CopyObject",
    "UploadPartCopy",
    "CompleteMultipartUpload",
    "AbortMultipartUpload",
    "GetItem",
    "BatchGetItem",
    "BatchWriteItem",
    "TransactGetItems",
    "TransactWriteItems",
    "GetRecords",
    "Scan",
    "ExecuteStatement",
    "AssumeRole",
    "AssumeRoleWithSAML",
    "AssumeRoleWithWebIdentity",
    "Invoke",
]
_SOURCES = ["s3.amazonaws.com", "dynamodb.amazonaws.com", "sts.amazonaws.com", "lambda.amazonaws.com", "x", ""]
_TIMES = [
    "2026-03-02T01:02:03Z",
    "2026-02-29T01:02:03Z",
    "2024-02-29T23:59:59Z",
    "2024-02-29T23:59:60Z",
    "2026-03-02T24:00:00Z",
    "2001-12-31T00:00:00Z",
    "2002-01-01T00:00:00Z",
    "9999-12-31T00:00:00Z",
    "9998-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "2026-3-02T01:02:03Z",
    "2026-03-02T01:02:03z",
    "2026-03-0\\u0032T01:02:03Z",
    "2026-W10-1T01:02:03Z",
    "2026-03-02T01:02:03.5Z",
]
_BYTES = (
    b' |\n|\t|\0|"|\\|,|{|}|[|]|:|\xef\xbb\xbf|\xff|\xed\xa0\x80|\xc0\x80|\xf4\x90\x80\x80|\xf0\x9f|/*x*/|//|\\u0000'
    b'|\\ud800|\\u|},{|"}]}|,,|{}|null'
).split(b"|")


@functools.cache
def corpus() -> list[Members]:
    """Records of every kind that `generate` writes, and the oddities of tests/cases."""
    with tempfile.TemporaryDirectory() as folder:
        generate(Path(folder) / "logs", Options(events=4_000, days=1, seed=3))
        paths = sorted(Path(folder).rglob("*.json.gz"))
        records = [record for path in paths for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]]
    kinds: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in records:
        kinds.setdefault((record.get("eventName"), record.get("errorCode"), tuple(record)), record)
    cases = json.loads((TESTS / "cases" / "oddities.json").read_text("utf-8"))
    odd = [sample(**case.get("changes", {})) for case in cases]
    return [[(name, compact(value)) for name, value in record.items()] for record in (*kinds.values(), *odd)]


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Mutator:
    """Draws log objects. The same random numbers give the same log objects."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        #: Most values are valid JSON, since a broken one hides what is in the rest of a log object.
        self.valid_only = rng.random() < 0.8

    def log_objects(self) -> list[bytes]:
        """Log objects that share callers, origins and calls."""
        base = list(self.rng.choice(corpus()))
        if self.rng.random() < 0.3:
            put(base, "eventName", f'"{self.rng.choice(_ACTIONS)}"')
            put(base, "requestParameters", self.parameters())
        return [self._log_object(base) for _ in range(self.rng.choice([1, 1, 2]))]

    def _log_object(self, base: Members) -> bytes:
        rng = self.rng
        records = [encoded(self._sibling(base)) for _ in range(rng.choice([0, 1, 4, 8, 16, 16, 24]))]
        if records and rng.random() < 0.15:
            at = rng.randrange(len(records))
            records[at] = self.damaged(records[at])
        data = b'{"Records":[' + b",".join(records) + b"]}"
        draw = rng.random()
        if draw < 0.08:
            return self.damaged(data)
        if draw < 0.12:
            # Another form, another encoding, or something behind the end.
            return rng.choice(
                [b"\xef\xbb\xbf" + data, data + b"\n\n", data + b",", data + b"\0", data[11:-1], b"\n".join(records)]
            )
        return data

    def _sibling(self, base: Members) -> Members:
        """A record that differs from another in a few members."""
        members = list(base)
        put(members, "eventID", f'"{uuid.UUID(int=self.rng.getrandbits(128))}"')
        for _ in range(self.rng.choice([0, 1, 1, 1, 2])):
            self._change(members)
        return members

    def _change(self, members: Members) -> None:
        rng = self.rng
        draw = rng.random()
        if draw < 0.25:
            put(members, "requestParameters", self.parameters())
        elif draw < 0.35:
            put(members, "additionalEventData", self._counts())
        elif draw < 0.42:
            put(members, "resources", self._resources())
        elif draw < 0.5:
            name = rng.choice(["eventName", "eventSource", "eventTime"])
            values = {"eventName": _ACTIONS, "eventSource": _SOURCES, "eventTime": _TIMES}[name]
            put(members, name, f'"{rng.choice(values)}"')
        elif draw < 0.58:
            put(members, rng.choice(_MEMBERS), self.string())
        elif draw < 0.68:
            put(members, rng.choice(_MEMBERS), self.value())
        elif draw < 0.72 and len(members) > 3:
            del members[rng.randrange(len(members))]
        elif draw < 0.77:
            # Perhaps a member that occurs already.
            members.insert(rng.randrange(len(members) + 1), (rng.choice(_MEMBERS), self.value()))
        elif draw < 0.83:
            first, second = rng.randrange(len(members)), rng.randrange(len(members))
            members[first], members[second] = members[second], members[first]
        elif draw < 0.9:
            put(members, "userIdentity", self._identity())
        elif draw < 0.94:
            put(members, "eventID", rng.choice(['"09a634f2-da7d-4c9e-a259-54aceexample"', '""', "1", self.string()]))
        else:
            name = rng.choice(["errorMessage", "userAgent", "requestID", "sharedEventID", "tlsDetails"])
            unit = rng.choice(["a", "é", "\\n", '\\"', "\u20ac", "\\u0041"])
            size = rng.choice([10, 15, 16, 31, 32, 33, 63, 64, 510, 512] * 4 + [4096, 70_000])
            put(members, name, '"' + unit * size + '"')

    def string(self) -> str:
        first, second = self._one_of(_STRINGS), self._one_of(_STRINGS)
        return '"' + first + (second if self.rng.random() < 0.3 else "") + '"'

    def value(self, depth: int = 0) -> str:
        rng = self.rng
        draw = rng.random()
        if draw < 0.45 or depth > 3:
            return self.string()
        if draw < 0.65:
            return self._one_of(_NUMBERS)
        if draw < 0.85:
            inner = [f'"{rng.choice(_KEYS)}":{self.value(depth + 1)}' for _ in range(rng.randint(0, 4))]
            return "{" + ",".join(inner) + "}"
        if draw < 0.997:
            return "[" + ",".join(self.value(depth + 1) for _ in range(rng.randint(0, 3))) + "]"
        levels = rng.choice([10, 45, 46] * 4 + [47, 48, 49, 50, 100])
        return "[" * levels + "]" * levels

    def parameters(self) -> str:
        rng = self.rng
        members = []
        for _ in range(rng.choice([1, 2, 3, 4, 5] * 5 + [41])):
            name = rng.choice(_KEYS)
            value = self.value()
            if name == "key":
                value = rng.choice([self.string(), self._item(), value])
            elif name == "keys":
                value = "[" + ",".join(self._item() for _ in range(rng.randint(0, 3))) + "]"
            elif name == "requestItems":
                value = f'{{"t":{{"keys":[{self._item()},{self._item()}]}}}}'
            elif name == "transactItems":
                value = f'[{{"get":{{"tableName":{self.string()},"key":{self._item()}}}}}]'
            members.append(f'"{name}":{value}')
        return "{" + ",".join(members) + "}"

    def _item(self) -> str:
        names = self.rng.sample(["pk", "sk", "id", "a"], self.rng.randint(0, 3))
        return "{" + ",".join(f'"{name}":{self.string()}' for name in names) + "}"

    def _counts(self) -> str:
        count, other = self._one_of(_NUMBERS), self._one_of(_NUMBERS)
        forms = ['{"bytesTransferredIn":%s}', '{"bytesTransferredOut":%s,"x":%s}', '{"a":{"bytesTransferredIn":%s}}']
        forms += [
            '{"bytesTransferredIn":%s,"bytesTransferredOut":%s}',
            '{"bytesTransferredIn":%s,"bytesTransferredIn":%s}',
        ]
        form = self.rng.choice(forms)
        return form % ((count, other) if form.count("%s") == 2 else count)

    def _resources(self) -> str:
        key = self._one_of(_STRINGS)
        arn = self.rng.choice(['"ARN":"arn:aws:s3:::data/%s"', '"ARN":"%s"', '"ARNPrefix":"arn:aws:s3:::data/%s"'])
        return '[{"type":"AWS::S3::Object",%s},{"accountId":"1","ARN":"arn:aws:s3:::data"}]' % (arn % key)

    def _identity(self) -> str:
        form = self.rng.choice(
            [
                '{"type":"AssumedRole","arn":%s,"accountId":%s}',
                '{"accountId":"1","accountId":%s,"arn":%s}',
                '{"type":"X","sessionContext":{"sessionIssuer":{"arn":%s,"accountId":%s}}}',
                '{"acc\\u006funtId":%s,"n":%s}',
            ]
        )
        return form % (self.string(), self.value())

    def _one_of(self, texts: list[str]) -> str:
        while True:
            drawn = self.rng.choice(texts)
            if not self.valid_only or is_json(drawn if texts is _NUMBERS else f'"{drawn}"'):
                return drawn

    def damaged(self, data: bytes) -> bytes:
        """A text with a few bytes changed, added, removed or cut off."""
        rng = self.rng
        text = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            if not text:
                break
            at, draw = rng.randrange(len(text)), rng.random()
            if draw < 0.2:
                text[at] = rng.randrange(256)
            elif draw < 0.4:
                text[at:at] = rng.choice(_BYTES)
            elif draw < 0.55:
                del text[at : at + rng.choice([1, 1, 2, 5, 40])]
            elif draw < 0.7:
                source, size = rng.randrange(len(text)), rng.choice([1, 4, 16, 64, 200])
                text[at:at] = text[source : source + size]
            elif draw < 0.8:
                text[at] ^= 1 << rng.randrange(8)
            elif draw < 0.9:
                del text[at:]
            elif numbers := list(re.finditer(rb":(-?\d+|true|false|null)[,}]", bytes(text))):
                number = rng.choice(numbers)
                text[number.start(1) : number.end(1)] = rng.choice(_NUMBERS).encode()
        return bytes(text)


@functools.cache
def is_json(text: str) -> bool:
    try:
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return False
    return True


def refuse(constant: str) -> None:
    raise ValueError(constant)


def put(members: Members, name: str, value: str) -> None:
    for at, (other, _) in enumerate(members):
        if other == name:
            members[at] = (name, value)
            return
    members.append((name, value))


def encoded(members: Members) -> bytes:
    text = "{" + ",".join(f'"{name}":{value}' for name, value in members) + "}"
    return text.encode("utf-8", "surrogatepass")
