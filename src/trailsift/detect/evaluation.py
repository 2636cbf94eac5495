"""Compare findings with planted incidents (truth.json): recall, rank, delay and false positives."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trailsift.detect.callers import role_of
from trailsift.detect.correlate import MIN_SCORE, score
from trailsift.detect.finding import LOW_AND_SLOW, Finding, Signal
from trailsift.errors import SourceError
from trailsift.times import DAY, HOUR

_LONG = 2 * DAY
#: Measures of a role name no call: more bytes while an incident reads bytes are about the incident.
_MEASURES = ("more_bytes", "more_denied", "many_resources")


@dataclass(frozen=True)
class IncidentOutcome:
    """One planted incident: whether it was found, its rank of the day, and the delay from its begin (hours)."""

    kind: str
    found: bool
    rank: int | None
    delay: float | None
    score: float | None


@dataclass(frozen=True)
class EvaluationResult:
    """The result of one lake: incidents, and false findings."""

    outcomes: tuple[IncidentOutcome, ...]
    false: tuple[Finding, ...]
    days: float

    @property
    def false_per_day(self) -> float:
        """Findings per day that no incident explains."""
        return len(self.false) / self.days if self.days else 0.0


def read_truth(path: Path) -> dict[str, Any]:
    """Return the ground truth of generated logs. Raise SourceError if the file is not one."""
    try:
        truth = json.loads(path.read_text("utf-8"))
        truth["incidents"], truth["start"], truth["end"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is not a truth.json from `trailsift generate`: {error}") from error
    return dict(truth)


def judge(findings: Sequence[Finding], truth: dict[str, Any]) -> EvaluationResult:
    """Compare findings with the planted incidents.

    A finding is a hit if one of its signals is about the incident's role, overlaps it in time (with an hour of
    tolerance), and names a call and a resource of the incident if it names any. All other findings are false.
    """
    explained: set[str] = set()
    outcomes = []
    for incident in truth["incidents"]:
        first = _micros(incident["first_time"])
        hits = [finding for finding in findings if any(_about(signal, incident) for signal in finding.signals)]
        explained |= {finding.id for finding in hits}
        if not hits:
            outcomes.append(IncidentOutcome(incident["kind"], False, None, None, None))
            continue
        best = min(hits, key=lambda finding: (_rank(finding, findings), finding.first_time))
        delay = max(0.0, (min(_detected_at(finding, incident) for finding in hits) - first) / HOUR)
        outcomes.append(IncidentOutcome(incident["kind"], True, _rank(best, findings), delay, best.score))
    false = tuple(finding for finding in findings if finding.id not in explained)
    return EvaluationResult(tuple(outcomes), false, (_micros(truth["end"]) - _micros(truth["start"])) / DAY)


def _detected_at(finding: Finding, incident: dict[str, Any]) -> int:
    """Return when a finding first showed an incident; low-and-slow signals alone do so only after some days."""
    slow = [signal.last_time for signal in finding.signals if signal.kind in LOW_AND_SLOW and _about(signal, incident)]
    others = [signal for signal in finding.signals if signal.kind not in LOW_AND_SLOW]
    if slow and score(others) < MIN_SCORE:
        return min(slow)
    return min((signal.first_time for signal in others if _about(signal, incident)), default=finding.first_time)


def _about(signal: Signal, incident: dict[str, Any]) -> bool:
    """Return whether a signal is about an incident, and not about other activity of its role."""
    first, last = _micros(incident["first_time"]), _micros(incident["last_time"])
    if (
        role_of(signal.caller) != incident["role_arn"]
        or signal.first_time > last + HOUR
        or signal.last_time < first - HOUR
    ):
        return False
    if signal.event_name is None and signal.resource_arn is None and signal.kind not in _MEASURES:
        # A new network or client would hit an incident of many days by chance.
        return last - first < _LONG
    named = signal.event_name is None or signal.event_name in incident["event_names"]
    return named and (signal.resource_arn is None or signal.resource_arn in incident["resource_arns"])


def _rank(finding: Finding, findings: Sequence[Finding]) -> int:
    day = finding.first_time // DAY
    scores = [other.score for other in findings if other.first_time // DAY == day]
    return 1 + sum(score > finding.score for score in scores)


def _micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)
