"""Names in logs that look like the language of rules: a suggested rule matches exactly the events that it counts."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.hostile import EVIL, SHELL, unsafe
from support.records import sample
from trailsift import Lake
from trailsift.cloudtrail.key_patterns import key_pattern
from trailsift.decode import record
from trailsift.ingest import dry_run, ingest
from trailsift.prices import load_prices
from trailsift.rules import RowRules, globs, parse
from trailsift.safe_text import safe_toml

KEYS = (
    "*", "**", "[*]", "[[*]]", "?", "[a]", "[!a]", "\\*", "\\", "\\\\", "{n}", "{uuid}", "{id}", "{date}/{n}", "a*b",
    "report-*.csv", "'", '"', '"""', "'''", "a\nb", "a\tb", "#", "]", "}", "{", "%", "%2A", "*/*", " ", "(other)", "=x",
    EVIL, SHELL, "한국어", "\u202e", "\x7f",
)  # fmt: skip
#: What an attacker would hide behind one of them.
SECRETS = ("payroll/secret-alpha.xlsx", "x", "payroll/7", "a-b", "report-alpha.csv", "2024", "a")


def log(path: Path, keys: list[tuple[str, int]]) -> Path:
    """Write a log in which each key is read so often."""
    records = []
    for key, count in keys:
        for _ in range(count):
            number = len(records)
            records.append(
                sample(
                    eventID=f"11111111-2222-4333-8444-{number:012d}",
                    eventTime=f"2026-03-0{2 + number % 5}T03:00:{number % 60:02d}Z",
                    requestParameters={"bucketName": "data", "key": key},
                    resources=[{"type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::data"}],
                )
            )
    path.write_text(json.dumps({"Records": records}))
    return path


def promised_and_matched(tmp_path: Path, keys: list[tuple[str, int]]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the events of each suggested rule, as suggested and as tried on the log itself."""
    path = log(tmp_path / "log.json", keys)
    ingest([str(path)], tmp_path / "lake")
    suggested = Lake(tmp_path / "lake").suggest(0)
    rules = parse(suggested.toml, "suggested")
    tried = dry_run.dry_run(rules, load_prices(None), [str(path)])
    names = [tomllib.loads(line.rule)["rule"][0]["name"] for line in suggested.lines]
    promised = dict(zip(names, [line.events for line in suggested.lines], strict=True))
    return promised, {effect.rule: effect.events for effect in tried.effects if effect.rule}


def test_a_star_does_not_hide_other_reads(tmp_path: Path) -> None:
    """Who wants reads unseen makes a busy key named ``*``: the rule for it samples that key only."""
    keys = [("*", 500), *((f"payroll/secret-{word}.xlsx", 20) for word in ("alpha", "beta", "gamma"))]
    promised, matched = promised_and_matched(tmp_path, keys)
    assert matched == promised and promised["suggested 1: GetObject"] == 500


@pytest.mark.parametrize("key", KEYS, ids=[f"{number}" for number in range(len(KEYS))])
def test_each_suggestion_keeps_its_promise(key: str, tmp_path: Path) -> None:
    promised, matched = promised_and_matched(tmp_path, [(key, 200), *((secret, 20) for secret in SECRETS)])
    assert matched == promised
    # Only where no rule can say it is something left out: here each pattern has its rule.
    patterns = {key_pattern(name) for name in (key, *SECRETS)} - {"(other)"}
    assert len(promised) == len(patterns)


def test_all_of_them_at_once(tmp_path: Path) -> None:
    promised, matched = promised_and_matched(tmp_path, [(key, 30) for key in (*KEYS, *SECRETS)])
    assert matched == promised and len(promised) > 30


def test_suggestions_are_shown_as_they_are_parsed(tmp_path: Path) -> None:
    """Copied from a terminal, they are the same rules."""
    ingest([str(log(tmp_path / "log.json", [(EVIL, 50), ("\u202e\x9b", 50)]))], tmp_path / "lake")
    suggested = Lake(tmp_path / "lake").suggest(0)
    assert unsafe(suggested.toml) == [] and len(suggested.lines) == 2
    for line in suggested.lines:
        when = tomllib.loads(line.rule)["rule"][0]["when"]
        assert when["key_pattern"] == globs.literal(line.key_pattern or "")


# -- the language ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("a*c", ["ac", "abc", "a*c", "a\nc"], ["ab", "bac"]),
        ("a[*]c", ["a*c"], ["abc", "ac", "a[*]c", "a**c"]),
        ("[*]", ["*"], ["", "x", "[*]"]),
        ("[[*]]", ["[*]"], ["*", "[x]"]),
        ("[**]", ["[]", "[x]", "[*]"], ["*", "x"]),
        ("*[*]*", ["*", "a*", "*b", "a*b"], ["ab", ""]),
        ("[*][*]", ["**"], ["*", "[*][*]"]),
        ("a?b", ["a?b"], ["axb"]),
        ("[ab]", ["[ab]"], ["a", "b"]),
        ("\\*", ["\\", "\\x"], ["*"]),
        ("*", ["x", "[*]"], []),
        ("**", ["x"], []),
        ("a.b", ["a.b"], ["axb"]),
    ],
)
def test_stars(glob: str, matching: list[str], others: list[str]) -> None:
    for field, column in (("object_key", "object_key"), ("user_agent", "user_agent")):
        text = f'[[rule]]\nname = "r"\nwhen = {{ {field} = {safe_toml(glob)} }}\naction = "drop"\n'
        rules = RowRules(parse(text, "test"))
        for value in (*matching, *others):
            row = {"event_time": 0, "error_code": None, "object_key": None, "user_agent": None, column: value}
            assert (rules.match(row)[0] == 0) == (value in matching), (field, glob, value)


@given(st.text(st.sampled_from("*[]ab\\?\n"), max_size=8), st.text(st.sampled_from("*[]ab\\?\n"), max_size=8))
def test_a_literal_matches_itself_only(text: str, other: str) -> None:
    pattern = globs.literal(text)
    assert not globs.is_glob(pattern) and globs.parts(pattern) == [text]
    assert (globs.regex(pattern).fullmatch(other) is not None) == (text == other)


@given(*[st.text(st.sampled_from("*[]ab"), max_size=6)] * 3)
def test_a_covering_glob_matches_all_that_the_other_does(wide: str, narrow: str, text: str) -> None:
    if globs.covers(wide, narrow) and globs.regex(narrow).fullmatch(text):
        assert globs.regex(wide).fullmatch(text)


def test_rules_that_a_literal_star_does_not_cover() -> None:
    rule = '[[rule]]\nname = "{}"\nwhen = {{ object_key = "{}" }}\naction = "drop"\n'
    assert parse(rule.format("a", "[*]") + rule.format("b", "*"), "test")
    assert parse(rule.format("a", "x[*]") + rule.format("b", "xy"), "test")
    with pytest.raises(Exception, match="can never match"):
        parse(rule.format("a", "x*") + rule.format("b", "x[*]y"), "test")


WORDS = ("*", "[*]", "a", "7", "{n}", "a*", "a-7", "2024-01-15", "", "a-{n}", "x[*]")


@settings(deadline=None, max_examples=40)
@given(st.lists(st.fixed_dictionaries({}, optional={
    "object_key": st.sampled_from(WORDS) | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
    "key_pattern": st.sampled_from(WORDS) | st.lists(st.sampled_from(WORDS), min_size=1, max_size=3, unique=True),
    "user_agent": st.sampled_from(("*Boto*", "x")),
}), min_size=1, max_size=5))  # fmt: skip
def test_rows_and_columns_decide_alike(conditions: list[dict[str, str | list[str]]]) -> None:
    """The careful matcher of a stream and the columnar one of an ingest, on every kind of key."""
    import pyarrow as pa

    from trailsift.columns.arrow import CHUNK_SCHEMA
    from trailsift.ingest.sift import ColumnarRules

    text = ""
    for number, when in enumerate(conditions):
        listed = ", ".join(f"{name} = {json.dumps(value)}" for name, value in when.items())
        rule = f'[[rule]]\nname = "r{number}"\nwhen = {{ {listed} }}\naction = "drop"\n'
        try:
            parse(text + rule, "test")
        except Exception:  # an earlier rule covers it
            continue
        text += rule
    rules = parse(text, "test")
    keys = [None, *WORDS, *KEYS, *SECRETS]
    rows = []
    for number, key in enumerate(keys):
        parameters = {"bucketName": "data"} | ({} if key is None else {"key": key})
        rows.append(
            record.row(sample(requestParameters=parameters, eventID=f"11111111-2222-4333-8444-{number:012d}"), "x")
        )
    row_rules = RowRules(rules)
    expected = [row_rules.match(row)[0] for row in rows]
    columnar = ColumnarRules(rules)
    names = columnar.looked_at
    table = pa.table({name: pa.array([row[name] for row in rows], CHUNK_SCHEMA.field(name).type) for name in names})
    import numpy as np

    ids = np.zeros((len(rows), 16), np.uint8)
    assert columnar.decide(table, ids).rule.tolist() == expected
