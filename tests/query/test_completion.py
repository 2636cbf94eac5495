"""The text of statements at a prompt: where they end, and what can stand next."""

from __future__ import annotations

import pytest

from trailsift.query.completion import VALUE_COLUMNS, complete, described, meanings, values_sql
from trailsift.query.relations import columns_of, relations
from trailsift.query.statements import has_code, part_at_end, split_statements


@pytest.mark.parametrize(
    ("text", "statements", "rest"),
    [
        ("SELECT 1; SELECT 2", ["SELECT 1"], " SELECT 2"),
        ("SELECT ';' || \";\"; -- ; no end\n", ["SELECT ';' || \";\""], " -- ; no end\n"),
        ("SELECT 'it''s;' /* ; */ ;", ["SELECT 'it''s;' /* ; */"], ""),
        ("SELECT $$ ; $$; SELECT $a$ ; $b$ ; $a$;", ["SELECT $$ ; $$", "SELECT $a$ ; $b$ ; $a$"], ""),
        (";; -- nothing\n;", [], ""),
        ("SELECT 'open ;", [], "SELECT 'open ;"),
        ("/* open ;", [], "/* open ;"),
    ],
)
def test_where_statements_end(text: str, statements: list[str], rest: str) -> None:
    assert split_statements(text) == (statements, rest)


def test_open_parts() -> None:
    assert part_at_end("SELECT 1") is None
    for text, kind in (
        ("a 'b", "text"),
        ('a "b', "name"),
        ("a -- b", "comment"),
        ("/* '", "comment"),
        ("$$ x", "text"),
    ):
        part = part_at_end(text)
        assert part is not None and part.kind == kind
    assert not has_code(" -- x\n /* y */ ") and has_code("/* y */ 'x'")


VALUES = {"caller": ["arn:role/etl", "arn:role/it's", "evil\x1b[2J", "account:1/etl"], "event_name": ["GetObject"]}


def offered(before: str, after: str = "") -> list[str]:
    return [candidate.text for candidate in complete(before, after, lambda column: VALUES.get(column, []))]


@pytest.mark.parametrize(
    ("before", "after", "first"),
    [
        ("SELECT * FROM ho", "", ["hourly", "hourly_summary"]),
        ("SELECT x FROM a JOIN ses", "", ["sessions"]),
        ("describe us", "", ["usage"]),
        ("SELECT touch", " FROM usage", ["touch"]),
        ("SELECT u.key_p", " FROM usage u", ["key_pattern"]),
        ("SELECT usage.owner", " FROM usage", ["owner_side"]),
        ("SELECT caller FROM hourly GRO", "", ["GROUP"]),
        ("select caller from hourly gro", "", ["group"]),
        ("SELECT is_d", "", ["is_denied"]),
        ("WHERE caller = 'arn:role/e", "", ["arn:role/etl'"]),
        ("WHERE caller = 'etl", "'", ["arn:role/etl", "account:1/etl"]),
        ("WHERE caller LIKE 'arn:role/it''", "", ["arn:role/it''s'"]),
        ("WHERE caller NOT IN ('x', 'account", "", ["account:1/etl'"]),
        ("WHERE event_name='get", "", ["GetObject'"]),
    ],
)
def test_candidates(before: str, after: str, first: list[str]) -> None:
    assert offered(before, after)[: len(first)] == first


@pytest.mark.parametrize(
    "before", ["SELECT 'fr", "SELECT -- fr", 'SELECT "ca', "WHERE object_key = 'x", "WHERE x = $$ca"]
)
def test_nothing_is_offered_elsewhere(before: str) -> None:
    assert offered(before) == []


def test_values_that_would_steer_a_terminal_are_not_offered() -> None:
    assert not [text for text in offered("WHERE caller = '") if "\x1b" in text]


def test_every_value_column_exists() -> None:
    for column, table in VALUE_COLUMNS.items():
        assert column in dict(columns_of(table)), values_sql(column)
    assert [name for name, _ in meanings()] == list(relations())
    assert all(described(name) for name in relations()) and described("nosuch") == []
