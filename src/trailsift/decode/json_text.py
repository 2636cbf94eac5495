"""JSON read and written as Python's ``json`` does."""

from __future__ import annotations

import json
from typing import Any

#: Returned by ``parse`` for a text that is not JSON.
INVALID = object()


def text_of(raw: bytes) -> str:
    """Decode UTF-8; bytes that are not UTF-8 become U+FFFD."""
    return raw.decode("utf-8", "replace")


def bytes_of(text: str) -> bytes:
    """Encode a text that was inside JSON as UTF-8; a lone surrogate becomes the escape that it was written as."""
    return text.encode("utf-8", "backslashreplace")


def parse(text: bytes | str) -> Any:
    """Return the value of a JSON text as Python's ``json`` reads it, or INVALID."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return INVALID


def dump(value: Any) -> str:
    """Return compact JSON text that reads back as the same value; lone surrogates stay escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":"))
    return text


def dump_bytes(value: Any) -> bytes:
    """Return ``dump`` as UTF-8."""
    return dump(value).encode("utf-8")
