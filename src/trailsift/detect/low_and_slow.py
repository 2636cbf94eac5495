"""Low-and-slow egress: a caller reads a little more than expected, day after day, so that no hour or day stands out.

``expectation`` estimates the expected amount of each daily series; if everything else that the caller does has grown,
the expected amount grows with it. The deviation of each day, in the series' own spread, is summed up (one-sided CUSUM,
Page 1954, "Continuous Inspection Schemes"); a day counts for three spreads at most, so one large day is not enough. The
sum says when a run of days begins and ends. Whether a run is reported depends on its mean: days of real callers come in
spells, so it is compared with the means of as many days of the past, and with the error of the level.

The days of a run are not learned while it lasts. After two weeks they are: a lasting step becomes the expected amount.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from trailsift.detect.baseline import Column
from trailsift.detect.daily_series import (
    BYTES,
    CALLER,
    LONGEST_RUN,
    MIN_AMOUNT,
    PATTERN,
    TOUCHES,
    DailyEgress,
    DailySeries,
)
from trailsift.detect.expectation import HALF_KNOWN, OFFSETS, Expectation, estimate
from trailsift.detect.finding import Signal
from trailsift.times import DAY

_NEAR, _FAR = -2.0, 3.0  # spreads; limits of what a day counts
_ALLOWANCE = 1.0  # spreads above expectation that are taken for chance and for the error of the expectation
_DAYS, _DAYS_OVER = 3, 0.6  # minimum length, and the part of it that is above expectation
_REST_DAYS = 3  # days in a row not above expectation that end a run; a weekend does not
_MIN_EXCESS = np.array([math.inf, math.inf, 500.0, 60.0, 60.0])  # in all, by kind
_MIN_SHARE = 0.3  # of the expected amount that the excess must reach
_OVER_PEAK = 1.1  # times the maximum of as many days of the past
_SURE, _LEAST_WEEK = 4.0, 0.05  # spreads of the means of as many days (a week at most), and the smallest such spread
_REAL = 0.3  # part of a key pattern's gain that all patterns together must have
_MANY = 2.0  # log10 of the series that a caller may have
_MIN_RARITY, _MAX_RARITY = 2.0, 6.0  # below the first, no signal; the second is the upper limit

# Columns of LowAndSlowDetector.runs: the current run of days above expectation of each series.
_SUM, _LENGTH, _OVER, _QUIET, _BEGIN, _REPORTED, _EXCESS, _EXPECTED, _BESIDE, _LOGS, _BEFORE = range(11)


class LowAndSlowDetector:
    """The daily series of all callers, and the current run of each above its expectation."""

    #: Names of the arrays of ``state``.
    ARRAYS: ClassVar = ("key", "kind", "of", "under", "last", "values", "weekdays", "run", "drips")

    def __init__(self, series: DailySeries | None = None) -> None:
        self.series = DailySeries() if series is None else series
        self.runs = np.zeros((0, 11))
        self.past_runs = np.zeros(0, np.int16)  # reported and over, by caller

    def state(self) -> tuple[list[tuple[str | None, str | None]], dict[str, Column]]:
        """Return everything that a checkpoint stores: texts, and arrays by the names of ARRAYS."""
        s = self.series
        arrays = (s.key, s.kind, s.caller, s.parent, s.last, s.values, s.weekdays, self.runs, self.past_runs)
        return s.texts, dict(zip(self.ARRAYS, arrays, strict=True))

    @classmethod
    def of_state(cls, texts: list[Any], arrays: dict[str, Column]) -> LowAndSlowDetector:
        """Return the detector that a checkpoint stored."""
        detector = cls()
        s = detector.series
        s.texts = [(resource, pattern) for resource, pattern in texts]
        s.key, s.kind, s.caller, s.parent, s.last, s.values, s.weekdays, detector.runs, detector.past_runs = (
            arrays[name] for name in cls.ARRAYS
        )
        return detector

    def process(self, day: DailyEgress) -> list[Signal]:
        """Return the signals of the runs that continue on this day, then learn the day."""
        series = self.series
        series.add_new(day)
        added = len(series) - len(self.runs)
        self.runs = np.append(self.runs, np.zeros((added, 11)), axis=0)
        self.past_runs = np.append(self.past_runs, np.zeros(added, np.int16))
        rows = series.rows_of(day.key)
        lines = np.flatnonzero(rows >= 0)
        seen = rows[lines]
        now, line_of = np.zeros(len(series)), np.full(len(series), -1)
        now[seen], line_of[seen] = day.value[lines], lines
        active = line_of[series.caller] >= 0
        signals, ended = self._update(day, self._candidates(now, active), now, line_of)
        series.learn(day.day, now, np.flatnonzero(active), seen)
        self._close(ended)
        kept = series.forget()
        if kept is not None:
            self.runs, self.past_runs = self.runs[kept], self.past_runs[kept]
        return signals

    def _candidates(self, now: Column, active: Column) -> Column:
        """Return rows that may be above expectation: above the mean of their past, or in a run."""
        series = self.series
        chosen = (series.kind > TOUCHES) & (now >= MIN_AMOUNT)
        at = np.flatnonzero(chosen)
        past = series.values[at, LONGEST_RUN:]
        known = ~np.isnan(past)
        mean = np.where(known, past, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        chosen[at] = now[at] > mean
        chosen |= (self.runs[:, _LENGTH] > 0) & active
        # A key pattern is examined together with all patterns.
        chosen[series.parent[chosen & (series.kind == PATTERN)]] = True
        out: Column = np.flatnonzero(chosen)
        return out

    def _update(self, day: DailyEgress, at: Column, now: Column, line_of: Column) -> tuple[list[Signal], Column]:
        """Add the day to the runs of the candidate rows ``at``. Return signals, and the rows whose run is over."""
        series = self.series
        runs = self.runs[at]
        value = now[at]
        expected = self._expected(at, day.day, runs[:, _LENGTH].astype(np.int64), now)
        offset = OFFSETS[series.kind[at]]
        usual = np.maximum(np.exp(expected.level) - offset, 0)
        deviation = np.log(value + offset) - expected.level
        spreads = np.clip(deviation / expected.spread, _NEAR, _FAR)
        step = np.where(expected.known >= 2 * HALF_KNOWN, spreads - _ALLOWANCE, -np.inf)
        excess = value - usual
        gained = np.zeros(len(series))
        gained[at] = excess
        fresh = runs[:, _LENGTH] == 0
        runs[fresh] = 0
        runs[fresh, _BEGIN] = day.day
        runs[fresh, _BEFORE] = self.past_runs[series.caller[at[fresh]]]
        runs[:, _SUM] = np.maximum(runs[:, _SUM] + step, 0)
        runs[:, _LENGTH] += 1
        runs[:, _OVER] += step > 0
        runs[:, _QUIET] = np.where(step > 0, 0, runs[:, _QUIET] + 1)
        runs[:, _LOGS] += deviation
        runs[:, _EXCESS] += excess
        runs[:, _EXPECTED] += usual
        runs[:, _BESIDE] += np.where(series.kind[at] == PATTERN, gained[series.parent[at]], excess)
        past = series.history(series.values, at, runs[:, _LENGTH].astype(np.int64) - 1)
        # For a caller that repeatedly reads more for some days, this is normal.
        rarity = _rarity(runs[:, _SUM]) * expected.known / (expected.known + HALF_KNOWN) / (1 + runs[:, _BEFORE])
        sure = (value > 0) & (step > 0) & (rarity >= _MIN_RARITY)
        runs[sure & (runs[:, _REPORTED] == 0) & self._is_reportable(at, runs, past, expected), _REPORTED] = day.day
        reported = np.flatnonzero(sure & (runs[:, _REPORTED] > 0)).tolist()
        signals = [self._signal(day, int(at[i]), runs[i], float(rarity[i]), int(line_of[at[i]])) for i in reported]
        self.runs[at] = runs
        over = (runs[:, _SUM] <= 0) | (runs[:, _QUIET] >= _REST_DAYS) | (runs[:, _LENGTH] >= LONGEST_RUN)
        return signals, at[over]

    def _is_reportable(self, at: Column, runs: Column, past: Column, expected: Expectation) -> Column:
        """Return a mask of the runs that are long, certain, large, and above any as many days of the past."""
        kind = self.series.kind[at]
        out: Column = (
            (runs[:, _LENGTH] >= _DAYS)
            & (runs[:, _OVER] >= _DAYS_OVER * runs[:, _LENGTH])
            & (runs[:, _EXCESS] >= np.maximum(_MIN_EXCESS[kind], _MIN_SHARE * runs[:, _EXPECTED]))
            & (runs[:, _BESIDE] >= _REAL * runs[:, _EXCESS])
        )
        for i in np.flatnonzero(out).tolist():
            length = int(runs[i, _LENGTH])
            sums = np.convolve(np.nan_to_num(past[i]), np.ones(length), "valid")
            # If days come in spells, so do their means; only a mean far above those is more than a spell.
            week = min(length, 7)
            means = np.convolve(expected.left[i][~np.isnan(past[i])], np.ones(week) / week, "valid")
            error = max(float(means.var()), float(expected.spread[i]) ** 2 / length, _LEAST_WEEK**2)
            threshold = _SURE * math.sqrt(error + float(expected.error[i]))
            out[i] = runs[i, _EXCESS] + runs[i, _EXPECTED] >= _OVER_PEAK * float(sums.max())
            out[i] &= runs[i, _LOGS] / length >= threshold
        return out

    def _signal(self, day: DailyEgress, row: int, run: Column, rarity: float, line: int) -> Signal:
        kind, (resource, pattern) = int(self.series.kind[row]), self.series.texts[row]
        caller, _, event_name, _ = day.text(line)
        unit = 1e6 if kind == BYTES else 1
        return Signal(
            "drip_bytes" if kind == BYTES else "drip_reads",
            caller,
            rarity,
            int(run[_BEGIN]) * DAY,
            (int(run[_REPORTED]) + 1) * DAY - 1,
            f"{resource}/{pattern}" if pattern else resource or "",
            round((run[_EXCESS] + run[_EXPECTED]) * unit),
            round(float(run[_EXPECTED]) * unit, 1),
            event_name,
            resource,
            mitre=("T1030",),
            goes_on=(day.day + 1) * DAY - 1,
            parts=(("over", round(float(run[_EXCESS]) * unit, 1), float(run[_LENGTH]), float(run[_OVER])),),
        )

    def _expected(self, at: Column, day: int, length: Column, now: Column) -> Expectation:
        """Return the expectation for a day like this one, from the days before the run began."""
        series = self.series
        caller = series.caller[at]
        weekday = series.history(series.weekdays, at, length)
        own = estimate(series.history(series.values, at, length), weekday, day % 7, length, series.kind[at])
        touches = np.where(series.kind[at] == PATTERN, series.parent[series.parent[at]], series.parent[at])
        rest = series.history(series.values, caller, length) - series.history(series.values, touches, length)
        others = estimate(rest, weekday, day % 7, length, np.full(len(at), CALLER))
        common = np.log(np.maximum(now[caller] - now[touches], 0) + OFFSETS[CALLER]) - others.level
        return Expectation(own.level + np.where(others.known >= HALF_KNOWN, np.maximum(common, 0), 0), *own[1:])

    def _close(self, ended: Column) -> None:
        """Reset runs that are over; erase the days of reported ones, unless a run became the new normal."""
        reported = ended[self.runs[ended, _REPORTED] > 0]
        self.past_runs[np.unique(self.series.caller[reported])] += 1
        for row in reported.tolist():
            length, quiet = (int(number) for number in self.runs[row, [_LENGTH, _QUIET]])
            if length < LONGEST_RUN:
                self.series.erase(row, length, quiet)
        self.runs[ended] = 0


def _rarity(sums: Column) -> Column:
    """Return how rarely chance makes a sum as high (Siegmund 1985, "Sequential Analysis")."""
    days = 2 * _ALLOWANCE * (sums + 1.17) / math.log(10) - math.log10(2 * _ALLOWANCE**2)
    out: Column = np.clip(days - _MANY, 0, _MAX_RARITY)
    return out
