"""The text of SQL, as far as a prompt needs it: where a statement ends, and in which part of it a position lies."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

Kind = Literal["code", "text", "name", "comment"]

#: What begins a part that is not code -> its kind, and the expression for its inside and its end.
_PARTS: tuple[tuple[str, Kind, str], ...] = (
    ("'", "text", r"(?:[^']|'')*(')(?!')"),
    ('"', "name", r'(?:[^"]|"")*(")(?!")'),
    ("--", "comment", r"[^\n]*(\n)"),
    ("/*", "comment", r".*?(\*/)"),
)
_BEGIN = re.compile(r"'|\"|--|/\*|\$\w*\$|;")


class Part(NamedTuple):
    """A part of a text from ``start`` to ``end``; ``is_open``: its end is missing."""

    kind: Kind
    start: int
    end: int
    is_open: bool = False


def parts(sql: str) -> Iterator[Part]:
    """Yield the parts of SQL that are not code, and the semicolons (as parts of code)."""
    place = 0
    while match := _BEGIN.search(sql, place):
        start, mark = match.start(), match[0]
        if mark == ";":
            place = match.end()
            yield Part("code", start, place)
            continue
        kind, inside = next(((kind, inside) for begin, kind, inside in _PARTS if begin == mark), ("text", ""))
        if not inside:
            inside = rf".*?({re.escape(mark)})"
        end = re.compile(inside, re.DOTALL).match(sql, match.end())
        place = end.end() if end else len(sql)
        yield Part(kind, start, place, is_open=end is None)


def split_statements(sql: str) -> tuple[list[str], str]:
    """Return the statements that a semicolon ends, without it, and the text after the last one.

    Statements without code are left out.
    """
    statements, start = [], 0
    for part in parts(sql):
        if part.kind == "code":
            statements.append(sql[start : part.start].strip())
            start = part.end
    return [statement for statement in statements if has_code(statement)], sql[start:]


def has_code(sql: str) -> bool:
    """Return whether a text has anything but blanks and comments."""
    place = 0
    for part in parts(sql):
        if part.kind != "comment" or sql[place : part.start].strip():
            return True
        place = part.end
    return bool(sql[place:].strip())


def part_at_end(sql: str) -> Part | None:
    """Return the text, name or comment that is still open at the end of ``sql``; None if the end is code."""
    last = None
    for part in parts(sql):
        last = part
    return last if last is not None and last.is_open else None
