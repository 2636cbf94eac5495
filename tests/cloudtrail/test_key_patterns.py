"""key_pattern: cases as data, and the properties on which grouping depends."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from support.paths import TESTS
from trailsift.cloudtrail import key_patterns
from trailsift.cloudtrail.key_patterns import LIMIT, PLACEHOLDERS, key_pattern

CASES: list[tuple[str, str]] = [
    (key, expected) for key, expected in json.loads((TESTS / "cases/key_patterns.json").read_text(encoding="utf-8"))
]
REAL = Path(os.environ.get("TRAILSIFT_REAL_LOGS", "../shared/data/real")) / "events.jsonl.gz"

# Texts full of the parts that the function replaces: random Unicode alone would hardly ever contain a date.
_PIECES = [
    "2024", "01", "15", "/", "-", "_", ".", "T", "Z", ":", "20240115", "030405", "a", "v2", "s3",
    "sha256", "us-east-1", "{n}", "{date}", "{", "}", "\"", "{\"", "\":", ",", "\\", "%3D", "%",
    "@", "example.com", "deadbeef", "0a1b2c3d", "…", "6f1c2a9e-4b7d-4e83-9a51-0c2d3e4f5a6b",
    "Qz7RkTw2MbXc9LfP", "qWzRtXpLkMnBvCsD", "10.0.0.1", "ip-10-0-0-1", "é", "보", "=", "#", " ",
    "\n", "word", "1", "23", "x" * 70,
]  # fmt: skip
keys = st.one_of(st.text(max_size=60), st.lists(st.sampled_from(_PIECES), max_size=12).map("".join))
long_keys = st.lists(st.sampled_from(_PIECES), min_size=60, max_size=260).map("".join)


@pytest.mark.parametrize(("key", "expected"), CASES)
def test_case(key: str, expected: str) -> None:
    assert key_pattern(key) == expected


def test_enough_cases() -> None:
    assert len(CASES) >= 60


@settings(max_examples=600, deadline=None)
@given(keys)
@example('{"a":"x"{n}1')
@example("1@a.b1")
def test_idempotent_and_bounded(key: str) -> None:
    pattern = key_pattern(key)
    assert len(pattern) <= LIMIT
    assert key_pattern(pattern) == pattern


@settings(max_examples=150, deadline=None)
@given(long_keys)
def test_idempotent_and_bounded_when_long(key: str) -> None:
    pattern = key_pattern(key)
    assert len(pattern) <= LIMIT
    assert key_pattern(pattern) == pattern


@settings(max_examples=200, deadline=None)
@given(st.lists(keys, max_size=8))
def test_no_state_between_calls(many: list[str]) -> None:
    first = [key_pattern(key) for key in many]
    key_patterns._folder.cache_clear()
    key_patterns._mixed.cache_clear()
    assert [key_pattern(key) for key in reversed(many)] == first[::-1]


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 9_999_999), st.integers(0, 9_999_999), st.integers(1, 7))
def test_same_number_of_digits_same_pattern(first: int, second: int, width: int) -> None:
    for form in ("raw/part-{}.gz", "page{}", "a/{}/b", "보고서{}", '{{"pk":"user#{}"}}', "x_{}_y.csv"):
        digits = [str(n).zfill(7)[-width:] for n in (first, second)]
        assert key_pattern(form.format(digits[0])) == key_pattern(form.format(digits[1]))


@settings(max_examples=200, deadline=None)
@given(
    st.datetimes(),
    st.sampled_from(["%Y/%m/%d", "%Y-%m-%d", "%Y%m%d", "dt=%Y-%m-%d", "%Y/%m/%d.gz", "a/%Y-%m-%dT%H:%M:%SZ"]),
)
def test_any_date_is_the_same(when: datetime, form: str) -> None:
    day = when.replace(year=1900 + when.year % 200, day=min(when.day, 28))
    expected = key_pattern(day.replace(year=2024, month=1, day=15).strftime(form))
    assert key_pattern(day.strftime(form)) == expected
    assert "{date}" in expected or "{time}" in expected


@settings(max_examples=100, deadline=None)
@given(st.uuids())
def test_any_uuid(value: UUID) -> None:
    assert key_pattern(f"a/{value}.json") == "a/{uuid}.json"


def test_random_names_rarely_stay() -> None:
    """CloudTrail's random suffix alone, without the date beside it, is recognized by its form."""
    rng = random.Random(7)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    names = ["".join(rng.choices(alphabet, k=16)) for _ in range(2000)]
    missed = [name for name in names if key_pattern(f"x/{name}.json") != "x/{id}.json"]
    assert len(missed) < 30


@pytest.mark.parametrize(
    "name",
    ["CustomerOrderHistoryExport", "getObjectTaggingHandler", "AmazonLinuxServerRelease", "organizationconfiguration",
     "ThisIsAnOrdinaryFileName", "application-production", "AWSServiceRoleForSupport"],
)  # fmt: skip
def test_names_stay(name: str) -> None:
    assert key_pattern(name) == name


@pytest.mark.parametrize(
    "key", ["1" * 200_000, "a@" * 50_000, "a1" * 100_000, '{"' + "\\" * 100_000, "2024-" * 40_000, "a-" * 90_000,
            "x" * 4095 + "@a.b", ("a" * 90 + ".") * 40 + "@", "@" + "a." * 2000, "1." * 2000, "%" * 4000]
)  # fmt: skip
def test_no_slow_input(key: str) -> None:
    """Any caller of S3 chooses keys: no input may take more than linear time."""
    assert len(key_pattern(key)) <= LIMIT


def test_placeholders_are_the_documented_ones() -> None:
    used = {name for _, expected in CASES for name in re.findall(r"\{(\w+)\}", expected)} - {"foo"}
    assert used == set(PLACEHOLDERS)


def test_real_keys_fold() -> None:
    if not REAL.is_file():
        pytest.skip(f"no real logs at {REAL} (set TRAILSIFT_REAL_LOGS)")
    patterns = set()
    distinct_keys = set()
    with gzip.open(REAL, "rt", encoding="utf-8") as lines:
        for line in lines:
            parameters = json.loads(line).get("requestParameters")
            key = parameters.get("key") if isinstance(parameters, dict) else None
            if isinstance(key, str):
                distinct_keys.add(key)
                patterns.add(key_pattern(key))
                assert key_pattern(key_pattern(key)) == key_pattern(key)
    assert len(distinct_keys) > 5_000
    assert len(patterns) < 50
