"""Globs of rules: ``*`` stands for any text, ``[*]`` for a star; every other character stands for itself."""

from __future__ import annotations

import re
from functools import lru_cache

_SIGNS = re.compile(r"(\[\*\]|\*)")
#: Stands for a ``*`` of a glob that is matched like a text: neither TOML nor UTF-8 can hold it.
_WILDCARD = "\ud800"


def parts(pattern: str) -> list[str]:
    """Return the texts between the ``*`` of a glob; one if it has none."""
    texts = [""]
    for piece in _SIGNS.split(pattern):
        if piece == "*":
            # Two in a row match what one does.
            texts += [""] if len(texts) == 1 or texts[-1] else []
        else:
            texts[-1] += "*" if piece == "[*]" else piece
    return texts


def is_glob(pattern: str) -> bool:
    """Return whether a pattern matches more than one text."""
    return len(parts(pattern)) > 1


def literal(text: str) -> str:
    """Return the glob that matches this text only."""
    return text.replace("*", "[*]")


@lru_cache(maxsize=4096)
def regex(pattern: str) -> re.Pattern[str]:
    """Return a glob as a regular expression, for ``fullmatch``."""
    return re.compile(".*".join(map(re.escape, parts(pattern))), re.DOTALL)


def covers(wide: str, narrow: str) -> bool:
    """Return whether ``wide`` matches every text that ``narrow`` matches.

    A ``*`` of ``narrow`` is treated as a character: only a ``*`` of ``wide`` can match it, which matches any text.
    """
    return wide == narrow or regex(wide).fullmatch(_WILDCARD.join(parts(narrow))) is not None
