"""The lottery of sampled events: a keyed hash of the event id, the same on every machine and in every rerun.

The hash is SipHash-2-4 over the 16-byte event_key of the event (Aumasson and Bernstein, SipHash: a fast short-input
PRF, 2012). It is a few additions, rotations and xors of 64-bit words, so that the very same function works on one
event's integers and on whole numpy columns: there is one definition of who wins.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

_MASK = 0xFFFF_FFFF_FFFF_FFFF

#: One more than the largest draw.
SPAN = 1 << 64


class SipKey(NamedTuple):
    """A 128-bit key as two words."""

    low: int
    high: int


def sip_key(seed: str, use: str) -> SipKey:
    """The key that a seed gives for one use (``lottery``, ``first``): hashes under different uses are independent."""
    digest = hashlib.blake2b(seed.encode(), digest_size=16, person=use.encode()).digest()
    return SipKey(int.from_bytes(digest[:8], "little"), int.from_bytes(digest[8:], "little"))


def siphash24(key: SipKey, first: Any, second: Any) -> Any:
    """SipHash-2-4 of the 16 bytes whose little-endian words are ``first`` and ``second``: 0 to ``SPAN`` - 1.

    The words are two integers, or two numpy arrays of uint64; the result is of the same kind.
    """
    state = (
        key.low ^ 0x736F6D6570736575,
        key.high ^ 0x646F72616E646F6D,
        key.low ^ 0x6C7967656E657261,
        key.high ^ 0x7465646279746573,
    )
    # The last block holds nothing but the length, 16, in its highest byte.
    for word in (first, second, 16 << 56):
        state = _mixed(_mixed((*state[:3], state[3] ^ word)))
        state = (state[0] ^ word, *state[1:])
    state = (*state[:2], state[2] ^ 0xFF, state[3])
    for _ in range(4):
        state = _mixed(state)
    return state[0] ^ state[1] ^ state[2] ^ state[3]


def _mixed(state: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    a, b, c, d = state
    a = (a + b) & _MASK
    b = _turned(b, 13) ^ a
    a = _turned(a, 32)
    c = (c + d) & _MASK
    d = _turned(d, 16) ^ c
    a = (a + d) & _MASK
    d = _turned(d, 21) ^ a
    c = (c + b) & _MASK
    b = _turned(b, 17) ^ c
    c = _turned(c, 32)
    return a, b, c, d


def _turned(word: Any, bits: int) -> Any:
    return ((word << bits) & _MASK) | (word >> (64 - bits))


def threshold(rate: float) -> int:
    """A draw below this wins at ``rate`` (above 0, below 1)."""
    return min(int(rate * SPAN), SPAN - 1)
