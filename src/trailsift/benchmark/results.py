"""Techniques for faster queries: what was claimed for each, and what was measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple


class Claim(NamedTuple):
    """Claim of the design that trailsift grew out of, without a source: speed-up, share of cost saved."""

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
    """Measurements of one technique: median time in seconds, bytes read, what Athena would charge.

    ``faster`` and ``saved`` (share of the bytes) are relative to the baseline of the same question. ``rows``: events
    that it finds, by weight if ``sampled``; ``error``: relative error of that against the distinct events.
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
        """The claim about it, if there is one."""
        return CLAIMS.get(self.name)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        claim = self.claim
        fields = {name: getattr(self, name) for name in self.__slots__}
        return {**fields, "claimed_faster": claim and claim.faster, "claimed_saved": claim and claim.saved}


@dataclass(frozen=True, slots=True)
class BenchmarkReport:
    """A benchmark run: input and measurements. ``truth``: number of events that the question is about."""

    events: int
    log_objects: int
    log_bytes: int
    day: str
    truth: int
    cores: int
    rounds: int
    generated: bool
    stored_share: float
    techniques: tuple[Technique, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        fields = {name: getattr(self, name) for name in self.__slots__ if name != "techniques"}
        ways = [technique.as_dict() for technique in self.techniques]
        return {**fields, "questions": QUESTIONS, "ways": ways}


#: Question -> its description.
QUESTIONS = {
    "rows": "a day's S3 reads, writes and deletes: when, what, who, from where, on what; the first 1,000",
    "summary": "that day's calls and distinct addresses by hour and action",
}
