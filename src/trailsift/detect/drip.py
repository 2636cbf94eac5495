"""Slow drips: a role that takes a little more than its habit, day after day, so that no hour and no day stands out.

A series is what a role takes in a day: bytes out of a resource, reads of it by one call, and those of one kind of key.
Its habit is learnt from the days on which the role was at work: the median of two weeks on a logarithmic scale, how it
grew since the two weeks before, and what this weekday adds. Where all else that the role does has grown as well, the
habit grows with it. How far days are above it, in the series' own spread, is summed up (one-sided CUSUM, Page 1954,
"Continuous Inspection Schemes"); a day counts for three spreads at most, so one large day makes no drip.

While it lasts, the days of a drip are not learnt. After two weeks they are: a lasting step becomes the habit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from trailsift.analysis.period import DAY
from trailsift.detect.finding import Signal
from trailsift.detect.habits import Column

#: What a series counts: all calls on a resource (only looked at beside the others), megabytes out of it, reads of it by
#: one call, and those of one key pattern.
TOUCHES, BYTES, READS, PATTERN = range(1, 5)
ROLE = 0  # all that a role does: no series

_PAST = 28  # days of a role that are its habit
_HALF = 14
_LONGEST = 14  # days of a role after which a drip is its habit
_KEPT = _PAST + _LONGEST
#: What is never much, by kind: added before logarithms are taken. The first is for all else that a role does.
_SOFT = np.array([10.0, 10.0, 20.0, 5.0, 5.0])
_LEAST_SPREAD, _PRIOR_DAYS = 0.15, 7.0
_PRIOR_SPREAD = np.array([0.25, 0.25, 0.5, 0.25, 0.25])  # by kind: few objects can make many bytes
_NEAR, _FAR = -2.0, 3.0  # spreads; a day counts for no less and no more
_ALLOWANCE = 0.5  # spreads above the habit that are taken for chance
_DAYS, _DAYS_OVER = 3, 0.6  # least length, and the part of it that is above the habit
_REST_DAYS = 3  # days in a row that are not above it: over; a weekend is none
_KNOWN = 7  # days before a habit is one; half of a signal counts then
_MUCH = np.array([math.inf, math.inf, 500.0, 60.0, 60.0])  # over the habit, in all
_SHARE = 0.3  # of the habit that it is over it at least
_MOST_SO_FAR = 1.1  # of the most in as many days of the past
_REAL = 0.3  # part of what one kind of key has gained that all kinds together have
_GROWTH = math.log(1.5)  # in two weeks; more is no growth
_BORN = 3.0  # reads, or megabytes, of a day from which on a series is remembered
_MANY = 1.5  # decades: a role has some thirty series
_LEAST, _DECADES = 2.0, 6.0  # decades; below the one nothing is a signal, above the other nothing counts more
_BOUND = 100_000

# What is known of a run of days above the habit: columns of Drips.run.
_SUM, _LENGTH, _OVER, _QUIET, _BEGIN, _TOLD, _EXCESS, _USUAL, _BESIDE = range(9)


class Taken(NamedTuple):
    """What roles did on one day (since 1970, UTC): lines in the order of their kinds; keys are hashes.

    ``under``: the key of what a line is part of. The kind ROLE has no resource, only PATTERN has a pattern.
    """

    day: int
    kind: Column
    key: Column
    under: Column
    value: Column
    role: Sequence[str]
    resource: Sequence[str | None]
    event_name: Sequence[str | None]
    pattern: Sequence[str | None]


class Habit(NamedTuple):
    """What is usual on a day, as logarithms: how much, and its spread; and how many days that rests on."""

    level: Column
    spread: Column
    known: Column


class Drips:
    """The past of all series, and the runs of days above it."""

    def __init__(self, bound: int = _BOUND) -> None:
        self.bound = bound
        self.roles: dict[str, int] = {}
        self.dates = np.zeros((0, _KEPT), np.int32)  # days at work
        self.totals = np.zeros((0, _KEPT), np.float32)
        self.places: dict[int, int] = {}
        self.texts: list[tuple[str, str | None]] = []  # resource and pattern
        self.kind = np.zeros(0, np.int8)
        self.of = np.zeros(0, np.int32)  # role
        self.under = np.zeros(0, np.int32)
        self.last = np.zeros(0, np.int32)
        self.values = np.zeros((0, _KEPT), np.float32)
        self.run = np.zeros((0, 9))

    def fold(self, day: Taken) -> list[Signal]:
        """Signals of the drips that go on on this day; then the day is learnt."""
        at, lines = self._placed(day)
        now, name = np.zeros(len(self.kind)), np.full(len(self.kind), -1)
        now[at], name[at] = day.value[lines], lines
        active = np.array([i for i in np.flatnonzero(day.kind == ROLE).tolist() if day.role[i] in self.roles], np.int64)
        working = np.array([self.roles[day.role[line]] for line in active.tolist()], np.int64)
        total = np.zeros(len(self.roles))
        total[working] = day.value[active]
        looked = self._looked_at(now, total)
        signals, ended = self._run(day, looked, now, total, name)
        self._learn(day.day, now, total, working, at)
        self._close(ended)
        self._forget()
        return signals

    def _placed(self, day: Taken) -> tuple[Column, Column]:
        """Series of today and their lines; new ones where they are worth it."""
        for line in np.flatnonzero(day.kind == TOUCHES).tolist():
            self.roles.setdefault(day.role[line], len(self.roles))
        new_roles = len(self.roles) - len(self.dates)
        self.dates = _longer(self.dates, len(self.roles))
        self.totals = np.append(self.totals, np.full((new_roles, _KEPT), np.nan, np.float32), axis=0)
        found: list[tuple[int, int]] = []
        keys, under = day.key.tolist(), day.under.tolist()
        kinds, values = day.kind.tolist(), day.value.tolist()
        new: list[tuple[int, int]] = []
        for line in np.flatnonzero(day.kind != ROLE).tolist():
            place = self.places.get(keys[line])
            if place is None:
                parent = self.places.get(under[line], -1)
                if kinds[line] != TOUCHES and (values[line] < _BORN or parent < 0):
                    continue
                place = self.places[keys[line]] = len(self.texts)
                self.texts.append((day.resource[line] or "", day.pattern[line]))
                new.append((line, parent))
            found.append((place, line))
        self._born(day, new)
        pairs = np.array(found, np.int64).reshape(-1, 2)
        return pairs[:, 0], pairs[:, 1]

    def _born(self, day: Taken, new: Sequence[tuple[int, int]]) -> None:
        if not new:
            return
        begin = len(self.kind)
        lines, parents = (np.array(column) for column in zip(*new, strict=True))
        self.kind = np.append(self.kind, day.kind[lines].astype(np.int8))
        self.of = np.append(self.of, np.array([self.roles[day.role[line]] for line in lines.tolist()], np.int32))
        self.under = np.append(self.under, parents.astype(np.int32))
        self.last = _longer(self.last, len(self.kind))
        self.run = _longer(self.run, len(self.kind))
        self.values = _longer(self.values, len(self.kind))
        self.values[begin:] = np.nan
        # Of a resource that the role knew, none was taken before. A new kind of key is no habit of none.
        known = begin + np.flatnonzero(np.isin(self.kind[begin:], (BYTES, READS)))
        self.values[known] = np.where(np.isnan(self.values[self.under[known]]), np.nan, 0)

    def _looked_at(self, now: Column, total: Column) -> Column:
        """Series that may be above their habit: more than the mean of their past, or in a run."""
        chosen = (self.kind != TOUCHES) & (now >= _BORN)
        at = np.flatnonzero(chosen)
        past = self.values[at, _LONGEST:]
        known = ~np.isnan(past)
        mean = np.where(known, past, 0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
        chosen[at] = now[at] > mean
        chosen |= (self.run[:, _LENGTH] > 0) & (total[self.of] > 0)
        # A kind of key is looked at together with all kinds.
        parents = self.under[chosen & (self.kind == PATTERN)]
        chosen[parents] = True
        out: Column = np.flatnonzero(chosen)
        return out

    def _run(self, day: Taken, at: Column, now: Column, total: Column, name: Column) -> tuple[list[Signal], Column]:
        """Sums up how far the looked-at series are above their habit; signals, and the runs that are over."""
        run = self.run[at]
        value = now[at]
        habit = self._habit(at, day.day, run[:, _LENGTH].astype(np.int64), total, now)
        soft = _SOFT[self.kind[at]]
        usual = np.maximum(np.exp(habit.level) - soft, 0)
        far = (np.log(value + soft) - habit.level) / habit.spread
        step = np.where(habit.known >= _KNOWN, np.clip(far, _NEAR, _FAR) - _ALLOWANCE, -np.inf)
        over = value - usual
        gained = np.zeros(len(self.kind))
        gained[at] = over
        fresh = run[:, _LENGTH] == 0
        run[fresh] = 0
        run[fresh, _BEGIN] = day.day
        run[:, _SUM] = np.maximum(run[:, _SUM] + step, 0)
        run[:, _LENGTH] += 1
        run[:, _OVER] += step > 0
        run[:, _QUIET] = np.where(step > 0, 0, run[:, _QUIET] + 1)
        run[:, _EXCESS] += over
        run[:, _USUAL] += usual
        run[:, _BESIDE] += np.where(self.kind[at] == PATTERN, gained[self.under[at]], over)
        past = self._past(self.values, at, run[:, _LENGTH].astype(np.int64) - 1)
        decades = _decades(run[:, _SUM]) * habit.known / (habit.known + _KNOWN)
        sure = (step > 0) & (decades >= _LEAST)
        run[sure & (run[:, _TOLD] == 0) & self._is_drip(at, run, past), _TOLD] = day.day
        told = np.flatnonzero(sure & (run[:, _TOLD] > 0)).tolist()
        signals = [self._signal(day, int(at[i]), run[i], float(decades[i]), int(name[at[i]])) for i in told]
        self.run[at] = run
        over_now = (run[:, _SUM] <= 0) | (run[:, _QUIET] >= _REST_DAYS) | (run[:, _LENGTH] >= _LONGEST)
        return signals, at[over_now]

    def _is_drip(self, at: Column, run: Column, past: Column) -> Column:
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
            out[i] = run[i, _EXCESS] + run[i, _USUAL] >= _MOST_SO_FAR * float(sums.max())
        return out

    def _signal(self, day: Taken, place: int, run: Column, decades: float, line: int) -> Signal:
        kind, (resource, pattern) = int(self.kind[place]), self.texts[place]
        unit = 1e6 if kind == BYTES else 1
        return Signal(
            "drip_bytes" if kind == BYTES else "drip_reads",
            day.role[line],
            decades,
            int(run[_BEGIN]) * DAY,
            (int(run[_TOLD]) + 1) * DAY - 1,
            f"{resource}/{pattern}" if pattern else resource,
            round((run[_EXCESS] + run[_USUAL]) * unit),
            round(float(run[_USUAL]) * unit, 1),
            day.event_name[line],
            resource,
            mitre=("T1030",),
            goes_on=(day.day + 1) * DAY - 1,
            parts=(("over", round(float(run[_EXCESS]) * unit, 1), float(run[_LENGTH]), float(run[_OVER])),),
        )

    def _habit(self, at: Column, day: int, length: Column, total: Column, now: Column) -> Habit:
        """What was usual on days like this one, before the run began."""
        role = self.of[at]
        weekday = self._past(self.dates, role, length) % 7
        own = _usual(self._past(self.values, at, length), weekday, day % 7, length, self.kind[at])
        touches = np.where(self.kind[at] == PATTERN, self.under[self.under[at]], self.under[at])
        rest = self._past(self.totals, role, length) - self._past(self.values, touches, length)
        others = _usual(rest, weekday, day % 7, length, np.full(len(at), ROLE))
        common = np.log(np.maximum(total[role] - now[touches], 0) + _SOFT[ROLE]) - others.level
        return Habit(own.level + np.where(others.known >= _KNOWN, np.maximum(common, 0), 0), own.spread, own.known)

    def _past(self, of: Column, at: Column, length: Column) -> Column:
        """The last days of each before a run of some length."""
        out: Column = of[at[:, None], np.arange(_LONGEST, _KEPT)[None, :] - length[:, None]]
        return out

    def _learn(self, day: int, now: Column, total: Column, working: Column, at: Column) -> None:
        self.last[at] = day
        for array, today in ((self.dates, np.full(len(self.roles), day)), (self.totals, total)):
            array[working, :-1] = array[working, 1:]
            array[working, -1] = today[working]
        mine = np.zeros(len(self.roles), bool)
        mine[working] = True
        moved = np.flatnonzero(mine[self.of])
        self.values[moved, :-1] = self.values[moved, 1:]
        self.values[moved, -1] = now[moved]

    def _close(self, ended: Column) -> None:
        """Days of a drip that is over are forgotten, unless it lasted so long that they are the habit."""
        for place in ended[self.run[ended, _TOLD] > 0].tolist():
            length, quiet = (int(number) for number in self.run[place, [_LENGTH, _QUIET]])
            if length < _LONGEST:
                self.values[place, _KEPT - length : _KEPT - quiet] = np.nan
        self.run[ended] = 0

    def _forget(self) -> None:
        """Keeps within the bound: what was not seen for longest goes, with what is part of it."""
        if len(self.texts) <= self.bound:
            return
        keys = list(self.places)
        order = sorted(range(len(keys)), key=lambda place: (-int(self.last[place]), int(self.kind[place]), keys[place]))
        kept = np.zeros(len(keys), bool)
        kept[order[: self.bound * 9 // 10]] = True
        for kind in (BYTES, READS, PATTERN):
            own = self.kind == kind
            kept[own] &= kept[self.under[own]]
        self._keep(np.flatnonzero(kept), keys)

    def _keep(self, kept: Column, keys: Sequence[int]) -> None:
        number = np.full(len(keys) + 1, -1, np.int64)
        number[kept] = np.arange(len(kept))
        names = list(self.roles)
        roles, of = np.unique(self.of[kept], return_inverse=True)
        self.roles = {names[role]: place for place, role in enumerate(roles.tolist())}
        self.dates, self.totals = self.dates[roles], self.totals[roles]
        self.of = of.astype(np.int32)
        self.under = number[self.under[kept]].astype(np.int32)
        self.kind, self.last = self.kind[kept], self.last[kept]
        self.values, self.run = self.values[kept], self.run[kept]
        self.texts = [self.texts[place] for place in kept.tolist()]
        self.places = {keys[place]: new for new, place in enumerate(kept.tolist())}


def _decades(sums: Column) -> Column:
    """How rarely chance makes a sum as high (Siegmund 1985, "Sequential Analysis", for an allowance of 0.5)."""
    out: Column = np.clip((sums + 1.17) / math.log(10) + math.log10(2) - _MANY, 0, _DECADES)
    return out


def _usual(past: Column, weekday: Column, today: int, length: Column, kind: Column) -> Habit:
    """The habit of each row of ``past`` (days that are not known are NaN), ``length`` days after it ends."""
    logs = np.log(np.maximum(past, 0) + _SOFT[kind][:, None])
    is_known = ~np.isnan(logs)
    known = is_known.sum(axis=1)
    early, late = is_known[:, :_HALF].sum(axis=1), is_known[:, _HALF:].sum(axis=1)
    level = np.where(late >= _KNOWN, _median(logs[:, _HALF:]), _median(logs))
    before = np.where(early >= _KNOWN, _median(logs[:, :_HALF]), level)
    halves = np.repeat(np.stack([before, level], axis=1), _HALF, axis=1)
    off = np.where(is_known, np.clip(logs - halves, -1.5, 1.5), 0)
    added = np.zeros((len(past), 7))
    for number in range(7):
        same = is_known & (weekday == number)
        # One more day without: what one Monday had says little of Mondays.
        added[:, number] = (off * same).sum(axis=1) / (same.sum(axis=1) + 1)
    added[known < 2 * _KNOWN] = 0
    left = np.where(is_known, off - np.take_along_axis(added, weekday, axis=1), 0)
    prior = np.maximum(_PRIOR_SPREAD[kind] ** 2, np.exp(-level))
    spread = np.sqrt(((left**2).sum(axis=1) + _PRIOR_DAYS * prior) / (known + _PRIOR_DAYS))
    grown = np.clip(level - before, 0, _GROWTH) * ((_HALF + 1) / 2 + length) / _HALF
    return Habit(level + grown + added[:, today], np.maximum(spread, _LEAST_SPREAD), known)


def _median(rows: Column) -> Column:
    """Of what is known in each row; 0 where nothing is."""
    ordered = np.sort(rows, axis=1)  # NaN comes last
    known = (~np.isnan(rows)).sum(axis=1)
    low, high = (np.maximum(place, 0)[:, None] for place in ((known - 1) // 2, known // 2))
    both = [np.take_along_axis(ordered, np.minimum(place, rows.shape[1] - 1), axis=1)[:, 0] for place in (low, high)]
    return np.where(known > 0, (both[0] + both[1]) / 2, 0)


def _longer(array: Column, length: int) -> Column:
    if len(array) >= length:
        return array
    grown = np.zeros((length, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown
