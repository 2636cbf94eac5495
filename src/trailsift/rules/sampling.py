"""The sampler: a keyed hash of the event id decides which events are kept, the same on every machine and in every run.

The hash is SipHash-2-4 of the event's 16-byte ``event_key`` (Aumasson and Bernstein, SipHash: a fast short-input PRF,
2012). It consists of a few additions, rotations and xors of 64-bit words, so the same function works on one event's
integers and on numpy columns: there is one definition of the sample.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

_MASK = 0xFFFF_FFFF_FFFF_FFFF

#: One more than the largest hash.
SPAN = 1 << 64


class SipKey(NamedTuple):
    """A 128-bit key as two words."""

    low: int
    high: int


def sip_key(seed: str, use: str) -> SipKey:
    """Return the key of a seed for one use: hashes under the keys of different uses are independent.

    The uses are ``lottery`` (which events are sampled) and ``first`` (which event a new line of ``hourly`` keeps). The
    key depends on these names, so they must not change: existing lakes were sampled with them.
    """
    digest = hashlib.blake2b(seed.encode(), digest_size=16, person=use.encode()).digest()
    return SipKey(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def siphash24(key: SipKey, first: Any, second: Any) -> Any:
    """Return SipHash-2-4 of the 16 bytes whose little-endian words are ``first`` and ``second``: 0 to ``SPAN`` - 1.

    The words are two integers, or two numpy arrays of uint64; the result is of the same type.
    """
    state = (
        key.low ^ 0x736F6D6570736575,
        key.high ^ 0x646F72616E646F6D,
        key.low ^ 0x6C7967656E657261,
        key.high ^ 0x7465646279746573,
    )
    # The last block holds only the length, 16, in its highest byte.
    for word in (first, second, 16 << 56):
        state = _sip_round(_sip_round((*state[:3], state[3] ^ word)))
        state = (state[0] ^ word, *state[1:])
    state = (*state[:2], state[2] ^ 0xFF, state[3])
    for _ in range(4):
        state = _sip_round(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _sip_round(state: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = state
    a = (a + b) & _MASK
    b = _rotate_left(b, 13) ^ a
    a = _rotate_left(a, 32)
    c = (c + d) & _MASK
    d = _rotate_left(d, 16) ^ c
    a = (a + d) & _MASK
    d = _rotate_left(d, 21) ^ a
    c = (c + b) & _MASK
    b = _rotate_left(b, 17) ^ c
    c = _rotate_left(c, 32)
    return a, b, c, d


def _rotate_left(word: Any, bits: int) -> Any:
    return ((word << bits) & _MASK) | (word >> (64 - bits))


def threshold(rate: float) -> int:
    """Return the bound below which a hash is in the sample at ``rate`` (above 0, below 1)."""
    return min(int(rate * SPAN), SPAN - 1)
