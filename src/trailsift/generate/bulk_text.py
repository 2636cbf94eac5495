"""Random and numbered text in bulk: columns of equal-width byte strings from numpy, one call per column.

A record has about 150 random characters; drawing them one by one in Python would cost more than everything else.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

BASE64 = np.frombuffer(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/", np.uint8)
_HEX = np.frombuffer(b"".join(b"%02x" % i for i in range(256)), np.uint8).reshape(256, 2)
# 256 letters from an alphabet of 36 or 62: a byte picks one; the slight bias does not matter here.
UPPER = np.frombuffer((b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" * 8)[:256], np.uint8)
ALNUM = (b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789" * 5)[:256]
# Access keys and principal ids use the base 32 alphabet.
BASE32 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567" * 8
_WORD = 0xFFFFFFFFFFFFFFFF
_DASHES = (8, 13, 18, 23)
_UUID_PLACES = np.array([i for i in range(36) if i not in _DASHES])


def strings(rows: Bytes) -> list[bytes]:
    """uint8[n, w] without zero bytes -> n byte strings of width w."""
    width = rows.shape[1]
    out: list[bytes] = np.ascontiguousarray(rows).view(f"S{width}").ravel().tolist()
    return out


def hex_rows(raw: Bytes) -> Bytes:
    """uint8[n, k] -> uint8[n, 2k], lower-case hexadecimal digits."""
    return _HEX[raw].reshape(len(raw), -1)


def uuid_rows(raw: Bytes) -> Bytes:
    """uint8[n, 16] random bytes -> uint8[n, 36], version 4 UUIDs (RFC 9562)."""
    raw = raw.copy()
    raw[:, 6] = raw[:, 6] & 0x0F | 0x40
    raw[:, 8] = raw[:, 8] & 0x3F | 0x80
    rows = np.full((len(raw), 36), ord("-"), np.uint8)
    rows[:, _UUID_PLACES] = hex_rows(raw)
    return rows


def mix(values: Hashes) -> Hashes:
    """SplitMix64's finalizer (Steele, Lea, Flood 2014): equal numbers to equal, near numbers to unrelated ones."""
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def mix_int(*parts: int) -> int:
    """One 64-bit hash of a few integers, the same on every machine and run: `mix` for one number."""
    z = 0
    for part in parts:
        z = ((z ^ part & _WORD) + 0x9E3779B97F4A7C15) & _WORD
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
        z ^= z >> 31
    return z


def hash_bytes(hashes: Hashes, width: int) -> Bytes:
    """uint64[n] -> uint8[n, width], `width` pseudo-random bytes per hash (width at most 32)."""
    words = -(-width // 8)
    block = np.empty((len(hashes), words), np.uint64)
    for i in range(words):
        block[:, i] = mix(hashes + np.uint64(i + 1))
    return block.astype("<u8").view(np.uint8)[:, :width]


def coded(number: int, alphabet: bytes, width: int) -> str:
    """Return `width` letters of a 256-entry alphabet, determined by `number`."""
    raw = b""
    while len(raw) < width:
        number = mix_int(number)
        raw += number.to_bytes(8, "little")
    return raw[:width].translate(alphabet).decode()


@cache
def _clock() -> list[bytes]:
    return [b"%02d:%02d:%02dZ" % (s // 3600, s // 60 % 60, s % 60) for s in range(86_400)]


@cache
def day_text(day: int) -> tuple[bytes, bytes, bytes]:
    """Days since the epoch -> (2026-03-02, 2026/03/02, 20260302)."""
    date = datetime.fromtimestamp(day * 86_400, UTC)
    return tuple(date.strftime(form).encode() for form in ("%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"))  # type: ignore[return-value]


def iso_times(seconds: Ints) -> list[bytes]:
    """Seconds since the epoch -> 2026-03-02T05:06:07Z."""
    clock = _clock()
    days, rest = np.divmod(seconds, 86_400)
    names = {day: day_text(day)[0] + b"T" for day in np.unique(days).tolist()}
    return [names[d] + clock[s] for d, s in zip(days.tolist(), rest.tolist(), strict=True)]


def iso_time(second: int) -> str:
    """Seconds since the epoch -> 2026-03-02T05:06:07Z."""
    day, rest = divmod(second, 86_400)
    return (day_text(day)[0] + b"T" + _clock()[rest]).decode()
