"""Small inputs after public bug reports and real files: the shapes are theirs, the values are synthetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

import trailsift
from trailsift.decode.other_files import other_file
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.ingest import Counts, ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

CASES = Path(__file__).parents[1] / "cases" / "public"


def unpacked(case: str, folder: Path) -> Path:
    """Put the files of a case into a folder; the repository has the texts of gzip files, named `*.gz.txt`."""
    for path in sorted(path for path in (CASES / case).rglob("*") if path.is_file()):
        target = folder / path.relative_to(CASES / case)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        if path.name.endswith(".gz.txt"):
            # `cat *.gz` of log objects has a gzip member for each.
            data = b"".join(map(gzip.compress, data.splitlines(keepends=True) if "cat-gz" in case else [data]))
            target = target.with_name(target.name.removesuffix(".txt"))
        if "appended" in case:
            data += b"what an interrupted copy left"
        if "TWICE" in path.name:
            data = gzip.compress(data)
        target.write_bytes(data)
    return folder


def loaded(tmp_path: Path, case: str) -> tuple[Counts, trailsift.Lake]:
    lake = tmp_path / "lake"
    return ingest([str(unpacked(case, tmp_path / "logs"))], lake), trailsift.Lake(lake)


def rows(lake: trailsift.Lake, sql: str) -> list[tuple[Any, ...]]:
    return lake.query(sql, cache=False).rows()


def test_reads_through_access_points_belong_to_the_bucket(tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, "03-s3-flavours")
    sql = "SELECT resource_arns FROM events WHERE event_name = 'GetObject' AND object_key = 'q1/plan.xlsx'"
    reads = rows(lake, f"{sql} AND resource_arn = 'arn:aws:s3:::orders'")
    assert len(reads) == 4
    points = [arn for (arns,) in reads for arn in arns if ":accesspoint/" in arn]
    assert len(points) == 3
    # Object Lambda names no bucket: its own function then reads the object through the access point.
    (other,) = rows(lake, f"{sql} AND resource_arn <> 'arn:aws:s3:::orders'")
    assert other[0][0].endswith("accesspoint/ol-redact")


def test_sessions_without_an_issuer_belong_to_their_role(tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, "02-identities")
    found = rows(lake, "SELECT role_arn, session_name FROM events WHERE role_arn LIKE '%/legacy-app' ORDER BY 2")
    assert [role for role, _ in found] == ["arn:aws:iam::111122223333:role/legacy-app"] * len(found)
    assert len({session for _, session in found}) == 2


@pytest.mark.parametrize(("case", "anonymous"), [("02-identities", 1), ("21-placeholders", 0), ("23-more-s3", 1)])
def test_no_account_is_called_anonymous(case: str, anonymous: int, tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, case)
    sql = "SELECT count(*) FROM events WHERE principal_account = 'ANONYMOUS_PRINCIPAL'"
    assert rows(lake, sql) == [(anonymous,)]
    for table in ("events", "hourly", "usage", "profile", "access", "sessions"):
        assert rows(lake, f"SELECT count(*) FROM {table} WHERE account_id = 'ANONYMOUS_PRINCIPAL'") == [(0,)]


def test_files_of_a_table(tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, "06-s3tables")
    found = rows(lake, "SELECT resource_type, resource_arn, object_key FROM events WHERE object_key LIKE '%.json'")
    table = "bucket/lakebucket/table/11111111-2222-3333-4444-555555555555"
    assert found == [("AWS::S3Tables::Table", f"arn:aws:s3tables:us-east-1:111122223333:{table}", "product-info.json")]


def test_batches_and_deletes(tmp_path: Path) -> None:
    """Since June 2025 a DeleteObjects call has a DeleteObject event beside it for each object."""
    _, lake = loaded(tmp_path, "05-deleteobjects")
    counts = dict(rows(lake, "SELECT event_name, sum(events) FROM hourly WHERE error_code IS NULL GROUP BY 1"))
    assert (counts["DeleteObjects"], counts["DeleteObject"]) == (1, 30)


def test_refusals_by_the_policy_of_an_endpoint(tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, "16-detect/vpce-denied-burst")
    assert sum(role.denied for role in lake.roles()) == 60
    assert rows(lake, "SELECT sum(denied) FROM profile WHERE dimension = 'source_network'") == [(60,)]
    assert rows(lake, "SELECT sum(events) FROM hourly WHERE is_denied(error_code)") == [(60,)]
    assert "Burst of denied calls within an hour" in found(lake)


def found(lake: trailsift.Lake) -> list[str]:
    with DuckDBEngine(open_snapshot(lake.path)) as engine:
        findings = detect(engine, DetectOptions(budget=0), builtin_rules()[0]).findings
        return [signal.value for finding in findings for signal in finding.signals]


#: Case -> what it is, None for what is harmless.
FOUND = {
    "pol-star-string": "Bucket or object made public",
    "pol-star-aws": "Bucket or object made public",
    "pol-star-aws-list": "Bucket or object made public",
    "pol-statement-object": "Bucket or object made public",
    "pol-string": "Bucket or object made public",
    "mfa-delete-off": "Recovery safeguards disabled",
    "note-true": "Object named like a ransom note written",
    "note-friends": None,
}


@pytest.mark.parametrize("case", FOUND)
def test_detection(case: str, tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, f"16-detect/{case}")
    title = FOUND[case]
    assert [title in text for text in found(lake)] == [True] if title else found(lake) == []


#: Form -> records stored, records that could not be read.
FORMS = {
    "a-lookup-text": (3, 0),
    "b-lookup-json-strings": (3, 0),
    "c-elastic-event-original": (2, 0),
    "d-fluentbit-log": (2, 0),
    "e-cat-gz": (5, 0),
    "e2-cat-plain": (3, 0),
    "f-appended": (2, 1),
    "g2-null-element": (1, 2),
    "h-bom-inside": (2, 0),
    "i-jq-slurp": (3, 0),
    "m-firehose": (3, 0),
    "n-firehose-errors": (1, 0),
    "o-cwl-cli": (1, 0),
    "r-splunk-csv": (1, 0),
    "w-steampipe-csv": (1, 0),
}


@pytest.mark.parametrize("form", FORMS)
def test_form(form: str, tmp_path: Path) -> None:
    counts, lake = loaded(tmp_path, f"08-forms/{form}")
    assert (counts.stored, counts.malformed) == FORMS[form]
    found = rows(lake, "SELECT DISTINCT event_name, role_arn, resource_arn FROM events")
    assert found == [("GetObject", "arn:aws:iam::111122223333:role/app-reader", "arn:aws:s3:::app-data")]


@pytest.mark.parametrize(("case", "key"), [("08-forms/s-string-params", "s1"), ("24-misc/c", "py2")])
def test_texts_where_objects_belong(case: str, key: str, tmp_path: Path) -> None:
    """JSON, or what Python 2 prints; the record has the objects again."""
    _, lake = loaded(tmp_path, case)
    found = rows(lake, "SELECT role_arn, resource_arn, object_key, bytes_out, read_only FROM events")
    size = 77 if key == "s1" else 123
    assert found == [("arn:aws:iam::111122223333:role/app-reader", "arn:aws:s3:::app-data", key, size, True)]
    (restored,) = lake.records()
    assert restored["requestParameters"]["key"] == key and restored["userIdentity"]["type"] == "AssumedRole"


@pytest.mark.parametrize("text", ["{not json", "{" * 300 + "}" * 300, '{"a":' * 300 + "1" + "}" * 300, "plain", ""])
def test_texts_that_print_no_object_stay(text: str, tmp_path: Path) -> None:
    record = json.loads(record_file())["Records"][0] | {"requestParameters": text, "userIdentity": {"type": "Root"}}
    (tmp_path / "log.json").write_text(json.dumps({"Records": [record]}))
    ingest([str(tmp_path / "log.json")], tmp_path / "lake")
    (restored,) = trailsift.Lake(tmp_path / "lake").records()
    assert restored == record


def test_rows_that_athena_wrote(tmp_path: Path) -> None:
    counts, lake = loaded(tmp_path, "09-athena-unload")
    assert counts.stored == 3
    sql = "SELECT role_arn, resource_arn, object_key, bytes_out, read_only FROM events ORDER BY object_key LIMIT 1"
    assert rows(lake, sql) == [("arn:aws:iam::111122223333:role/app-reader", "arn:aws:s3:::app-data", "u0", 123, True)]
    assert rows(lake, "SELECT rest LIKE '%invokedby%' FROM events LIMIT 1") == [(False,)]


def test_event_history_of_the_console(tmp_path: Path) -> None:
    _, lake = loaded(tmp_path, "08-forms/l-console-csv")
    assert rows(lake, "SELECT rest->'userIdentity'->>'userName' FROM events") == [("alice",)]


def test_event_history_of_the_old_console(tmp_path: Path) -> None:
    path = tmp_path / "event_history.csv"
    path.write_text(
        "Event ID,Event time,User name,Event name,AWS access key,AWS region,Event source\n"
        'e-1,"2019-05-31, 12:24:11 AM",bob,GetObject,AKIAEXAMPLE,us-east-1,s3.amazonaws.com\n'
        'e-2,"2019-05-31, 02:24:11 PM",bob,GetObject,AKIAEXAMPLE,us-east-1,s3.amazonaws.com\n'
    )
    ingest([str(path)], tmp_path / "lake")
    sql = "SELECT event_time::VARCHAR, access_key_id, rest->'userIdentity'->>'userName' FROM events ORDER BY 1"
    assert rows(trailsift.Lake(tmp_path / "lake"), sql) == [
        ("2019-05-31 00:24:11+00", "AKIAEXAMPLE", "bob"),
        ("2019-05-31 14:24:11+00", "AKIAEXAMPLE", "bob"),
    ]


# -- other files of the bucket ----------------------------------------------------------------------------------------


def test_neighbours_are_counted_and_left_alone(tmp_path: Path) -> None:
    counts, lake = loaded(tmp_path, "08-forms/k-neighbours")
    assert (counts.stored, counts.malformed, counts.log_objects, counts.log_objects_skipped) == (1, 0, 1, 6)
    assert counts.other_files == {
        "Config snapshot": 1,
        "GuardDuty finding": 1,
        "VPC flow log": 1,
        "WAF log": 1,
        "load balancer log": 1,
        "test file": 1,
    }
    assert counts.complete and rows(lake, "SELECT count(*) FROM rejects") == [(0,)]
    again = ingest([str(tmp_path / "logs")], lake.path)
    assert (again.log_objects_known, again.other_files, again.complete) == (7, {}, True), "nothing is opened again"


def test_a_digest_is_known_without_its_name(tmp_path: Path) -> None:
    path = tmp_path / "x.json.gz"
    digest = {
        "awsAccountId": "111122223333",
        "digestStartTime": "2026-01-15T09:00:00Z",
        "digestS3Object": "d",
        "logFiles": [],
    }
    path.write_bytes(gzip.compress(json.dumps(digest).encode()))
    (tmp_path / "log.json").write_bytes(record_file())
    counts = ingest([str(tmp_path)], tmp_path / "lake")
    assert counts.other_files == {"CloudTrail digest": 1} and counts.complete


def record_file() -> bytes:
    record = {
        "eventVersion": "1.11", "eventTime": "2026-01-15T10:00:00Z", "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject", "awsRegion": "us-east-1", "eventID": "e-1", "userIdentity": {"type": "Root"},
    }  # fmt: skip
    return json.dumps({"Records": [record]}).encode()


@pytest.mark.parametrize(
    "name",
    [
        "AWSLogs/1/vpcflowlogs/us-east-1/x_vpcflowlogs_y.log",
        "AWSLogs/1/elasticloadbalancing/us-east-1/x.log",
        "AWSLogs/1/CloudTrail-Digest/us-east-1/x_CloudTrail-Digest_y.json",
        "AWSLogs/1/Config/us-east-1/x_Config_y.json",
        "AWSLogs/1/GuardDuty/x.jsonl",
        "AWSLogs/aws-test.txt",
    ],
)
def test_a_name_alone_hides_no_records(name: str, tmp_path: Path) -> None:
    path = tmp_path / "logs" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(record_file())
    counts = ingest([str(tmp_path / "logs")], tmp_path / "lake")
    assert (counts.stored, counts.other_files) == (1, {})


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a/vpcflowlogs/x.log", "version account-id interface-id\n2 1 eni\n", "VPC flow log"),
        ("a/vpcflowlogs/x.log", "action az-id bytes vpc-id\nACCEPT use1 1 vpc-1\n", "VPC flow log"),
        ("a/vpcflowlogs/x.log.parquet", "PAR1\x00\x01", "VPC flow log"),
        ("a/x.log", "version account-id interface-id\n2 1 eni\n", None),
        ("a/vpcflowlogs/x.log", 'version account-id\n{"eventVersion":"1.11"}\n', None),
        ("a/elasticloadbalancing/x.log", "2015-05-13T23:39:43.945958Z my-lb 192.0.2.1:1 -", "load balancer log"),
        ("a/elasticloadbalancing/x.log", "tls 2.0 2018-12-20T02:59:40 net/x/1 arn", "load balancer log"),
        ("a/elasticloadbalancing/x.log", "GET / HTTP/1.1", None),
        ("a/WAFLogs/x.gz", '{"timestamp":1,"formatVersion":1,"webaclId":"a"}', "WAF log"),
        ("aws-waf-logs-x/y", '{"timestamp":1,"action":"ALLOW"}', None),
        ("a/Config/x_ConfigWritabilityCheckFile", "x", None),
        ("a/Config/ConfigWritabilityCheckFile", "", "test file"),
    ],
)
def test_names_and_first_bytes(name: str, text: str, kind: str | None) -> None:
    assert other_file(name, text.encode()) == kind


def test_a_long_file_of_another_kind_is_left_alone_piece_by_piece(tmp_path: Path) -> None:
    """It is read in pieces, of which only the first has the header."""
    path = tmp_path / "logs" / "vpcflowlogs" / "x.log"
    path.parent.mkdir(parents=True)
    with path.open("w") as file:
        file.write("version account-id interface-id srcaddr\n")
        file.writelines(f"2 111122223333 eni-{number:08} 10.0.0.1\n" for number in range(1_500_000))
    (tmp_path / "logs" / "log.json").write_bytes(record_file())
    counts = ingest([str(tmp_path / "logs")], tmp_path / "lake")
    assert (counts.stored, counts.malformed, counts.other_files) == (1, 0, {"VPC flow log": 1})
