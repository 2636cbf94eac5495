"""What could not be stored, and why."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from trailsift.analysis.base import ask, plain
from trailsift.query.engine import Engine


class Reject(NamedTuple):
    """One record, or one log object as a whole (``position`` -1). ``ingested_at`` in microseconds (UTC)."""

    ingested_at: int
    log_object: str
    position: int
    reason: str
    raw: str | None


class Reason(NamedTuple):
    """How often a reason was met, and where for example."""

    records: int
    reason: str
    log_object: str


@dataclass(frozen=True, slots=True)
class RejectReport:
    """The reasons, most frequent first, and the newest rejects."""

    total: int
    reasons: tuple[Reason, ...]
    rows: tuple[Reject, ...]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {"total": self.total, "reasons": plain(self.reasons), "rejects": plain(self.rows)}


def rejects(engine: Engine, limit: int = 0) -> RejectReport:
    """What was rejected so far; the newest ``limit`` records, all where it is 0."""
    reasons = ask(
        engine,
        Reason,
        "SELECT count(*) AS records, reason, min(log_object) FROM rejects "
        "GROUP BY reason ORDER BY records DESC, reason",
    )
    rows = ask(
        engine,
        Reject,
        "SELECT epoch_us(ingested_at), log_object, position, reason, raw FROM rejects "
        "ORDER BY ingested_at DESC, log_object, position" + (f" LIMIT {limit}" if limit > 0 else ""),
    )
    return RejectReport(sum(reason.records for reason in reasons), tuple(reasons), tuple(rows))
