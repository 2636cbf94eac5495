"""How good findings are on logs with planted incidents: truth.json says what was planted."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from trailsift.detect.correlate import LEAST, score
from trailsift.detect.finding import DRIPS, Finding, Signal
from trailsift.errors import SourceError
from trailsift.times import DAY, HOUR

_LONG = 2 * DAY
#: Measures of a role name no call: more bytes while bytes are taken out are about that.
_MEASURES = ("more_bytes", "more_denied", "many_resources")


@dataclass(frozen=True)
class Outcome:
    """One planted incident: whether it was found, at which rank of its day, how long after its begin (hours)."""

    kind: str
    found: bool
    rank: int | None
    delay: float | None
    score: float | None


@dataclass(frozen=True)
class Result:
    """Of one lake: the incidents and the findings that are none."""

    outcomes: tuple[Outcome, ...]
    false: tuple[Finding, ...]
    days: float

    @property
    def false_per_day(self) -> float:
        """Findings a day that no incident explains."""
        return len(self.false) / self.days if self.days else 0.0


def read_truth(path: Path) -> dict[str, Any]:
    """The truth beside generated logs; SourceError where it is none."""
    try:
        truth = json.loads(path.read_text("utf-8"))
        truth["incidents"], truth["start"], truth["end"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no truth.json as `trailsift generate` writes it: {error}") from error
    return dict(truth)


def judge(findings: Sequence[Finding], truth: dict[str, Any]) -> Result:
    """Compares findings with what was planted.

    An incident is found by a finding with a signal about its role that overlaps it in time, with an hour of tolerance,
    and is about a call and a resource of the incident where it names any. All other findings are false ones.
    """
    explained: set[str] = set()
    outcomes = []
    for incident in truth["incidents"]:
        first = _micros(incident["first_time"])
        hits = [one for one in findings if any(_about(signal, incident) for signal in one.signals)]
        explained |= {one.id for one in hits}
        if not hits:
            outcomes.append(Outcome(incident["kind"], False, None, None, None))
            continue
        best = min(hits, key=lambda one: (_rank(one, findings), one.first_time))
        delay = max(0.0, (min(_known(one, incident) for one in hits) - first) / HOUR)
        outcomes.append(Outcome(incident["kind"], True, _rank(best, findings), delay, best.score))
    false = tuple(one for one in findings if one.id not in explained)
    return Result(tuple(outcomes), false, (_micros(truth["end"]) - _micros(truth["start"])) / DAY)


def _known(finding: Finding, incident: dict[str, Any]) -> int:
    """When a finding first tells of an incident: what only its drips tell is known after some days."""
    drips = [one.last_time for one in finding.signals if one.kind in DRIPS and _about(one, incident)]
    others = [one for one in finding.signals if one.kind not in DRIPS]
    if drips and score(others) < LEAST:
        return min(drips)
    return min((one.first_time for one in others if _about(one, incident)), default=finding.first_time)


def _about(signal: Signal, incident: dict[str, Any]) -> bool:
    """Whether a signal is about an incident, and not about what its role did besides."""
    first, last = _micros(incident["first_time"]), _micros(incident["last_time"])
    if signal.role_arn != incident["role_arn"] or signal.first_time > last + HOUR or signal.last_time < first - HOUR:
        return False
    if signal.event_name is None and signal.resource_arn is None and signal.kind not in _MEASURES:
        # A new network or client: an incident of many days would be hit by chance.
        return last - first < _LONG
    named = signal.event_name is None or signal.event_name in incident["event_names"]
    return named and (signal.resource_arn is None or signal.resource_arn in incident["resource_arns"])


def _rank(finding: Finding, findings: Sequence[Finding]) -> int:
    day = finding.first_time // DAY
    same = [one.score for one in findings if one.first_time // DAY == day]
    return 1 + sum(score > finding.score for score in same)


def _micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1e6)
