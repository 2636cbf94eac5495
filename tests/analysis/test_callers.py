"""Reports tell every caller apart, and say which records are a call of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import trailsift
from support.public_cases import lake_of
from trailsift.analysis.caller_names import short_caller
from trailsift.analysis.roles import choose
from trailsift.aws.selectors import parse_request
from trailsift.cli import main
from trailsift.errors import UsageError
from trailsift.rules import RowRules, parse

ROLE = "arn:aws:iam::111122223333:role/"


@pytest.fixture(scope="module")
def identities(tmp_path_factory: pytest.TempPathFactory) -> trailsift.Lake:
    return lake_of("02-identities", tmp_path_factory.mktemp("identities"))


def shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str) -> str:
    """Return what a command prints on a terminal of 80 columns, its lines joined where they were folded."""
    monkeypatch.setenv("COLUMNS", "80")
    assert main(list(words)) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    return " ".join(out.split())


def test_every_caller_is_told_apart(identities: trailsift.Lake) -> None:
    roles = identities.roles()
    callers = [line.caller for line in roles]
    assert len(set(callers)) == len(callers) == 16
    assert sum(line.events for line in roles) == 17 and sum(line.share for line in roles) == pytest.approx(1)
    assert {short_caller(caller) for caller in callers} >= {
        "(anonymous)",
        "(no identity)",
        "account 444455556666, AIDAEXAMPLEUSER0001",
        "account 444455556666, AROAEXAMPLEROLE0002",
        "federated token.example.com/repo:org/x",
        "Identity Center user 94482488-3041-7000-aaaa-000000000000",
        "delivery.logs.amazonaws.com",
        "role/legacy-app",
        "root",
    }
    (anonymous,) = (line for line in roles if short_caller(line.caller) == "(anonymous)")
    assert (anonymous.caller, anonymous.events) == ("anonymous", 1)


@pytest.mark.parametrize("by", ["caller", "role"])
def test_summary_by_caller(identities: trailsift.Lake, by: Any) -> None:
    summary = identities.summary(by)
    assert summary.groups == 16
    records = {record["caller"]: record for record in summary.records}
    assert records["account:444455556666/AIDAEXAMPLEUSER0001"]["role_arn"] is None
    assert records[ROLE + "legacy-app"]["role_arn"] == ROLE + "legacy-app"
    assert records[ROLE + "legacy-app"]["events"] == 2


@pytest.mark.parametrize(
    ("name", "caller"),
    [
        ("legacy-app", ROLE + "legacy-app"),
        (ROLE + "legacy-app", ROLE + "legacy-app"),
        ("(anonymous)", "anonymous"),
        ("(no identity)", "none"),
        ("AIDAEXAMPLEUSER0001", "account:444455556666/AIDAEXAMPLEUSER0001"),
        ("account 444455556666, AIDAEXAMPLEUSER0001", "account:444455556666/AIDAEXAMPLEUSER0001"),
        ("account:cloudfront", "account:cloudfront"),
    ],
)
def test_the_report_on_one_caller(identities: trailsift.Lake, name: str, caller: str) -> None:
    report = identities.role(name)
    assert report.caller == caller
    assert report.events == sum(hour.events for hour in report.hours) == sum(action.events for action in report.actions)
    assert report.as_dict()["role_arn"] == (caller if caller.startswith("arn:") else None)


def test_a_name_of_nobody_or_of_several(identities: trailsift.Lake) -> None:
    with pytest.raises(UsageError, match="no role 'nobody-of-that-name'"):
        identities.role("nobody-of-that-name")
    with pytest.raises(UsageError, match="matches 2 callers: account:444455556666/"):
        identities.role("444455556666")


def test_a_periods_edges_have_the_same_callers(identities: trailsift.Lake) -> None:
    """An hour that the period cuts is counted from events."""
    cut = identities.roles(since="2026-01-15T10:00:30", until="2026-01-15T10:02:30")
    assert {line.caller for line in cut} == {
        "account:444455556666/AIDAEXAMPLEUSER0001",
        "account:444455556666/AROAEXAMPLEROLE0002",
        "federated:/nQTexample=/alice@example.com",
    }


def test_insights_are_nobodys_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    base = {"eventVersion": "1.11", "eventTime": "2026-01-15T10:00:00Z", "awsRegion": "us-east-1"}
    call = {**base, "eventID": "e-1", "eventSource": "s3.amazonaws.com", "eventName": "GetObject"}
    call["userIdentity"] = {"type": "AWSAccount", "accountId": "ANONYMOUS_PRINCIPAL"}  # type: ignore[assignment]
    insight = {**base, "eventID": "e-2", "eventType": "AwsCloudTrailInsight", "eventCategory": "Insight"}
    insight["insightDetails"] = {"state": "Start", "eventSource": "s3.amazonaws.com", "eventName": "PutObject"}  # type: ignore[assignment]
    (tmp_path / "log.json").write_text(json.dumps({"Records": [call, insight]}))
    lake = trailsift.Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "log.json")
    assert [(line.caller, line.events, line.share) for line in lake.roles()] == [("anonymous", 1, 1.0)]
    assert lake.summary("caller").groups == 1
    overview = lake.summary()
    assert overview.total is not None and overview.total.events == 2
    assert overview.per_call.insights == 1 and overview.as_dict()["records_per_call"]["insights"] == 1
    with pytest.raises(UsageError, match="no role"):
        lake.role("(no identity)")
    out = shown(capsys, monkeypatch, "summary", "--lake", str(lake.path))
    assert "1 of the events is of category Insight: CloudTrail derived what nobody called." in out


def test_two_records_of_a_call_between_accounts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake_of("13-copies/6-shared", tmp_path) as lake:
        (line,) = lake.roles()
        assert (line.events, line.owner_side, line.network_activity) == (2, 1, 0)
        assert lake.summary("event").per_call.owner_side == 1
        report = lake.role("etl")
        assert (report.events, report.owner_side) == (2, 1)
    says = "1 of the events is what the resource owner logged of calls from another account"
    for words in (["roles"], ["summary"], ["summary", "--by", "caller"], ["role", "etl"]):
        assert says in shown(capsys, monkeypatch, *words, "--lake", str(lake.path))


def test_two_categories_of_a_call(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake_of("23-more-s3", tmp_path) as lake:
        counts = {line.caller: (line.events, line.network_activity) for line in lake.roles()}
        assert counts == {ROLE + "app-reader": (6, 1), "anonymous": (1, 0)}
        assert lake.summary().per_call[:2] == (0, 1)
        assert lake.role("app-reader").network_activity == 1
        assert lake.has_data_events()
    assert "1 of the events is NetworkActivity" in shown(capsys, monkeypatch, "summary", "--lake", str(lake.path))


def test_a_batch_and_the_deletions_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake_of("05-deleteobjects", tmp_path) as lake:
        assert lake.summary().per_call == (0, 0, 1, 0)
    assert "1 of the events is DeleteObjects" in shown(capsys, monkeypatch, "summary", "--lake", str(lake.path))


def test_services_and_anonymous_callers_have_one_record_of_a_call(tmp_path: Path) -> None:
    """Their events may have a sharedEventID, but no account of theirs logs the call as well."""
    with lake_of("21-placeholders", tmp_path) as lake:
        assert sum(line.owner_side for line in lake.roles()) == lake.summary().per_call.owner_side == 0


def test_a_caller_that_copies_is_shown_with_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with lake_of("04-copy-read", tmp_path) as lake:
        thief = lake.role("thief")
        assert [(use.resource_arn, use.copies, use.example_key) for use in thief.copy_sources] == [
            ("arn:aws:s3:::orders", 1, "q1/plan.xlsx")
        ]
        assert thief.events == 1 and [pattern.resource_arn for pattern in thief.patterns] == [
            "arn:aws:s3:::evil-bucket"
        ]
        assert thief.as_dict()["copied_from"][0]["resource_arn"] == "arn:aws:s3:::orders"
        assert lake.role("reader").copy_sources == ()
        estimates = lake.estimate(["caller", "key_pattern"])
        assert sum(group.events.estimate for group in estimates.groups) == 3, "a copy is one event"
        assert sum(group.events.estimate for group in lake.estimate(["touch"]).groups) == 5
        assert lake.suggest(0).total == 3
    out = shown(capsys, monkeypatch, "role", "thief", "--lake", str(lake.path))
    assert "Copied from" in out and "s3:orders" in out


def test_estimates_and_suggestions_by_caller(identities: trailsift.Lake) -> None:
    estimate = identities.estimate(["caller"])
    assert estimate.source == "hourly" and len(estimate.groups) == 16
    suggestions = identities.suggest(0)
    callers = {line.caller for line in suggestions.lines}
    assert {"anonymous", "none", "account:444455556666/AIDAEXAMPLEUSER0001", ROLE + "legacy-app"} <= callers
    rules = RowRules(parse(suggestions.toml, "suggested"))
    for line in suggestions.lines:
        row = {
            **dict.fromkeys(("error_code", "principal_type", "role_arn"), None),
            "caller": line.caller,
            "role_arn": line.role_arn,
            "service": line.service,
            "event_name": line.event_name,
            "resource_arn": line.resource_arn,
            "event_time": 0,
            "object_key": line.key_pattern,
            "event_id": "e",
        }
        number, _ = rules.match(row)
        assert rules.rules.rules[number].name in line.rule


def test_network_activity_is_not_taken_for_data_events(tmp_path: Path) -> None:
    """A trail charges for it by itself, and selectors of data events do not choose it."""
    with lake_of("23-more-s3", tmp_path) as lake:
        cost = lake.selector_cost(parse_request([], ["s3"]))
        month = 365.25 / 12 * 24  # the lake has one hour
        assert (round(cost.events or 0), round(cost.all_events)) == (round(4 * month), round(6 * month))
        assert lake.export(tmp_path / "network.ndjson", where="event_category = 'NetworkActivity'") == 1
    with trailsift.Lake(tmp_path / "network") as lake:
        lake.ingest(tmp_path / "network.ndjson")
        assert not lake.has_data_events()
        assert lake.data_event_candidates() == []


def test_a_name_with_its_account_is_found() -> None:
    roots = ["arn:aws:iam::111111111111:root", "arn:aws:iam::222222222222:root"]
    assert choose("root (222222222222)", [*roots, None]) == roots[1]
    with pytest.raises(UsageError, match="matches 2 roles"):
        choose("root", [*roots, None])
