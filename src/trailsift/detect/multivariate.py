"""Hours in which a role does many things a little unlike itself: a detector learnt from the lake.

Each hour of each role is a row of features, measured against the role's own past (``features``). How these go together
in ordinary hours is learnt as a covariance matrix, regularised (scikit-learn's ShrunkCovariance); the distance of
Mahalanobis (1936) from it says how unlike the whole is, and falls apart into a part for each feature. Only what is
above its habit counts, and no feature alone counts for much: that is what the other levels are for.

All is learnt from earlier days. A block of four weeks is looked at together with the four weeks before it, and the
model is made anew each week, so that what is said of a day depends on these weeks only, whenever it is said.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from trailsift.detect.features import FEATURES, Floats, Hours, Ints, Lines, Week, features, read
from trailsift.detect.finding import Signal
from trailsift.times import HOUR

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: What is told where the level cannot run.
MISSING = "the level learned needs scikit-learn: pip install 'trailsift[ml]'"

_BLOCK = 28  # days
_WEEK = 7  # days for which a model is used
_DAYS_LEAST = 5  # days before the first model
_ROWS_LEAST = 200  # role-hours that a model is made of, at least
_ROWS_MOST = 200_000  # the newest
_SHRINKAGE = 0.2
_TAIL = 0.01  # part of the ordinary hours from which the rarity of the others is drawn out
_HISTORY = 7  # days of a role at which half of a signal counts: it may work by the week
_LEAST = 1.8  # decades below which nothing is a signal
_TOGETHER = 3  # hours from one to the next that are one signal
_TOLD = 4  # features that are told


def available() -> bool:
    """Whether scikit-learn is installed."""
    return find_spec("sklearn") is not None


def learned(engine: DuckDBEngine, days: Sequence[int], since: int = 0) -> list[Signal]:
    """Signals of the days from ``since`` on. Needs scikit-learn (``available``).

    ``days``: the days (since 1970, UTC) from then on that have any event; a wrong clock makes no work.
    """
    out: list[Signal] = []
    weeks: dict[int, Week] = {}
    for block in sorted({day // _BLOCK for day in days if day >= since}):
        lines = read(engine, max(0, block - 1) * _BLOCK, (block + 1) * _BLOCK - 1, weeks)
        if lines is not None:
            out += outliers(lines, max(since, block * _BLOCK))
    return out


def outliers(lines: Lines, first: int = 0) -> list[Signal]:
    """``learned`` without the lake: signals of the days from ``first`` on, given lines that begin before."""
    hours = features(lines)
    day = hours.hour // 24
    found: list[Signal] = []
    for week in range(max(first, int(day[0]) + _DAYS_LEAST) // _WEEK, int(day[-1]) // _WEEK + 1):
        begin = max(week * _WEEK, first, int(day[0]) + _DAYS_LEAST)
        past = np.flatnonzero((day < week * _WEEK) | (day < int(day[0]) + _DAYS_LEAST))
        past = past[(hours.known[past] > 0)][-_ROWS_MOST:]
        now = np.flatnonzero((day >= begin) & (day < (week + 1) * _WEEK) & (hours.known > 0))
        if len(past) < _ROWS_LEAST or not len(now):
            continue
        decades, parts = _rated(hours.far[past], hours.far[now])
        decades *= hours.known[now] / (hours.known[now] + _HISTORY)
        share = parts / np.maximum(parts.sum(axis=1), 1e-9)[:, None]
        # Fewer than two features' worth (the inverse of Simpson's index): not many things at once.
        odd = (decades >= _LEAST) & ((share**2).sum(axis=1) < 0.5)
        found += _signals(hours, lines, now[odd], decades[odd], parts[odd])
    return found


def _rated(past: Floats, now: Floats) -> tuple[Floats, Floats]:
    """How rare each row is (decades), and the part of each feature in its distance."""
    from sklearn.covariance import ShrunkCovariance

    model = ShrunkCovariance(shrinkage=_SHRINKAGE).fit(past)
    ordinary = np.sort(_parts(model.precision_, past - model.location_).sum(axis=1))
    parts = _parts(model.precision_, now - model.location_)
    distance = parts.sum(axis=1)
    # The tail of ordinary distances as a power of the distance (Hill's estimate of its exponent).
    count = max(20, int(len(ordinary) * _TAIL))
    least = max(float(ordinary[-count]), 1e-9)
    exponent = 1 / max(0.1, float(np.log(np.maximum(ordinary[-count:], least) / least).mean()))
    rare = np.log10(len(ordinary) / count) + exponent * np.log10(np.maximum(distance, least) / least)
    return np.where(distance > least, rare, 0.0), parts


def _parts(precision: Floats, off: Floats) -> Floats:
    out: Floats = np.where(off > 0, np.maximum(off * (off @ precision), 0), 0)
    return out


def _signals(hours: Hours, lines: Lines, at: Ints, decades: Floats, parts: Floats) -> list[Signal]:
    """Odd hours of one role and day close to each other as one signal."""
    order = np.lexsort((hours.hour[at], hours.role[at]))
    runs: list[list[int]] = []
    for place in order.tolist():
        last = at[runs[-1][-1]] if runs else -1
        here = at[place]
        apart = int(hours.hour[here] - hours.hour[last])
        same = hours.role[last] == hours.role[here] and hours.hour[last] // 24 == hours.hour[here] // 24
        if runs and same and apart <= _TOGETHER:
            runs[-1].append(place)
        else:
            runs.append([place])
    return [_signal(hours, lines, at[run], decades[run], parts[run]) for run in runs]


def _signal(hours: Hours, lines: Lines, at: Ints, decades: Floats, parts: Floats) -> Signal:
    best = int(decades.argmax())
    share = parts[best] / parts[best].sum()
    leading = [place for place in np.argsort(-share, kind="stable").tolist() if share[place] >= 0.05][:_TOLD]
    told = tuple(
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
        lines.roles[int(hours.role[at[0]])],
        float(decades[best]),
        int(hours.hour[at[0]]) * HOUR,
        (int(hours.hour[at[-1]]) + 1) * HOUR - 1,
        "+".join(sorted(name for name, *_ in told[:2])),
        int(hours.calls[at].sum()),
        None,
        lines.names[int(hours.odd_call[at[best]])],
        parts=told,
    )


def _count(feature: str, value: float) -> float:
    """A feature as a person counts it."""
    if feature == "mix":
        return round(value, 1)
    return round(math.expm1(value) * (1000 if feature.startswith("bytes") else 1), 1)
