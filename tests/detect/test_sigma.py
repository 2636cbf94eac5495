"""Sigma rules of a folder: what runs, what cannot and why, and how matches become findings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("sigma", reason="pySigma is not installed: pip install 'trailsift[sigma]'")

from support.records import sample
from trailsift.api import Lake
from trailsift.cli import main
from trailsift.detect.correlate import correlate_signals
from trailsift.detect.event_scan import batches
from trailsift.detect.finding import Signal
from trailsift.detect.sigma import SigmaReport, load_sigma
from trailsift.errors import UsageError
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

Record = dict[str, Any]
BEGIN = datetime(2026, 3, 2, tzinfo=UTC)

RULE = """title: {title}
id: {id}
status: test
logsource:
    product: aws
    service: cloudtrail
detection:
    selection:
        {item}
    condition: {condition}
level: {level}
tags:
    - attack.persistence
    - attack.t1098
    - attack.t1098.001
"""


def rule(number: int, item: str = "eventName: CreateUser", **changes: str) -> str:
    fields = {"title": f"Rule {number}", "id": uuid(number), "condition": "selection", "level": "high"}
    return RULE.format(item=item, **fields | changes)


def uuid(number: int) -> str:
    return f"{number:08d}-aaaa-4000-8000-000000000000"


def loaded(folder: Path, files: dict[str, str]) -> SigmaReport:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    return load_sigma(folder)


# -- files -----------------------------------------------------------------------------------------------------------


def test_what_is_kept_of_a_rule(tmp_path: Path) -> None:
    report = loaded(tmp_path, {"deep/down/a.yml": rule(1), "b.yaml": rule(2, level="low")})
    one, two = sorted(report.rules, key=lambda each: each.id)
    assert (one.id, one.title, one.level, one.status, one.techniques) == (
        uuid(1), "Rule 1", "high", "test", ("T1098", "T1098.001"),
    )  # fmt: skip
    assert (one.path, one.line) == (str(tmp_path / "deep/down/a.yml"), 1)
    assert one.detection.id == f"sigma:{uuid(1)}" and one.detection.history == 0
    assert not one.detection.supporting and two.detection.supporting
    assert not report.problems and report.other_logs == 0


BAD = {
    "not YAML": ("title: [x\nid: }\n", 2, "is not valid YAML"),
    "not a rule": ("- a\n- b\n", 1, "is not a rule"),
    "another file": ("name: docker\nservices: {}\n", 1, "no title, logsource and detection"),
    "bytes": ("", 3, "is not UTF-8"),
    "no condition": (rule(1).replace("    condition: selection\n", ""), 1, "condition"),
    "condition": (rule(1, condition="selection and (x"), 10, ""),
    "condition of nothing": (rule(1, condition="other"), 10, "'other' not defined"),
    "selector of nothing": (rule(1, condition="1 of filter_*"), 10, "doesn't match any detection"),
    "modifier": (rule(1, "eventName|sounds: x"), 9, "sounds"),
    "placeholder": (rule(1, "userIdentity.userName|expand: '%admins%'"), 1, "%admins%"),
    "regular expression": (rule(1, "userAgent|re: 'a(?=b)'"), 9, "invalid"),
    "back reference": (rule(1, r"userAgent|re: '(a)\1'"), 9, "invalid"),
    "long expression": (rule(1, f"userAgent|re: '{'a' * 3000}'"), 1, "at most 2,000"),
    "network": (rule(1, "sourceIPAddress|cidr: 10.0.0.0/99"), 9, "CIDR"),
    "compared with a text": (rule(1, "eventName|gt: many"), 9, ""),
    "part of a time": (rule(1, "userAgent|hour: 3"), 1, "eventTime only"),
    "level": (rule(1, level="huge"), 11, "huge"),
    "empty field": (rule(1, "'a..b': x"), 9, "not the name of a field"),
    "NUL": (rule(1, 'userAgent: "a\\0b"'), 1, "NUL"),
    "deep": ("x: " + "[" * 40 + "]" * 40 + "\n", 1, "levels deep"),
    "aliases": ("a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
        f"{n}: &{n} [{','.join([f'*{before}'] * 10)}]\n" for before, n in zip("abcdef", "bcdefg", strict=True)
    ), 4, "aliases written out"),
    "circle": ("a: &a [*a]\n", 1, "stands for nothing"),
    "code": ("a: !!python/object/apply:os.system ['true']\n", 1, "is not valid YAML"),
    "parentheses": (rule(1, condition="(" * 30 + "selection" + ")" * 30), 1, "parentheses"),
    "long condition": (rule(1, condition="not " * 900 + "selection"), 1, "characters"),
    "action": ("action: global\ntitle: x\n", 1, "'action'"),
    "large": ("#" * 300_000, 1, "larger than"),
    "many documents": ("---\na: 1\n" * 300, 401, "documents"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_rule_is_named_and_the_others_run(tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]) -> None:
    """File, line and reason; nothing is raised or printed, whatever a file holds."""
    text, line, reason = BAD[name]
    (tmp_path / "bad.yml").write_bytes(b"a: 1\nb: 2\nc: \xff\n" if name == "bytes" else text.encode())
    report = loaded(tmp_path, {"good.yml": rule(9)})
    assert [each.title for each in report.rules] == ["Rule 9"]
    (problem,) = report.problems
    assert problem.path == str(tmp_path / "bad.yml") and reason in problem.text, problem
    assert problem.line == line, problem
    assert capfd.readouterr() == ("", "")


def test_other_logs_are_counted(tmp_path: Path) -> None:
    windows = rule(1).replace(
        "product: aws\n    service: cloudtrail", "product: windows\n    category: process_creation"
    )
    report = loaded(
        tmp_path, {"a.yml": windows, "b.yml": rule(2), "c.yml": rule(3).replace("    service: cloudtrail\n", "")}
    )
    assert report.other_logs == 1 and len(report.rules) == 2 and not report.problems


def test_one_id_twice(tmp_path: Path) -> None:
    report = loaded(tmp_path, {"a.yml": rule(1), "b.yml": rule(1)})
    assert len(report.rules) == 1 and "has the same id as" in report.problems[0].text


def test_member_that_records_do_not_have(tmp_path: Path) -> None:
    (only,) = loaded(tmp_path, {"a.yml": rule(1, "status: success")}).rules
    assert only.notes == ("records of CloudTrail have no member status",)


def test_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        load_sigma(tmp_path / "none")
    with pytest.raises(UsageError, match=r"has no \.yml file"):
        load_sigma(tmp_path)


# -- findings --------------------------------------------------------------------------------------------------------


def call(number: int, name: str, at: timedelta, user: str = "eve", **changes: Any) -> Record:
    source = changes.pop("source", "iam.amazonaws.com")
    return sample(
        eventID=f"{number:08d}-0000-4000-8000-000000000000",
        eventName=name,
        eventSource=source,
        eventTime=f"{BEGIN + at:%Y-%m-%dT%H:%M:%SZ}",
        eventCategory="Management",
        managementEvent=True,
        readOnly=False,
        resources=None,
        additionalEventData=None,
        userIdentity={
            "type": "IAMUser", "principalId": f"AIDA{user}", "arn": f"arn:aws:iam::111122223333:user/{user}",
            "accountId": "111122223333", "accessKeyId": "AKIA1", "userName": user,
        },
        **{"requestParameters": {"userName": "x"}} | changes,
    )  # fmt: skip


def stored(folder: Path, records: list[Record], name: str = "a") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps({"Records": records}), "utf-8")
    ingest([str(folder / f"{name}.json")], folder / "lake")
    return folder / "lake"


SECOND = timedelta(seconds=1)
RECORDS = [
    *(call(n, "ListBuckets", n * SECOND, source="s3.amazonaws.com") for n in range(10)),
    call(20, "CreateUser", 100 * SECOND, requestParameters={"userName": "mallory"}),
    call(21, "AttachUserPolicy", 120 * SECOND, requestParameters={"userName": "mallory"}),
    call(22, "DeleteTrail", 130 * SECOND, user="adam", source="cloudtrail.amazonaws.com"),
    *(call(30 + n, "GetUser", timedelta(days=3) + n * SECOND, user="bob") for n in range(3)),
    call(40, "CreateUser", timedelta(days=3), user="carol", requestParameters={"userName": "dora"}),
    call(41, "AttachUserPolicy", timedelta(days=3, minutes=20), user="carol", requestParameters={"userName": "dora"}),
    call(42, "AttachUserPolicy", timedelta(days=4), user="zoe", requestParameters={"userName": "first"}),
    call(43, "CreateUser", timedelta(days=4, seconds=5), user="zoe", requestParameters={"userName": "first"}),
    *(call(50 + n, "GetUser", timedelta(days=5, hours=n), user="slow") for n in range(3)),
]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield stored(tmp_path_factory.mktemp("sigma"), RECORDS)


def found(lake: Path, folder: Path) -> dict[str, set[str]]:
    """Return the ids of rules in findings, by the name of the leading caller."""
    with Lake(lake) as handle:
        result = handle.detect(sigma=folder, budget=0)
    assert not result.problems, result.problems
    out: dict[str, set[str]] = {}
    for finding in result.findings:
        who = (finding.caller or "").rpartition("/")[2]
        out.setdefault(who, set()).update(name.removeprefix("sigma:") for name in finding.rules if "sigma" in name)
    return out


def test_matches_are_signals_of_findings(lake: Path, tmp_path: Path) -> None:
    """A high rule makes a finding with its technique; a low one only joins it, and never is one."""
    low = rule(2, "eventSource: s3.amazonaws.com", level="low")
    loaded(tmp_path, {"a.yml": rule(1), "b.yml": low, "c.yml": rule(3, "eventName: GetUser", level="informational")})
    by_caller = found(lake, tmp_path)
    assert by_caller["eve"] == {uuid(1), uuid(2)}
    assert not {"bob", "slow"} & set(by_caller)
    with Lake(lake) as handle:
        result = handle.detect(sigma=tmp_path, budget=0)
        eve = next(each for each in result.findings if "user/eve" in str(each.caller))
        assert eve.severity == "high" and {"T1098", "T1098.001"} <= set(eve.techniques)
        assert eve.as_dict()["rules"][0] == f"sigma:{uuid(1)}" and "Rule 1" in eve.title
        assert handle.find(eve.id, sigma=tmp_path).id == eve.id
        assert handle.finding(eve.id, sigma=tmp_path).meaning == "Rule 1"
    assert result.sigma is not None
    assert {each.id: each.hits for each in result.sigma.rules} == {uuid(1): 3, uuid(2): 10, uuid(3): 6}


def test_supporting_signals_add_little() -> None:
    """They change neither time nor id, add at most half of what there is, and are nothing by themselves."""

    def signal(kind: str, rarity: float, name: str | None, hour: float = 1) -> Signal:
        at = int(hour * 3_600_000_000)
        return Signal(kind, "arn:aws:iam::1:user/a", rarity, at, at, "v", 1, rule=name)

    support = [signal("detection", 0.6, f"sigma:{number}", hour=0.5) for number in range(20)]
    assert correlate_signals(support, 0) == []
    (alone,) = correlate_signals([signal("first_network", 2.2, None)])
    (more,) = correlate_signals([signal("first_network", 2.2, None), *support])
    assert alone.score < more.score < 1.5 * 2.2 / (1.5 * 2.2 + 3) + 1e-9
    assert (more.id, more.first_time, more.span) == (alone.id, alone.first_time, alone.span)
    assert more.signals[0].kind == "first_network" and len(more.signals) == 21


CORRELATION = """title: {title}
id: {id}
correlation:
    type: {type}
    rules: [{rules}]
    group-by: [{group}]
    timespan: {span}
    {more}
level: high
"""


def correlation(number: int, type_: str, rules: str, **changes: str) -> str:
    fields = {"title": f"Correlation {number}", "group": "userIdentity.arn", "span": "10m", "more": "generate: false"}
    return CORRELATION.format(id=uuid(number), type=type_, rules=rules, **fields | changes)


def named(number: int, name: str, item: str) -> str:
    return rule(number, item).replace("status: test", f"name: {name}")


BASES = "---\n".join(
    [
        named(1, "listed", "eventName: ListBuckets"),
        named(2, "created", "eventName: CreateUser"),
        named(3, "attached", "eventName: AttachUserPolicy"),
        named(4, "looked", "eventName: GetUser"),
    ]
)
CORRELATIONS = {
    "event_count": (correlation(9, "event_count", "listed", more="condition: {gte: 10}"), {"eve"}),
    "event_count too few": (correlation(9, "event_count", "listed", more="condition: {gt: 10}"), set()),
    "event_count in time": (correlation(9, "event_count", "looked", more="condition: {gte: 3}"), {"bob"}),
    "event_count of a day": (
        correlation(9, "event_count", "looked", span="1d", more="condition: {gte: 3}"), {"bob", "slow"},
    ),
    "event_count of exactly": (correlation(9, "event_count", "looked", more="condition: {eq: 2}"), {"bob"}),
    "value_count": (
        correlation(9, "value_count", "created, attached", group="eventSource", span="7d",
                    more="condition: {gte: 3, field: requestParameters.userName}"), {"zoe"},
    ),
    "temporal": (correlation(9, "temporal", "created, attached"), {"eve", "zoe"}),
    "temporal of an hour": (correlation(9, "temporal", "created, attached", span="1h"), {"eve", "zoe", "carol"}),
    "temporal_ordered": (correlation(9, "temporal_ordered", "created, attached"), {"eve"}),
    "ordered in an hour": (correlation(9, "temporal_ordered", "created, attached", span="1h"), {"eve", "carol"}),
    "alias": (
        correlation(9, "temporal_ordered", "created, attached", group="who",
                    more="aliases: {who: {created: requestParameters.userName, attached: requestParameters.userName}}"),
        {"eve"},
    ),
    "missing group": (correlation(9, "event_count", "looked", group="errorCode", more="condition: {gte: 1}"), set()),
}  # fmt: skip


@pytest.mark.parametrize("name", CORRELATIONS)
def test_correlation(lake: Path, tmp_path: Path, name: str) -> None:
    """Who is found; the base rules are not, unless the correlation says so."""
    text, callers = CORRELATIONS[name]
    report = loaded(tmp_path, {"a.yml": BASES, "b.yml": text})
    assert not report.problems, report.problems
    (detection,) = [each for each in report.detections if each.id == f"sigma:{uuid(9)}"]
    with DuckDBEngine(open_snapshot(lake)) as engine:
        rows = engine.query(detection.sql).dicts()
    assert {row["caller"].rpartition("/")[2] for row in rows} == callers
    hidden = {each.id for each in report.rules if each.hidden}
    assert hidden and uuid(9) not in hidden


UNTRANSLATED = {
    "no base rule": (correlation(9, "event_count", "nothing", more="condition: {gte: 2}"), 5, "'nothing' is not among"),
    "type": (correlation(9, "value_sum", "listed", more="condition: {gte: 2, field: x}"), 1, "value_sum"),
    "condition": (correlation(9, "event_count", "listed", more="condition: {lt: 2}"), 1, "condition lt"),
    "joined": (correlation(9, "temporal", "created", more="condition: created and not attached"), 8, "attached"),
    "joined rules": (correlation(9, "temporal", "created, looked", more="condition: created or looked"), 1, "by and"),
    "alias": (
        correlation(9, "temporal", "created, attached", group="who", more="aliases: {who: {created: eventName}}"), 1,
        "does not say what it is in the events of attached",
    ),
    "long": (correlation(9, "event_count", "listed", span="9y", more="condition: {gte: 2}"), 1, "at most 400 days"),
    "span": (correlation(9, "event_count", "listed", span="soon", more="condition: {gte: 2}"), 7, "soon"),
}  # fmt: skip


@pytest.mark.parametrize("name", UNTRANSLATED)
def test_correlation_that_is_not_translated(tmp_path: Path, name: str) -> None:
    text, line, reason = UNTRANSLATED[name]
    report = loaded(tmp_path, {"a.yml": BASES, "b.yml": text})
    (problem,) = report.problems
    assert reason in problem.text and problem.path.endswith("b.yml") and problem.line == line, problem


def test_later_runs_read_what_is_new(tmp_path: Path) -> None:
    """Matches of settled days are kept: a run asks for the days from there on, and finds the same."""
    days = [call(100 + n, "CreateUser", timedelta(days=n), user=f"u{n % 3}") for n in range(12)]
    place = stored(tmp_path / "x", days[:9])
    (tmp_path / "rules").mkdir()
    report = loaded(
        tmp_path / "rules", {"a.yml": rule(1), "b.yml": rule(2, "eventSource: iam.amazonaws.com", level="low")}
    )
    with Lake(place) as handle:
        handle.detect(sigma=report, budget=0)
        stored(tmp_path / "x", days[9:], "b")
        later = handle.detect(sigma=report, budget=0)
        again = handle.detect(sigma=report, budget=0, full_refresh=True)
    assert [each.as_dict() for each in later.findings] == [each.as_dict() for each in again.findings]
    assert later.hits == again.hits and later.hits[f"sigma:{uuid(1)}"] == 12
    ((sql, since, places),) = batches([(5, report.rules[0].detection.scan, 3)])  # type: ignore[list-item]
    assert (since, places) == (3, (5,)) and "service IN" not in sql


def test_files_of_other_services_are_not_read(lake: Path, tmp_path: Path) -> None:
    """Where every rule names its source, only that service's partitions are opened."""
    report = loaded(tmp_path, {"a.yml": rule(1, "eventSource: cloudtrail.amazonaws.com")})
    with DuckDBEngine(open_snapshot(lake)) as engine:
        plan = engine.plan(report.detections[0].sql)
        every = engine.plan("SELECT count(event_name) FROM events")
    assert 0 < len(plan.files["events"]) < len(every.files["events"])


def test_command(lake: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary comes once, at the end of standard error; hostile texts of rules stay on their line."""
    evil = rule(3).replace("Rule 3", '"\\e[31m\\u202e evil"').replace("CreateUser", "DeleteTrail")
    loaded(tmp_path, {"a.yml": rule(1), "b.yml": evil, "c.yml": rule(2, "eventName|sounds: x")})
    assert main(["detect", "--lake", str(lake), "--sigma", str(tmp_path)]) == 3
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "\u202e" not in shown.out + shown.err
    assert shown.err.rstrip().splitlines()[-1].startswith("trailsift: Sigma: 2 of 3 rules ran")
    assert f"{tmp_path / 'c.yml'}:9: " in shown.err
    assert main(["detect", "--lake", str(lake), "--sigma", str(tmp_path), "--json"]) == 3
    document = json.loads(capsys.readouterr().out)["sigma"]
    assert [each["level"] for each in document["ran"]] == ["high", "high"]
    assert document["could_not_run"][0]["line"] == 9 and document["other_logs"] == 0
    assert main(["detect", "--check", "--sigma", str(tmp_path)]) == 1
    assert "Sigma: 2 of 3 rules can run" in capsys.readouterr().out


def test_events_that_are_not_stored(tmp_path: Path) -> None:
    """No rule sees what a rules file dropped, and the report says so."""
    (tmp_path / "drop.toml").write_text(
        '[[rule]]\nname = "x"\nwhen = { event_name = "ListBuckets" }\naction = "drop"\n'
    )
    (tmp_path / "a.json").write_text(json.dumps({"Records": RECORDS}), "utf-8")
    with Lake(tmp_path / "lake") as handle:
        handle.ingest(tmp_path / "a.json", rules=tmp_path / "drop.toml")
        report = loaded(tmp_path / "rules", {"a.yml": rule(1, "eventName: ListBuckets")})
        result = handle.detect(sigma=report)
    assert result.sigma is not None and result.sigma.unseen[0].startswith("10 of 23 events are not stored")
