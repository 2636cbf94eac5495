"""Signals that belong together become one finding; findings are ranked and kept to a budget."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from trailsift.analysis.period import DAY, HOUR
from trailsift.detect.finding import Finding, Signal

#: Findings with less are not told.
LEAST = 0.4
#: Findings of one day (UTC) that are told at most.
BUDGET = 10

_APART = 3 * HOUR  # signals further apart than this are two happenings
_LONGEST = 2 * DAY
_HALF = 3.0  # decades that make a score of 0.5
_LESS = 0.5  # each further signal of a happening counts so much less than the one before


def join(signals: Iterable[Signal], least: float = LEAST, budget: int = BUDGET) -> list[Finding]:
    """Findings of signals, the strongest first. ``budget``: at most so many of each day; 0 for all."""
    of_role: dict[str | None, list[Signal]] = defaultdict(list)
    for signal in signals:
        of_role[signal.role_arn].append(signal)
    found = [_finding(group) for own in of_role.values() for group in _groups(own)]
    found = sorted((one for one in found if one.score >= least), key=lambda one: (-one.score, one.first_time, one.id))
    return budgeted(found, budget)


def _groups(signals: Sequence[Signal]) -> list[list[Signal]]:
    out: list[list[Signal]] = []
    end = 0
    for signal in sorted(signals, key=lambda one: (one.first_time, one.kind, one.value)):
        if out and signal.first_time <= end + _APART and signal.first_time - out[-1][0].first_time < _LONGEST:
            out[-1].append(signal)
            end = max(end, signal.last_time)
        else:
            out.append([signal])
            end = signal.last_time
    return out


def _finding(group: Sequence[Signal]) -> Finding:
    ranked = sorted(group, key=lambda one: (-one.decades, one.kind, one.value))
    best: dict[str, Signal] = {}
    for signal in ranked:
        best.setdefault(signal.kind, signal)
    strength = sum(signal.decades * _LESS**place for place, signal in enumerate(best.values()))
    exact = [signal for signal in ranked if signal.kind.startswith("first_") and signal.kind != "first_hour"] or ranked
    strong = [signal for signal in exact if signal.decades >= 0.3 * exact[0].decades]
    return Finding(
        identity(ranked[0].role_arn, min(signal.first_time for signal in group)),
        ranked[0].role_arn,
        strength / (strength + _HALF),
        min(signal.first_time for signal in strong),
        max(signal.last_time for signal in strong),
        tuple(ranked),
    )


def identity(role_arn: str | None, first_time: int, more: str = "") -> str:
    """The id of what a role began in an hour: it stays the same while the finding grows and its signals change."""
    text = "\0".join([str(role_arn), str(first_time // HOUR), more])
    return "f" + hashlib.sha256(text.encode()).hexdigest()[:9]


def budgeted(found: Sequence[Finding], budget: int) -> list[Finding]:
    """The first ``budget`` findings of each day (UTC); 0 for all."""
    if not budget:
        return list(found)
    told: dict[int, int] = defaultdict(int)
    out = []
    for one in found:
        told[one.first_time // DAY] += 1
        if told[one.first_time // DAY] <= budget:
            out.append(one)
    return out
