"""Where in a TOML text each key and each element stands: ``tomllib`` tells what a file says, but not where."""

from __future__ import annotations

import re
from collections import Counter
from typing import NamedTuple

KeyPath = tuple[str | int, ...]

_TOKEN = re.compile(
    r'(?P<string>"""(?:[^\\]|\\.)*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:[^"\\\n]|\\.)*"|\'[^\'\n]*\')'
    r"|(?P<newline>\n)|(?P<comment>#[^\n]*)|(?P<space>[ \t\r]+)|(?P<sign>[\[\]{},=])|(?P<bare>[^\s\[\]{},=#\"']+)",
    re.DOTALL,
)


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


def line_numbers(text: str) -> dict[KeyPath, int]:
    """The line of every key, and of every element of an array, by its path: ``("rule", 0, "when", "service", 1)``.

    ``text`` is TOML that ``tomllib`` has accepted. Headers count as the key that they make.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.found: dict[KeyPath, int] = {}
        self.tables: Counter[KeyPath] = Counter()

    def scan(self) -> dict[KeyPath, int]:
        """Reads the whole text."""
        base: KeyPath = ()
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "newline":
                self.at += 1
            elif token.text == "[" and token.kind == "sign":
                base = self._header()
            else:
                self._pair(base)
        return self.found

    def _header(self) -> KeyPath:
        line = self.tokens[self.at].line
        array = self._text(self.at + 1) == "["
        self.at += 2 if array else 1
        path: KeyPath = ()
        names = self._key()
        for place, name in enumerate(names):
            path = (*path, name)
            # A header goes on in the newest table of an array.
            if self.tables[path] and not (array and place == len(names) - 1):
                path = (*path, self.tables[path] - 1)
        if array:
            self.found.setdefault(path, line)
            self.tables[path] += 1
            path = (*path, self.tables[path] - 1)
        self.found.setdefault(path, line)
        self.at += 2 if array else 1
        return path

    def _key(self) -> list[str]:
        """The names of a dotted key, up to the sign behind it."""
        names: list[str] = []
        open_name = True
        while self.at < len(self.tokens) and self.tokens[self.at].kind != "sign":
            token = self.tokens[self.at]
            if token.kind == "string":
                names.append(token.text[1:-1])
                open_name = False
            else:
                parts = token.text.split(".")
                if not open_name:
                    parts = parts[1:]
                names += [part for part in parts if part]
                open_name = token.text.endswith(".")
            self.at += 1
        return names

    def _pair(self, base: KeyPath) -> None:
        line = self.tokens[self.at].line
        path = base
        for name in self._key():
            path = (*path, name)
            self.found.setdefault(path, line)
        self.at += 1  # the sign =
        self._value(path)

    def _value(self, path: KeyPath) -> None:
        opening = self._text(self.at)
        if opening == "[":
            self._array(path)
        elif opening == "{":
            self._table(path)
        else:
            self.at += 1
            while self._text(self.at) not in (",", "]", "}", "\n", ""):
                self.at += 1

    def _array(self, path: KeyPath) -> None:
        self.at += 1
        number = 0
        while self._text(self.at) not in ("]", ""):
            if self._text(self.at) in (",", "\n"):
                self.at += 1
                continue
            self.found[(*path, number)] = self.tokens[self.at].line
            self._value((*path, number))
            number += 1
        self.at += 1

    def _table(self, path: KeyPath) -> None:
        self.at += 1
        while self._text(self.at) not in ("}", ""):
            if self._text(self.at) in (",", "\n"):
                self.at += 1
                continue
            self._pair(path)
        self.at += 1

    def _text(self, at: int) -> str:
        if at >= len(self.tokens):
            return ""
        token = self.tokens[at]
        # A string that holds a sign is no sign.
        return token.text if token.kind != "string" else '"'


def _tokens(text: str) -> list[_Token]:
    made = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind not in ("comment", "space"):
            made.append(_Token(kind, match[0], line))
        line += match[0].count("\n")
    return made
