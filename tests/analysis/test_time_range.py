"""Times as people type them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from trailsift.analysis.base import plain
from trailsift.analysis.roles import choose
from trailsift.analysis.summary import Hour
from trailsift.analysis.time_range import Period, parse, period, zone_of
from trailsift.errors import UsageError
from trailsift.times import DAY, HOUR, iso, literal

NOW = datetime(2026, 3, 9, 12, 34, 56, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "zone", "expected"),
    [
        ("2026-03-02", "UTC", "2026-03-02T00:00:00Z"),
        ("2026-03-02", "Asia/Seoul", "2026-03-01T15:00:00Z"),
        ("2026-03-02T10:30", "UTC", "2026-03-02T10:30:00Z"),
        ("2026-03-02 10:30", "UTC", "2026-03-02T10:30:00Z"),
        ("2026-03-02T10:30+09:00", "UTC", "2026-03-02T01:30:00Z"),
        ("2026-03-02T10:30:15Z", "Asia/Seoul", "2026-03-02T10:30:15Z"),
        ("-7d", "Asia/Seoul", "2026-03-02T12:34:56Z"),
        ("7d", "UTC", "2026-03-02T12:34:56Z"),
        ("-90m", "UTC", "2026-03-09T11:04:56Z"),
        ("-36h", "UTC", "2026-03-08T00:34:56Z"),
        ("-1d12h", "UTC", "2026-03-08T00:34:56Z"),
        ("-2w", "UTC", "2026-02-23T12:34:56Z"),
        ("now", "UTC", "2026-03-09T12:34:56Z"),
    ],
)
def test_times(text: str, zone: str, expected: str) -> None:
    assert iso(parse(text, zone_of(zone), NOW)) == expected


@pytest.mark.parametrize("text", ["", "yesteryear", "-7q", "d", "2026-13-01", "-99999999999d", "-"])
def test_invalid_times(text: str) -> None:
    with pytest.raises(UsageError, match="not a valid time"):
        parse(text, zone_of("UTC"), NOW)


def test_an_empty_period_is_refused() -> None:
    with pytest.raises(UsageError, match="not before"):
        period("2026-03-02", "2026-03-02", now=NOW)


def test_conditions() -> None:
    assert Period().where("t") == Period().where_day("d") == "true"
    some = Period(0, DAY)
    assert some.where("t") == f"t >= {literal(0)} AND t < {literal(DAY)}"
    assert some.where_day("d") == "d >= DATE '1970-01-01' AND d <= DATE '1970-01-01'"
    assert some.on_days
    assert not Period(HOUR, DAY).on_days


KNOWN = [
    "arn:aws:iam::111111111111:role/etl",
    "arn:aws:iam::111111111111:role/etl-nightly",
    "arn:aws:iam::222222222222:role/team/web",
    None,
    "lambda.amazonaws.com",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("etl", KNOWN[0]),
        ("ETL", KNOWN[0]),
        ("nightly", KNOWN[1]),
        ("web", KNOWN[2]),
        ("role/etl", KNOWN[0]),
        (KNOWN[2], KNOWN[2]),
        ("lambda", KNOWN[4]),
        ("(anonymous)", None),
        ("anonymous", None),
    ],
)
def test_a_name_means_one_role(name: str, expected: str | None) -> None:
    assert choose(name, KNOWN) == expected


@pytest.mark.parametrize(("name", "message"), [("role/", "matches 3 roles"), ("wep", "team/web"), ("zzz", "busiest")])
def test_a_name_of_no_role_or_of_several(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        choose(name, KNOWN)


CALLERS: list[str | None] = [
    "arn:aws:iam::111111111111:role/etl",
    "anonymous",
    "account:444455556666/AIDAEXAMPLE1",
    "account:444455556666/AROAEXAMPLE2",
    "service:delivery.logs.amazonaws.com",
    "identity-center:d-1234567890/94482488-3041-7000-aaaa-000000000000",
    "federated:token.example.com/repo:org/x",
    "user:anonymizer",
    "none",
]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("(anonymous)", "anonymous"),
        ("anonymous", "anonymous"),
        ("Anonymous", "anonymous"),
        ("(no identity)", "none"),
        ("none", "none"),
        ("(none)", "none"),
        ("account 444455556666, AIDAEXAMPLE1", CALLERS[2]),
        ("account:444455556666/AIDAEXAMPLE1", CALLERS[2]),
        ("aidaexample1", CALLERS[2]),
        ("AROA", CALLERS[3]),
        ("delivery.logs.amazonaws.com", CALLERS[4]),
        ("service:delivery.logs.amazonaws.com", CALLERS[4]),
        ("94482488-3041", CALLERS[5]),
        ("identity center user 94482488", CALLERS[5]),
        ("org/x", CALLERS[6]),
        ("anon", CALLERS[7]),
        ("user anonymizer", CALLERS[7]),
    ],
)
def test_a_name_means_one_caller(name: str, expected: str) -> None:
    assert choose(name, CALLERS) == expected


def test_a_name_of_several_callers() -> None:
    with pytest.raises(UsageError, match="matches 2 callers"):
        choose("444455556666", CALLERS)


def test_reports_become_json() -> None:
    assert plain([Hour(HOUR, 3, 1)]) == [{"hour": "1970-01-01T01:00:00Z", "events": 3, "denied": 1}]


def test_callers_that_format_1_did_not_tell_apart() -> None:
    """Counts that an upgraded lake kept name them `unknown`; they were anonymous before."""
    assert choose("(unknown)", [*CALLERS, "unknown"]) == "unknown"
    assert choose("(anonymous)", [*CALLERS, "unknown"]) == "anonymous"
    assert choose("(anonymous)", [KNOWN[0], "unknown"]) == "unknown"
