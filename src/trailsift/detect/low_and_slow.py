"""Slow drips: a role that takes a little more than its habit, day after day, so that no hour and no day stands out.

A series is what a role takes in a day: bytes out of a resource, reads of it by one call, and those of one kind of key.
Its habit is learnt from the last 28 days on which the role was at work, on a logarithmic scale: their level, what this
weekday adds, and how the level has grown from two weeks to the next two. Where all else that the role does has
grown as well, the habit grows with it. How far days are above it, in the series' own spread, is summed up (one-sided
CUSUM, Page 1954, "Continuous Inspection Schemes"); a day counts for three spreads at most, so one large day makes no
drip. The sum says when a run of days begins and ends. Whether it is a drip, its mean says: days of real roles come in
spells, so it is measured against the means of as many days of the past, and against how well the level is known.

While it lasts, the days of a drip are not learnt. After two weeks they are: a lasting step becomes the habit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from trailsift.detect.baseline import Column
from trailsift.detect.finding import Signal
from trailsift.times import DAY

#: What a series counts: all calls on a resource (only looked at beside the others), megabytes out of it, reads of it by
#: one call, and those of one key pattern.
TOUCHES, BYTES, READS, PATTERN = range(1, 5)
ROLE = 0  # all that a role does

_PAST = 28  # days of a role that are its habit
_HALF = 14
_LONGEST = 14  # days of a role after which a drip is its habit
_KEPT = _PAST + _LONGEST
#: What is never much, by kind: added before logarithms are taken. The first is for all else that a role does.
_SOFT = np.array([10.0, 10.0, 20.0, 5.0, 5.0])
_LEAST_SPREAD, _PRIOR_DAYS = 0.15, 7.0
_CLIP = 3.0  # of a logarithm; what was further off makes the spread no larger
_PRIOR_SPREAD = np.array([0.25, 0.25, 0.5, 0.25, 0.25])  # by kind: few objects can make many bytes
_NEAR, _FAR = -2.0, 3.0  # spreads; a day counts for no less and no more
_ALLOWANCE = 1.0  # spreads above the habit that are taken for chance, and for what is not known of the habit
_DAYS, _DAYS_OVER = 3, 0.6  # least length, and the part of it that is above the habit
_REST_DAYS = 3  # days in a row that are not above it: over; a weekend is none
_KNOWN = 7  # days that half of a habit rests on; it takes two such halves, and half of a signal counts after one
_MUCH = np.array([math.inf, math.inf, 500.0, 60.0, 60.0])  # over the habit, in all
_SHARE = 0.3  # of the habit that it is over it at least
_MOST_SO_FAR = 1.1  # of the most in as many days of the past
_SURE, _LEAST_WEEK = 4.0, 0.05  # spreads of the means of as many days, a week at most; and the least such spread
_REAL = 0.3  # part of what one kind of key has gained that all kinds together have
_GROWTH = math.log(1.5)  # in two weeks; more is no growth
_BORN = 3.0  # reads, or megabytes, of a day from which on a series is remembered
_MANY = 2.0  # decades: a role may have a hundred series
_LEAST, _DECADES = 2.0, 6.0  # decades; below the one nothing is a signal, above the other nothing counts more
_BOUND = 100_000

# What is known of a run of days above the habit: columns of Drips.run.
_SUM, _LENGTH, _OVER, _QUIET, _BEGIN, _TOLD, _EXCESS, _USUAL, _BESIDE, _LOGS, _BEFORE = range(11)


class DailyEgress(NamedTuple):
    """What roles did on one day (since 1970, UTC), a line each; ``key`` is a hash of what it is of.

    ``under``: the key of what a line is part of. ``text``: role, resource, call and key pattern of a line; ROLE has no
    resource, and only PATTERN has a pattern.
    """

    day: int
    kind: Column
    key: Column
    under: Column
    value: Column
    text: Callable[[int], Sequence[str | None]]


class Habit(NamedTuple):
    """What is usual on a day, as logarithms: how much, and its spread; and how many days that rests on.

    ``left``: how far each of these days was above what was usual on it. ``error``: of the level, a variance.
    """

    level: Column
    spread: Column
    known: Column
    left: Column
    error: Column


class Drips:
    """The past of all series, and the runs of days above it. Rows are in the order in which series were first seen."""

    def __init__(self, bound: int = _BOUND) -> None:
        self.bound = bound
        self.key = np.zeros(0, np.uint64)
        self.texts: list[tuple[str | None, str | None]] = []  # resource and pattern
        self.kind = np.zeros(0, np.int8)
        self.of = np.zeros(0, np.int32)  # row of the role
        self.under = np.zeros(0, np.int32)
        self.last = np.zeros(0, np.int32)
        # Of the days on which the role was at work; NaN where nothing is known.
        self.values = np.zeros((0, _KEPT), np.float32)
        self.weekdays = np.zeros((0, _KEPT), np.int8)
        self.run = np.zeros((0, 11))
        self.drips = np.zeros(0, np.int16)  # of each role, that are over

    def fold(self, day: DailyEgress) -> list[Signal]:
        """Signals of the drips that go on on this day; then the day is learnt."""
        self._bear(day)
        place = self._find(day.key)
        lines = np.flatnonzero(place >= 0)
        at = place[lines]
        now, line_of = np.zeros(len(self.key)), np.full(len(self.key), -1)
        now[at], line_of[at] = day.value[lines], lines
        working = line_of[self.of] >= 0
        signals, ended = self._run(day, self._looked_at(now, working), now, line_of)
        self._learn(day.day, now, np.flatnonzero(working), at)
        self._close(ended)
        self._forget()
        return signals

    def _find(self, keys: Column) -> Column:
        """Rows of keys; -1 where there is none."""
        order = np.argsort(self.key)
        at = np.searchsorted(self.key, keys, sorter=order)
        found = order[np.minimum(at, len(order) - 1)] if len(order) else np.zeros(len(keys), np.int64)
        known = self.key[found] == keys if len(order) else np.zeros(len(keys), bool)
        out: Column = np.where(known, found, -1)
        return out

    def _bear(self, day: DailyEgress) -> None:
        """Rows for the series of today that are worth it."""
        new = (self._find(day.key) < 0) & ((day.value >= _BORN) | (day.kind <= TOUCHES))
        for kind in range(PATTERN + 1):
            lines = np.flatnonzero(new & (day.kind == kind))
            if not len(lines):
                continue
            under = self._find(day.under[lines])
            lines, under = (lines, under) if kind == ROLE else (lines[under >= 0], under[under >= 0])
            begin, count = len(self.key), len(lines)
            self.key = np.append(self.key, day.key[lines])
            self.kind = np.append(self.kind, np.full(count, kind, np.int8))
            self.under = np.append(self.under, under.astype(np.int32))
            self.of = np.append(self.of, np.arange(begin, begin + count) if kind == ROLE else self.of[under])
            self.last = np.append(self.last, np.zeros(count, np.int32))
            self.drips = np.append(self.drips, np.zeros(count, np.int16))
            self.run = np.append(self.run, np.zeros((count, 11)), axis=0)
            old = np.zeros((count, _KEPT), np.int8) if kind == ROLE else self.weekdays[under]
            self.weekdays = np.append(self.weekdays, old, axis=0)
            # Of a resource that the role knew, none was taken before. A new kind of key is no habit of none.
            before = np.full((count, _KEPT), np.nan, np.float32)
            if kind in (BYTES, READS):
                before = np.where(np.isnan(self.values[under]), before, np.float32(0))
            self.values = np.append(self.values, before, axis=0)
            texts = [day.text(line) for line in lines.tolist()]
            self.texts += [(resource, pattern) for _, resource, _, pattern in texts]

    def _looked_at(self, now: Column, working: Column) -> Column:
        """Series that may be above their habit: more than the mean of their past, or in a run."""
        chosen = (self.kind > TOUCHES) & (now >= _BORN)
        at = np.flatnonzero(chosen)
        past = self.values[at, _LONGEST:]
        known = ~np.isnan(past)
        mean = np.where(known, past, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        chosen[at] = now[at] > mean
        chosen |= (self.run[:, _LENGTH] > 0) & working
        # A kind of key is looked at together with all kinds.
        parents = self.under[chosen & (self.kind == PATTERN)]
        chosen[parents] = True
        out: Column = np.flatnonzero(chosen)
        return out

    def _run(self, day: DailyEgress, at: Column, now: Column, line_of: Column) -> tuple[list[Signal], Column]:
        """Sums up how far the looked-at series are above their habit; signals, and the runs that are over."""
        run = self.run[at]
        value = now[at]
        habit = self._habit(at, day.day, run[:, _LENGTH].astype(np.int64), now)
        soft = _SOFT[self.kind[at]]
        usual = np.maximum(np.exp(habit.level) - soft, 0)
        off = np.log(value + soft) - habit.level
        step = np.where(habit.known >= 2 * _KNOWN, np.clip(off / habit.spread, _NEAR, _FAR) - _ALLOWANCE, -np.inf)
        over = value - usual
        gained = np.zeros(len(self.kind))
        gained[at] = over
        fresh = run[:, _LENGTH] == 0
        run[fresh] = 0
        run[fresh, _BEGIN] = day.day
        run[fresh, _BEFORE] = self.drips[self.of[at[fresh]]]
        run[:, _SUM] = np.maximum(run[:, _SUM] + step, 0)
        run[:, _LENGTH] += 1
        run[:, _OVER] += step > 0
        run[:, _QUIET] = np.where(step > 0, 0, run[:, _QUIET] + 1)
        run[:, _LOGS] += off
        run[:, _EXCESS] += over
        run[:, _USUAL] += usual
        run[:, _BESIDE] += np.where(self.kind[at] == PATTERN, gained[self.under[at]], over)
        past = self._past(self.values, at, run[:, _LENGTH].astype(np.int64) - 1)
        # Who takes more for some days again and again does so by habit.
        decades = _decades(run[:, _SUM]) * habit.known / (habit.known + _KNOWN) / (1 + run[:, _BEFORE])
        sure = (value > 0) & (step > 0) & (decades >= _LEAST)
        run[sure & (run[:, _TOLD] == 0) & self._is_drip(at, run, past, habit), _TOLD] = day.day
        told = np.flatnonzero(sure & (run[:, _TOLD] > 0)).tolist()
        signals = [self._signal(day, int(at[i]), run[i], float(decades[i]), int(line_of[at[i]])) for i in told]
        self.run[at] = run
        over_now = (run[:, _SUM] <= 0) | (run[:, _QUIET] >= _REST_DAYS) | (run[:, _LENGTH] >= _LONGEST)
        return signals, at[over_now]

    def _is_drip(self, at: Column, run: Column, past: Column, habit: Habit) -> Column:
        """Runs that are long, sure, large, and more than any as many days of the past."""
        kind = self.kind[at]
        out: Column = (
            (run[:, _LENGTH] >= _DAYS)
            & (run[:, _OVER] >= _DAYS_OVER * run[:, _LENGTH])
            & (run[:, _EXCESS] >= np.maximum(_MUCH[kind], _SHARE * run[:, _USUAL]))
            & (run[:, _BESIDE] >= _REAL * run[:, _EXCESS])
        )
        for i in np.flatnonzero(out).tolist():
            length = int(run[i, _LENGTH])
            sums = np.convolve(np.nan_to_num(past[i]), np.ones(length), "valid")
            # Where days come in spells, so do their means, and only what is far above those is no spell.
            week = min(length, 7)
            means = np.convolve(habit.left[i][~np.isnan(past[i])], np.ones(week) / week, "valid")
            error = max(float(means.var()), float(habit.spread[i]) ** 2 / length, _LEAST_WEEK**2)
            sure = _SURE * math.sqrt(error + float(habit.error[i]))
            out[i] = run[i, _EXCESS] + run[i, _USUAL] >= _MOST_SO_FAR * float(sums.max())
            out[i] &= run[i, _LOGS] / length >= sure
        return out

    def _signal(self, day: DailyEgress, place: int, run: Column, decades: float, line: int) -> Signal:
        kind, (resource, pattern) = int(self.kind[place]), self.texts[place]
        role, _, event_name, _ = day.text(line)
        unit = 1e6 if kind == BYTES else 1
        return Signal(
            "drip_bytes" if kind == BYTES else "drip_reads",
            role,
            decades,
            int(run[_BEGIN]) * DAY,
            (int(run[_TOLD]) + 1) * DAY - 1,
            f"{resource}/{pattern}" if pattern else resource or "",
            round((run[_EXCESS] + run[_USUAL]) * unit),
            round(float(run[_USUAL]) * unit, 1),
            event_name,
            resource,
            mitre=("T1030",),
            goes_on=(day.day + 1) * DAY - 1,
            parts=(("over", round(float(run[_EXCESS]) * unit, 1), float(run[_LENGTH]), float(run[_OVER])),),
        )

    def _habit(self, at: Column, day: int, length: Column, now: Column) -> Habit:
        """What was usual on days like this one, before the run began."""
        role = self.of[at]
        weekday = self._past(self.weekdays, at, length)
        own = _usual(self._past(self.values, at, length), weekday, day % 7, length, self.kind[at])
        touches = np.where(self.kind[at] == PATTERN, self.under[self.under[at]], self.under[at])
        rest = self._past(self.values, role, length) - self._past(self.values, touches, length)
        others = _usual(rest, weekday, day % 7, length, np.full(len(at), ROLE))
        common = np.log(np.maximum(now[role] - now[touches], 0) + _SOFT[ROLE]) - others.level
        return Habit(own.level + np.where(others.known >= _KNOWN, np.maximum(common, 0), 0), *own[1:])

    def _past(self, of: Column, at: Column, length: Column) -> Column:
        """The last days of each before a run of some length."""
        out: Column = of[at[:, None], np.arange(_LONGEST, _KEPT)[None, :] - length[:, None]]
        return out

    def _learn(self, day: int, now: Column, working: Column, at: Column) -> None:
        self.last[at] = day
        for array, today in ((self.values, now[working]), (self.weekdays, np.full(len(working), day % 7))):
            array[working, :-1] = array[working, 1:]
            array[working, -1] = today

    def _close(self, ended: Column) -> None:
        """Days of a drip that is over are forgotten, unless it lasted so long that they are the habit."""
        told = ended[self.run[ended, _TOLD] > 0]
        self.drips[np.unique(self.of[told])] += 1
        for place in told.tolist():
            length, quiet = (int(number) for number in self.run[place, [_LENGTH, _QUIET]])
            if length < _LONGEST:
                self.values[place, _KEPT - length : _KEPT - quiet] = np.nan
        self.run[ended] = 0

    def _forget(self) -> None:
        """Keeps within the bound: what was not seen for longest goes, and what is part of it."""
        if len(self.key) <= self.bound:
            return
        order = np.lexsort((self.key, self.kind, -self.last))
        kept = np.zeros(len(self.key), bool)
        kept[order[: self.bound * 9 // 10]] = True
        for kind in range(TOUCHES, PATTERN + 1):
            own = self.kind == kind
            kept[own] &= kept[self.under[own]]
        number = np.full(len(kept) + 1, -1, np.int32)
        number[:-1][kept] = np.arange(kept.sum())
        self.of, self.under = number[self.of[kept]], number[self.under[kept]]
        self.key, self.kind, self.last = self.key[kept], self.kind[kept], self.last[kept]
        self.values, self.weekdays = self.values[kept], self.weekdays[kept]
        self.run, self.drips = self.run[kept], self.drips[kept]
        self.texts = [self.texts[place] for place in np.flatnonzero(kept).tolist()]


def _decades(sums: Column) -> Column:
    """How rarely chance makes a sum as high (Siegmund 1985, "Sequential Analysis")."""
    days = 2 * _ALLOWANCE * (sums + 1.17) / math.log(10) - math.log10(2 * _ALLOWANCE**2)
    out: Column = np.clip(days - _MANY, 0, _DECADES)
    return out


def _usual(past: Column, weekday: Column, today: int, length: Column, kind: Column) -> Habit:
    """The habit of each row of ``past`` (days that are not known are NaN), ``length`` days after it ends."""
    logs = np.log(np.maximum(past, 0) + _SOFT[kind][:, None])
    is_known = ~np.isnan(logs)
    known = is_known.sum(axis=1)
    late = is_known[:, _HALF:].sum(axis=1)
    level = _median(logs)
    prior = np.maximum(_PRIOR_SPREAD[kind] ** 2, np.exp(-level))
    off = np.where(is_known, logs - level[:, None], 0)
    added, left, spread = _weekly(off, is_known, weekday, prior)
    # Whether the last two weeks are another level than the two before, and how far they go on to grow.
    counts = np.maximum(np.stack([known - late, late]), 1)
    means = np.stack([left[:, :_HALF].sum(axis=1), left[:, _HALF:].sum(axis=1)]) / counts
    enough = (late >= _KNOWN) & (known - late >= _KNOWN)
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
    return Habit(level + grown + added[:, today], np.maximum(spread, _LEAST_SPREAD), known, left, error)


def _weekly(off: Column, is_known: Column, weekday: Column, prior: Column) -> tuple[Column, Column, Column]:
    """What each weekday adds, what is left of each day without it, and its spread."""
    known = is_known.sum(axis=1)
    whole = (np.clip(off, -_CLIP, _CLIP) ** 2).sum(axis=1)
    chance = 2 * (whole + _PRIOR_DAYS * prior) / (known + _PRIOR_DAYS)
    added, free = np.zeros((len(off), 7)), known + _PRIOR_DAYS - 1
    for number in range(7):
        same = is_known & (weekday == number)
        count = np.maximum(same.sum(axis=1), 1)
        mean = (off * same).sum(axis=1) / count
        # What a Monday or two had more says much of Mondays only if it is far more than chance has.
        part = mean**2 / (mean**2 + chance / count)
        added[:, number] = part * mean
        free -= part
    left = np.where(is_known, off - np.take_along_axis(added, weekday, axis=1), 0)
    spread = np.sqrt(((np.clip(left, -_CLIP, _CLIP) ** 2).sum(axis=1) + _PRIOR_DAYS * prior) / free)
    # No day counts for more than two spreads in what is usual.
    return added, np.clip(left, -np.minimum(2 * spread, _CLIP)[:, None], _CLIP), spread


def _median(rows: Column) -> Column:
    """Of what is known in each row; 0 where nothing is."""
    ordered = np.sort(rows, axis=1)  # NaN comes last
    known = (~np.isnan(rows)).sum(axis=1)
    low, high = (np.maximum(place, 0)[:, None] for place in ((known - 1) // 2, known // 2))
    both = [np.take_along_axis(ordered, np.minimum(place, rows.shape[1] - 1), axis=1)[:, 0] for place in (low, high)]
    return np.where(known > 0, (both[0] + both[1]) / 2, 0)
