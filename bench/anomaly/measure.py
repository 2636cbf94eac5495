"""Measure scores: windows found early, few alarms elsewhere, with one threshold for all series.

Only the first alarm in a window counts: 1 at the beginning of the window, falling to 0 at its end along a sigmoid. A
missed window costs 1. An alarm outside a window costs up to 0.11, less just after one. The sum over all series is shown
on a scale from 0 (silence) to 100 (every window found at its beginning, and no other alarm).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from corpus import Series

_FALSE = 0.11
_STEPS = [i / 200 for i in range(1, 200)] + [0.997, 0.999, 0.9995, 0.9999]


class Mark(NamedTuple):
    """The result at one threshold: scale 0 to 100, share of windows found, false alarms per 1,000 points."""

    threshold: float
    points: float
    found: float
    false: float


def _sigmoid(y: float) -> float:
    return 2 / (1 + math.exp(min(60.0, 5 * y))) - 1


class Tally:
    """The earnings of each threshold on one series; tallies of several series add up."""

    def __init__(self, series: Series, scores: Sequence[float]) -> None:
        self.windows = len(series.windows)
        self.length = len(scores)
        self.earned = [0.0] * len(_STEPS)
        self.hits = [0] * len(_STEPS)
        self.false = [0] * len(_STEPS)
        learn = series.learn()
        inside = [False] * len(scores)
        for first, last in series.windows:
            for i in range(first, last + 1):
                inside[i] = True
            self._window(scores, first, last)
        self._outside(series, scores, inside, learn)

    def _window(self, scores: Sequence[float], first: int, last: int) -> None:
        reached = -1
        top = _sigmoid(-1.0)
        for i in range(first, last + 1):
            while reached + 1 < len(_STEPS) and scores[i] >= _STEPS[reached + 1]:
                reached += 1
                self.earned[reached] += _sigmoid(-(last - i + 1) / (last - first + 1)) / top
                self.hits[reached] += 1
        for step in range(reached + 1, len(_STEPS)):
            self.earned[step] -= 1

    def _outside(self, series: Series, scores: Sequence[float], inside: list[bool], learn: int) -> None:
        ends = [last for _, last in series.windows]
        widths = [last - first + 1 for first, last in series.windows]
        for i in range(learn, len(scores)):
            if inside[i] or scores[i] < _STEPS[0]:
                continue
            before = [k for k, end in enumerate(ends) if end < i]
            cost = _FALSE
            if before:
                cost = -_FALSE * _sigmoid((i - ends[before[-1]]) / widths[before[-1]])
            for step, threshold in enumerate(_STEPS):
                if scores[i] < threshold:
                    break
                self.earned[step] -= cost
                self.false[step] += 1


def best(tallies: Sequence[Tally]) -> Mark:
    """Return the threshold that earns most over all series."""
    return max((at(tallies, step) for step in range(len(_STEPS))), key=lambda mark: mark.points)


def at(tallies: Sequence[Tally], step: int) -> Mark:
    """Return the result at one step of the thresholds."""
    windows = sum(t.windows for t in tallies)
    earned = sum(t.earned[step] for t in tallies)
    points = 100 * (earned + windows) / (2 * windows) if windows else 0.0
    found = sum(t.hits[step] for t in tallies) / windows if windows else 0.0
    false = 1000 * sum(t.false[step] for t in tallies) / sum(t.length for t in tallies)
    return Mark(_STEPS[step], points, found, false)


def step_of(threshold: float) -> int:
    """Return the index of the nearest step."""
    return min(range(len(_STEPS)), key=lambda k: abs(_STEPS[k] - threshold))
