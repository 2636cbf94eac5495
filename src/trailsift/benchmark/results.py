"""The ways to a faster answer, what was expected of each, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """What the design that trailsift grew out of expected of a way, without a source: times faster, share of cost
    saved."""

    faster: tuple[float, float]
    saved: tuple[float, float]


CLAIMS = {
    "partitioning": Claim((5, 10), (0.30, 0.50)),
    "stream filter": Claim((10, 20), (0.60, 0.80)),
    "columnar storage": Claim((3, 5), (0.20, 0.30)),
    "smart sampling": Claim((20, 50), (0.80, 0.90)),
}


@dataclass(frozen=True, slots=True)
class Technique:
    """One way to answer: the median of its times in seconds, the bytes it reads, what Athena would charge.

    ``faster`` and ``saved`` (share of the bytes) are against the baseline of the same question. ``rows``: events that
    it finds, by weight where it is ``sampled``; ``error``: how far that is from the distinct events, as a share.
    """

    name: str
    question: str
    seconds: float
    faster: float
    bytes: int
    saved: float
    usd: float
    rows: int
    sampled: bool
    error: float
    stored_bytes: int

    @property
    def claim(self) -> Claim | None:
        """What was expected of it."""
        return CLAIMS.get(self.name)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        claim = self.claim
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "claimed_faster": claim and claim.faster, "claimed_saved": claim and claim.saved}


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """A whole run: what was measured on what. ``truth``: events that the question is about."""

    events: int
    log_objects: int
    log_bytes: int
    day: str
    truth: int
    cores: int
    rounds: int
    generated: bool
    stored_share: float
    ways: tuple[Technique, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        told = {name: getattr(self, name) for name in self.__slots__ if name != "ways"}
        return {**told, "questions": QUESTIONS, "ways": [way.as_dict() for way in self.ways]}


#: The questions, in words.
QUESTIONS = {
    "rows": "a day's S3 reads, writes and deletes: when, what, who, from where, on what; the first 1,000",
    "summary": "that day's calls and distinct addresses by hour and action",
}
