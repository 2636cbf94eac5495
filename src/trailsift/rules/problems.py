"""The problems of a rules file: collected with their lines, and with the nearest valid word."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from trailsift.rules.toml_positions import KeyPath, line_numbers


class Problems:
    """The problems found so far in a TOML text: ``items`` are (line, message)."""

    def __init__(self, text: str) -> None:
        self._lines = line_numbers(text)
        self.items: list[tuple[int, str]] = []

    def add(self, path: KeyPath, message: str) -> None:
        """Note a problem at the line of ``path``, or of the innermost key or table around it that has a line."""
        while path and path not in self._lines:
            path = path[:-1]
        self.items.append((self.line(path), message))

    def line(self, path: KeyPath, default: int = 1) -> int:
        """Return the line of a path."""
        return self._lines.get(path, default)


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ``: did you mean "..."?``; or the list of all words if none is close, unless that is long."""
    names = list(words)
    by_lower = {name.lower(): name for name in names}
    close = difflib.get_close_matches(word.lower(), by_lower, 1, 0.6)
    if close:
        return f': did you mean "{by_lower[close[0]]}"?'
    return f": use one of {', '.join(names)}" if len(names) <= 40 else ""


def shown(value: Any) -> str:
    """Return a value as it is written in TOML."""
    return f'"{value}"' if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
