"""Strings in SQL: one function writes them, and nothing in a string ends it."""

from __future__ import annotations

import ast
from pathlib import Path

import duckdb
import pytest

import trailsift
from trailsift.query.relations import text, texts

PACKAGE = Path(trailsift.__file__).parent
HOSTILE = (
    "", "'", "''", "\\'", "\\", "a'; DROP TABLE events; --", "' OR 1=1 --", "$$", "$tag$", "/*", "*/ '", "\n'\r", '"',
    "\u2019 \u02bc \uff07", "e'\\x27'", "\u212a", "' || (SELECT 1) || '", "{0}", "%s", "?", "\x01", "\U000e0001",
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE)
def test_a_string_is_only_a_string(value: str) -> None:
    """DuckDB reads back exactly what was written, and one statement."""
    with duckdb.connect() as db:
        assert len(db.extract_statements(f"SELECT {text(value)}, 1")) == 1
        assert db.execute(f"SELECT {text(value)}, 1").fetchall() == [(value, 1)]


def test_lists_of_strings() -> None:
    with duckdb.connect() as db:
        assert db.execute(f"SELECT {texts(HOSTILE)}").fetchall() == [(list(HOSTILE),)]


def _doubles_quotes(node: ast.AST) -> bool:
    """Return whether a node is ``x.replace("'", "''")``."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "replace"
        and [argument.value for argument in node.args if isinstance(argument, ast.Constant)] == ["'", "''"]
    )


def test_one_function_writes_strings() -> None:
    """A second one would be a second chance to forget something."""
    places = [
        path.relative_to(PACKAGE).as_posix()
        for path in sorted(PACKAGE.rglob("*.py"))
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if _doubles_quotes(node)
    ]
    assert places == ["query/relations.py"]
