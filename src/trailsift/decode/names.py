"""Names of files and of members of archives as texts that can be stored, printed and given back.

A name is bytes, so it may be no UTF-8, hold control characters, or characters that change how a text is displayed.
"""

from __future__ import annotations

import hashlib
import os
import re

#: Control characters, lone surrogates (bytes that are not UTF-8), characters that are invisible or change the direction
#: of writing; and a backslash that would be read as one of our escapes.
_UNSAFE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
    r"|\\(?=x[0-9a-f]{2})"
)
_ESCAPE = re.compile(rb"\\x([0-9a-f]{2})")


def safe_name(name: str, limit: int | None = None) -> str:
    r"""Return a name with each unsafe character as the bytes that it has on the disk: ``bad\xff.json``.

    Different names give different texts. A name of more than ``limit`` characters is shortened and ends in a digest.
    """
    # Almost all names pass the first test.
    if not name.isprintable() or "\\" in name:
        name = _UNSAFE.sub(_escaped, name)
    if limit is not None and len(name) > limit:
        digest = hashlib.sha256(name.encode()).hexdigest()[:16]
        name = f"{name[: limit - 20]}...{digest}"
    return name


def raw_name(name: str) -> str:
    """Return the name that ``safe_name`` was given, if it was not shortened."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 16)]), os.fsencode(name)))


def _escaped(match: re.Match[str]) -> str:
    return "".join(f"\\x{byte:02x}" for byte in _bytes(match[0]))


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
