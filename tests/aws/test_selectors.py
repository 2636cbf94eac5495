"""Event selectors: how they are built, which events they log, and how they are put on a trail."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import os
import pty
import re
import subprocess
import sys
import threading
import tomllib
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trailsift.aws import selectors
from trailsift.aws.selectors import RolesRefused
from trailsift.aws.trail import TrailSelectors
from trailsift.cli import main
from trailsift.errors import TrailsiftError, UsageError

ETL = "arn:aws:iam::400011112201:role/jobs/etl"
ETL_2 = "arn:aws:iam::400011112201:role/etl-2"


def event(**changes: str) -> dict[str, str]:
    return {
        "eventCategory": "Data",
        "resources.type": "AWS::S3::Object",
        "resources.ARN": "arn:aws:s3:::data/in/a.gz",
        "readOnly": "true",
        "eventName": "GetObject",
        "eventSource": "s3.amazonaws.com",
        "userIdentity.arn": "arn:aws:sts::400011112201:assumed-role/etl/run-1",
        **changes,
    }


def test_a_role_is_matched_by_its_sessions_and_not_by_a_longer_name() -> None:
    chosen = selectors.build_selectors(selectors.parse_request([ETL], ["s3"]))
    assert selectors.is_logged(event(), chosen)
    assert not selectors.is_logged(
        event(**{"userIdentity.arn": "arn:aws:sts::400011112201:assumed-role/etl-2/run-1"}), chosen
    )
    assert not selectors.is_logged(event(**{"resources.type": "AWS::Lambda::Function"}), chosen)
    assert not selectors.is_logged(event(eventCategory="Management"), chosen)


def test_one_selector_for_each_type_and_role_names_in_several_accounts() -> None:
    want = selectors.parse_request(
        ["etl", "web"], ["s3", "dynamodb", "AWS::SNS::Topic"], ["400011112201", "400011112202"]
    )
    chosen = selectors.build_selectors(want)
    assert [selector["Name"] for selector in chosen] == [
        "trailsift: AWS::S3::Object",
        "trailsift: AWS::DynamoDB::Table",
        "trailsift: AWS::SNS::Topic",
    ]
    (field,) = [field for field in chosen[0]["FieldSelectors"] if field["Field"] == "userIdentity.arn"]
    assert len(field["StartsWith"]) == 4 and all(value.endswith("/") for value in field["StartsWith"])
    assert selectors.count_values(chosen) == 3 * (1 + 1 + 4)


def test_writes_and_buckets_narrow() -> None:
    want = selectors.parse_request([ETL], ["s3", "lambda"], writes_only=True, buckets=["data", "s3://logs/2026/"])
    chosen = selectors.build_selectors(want)
    write = event(readOnly="false")
    assert selectors.is_logged(write, chosen) and not selectors.is_logged(event(), chosen)
    assert not selectors.is_logged(event(readOnly="false", **{"resources.ARN": "arn:aws:s3:::data-2/x"}), chosen)
    assert selectors.is_logged(event(readOnly="false", **{"resources.ARN": "arn:aws:s3:::logs/2026/x"}), chosen)
    invoke = {"resources.type": "AWS::Lambda::Function", "resources.ARN": "arn:aws:lambda:::function:f"}
    assert selectors.is_logged(event(readOnly="false", **invoke), chosen)


def test_users_are_matched_exactly() -> None:
    user = "arn:aws:iam::400011112201:user/ops/anna"
    chosen = selectors.build_selectors(selectors.parse_request([user, ETL], ["s3"]))
    assert selectors.is_logged(event(**{"userIdentity.arn": user}), chosen) and selectors.is_logged(event(), chosen)
    assert not selectors.is_logged(event(**{"userIdentity.arn": user + "-2"}), chosen)


WRONG = {
    "a name without an account": (["etl"], ["s3"], [], "needs an account"),
    "not a role": (["arn:aws:s3:::x"], ["s3"], [], "neither the ARN"),
    "not an account": (["etl"], ["s3"], ["12"], "12 digits"),
    "a service without data events": ([ETL], ["dynamo"], [], "did you mean dynamodb"),
    "an unknown service": ([ETL], ["zzzz"], [], "not a service with data events"),
}


@pytest.mark.parametrize("name", WRONG)
def test_invalid_arguments(name: str) -> None:
    roles, services, accounts, message = WRONG[name]
    with pytest.raises(UsageError, match=message):
        selectors.parse_request(roles, services, accounts)


@pytest.mark.parametrize(
    ("bucket", "begins"),
    [
        ("app-data", "arn:aws:s3:::app-data/"),
        ("s3://app-data/logs/", "arn:aws:s3:::app-data/logs/"),
        ("arn:aws:s3:::app-data", "arn:aws:s3:::app-data/"),
        ("arn:aws:s3:::app-data/*", "arn:aws:s3:::app-data/"),
        ("app-data/logs/*", "arn:aws:s3:::app-data/logs/"),
        ("arn:aws-us-gov:s3:::app-data/x", "arn:aws-us-gov:s3:::app-data/x"),
    ],
)
def test_a_bucket_is_the_beginning_of_its_objects(bucket: str, begins: str) -> None:
    assert selectors.parse_request([], ["s3"], buckets=[bucket]).buckets == (begins,)


@pytest.mark.parametrize(
    ("bucket", "problem"),
    [
        ("arn:aws:s3:us-east-1:111122223333:accesspoint/ap", "access point"),
        ("data--use1-az4--x-s3", "directory bucket"),
        ("arn:aws:s3express:us-east-1:111122223333:bucket/data--use1-az4--x-s3", "not the ARN of a bucket"),
        ("app-data/*/logs", "no wildcards"),
        ("app-*", "not a valid bucket name"),
    ],
)
def test_what_no_selector_would_match(bucket: str, problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        selectors.parse_request([], ["s3"], buckets=[bucket])


def of_objects(**arns: list[str]) -> list[dict[str, Any]]:
    fields: list[dict[str, Any]] = [
        {"Field": "eventCategory", "Equals": ["Data"]},
        {"Field": "resources.type", "Equals": ["AWS::S3::Object"]},
        {"Field": "resources.ARN", **arns},
    ]
    return [{"FieldSelectors": fields}]


@pytest.mark.parametrize(
    ("arns", "bucket", "state"),
    [
        ({"StartsWith": ["arn:aws:s3:::app-data/"]}, "other-bucket", "missed"),
        ({"StartsWith": ["arn:aws:s3:::app-data/"]}, "app-data", "logged"),
        ({"StartsWith": ["arn:aws:s3:::app-data/logs/"]}, "app-data", "partly"),
        ({"StartsWith": ["arn:aws:s3:::app-data/"]}, "app-data/logs", "logged"),
        ({"Equals": ["arn:aws:s3:::app-data/one.txt"]}, "app-data", "partly"),
        ({"EndsWith": [".csv"]}, "app-data", "partly"),
        ({"NotStartsWith": ["arn:aws:s3:::app-data/"]}, "app-data", "missed"),
        ({"NotStartsWith": ["arn:aws:s3:::app-data/"]}, "other-bucket", "logged"),
    ],
)
def test_a_trail_of_some_buckets(arns: dict[str, list[str]], bucket: str, state: str) -> None:
    (found,) = selectors.coverage(of_objects(**arns), selectors.parse_request([], ["s3"], buckets=[bucket]))
    assert (found.reads, found.writes) == (state, state)


def test_a_basic_selector_of_all_functions_and_one() -> None:
    values = ["arn:aws:lambda", "arn:aws:lambda:us-east-1:111122223333:function:f"]
    basic = {"ReadWriteType": "All", "DataResources": [{"Type": "AWS::Lambda::Function", "Values": values}]}
    (found,) = selectors.coverage(
        selectors.advanced_selectors({"EventSelectors": [basic]}), selectors.parse_request([], ["lambda"])
    )
    assert (found.reads, found.writes) == ("logged", "logged")


def test_a_bucket_without_s3() -> None:
    with pytest.raises(UsageError, match="s3 is not among"):
        selectors.parse_request([ETL], ["lambda"], buckets=["data"])


def test_the_limit_on_values() -> None:
    roles = [f"arn:aws:iam::400011112201:role/r{at}" for at in range(249)]
    selectors.check_limit(selectors.build_selectors(selectors.parse_request(roles[:248], ["s3", "lambda"])))
    with pytest.raises(UsageError, match=r"502 values.*takes 500"):
        selectors.check_limit(selectors.build_selectors(selectors.parse_request(roles, ["s3", "lambda"])))


BASIC = {
    "EventSelectors": [
        {
            "ReadWriteType": "WriteOnly",
            "IncludeManagementEvents": True,
            "ExcludeManagementEventSources": ["kms.amazonaws.com"],
            "DataResources": [
                {"Type": "AWS::S3::Object", "Values": ["arn:aws:s3:::data/in/"]},
                {"Type": "AWS::Lambda::Function", "Values": ["arn:aws:lambda"]},
            ],
        }
    ]
}


def test_basic_selectors_mean_the_same_as_advanced_ones() -> None:
    had = selectors.advanced_selectors(BASIC)
    assert selectors.is_logged(event(readOnly="false"), had) and not selectors.is_logged(event(), had)
    assert not selectors.is_logged(event(readOnly="false", **{"resources.ARN": "arn:aws:s3:::data/out/x"}), had)
    management = {"eventCategory": "Management", "readOnly": "false", "eventSource": "ec2.amazonaws.com"}
    assert selectors.is_logged(management, had)
    assert not selectors.is_logged({**management, "eventSource": "kms.amazonaws.com"}, had)


def test_coverage_of_a_request() -> None:
    want = selectors.parse_request([ETL, ETL_2], ["s3", "lambda", "dynamodb"])
    state = {
        (row.arn, row.type): (row.reads, row.writes)
        for row in selectors.coverage(selectors.advanced_selectors(BASIC), want)
    }
    assert state[ETL, "AWS::S3::Object"] == ("missed", "partly")
    assert state[ETL, "AWS::Lambda::Function"] == ("missed", "logged")
    assert state[ETL_2, "AWS::DynamoDB::Table"] == ("missed", "missed")
    merged = selectors.merge_selectors(None, selectors.build_selectors(selectors.parse_request([ETL], ["s3"])))
    first, second = selectors.coverage(merged, selectors.parse_request([ETL, ETL_2], ["s3"]))
    assert (first.reads, first.writes, second.reads) == ("logged", "logged", "missed")
    at_place = selectors.coverage(
        selectors.advanced_selectors(BASIC),
        selectors.parse_request([ETL], ["s3"], writes_only=True, buckets=["data/in/x"]),
    )
    assert (at_place[0].reads, at_place[0].writes) == ("not wanted", "logged")


def test_foreign_selectors_stay_and_ours_are_replaced() -> None:
    had = [*selectors.advanced_selectors(BASIC), *selectors.build_selectors(selectors.parse_request([ETL_2], ["sns"]))]
    then = selectors.merge_selectors(had, selectors.build_selectors(selectors.parse_request([ETL], ["s3"])))
    assert [selector["Name"] for selector in then] == [
        "Management events",
        "AWS::S3::Object events",
        "AWS::Lambda::Function events",
        "trailsift: AWS::S3::Object",
    ]
    assert selectors.merge_selectors(None, [])[0] == selectors.MANAGEMENT


# -- the trail -------------------------------------------------------------------------------------------------------


class Api:
    """CloudTrail's two calls on a stored set; botocore's own rules validate the requests."""

    def __init__(self, answer: dict[str, Any], refuse: str = "") -> None:
        self.answer = answer
        self.refuse = refuse

    def get_event_selectors(self, *, TrailName: str) -> dict[str, Any]:
        return self.answer

    def put_event_selectors(self, **request: Any) -> dict[str, Any]:
        session = pytest.importorskip("botocore.session")
        from botocore.exceptions import ClientError
        from botocore.validate import ParamValidator

        shape = session.get_session().get_service_model("cloudtrail").operation_model("PutEventSelectors").input_shape
        assert not ParamValidator().validate(request, shape).has_errors()
        if self.refuse:
            code, _, message = self.refuse.partition(": ")
            raise ClientError({"Error": {"Code": code, "Message": message}}, "PutEventSelectors")
        self.answer = request
        return request


def test_a_trail_accepts_the_selectors() -> None:
    api = Api(BASIC)
    trail = TrailSelectors("main", api)
    then = selectors.merge_selectors(trail.get(), selectors.build_selectors(selectors.parse_request([ETL], ["s3"])))
    trail.put(then)
    assert trail.get() == then


REFUSALS = {
    "InvalidEventSelectorsException: userIdentity.arn is not a valid field": RolesRefused,
    "InvalidEventSelectorsException: too many values": TrailsiftError,
    "AccessDeniedException: User: x is not authorized to perform: cloudtrail:PutEventSelectors": TrailsiftError,
}


@pytest.mark.parametrize("refusal", REFUSALS)
def test_a_refusal_is_explained(refusal: str) -> None:
    pytest.importorskip("botocore")
    with pytest.raises(TrailsiftError) as caught:
        TrailSelectors("main", Api({}, refusal)).put(selectors.build_selectors(selectors.parse_request([ETL], ["s3"])))
    assert type(caught.value) is REFUSALS[refusal] and "trail main" in str(caught.value)
    assert "PutEventSelectors" in str(caught.value) or "--without-roles" in str(caught.value)


# -- the command -----------------------------------------------------------------------------------------------------


def test_the_command(small_lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    had = tmp_path / "had.json"
    had.write_text(json.dumps(BASIC))
    role = "arn:aws:iam::400011112201:role/orders-etl-batch"
    words = ["selectors", "--role", role, "--service", "s3,dynamodb", "--existing", str(had), "--lake", str(small_lake)]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert [selector["Name"] for selector in json.loads(out)][-1] == "trailsift: AWS::DynamoDB::Table"
    assert f"{role} AWS::S3::Object: reads missed, writes partly" in err and "$" in err
    assert main([*words, "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost_a_month"]
    assert 0 < cost["events"] < cost["all_events"] and cost["usd"] == pytest.approx(cost["events"] / 1e6)


def test_a_trail_that_cannot_select_by_role(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from trailsift.rules import RowRules, load

    rules = tmp_path / "only-roles.toml"
    assert main(["selectors", "--role", ETL, "--without-roles", "--rules-output", str(rules)]) == 0
    assert "userIdentity" not in capsys.readouterr().out
    tomllib.loads(rules.read_text())
    decide = RowRules(load(rules)).decide
    row = {"error_code": None, "object_key": None, "event_category": "Data", "event_time": 0, "event_id": "x"}
    assert decide({**row, "role_arn": ETL}).action == "keep"
    assert decide({**row, "role_arn": ETL_2}).action == "drop"


# -- a trail in an emulator -----------------------------------------------------------------------------------------


@pytest.fixture
def trail(on_moto: str) -> Iterator[Any]:
    """A boto3 client of an account in moto whose trail ``main`` has basic selectors."""
    import boto3

    boto3.client("s3").create_bucket(Bucket="trail-logs")
    client = boto3.client("cloudtrail")
    client.create_trail(Name="main", S3BucketName="trail-logs")
    client.put_event_selectors(TrailName="main", **BASIC)
    yield client
    client.delete_trail(Name="main")


def asked(words: list[str], answers: str, folder: Path) -> tuple[int, str]:
    """Run the command on a pseudo-terminal with these answers; return its exit code and everything it printed."""
    ours, theirs = pty.openpty()
    code = f"import sys; from trailsift.cli import main; sys.exit(main({words!r}))"
    process = subprocess.Popen([sys.executable, "-c", code], cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, answers.encode())
    seen = b""
    with contextlib.suppress(OSError):
        while part := os.read(ours, 10_000):
            seen += part
    os.close(ours)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", seen.decode())
    return process.wait(timeout=60), plain.replace("\r\n", "\n")


def test_a_trail_is_changed_after_a_yes(trail: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Show, ask, put, read back; anything but "yes" changes nothing, and a second run finds nothing to change."""
    words = ["selectors", "--role", ETL, "--service", "s3,dynamodb", "--apply", "main"]
    had = TrailSelectors("main").get()
    assert main(words) == 2, "there is no terminal to ask on"
    assert "was not changed" in capsys.readouterr().err and TrailSelectors("main").get() == had
    code, seen = asked(words, "n\n", tmp_path)
    assert code == 0 and "nothing was changed" in seen and TrailSelectors("main").get() == had
    code, seen = asked(words, "y\n", tmp_path)
    assert code == 0 and "read back and compared" in seen, seen
    assert re.search(r'^\+ +"arn:aws:sts::400011112201:assumed-role/etl/"$', seen, re.MULTILINE), seen
    now = trail.get_event_selectors(TrailName="main")["AdvancedEventSelectors"]
    assert selectors.advanced_selectors({"AdvancedEventSelectors": now}) == selectors.merge_selectors(
        had, selectors.build_selectors(_want("s3", "dynamodb"))
    )
    assert main(words) == 0
    assert "already" in capsys.readouterr().err


def _want(*services: str) -> selectors.SelectorRequest:
    return selectors.parse_request([ETL], services)


def test_a_trail_that_refuses_roles_gets_the_next_best_set(
    trail: Any, on_moto: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A server in front of moto refuses roles as AWS does: the next best set is offered, with a rules file."""
    with _refusing(on_moto) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        words = ["selectors", "--role", ETL, "--apply", "main"]
        code, seen = asked(words, "y\nn\n", tmp_path)
        assert code == 0 and "does not take selectors on userIdentity.arn" in seen and "nothing was changed" in seen
        assert TrailSelectors("main").get() == selectors.advanced_selectors(BASIC)
        code, seen = asked(words, "y\ny\n", tmp_path)
        assert code == 0 and "next best" in seen and "read back and compared" in seen, seen
        assert TrailSelectors("main").get() == selectors.merge_selectors(
            selectors.advanced_selectors(BASIC), selectors.build_selectors(_want("s3"), by_role=False)
        )
        assert (tmp_path / "only-roles.toml").read_text() == selectors.role_rules(_want("s3"))
        monkeypatch.chdir(tmp_path)
        assert main([*words, "--yes"]) == 2, "all callers' events cost more than the user agreed to"
        assert "--without-roles puts the next best" in capsys.readouterr().err
        other = [*words, "--rules-output", "other.toml", "--without-roles", "--yes", "--service", "s3,sns"]
        assert main(other) == 0 and (tmp_path / "other.toml").exists()


@contextlib.contextmanager
def _refusing(behind: str) -> Iterator[str]:
    """Run a server that refuses selectors on userIdentity.arn as CloudTrail does, and forwards everything else."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if b"PutEventSelectors" in self.headers["X-Amz-Target"].encode() and b"userIdentity.arn" in body:
                refusal = {
                    "__type": "InvalidEventSelectorsException",
                    "message": "userIdentity.arn is not a valid field",
                }
                status, data = 400, json.dumps(refusal).encode()
            else:
                request = urllib.request.Request(behind, body, dict(self.headers))
                with urllib.request.urlopen(request, timeout=30) as answer:
                    status, data = answer.status, answer.read()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *words: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_no_such_trail_here(on_moto: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selectors", "--role", ETL, "--apply", "none-such"]) == 1
    err = capsys.readouterr().err
    assert "none-such" in err and "us-east-1" in err and "AWS_REGION" in err


def test_a_trail_without_data_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    had = tmp_path / "had.json"
    had.write_text(json.dumps([selectors.MANAGEMENT]))
    assert main(["selectors", "--role", ETL, "--existing", str(had)]) == 0
    assert "no data events" in capsys.readouterr().err


def test_a_lake_without_data_events(small_logs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without data events, the summary explains how to switch them on, and for whom."""
    records = [record for path in sorted(small_logs.rglob("*.json.gz"))[:40] for record in _records(path)]
    logs = tmp_path / "logs.json"
    logs.write_text(json.dumps({"Records": [record for record in records if record["eventCategory"] == "Management"]}))
    assert main(["ingest", str(logs), "--lake", str(tmp_path / "lake"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["summary", "--lake", str(tmp_path / "lake")]) == 0
    err = capsys.readouterr().err
    assert "no data events" in err and "roles --need-data-events" in err
    logs.write_text(json.dumps({"Records": records}))
    assert main(["ingest", str(logs), "--lake", str(tmp_path / "lake"), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["summary", "--lake", str(tmp_path / "lake")]) == 0
    assert "no data events" not in capsys.readouterr().err


def _records(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(gzip.decompress(path.read_bytes()))["Records"]
    return records


def test_roles_are_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selectors", "--service", "s3"]) == 2
    assert "--without-roles" in capsys.readouterr().err


def test_roles_that_need_data_events(small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["roles", "--need-data-events", "--lake", str(small_lake), "--json"]) == 0
    needs = json.loads(capsys.readouterr().out)["roles"]
    scores = [need["score"] for need in needs]
    assert scores == sorted(scores, reverse=True) and all(need["reasons"] for need in needs)
    assert main(["roles", "--need-data-events", "--lake", str(small_lake)]) == 0
    assert needs[0]["role_arn"].rpartition("/")[2] in capsys.readouterr().out


def test_reasons_to_log_data_events() -> None:
    from trailsift.analysis.trail_coverage import _need

    quiet = _need(ETL, [("ec2", "DescribeInstances", 900, 3), ("s3", "GetObject", 50, 0)])
    assert (quiet.score, quiet.logged, quiet.management_events) == (0, 50, 900)
    calls = [("kms", "Decrypt", 1_200, 0), ("s3", "PutBucketPolicy", 1, 0), ("dynamodb", "DescribeTable", 9, 2)]
    busy = _need(ETL, calls)
    assert busy.score == 3 + 4 + 1 + 1 and busy.services == ["s3", "dynamodb"] and busy.logged == 0
    assert busy.reasons[0] == "uses keys (1,200 calls): reads or writes encrypted data without data events"
    assert busy.reasons[-1] == "was denied 2 times"


#: Options, then ARNs of events that a trail with these selectors logs, and of some that it does not.
#: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html (role sessions have the role's name
#: without its path; SSO and service-linked roles are roles with a path), reference-arns.html (partitions)
CASES: list[tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]] = [
    (
        {"roles": ["arn:aws-us-gov:iam::400011112201:role/etl"], "services": ["s3"], "buckets": ["logs/in"]},
        [
            {
                "userIdentity.arn": "arn:aws-us-gov:sts::400011112201:assumed-role/etl/x",
                "resources.ARN": "arn:aws-us-gov:s3:::logs/in/a",
            }
        ],
        [
            {
                "userIdentity.arn": "arn:aws-us-gov:sts::400011112201:assumed-role/etl/x",
                "resources.ARN": "arn:aws-us-gov:s3:::logs/out/a",
            }
        ],
    ),
    (
        {
            "roles": ["etl"],
            "services": ["s3"],
            "accounts": ["400011112201"],
            "partition": "aws-cn",
            "buckets": ["logs"],
        },
        [
            {
                "userIdentity.arn": "arn:aws-cn:sts::400011112201:assumed-role/etl/x",
                "resources.ARN": "arn:aws-cn:s3:::logs/a",
            }
        ],
        [{"resources.ARN": "arn:aws:s3:::logs/a"}],
    ),
    (
        {"roles": ["etl"], "services": ["s3"], "accounts": ["400011112201"], "buckets": ["arn:aws-cn:s3:::logs/*"]},
        [
            {
                "userIdentity.arn": "arn:aws-cn:sts::400011112201:assumed-role/etl/x",
                "resources.ARN": "arn:aws-cn:s3:::logs/a",
            }
        ],
        [{"resources.ARN": "arn:aws-cn:s3:::logs-2/a"}],
    ),
    (
        {
            "roles": [
                "arn:aws:iam::400011112201:role/aws-reserved/sso.amazonaws.com/eu-west-1/AWSReservedSSO_Admin_01ab",
                "arn:aws:iam::400011112201:role/aws-service-role/lex.amazonaws.com/AWSServiceRoleForLexBots",
                "arn:aws:iam::400011112201:user/people/ann",
            ],
            "services": ["s3"],
        },
        [
            {"userIdentity.arn": "arn:aws:sts::400011112201:assumed-role/AWSReservedSSO_Admin_01ab/ann@x.org"},
            {"userIdentity.arn": "arn:aws:sts::400011112201:assumed-role/AWSServiceRoleForLexBots/s"},
            {"userIdentity.arn": "arn:aws:iam::400011112201:user/people/ann"},
        ],
        [
            {"userIdentity.arn": "arn:aws:iam::400011112201:user/people/anna"},
            # The owner's record of a call from another account has no ARN.
            {"userIdentity.arn": ""},
        ],
    ),
]


@pytest.mark.parametrize(("options", "logged", "missed"), CASES)
def test_cases_from_the_documentation(
    options: dict[str, Any], logged: list[dict[str, str]], missed: list[dict[str, str]]
) -> None:
    chosen = selectors.build_selectors(selectors.parse_request(**options))
    assert [selectors.is_logged(event(**changes), chosen) for changes in logged] == [True] * len(logged)
    assert [selectors.is_logged(event(**changes), chosen) for changes in missed] == [False] * len(missed)


def test_a_trail_logs_one_partition() -> None:
    with pytest.raises(UsageError, match="aws and aws-cn"):
        selectors.parse_request([ETL, "arn:aws-cn:iam::400011112201:role/etl"], ["s3"])
    with pytest.raises(UsageError, match="aws and aws-us-gov"):
        selectors.parse_request([ETL], ["s3"], partition="aws-us-gov")
    with pytest.raises(UsageError, match="not an AWS partition"):
        selectors.parse_request([ETL], ["s3"], partition="gov")


def test_what_cannot_be_seen_in_selectors_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["selectors", "--role", ETL]) == 0
    said = capsys.readouterr().err
    assert "$2.00 per 100,000" in said and "without the caller's ARN" in said
    present = tmp_path / "present.json"
    present.write_text("[]")
    assert main(["selectors", "--role", ETL, "--existing", str(present), "--without-roles",
                 "--rules-output", str(tmp_path / "rules.toml")]) == 0  # fmt: skip
    said = capsys.readouterr().err
    assert "$2.00" not in said and "caller's ARN" not in said


def test_a_type_that_the_lake_does_not_hold_has_no_known_cost(
    small_lake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A trail that does not log a type says nothing about how many events of it there are."""
    words = ["selectors", "--role", ETL, "--lake", str(small_lake)]
    assert main([*words, "--service", "AWS::RDS::DBCluster", "--json"]) == 0
    cost = json.loads(capsys.readouterr().out)["cost_a_month"]
    assert (cost["events"], cost["usd"], cost["unknown"]) == (None, None, ["AWS::RDS::DBCluster"])
    assert main([*words, "--service", "s3,AWS::RDS::DBCluster"]) == 0
    said = capsys.readouterr().err
    assert "the cost of AWS::RDS::DBCluster is not known" in said and "events per month" in said
