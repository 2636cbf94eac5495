"""Every text of the project is plain English: phrases that crept in before stay out."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.paths import ROOT
from test_house import FILES

#: A phrase, and what to write instead. This file and the page of wording rules name them.
PHRASES = {
    r"\btold of\b": "reported",
    r"\banew\b": "again",
    r"(?<!there )\bis no\b(?! longer)": "is not a",
    r"\breckon": "estimate",
    r"\bonce more\b": "again",
    r"\bseldom\b": "rarely",
}
HERE = Path(__file__).resolve()


def _lines() -> Iterator[tuple[str, int, str]]:
    for path in FILES:
        if path.suffix not in (".json", ".svg", ".java") and path != HERE and path.name != "LICENSE":
            name = path.relative_to(ROOT).as_posix()
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                yield name, number, line


@pytest.mark.parametrize("phrase", PHRASES)
def test_phrase_is_absent(phrase: str) -> None:
    """No file of the project uses the phrase."""
    pattern = re.compile(phrase, re.IGNORECASE)
    places = [f"{name}:{number}: {line.strip()}" for name, number, line in _lines() if pattern.search(line)]
    assert not places, f"write {PHRASES[phrase]!r} instead"


def test_docstrings_are_imperative() -> None:
    """A function says what it does, not "What ..." or "Whether ..."."""
    places = []
    for path in FILES:
        if path.suffix == ".py":
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.FunctionDef) and re.match(r"(What|Whether) ", ast.get_docstring(node) or ""):
                    places.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not places


@pytest.mark.parametrize("phrase", PHRASES)
def test_patterns_find_something(phrase: str) -> None:
    """A pattern that matches nothing would keep nothing out."""
    examples = ["it was told of", "made anew", "which is no lake", "we reckon", "read once more", "it seldom fails"]
    assert sum(bool(re.search(phrase, example)) for example in examples) == 1
    assert not re.search(phrase, "there is no lake at x, and it is no longer moved")
