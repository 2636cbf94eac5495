"""JSON read and written as Python's ``json`` does, and what the spelling of a text says about its value."""

from __future__ import annotations

import json
import re
from itertools import accumulate
from typing import Any

import msgspec

from trailsift.decode.limits import LIMITS

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


#: A string, which is to be passed over, or a number that Python's ``json`` writes though it is not JSON.
_INFINITY = re.compile(r'"(?:[^"\\]|\\.)*+"|-?Infinity')


def dump(value: Any) -> str:
    """Return compact JSON text that reads back as the same value; lone surrogates stay escaped."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, separators=(",", ":"))
    if "Infinity" in text:
        # From a number such as 1e400, which is JSON.
        text = _INFINITY.sub(
            lambda token: token[0] if token[0][0] == '"' else token[0].replace("Infinity", "1e999"), text
        )
    return text


def dump_bytes(value: Any) -> bytes:
    """Return ``dump`` as UTF-8."""
    return dump(value).encode("utf-8")


# -- spelling --------------------------------------------------------------------------------------------------------

#: A blank beside a sign that separates values; strings may contain the same.
_BLANK = re.compile(rb" (?:(?<=[{\[,:] )|(?=[}\],:]))")
#: The digits that Python's ``int`` refuses.
_LONG_NUMBER = re.compile(rb"(?<![0-9])[0-9]{4301}")
#: A string, or what is left of one at the end of a damaged text: no byte is looked at twice, whatever the text.
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*+(?:"|\\?\Z)', re.DOTALL)
#: The same, and the colon after it if it is a name.
_NAME = re.compile(rb'"((?:[^"\\]|\\.)*+)(?:"|\\?\Z)(\s*+:)?', re.DOTALL)
_NOT_BRACKETS = bytes(set(range(256)) - set(b"{}[]"))
_STEPS = {ord("{"): 1, ord("["): 1, ord("}"): -1, ord("]"): -1}


def is_spaced(text: bytes) -> bool:
    """Return whether there are blanks outside of the strings of a valid JSON text."""
    if b"\n" in text or b"\r" in text or b"\t" in text:
        # Inside a string they are escaped.
        return True
    return _BLANK.search(text) is not None and compact(text) != text


def compact(text: bytes) -> bytes:
    """Return a JSON text without blanks outside of its strings; unchanged if it is not valid."""
    try:
        return msgspec.json.format(text, indent=-1)
    except (msgspec.DecodeError, RecursionError):
        return text


def has_escaped_name(text: bytes) -> bool:
    """Return whether the name of a member may be written with a code (``\\u006b``), and so may be any name."""
    return b"\\u" in text and any(match[2] and b"\\u" in match[1] for match in _NAME.finditer(text))


def has_long_number(text: bytes) -> bool:
    """Return whether there may be a number that Python does not read."""
    return len(text) > 4300 and _LONG_NUMBER.search(text) is not None


def is_too_deep(text: bytes) -> bool:
    """Return whether a valid JSON text is nested more deeply than a record may be."""
    if text.count(b"{") + text.count(b"[") <= LIMITS.nesting:
        return False
    steps = map(_STEPS.__getitem__, _STRING.sub(b"", text).translate(None, _NOT_BRACKETS))
    return max(accumulate(steps), default=0) > LIMITS.nesting
