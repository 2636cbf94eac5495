"""Quoting for commands that a person can copy into a shell."""

from __future__ import annotations

import shlex
from pathlib import Path


def quoted(value: str | Path) -> str:
    """Return a value as one word of a shell command."""
    return shlex.quote(str(value))


def double_quoted(sql: str) -> str:
    """Return SQL as one word of a shell command, in double quotes, because SQL itself uses single ones."""
    for sign in ("\\", '"', "$", "`"):
        sql = sql.replace(sign, "\\" + sign)
    return f'"{sql}"'
