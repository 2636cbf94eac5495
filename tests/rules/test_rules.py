"""Rules files: what is wrong with them is told by line, and what they decide is what they say."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from support.paths import ROOT
from trailsift.cli import main
from trailsift.cloudtrail.event_ids import event_key
from trailsift.decode.record import row as row_of
from trailsift.errors import RulesError
from trailsift.rules import RowRules, parse
from trailsift.rules.presets import PRESETS, preset_text
from trailsift.rules.sampling import SipKey, sip_key, siphash24, threshold

ISSUE = """
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
    """A row as the decoder makes it, with some columns changed. ``at``: its time, ISO 8601."""
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


#: (what stands in the file, line that is named, words that the message has)
WRONG = [
    ('timezone = "Asia/Soul"', 1, ["Asia/Soul", "Asia/Seoul"]),
    ('\ntimezon = "UTC"', 2, ["timezon", '"timezone"']),
    ('[[rule]]\nname = "a"\naction = "dorp"', 3, ["dorp", '"drop"']),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { evnt_name = "x" }', 4, ["evnt_name", '"event_name"']),
    ('[[rule]]\nname = "a"\naction = "drop"\n[rule.when]\nservice = "s3"\nrol = "*"', 6, ["rol", '"role"']),
    ('[[rule]]\nname = "a"\naction = "sample"\nrate = 1.5', 4, ["1.5", "impossible"]),
    ('[[rule]]\nname = "a"\naction = "sample"\nrate = 0', 4, ['"drop"']),
    ('[[rule]]\nname = "a"\naction = "sample"', 1, ["rate"]),
    ('[[rule]]\nname = "a"\naction = "keep"\nrate = 0.5', 4, ["rate", '"keep"']),
    ('[[rule]]\nname = "a"\naction = "sample"\nrate = { "09-17" = 0.1, "17-20" = 0.2, otherwise = 1 }', 4, ["overlap"]),
    ('[[rule]]\nname = "a"\naction = "sample"\nrate = { "09-17" = 0.1 }', 4, ["otherwise", "00, 01"]),
    ('[[rule]]\nname = "a"\naction = "sample"\nrate = { "09-25" = 0.1, otherwise = 1 }', 4, ["09-25", "23"]),
    (
        '[[rule]]\nname = "a"\naction = "sample"\nwhen = { hour = "01-05" }\nrate = { "09-17" = 0.1, otherwise = 1 }',
        5,
        ["09-17", "never"],
    ),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { weekday = "mon-fir" }', 4, ["fir", '"fri"']),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { hour = ["08-10", "10-12"] }', 4, ["10-12", "overlaps"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { source_ip = "10.0.0.1/8" }', 4, ["10.0.0.0/8"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { region = "us-esat-1" }', 4, ["us-esat-1", "us-east-1"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { region = "us-east-1a" }', 4, ["zone", '"us-east-1"']),
    (
        '[[rule]]\nname = "a"\naction = "drop"\n'
        'when = { region = ["us-gov-west-1", "ap-northeast-2", "us-isob-east-1", "eu-*", "Seoul"] }',
        4,
        ["Seoul", "region"],
    ),
    (
        '[[rule]]\nname = "a"\naction = "drop"\nwhen = { service = [\n"s3",\n"dynamodb.amazonaws.com"] }',
        6,
        ["dynamodb"],
    ),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { role = "etl" }', 4, ["*:role/etl"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { resource = "logs" }', 4, ["arn:aws:s3:::logs"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { account = 123 }', 4, ["account", "quotes"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { principal_type = "AssumeRole" }', 4, ["AssumedRole"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { read_only = "yes" }', 4, ["read_only", "true"]),
    ('[[rule]]\nname = "a"\naction = "drop"\nwhen = { service = [] }', 4, ["never"]),
    (
        '[[rule]]\nname = "a"\naction = "drop"\nwhen = { service = "s3", event_source = "dynamodb.amazonaws.com" }',
        1,
        ["never", "dynamodb"],
    ),
    (
        '# one\n[[rule]]\nname = "a"\naction = "drop"\nwhen = { role = "*:role/x*" }\n\n'
        '[[rule]]\nname = "b"\naction = "sample"\nrate = 0.1\nwhen = { role = "*:role/xyz", service = "s3" }',
        7,
        ['"b"', '"a" in line 2'],
    ),
    (
        '[[rule]]\nname = "a"\naction = "drop"\nwhen = { source_ip = "10.0.0.0/8" }\n'
        '[[rule]]\nname = "b"\naction = "drop"\nwhen = { source_ip = "10.1.0.0/16" }',
        5,
        ['"a"'],
    ),
    (
        '[[rule]]\nname = "a"\naction = "drop"\nwhen = { event_name = "A" }\n'
        '[[rule]]\nname = "b"\naction = "drop"\nwhen = { event_name = "B" }\n'
        '[[rule]]\nname = "c"\naction = "drop"\nwhen = { event_name = ["B", "A"] }',
        9,
        ['"c"', "never"],
    ),
    ('[[rule]]\nname = "a"\naction = "keep"\n[[rule]]\nname = "a"\naction = "drop"', 5, ["already", "line 2"]),
    ('[[rule]]\naction = "keep"', 1, ["name"]),
    ('[rule]\nname = "a"', 1, ["[[rule]]"]),
    ('[fields]\nomit = [\n  "role_arn",\n]', 3, ["role_arn", "cannot be left out"]),
    ('[fields]\nomit = ["request_params"]', 2, ["request_params", '"request_parameters"']),
    ("a = = 3", 1, ["not TOML"]),
]


@pytest.mark.parametrize(("given", "line", "words"), WRONG, ids=lambda value: None)
def test_what_is_wrong_is_told_with_its_line(given: str, line: int, words: list[str]) -> None:
    """The line, the word, the nearest valid name; and no traceback."""
    with pytest.raises(RulesError) as caught:
        parse(given, "my.toml")
    told = str(caught.value)
    assert f"line {line}:" in told or f"line {line}," in told, told
    for word in words:
        assert word in told, told


def test_a_misspelled_action_is_one_problem() -> None:
    """What follows from it is not told as another one."""
    with pytest.raises(RulesError) as caught:
        parse('[[rule]]\nname = "a"\naction = "smaple"\nrate = 0.1', "my.toml")
    assert len(str(caught.value).splitlines()) == 1 and '"sample"' in str(caught.value)


def test_every_problem_is_told_at_once() -> None:
    """A file is not mended one run at a time."""
    with pytest.raises(RulesError) as caught:
        parse('timezone = "X/Y"\n[[rule]]\nname = "a"\naction = "drp"\nwhen = { x = 1 }', "f")
    assert str(caught.value).count("\n") == 2


def test_decisions_of_the_example() -> None:
    """First match wins, hours are local, the default is keep, failed calls are only touched where a rule says so."""
    sifter = RowRules(parse(ISSUE, "f"))
    assert sifter.rules.omit == ("request_parameters", "additional_event_data")
    decided = [sifter.decide(event()) for _ in range(400)]
    assert {one.rule for one in decided} == {"bulk reads"}
    kept = [one.weight for one in decided if one.weight]
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


def test_lottery_is_the_published_hash_and_fair() -> None:
    """SipHash-2-4's own test vector; draws are uniform, differ by seed, and are the same in every run."""
    first, second = (int.from_bytes(bytes(range(start, start + 8)), "little") for start in (0, 8))
    assert siphash24(SipKey(first, second), first, second) == 0x3F2ACC7F57C29BDB
    ids = [str(uuid.UUID(int=number * 7919)) for number in range(4000)] + ["content-1", "CONTENT-1"]
    key, other = sip_key("trailsift", "lottery"), sip_key("trailsift", "first")
    won = [siphash24(key, *event_key(one)) < threshold(0.2) for one in ids]
    also = [siphash24(other, *event_key(one)) < threshold(0.2) for one in ids]
    assert 700 < sum(won) < 900 and 700 < sum(also) < 900
    assert 110 < sum(a and b for a, b in zip(won, also, strict=True)) < 210
    assert event_key(ids[-1]) != event_key(ids[-2])


@pytest.mark.parametrize("name", PRESETS)
def test_ready_files_can_be_used(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are listed, shown, and pass their own check; denied calls, removals and management events stay."""
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
    """On the command line too."""
    path = tmp_path / "x.toml"
    path.write_text('[[rule]]\nname = "a"\naction = "keep"\nwhen = { user_agnt = "x" }\n')
    assert main(["rules", "check", str(path)]) == 2
    assert f'{path}, line 4: unknown condition "user_agnt": did you mean "user_agent"?' in capsys.readouterr().err
    assert main(["rules", "check", str(tmp_path / "none.toml")]) == 2
    assert main(["rules", "show", "time-of-dya"]) == 2
    assert "time-of-day" in capsys.readouterr().err


def many_rules(count: int) -> str:
    """A file of so many rules of mixed kinds, none of which covers another."""
    made = ['timezone = "Asia/Seoul"']
    for number in range(count):
        kind = (
            f'role = "arn:aws:iam::*:role/team-{number}-*", service = "s3"',
            f'resource = ["arn:aws:s3:::bucket-{number}", "arn:aws:s3:::copy-{number}"], event_name = "GetObject"',
            f'object_key = "data/{number}/*.parquet"',
            f'source_ip = "10.{number % 256}.{number // 256}.0/24", user_agent = "*agent-{number}*"',
            f'event_name = "Action{number}", hour = "09-17"',
        )[number % 5]
        action = ('action = "drop"', 'action = "sample"\nrate = 0.1', 'action = "keep"')[number % 3]
        made.append(f'[[rule]]\nname = "rule {number}"\nwhen = {{ {kind} }}\n{action}')
    return "\n".join(made)


def test_a_thousand_rules_cost_little_more_than_ten() -> None:
    """Twice at most, on rows of which some match (best of several turns, CPU time)."""
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
        taken = []
        for _ in range(5):
            begun = time.process_time()
            for one in rows:
                sifter.match(one)
            taken.append(time.process_time() - begun)
        return min(taken)

    few, many = (RowRules(parse(many_rules(count), "f")) for count in (10, 1000))
    assert best(many) < 2 * best(few) + 0.005


def test_files_on_the_pages_are_right() -> None:
    """What is shown can be used."""
    page = (ROOT / "docs" / "rules.md").read_text("utf-8")
    shown = page.split("```toml\n")[1:]
    assert shown
    for part in shown:
        parse(part.partition("```")[0], "rules.md")
