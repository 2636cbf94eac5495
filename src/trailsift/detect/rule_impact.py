"""What findings lose where rules drop or sample events: the finding itself, its strength, or what it could be looked
into with.

Summaries count every event, so what is seen in them stays. Detections in SQL may ask ``events``; and from a finding
down to events and original records goes only what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trailsift.detect.correlate import join
from trailsift.detect.detection_rules import Detection, Problem, happenings, search, signals_of
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.detect.signals import look

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: What becomes of a finding, the worst first.
FATES = ("lost", "without events", "weaker", "with fewer events", "as before")
_MOST = 200  # findings that are looked at, the strongest
_SAME = 0.005


class Loss(NamedTuple):
    """One finding and what becomes of it (FATES): its stored events and its score, as it is and with the rules."""

    id: str
    title: str
    severity: str
    fate: str
    events: int
    events_after: int
    score: float
    score_after: float


def losses(whole: DuckDBEngine, thin: DuckDBEngine, detections: Sequence[Detection] = ()) -> list[Loss]:
    """What becomes of each finding, the worst first. ``thin``: the same lake as rules would have left it."""
    before = detect(whole, DetectOptions(), detections).findings[:_MOST]
    seen = look(whole, (), save=False)
    after = join([*seen.signals, *_found(thin, detections)], budget=0, links=seen.links)
    out = [_loss(one, _same(one, after), whole, thin) for one in before]
    return sorted(out, key=lambda one: (FATES.index(one.fate), -one.score))


def _found(engine: DuckDBEngine, detections: Sequence[Detection]) -> list[Signal]:
    out: list[Signal] = []
    for one in detections:
        rows = search(engine, one)
        if not isinstance(rows, Problem):
            out += signals_of(one, happenings(rows))
    return out


def _same(finding: Finding, others: Sequence[Finding]) -> Finding | None:
    """The finding that is about the same: a common role and time, and a common reason."""
    mine = {(signal.role_arn, signal.kind, signal.rule) for signal in finding.signals}
    near = [
        one
        for one in others
        if one.first_time <= finding.last_time
        and one.last_time >= finding.first_time
        and mine & {(signal.role_arn, signal.kind, signal.rule) for signal in one.signals}
    ]
    return max(near, key=lambda one: one.score, default=None)


def _loss(finding: Finding, again: Finding | None, whole: DuckDBEngine, thin: DuckDBEngine) -> Loss:
    count = f"SELECT count(*) FROM events WHERE {finding.condition}"
    events, left = (int(engine.query(count, cache=False).value()) for engine in (whole, thin))
    score = again.score if again else 0.0
    if again is None:
        fate = "lost"
    elif events and not left:
        fate = "without events"
    elif score < finding.score - _SAME:
        fate = "weaker"
    else:
        fate = "with fewer events" if left < events else "as before"
    return Loss(finding.id, finding.title, finding.severity, fate, events, left, finding.score, score)
