"""JSON read and written as Python's `json` does."""

from __future__ import annotations

import json
from typing import Any

#: Not JSON.
INVALID = object()


def text_of(raw: bytes) -> str:
    """UTF-8 text; what is not UTF-8 becomes U+FFFD."""
    return raw.decode("utf-8", "replace")


def bytes_of(text: str) -> bytes:
    """UTF-8 of a text that was inside JSON: a lone surrogate goes back into the escape that it came from."""
    return text.encode("utf-8", "backslashreplace")


def parse(text: bytes | str) -> Any:
    """The value of a JSON text as Python's ``json`` reads it, or INVALID."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return INVALID


def dump(value: Any) -> str:
    """Compact JSON text that reads back as the same value; lone surrogates stay escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def dump_bytes(value: Any) -> bytes:
    """``dump`` as UTF-8."""
    return dump(value).encode("utf-8")
