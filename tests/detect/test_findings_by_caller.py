"""Findings by caller: callers without an ARN have habits, copies are reads, and a call with two records is one."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.records import sample
from trailsift.cloudtrail.callers import identity_of
from trailsift.detect import checkpoint
from trailsift.detect.callers import condition_of, is_nobody, role_of
from trailsift.detect.daily_data import daily_totals
from trailsift.detect.describe import describe
from trailsift.detect.detection_rules import RuleMatch, builtin_rules, group_matches, parse, run_detections
from trailsift.detect.egress import daily_egress
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.finding_ids import KnownFinding, give
from trailsift.detect.pipeline import DetectOptions, detect, drill, over_threshold
from trailsift.detect.signals import collect_signals
from trailsift.detect.triage import Verdict, without_muted
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

Record = dict[str, Any]
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
#: Days of habits before anything happens.
DAYS = 27
#: The same partner in two forms: a user that CloudTrail names by account and id, and a role.
USER = {"type": "AWSAccount", "principalId": "AIDAPARTNER0000001", "accountId": "444455556666"}
ROLE = {
    "type": "AssumedRole",
    "principalId": "AROAPARTNER:run",
    "arn": "arn:aws:sts::444455556666:assumed-role/partner/run",
    "accountId": "444455556666",
    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": "arn:aws:iam::444455556666:role/partner"}},
}
PUBLIC = {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}
PERSON = {
    "type": "IdentityCenterUser",
    "accountId": "111122223333",
    "onBehalfOf": {
        "userId": "94482488-3041-7055-b9a2-1e0000000000",
        "identityStoreArn": "arn:aws:identitystore::111122223333:identitystore/d-1234567890",
    },
}
NOBODY = None


def call(name: str, at: datetime, key: str = "k", bucket: str = "app-data", **changes: Any) -> Record:
    """A call on an object; the event id is set by ``made``."""
    resources = [
        {"type": "AWS::S3::Object", "ARN": f"arn:aws:s3:::{bucket}/{key}"},
        {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": f"arn:aws:s3:::{bucket}"},
    ]
    changes.setdefault("requestParameters", {"bucketName": bucket, "key": key})
    changes.setdefault("resources", resources)
    return sample(eventName=name, eventTime=f"{at:%Y-%m-%dT%H:%M:%SZ}", readOnly=name.startswith("Get"), **changes)


def through_endpoint(record: Record, **changes: Any) -> Record:
    """The second record of a call: without client, parameters and resources, as CloudTrail writes it."""
    kept = ("eventVersion", "userIdentity", "eventTime", "eventSource", "eventName", "awsRegion", "sourceIPAddress")
    return {
        **{name: record[name] for name in (*kept, "requestID", "recipientAccountId")},
        "eventType": "AwsVpceEvent",
        "eventCategory": "NetworkActivity",
        "vpcEndpointId": "vpce-1",
        **changes,
    }


def habits(user: object, days: int = DAYS) -> Iterator[Record]:
    """Three reads an hour in the daytime: two by a role of one's own, one by somebody."""
    for hour in range(days * 24):
        at = BEGIN + timedelta(hours=hour)
        if 7 <= at.hour < 23:
            yield from (call("GetObject", at + timedelta(minutes=i), f"in/{i}.json") for i in range(2))
            yield call("GetObject", at + timedelta(minutes=9), "in/9.json", userIdentity=user)


def made(folder: Path, records: Sequence[Record] | Iterator[Record]) -> Path:
    """Ingest records into the lake of a folder, each as an event of its own."""
    lake = folder / "lake"
    events = [record | {"eventID": f"{lake_seq(lake)}-{number}"} for number, record in enumerate(records)]
    (folder / "log.json").write_text(json.dumps({"Records": events}))
    ingest([str(folder / "log.json")], lake)
    return lake


def lake_seq(lake: Path) -> int:
    return open_snapshot(lake).seq if lake.exists() else 0


def found(lake: Path, **options: Any) -> list[Finding]:
    with DuckDBEngine(open_snapshot(lake)) as engine:
        return detect(engine, DetectOptions(budget=0, **options), builtin_rules()[0]).findings


def deletes(user: object, count: int = 800, **changes: Any) -> list[Record]:
    """Deletes at three in the night after the habits."""
    night = BEGIN + timedelta(days=DAYS, hours=3)
    return [
        call("DeleteObject", night + timedelta(seconds=i), f"in/{i}.json", userIdentity=user, **changes)
        for i in range(count)
    ]


@pytest.mark.parametrize(
    ("user", "caller", "name"),
    [
        (ROLE, "arn:aws:iam::444455556666:role/partner", "partner"),
        (USER, "account:444455556666/AIDAPARTNER0000001", "AIDAPARTNER0000001 of account 444455556666"),
        (PERSON, f"identity-center:d-1234567890/{PERSON['onBehalfOf']['userId']}", "Identity Center user 94482488"),
        (PUBLIC, "anonymous", "anonymous caller"),
    ],
    ids=["role", "foreign user", "Identity Center", "public"],
)
def test_deletes_at_night_are_as_grave_whoever_calls(
    user: dict[str, Any], caller: str, name: str, tmp_path: Path
) -> None:
    lake = made(tmp_path, [*habits(user), *deletes(user)])
    (finding,) = [one for one in found(lake) if "DeleteObject" in one.event_names]
    assert (finding.caller, finding.callers) == (caller, (caller,))
    assert finding.severity == "high" and finding.score > 0.75
    assert finding.title.startswith(name)
    role = caller if user is ROLE else None
    reported = finding.as_dict()
    assert (reported["caller"], reported["callers"]) == (caller, [caller])
    assert (reported["role_arn"], reported["role_arns"]) == (role, [role])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        detail = drill(engine, finding, 0)
    assert f"caller = '{caller}'" in finding.query and len(detail.events) == 800
    assert detail.lines[0][2:6] == ("DeleteObject", "arn:aws:s3:::app-data", None, 800)


def test_nobody_in_particular_has_no_habits(tmp_path: Path) -> None:
    """Records without an identity, and what CloudTrail derives from calls: neither is a caller."""
    insight = {
        "eventVersion": "1.07", "eventTime": "2026-03-29T03:00:00Z", "awsRegion": "us-east-1",
        "eventType": "AwsCloudTrailInsight", "eventCategory": "Insight", "errorCode": "AccessDenied",
        "recipientAccountId": "111122223333",
        "insightDetails": {"state": "Start", "eventSource": "s3.amazonaws.com", "eventName": "GetObject"},
    }  # fmt: skip
    insights = [insight] * 60 + [insight | {"eventTime": "2026-03-31T03:00:00Z", "userIdentity": ROLE}] * 60
    lake = made(tmp_path, [*habits(NOBODY), *deletes(NOBODY), *insights])
    assert found(lake) == []
    with DuckDBEngine(open_snapshot(lake)) as engine:
        assert engine.query("SELECT sum(events) FROM hourly WHERE category = 'Insight'").value() == 120
        assert max(daily_totals(engine)) == round(BEGIN.timestamp()) // 86_400 + DAYS
        assert len(over_threshold(engine, 59)) == 1


@pytest.mark.parametrize(
    ("caller", "role", "condition", "nobody"),
    [
        ("arn:aws:iam::1:role/a", "arn:aws:iam::1:role/a", "caller = 'arn:aws:iam::1:role/a'", False),
        ("account:1/AIDA", None, "caller = 'account:1/AIDA'", False),
        ("federated:accounts.google.com/u", None, "caller = 'federated:accounts.google.com/u'", False),
        ("service:config.amazonaws.com", "config.amazonaws.com", "caller = 'service:config.amazonaws.com'", False),
        ("anonymous", None, "caller = 'anonymous'", False),
        ("none", None, "caller = 'none'", True),
        # In lakes of format version 1:
        ("config.amazonaws.com", "config.amazonaws.com", "role_arn = 'config.amazonaws.com'", False),
        (None, None, "role_arn IS NULL", True),
    ],
)
def test_forms(caller: str | None, role: str | None, condition: str, nobody: bool) -> None:
    assert (role_of(caller), condition_of([caller]), is_nobody(caller)) == (role, condition, nobody)


def test_conditions_of_several_callers() -> None:
    assert (
        condition_of(["anonymous", "arn:aws:iam::1:role/o'b"]) == "caller IN ('anonymous', 'arn:aws:iam::1:role/o''b')"
    )
    assert condition_of(["anonymous", "x.amazonaws.com", None]) == (
        "(caller = 'anonymous' OR role_arn = 'x.amazonaws.com' OR role_arn IS NULL)"
    )


@pytest.mark.parametrize(
    ("user", "english", "korean"),
    [
        (USER, "AIDAPARTNER0000001 of account 444455556666: ", "계정 444455556666의 AIDAPARTNER0000001: "),
        ({"type": "AWSAccount", "accountId": "444455556666"}, "account 444455556666: ", "계정 444455556666: "),
        (
            {"type": "AWSService", "invokedBy": "config.amazonaws.com"},
            "config.amazonaws.com: ",
            "config.amazonaws.com: ",
        ),
        (
            {"type": "WebIdentityUser", "identityProvider": "accounts.google.com", "userName": "kim"},
            "federated user kim: ",
            "페더레이션 사용자 kim: ",
        ),
        ({"type": "IAMUser", "userName": "kim"}, "kim: ", "kim: "),
        ({"type": "IAMUser", "accessKeyId": "AKIAEXAMPLE"}, "access key AKIAEXAMPLE: ", "액세스 키 AKIAEXAMPLE: "),
        (PUBLIC, "anonymous caller: ", "익명 호출자: "),
        (NOBODY, "unknown caller: ", "신원을 알 수 없는 호출자: "),
    ],
)
def test_names(user: object, english: str, korean: str) -> None:
    caller = identity_of(user).caller
    one = Signal("detection", caller, 3.0, 0, 1, "Title", 9, value_ko="제목", rule="root-data")
    finding = Finding("f", caller, 0.5, 0, 1, (one,))
    assert describe(finding).title.startswith(english)
    assert describe(finding, "ko").title.startswith(korean)
    assert describe(finding, clean=lambda text: "clean").title.partition(":")[0] in (
        "clean", "clean of account clean", "account clean", "federated user clean", "access key clean",
        "anonymous caller", "unknown caller",
    )  # fmt: skip


def test_matches_of_the_public_are_told_apart_by_bucket() -> None:
    """A bucket that can be read by everyone since today is news, even if another one always could be."""
    row = lambda caller, bucket: RuleMatch("1", caller, "GetObject", bucket, 0, 0, 1, 0, 1)  # noqa: E731
    rows = [row(caller, bucket) for caller in ("anonymous", "none", "account:1/AIDA") for bucket in "ab"]
    grouped = group_matches(rows)
    assert sorted((one.caller, one.events) for one in grouped) == [
        ("account:1/AIDA", 2), ("anonymous", 1), ("anonymous", 1), ("none", 1), ("none", 1),
    ]  # fmt: skip


# -- copies ------------------------------------------------------------------------------------------------------------


def copies(count: int, at: datetime, source: str, target: str, **changes: Any) -> list[Record]:
    return [
        call(
            "CopyObject",
            at + timedelta(seconds=i),
            f"in/{i}.json",
            target,
            requestParameters={
                "bucketName": target, "key": f"in/{i}.json", "x-amz-copy-source": f"{source}/in/{i}.json",
            },
            **changes,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("target", "hours_before", "count", "found_"),
    [("elsewhere", 0, 120, True), ("elsewhere", 1, 120, True), ("app-data", 0, 120, True),
     ("elsewhere", 0, 90, False), ("elsewhere", 4, 120, False)],
)  # fmt: skip
def test_a_bucket_that_is_copied_away_and_deleted(
    target: str, hours_before: int, count: int, found_: bool, tmp_path: Path
) -> None:
    """The copies name the bucket that they write; what they read is the bucket that is deleted."""
    night = BEGIN + timedelta(days=DAYS, hours=3)
    taken = copies(count, night - timedelta(hours=hours_before), "app-data", target, userIdentity=ROLE)
    lake = made(tmp_path, [*habits(ROLE, 2), *taken, *deletes(ROLE, 120)])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        signals, problems = run_detections(engine, [one for one in builtin_rules()[0] if one.id == "copy-and-delete"])
    assert problems == []
    of_copies = [(one.resource_arn, one.events) for one in signals]
    assert of_copies == ([("arn:aws:s3:::app-data", 240)] if found_ else []), "no copy counts twice"


def test_it_is_a_finding_among_habits(tmp_path: Path) -> None:
    night = BEGIN + timedelta(days=DAYS, hours=3)
    taken = copies(120, night, "app-data", "elsewhere", userIdentity=ROLE)
    findings = found(made(tmp_path, [*habits(ROLE), *taken, *deletes(ROLE, 120)]))
    (signal,) = [signal for one in findings for signal in one.signals if signal.rule == "copy-and-delete"]
    assert (signal.resource_arn, signal.events) == ("arn:aws:s3:::app-data", 240)


def test_what_a_copy_reads_is_a_first(tmp_path: Path) -> None:
    """A role that never touched a bucket copies out of it."""
    taken = copies(60, BEGIN + timedelta(days=DAYS, hours=12), "payroll", "app-data")
    lake = made(tmp_path, [*habits(USER), *taken])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        firsts = {(signal.kind, signal.value): signal.events for signal in collect_signals(engine).signals}
    assert firsts["first_resource", "arn:aws:s3:::payroll"] == 60
    assert firsts["first_action", "s3:CopyObject"] == 60, "a copy is one call"
    assert firsts["first_pattern", "arn:aws:s3:::payroll/in/{n}.json"] == 60


def test_daily_egress_of_copies(tmp_path: Path) -> None:
    """A copy is a call on both buckets, a read of one, and one call of its caller; inside a bucket it is one call."""
    from trailsift.detect.daily_series import BYTES, CALLER, READS, TOUCHES

    noon = BEGIN + timedelta(hours=12)
    size = {"additionalEventData": {"bytesTransferredOut": 1_000_000}}
    lake = made(
        tmp_path,
        [*copies(30, noon, "payroll", "app-data", **size), *copies(20, noon, "app-data", "app-data", **size)],
    )
    with DuckDBEngine(open_snapshot(lake)) as engine:
        (day,) = daily_egress(engine, daily_totals(engine))
    lines = {
        (int(kind), (day.text(line)[1] or "").rpartition(":")[2]): float(value)
        for line, (kind, value) in enumerate(zip(day.kind, day.value, strict=True))
        if kind in (CALLER, TOUCHES, BYTES, READS)
    }
    assert lines == {
        (CALLER, ""): 50,
        (TOUCHES, "app-data"): 50,
        (TOUCHES, "payroll"): 30,
        (BYTES, "app-data"): 50,
        (READS, "app-data"): 50,
        (READS, "payroll"): 30,
    }


# -- calls with two records --------------------------------------------------------------------------------------------


def shown(findings: Sequence[Finding]) -> list[tuple[Any, ...]]:
    return [
        (one.title, [(signal.kind, signal.rule, signal.events, signal.usual) for signal in one.signals])
        for one in findings
    ]


def test_a_call_with_two_records_is_one(tmp_path: Path) -> None:
    """Data and NetworkActivity: the findings, with their counts, are those of the trail without NetworkActivity."""
    records = [*habits(USER), *deletes(USER)]
    alone = found(made(tmp_path, records))
    twice = [*records, *(through_endpoint(record) for record in records)]
    (tmp_path / "twice").mkdir()
    lake = made(tmp_path / "twice", twice)
    # The endpoint itself is new to all of them on the first day, when nothing is reported.
    assert shown(found(lake)) == shown(alone) != []
    with DuckDBEngine(open_snapshot(lake)) as engine:
        (hour,) = over_threshold(engine, 700)
        assert hour.signals[0].events == 800
        # Each of the two sees it alone as well.
        assert engine.query("SELECT sum(events) FROM hourly WHERE event_name = 'DeleteObject'").value() == 1_600


def test_a_trail_of_network_activity_begins(tmp_path: Path) -> None:
    """From one day to the next every call has two records: nothing grew."""
    records = list(habits(USER, days=20))
    later = f"{BEGIN + timedelta(days=15):%Y-%m-%d}"
    more = [through_endpoint(record, vpcEndpointId=None) for record in records if record["eventTime"] >= later]
    findings = found(made(tmp_path, [*records, *more]), least=0.2)
    assert {signal.rule for one in findings for signal in one.signals} == {"foreign-account"}


@pytest.mark.parametrize("with_data", [False, True])
def test_refusals_by_an_endpoint_are_found(with_data: bool, tmp_path: Path) -> None:
    """They are logged as NetworkActivity alone, whatever else is logged of calls that the endpoint let pass."""
    noon = BEGIN + timedelta(days=DAYS, hours=12)
    refused = [
        through_endpoint(
            call("GetObject", noon + timedelta(seconds=i), userIdentity=USER), errorCode="VpceAccessDenied"
        )
        for i in range(60)
    ]
    passed = list(habits(USER))
    more = [through_endpoint(record) for record in passed] if with_data else []
    findings = found(made(tmp_path, [*passed, *more, *refused]))
    (signal,) = [one for finding in findings for one in finding.signals if one.rule == "denied-burst"]
    assert (signal.caller, signal.events) == ("account:444455556666/AIDAPARTNER0000001", 60)
    (denied,) = [one for finding in findings for one in finding.signals if one.kind == "more_denied"]
    assert denied.events == 60


@pytest.mark.parametrize("repeat", [1, 2])
def test_bursts_count_a_call_once(repeat: int, tmp_path: Path) -> None:
    """Thirty invocations and refusals are no burst, also if each has two records."""
    noon = BEGIN + timedelta(hours=12)
    calls = [call("GetObject", noon + timedelta(seconds=i), errorCode="AccessDenied") for i in range(30)]
    calls += [
        call("Invoke", noon + timedelta(seconds=i), eventSource="lambda.amazonaws.com", resources=None,
             requestParameters={"functionName": "f"})
        for i in range(200)
    ]  # fmt: skip
    calls += [call("Invoke", noon - timedelta(hours=9), eventSource="lambda.amazonaws.com", resources=None,
                   requestParameters={"functionName": "f"})]  # fmt: skip
    calls += [call(name, noon + timedelta(seconds=i)) for i in range(60) for name in ("GetObject", "DeleteObject")]
    same = [one | {"eventCategory": "NetworkActivity"} for one in calls] if repeat == 2 else []
    lake = made(tmp_path, [*calls, *same])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        signals, problems = run_detections(engine, builtin_rules()[0])
    assert (signals, problems) == ([], [])


# -- what earlier versions stored --------------------------------------------------------------------------------------


def test_verdicts_of_earlier_versions_still_hold() -> None:
    """They have null for callers without an ARN, and the name of a service."""
    said = [
        Verdict("f1", "mute", "public", "now", (("detection", None, "Objects read anonymously", 100),)),
        Verdict("f2", "mute", "known", "now", (("more_calls", "config.amazonaws.com", "PutObject", 100),)),
    ]
    of = lambda kind, caller, value, events: Signal(kind, caller, 3.0, 0, 1, value, events)  # noqa: E731
    quiet = [
        of("detection", "anonymous", "Objects read anonymously", 100),
        of("more_calls", "service:config.amazonaws.com", "PutObject", 150),
    ]
    loud = [
        of("detection", "anonymous", "Objects read anonymously", 151),
        of("detection", "anonymous", "Data read by another account", 1),
        of("more_calls", "service:logs.amazonaws.com", "PutObject", 100),
    ]
    assert without_muted([*quiet, *loud], said) == loud


def test_ids_of_earlier_versions_stay() -> None:
    """A finding of what is called otherwise now keeps its id; of two that were one, the earlier known one has it."""
    of = lambda id_, caller: Finding(id_, caller, 0.7, 10, 20, (), callers=(caller,), span=(10, 20))  # noqa: E731
    known = [KnownFinding("f1", [None], 10, 20), KnownFinding("f2", ["config.amazonaws.com"], 10, 20)]
    findings, names = give([of("x", "anonymous"), of("y", "service:config.amazonaws.com")], known)
    assert [one.id for one in findings] == ["f1", "f2"]
    assert [name.callers for name in names] == [["anonymous"], ["service:config.amazonaws.com"]]
    findings, _ = give([of("x", "anonymous"), of("y", "account:1/AIDA")], known[:1])
    assert [one.id for one in findings] == ["f1", "y"]


def test_a_checkpoint_of_another_format_version_is_discarded(tmp_path: Path) -> None:
    """An upgrade tells callers apart that were one before; the events of each day stay the same."""
    lake = made(tmp_path, habits(USER, 6))
    with DuckDBEngine(open_snapshot(lake)) as engine:
        collect_signals(engine)
        state = checkpoint.load(lake, lambda state: True)
        assert state is not None and state.before > 0 and state.format_version == 2
        state.format_version = 1
        checkpoint.save(lake, state)
        (lake / "findings" / "habits-before.npz").unlink()
        (lake / "findings" / "last.json").unlink()
        assert len(collect_signals(engine).days) == 6


OWN = """title = "Deletes"
severity = "high"
description = "Nothing is ever deleted."
sql = '''
SELECT account_id, role_arn, event_name, resource_arn, first_time, last_time, events
FROM hourly WHERE event_name = 'DeleteObject'
'''
[[matches]]
event = "s3:DeleteObject"
parameters = { bucketName = "b", key = "k" }
[[ignores]]
event = "s3:GetObject"
parameters = { bucketName = "b", key = "k" }
"""


@pytest.mark.parametrize(("column", "caller"), [("role_arn", None), ("caller", "anonymous")])
def test_own_detections_may_return_roles(column: str, caller: str | None, tmp_path: Path) -> None:
    """Those that were written for earlier versions; their findings lead to the events all the same."""
    rule = parse("own.toml", OWN.replace("role_arn", column))
    lake = made(tmp_path, [*deletes(PUBLIC, 5), *deletes(ROLE, 5)])
    with DuckDBEngine(open_snapshot(lake)) as engine:
        findings = detect(engine, DetectOptions(budget=0), [rule]).findings
        assert {one.caller for one in findings for one in one.signals} == {
            caller,
            "arn:aws:iam::444455556666:role/partner",
        }
        events = [row["event_id"] for one in findings for row in engine.query(one.query).dicts()]
    assert len(set(events)) == 10
