"""Records that could not be stored, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from trailsift.analysis.base import ask
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text


class Reject(NamedTuple):
    """One record, or an entire log object (``position`` -1). ``ingested_at`` in microseconds since 1970 (UTC)."""

    ingested_at: int
    log_object: str
    position: int
    reason: str
    raw: str | None


class Reason(NamedTuple):
    """How often a reason occurred, with an example."""

    records: int
    reason: str
    log_object: str


@dataclass(frozen=True, slots=True)
class RejectReport(JsonObject):
    """The reasons, most frequent first, and the newest rejects."""

    total: int
    reasons: tuple[Reason, ...]
    rows: tuple[Reject, ...]

    JSON: ClassVar[dict[str, str]] = {"total": "total", "reasons": "reasons", "rejects": "rows"}


def rejects(engine: Engine, limit: int = 0, reason: str = "") -> RejectReport:
    """Return what was rejected so far: the newest ``limit`` records, or all if it is 0.

    ``reason``: only reasons that contain this text, in any case.
    """
    where = f"WHERE contains(lower(reason), {text(reason.lower())})" if reason else ""
    reasons = ask(
        engine,
        Reason,
        f"SELECT count(*) AS records, reason, min(log_object) FROM rejects {where} "
        "GROUP BY reason ORDER BY records DESC, reason",
    )
    rows = ask(
        engine,
        Reject,
        f"SELECT epoch_us(ingested_at), log_object, position, reason, raw FROM rejects {where} "
        "ORDER BY ingested_at DESC, log_object, position" + (f" LIMIT {limit}" if limit > 0 else ""),
    )
    return RejectReport(sum(line.records for line in reasons), tuple(reasons), tuple(rows))
