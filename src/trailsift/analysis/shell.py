"""Quoting for commands that a person can copy into a shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

from trailsift.safe_text import safe


def quoted(value: str | Path) -> str:
    """Return a value as one word of a shell command."""
    text = str(value)
    return shlex.quote(text) if safe(text) == text else _ansi_c(text)


def double_quoted(sql: str) -> str:
    """Return SQL as one word of a shell command, in double quotes, because SQL itself uses single ones."""
    if safe(sql) != sql or "!" in sql:
        # An exclamation mark in double quotes recalls an earlier command in an interactive shell.
        return quoted(sql)
    for sign in ("\\", '"', "$", "`"):
        sql = sql.replace(sign, "\\" + sign)
    return f'"{sql}"'


def _ansi_c(text: str) -> str:
    r"""Return text in the form ``$'...'``, which bash, zsh and ksh read: a line end becomes ``\012``, not a line."""
    parts = []
    for sign in text:
        if sign in "\\'":
            parts.append("\\" + sign)
        elif safe(sign) == sign:
            parts.append(sign)
        else:
            # Octal with three digits: a hexadecimal escape would take in digits that follow.
            parts.append("".join(f"\\{byte:03o}" for byte in os.fsencode(sign)))
    return f"$'{''.join(parts)}'"
