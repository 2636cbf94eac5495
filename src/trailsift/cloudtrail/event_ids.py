"""The 16 bytes that stand for an event id."""

from __future__ import annotations

import hashlib
import re

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def event_key(event_id: str) -> tuple[int, int]:
    """The 16-byte event_key of an event as two words: the bytes of a UUID in its usual form, else the text's MD5."""
    if _UUID.fullmatch(event_id):
        raw = bytes.fromhex(event_id.replace("-", ""))
    else:
        raw = hashlib.md5(event_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
