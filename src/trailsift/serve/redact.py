"""Masks for ``--redact``: access keys, addresses and object keys, in everything that is served.

The same value has the same mask while a server runs, so that a reader still sees which lines belong together. A mask is
made with a key that the server draws at its start: nobody can look up what it stands for.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from typing import Any

_KEY = secrets.token_bytes(32)
#: Fields that hold an object key or a part of one.
_KEYS = frozenset({"object_key", "example_key", "key_pattern", "source_object_key", "pattern"})
_ACCESS_KEY = re.compile(r"\b(?:AKIA|ASIA|AIDA|AROA|ABIA|ACCA)[A-Z0-9]{12,}\b")
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?:/\d{1,2})?(?![\d.])")
_IPV6 = re.compile(
    r"(?<![\w:])(?:[0-9a-fA-F]{1,4}:){2,7}[0-9a-fA-F:]*(?:/\d{1,3})?(?![\w:])|(?<![\w:])[0-9a-fA-F:]*::[0-9a-fA-F:]+(?:/\d{1,3})?"
)
_TIME = re.compile(r"\d{1,2}:\d{2}:\d{2}")
#: Key of an object behind a bucket's ARN or URL.
_OBJECT = re.compile(r"(arn:aws[\w-]*:s3:::[^/\s'\"]+/|s3://[^/\s'\"]+/)([^\s'\"]+)")


def masked(kind: str, value: str) -> str:
    """Return what stands for a value."""
    return f"[{kind} {hmac.new(_KEY, value.encode('utf-8', 'replace'), hashlib.sha256).hexdigest()[:8]}]"


def mask(value: Any, field: str = "") -> Any:
    """Return JSON values with everything masked that is one of the three."""
    if isinstance(value, dict):
        hides = value.get("dimension") == "pattern"
        return {
            name: [part if place == 0 else mask(part, "pattern") for place, part in enumerate(inner)]
            if hides and name == "names" and isinstance(inner, list | tuple)
            else mask(inner, name)
            for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [mask(part, field) for part in value]
    if not isinstance(value, str) or not value:
        return value
    return masked("key", value) if field in _KEYS else mask_text(value)


def mask_text(text: str) -> str:
    """Return a text with the access keys, addresses and object keys in it masked."""
    text = _OBJECT.sub(lambda found: found[1] + masked("key", found[2]), text)
    text = _ACCESS_KEY.sub(lambda found: masked("access key", found[0]), text)
    text = _IPV4.sub(lambda found: masked("address", found[0]), text)
    return _IPV6.sub(lambda found: found[0] if _TIME.search(found[0]) else masked("address", found[0]), text)
