"""Sentences of findings: singular and plural, callers without a role, times, and Korean particles."""

from __future__ import annotations

from typing import Any

import pytest

from trailsift.detect.describe import describe
from trailsift.detect.detection_rules import parse
from trailsift.detect.finding import KINDS, Finding, Signal
from trailsift.detect.particles import Word
from trailsift.times import DAY, HOUR

ROLE, BUCKET = "arn:aws:iam::1:role/etl", "arn:aws:s3:::b"
MONDAY = 20_514 * DAY  # 2026-03-02


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
            signal("more_reads", events=134, usual=1.0),
            "called GetObject 134 times, 134x its previous peak for this hour",
            "GetObject 134회 호출, 같은 시간대 최대치의 134배",
        ),
        (
            signal("more_bytes", value="more_bytes", events=12_500_000_000, event_name=None),
            "downloaded 12.5 GB, normally none at this hour",
            "12.5 GB를 다운로드함, 같은 시간대에는 없던 일",
        ),
        (
            signal("first_action", value="s3:GetObject", events=1),
            "called s3:GetObject for the first time (1 call on b)",
            "s3:GetObject를 처음 호출함, 1회 (b)",
        ),
        (
            signal("detection", value="Objects read anonymously", value_ko="익명으로 객체를 읽음", events=1),
            "Objects read anonymously (1 call: GetObject on b)",
            "익명으로 객체를 읽음: GetObject 1회 (b)",
        ),
        (
            signal("detection", value="Many buckets listed", events=1_200, resource_arn=None),
            "Many buckets listed (1,200 calls, e.g. GetObject)",
            "Many buckets listed: GetObject 등 1,200회",
        ),
        (
            signal("first_pattern", value=f"{BUCKET}/x/{{n}}.enc", event_name="PutObject", events=2),
            "wrote 2 objects with a new key pattern, x/{n}.enc in b",
            "새로운 종류의 객체 x/{n}.enc (b) 2개를 씀",
        ),
        (
            signal("over_threshold", events=1, usual=0.0),
            "called GetObject once within an hour (threshold: 0)",
            "한 시간에 GetObject 1회 호출 (기준 0회)",
        ),
    ],
)
def test_sentences(one: Signal, english: str, korean: str) -> None:
    """The same signal in both languages."""
    assert describe(finding(one)).reasons == (english,)
    assert describe(finding(one), "ko").reasons == (korean,)


def test_title() -> None:
    """Role, sentence, time, and a second reason; a detection follows a colon."""
    surge, first = (
        signal("more_denied", events=30, rarity=4.0),
        signal("first_network", value="192.0.2.0/24", rarity=1.0),
    )
    english = describe(finding(surge, first)).title
    assert english == (
        "etl was denied 30 times, normally none at this hour, between 2026-03-02 00:00 and 01:00 (UTC); "
        "also called from 192.0.2.0/24 for the first time (5 calls)"
    )
    assert "; 그리고 192.0.2.0/24 네트워크에서" in describe(finding(surge, first), "ko").title
    moment = describe(finding(signal("detection", value="Root user accesses data"), last=59)).title
    assert moment == "etl: Root user accesses data (5 calls, e.g. GetObject on b), at 2026-03-02 00:00 (UTC)"


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
        ("??", "을/를", "??을(를)"),
    ],
)
def test_korean_particles(word: str, particle: str, written: str) -> None:
    """The particle follows the last syllable as it is read."""
    assert f"{Word(word):{particle}}" == written
    assert f"{Word(word)}" == word


def test_no_sentence_leaves_the_choice_of_a_particle_open() -> None:
    """Every kind has one sentence per language, without ``을(를)``."""
    for kind in KINDS:
        assert "(를)" not in describe(finding(signal(kind, usual=3.0)), "ko").title


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
