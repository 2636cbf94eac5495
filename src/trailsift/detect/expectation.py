"""The expected daily amount of a series, estimated from its last 28 active days on a logarithmic scale.

Level, weekday effect, and growth from the first two weeks to the second; with its spread and the error of the level.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from trailsift.detect.baseline import Column

#: Amount that is never large, by kind of series: added before taking logarithms. The first is for all other calls.
OFFSETS = np.array([10.0, 10.0, 20.0, 5.0, 5.0])
#: Days that half of an estimate rests on; an estimate needs two such halves, and half of a signal counts after one.
HALF_KNOWN = 7

_HALF = 14
_LEAST_SPREAD, _PRIOR_DAYS = 0.15, 7.0
_CLIP = 3.0  # of a logarithm; larger deviations do not widen the spread
_PRIOR_SPREAD = np.array([0.25, 0.25, 0.5, 0.25, 0.25])  # by kind: a few objects can have many bytes
_GROWTH = math.log(1.5)  # in two weeks; anything faster is not growth


class Expectation(NamedTuple):
    """The expected amount on a day, as a logarithm: level and spread, and the number of days they rest on.

    ``left``: residual of each of these days. ``error``: variance of the level.
    """

    level: Column
    spread: Column
    known: Column
    left: Column
    error: Column


def estimate(past: Column, weekday: Column, today: int, length: Column, kind: Column) -> Expectation:
    """Return the expectation for each row of ``past`` (NaN: unknown days), ``length`` days after it ends."""
    logs = np.log(np.maximum(past, 0) + OFFSETS[kind][:, None])
    is_known = ~np.isnan(logs)
    known = is_known.sum(axis=1)
    late = is_known[:, _HALF:].sum(axis=1)
    level = _median(logs)
    prior = np.maximum(_PRIOR_SPREAD[kind] ** 2, np.exp(-level))
    off = np.where(is_known, logs - level[:, None], 0)
    added, left, spread = _weekday_effect(off, is_known, weekday, prior)
    # Does the level of the last two weeks differ from the two before, and how far does the growth continue?
    counts = np.maximum(np.stack([known - late, late]), 1)
    means = np.stack([left[:, :_HALF].sum(axis=1), left[:, _HALF:].sum(axis=1)]) / counts
    enough = (late >= HALF_KNOWN) & (known - late >= HALF_KNOWN)
    step = np.where(enough, means[1] - means[0], 0)
    part = step**2 / (step**2 + 2 * spread**2 * 2 / _HALF)
    both = left.sum(axis=1) / np.maximum(known, 1)
    level = level + part * means[1] + (1 - part) * both
    before = both + part * (means[0] - both)
    after = both + part * (means[1] - both)
    left = np.where(is_known, left - np.repeat(np.stack([before, after], axis=1), _HALF, axis=1), 0)
    spread = np.sqrt(((left**2).sum(axis=1) + _PRIOR_DAYS * prior) / np.maximum(known + _PRIOR_DAYS - 1, 1))
    ahead = ((_HALF + 1) / 2 + length) / _HALF
    grown = part * np.clip(step, 0, _GROWTH) * ahead
    error = spread**2 * ((1 - part) / np.maximum(known, 1) + part * (1 + 2 * ahead**2) / _HALF)
    return Expectation(level + grown + added[:, today], np.maximum(spread, _LEAST_SPREAD), known, left, error)


def _weekday_effect(off: Column, is_known: Column, weekday: Column, prior: Column) -> tuple[Column, Column, Column]:
    """Return the effect of each weekday, the residual of each day without it, and the spread of the residuals."""
    known = is_known.sum(axis=1)
    total = (np.clip(off, -_CLIP, _CLIP) ** 2).sum(axis=1)
    chance = 2 * (total + _PRIOR_DAYS * prior) / (known + _PRIOR_DAYS)
    added, free = np.zeros((len(off), 7)), known + _PRIOR_DAYS - 1
    for number in range(7):
        same = is_known & (weekday == number)
        count = np.maximum(same.sum(axis=1), 1)
        mean = (off * same).sum(axis=1) / count
        # One or two higher Mondays say much about Mondays only if the excess is far beyond chance.
        part = mean**2 / (mean**2 + chance / count)
        added[:, number] = part * mean
        free -= part
    left = np.where(is_known, off - np.take_along_axis(added, weekday, axis=1), 0)
    spread = np.sqrt(((np.clip(left, -_CLIP, _CLIP) ** 2).sum(axis=1) + _PRIOR_DAYS * prior) / free)
    # No day counts for more than two spreads in the level.
    return added, np.clip(left, -np.minimum(2 * spread, _CLIP)[:, None], _CLIP), spread


def _median(rows: Column) -> Column:
    """Return the median of the known values of each row; 0 for rows without any."""
    ordered = np.sort(rows, axis=1)  # NaN comes last
    known = (~np.isnan(rows)).sum(axis=1)
    low, high = (np.maximum(place, 0)[:, None] for place in ((known - 1) // 2, known // 2))
    both = [np.take_along_axis(ordered, np.minimum(place, rows.shape[1] - 1), axis=1)[:, 0] for place in (low, high)]
    return np.where(known > 0, (both[0] + both[1]) / 2, 0)
