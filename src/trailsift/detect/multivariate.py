"""Multivariate outliers: hours in which a caller deviates a little in many ways at once.

Each hour of each caller is a row of features, measured against the caller's own past (``features``). How features vary
together in ordinary hours is learned as a covariance matrix, shrunk towards its mean variance; the
Mahalanobis distance (1936) from it rates the hour as a whole and splits into one part per feature. Only values above
expectation count, and no feature alone counts for much: the other levels are for that.

Everything is learned from earlier days. A block of four weeks is examined together with the four weeks before it, and
the model is refitted each week, so that signals of a day depend on these weeks only, no matter when the run happens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from trailsift.detect.features import (
    FEATURES,
    CallCounts,
    FeatureHours,
    Floats,
    Ints,
    WeekOfCalls,
    build_features,
    read_calls,
)
from trailsift.detect.finding import Signal
from trailsift.times import HOUR

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

_BLOCK = 28  # days
_WEEK = 7  # days for which a model is used
_DAYS_LEAST = 5  # days before the first model
_ROWS_LEAST = 200  # minimum caller-hours to fit a model
_ROWS_MOST = 200_000  # the newest are used
_SHRINKAGE = 0.2
_TAIL = 0.01  # share of the ordinary hours from which rarity is extrapolated
_HISTORY = 7  # days of a caller at which half of a signal counts: it may have a weekly rhythm
_MIN_RARITY = 1.8  # below this, no signal
_TOGETHER = 3  # hours between two that are one signal
_SHOWN = 4  # features in a signal


def find_outliers(engine: DuckDBEngine, days: Sequence[int], since: int = 0) -> list[Signal]:
    """Return the signals of the days from ``since`` on.

    ``days``: the days (since 1970, UTC) with events; days far off, from a wrong clock, cost nothing.
    """
    out: list[Signal] = []
    weeks: dict[int, WeekOfCalls] = {}
    present = {day // _WEEK for day in days}
    for block in sorted({day // _BLOCK for day in days if day >= since}):
        for begin in range(max(0, block - 1) * _BLOCK, (block + 1) * _BLOCK, _WEEK):
            if begin >= since and begin // _WEEK not in present:
                weeks.setdefault(begin, WeekOfCalls([], []))
        lines = read_calls(engine, max(0, block - 1) * _BLOCK, (block + 1) * _BLOCK - 1, weeks)
        if lines is not None:
            out += outliers(lines, max(since, block * _BLOCK))
    return out


def outliers(lines: CallCounts, first: int = 0) -> list[Signal]:
    """Return the signals of the days from ``first`` on, from calls that begin earlier."""
    hours = build_features(lines)
    day = hours.hour // 24
    signals: list[Signal] = []
    for week in range(max(first, int(day[0]) + _DAYS_LEAST) // _WEEK, int(day[-1]) // _WEEK + 1):
        begin = max(week * _WEEK, first, int(day[0]) + _DAYS_LEAST)
        past = np.flatnonzero((day < week * _WEEK) | (day < int(day[0]) + _DAYS_LEAST))
        past = past[(hours.known[past] > 0)][-_ROWS_MOST:]
        now = np.flatnonzero((day >= begin) & (day < (week + 1) * _WEEK) & (hours.known > 0))
        if len(past) < _ROWS_LEAST or not len(now):
            continue
        rarity, parts = rate_hours(hours.far[past], hours.far[now])
        rarity *= hours.known[now] / (hours.known[now] + _HISTORY)
        share = parts / np.maximum(parts.sum(axis=1), 1e-9)[:, None]
        # An inverse Simpson index below two means fewer than two features: not many things at once.
        odd = (rarity >= _MIN_RARITY) & ((share**2).sum(axis=1) < 0.5)
        signals += _signals(hours, lines, now[odd], rarity[odd], parts[odd])
    return signals


def rate_hours(past: Floats, now: Floats) -> tuple[Floats, Floats]:
    """Return for each row of ``now`` how rare it is among the rows ``past``, and the part of each feature in that.

    Rows are features in spreads (``FeatureHours.far``). Rarity is log10 of once in how many hours, from 0 on.
    """
    mean = past.mean(axis=0)
    precision = _precision(past - mean)
    ordinary = np.sort(_parts(precision, past - mean).sum(axis=1))
    parts = _parts(precision, now - mean)
    distance = parts.sum(axis=1)
    # The tail of ordinary distances as a power law (Hill estimator of the exponent).
    count = max(20, int(len(ordinary) * _TAIL))
    least = max(float(ordinary[-count]), 1e-9)
    exponent = 1 / max(0.1, float(np.log(np.maximum(ordinary[-count:], least) / least).mean()))
    rare = np.log10(len(ordinary) / count) + exponent * np.log10(np.maximum(distance, least) / least)
    return np.where(distance > least, rare, 0.0), parts


def _precision(off: Floats) -> Floats:
    """Return the inverse covariance of rows whose mean is 0, shrunk towards the mean variance of the features.

    A feature that is nearly always 0 has a tiny variance, and would decide alone.
    """
    covariance = off.T @ off / len(off)
    shrunk = (1 - _SHRINKAGE) * covariance
    shrunk[np.diag_indices_from(shrunk)] += _SHRINKAGE * float(np.trace(covariance)) / len(covariance)
    # Rows that are all the same have no covariance, and nothing is far from them.
    return np.linalg.pinv(shrunk, hermitian=True).astype(np.float64, copy=False)


def _parts(precision: Floats, off: Floats) -> Floats:
    out: Floats = np.where(off > 0, np.maximum(off * (off @ precision), 0), 0)
    return out


def _signals(hours: FeatureHours, lines: CallCounts, at: Ints, rarity: Floats, parts: Floats) -> list[Signal]:
    """Return the signals; outlier hours of one caller and day close to each other are one."""
    order = np.lexsort((hours.hour[at], hours.caller[at]))
    runs: list[list[int]] = []
    for place in order.tolist():
        last = at[runs[-1][-1]] if runs else -1
        here = at[place]
        apart = int(hours.hour[here] - hours.hour[last])
        same = hours.caller[last] == hours.caller[here] and hours.hour[last] // 24 == hours.hour[here] // 24
        if runs and same and apart <= _TOGETHER:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [_signal(hours, lines, at[run], rarity[run], parts[run]) for run in runs]


def _signal(hours: FeatureHours, lines: CallCounts, at: Ints, rarity: Floats, parts: Floats) -> Signal:
    best = int(rarity.argmax())
    share = parts[best] / parts[best].sum()
    leading = [place for place in np.argsort(-share, kind="stable").tolist() if share[place] >= 0.05][:_SHOWN]
    shown = tuple(
        (
            FEATURES[place],
            _count(FEATURES[place], float(hours.values[at[best], place])),
            _count(FEATURES[place], max(0.0, float(hours.usual[at[best], place]))),
            round(float(share[place]), 3),
        )
        for place in leading
    )
    return Signal(
        "unlike_itself",
        lines.callers[int(hours.caller[at[0]])],
        float(rarity[best]),
        int(hours.hour[at[0]]) * HOUR,
        (int(hours.hour[at[-1]]) + 1) * HOUR - 1,
        "+".join(sorted(name for name, *_ in shown[:2])),
        int(hours.calls[at].sum()),
        None,
        lines.names[int(hours.odd_call[at[best]])],
        parts=shown,
    )


def _count(feature: str, value: float) -> float:
    """Return a feature as a plain count."""
    if feature == "mix":
        return round(value, 1)
    return round(math.expm1(value) * (1000 if feature.startswith("bytes") else 1), 1)
