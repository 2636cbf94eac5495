"""Rules files: problems are reported by line, and decisions follow the rules."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import trailsift
from support.paths import ROOT, TESTS
from trailsift.cli import main
from trailsift.cloudtrail.event_ids import event_key
from trailsift.decode.record import row as row_of
from trailsift.errors import RulesError
from trailsift.rules import RowRules, load, parse
from trailsift.rules.presets import PRESETS, preset_text
from trailsift.rules.sampling import SipKey, sip_key, siphash24, threshold

EXAMPLE = """
timezone = "Asia/Seoul"
[[rule]]
name = "bulk reads"
when = { service = ["s3", "dynamodb"], read_only = true, role = "arn:aws:iam::*:role/etl-*", weekday = "mon-fri" }
action = "sample"
rate = { "09-17" = 0.10, "18-22" = 0.05, otherwise = 0.01 }

[[rule]]
name = "health checks"
when = { service = "s3", event_name = "HeadBucket", source_ip = "10.0.0.0/8" }
action = "drop"

[[rule]]
name = "missing keys"
when = { error_code = "NoSuch*" }
action = "drop"
[fields]
omit = ["request_parameters", "additional_event_data"]
"""


def event(**columns: Any) -> dict[str, Any]:
    """Return a row as the decoder does, with some columns changed. ``at``: its time, ISO 8601."""
    record = {
        "eventTime": columns.pop("at", "2026-03-03T01:30:00Z"),  # a Tuesday, 10:30 in Seoul
        "eventID": str(uuid.uuid4()),
        "eventSource": "s3.amazonaws.com",
        "eventName": "GetObject",
        "eventCategory": "Data",
        "readOnly": True,
        "sourceIPAddress": "198.51.100.7",
    }
    row = row_of(record, "x")
    row["role_arn"] = "arn:aws:iam::111122223333:role/etl-nightly"
    assert columns.keys() <= row.keys()
    return row | columns


CASES = sorted((TESTS / "cases" / "rules").glob("*.toml"))


def expected_problems(lines: list[str]) -> list[tuple[int, str]]:
    """Return (line, message) of each annotation ``#~ message``, which refers to the nearest ordinary line above it."""
    expected = []
    subject = 0
    for number, line in enumerate(lines, 1):
        if line.lstrip().startswith("#~ "):
            expected.append((subject, line.lstrip().removeprefix("#~ ")))
        else:
            subject = number
    return expected


@pytest.mark.parametrize("path", CASES, ids=[path.stem for path in CASES])
def test_problems_are_reported_with_their_lines(path: Path) -> None:
    """Exactly the annotated problems are reported, all at once. A final `` ...`` stands for the rest of a message."""
    expected = expected_problems(path.read_text("utf-8").splitlines())
    if not expected:
        assert load(path).rules
        return
    with pytest.raises(RulesError) as caught:
        load(path)
    reported = str(caught.value).splitlines()
    assert len(reported) == len(expected)
    for problem, (line, message) in zip(reported, expected, strict=True):
        start = f"{path}, line {line}: {message.removesuffix(' ...')}"
        assert problem.startswith(start) if message.endswith(" ...") else problem == start


def test_a_text_that_is_not_toml() -> None:
    with pytest.raises(RulesError, match=r"my\.toml: not TOML: .*line 1"):
        parse("a = = 3", "my.toml")


def test_decisions_of_the_example() -> None:
    """First match wins, hours are local, the default is keep, only a rule with error_code drops failed calls."""
    sifter = RowRules(parse(EXAMPLE, "f"))
    assert sifter.rules.omit == ("request_parameters", "additional_event_data")
    decided = [sifter.decide(event()) for _ in range(400)]
    assert {decision.rule for decision in decided} == {"bulk reads"}
    kept = [decision.weight for decision in decided if decision.weight]
    assert set(kept) == {10.0} and 15 <= len(kept) <= 70
    night = {sifter.decide(event(at="2026-03-03T16:30:00Z")).weight for _ in range(1000)}
    assert night <= {0.0, 100.0}
    assert sifter.decide(event(at="2026-03-07T01:30:00Z")) == ("keep", None, 1.0)  # a Saturday in Seoul
    assert sifter.decide(event(at="2026-03-06T15:30:00Z")) == ("keep", None, 1.0)  # Friday in UTC, Saturday there
    assert sifter.decide(event(error_code="AccessDenied")) == ("keep", None, 1.0)
    assert sifter.decide(event(error_code="NoSuchKey")) == ("drop", "missing keys", 0.0)
    health = event(event_name="HeadBucket", source_ip="10.9.8.7", role_arn=None)
    assert sifter.decide(health) == ("drop", "health checks", 0.0)
    assert sifter.decide(health | {"source_ip": "11.9.8.7"}).action == "keep"
    assert sifter.decide(health | {"source_ip": "::ffff:10.1.1.1"}).action == "drop"
    assert sifter.decide(health | {"source_ip": "10.1.1.1, 192.0.2.1"}).action == "drop"
    assert sifter.decide(health | {"error_code": "AccessDenied"}).action == "keep"
    assert sifter.decide(health | {"error_code": ""}).action == "drop"


def test_absent_values_and_globs() -> None:
    """An empty text stands for an absent value, a star for any text, at either end and in the middle."""
    rules = """
    [[rule]]
    name = "anonymous"
    when = { role = "" }
    action = "drop"
    [[rule]]
    name = "keys"
    when = { object_key = ["logs/*/part-*.gz", "*.tmp", "a*b*c"] }
    action = "drop"
    [[rule]]
    name = "evening"
    when = { hour = "22-00" }
    action = "drop"
    """
    sifter = RowRules(parse(rules, "f"))

    def rule(**columns: Any) -> str | None:
        return sifter.decide(event(**columns)).rule

    assert rule(role_arn=None) == "anonymous"
    assert rule(object_key="logs/2026/part-1.gz") == rule(object_key="x/y.tmp") == rule(object_key="a1b2c") == "keys"
    assert rule(object_key="logs/2026/part-1.gzz") is None and rule(object_key=None) is None
    assert rule(object_key="acb") is None and rule(object_key="tmp") is None
    hours = [rule(at=f"2026-03-03T{hour:02d}:59:59Z") for hour in range(24)]
    assert [hour for hour in range(24) if hours[hour]] == [0, 22, 23]


def test_sampler_is_the_published_hash_and_unbiased() -> None:
    """SipHash-2-4's own test vector; hashes are uniform, differ by use, and are the same in every run."""
    first, second = (int.from_bytes(bytes(range(start, start + 8)), "little") for start in (0, 8))
    assert siphash24(SipKey(first, second), first, second) == 0x3F2ACC7F57C29BDB
    ids = [str(uuid.UUID(int=number * 7919)) for number in range(4000)] + ["content-1", "CONTENT-1"]
    key, other_key = sip_key("trailsift", "lottery"), sip_key("trailsift", "first")
    sampled = [siphash24(key, *event_key(event_id)) < threshold(0.2) for event_id in ids]
    others = [siphash24(other_key, *event_key(event_id)) < threshold(0.2) for event_id in ids]
    assert 700 < sum(sampled) < 900 and 700 < sum(others) < 900
    assert 110 < sum(a and b for a, b in zip(sampled, others, strict=True)) < 210
    assert event_key(ids[-1]) != event_key(ids[-2])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_can_be_used(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Presets are listed, shown, and pass the check; denied calls, deletions and management events stay."""
    assert main(["rules", "list"]) == 0
    assert name in capsys.readouterr().out
    assert main(["rules", "show", name]) == 0
    path = tmp_path / f"{name}.toml"
    path.write_text(capsys.readouterr().out)
    assert main(["rules", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"]
    sifter = RowRules(parse(preset_text(name), name))
    for columns in ({"error_code": "AccessDenied"}, {"event_category": "Management"}):
        assert sifter.decide(event(**columns)).weight == 1
    if name != "only-roles":
        assert sifter.decide(event(event_name="DeleteObject")).weight == 1


def test_check_names_the_file_and_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """``rules check`` and ``rules show`` report problems on the command line."""
    path = tmp_path / "x.toml"
    path.write_text('[[rule]]\nname = "a"\naction = "keep"\nwhen = { user_agnt = "x" }\n')
    assert main(["rules", "check", str(path)]) == 2
    assert f'{path}, line 4: unknown condition "user_agnt": did you mean "user_agent"?' in capsys.readouterr().err
    assert main(["rules", "check", str(tmp_path / "none.toml")]) == 2
    assert main(["rules", "show", "time-of-dya"]) == 2
    assert "time-of-day" in capsys.readouterr().err


def many_rules(count: int) -> str:
    """Return a file of ``count`` rules of mixed kinds, none of which covers another."""
    parts = ['timezone = "Asia/Seoul"']
    for number in range(count):
        kind = (
            f'role = "arn:aws:iam::*:role/team-{number}-*", service = "s3"',
            f'resource = ["arn:aws:s3:::bucket-{number}", "arn:aws:s3:::copy-{number}"], event_name = "GetObject"',
            f'object_key = "data/{number}/*.parquet"',
            f'source_ip = "10.{number % 256}.{number // 256}.0/24", user_agent = "*agent-{number}*"',
            f'event_name = "Action{number}", hour = "09-17"',
        )[number % 5]
        action = ('action = "drop"', 'action = "sample"\nrate = 0.1', 'action = "keep"')[number % 3]
        parts.append(f'[[rule]]\nname = "rule {number}"\nwhen = {{ {kind} }}\n{action}')
    return "\n".join(parts)


def test_a_thousand_rules_cost_little_more_than_ten() -> None:
    """At most twice, on rows some of which match (best of several rounds, CPU time)."""
    start = datetime(2026, 3, 3, tzinfo=UTC)
    rows = [
        event(
            at=(start + timedelta(seconds=number)).isoformat().replace("+00:00", "Z"),
            role_arn=f"arn:aws:iam::111122223333:role/team-{number % 40}-{number % 7}",
            resource_arn=f"arn:aws:s3:::bucket-{number % 60}",
            object_key=f"data/{number % 50}/{number}.csv",
            source_ip=f"10.{number % 100}.0.9",
            user_agent=f"agent-{number % 30}",
        )
        for number in range(2000)
    ]

    def best(sifter: RowRules) -> float:
        seconds = []
        for _ in range(5):
            begun = time.process_time()
            for row in rows:
                sifter.match(row)
            seconds.append(time.process_time() - begun)
        return min(seconds)

    few, many = (RowRules(parse(many_rules(count), "f")) for count in (10, 1000))
    assert best(many) < 2 * best(few) + 0.005


def test_examples_in_the_documentation_are_valid() -> None:
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    examples = page.split("```toml\n")[1:]
    assert examples
    for part in examples:
        parse(part.partition("```")[0], "rules.md")


def test_a_caller_is_matched_in_every_form() -> None:
    """``caller`` tells apart who has no role; a role's caller is its ARN, so both conditions match it."""
    rules = """
    [[rule]]
    name = "anonymous"
    when = { caller = "anonymous" }
    action = "drop"
    [[rule]]
    name = "partner"
    when = { caller = ["account:444455556666/*", "*:role/partner-*"] }
    action = "drop"
    [[rule]]
    name = "by role"
    when = { role = "*:role/etl" }
    action = "drop"
    """
    sifter = RowRules(parse(rules, "f"))

    def rule(user: dict[str, Any]) -> str | None:
        record = {"eventTime": "2026-03-03T01:30:00Z", "eventID": "1", "eventSource": "s3.amazonaws.com"}
        return sifter.decide(row_of({**record, "eventName": "GetObject", "userIdentity": user}, "x")).rule

    assert rule({"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}) == "anonymous"
    assert rule({"type": "AWSAccount", "principalId": "AIDAX", "accountId": "444455556666"}) == "partner"
    assert rule({"type": "AWSAccount", "principalId": "AROAX:one", "accountId": "444455556666"}) == "partner"
    assert rule({"type": "AWSAccount", "principalId": "AIDAX", "accountId": "444455556667"}) is None
    session = {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/partner-7/i-0"}
    assert rule(session) == "partner"
    assert rule({**session, "arn": "arn:aws:sts::111122223333:assumed-role/etl/i-0"}) == "by role"
    assert rule({}) is None


@pytest.mark.parametrize("row_by_row", [True, False])
def test_a_rule_on_callers_drops_their_events_alone(row_by_row: bool, tmp_path: Path) -> None:
    """The fast and the slow path of an ingest; summaries still count everything."""
    users: list[dict[str, Any]] = [
        {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"},
        {"type": "AWSAccount", "principalId": "AIDAX", "accountId": "444455556666"},
        {"type": "AssumedRole", "arn": "arn:aws:sts::111122223333:assumed-role/etl/i-0"},
    ]
    records = [
        {
            "eventVersion": "1.11",
            "eventTime": "2026-03-03T01:30:00Z",
            "eventSource": "s3.amazonaws.com",
            "eventName": "GetObject",
            "eventID": str(uuid.UUID(int=number)),
            "userIdentity": user,
            **({"unknown": {"x": [number]}} if row_by_row else {}),
        }
        for number, user in enumerate(users * 3, 1)
    ]
    (tmp_path / "log.json").write_text(json.dumps({"Records": records}))
    (tmp_path / "my.toml").write_text(
        '[[rule]]\nname = "a"\naction = "drop"\nwhen = { caller = ["anonymous", "*etl"] }\n'
    )
    with trailsift.Lake(tmp_path / "lake") as lake:
        counts = lake.ingest(tmp_path / "log.json", rules=tmp_path / "my.toml")
        assert (counts.stored, counts.dropped) == (3, {"a": 6})
        assert lake.query("SELECT DISTINCT caller FROM events").value() == "account:444455556666/AIDAX"
        assert lake.query("SELECT sum(events) FROM hourly").value() == 9
    assert main(["rules", "try", str(tmp_path / "my.toml"), str(tmp_path / "log.json"), "--json"]) == 0
