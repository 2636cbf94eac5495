"""Athena's SQL over log files gives the columns that ``decode.record`` gives, on DuckDB (translated) and on Trino."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import duckdb
import pytest

from support.paths import TESTS
from support.raw_table import Logged, into_duckdb, into_trino, to_duckdb
from support.records import sample
from trailsift.cloudtrail.callers import identity_of
from trailsift.decode import record
from trailsift.decode.envelope import find_records
from trailsift.deploy.athena_sql import sketch, summary_select
from trailsift.deploy.raw_columns import events_select

#: Columns that every record has by the same rules; the others follow S3's records (``raw_columns``).
EXACT = (
    *("event_id", "event_name", "event_source", "event_category", "aws_region", "account_id"),
    *("principal_type", "principal_id", "principal_arn", "principal_account", "caller", "role_arn", "session_name"),
    *("access_key_id", "invoked_by", "source_resource_arn", "source_object_key", "shared_event_id", "service"),
)
#: (rows of log objects, statement over the table ``raw_cases``) -> rows of texts, NULL as None.
Run = Callable[[list[Logged], str], list[list[str | None]]]
_tables = itertools.count()


def _on_duckdb(logged: list[Logged], sql: str) -> list[list[str | None]]:
    with duckdb.connect() as db:
        into_duckdb(db, "raw_cases", logged)
        rows = db.execute(to_duckdb(sql)).fetchall()
    return [[None if value is None else _printed(str(value)) for value in row] for row in rows]


@pytest.fixture(params=["duckdb", "trino"])
def run(request: pytest.FixtureRequest) -> Run:
    if request.param == "duckdb":
        return _on_duckdb
    trino = request.getfixturevalue("trino")

    def on_trino(logged: list[Logged], sql: str) -> list[list[str | None]]:
        table = f"raw_cases_{next(_tables)}"
        into_trino(trino, table, logged)
        rows = trino.run(sql.replace("raw_cases", table))
        return [[None if value == "null" else value for value in row] for row in rows]

    return on_trino


def _checked(run: Run, records: list[dict[str, Any]], names: tuple[str, ...] = EXACT) -> None:
    logged = [(f"20260302T0105Z_{number:05}", each) for number, each in enumerate(records)]
    sql = f"SELECT log_object, {', '.join(names)} FROM ({events_select('raw_cases', 'true')}) AS mapped"
    found = {str(row[0]): row[1:] for row in run(logged, sql)}
    assert len(found) == len(records)
    for path, each in logged:
        row = record.row(each, path)
        theirs = dict(zip(names, found[path], strict=True))
        assert theirs == {name: _printed(row[name]) for name in names}, each


def _printed(value: str | None) -> str | None:
    """Return a text as the runner of Trino prints it: on one line."""
    return None if value is None else value.replace("\n", " ")


def _as_texts(value: Any) -> bool:
    """Return whether all members are of the types that CloudTrail writes."""
    if isinstance(value, dict):
        return all(map(_as_texts, value.values()))
    return value is None or isinstance(value, str)


def test_callers(run: Run) -> None:
    users = [case["user"] for case in json.loads((TESTS / "cases" / "callers.json").read_text("utf-8"))]
    users = [user for user in users if user is None or (isinstance(user, dict) and _as_texts(user))]
    empty = dict.fromkeys(("type", "arn", "accountId", "principalId", "userName", "invokedBy", "accessKeyId"), "")
    issuer = {"sessionIssuer": {"arn": "arn:aws:iam::111122223333:role/x"}}
    users += [
        empty,
        empty | {"sessionContext": issuer},
        {"sessionContext": {"sessionIssuer": {"arn": "no ARN"}}},
        {"type": "AWSService"},
        {"type": "AWSService", "accountId": "111122223333"},
        {"type": "WebIdentityUser"},
        {"type": "SAMLUser", "identityProvider": "arn:aws:iam::111122223333:saml-provider/", "principalId": "P"},
        {"identityProvider": "x", "accountId": "ANONYMOUS_PRINCIPAL"},
        {"onBehalfOf": {"userId": "U"}},
        {"onBehalfOf": {"userId": "U", "identityStoreArn": "d-1"}, "accountId": "111122223333"},
        {"onBehalfOf": {"identityStoreArn": "d-1"}, "userName": "n"},
        {"arn": "arn:aws:sts::111122223333:assumed-role/a/b/c"},
        {"arn": "arn:aws-cn:sts::111122223333:assumed-role/a$1/b\n"},
        {"arn": "arn:aws:sts::111122223333:assumed-role/", "invokedBy": "x"},
        {"arn": "x:assumed-role/a/b", "accountId": "111122223333"},
        {"principalId": "AROAX:", "accountId": "111122223333"},
        {"principalId": "AROAX:a:b"},
        {"principalId": "AIDAX:a"},
        {"principalId": "111122223333", "accountId": "111122223333", "userName": "n"},
        {"userName": "o'neill \\ \" %_"},
    ]
    callers = {identity_of(user).caller for user in users}
    assert len(callers) > 25 and {"anonymous", "none"} < callers
    _checked(run, [sample(userIdentity=user, eventID=str(number)) for number, user in enumerate(users)])


def test_accounts(run: Run) -> None:
    users: list[Any] = [None, {"accountId": "ANONYMOUS_PRINCIPAL"}, {"accountId": "444455556666"}, {"accountId": ""}]
    records = [sample(userIdentity=user, recipientAccountId=to) for user in users for to in ("111122223333", "", None)]
    _checked(run, records)


def test_categories(run: Run) -> None:
    records = []
    for category, kind, flag in itertools.product(
        (None, "", "Data", "NetworkActivity", "New"),
        (None, "AwsApiCall", "AwsCloudTrailInsight", "AwsVpceEvent"),
        (None, True, False),
    ):
        for source, name in (
            ("s3.amazonaws.com", "GetObject"),
            ("s3.amazonaws.com", "CreateBucket"),
            ("lambda.amazonaws.com", "Invoke"),
            ("dynamodb.amazonaws.com", "TransactWriteItems"),
            ("kms.amazonaws.com", "Decrypt"),
        ):
            records.append(
                sample(eventCategory=category, eventType=kind, managementEvent=flag, eventSource=source, eventName=name)
            )
    assert {record.row(each, "")["event_category"] for each in records} == {
        "Data", "Management", "NetworkActivity", "Insight", "New"
    }  # fmt: skip
    _checked(run, records)


def test_copies(run: Run) -> None:
    point = "arn:aws:s3:us-east-1:111122223333:accesspoint/pt"
    sources = (
        *(
            "src/a/b.csv",
            "/src/a/b.csv",
            "//src/x",
            "src/a%20b%2Bc+d",
            "src/%E2%82%AC",
            "src/k?versionId=3HL4",
            "src",
            "src/",
        ),
        *(
            "src/a?versionId=b?versionId=c",
            "?versionId=x",
            "",
            f"{point}/object/secret/k",
            f"{point}/object/other",
            point,
        ),
        *("dir--use1-az4--x-s3/k", "src/a%0Ab", "src/a/object/b", "/"),
    )
    listed = [
        {"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::data/in/2026/03/02/part-1.gz"},
        {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::src"},
        {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::data"},
        {"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::src/secret/k"},
    ]
    records = []
    for source, (name, member) in itertools.product(
        sources, (("CopyObject", "x-amz-copy-source"), ("UploadPartCopy", "copySource"), ("PutObject", "copySource"))
    ):
        parameters = {"bucketName": "data", "key": "in/2026/03/02/part-1.gz", member: source}
        records.append(sample(eventName=name, requestParameters=parameters, resources=listed))
    records.append(sample(eventName="CopyObject", requestParameters=None))
    assert len({record.row(each, "")["source_object_key"] for each in records}) > 10
    _checked(run, records, (*EXACT, "resource_arn", "resource_account"))


def _public() -> list[dict[str, Any]]:
    """Return the records of the public cases that are as CloudTrail writes them into log files."""
    found = []
    for path in sorted(path for path in (TESTS / "cases" / "public").rglob("*") if path.is_file()):
        for raw in find_records(path.read_bytes()).records:
            try:
                value = json.loads(bytes(raw))
            except ValueError:
                continue
            if not isinstance(value, dict) or not value.get("eventID") or not isinstance(value.get("eventTime"), str):
                continue
            user, resources = value.get("userIdentity"), value.get("resources")
            if isinstance(user, dict | None) and isinstance(resources, list | None):
                found.append(value)
    return found


def test_public_cases(run: Run) -> None:
    records = _public()
    assert len(records) > 250 and len({record.row(each, "")["caller"] for each in records}) > 20
    _checked(run, records)


def test_hours_have_callers_and_categories(run: Run) -> None:
    """The rows of ``hourly`` on Athena: the counts by the keys of callers are those of the Python functions."""
    records = _public()
    logged = [(f"20260302T0105Z_{number:05}", each) for number, each in enumerate(records)]
    names = ("account_id", "service", "event_name", "caller", "role_arn", "category")
    lines = summary_select(f"({events_select('raw_cases', 'true')}) AS mapped", "true")
    for column in ("source_ip", "object_key"):
        # `test_athena_sql` compares the sketches, which DuckDB cannot compute from this SQL.
        lines = lines.replace(sketch(column), "CAST(NULL AS bigint)")
    found = run(logged, f"SELECT {', '.join(names)}, sum(events) FROM ({lines}) AS lines GROUP BY 1, 2, 3, 4, 5, 6")
    expected: Counter[tuple[str | None, ...]] = Counter()
    for each in records:
        row = record.row(each, "")
        expected[tuple({**row, "category": row["event_category"]}[name] for name in names)] += 1
    assert {tuple(row[:-1]): int(str(row[-1])) for row in found} == expected
