"""One finding as a note: what surrounds it, what to do next, and the list and the note on terminals of any width."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from support.records import sample
from trailsift import Lake
from trailsift.analysis.time_range import Period
from trailsift.detect.callers import anonymous_of
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.facts import facts_of
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.next_steps import sort_of_caller
from trailsift.detect.pipeline import FindingDetail, drill
from trailsift.detect.writer import Writer
from trailsift.query import DuckDBEngine
from trailsift.terminal.finding_detail import show_finding
from trailsift.terminal.findings import fitted, show_findings
from trailsift.times import HOUR, micros

BEGIN = datetime(2026, 3, 2, 9, tzinfo=UTC)
KIM = "arn:aws:iam::111122223333:user/staff/kim"
ROLE = "arn:aws:iam::111122223333:role/etl"
USER = {
    "type": "IAMUser",
    "arn": KIM,
    "accountId": "111122223333",
    "userName": "kim",
    "accessKeyId": "AKIAEXAMPLE000000001",
}
INSTANCE = {
    "type": "AssumedRole",
    "arn": "arn:aws:sts::111122223333:assumed-role/etl/i-0123456789abcdef0",
    "principalId": "AROAEXAMPLE:i-0123456789abcdef0",
    "accountId": "111122223333",
    "sessionContext": {"sessionIssuer": {"type": "Role", "arn": ROLE}},
}
BUCKET = "arn:aws:s3:::data"


def call(name: str, minutes: float, user: object = USER, **changes: Any) -> dict[str, Any]:
    """A call some minutes after the beginning."""
    changes.setdefault("sourceIPAddress", "198.51.100.7")
    time = f"{BEGIN + timedelta(minutes=minutes):%Y-%m-%dT%H:%M:%SZ}"
    return sample(eventName=name, eventTime=time, userIdentity=user, readOnly=name.startswith("Get"), **changes)


def management(name: str, minutes: float, user: object = USER) -> dict[str, Any]:
    """Make a management event."""
    changes = {"eventCategory": "Management", "resources": [], "requestParameters": None}
    return call(name, minutes, user, eventSource="cloudtrail.amazonaws.com", **changes)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A user stops the trail, reads forty objects with a key of its own, deletes some; a role comes from there, too."""
    folder = tmp_path_factory.mktemp("a lake")
    records = [management("StopLogging", -30), management("DescribeTrails", -20), management("DescribeTrails", -19)]
    for i in range(40):
        key = f"in/{i}.json"
        parameters = {"bucketName": "data", "key": key}
        resources = [
            {"type": "AWS::S3::Object", "ARN": f"{BUCKET}/{key}"},
            {"accountId": "111122223333", "type": "AWS::S3::Bucket", "ARN": BUCKET},
        ]
        records.append(call("GetObject", i / 10, requestParameters=parameters, resources=resources))
    records += [call("DeleteObject", 90 + i) for i in range(3)]
    records.append(call("GetObject", 2, INSTANCE))
    events = [record | {"eventID": f"n{number}"} for number, record in enumerate(records)]
    (folder / "log.json").write_text(json.dumps({"Records": events}))
    out = Lake(folder / "the lake")
    out.ingest(folder / "log.json")
    return out


def finding(caller: str = KIM, kind: str = "more_reads", **more: Any) -> Finding:
    """A finding of the reads."""
    first, last = micros(BEGIN), micros(BEGIN + timedelta(minutes=4))
    fields: dict[str, Any] = {"usual": 4.0, "event_name": "GetObject"} | more
    one = Signal(kind, caller, 5.0, first, last, fields.pop("value", "GetObject"), 40, **fields)
    return Finding("f0123456789", caller, 0.7, first, last, (one,), callers=(caller,), span=(first, last))


def detail(lake: Lake, one: Finding, language: Any = "en") -> FindingDetail:
    """Its note."""
    engine = lake._engine()
    assert isinstance(engine, DuckDBEngine)
    return drill(engine, one, 3, Writer(language), builtin_rules()[0])


def test_surroundings(lake: Lake) -> None:
    """Before and after by the same caller, the telling calls among them; others from its network; keys; sessions."""
    context = detail(lake, finding()).context
    assert [(act.event_name, act.events) for act in context.before] == [("StopLogging", 1), ("DescribeTrails", 2)]
    assert [(act.event_name, act.events) for act in context.after] == [("DeleteObject", 3)]
    assert [(other.caller, other.source_network) for other in context.neighbours] == [(ROLE, "198.51.100.0/24")]
    assert context.access_keys == ("AKIAEXAMPLE000000001",) and not context.incomplete
    assert [use.events for use in context.sessions] == [43]
    instance = detail(lake, finding(ROLE)).context
    assert [use.session_name for use in instance.sessions] == ["i-0123456789abcdef0"]
    assert instance.neighbours[0].caller == KIM


def test_facts(lake: Lake) -> None:
    """The data that the caller read, with one query; none if the hours hold mostly other calls, or for nobody."""
    engine = lake._engine()
    facts = facts_of(engine, [finding()])["f0123456789"]
    assert (facts.event_name, facts.resource_arn, facts.objects, facts.events) == ("GetObject", BUCKET, 40, 40)
    assert facts_of(engine, [finding(caller="none")]) == {} == facts_of(engine, [])
    few = finding(kind="first_network", value="198.51.100.0/24")
    few = Finding(**{**few.__dict__, "signals": (few.signals[0]._replace(events=2),)})
    assert facts_of(engine, [few]) == {}


@pytest.mark.parametrize("language", ["en", "ko"])
def test_what_to_do(lake: Lake, language: Any) -> None:
    """Commands run as they are, with the lake's path quoted; the key is named for AWS, and so is the data."""
    note = detail(lake, finding(resource_arn=BUCKET), language)
    commands = [shlex.split(step.command or "") for step in note.next]
    assert [words[1] for words in commands] == ["role", "query", "finding", "mute"]
    assert all(words[words.index("--lake") + 1] == str(lake.path) for words in commands)
    assert lake.role(commands[0][2]).role_arn == KIM
    assert len(lake.query(commands[1][2]).rows()) == 2
    about_data, about_key = note.in_aws
    assert "data" in about_data.does and about_data.command is None
    assert shlex.split(about_key.command or "") == [
        "aws", "iam", "update-access-key", "--status", "Inactive", "--access-key-id", "AKIAEXAMPLE000000001",
        "--user-name", "kim",
    ]  # fmt: skip
    instance = detail(lake, finding(ROLE, resource_arn=BUCKET), language).in_aws
    assert "i-0123456789abcdef0" in instance[1].does and "etl" in instance[1].does


def test_texts_of_the_detection_come_first(lake: Lake) -> None:
    """A detection says itself what it may be and what to do."""
    one = finding("anonymous", "detection", rule="opened-to-all", resource_arn=BUCKET, mitre=("T1530",))
    note = detail(lake, one)
    assert note.meaning and "public" in note.in_aws[0].does.lower() and "data" in note.in_aws[0].does
    assert (note.in_aws[1].command or "").startswith("aws s3api put-public-access-block --bucket data ")
    document = json.dumps(note.as_dict(), default=str)
    assert {"context", "next", "in_aws", "meaning", "technique_names"} <= json.loads(document).keys()


@pytest.mark.parametrize(
    ("caller", "sort"),
    [
        (KIM, "user"),
        (ROLE, "role"),
        ("arn:aws:iam::1:root", "root"),
        ("arn:aws:iam::1:role/aws-reserved/sso.amazonaws.com/AWSReservedSSO_A_0123456789abcdef", "sso"),
        ("arn:aws:iam::1:role/aws-service-role/x.amazonaws.com/AWSServiceRoleForX", "service"),
        ("arn:aws:sts::1:federated-user/kim", "other"),
        ("account:444455556666/AIDA", "foreign"),
        ("service:config.amazonaws.com", "service"),
        ("identity-center:d-1/u", "other"),
        ("anonymous", "anonymous"),
        (anonymous_of("192.0.2.0/24"), "anonymous"),
        ("none", "nobody"),
        (None, "nobody"),
    ],
)
def test_sorts_of_callers(caller: str | None, sort: str, lake: Lake) -> None:
    """Each sort has steps of its own, and a note in both languages."""
    assert sort_of_caller(caller) == sort
    one = finding(caller or KIM, "detection", rule="x", resource_arn=BUCKET)
    one = Finding(**{**one.__dict__, "caller": caller, "callers": (caller,)})
    for language in ("en", "ko"):
        steps = detail(lake, one, language).in_aws
        assert steps and all("{" not in step.does and "None" not in step.does for step in steps)


NAMES = [
    "etl",
    "orders-search-indexer-of-the-team-in-seoul",
    "계정 444455556666의 아주긴이름을가진사용자",
    "익명 호출자",
]


@pytest.mark.parametrize("width", [40, 80, 100, 120, 200])
@pytest.mark.parametrize("language", ["en", "ko"])
def test_list_fits(
    width: int, language: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line per finding, none wider than the terminal, columns under their headings whatever the script."""
    monkeypatch.setenv("COLUMNS", str(width))
    findings = [
        Finding(
            f"f{i:09d}", KIM, 0.9 - i / 5, micros(BEGIN) + i * HOUR, micros(BEGIN) + i * HOUR, (), who=who, what=what
        )
        for i, who in enumerate(NAMES)
        for what in ("한국어로 된 아주 긴 문장" * 9,)
    ]
    show_findings(findings, Period(), "/lakes/my lake", language)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) >= len(findings) + 4
    rows = lines[2 : 2 + len(findings)]
    assert [row.split()[0] for row in rows] == ["1", "2", "3", "4"]
    assert all(cell_len(line) <= width for line in lines[: 2 + len(findings)])
    assert len({cell_len(row[: row.index("한국어로")]) for row in rows}) == 1
    assert "…" in lines[-2] or "…" in lines[-3]
    assert lines[-1].endswith("trailsift finding 1 --lake '/lakes/my lake'")
    assert ("f000000001" in rows[1]) == (width >= 100)


def test_a_narrowed_list_has_ids(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranks are those of the whole list; hours over a threshold have no note."""
    one = finding()
    show_findings([one], Period(), "lake", ranked=False)
    assert "finding f0123456789 --lake lake" in capsys.readouterr().out
    show_findings([one], Period(), "lake", details=False)
    assert "trailsift finding" not in capsys.readouterr().out


def test_fitted() -> None:
    """Padded or cut to the column, at the end or in the middle."""
    assert fitted("abc", 5, "…") == "abc  "
    assert fitted("abcdefghij", 6, "…") == "abcde…"
    assert fitted("abcdefghij", 6, "…", middle=True) == "abc…ij"
    assert cell_len(fitted("가나다라마바사", 6, "…", middle=True)) == 6


@pytest.mark.parametrize("language", ["en", "ko"])
def test_note_on_a_terminal(
    language: Any, lake: Lake, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """First what happened, then why, what surrounds it, what to do, and the evidence; nothing but commands is wider."""
    monkeypatch.setenv("COLUMNS", "80")
    one = finding(resource_arn=BUCKET)
    show_finding(detail(lake, one, language), Period(), lake.path, language)
    out = capsys.readouterr().out
    texts = Writer(language).texts.labels
    places = [out.index(texts[name]) for name in ("why", "around", "do", "aws", "sessions")]
    assert places == sorted(places) and "StopLogging" in out and "T1530 Data from Cloud Storage" in out
    wide = [line for line in out.splitlines() if cell_len(line) > 80]
    assert all("trailsift " in line or line.startswith("    aws ") for line in wide), wide


def test_a_sampled_lake_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Counts are exact, single events may be missing."""
    (tmp_path / "rules.toml").write_text('[[rule]]\nname = "x"\nwhen = { event_name = "Get*" }\naction = "drop"\n')
    (tmp_path / "log.json").write_text(json.dumps({"Records": [call("GetObject", i) for i in range(3)]}))
    lake = Lake(tmp_path / "lake")
    lake.ingest(tmp_path / "log.json", rules=tmp_path / "rules.toml")
    note = detail(lake, finding())
    assert note.context.incomplete
    show_finding(note, Period(), lake.path)
    assert "counts are exact" in capsys.readouterr().out
