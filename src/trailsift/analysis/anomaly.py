"""Score how unusual each point of a series is, given only the points before it.

Several views of a point (its value, its distance from a forecast, means of recent distances, changes, spread, runs of
equal values ...) are each compared with their own past, which gives a probability for any unit and distribution. A
weighted mean of the smallest probabilities, on a logarithmic scale, is the surprise of the point; one threshold on it
works for series of all kinds. A point soon after an alarm must be more surprising than the alarm itself, so that a
lasting change is reported once.

Plain Python, one pass, bounded memory. bench/ANOMALY.md compares this with other methods.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Sequence
from datetime import datetime

from trailsift.errors import UsageError

#: Points with at least this score are worth a look.
THRESHOLD = 0.5

_MEMORY = 8_000  # values of a view that are remembered
_DELAY = 20  # points after which a value becomes part of the past
_LEAST = 30  # values that a view needs before it has a surprise
_ALARM = 2.95  # surprise (decades) that becomes a score of 0.5
_YOUNG = 40  # points after which half of the surprise counts
_WEIGHTS = (0.4, 0.15, 0.15, 0.15, 0.15)  # of the most surprising views, in their order
_LONGER = 0.3  # decades by which a tenfold past raises the bar: it holds more chances for a record
_RECENT = 150  # points over which an earlier peak fades
_QUIET = 30  # points after an alarm in which only a far greater one counts: most others are the return to normal
_CLIP = 6.0  # errors beyond this many ordinary ones do not change the forecast further
_DAY_GAIN, _WEEK_GAIN = 0.15, 0.3  # how much one day or week changes what is usual for it
_DAY_SECONDS = 86_400
_FAR = 1e150
_DECADE = math.log10(math.e)


def score(times: Sequence[datetime], values: Sequence[float]) -> list[float]:
    """Return how unusual each value is, from 0 (as usual) to 1.

    times   when each value was measured, in order; steps may be uneven and points may be missing. Daily and weekly
            seasons are found by the clock of these times, in whatever zone they are.
    values  one per time; NaN, infinities and None are missing values: they score 0 and are not learned

    A score depends only on this and earlier points: it stays the same if later points are cut off. Scores are
    comparable between series: ``THRESHOLD`` gives less than one alarm in 1,000 ordinary points. The first 30 points
    score 0, and among the next hundred only extreme values score high.

    Raise UsageError if the lengths differ.
    """
    if len(times) != len(values):
        raise UsageError(f"score needs one value per time: there are {len(times)} times and {len(values)} values")
    wrong = next((time for time in times if not isinstance(time, datetime)), None)
    if wrong is not None:
        raise UsageError(f"score needs datetimes, not {wrong!r}")
    if len({time.utcoffset() is None for time in times}) > 1:
        raise UsageError("score needs times that either all have a zone or all have none")
    scorer = Scorer()
    return [scorer.step(time, _number(value)) for time, value in zip(times, values, strict=True)]


def _number(value: object) -> float:
    if value is None:
        return math.nan
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"score needs numbers, not {value!r}") from error
    # Squares of the values must stay finite.
    return max(-_FAR, min(_FAR, number)) if math.isfinite(number) else math.nan


class _Past:
    """The past of one view, and how far a value lies beyond it.

    Within the past, the probability is a rank. Beyond the outermost 2.5 %, it follows a generalized Pareto distribution
    fitted by moments (Hosking and Wallis, Parameter and quantile estimation for the generalized Pareto distribution,
    1987).
    """

    __slots__ = ("order", "values", "waiting")

    def __init__(self) -> None:
        self.values: list[float] = []  # sorted
        self.order: deque[float] = deque()  # in order of arrival
        self.waiting: deque[float] = deque()  # not yet part of the past

    def high(self, value: float, unit: float) -> float:
        """Return -log10 of the probability of a value this high; ``unit``: the smallest meaningful excess."""
        values = self.values
        n = len(values)
        if n < _LEAST:
            return 0.0
        above = n - bisect_left(values, value)
        k = max(8, min(60, n // 40))
        if above >= k:
            return math.log10((n + 1) / (above + 0.5))
        return _beyond(value, values[n - k - 1], values[n - k :], above, n, unit)

    def apart(self, value: float, unit: float) -> float:
        """Return -log10 of the probability of a value this high or this low."""
        values = self.values
        n = len(values)
        if n < _LEAST:
            return 0.0
        below = bisect_right(values, value)
        k = max(8, min(60, n // 40))
        if below >= k:
            return self.high(value, unit)
        return _beyond(-value, -values[k], [-low for low in values[:k]], below, n, unit)

    def add(self, value: float) -> None:
        """Remember a value, with a delay: a slow change must not become its own normal."""
        self.waiting.append(value)
        if len(self.waiting) > min(_DELAY, len(self.values) // 8):
            value = self.waiting.popleft()
            insort(self.values, value)
            self.order.append(value)
        if len(self.order) > _MEMORY:
            del self.values[bisect_left(self.values, self.order.popleft())]


def _beyond(value: float, base: float, top: list[float], above: int, n: int, unit: float) -> float:
    """Return -log10 of the probability of a value among or beyond the ``top`` of ``n`` values, all above ``base``."""
    excess = value - base
    if excess <= 0:
        return math.log10((n + 1) / (above + 1))
    k = len(top)
    mean = sum(top) / k - base
    variance = sum([(high - base - mean) ** 2 for high in top]) / k
    # A tail is assumed to be at least as heavy as an exponential one, and to have a variance.
    shape = min(0.45, max(0.0, 0.5 * (1 - mean * mean / variance))) if variance > 0 else 0.0
    scale = max(mean * (1 - shape), unit)
    far = math.log1p(shape * excess / scale) / shape if shape > 1e-3 else excess / scale
    return math.log10((n + 1) / k) + far * _DECADE


class _Bin:
    """The usual value of one time of the day or week, from earlier days or weeks only."""

    __slots__ = ("count", "seen", "total", "value", "visit")

    def __init__(self) -> None:
        self.value = self.total = 0.0
        self.count = self.seen = 0
        self.visit = 0  # the day or week that total and seen belong to

    def turn(self, visit: int, gain: float) -> None:
        """If another day or week has begun, make the last one part of the usual value."""
        if visit != self.visit:
            if self.seen:
                self.count += 1
                self.value += max(gain, 1 / self.count) * (self.total / self.seen - self.value)
            self.visit, self.total, self.seen = visit, 0.0, 0

    def add(self, value: float) -> None:
        """Add a value of the current day or week."""
        self.total += value
        self.seen += 1


class _Forecast:
    """Several simple forecasts of the next value; the one with the smallest recent error is used.

    In order: the last value; three running means, from fast to slow; the usual value of this time of the day; the same
    moved by how far recent values differed from the usual ones; the usual value of this time of the week.
    """

    _GAINS = (0.5, 0.1, 0.02)
    _SLOW = 3  # the first forecast that does not follow a sudden change

    def __init__(self) -> None:
        self.count = 0
        self.errors = [0.0] * 7
        self._tried = [0] * 7
        self._levels = [0.0] * 3
        self._last = self._moved = 0.0
        self._day: dict[int, _Bin] = {}
        self._week: dict[int, _Bin] = {}
        self._at_day: _Bin | None = None
        self._at_week: _Bin | None = None
        self.bin = 0  # seconds; 0 while unknown

    def forecasts(self, day: int, second: int) -> list[float | None]:
        """Return the forecasts for a day (any number that identifies it) and a second of the week."""
        if not self.count:
            return [None] * 7
        out: list[float | None] = [self._last, *self._levels, None, None, None]
        if self.bin:
            daily = self._at_day = self._day.setdefault(second % _DAY_SECONDS // self.bin, _Bin())
            daily.turn(day, _DAY_GAIN)
            if daily.count:
                out[4] = daily.value
                out[5] = daily.value + self._moved
            weekly = self._at_week = self._week.setdefault(second // self.bin, _Bin())
            weekly.turn(day, _WEEK_GAIN)
            if weekly.count:
                out[6] = weekly.value
        return out

    def best(self, forecasts: Sequence[float | None], first: int) -> int | None:
        """Return the index of the forecast with the smallest recent error, from ``first`` on; None while none has been
        tried often enough."""
        best = None
        for index in range(first, 7):
            if forecasts[index] is None or self._tried[index] < (10 if index < 4 else 100):
                continue
            if best is None or self.errors[index] < self.errors[best]:
                best = index
        return best

    def learn(self, value: float, forecasts: Sequence[float | None], slow: int | None) -> None:
        """Learn the value of this point."""
        for index, forecast in enumerate(forecasts):
            if forecast is not None:
                self._tried[index] += 1
                gain = max(0.005, 1 / self._tried[index])
                self.errors[index] += gain * (abs(value - forecast) - self.errors[index])
        self.count += 1
        self._last = value
        clipped = value
        if slow is not None:
            middle = forecasts[slow]
            assert middle is not None
            reach = _CLIP * self.errors[slow]
            clipped = min(middle + reach, max(middle - reach, value))
        for index, gain in enumerate(self._GAINS):
            self._levels[index] += max(gain, 1 / self.count) * (clipped - self._levels[index])
        if self._at_day is not None and self._at_week is not None:
            if self._at_day.count:
                self._moved += 0.1 * (clipped - self._at_day.value - self._moved)
            self._at_day.add(clipped)
            self._at_week.add(clipped)


_BOTH = ("value", "error", "relative", "eight", "many", "spread")  # unusual when high and when low
_HIGH = ("far", "over", "under", "step4", "step16", "step", "step6", "run")  # unusual when high


class Scorer:
    """The state of one series; takes it point by point."""

    def __init__(self) -> None:
        self._pasts = {name: _Past() for name in (*_BOTH, *_HIGH)}
        self._forecast = _Forecast()
        self._by_hour: dict[int, float] = {}
        self._recent: deque[float] = deque(maxlen=33)
        self._eight: deque[float] = deque(maxlen=8)
        self._many: deque[float] = deque(maxlen=32)
        self._moves: deque[float] = deque(maxlen=32)
        self._over = self._under = self._run = 0
        self._unit = 0.0
        self._grain = math.inf
        self._size = 0.0
        self._gaps: deque[float] = deque(maxlen=31)
        self._usual_gap = 0.0
        self._before: datetime | None = None
        self._count = 0
        self._peak, self._peak_age = 0.0, 0
        self._alarm, self._alarm_age = 0.0, 10**9

    def step(self, time: datetime, value: float) -> float:
        """Return the score of the next point; NaN is a missing value."""
        if not math.isfinite(value):
            return 0.0
        self._clock(time)
        views = self._views(time, value)
        surprises = []
        for name, (seen, unit) in views.items():
            past = self._pasts[name]
            surprises.append(past.apart(seen, unit) if name in _BOTH else past.high(seen, unit))
            past.add(seen)
        surprises.sort(reverse=True)
        self._count += 1
        if not surprises[0]:
            return 0.0
        surprise = sum(weight * part for weight, part in zip(_WEIGHTS, surprises, strict=False))
        surprise -= _LONGER * math.log10(max(500, self._count) / 2000)
        surprise *= self._count / (self._count + _YOUNG)
        reported = self._after_alarms(surprise)
        return reported / (reported + _ALARM) if reported > 0 else 0.0

    def _after_alarms(self, surprise: float) -> float:
        """Return what remains of a surprise given the surprises just before it."""
        bar = self._peak * max(0.0, 1 - self._peak_age / _RECENT)
        reported = 0.0
        if surprise > bar:
            reported = surprise
            if self._alarm_age <= _QUIET and surprise < 3 * self._alarm:
                reported = min(0.5 * surprise, 0.8 * _ALARM)
        self._alarm_age += 1
        if reported >= _ALARM:
            self._alarm, self._alarm_age = surprise, 0
        if surprise >= bar:
            self._peak, self._peak_age = surprise, 0
        self._peak_age += 1
        return reported

    def _clock(self, time: datetime) -> None:
        """Learn the usual step; a long gap resets the views over several points."""
        if self._before is not None:
            gap = (time - self._before).total_seconds()
            self._gaps.append(gap)
            if self._usual_gap and gap > 12 * self._usual_gap:
                self._recent.clear()
                self._eight.clear()
                self._many.clear()
                self._moves.clear()
                self._over = self._under = self._run = 0
            if len(self._gaps) >= 20 and self._count % 16 == 4:
                self._usual_gap = sorted(self._gaps)[len(self._gaps) // 2]
                if not self._forecast.bin and 0 < self._usual_gap <= _DAY_SECONDS:
                    least = max(900.0, min(7200.0, 2 * self._usual_gap)) if self._usual_gap <= 7200 else _DAY_SECONDS
                    self._forecast.bin = next(b for b in (900, 1200, 1800, 3600, 7200, _DAY_SECONDS) if b >= least)
        self._before = time

    def _views(self, time: datetime, value: float) -> dict[str, tuple[float, float]]:
        """Return each view's value for this point, with its smallest meaningful difference."""
        second = time.weekday() * _DAY_SECONDS + time.hour * 3600 + time.minute * 60 + time.second
        forecast = self._forecast
        forecasts = forecast.forecasts(time.toordinal(), second)
        best, slow = forecast.best(forecasts, 0), forecast.best(forecasts, forecast._SLOW)
        self._measure(value)
        unit = self._unit
        views: dict[str, tuple[float, float]] = {"value": (value, unit)}
        if best is not None and slow is not None:
            self._against(views, value, second, forecasts[best] or 0.0, forecasts[slow] or 0.0, forecast.errors[slow])
        self._against_recent(views, value)
        self._against_middle(views, value)
        forecast.learn(value, forecasts, slow)
        return views

    def _measure(self, value: float) -> None:
        """Update the unit of the series: half of its grain (1 for counts), or 0.2 % of its usual size."""
        if self._recent:
            move = abs(value - self._recent[-1])
            if 0 < move < self._grain:
                self._grain = move
        self._size += max(0.01, 1 / (self._count + 1)) * (abs(value) - self._size)
        grain = 0.0 if self._grain == math.inf else 0.5 * self._grain
        self._unit = max(grain, 0.002 * self._size, 1e-12)

    def _against(
        self,
        views: dict[str, tuple[float, float]],
        value: float,
        second: int,
        best: float,
        slow: float,
        error: float,
    ) -> None:
        unit = self._unit
        views["error"] = (value - best, unit)
        off = value - slow
        views["far"] = (abs(off), unit)
        ordinary = error + unit
        hour = second % _DAY_SECONDS // 3600
        here = self._by_hour.get(hour, error)
        relative = off / (here + 0.3 * ordinary)
        views["relative"] = (relative, 0.1)
        self._by_hour[hour] = here + 0.02 * (min(abs(off), 6 * here + unit) - here)
        off = max(-6.0, min(6.0, relative))
        self._eight.append(off)
        self._many.append(off)
        if len(self._eight) == 8:
            mean = sum(self._eight) / 8
            views["eight"] = (mean, 0.05)
        if len(self._many) == 32:
            mean = sum(self._many) / 32
            views["many"] = (mean, 0.05)

    def _against_recent(self, views: dict[str, tuple[float, float]], value: float) -> None:
        recent, unit = self._recent, self._unit
        if recent:
            move = abs(value - recent[-1])
            views["step"] = (move, unit)
            self._run = self._run + 1 if not move else 0
            views["run"] = (float(self._run), 1.0)
            self._moves.append(move)
            if len(self._moves) == 32:
                spread = sum(sorted(self._moves)[:28]) / 28
                views["spread"] = (spread, 0.2 * unit)
        if len(recent) >= 6:
            views["step6"] = (abs(value - recent[-6]), unit)
        recent.append(value)
        for width in (4, 16):
            if len(recent) >= 2 * width:
                last = list(recent)
                change = sum(last[-width:]) - sum(last[-2 * width : -width])
                views[f"step{width}"] = (abs(change) / width, unit)

    def _against_middle(self, views: dict[str, tuple[float, float]], value: float) -> None:
        """Add how long the series has been on one side of its median."""
        values = self._pasts["value"].values
        if len(values) > 50:
            median = values[len(values) // 2]
            self._over = 0 if value <= median else self._over + 1
            self._under = 0 if value >= median else self._under + 1
            views["over"], views["under"] = (float(self._over), 2.0), (float(self._under), 2.0)
