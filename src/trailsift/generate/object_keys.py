"""Object keys and item keys: a pattern such as `exports/{ymd}/part-{seq5:800}.parquet` -> a column of keys.

A part is `{name}` or `{name:argument}`; PARTS lists them. Keys with a skewed popularity (Zipf) are a pure function of
actor and rank, so that the same objects recur throughout the period.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np

from trailsift.generate.bulk_text import Hashes, Ints, day_text, hash_bytes, hex_rows, mix, strings, uuid_rows


@dataclass(frozen=True)
class Draw:
    """Input of a draw: event times (seconds), a salt per event's actor, and the batch's random generator."""

    rng: np.random.Generator
    seconds: Ints
    salts: Hashes

    def __len__(self) -> int:
        return len(self.seconds)

    def ranks(self, population: int) -> Ints:
        """Draw Zipf ranks with exponent 1, from 0: the continuous inverse, population ** u, needs no table."""
        out: Ints = (float(population) ** self.rng.random(len(self))).astype(np.int64) - 1
        return out

    def ranked(self, population: int) -> Hashes:
        """Draw a hash per event that depends only on its actor and its Zipf rank."""
        return mix(self.salts ^ mix(self.ranks(population).astype(np.uint64)))


WORDS: dict[str, tuple[str, ...]] = {
    "category": ("shoes", "lamps", "books", "garden", "audio", "toys", "kitchen", "outdoor", "stationery", "bags"),
    "size": ("thumb", "card", "full", "zoom"),
    "page": (
        "index.html", "docs/start.html", "robots.txt", "sitemap.xml", "docs/guide/install.html", "favicon.ico",
        "press/kit.zip", "docs/release-notes.html", "img/header.svg", ".env", "wp-login.php", "backup.sql",
        'search?q="open%20data"', "docs/한국어/시작하기.html",
    ),
    "sheet": (
        "2026 Q1/매출 요약 (final).xlsx", "2026 Q1/forecast v3.xlsx", "board/deck \"draft\".pptx", "2025 Q4/close.xlsx",
        "regions/São Paulo.csv", "regions/Zürich.csv", "team\\old notes.txt", "2026 Q1/원가 분석.xlsx", "plan 🚀.md",
        "board/minutes 02.docx",
    ),
    "repo": ("storefront", "checkout", "thumbnailer", "ledger-api", "mobile-bff"),
    "dump": ("customers", "orders", "stock", "staff", "audit"),
    "person": ("payslip", "contract", "review", "passport-scan", "bank-details"),
    "model": ("ranker", "forecast", "fraud", "similar-items"),
}  # fmt: skip
"""Word lists; earlier words are drawn more often."""


def _days(draw: Draw, arg: str) -> list[int]:
    lag = int(arg or 1)
    days = draw.seconds // 86_400
    out: list[int] = (days - draw.ranks(lag) if lag > 1 else days).tolist()
    return out


def _dashed(draw: Draw, arg: str) -> list[bytes]:
    return [day_text(day)[0] for day in _days(draw, arg)]


def _slashed(draw: Draw, arg: str) -> list[bytes]:
    return [day_text(day)[1] for day in _days(draw, arg)]


def _stamp(draw: Draw, arg: str) -> list[bytes]:
    rest = (draw.seconds // 300 * 300 % 86_400).tolist()
    days = _days(draw, "")
    return [day_text(d)[2] + b"T%02d%02dZ" % (s // 3600, s // 60 % 60) for d, s in zip(days, rest, strict=True)]


def _hour(draw: Draw, arg: str) -> list[bytes]:
    return [b"%02d" % hour for hour in (draw.seconds // 3600 % 24).tolist()]


def _sequence(draw: Draw, arg: str) -> list[int]:
    """Draw consecutive parts, as a batch job reads them, from a random start."""
    population = int(arg)
    out: list[int] = ((np.arange(len(draw)) + int(draw.rng.integers(population))) % population).tolist()
    return out


def _number(draw: Draw, arg: str) -> list[int]:
    out: list[int] = draw.ranks(int(arg)).tolist()
    return out


def _known_uuid(draw: Draw, arg: str) -> list[bytes]:
    return strings(uuid_rows(hash_bytes(draw.ranked(int(arg)), 16)))


def _new_uuid(draw: Draw, arg: str) -> list[bytes]:
    return strings(uuid_rows(draw.rng.integers(0, 256, (len(draw), 16), np.uint8)))


def _known_hex(draw: Draw, arg: str) -> list[bytes]:
    digits, population = (int(x) for x in arg.split(","))
    return strings(hex_rows(hash_bytes(draw.ranked(population), digits // 2)))


def _new_hex(draw: Draw, arg: str) -> list[bytes]:
    return strings(hex_rows(draw.rng.integers(0, 256, (len(draw), int(arg) // 2), np.uint8)))


@cache
def _escaped_words(name: str) -> tuple[bytes, ...]:
    return tuple(escaped(word) for word in WORDS[name])


def _word(draw: Draw, arg: str) -> list[bytes]:
    words = _escaped_words(arg)
    return [words[rank] for rank in draw.ranks(len(words)).tolist()]


PARTS: dict[str, Callable[[Draw, str], list[bytes] | list[int]]] = {
    "date": _dashed,  # 2026-03-02; argument: number of days in reach, the latest most often
    "ymd": _slashed,  # 2026/03/02
    "stamp": _stamp,  # 20260302T0505Z
    "hour": _hour,
    "seq": _sequence,  # argument: number of parts
    "n": _number,  # argument: population
    "uuid": _known_uuid,  # argument: population
    "new_uuid": _new_uuid,
    "hex": _known_hex,  # arguments: digits, population
    "new_hex": _new_hex,  # argument: digits
    "word": _word,  # argument: a list of WORDS
}

_PART = re.compile(r"\{([a-z_]+?)(\d?)(?::([^}]*))?\}")


def escaped(text: str) -> bytes:
    """Return `text` as it appears between the quotes of a JSON string; CloudTrail writes UTF-8, not \\u escapes."""
    return json.dumps(text, ensure_ascii=False)[1:-1].encode()


@cache
def _compiled(pattern: str) -> tuple[bytes, tuple[tuple[Callable[[Draw, str], list[bytes] | list[int]], str], ...]]:
    parts = []
    template = b""
    end = 0
    for match in _PART.finditer(pattern):
        name, width, arg = match.groups()
        conversion = (f"%0{width}d" if width else "%d") if name in ("seq", "n") else "%b"
        template += escaped(pattern[end : match.start()]).replace(b"%", b"%%") + conversion.encode()
        parts.append((PARTS[name], arg or ""))
        end = match.end()
    return template + escaped(pattern[end:]).replace(b"%", b"%%"), tuple(parts)


def make(pattern: str, draw: Draw) -> list[bytes]:
    """Return a key for each event of `draw`, already escaped for JSON."""
    template, parts = _compiled(pattern)
    if not parts:
        return [template % ()] * len(draw)
    columns = [part(draw, arg) for part, arg in parts]
    return list(map(template.__mod__, zip(*columns, strict=True)))
