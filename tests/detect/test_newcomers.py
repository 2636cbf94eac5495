"""New users that read what others use; partners that are there all along; sessions that exports name only."""

from __future__ import annotations

import re
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from support.reads import BEGIN, found, lake_of, read
from trailsift.cli import main
from trailsift.detect.detection_file import DetectionError, builtin_rules, parse
from trailsift.detect.finding import Finding

Record = dict[str, Any]
HOME, AWAY = "203.0.113.9", "192.88.99.7"


def office(days: int = 4) -> list[Record]:
    """Two users of one office, some reads a day."""
    return [
        read(timedelta(days=day, minutes=n), name, sourceIPAddress=HOME)
        for day in range(days)
        for n in range(6)
        for name in ("anna", "ben")
    ]


def later(name: str, count: int, address: str, day: int = 4, **changes: Any) -> list[Record]:
    return [
        read(timedelta(days=day, minutes=9 * n), name, f"secret/{n}", sourceIPAddress=address, **changes)
        for n in range(count)
    ]


def newcomers(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if any(signal.kind == "newcomer" for signal in finding.signals)]


def test_a_new_user_reads_a_few_objects_from_elsewhere(tmp_path: Path) -> None:
    (finding,) = newcomers(found(lake_of(tmp_path, [*office(), *later("mallory", 5, AWAY)])))
    assert finding.caller is not None and finding.caller.endswith("user/mallory") and finding.severity == "low"
    assert "192.88.99.0/24" in finding.title and "records" in finding.title
    assert any("where nobody came from before" in reason for reason in finding.reasons)
    assert "T1530" in finding.techniques


@pytest.mark.parametrize(
    ("records", "why"),
    [
        (later("carol", 5, HOME), "a colleague sits with the others"),
        (later("carol", 5, "lambda.amazonaws.com"), "a service is not a network"),
        (later("anna", 5, AWAY), "a known user who moves is a first"),
        (later("carol", 5, AWAY, resources=[{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::own"}],
               requestParameters={"bucketName": "own", "key": "x"}), "a bucket that nobody else uses"),
    ],
)  # fmt: skip
def test_who_is_no_newcomer(tmp_path: Path, records: list[Record], why: str) -> None:
    assert newcomers(found(lake_of(tmp_path, [*office(), *records]))) == [], why


def test_on_the_first_day_of_a_lake_everybody_is_new(tmp_path: Path) -> None:
    assert newcomers(found(lake_of(tmp_path, [*office(1), *later("mallory", 5, AWAY, day=0)]))) == []


def partner(day: int, principal: str, minute: int = 0) -> Record:
    identity = {"type": "AWSAccount", "principalId": principal, "accountId": "444455556666"}
    return read(
        timedelta(days=day, minutes=minute), key="shared", userIdentity=identity, sourceIPAddress="198.51.100.7"
    )


def test_principals_of_one_account_are_one_finding(tmp_path: Path) -> None:
    """They read hours apart; one of another account is a finding of its own."""
    other = partner(3, "AIDAOTHER")
    other["userIdentity"] = other["userIdentity"] | {"accountId": "777788889999"}
    records = [*office(), partner(2, "AIDAONE"), partner(2, "AIDATWO", 600), other]
    callers = [set(finding.callers) for finding in found(lake_of(tmp_path, records), "foreign-account")]
    assert {"account:444455556666/AIDAONE", "account:444455556666/AIDATWO"} in callers
    assert {"account:777788889999/AIDAOTHER"} in callers and len(callers) == 2


@pytest.mark.parametrize(("days", "reported"), [([0, 1, 2, 3], 0), ([1, 2, 3], 1), ([0], 1)])
def test_a_partner_that_is_there_all_along_is_ordinary(tmp_path: Path, days: list[int], reported: int) -> None:
    """One that comes later, or only once, is reported."""
    records = [*office(), *(partner(day, "AIDAONE") for day in days)]
    findings = found(lake_of(tmp_path, records), "foreign-account")
    assert len(findings) == reported


HISTORY = (
    "User name,AWS access key,Event time,Event source,Event name,Source IP address,User agent,Event ID,Read-only\n"
)


def test_a_session_that_event_history_names_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The console's CSV has a session's name in place of its user."""
    line = "{},ASIA1,{:%Y-%m-%dT%H:%M:%SZ},s3.amazonaws.com,PutObjectTagging,{},{},{},false\n"
    rows = [("i-0123456789abcdef0", n, HOME, "Boto3/1.37.4") for n in range(9)]
    rows += [("i-0123456789abcdef0", n, AWAY, "aws-cli/2.15.0") for n in (4, 5)]
    text = [
        line.format(who, BEGIN + timedelta(minutes=minute), address, agent, number)
        for number, (who, minute, address, agent) in enumerate(rows)
    ]
    (tmp_path / "event_history.csv").write_text(HISTORY + "".join(text))
    assert main(["ingest", str(tmp_path / "event_history.csv"), "--lake", str(tmp_path / "lake"), "--quiet"]) == 0
    (finding,) = found(tmp_path / "lake", "instance-credentials-elsewhere")
    assert finding.severity == "high" and {signal.kind for signal in finding.signals} == {"detection", "split_session"}
    capsys.readouterr()
    assert main(["finding", "1", "--lake", str(tmp_path / "lake")]) == 0
    assert "Isolate the instance i-0123456789abcdef0" in " ".join(capsys.readouterr().out.split())


def test_all_calls_of_a_detection_are_named(tmp_path: Path) -> None:
    """The stopped trail beside the deleted one, and a share that was taken back beside one that was given."""
    share = {"createVolumePermission": {"add": {"items": [{"userId": "999988887777"}]}}}
    calls = [
        ("cloudtrail", "DeleteTrail", {"name": "one"}, {}),
        ("cloudtrail", "DeleteTrail", {"name": "two"}, {}),
        ("cloudtrail", "StopLogging", {"name": "three"}, {"errorCode": "TrailNotFoundException"}),
        ("ec2", "ModifySnapshotAttribute", {"snapshotId": "snap-1", **share}, {}),
        ("rds", "ModifyDBSnapshotAttribute",
         {"dBSnapshotIdentifier": "copy", "attributeName": "restore", "valuesToRemove": ["999988887777"]}, {}),
    ]  # fmt: skip
    records = [
        read(
            timedelta(minutes=n),
            eventSource=f"{service}.amazonaws.com",
            eventName=name,
            eventCategory="Management",
            managementEvent=True,
            readOnly=False,
            resources=None,
            requestParameters=parameters,
            **more,
        )
        for n, (service, name, parameters, more) in enumerate(calls)
    ]
    (finding,) = found(lake_of(tmp_path, records), "trail-stopped", "snapshot-shared-outside")
    assert {"DeleteTrail", "StopLogging", "ModifySnapshotAttribute", "ModifyDBSnapshotAttribute"} == {
        *finding.event_names
    }
    assert any("3 calls: DeleteTrail, StopLogging, e.g. on one" in reason for reason in finding.reasons), (
        finding.reasons
    )


def test_every_detection_says_in_korean_what_it_may_be() -> None:
    """A sentence of its own, in the polite form; what it names stays as it is."""
    for rule in builtin_rules()[0]:
        assert rule.description_ko and rule.description_ko.rstrip().endswith(("다.", "요.")), rule.id
        assert len(re.findall("[가-힣]", rule.description_ko)) > 5, rule.id


@pytest.mark.parametrize(("old", "new", "message"), [
    ("steady = true", 'steady = "yes"', "steady is true or false"),
    ("description_ko = ", "description_ko = 3 # ", "description_ko is a string"),
])  # fmt: skip
def test_mistakes_in_what_is_optional(old: str, new: str, message: str) -> None:
    text = (resources.files("trailsift.detect") / "detections" / "foreign-account.toml").read_text("utf-8")
    with pytest.raises(DetectionError, match=message):
        parse("foreign-account.toml", text.replace(old, new))
