"""One resource and one object: the answers are those of a naive recount over the raw records."""

from __future__ import annotations

import base64
import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import trailsift
from support.paths import TESTS
from support.public_cases import lake_of
from trailsift.analysis.object import matches
from trailsift.analysis.resource_names import choose_resource
from trailsift.cli import main
from trailsift.cloudtrail.call_kinds import call_kind
from trailsift.errors import UsageError

ROLE = "arn:aws:iam::111122223333:role/"
DENIED = ("AccessDenied", "AccessDeniedException")


@pytest.fixture(scope="module")
def records(small_logs: Path) -> list[dict[str, Any]]:
    """Every distinct record of the logs, read without this package."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted((small_logs / "AWSLogs").rglob("*.json.gz")):
        for record in json.loads(gzip.decompress(path.read_bytes()))["Records"]:
            found.setdefault(record["eventID"], record)
    return list(found.values())


@pytest.fixture(scope="module")
def lake(small_lake: Path) -> Iterator[trailsift.Lake]:
    with trailsift.Lake(small_lake) as handle:
        yield handle


@pytest.fixture(scope="module")
def sampled(small_logs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[trailsift.Lake]:
    """A lake of the same logs whose rules drop reads and sample the rest."""
    folder = tmp_path_factory.mktemp("sampled")
    rules = folder / "rules.toml"
    rules.write_text(
        '[[rule]]\nname = "no reads"\nwhen = { event_name = "GetObject" }\naction = "drop"\n'
        '[[rule]]\nname = "some"\nwhen = { service = "s3" }\naction = "sample"\nrate = 0.1\n',
        "utf-8",
    )
    with trailsift.Lake(folder / "lake") as handle:
        handle.ingest(small_logs / "AWSLogs", rules=rules)
        yield handle


def arns_of(record: dict[str, Any]) -> str | None:
    """The bucket, function or table of a record of the generator."""
    for part in record.get("resources") or []:
        arn = str(part.get("ARN") or part.get("ARNPrefix"))
        if part.get("type") in ("AWS::S3::Bucket", "AWS::Lambda::Function", "AWS::DynamoDB::Table"):
            return arn
    return None


def copied_from(record: dict[str, Any]) -> str | None:
    source = (record.get("requestParameters") or {}).get("x-amz-copy-source")
    return source and "arn:aws:s3:::" + source.lstrip("/").partition("/")[0]


def caller_of(record: dict[str, Any]) -> str:
    identity = record["userIdentity"]
    issuer = identity.get("sessionContext", {}).get("sessionIssuer", {}).get("arn")
    return str(issuer or identity.get("arn") or identity.get("principalId") or identity.get("invokedBy"))


@pytest.mark.parametrize("dropped", [False, True])
def test_a_recount_of_each_bucket(
    dropped: bool, lake: trailsift.Lake, sampled: trailsift.Lake, records: list[dict[str, Any]]
) -> None:
    handle = sampled if dropped else lake
    buckets = Counter(arn for record in records if (arn := arns_of(record)) and arn.startswith("arn:aws:s3:::"))
    assert len(buckets) >= 3
    for arn, events in buckets.most_common(4):
        own = [record for record in records if arns_of(record) == arn]
        report = handle.resource(arn)
        assert report.events == events == sum(hour.events for hour in report.hours)
        copies = [record for record in records if copied_from(record) == arn]
        assert report.copies == len(copies)
        assert report.denied == sum(record.get("errorCode") in DENIED for record in [*own, *copies])
        data = [record.get("additionalEventData") or {} for record in own]
        assert sum(kind.bytes_out for kind in report.kinds) == sum(int(d.get("bytesTransferredOut", 0)) for d in data)
        words = ((r["eventSource"].partition(".")[0], r["eventName"], r.get("readOnly")) for r in own)
        kinds = Counter(call_kind(*each) for each in words) + Counter(copy=len(copies))
        assert {kind.kind: kind.events for kind in report.kinds} == kinds
        # Each call that two accounts logged has one id in both.
        calls = sum(len({r.get("sharedEventID") or r["eventID"] for r in part}) for part in (own, copies))
        assert report.calls == calls == events + len(copies) - report.second.accounts
        named = Counter(caller_of(record) for record in own if record["userIdentity"].get("arn"))
        assert {line.caller: line.events for line in report.callers if line.caller in named} == dict(named)
        assert sum(line.events for line in report.callers) == events
        named_keys = ((record.get("requestParameters") or {}) for record in own)
        # The prefix of a list stands for its key.
        keys = [each for each in named_keys if each.get("key", each.get("prefix")) is not None]
        assert sum(pattern.events for pattern in report.patterns) == len(keys) + len(copies)


def test_some_calls_are_logged_by_two_accounts(lake: trailsift.Lake) -> None:
    assert lake.resource("kelp-orders-media").second.accounts > 0, "the recount above would prove less than it says"


def test_a_period_is_of_whole_days(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    days = sorted({record["eventTime"][:10] for record in records})
    arn = "arn:aws:s3:::kelp-orders-media"
    report = lake.resource(arn, since=f"{days[1]}T05:30", until=f"{days[1]}T07:00")
    events = sum(arns_of(record) == arn and record["eventTime"].startswith(days[1]) for record in records)
    assert report.events == events == sum(hour.events for hour in report.hours) > 0
    assert report.as_dict()["period"]["since"] == f"{days[1]}T00:00:00Z"
    assert lake.resource(arn, since="2031-01-01").kinds == ()


def test_firsts(lake: trailsift.Lake, records: list[dict[str, Any]]) -> None:
    arn = "arn:aws:s3:::kelp-orders-lake"
    seen: dict[str, str] = {}
    for record in sorted(records, key=lambda record: record["eventTime"]):
        if arns_of(record) == arn and record["userIdentity"].get("arn"):
            seen.setdefault(caller_of(record), record["eventTime"])
    start = min(seen.values())
    new = {caller for caller, first in seen.items() if first[8:10] > start[8:10] and first[11:] >= start[11:]}
    found = {first.value for first in lake.resource(arn).firsts if first.dimension == "caller"}
    assert {caller for caller in found if str(caller).startswith("arn:")} >= new


@pytest.mark.parametrize("dropped", [False, True])
def test_a_recount_of_objects(
    dropped: bool, lake: trailsift.Lake, sampled: trailsift.Lake, records: list[dict[str, Any]]
) -> None:
    handle = sampled if dropped else lake
    own = [record for record in records if arns_of(record) == "arn:aws:s3:::kelp-orders-shared"]
    keys = Counter((record.get("requestParameters") or {}).get("key") for record in own)
    del keys[None]
    for key, _ in keys.most_common(5):
        report = handle.object(f"kelp-orders-shared/{key}", limit=0)
        touching = [r for r in own if (r.get("requestParameters") or {}).get("key") == key]
        calls = {record.get("sharedEventID") or record["eventID"]: record for record in touching}
        times = sorted((record["eventTime"] for record in calls.values()), reverse=True)
        listed = [touch["event_time"] for touch in report.as_dict()["touches"]]
        if dropped:
            assert report.missing == report.counted - report.stored > 0 and set(listed) <= set(times)
        else:
            assert listed == times and report.missing == 0 and report.keys == 1
            assert report.total == len(calls) and sum(touch.records for touch in report.touches) == len(touching)
    everything = handle.object("s3://kelp-orders-shared/*", limit=3)
    assert len(everything.touches) <= 3
    if not dropped:
        with_keys = [r for r in own if (r.get("requestParameters") or {}).get("key") is not None]
        assert everything.keys == len(keys)
        assert everything.total == len({r.get("sharedEventID") or r["eventID"] for r in with_keys})


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], trailsift.Lake]:
    return lambda name: lake_of(name, tmp_path_factory.mktemp("case"))


def test_copies(case: Callable[[str], trailsift.Lake]) -> None:
    with case("04-copy-read") as lake:
        report = lake.resource("orders")
        assert {(line.caller, line.reads, line.copies) for line in report.callers} == {
            (ROLE + "reader", 1, 0), (ROLE + "thief", 0, 1), (ROLE + "publisher", 0, 0)}  # fmt: skip
        assert (report.events, report.copies) == (2, 1)
        touches = lake.object("orders/q1/plan.xlsx").touches
        assert [(t.event_name, t.touch, t.other_arn, t.other_key) for t in touches if t.touch == "source"] == [
            ("CopyObject", "source", "arn:aws:s3:::evil-bucket", "loot/plan.xlsx")
        ]
        (copy,) = lake.object("evil-bucket/loot/*").touches
        assert (copy.touch, copy.other_arn, copy.other_key) == ("target", "arn:aws:s3:::orders", "q1/plan.xlsx")


def test_access_points_and_twins(case: Callable[[str], trailsift.Lake]) -> None:
    with case("03-s3-flavours") as lake:
        assert len(lake.object("orders/q1/plan.xlsx").touches) == 4
    with case("13-copies/6-shared") as lake:
        report = lake.resource("app-data")
        assert (report.events, report.calls, report.second.accounts) == (2, 1, 1)
        (touch,) = lake.object("app-data/*").touches
        assert (touch.records, touch.caller) == (2, "arn:aws:iam::444455556666:role/etl")


def test_network_activity_beside_data(tmp_path: Path) -> None:
    """A call with a record in two categories is one; a refusal by the endpoint's policy has one record only."""
    base = {
        "eventVersion": "1.11", "eventTime": "2026-01-15T10:00:00Z", "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject", "awsRegion": "us-east-1", "sourceIPAddress": "10.0.0.7",
        "recipientAccountId": "1" * 12,
        "userIdentity": {"type": "IAMUser", "principalId": "AIDA1", "arn": ROLE[:-5] + "user/a", "accountId": "1" * 12},
        "requestParameters": {"bucketName": "b", "key": "k"},
        "resources": [{"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::b/k"},
                      {"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::b", "accountId": "1" * 12}],
    }  # fmt: skip
    made = [
        {**base, "eventID": "1", "requestID": "R1", "eventCategory": "Data"},
        {**base, "eventID": "2", "requestID": "R1", "eventCategory": "NetworkActivity", "vpcEndpointId": "vpce-1"},
        {**base, "eventID": "3", "requestID": "R2", "eventCategory": "NetworkActivity",
         "eventTime": "2026-01-16T10:00:00Z", "errorCode": "VpceAccessDenied"},
    ]  # fmt: skip
    (tmp_path / "x.json").write_text(json.dumps({"Records": made}), "utf-8")
    with trailsift.Lake(tmp_path / "lake") as lake:
        assert lake.ingest(tmp_path / "x.json").stored == 3
        report = lake.resource("b")
        assert (report.events, report.calls, report.second.network_activity, report.denied) == (3, 2, 1, 1)
        touches = lake.object("b/k").touches
        assert [(touch.event_id, touch.records, touch.error_code) for touch in touches] == [
            ("3", 1, "VpceAccessDenied"), ("1", 2, None)]  # fmt: skip


def test_batches_that_name_no_objects(case: Callable[[str], trailsift.Lake]) -> None:
    with case("05-deleteobjects") as lake:
        arns = lake.query("SELECT DISTINCT resource_arn FROM events WHERE event_name = 'DeleteObjects'").rows()
        sql = "SELECT request_id, event_name FROM events WHERE resource_arn = '{}' AND error_code IS NULL"
        for (arn,) in arns:
            rows = lake.query(sql.format(arn)).rows()
            named = {request for request, name in rows if name == "DeleteObject"}
            lost = {request for request, name in rows if name == "DeleteObjects"} - named
            assert lake.object(f"{arn}/x").batches == len(lost)


NAMES = ["arn:aws:s3:::logs", "arn:aws:s3:::logs-old", "arn:aws:dynamodb:eu-west-1:1:table/orders",
         "arn:aws:lambda:eu-west-1:1:function:orders"]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "place"),
    [("logs", 0), ("S3:LOGS", 0), ("s3://logs-old/", 1), ("old", 1), ("table/orders", 2), ("function:orders", 3)],
)
def test_names_of_resources(name: str, place: int) -> None:
    assert choose_resource(name, NAMES) == NAMES[place]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("orders", "matches 2 resources"), ("lgos", "nearest: arn:aws:s3:::logs"), ("", "the busiest are"),
        ("x" * 100_000, "the busiest are"), ("\x1b[2J", "the busiest are"), ("arn", "matches 4"),
    ],
)  # fmt: skip
def test_names_that_nothing_or_several_have(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        choose_resource(name, NAMES)
    with pytest.raises(UsageError, match="its events name none"):
        choose_resource(name, [])


@pytest.mark.parametrize(
    ("name", "said"),
    [("bucket", "names no object"), ("/x", "names no object"), ("kelp-orders-shared/", "names no object"),
     ("kelp-order-shard/x", "nearest: arn:aws:s3:::kelp-orders-shared"), ("b/" + "x" * 9999, "too long")],
)  # fmt: skip
def test_names_that_are_no_object(name: str, said: str, lake: trailsift.Lake) -> None:
    with pytest.raises(UsageError, match=said):
        lake.object(name)


def test_stars_are_the_only_wildcards() -> None:
    assert matches("k", "a'b") == "k = 'a''b'"
    assert matches("k", "50%_a\\*") == "k LIKE '50\\%\\_a\\\\%' ESCAPE '\\'"


@pytest.mark.parametrize("upgraded", [False, True])
def test_days_of_format_version_1(upgraded: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They have no kinds of use and no networks, and none of their events is missing, also beside days of today."""
    packed = base64.b64decode((TESTS / "lake" / "format_1" / "lake.txt").read_bytes())
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:xz") as archive:
        archive.extractall(tmp_path, filter="data")
    path = tmp_path / "lake"
    with trailsift.Lake(path) as old:
        old.relocate()
        if upgraded:
            old.compact()
        sql = "SELECT resource_arn, sum(events) FROM usage WHERE resource_arn LIKE 'arn:%' AND touch = 'target'"
        unknown = 0
        for arn, events in old.query(f"{sql} GROUP BY 1 ORDER BY 2 DESC LIMIT 3").rows():
            report = old.resource(arn)
            assert report.events == events == sum(line.events for line in report.callers)
            unknown += report.without_kind
            assert upgraded or report.without_kind == events
        assert unknown > 0
    assert main(["resource", arn, "--lake", str(path)]) == 0
    assert "format version 1" in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 120])
def test_what_is_shown(
    width: int, sampled: trailsift.Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    place = ["--lake", str(sampled.path)]
    assert main(["bucket", "kelp-orders-media", *place, "--timezone", "Asia/Seoul"]) == 0
    text = capsys.readouterr().out
    for said in ("at least", "Callers", "From where", "Key patterns", "Events by hour (Asia/Seoul)", "trailsift role"):
        assert said in text
    lines = [line for line in text.splitlines() if not line.startswith("trailsift ")]
    assert max(map(len, lines)) <= width
    assert main(["object", "kelp-orders-media/*", *place]) == 0
    text = capsys.readouterr().out
    assert "are not stored as single events" in " ".join(text.split()) and "--limit 0 shows all" in text
    assert main(["object", "kelp-orders-media/nosuch", *place]) == 0
    assert "no stored event in the lake touches nosuch" in capsys.readouterr().err


def test_csv_and_json(small_lake: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ["--lake", str(small_lake)]
    assert main(["resource", "kelp-orders-media", *place, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["events"] == sum(kind["events"] for kind in report["kinds"]) and report["callers"][0]["first_time"]
    assert main(["resource", "kelp-orders-media", *place, "--csv"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("caller,events,reads") and len(lines) == len(report["callers"]) + 1
    assert main(["query", report["query"], *place, "-f", "json"]) == 0
    capsys.readouterr()
    assert main(["object", "kelp-orders-media/*", *place, "--csv", "--limit", "5"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 6
    assert main(["object", "kelp-orders-media/*", *place, "--csv", "--json"]) == 2
    assert main(["object", "kelp-orders-media/*", *place, "--limit", "-1"]) == 2
