"""What was usual so far: all that detection remembers of the past, one day folded in after the other.

A day is first compared with the habits (``novel``, ``volume``), then learnt. So what is said of a day rests on earlier
days alone, and a run may go on from where another one stopped: both say the same. The size is bounded (``Bounds``);
what is forgotten first is what was not seen for longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

#: Firsts, in the order of their numbers.
FIRSTS = (
    "first_service",
    "first_action",
    "first_resource",
    "first_pattern",
    "first_network",
    "first_agent",
    "first_endpoint",
    "first_account",
)
#: Measures of a role; the last one is all its calls.
MEASURES = ("more_bytes", "more_denied", "many_resources", "calls")
#: What a series is; a series of calls is one of the first three.
KINDS = ("more_calls", "more_reads", "more_deletes", *MEASURES)


@dataclass(frozen=True)
class Bounds:
    """Most of what is remembered: some 60 MB in all."""

    roles: int = 50_000
    series: int = 200_000
    values: int = 2_000_000
    #: Values of one kind of one role; a role that has more of them is told of no further one.
    of_one: int = 5_000


BOUNDS = Bounds()


class Cells(NamedTuple):
    """Hours of one day: each series and hour at most once."""

    series: Column
    hour: Column  # 0 to 23, UTC
    value: Column


class FirstSeen(NamedTuple):
    """What roles did that they had not done before this day; times and calls are those of the day."""

    role: Column
    kind: Column  # place in FIRSTS
    key: Column  # hash of role, kind and value
    shared: Column  # hash of kind and value
    events: Column
    first_time: Column
    last_time: Column
    value: Sequence[str]
    event_name: Sequence[str | None]
    resource_arn: Sequence[str | None]


class Day(NamedTuple):
    """One day (UTC) of a lake; roles and series are places in the habits."""

    day: int  # since 1970
    active: Column  # roles at work
    cells: Cells
    writes: Column  # series with calls that change something
    firsts: FirstSeen


class Habits:
    """The past up to, and without, a day."""

    def __init__(self, bounds: Bounds = BOUNDS) -> None:
        self.bounds = bounds
        #: Days with any event at all; a day without is no day of rest but a gap.
        self.days = 0
        #: Days of all roles.
        self.lived = 0
        self.roles: dict[str | None, int] = {}
        self.names: list[str | None] = []
        self.age = np.zeros(0, np.int32)  # days at work
        self.strange = np.zeros(0, np.int32)  # days with work at a strange hour
        self.last = np.zeros(0, np.int32)
        self.with_first = np.zeros((0, len(FIRSTS)), np.int32)  # days with a first
        self.held = np.zeros((0, len(FIRSTS)), np.int32)  # values
        self.common = np.zeros(len(FIRSTS))
        self.series: dict[tuple[int, str], int] = {}
        self.of = np.zeros(0, np.int32)
        self.event_names: list[str | None] = []  # None: a measure
        self.kind = np.zeros(0, np.int8)
        self.series_last = np.zeros(0, np.int32)
        self.peaks = np.zeros((0, 24), np.float32)
        self.keys = np.zeros(0, np.uint64)  # in order
        self.keys_of = np.zeros(0, np.int64)  # role * len(FIRSTS) + kind
        self.shared = np.zeros(0, np.uint64)  # in order
        self.shared_by = np.zeros(0, np.uint8)  # roles that have it: one, two, more
        self.limit = bounds.of_one

    def role(self, arn: str | None) -> int:
        """The place of a role, a new one where it is not known."""
        place = self.roles.get(arn)
        if place is None:
            place = self.roles[arn] = len(self.names)
            self.names.append(arn)
            self.age, self.strange, self.last = (_longer(a, place) for a in (self.age, self.strange, self.last))
            self.with_first, self.held = _longer(self.with_first, place), _longer(self.held, place)
        return place

    def series_of(self, role: int, name: str, *, measure: bool = False) -> int:
        """The place of a series, a new one where it is not known. ``measure``: the name is one of MEASURES."""
        key = (role, name if measure else ":" + name)
        place = self.series.get(key)
        if place is None:
            place = self.series[key] = len(self.event_names)
            self.event_names.append(None if measure else name)
            self.of, self.kind = _longer(self.of, place), _longer(self.kind, place)
            self.series_last, self.peaks = _longer(self.series_last, place), _longer(self.peaks, place)
            self.of[place] = role
            self.kind[place] = KINDS.index(name if measure else _kind(name))
        return place

    def usual(self, cells: Cells) -> Column:
        """The most on any earlier day at this hour of the day and its neighbours, in float64."""
        around = [self.peaks[cells.series, (cells.hour + shift) % 24] for shift in (-1, 0, 1)]
        out: Column = np.maximum.reduce(around).astype(np.float64)
        return out

    def unknown(self, keys: Column) -> Column:
        """Which hashes are not known yet."""
        return ~_in(self.keys, keys)

    def had_by(self, shared: Column) -> Column:
        """How many roles (three at most) had a value before."""
        out = np.zeros(len(shared), np.uint8)
        known = _in(self.shared, shared)
        out[known] = self.shared_by[np.searchsorted(self.shared, shared[known])]
        return out

    def saturated(self, firsts: FirstSeen) -> Column:
        """Which firsts are of a role that has too many values of the kind to keep."""
        out: Column = self.held[firsts.role, firsts.kind] >= self.limit
        return out

    def learn(self, day: Day, strange: Sequence[int]) -> None:
        """Folds a day in. ``strange``: the roles that worked at a strange hour."""
        self._learn_firsts(day.firsts)
        self.days += 1
        self.lived += len(day.active)
        self.age[day.active] += 1
        self.last[day.active] = day.day
        self.strange[list(strange)] += 1
        cells = day.cells
        self.series_last[cells.series] = day.day
        np.maximum.at(self.peaks, (cells.series, cells.hour), cells.value.astype(np.float32))
        self._forget()

    def see_writes(self, series: Column) -> None:
        """Series of calls that were thought to only read, and do not."""
        self.kind[series[self.kind[series] == KINDS.index("more_reads")]] = KINDS.index("more_calls")

    def _learn_firsts(self, firsts: FirstSeen) -> None:
        kept = ~self.saturated(firsts)
        seasoned = self.age[firsts.role] > 0
        pairs = np.unique((firsts.role * len(FIRSTS) + firsts.kind)[seasoned])
        self.with_first[pairs // len(FIRSTS), pairs % len(FIRSTS)] += 1
        np.add.at(self.common, pairs % len(FIRSTS), 1)
        role, kind = firsts.role[kept], firsts.kind[kept]
        np.add.at(self.held, (role, kind), 1)
        self.keys, self.keys_of = _merged(self.keys, self.keys_of, firsts.key[kept], role * len(FIRSTS) + kind)
        shared, counts = np.unique(firsts.shared[kept], return_counts=True)
        known = _in(self.shared, shared)
        at = np.searchsorted(self.shared, shared[known])
        self.shared_by[at] = np.minimum(3, self.shared_by[at] + counts[known])
        new = np.minimum(3, counts[~known]).astype(np.uint8)
        self.shared, self.shared_by = _merged(self.shared, self.shared_by, shared[~known], new)

    def _forget(self) -> None:
        """Keeps within the bounds; the same on every way to this day, so that all ways say the same."""
        while len(self.keys) > self.bounds.values:
            self.limit = max(1, self.limit // 2)
            over = (self.held > self.limit).ravel()
            if self.limit == 1 or not over.any():
                over = (self.held > 0).ravel()
            self._drop_values(~over[self.keys_of])
        if len(self.shared) > self.bounds.values:
            kept = self.shared_by > 1
            self.shared, self.shared_by = self.shared[kept], self.shared_by[kept]
            if len(self.shared) > self.bounds.values:
                self.shared, self.shared_by = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
        if len(self.names) > self.bounds.roles:
            self._keep_roles(_newest(self.last, self.bounds.roles * 9 // 10, self.names))
        if len(self.event_names) > self.bounds.series:
            names = [f"{self.names[role]} {name}" for (role, name) in self.series]
            self._keep_series(_newest(self.series_last, self.bounds.series * 9 // 10, names))

    def _drop_values(self, kept: Column) -> None:
        """What is dropped stays counted: that role has too many of the kind."""
        self.keys, self.keys_of = self.keys[kept], self.keys_of[kept]

    def _keep_roles(self, kept: Column) -> None:
        number = np.full(len(self.names), -1, np.int64)
        number[kept] = np.arange(len(kept))
        mine = number[self.keys_of // len(FIRSTS)] >= 0
        self._drop_values(mine)
        self.keys_of = number[self.keys_of // len(FIRSTS)] * len(FIRSTS) + self.keys_of % len(FIRSTS)
        self._keep_series(np.flatnonzero(number[self.of[: len(self.event_names)]] >= 0))
        self.of = number[self.of].astype(np.int32)
        self.series = {(int(number[role]), name): place for (role, name), place in self.series.items()}
        self.names = [self.names[place] for place in kept]
        self.roles = {name: place for place, name in enumerate(self.names)}
        self.age, self.strange, self.last = self.age[kept], self.strange[kept], self.last[kept]
        self.with_first, self.held = self.with_first[kept], self.held[kept]

    def _keep_series(self, kept: Column) -> None:
        keys = list(self.series)
        self.series = {keys[place]: number for number, place in enumerate(kept)}
        self.event_names = [self.event_names[place] for place in kept]
        self.of, self.kind = self.of[kept], self.kind[kept]
        self.series_last, self.peaks = self.series_last[kept], self.peaks[kept]


def _kind(event_name: str) -> str:
    return "more_deletes" if event_name.startswith("Delete") else "more_reads"


def _longer(array: Column, place: int) -> Column:
    """With room for one more; arrays grow by half, so the tail may hold zeros that nothing points to."""
    if place < len(array):
        return array
    grown = np.zeros((max(64, place + place // 2), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _newest(last: Column, count: int, names: Sequence[object]) -> Column:
    """Places of the ``count`` that were seen last, in their order; names decide between equals."""
    order = sorted(range(len(names)), key=lambda place: (-int(last[place]), str(names[place])))
    return np.array(sorted(order[:count]), np.int64)


def _in(ordered: Column, values: Column) -> Column:
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    out: Column = ordered[at] == values
    return out


def _merged(keys: Column, beside: Column, new: Column, beside_new: Column) -> tuple[Column, Column]:
    """Two arrays in the order of the first, with what is new."""
    if not len(new):
        return keys, beside
    order = np.argsort(new)
    at = np.searchsorted(keys, new[order])
    return np.insert(keys, at, new[order]), np.insert(beside, at, beside_new[order].astype(beside.dtype))
