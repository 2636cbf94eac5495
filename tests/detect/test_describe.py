"""Sentences of findings: singular and plural, callers without a role, times, and Korean particles."""

from __future__ import annotations

import re
from typing import Any

import pytest

from trailsift.detect.describe import describe
from trailsift.detect.detection_rules import builtin_rules, parse
from trailsift.detect.facts import Facts
from trailsift.detect.finding import KINDS, Finding, Signal
from trailsift.detect.particles import Word
from trailsift.detect.techniques import TECHNIQUES, named
from trailsift.detect.texts import TEXTS
from trailsift.detect.writer import LONGEST, clipped, short_caller
from trailsift.times import DAY, HOUR

ROLE, BUCKET = "arn:aws:iam::1:role/etl", "arn:aws:s3:::b"
MONDAY = 20_514 * DAY  # 2026-03-02
LANGUAGES = ("en", "ko")


def finding(*signals: Signal, role: str | None = ROLE, last: int = HOUR) -> Finding:
    """A finding of some signals."""
    return Finding("f", role, 0.5, MONDAY, MONDAY + last, signals)


def signal(kind: str, **more: Any) -> Signal:
    """One signal of the role."""
    fields = {"value": "GetObject", "events": 5, "event_name": "GetObject", "resource_arn": BUCKET} | more
    return Signal(kind, fields.pop("caller", ROLE), fields.pop("rarity", 3.0), MONDAY, MONDAY + HOUR, **fields)


@pytest.mark.parametrize(
    ("one", "english", "korean"),
    [
        (
            signal("more_reads", events=134, usual=4.0),
            (
                "called GetObject 134 times on b",
                "GetObject 134 times in one hour; usually at most 4 at this time of day",
            ),
            ("GetObject를 134회 호출함, b", "한 시간에 GetObject 134회 호출, 평소 같은 시간대에는 4 이하"),
        ),
        (
            signal("more_bytes", value="more_bytes", events=12_500_000_000, event_name=None, usual=12_000_000.0),
            (
                "downloaded 12.5 GB from b",
                "12.5 GB downloaded in one hour; usually at most 12.0 MB at this time of day",
            ),
            ("b에서 12.5 GB를 다운로드함", "한 시간에 12.5 GB 다운로드, 평소 같은 시간대에는 12.0 MB 이하"),
        ),
        (
            signal("more_denied", value="more_denied", events=1, event_name=None, resource_arn=None),
            ("was denied once", "denied once in one hour; usually none at this time of day"),
            ("1회 거부됨", "한 시간에 1회 거부됨, 평소 같은 시간대에는 없음"),
        ),
        (
            signal("first_action", value="s3:GetObject", events=1),
            (
                "called s3:GetObject for the first time (1 call on b)",
                "1 call of s3:GetObject on b, which it never called before",
            ),
            ("s3:GetObject를 처음 호출함 (1회, b)", "s3:GetObject를 1회 호출함, b, 전에는 호출한 적 없음"),
        ),
        (
            signal("detection", value="Objects read anonymously", value_ko="익명으로 객체를 읽음", events=1),
            ("Objects read anonymously (1 call: GetObject on b)",) * 2,
            ("익명으로 객체를 읽음 (1회, GetObject, b)",) * 2,
        ),
        (
            signal("detection", value="Many buckets listed", events=1_200, resource_arn=None),
            ("Many buckets listed (1,200 calls, e.g. GetObject)",) * 2,
            ("Many buckets listed (1,200회, GetObject 등)",) * 2,
        ),
        (
            signal("first_pattern", value=f"{BUCKET}/x/{{n}}.enc", event_name="PutObject", events=2),
            (
                "wrote 2 objects of a new kind, x/{n}.enc in b",
                "2 objects named like x/{n}.enc in b; it never wrote such objects before",
            ),
            (
                "b의 새로운 종류의 객체 x/{n}.enc 2개를 씀",
                "b의 x/{n}.enc 모양의 객체 2개를 씀, 전에는 그런 적 없음",
            ),
        ),
        (
            signal("over_threshold", events=1, usual=0.0),
            ("called GetObject once within an hour on b", "GetObject once within an hour; the threshold is 0"),
            ("한 시간에 GetObject를 1회 호출함, b", "한 시간에 GetObject 1회 호출 (기준 0회)"),
        ),
        (
            signal(
                "burst",
                events=4_120,
                usual=40.0,
                resource_arn=None,
                basis="prior",
                parts=(("keys", 4_120.0, 40.0, 0.0),),
            ),
            (
                "touched 4,120 distinct objects within an hour",
                "4,120 distinct objects in an hour (usually at most 40); compared with what is typical of such callers",
            ),
            (
                "한 시간 안에 서로 다른 객체 4,120개에 접근함",
                "한 시간에 서로 다른 객체 4,120개(평소 40 이하) (그런 호출자의 일반적인 값과 비교)",
            ),
        ),
    ],
)
def test_sentences(one: Signal, english: tuple[str, str], korean: tuple[str, str]) -> None:
    """The first line says what was done, a reason why that is unusual."""
    for language, (what, reason) in (("en", english), ("ko", korean)):
        described = describe(finding(one), language)  # type: ignore[arg-type]
        assert (described.what, described.reasons) == (what, (reason,))


def test_title() -> None:
    """Who, what and when; one thing only. What a detection says of its own is a sentence, its title follows a colon."""
    surge, first = (
        signal("more_denied", events=30, rarity=4.0, resource_arn=None),
        signal("first_network", value="192.0.2.0/24", rarity=1.0),
    )
    english = describe(finding(surge, first))
    assert english.title == "etl was denied 30 times, mostly GetObject, on 2026-03-02, 00:00 to 01:00 (UTC)"
    assert (english.who, len(english.reasons)) == ("etl", 2)
    korean = describe(finding(surge, first), "ko").title
    assert korean == "etl이 30회 거부됨, 주로 GetObject, 2026-03-02 00:00~01:00 (UTC)"
    bad = signal("detection", value="Root user accesses data", rule="mine")
    moment = describe(finding(bad, last=59)).title
    assert moment == "etl: Root user accesses data (5 calls, e.g. GetObject on b), on 2026-03-02 at 00:00 (UTC)"
    rule = parse("mine.toml", _TOML.format(line='did = "emptied {resource} ({calls})"'))
    days = describe(finding(bad, last=3 * DAY), rules={"mine": rule}).title
    assert days == "etl emptied b (5 calls), from 2026-03-02 00:00 to 2026-03-05 00:00 (UTC)"


def test_several_callers() -> None:
    """The others are named, and why they are in one finding."""
    one = signal("first_network", value="192.0.2.0/24")
    company = Finding("f", ROLE, 0.5, MONDAY, MONDAY, (one,), callers=(ROLE, "arn:aws:iam::1:user/kim"))
    described = describe(company)
    assert described.who == "etl and kim"
    assert described.reasons[-1].startswith("joined with kim: the same network")
    assert describe(company, "ko").reasons[-1].startswith("kim과 함께 묶임: ")


def test_facts_name_the_data() -> None:
    """The hourly summary names what was read if the signal does not; distinct objects are counted."""
    reads = signal("more_reads", events=5_827, usual=40.0, resource_arn=None)
    facts = Facts("GetObject", "arn:aws:s3:::ledger", 3, 4_120, 5_827, 12_400_000_000)
    english = describe(finding(reads), facts=facts)
    assert english.what == "read 4,120 objects in ledger and 2 other resources (5,827 calls, 12.4 GB)"
    assert english.reasons == ("GetObject 5,827 times in one hour; usually at most 40 at this time of day",)
    korean = describe(finding(reads), "ko", facts=facts).what
    assert korean == "ledger 외 리소스 2개의 객체 4,120개를 읽음 (5,827회, 12.4 GB)"
    other = signal("first_network", value="192.0.2.0/24", resource_arn=None, event_name=None, events=9)
    facts = Facts("GetItem", "arn:aws:dynamodb:us-east-1:1:table/t", 1, 0, 9, 0)
    assert describe(finding(other), facts=facts).what == (
        "came from a new network, 192.0.2.0/24 (9 calls, mostly GetItem on table/t)"
    )


def test_a_service_is_not_a_network() -> None:
    """Calls through a service of AWS come from no network."""
    one = signal("first_network", value="cloudformation.amazonaws.com", events=2)
    described = describe(finding(one))
    assert described.what == "acted through cloudformation.amazonaws.com for the first time (2 calls)"
    assert described.reasons[0].startswith("2 calls through cloudformation.amazonaws.com, a service that")
    assert describe(finding(one), "ko").what == "cloudformation.amazonaws.com을 통해 처음 활동함 (2회)"


@pytest.mark.parametrize(
    ("past", "basis", "ending"),
    [
        (0, "own", "; no history before that day"),
        (1, "own", "; only 1 day of history"),
        (2, "day", "; only 2 days of history"),
        (2, "peers", "before"),
        (30, "own", "before"),
        (None, "own", "before"),
    ],
)
def test_short_past(past: int | None, basis: str, ending: str) -> None:
    """A reason that rests on a short past says so."""
    one = signal("first_network", value="192.0.2.0/24", past=past, basis=basis)
    assert describe(finding(one)).reasons[0].endswith(ending)


@pytest.mark.parametrize(
    ("rule", "english", "korean"),
    [
        ("anonymous-reads", "anonymous caller: ", "익명 호출자: "),
        ("foreign-account", "caller from another account: ", "다른 계정의 호출자: "),
    ],
)
def test_caller_without_role(rule: str, english: str, korean: str) -> None:
    """Anonymous, or known to be from another account."""
    one = finding(signal("detection", caller=None, rule=rule), role=None)
    assert describe(one).title.startswith(english) and describe(one, "ko").title.startswith(korean)


@pytest.mark.parametrize(
    ("word", "particle", "written"),
    [
        ("객체", "을/를", "객체를"),
        ("버킷", "을/를", "버킷을"),
        ("GetObject", "을/를", "GetObject를"),
        ("Scan", "을/를", "Scan을"),
        ("GetBucketAcl", "을/를", "GetBucketAcl을"),
        ("Boto3/1.37.4", "을/를", "Boto3/1.37.4를"),
        ("vpce-013", "을/를", "vpce-013을"),
        ("111122223330", "으로/로", "111122223330으로"),
        ("111122223331", "으로/로", "111122223331로"),
        ("서울", "으로/로", "서울로"),
        ("[aws-internal/6]", "을/를", "[aws-internal/6]을"),
        ("etl", "이/가", "etl이"),
        ("??", "을/를", "??을(를)"),
    ],
)
def test_korean_particles(word: str, particle: str, written: str) -> None:
    """The particle follows the last syllable as it is read."""
    assert f"{Word(word):{particle}}" == written
    assert f"{Word(word)}" == word


_LEFT_OVER = re.compile(r"\{(?!n\})|\(를\)|\(가\)|None|  ")


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_described(kind: str, language: Any) -> None:
    """Each kind says what was done and why it is unusual, without open placeholders and choices of a particle."""
    parts = (("keys", 5.0, 2.0, 0.4), ("over", 5.0, 3.0, 2.0))
    bare: dict[str, Any] = {"resource_arn": None, "parts": parts}
    # Calls that are low and slow have a name.
    bare |= {} if kind == "drip_reads" else {"event_name": None}
    for more in ({}, {"usual": 3.0, "parts": parts}, bare):
        described = describe(finding(signal(kind, **more)), language)
        for sentence in (described.title, described.what, *described.reasons):
            assert sentence and not _LEFT_OVER.search(sentence), sentence


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_detection_is_described(language: Any) -> None:
    """Each built-in detection says what was done and, if it has one, the step in AWS, in both languages."""
    rules = {rule.id: rule for rule in builtin_rules()[0]}
    for rule in rules.values():
        assert (rule.did is None) == (rule.did_ko is None) and (rule.next is None) == (rule.next_ko is None), rule.id
        for resource in (BUCKET, None):
            one = signal(
                "detection",
                value=rule.title,
                value_ko=rule.title_ko,
                rule=rule.id,
                mitre=rule.mitre,
                resource_arn=resource,
            )
            described = describe(finding(one), language, rules=rules)
            for sentence in (described.title, described.what, *described.reasons):
                assert sentence and not _LEFT_OVER.search(sentence), sentence
        assert all(name in TECHNIQUES for name in rule.mitre), (rule.id, rule.mitre)


def test_both_languages_have_the_same_texts() -> None:
    """Every text has its counterpart, with the same placeholders but for those that Korean needs no word for."""
    english, korean = TEXTS["en"], TEXTS["ko"]
    for member, texts in english._asdict().items():
        assert texts.keys() == getattr(korean, member).keys(), member
    assert english.did.keys() == english.reasons.keys() == set(KINDS)
    assert all(technique is None or technique in TECHNIQUES for technique in KINDS.values())


def test_names_are_bounded() -> None:
    """However long a name, the sentence is not; a name of Identity Center's is shown as people know it."""
    one = signal(
        "first_agent", value="x" * 10_000, caller=f"arn:aws:iam::1:role/{'r' * 10_000}", resource_arn="b" * 9_999
    )
    described = describe(Finding("f", one.caller, 0.5, MONDAY, MONDAY, (one,)), clean=lambda text: text * 9)
    assert len(described.title) < 8 * LONGEST and all(len(reason) < 8 * LONGEST for reason in described.reasons)
    assert clipped("a" * 50 + "b" * 950 + "c" * 50, 30) == "a" * 17 + "..." + "c" * 10
    assert short_caller("arn:aws:iam::1:role/aws-reserved/sso/AWSReservedSSO_Analyst_5f0e1b7c2d94a638") == "Analyst"
    assert short_caller("arn:aws:iam::111122223333:root") == "root (111122223333)"
    assert named(["T1530", "T9999"]) == ["T1530 Data from Cloud Storage", "T9999"]


_TOML = """
title = "Plans read"
severity = "high"
description = "Only the board reads them."
sql = "SELECT 1"
{line}
[[matches]]
event = "s3:GetObject"
[[ignores]]
event = "s3:GetObject"
"""


def test_texts_of_a_detection() -> None:
    """Its acts and next steps may have placeholders; others, and what is not a sentence, are mistakes."""
    rule = parse("plans.toml", _TOML.format(line='did = "read {resource} ({calls})"\nnext_ko = "{caller:을/를} 확인"'))
    assert (rule.did, rule.did_ko, rule.next_ko) == ("read {resource} ({calls})", None, "{caller:을/를} 확인")
    for line in ('did = "read {key}"', 'did = "{resource!r}"', 'did = "{resource:>9999}"', 'next = "{"', "did_ko = 1"):
        with pytest.raises(Exception, match=r"is a sentence; its placeholders are \{resource\}") as raised:
            parse("plans.toml", _TOML.format(line=line))
        assert raised.value.line == 6  # type: ignore[attr-defined]
