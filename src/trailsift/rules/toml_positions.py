"""The line of each key and each array element of a TOML text, which ``tomllib`` does not report."""

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
    """Return the line of every key, and of every element of an array, by path: ``("rule", 0, "when", "service", 1)``.

    ``text`` is TOML that ``tomllib`` has accepted. A header counts as the key that it creates.
    """
    return _Scanner(text).scan()


class _Scanner:
    def __init__(self, text: str) -> None:
        self.tokens = list(_tokens(text))
        self.at = 0
        self.lines: dict[KeyPath, int] = {}
        self.tables: Counter[KeyPath] = Counter()

    def scan(self) -> dict[KeyPath, int]:
        """Read the text to its end."""
        base: KeyPath = ()
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "newline":
                self.at += 1
            elif token.text == "[" and token.kind == "sign":
                base = self._header()
            else:
                self._pair(base)
        return self.lines

    def _header(self) -> KeyPath:
        line = self.tokens[self.at].line
        array = self._text(self.at + 1) == "["
        self.at += 2 if array else 1
        path: KeyPath = ()
        names = self._key()
        for position, name in enumerate(names):
            path = (*path, name)
            # A header continues in the latest table of an array.
            if self.tables[path] and not (array and position == len(names) - 1):
                path = (*path, self.tables[path] - 1)
        if array:
            self.lines.setdefault(path, line)
            self.tables[path] += 1
            path = (*path, self.tables[path] - 1)
        self.lines.setdefault(path, line)
        self.at += 2 if array else 1
        return path

    def _key(self) -> list[str]:
        """Read the names of a dotted key, up to the sign after it."""
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
            self.lines.setdefault(path, line)
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
            self.lines[(*path, number)] = self.tokens[self.at].line
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
        # A string that contains a sign is not a sign.
        return token.text if token.kind != "string" else '"'


def _tokens(text: str) -> list[_Token]:
    tokens = []
    line = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup or ""
        if kind not in ("comment", "space"):
            tokens.append(_Token(kind, match[0], line))
        line += match[0].count("\n")
    return tokens
