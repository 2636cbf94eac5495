"""The impact of rules on findings: rules that drop or sample events may cost a finding, its strength, or its events.

Summaries count every event, so signals from them stay. SQL detections may query ``events``, and drilling down to events
and original records needs stored events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from trailsift.detect.correlate import correlate_signals
from trailsift.detect.daily_data import daily_totals
from trailsift.detect.detection_rules import Detection, Problem, group_matches, run_rules, to_signals
from trailsift.detect.finding import Finding, Signal
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.detect.signals import collect_signals

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Fates of a finding, the worst first.
FATES = ("lost", "without events", "weaker", "with fewer events", "as before")
_MOST = 200  # findings that are examined, the strongest
_SAME = 0.005


class Loss(NamedTuple):
    """One finding and its fate (FATES): stored events and score, now and with the rules."""

    id: str
    title: str
    severity: str
    fate: str
    events: int
    events_after: int
    score: float
    score_after: float


def losses(full: DuckDBEngine, reduced: DuckDBEngine, detections: Sequence[Detection] = ()) -> list[Loss]:
    """Return the fate of each finding, the worst first. ``reduced``: the same lake as the rules would have left it."""
    before = detect(full, DetectOptions(blind=False), detections).findings[:_MOST]
    seen = collect_signals(full, (), save=False)
    detected = _detected(reduced, detections, sorted(daily_totals(full)))
    after = correlate_signals([*seen.signals, *detected], budget=0, links=seen.links)
    out = [_loss(finding, _counterpart(finding, after), full, reduced) for finding in before]
    return sorted(out, key=lambda loss: (FATES.index(loss.fate), -loss.score))


def _detected(engine: DuckDBEngine, detections: Sequence[Detection], days: Sequence[int]) -> list[Signal]:
    out: list[Signal] = []
    for rule, rows in zip(detections, run_rules(engine, [(rule, 0) for rule in detections]), strict=True):
        if not isinstance(rows, Problem):
            out += to_signals(rule, group_matches(rows), days)
    return out


def _counterpart(finding: Finding, others: Sequence[Finding]) -> Finding | None:
    """Return the finding about the same thing: it shares a caller, a time and a kind of signal."""
    own = {(signal.caller, signal.kind, signal.rule) for signal in finding.signals}
    near = [
        other
        for other in others
        if other.first_time <= finding.last_time
        and other.last_time >= finding.first_time
        and own & {(signal.caller, signal.kind, signal.rule) for signal in other.signals}
    ]
    return max(near, key=lambda other: other.score, default=None)


def _loss(finding: Finding, after: Finding | None, full: DuckDBEngine, reduced: DuckDBEngine) -> Loss:
    count = f"SELECT count(*) FROM events WHERE {finding.condition}"
    events, left = (int(engine.query(count, cache=False).value()) for engine in (full, reduced))
    score = after.score if after else 0.0
    if after is None:
        fate = "lost"
    elif events and not left:
        fate = "without events"
    elif score < finding.score - _SAME:
        fate = "weaker"
    else:
        fate = "with fewer events" if left < events else "as before"
    return Loss(finding.id, finding.title, finding.severity, fate, events, left, finding.score, score)
