"""16-byte keys of event ids."""

from __future__ import annotations

import hashlib
import re

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def event_key(event_id: str) -> tuple[int, int]:
    """Return an event id as two 64-bit words: the bytes of a UUID in its usual form, else the MD5 of the text."""
    if _UUID.fullmatch(event_id):
        raw = bytes.fromhex(event_id.replace("-", ""))
    else:
        raw = hashlib.md5(event_id.encode(), usedforsecurity=False).digest()
    return int.from_bytes(raw[:8], "little"), int.from_bytes(raw[8:], "little")
