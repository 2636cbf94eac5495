"""The baseline: everything that detection remembers of the past, learned one day at a time.

A day is first compared with the baseline (``novelty``, ``volume``), then learned. So signals of a day depend on earlier
days only, and a run that resumes from a checkpoint gives the same signals as a full run. The size is bounded
(``BaselineLimits``); what was not seen for longest is forgotten first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Column = NDArray[Any]

#: Kinds of first-seen values; a kind is stored as its place here.
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
#: Measures of a caller; the last is all its calls.
MEASURES = ("more_bytes", "more_denied", "many_resources", "calls")
#: Measures of an hour of a caller for which little past is enough: distinct keys, those per minute, and so
#: on; the last is calls per minute.
BURSTS = ("keys", "pace", "bytes_out", "kinds", "resources", "refused", "deletes", "rate")
#: Measures of a day of a network without credentials.
PUBLIC = ("calls", "bytes_out", "resources", "refused", "writes")
#: Kinds of series; a series of calls is one of the first three.
KINDS = ("more_calls", "more_reads", "more_deletes", *MEASURES)


@dataclass(frozen=True)
class BaselineLimits:
    """Upper limits of what is remembered: some 60 MB in all."""

    callers: int = 50_000
    series: int = 200_000
    values: int = 2_000_000
    #: Values per kind and caller; firsts beyond that are not reported.
    per_kind: int = 5_000


BASELINE_LIMITS = BaselineLimits()


class Cells(NamedTuple):
    """Hours of one day; a series and hour occurs at most once."""

    series: Column
    hour: Column  # 0 to 23, UTC
    value: Column


class FirstSeen(NamedTuple):
    """Things that callers did for the first time on this day; times and events are those of the day."""

    caller: Column
    kind: Column  # index into FIRSTS
    key: Column  # hash of caller, kind and value
    shared: Column  # hash of kind and value
    events: Column
    first_time: Column
    last_time: Column
    value: Sequence[str]
    event_name: Sequence[str | None]
    resource_arn: Sequence[str | None]


class CallerHours(NamedTuple):
    """Hours of callers on one day; a caller and hour occurs at most once.

    ``values``: a column per measure of BURSTS. ``kind``: the kind of the caller (``priors.CALLER_KINDS``). ``call``:
    the busiest call of the hour, an index into ``names``. Times are microseconds since 1970.
    """

    caller: Column
    kind: Column
    values: Column
    first_time: Column
    last_time: Column
    call: Column
    names: Sequence[str | None]


#: The hours of nobody.
NO_HOURS = CallerHours(
    np.zeros(0, np.int64),
    np.zeros(0, np.int8),
    np.zeros((0, len(BURSTS))),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    np.zeros(0, np.int64),
    (),
)


class SessionPlace(NamedTuple):
    """Where a session of a caller was used on one day: a network, the families of its clients, and its calls there."""

    caller: str
    session: str
    network: str
    agents: frozenset[str]
    events: int
    first_time: int
    last_time: int


class PublicNetwork(NamedTuple):
    """What one network did without credentials on one day; ``values`` as in PUBLIC."""

    network: str
    values: tuple[float, ...]
    first_time: int
    last_time: int


class Day(NamedTuple):
    """One day (UTC) of a lake; callers and series are indexes into the baseline."""

    day: int  # since 1970
    active: Column  # active callers
    cells: Cells
    writes: Column  # series with mutating calls
    firsts: FirstSeen
    hours: CallerHours = NO_HOURS
    places: Sequence[SessionPlace] = ()  # of sessions that were used in several
    networks: Sequence[PublicNetwork] = ()


class Baseline:
    """The past up to a day (exclusive)."""

    def __init__(self, limits: BaselineLimits = BASELINE_LIMITS) -> None:
        self.limits = limits
        #: Days with any event; a day without events is a gap in delivery, not a quiet day.
        self.days = 0
        #: Active days of all callers, summed.
        self.caller_days = 0
        self.callers: dict[str | None, int] = {}
        self.names: list[str | None] = []
        self.age = np.zeros(0, np.int32)  # active days
        self.off_hours = np.zeros(0, np.int32)  # days with off-hours activity
        self.last = np.zeros(0, np.int32)  # last active day
        self.with_first = np.zeros((0, len(FIRSTS)), np.int32)  # days with a first
        self.held = np.zeros((0, len(FIRSTS)), np.int32)  # values seen
        self.tops = np.zeros((0, len(BURSTS)), np.float32)  # the highest hour
        self.sort = np.zeros(0, np.int8)  # kind of caller
        self.public = np.zeros(len(PUBLIC))  # the most that one network did in a day without credentials
        self.common = np.zeros(len(FIRSTS))
        self.series: dict[tuple[int, str], int] = {}
        self.of = np.zeros(0, np.int32)  # caller of a series
        self.event_names: list[str | None] = []  # None: a measure
        self.kind = np.zeros(0, np.int8)
        self.series_last = np.zeros(0, np.int32)
        self.peaks = np.zeros((0, 24), np.float32)
        self.keys = np.zeros(0, np.uint64)  # sorted
        self.keys_of = np.zeros(0, np.int64)  # caller * len(FIRSTS) + kind
        self.shared = np.zeros(0, np.uint64)  # sorted
        self.shared_by = np.zeros(0, np.uint8)  # callers that have it: 1, 2, or 3 for more
        self.limit = limits.per_kind
        #: How often callers or series were forgotten: all indexes change then.
        self.forgotten = 0

    def caller(self, name: str | None) -> int:
        """Return the index of a caller; add the caller if it is new."""
        place = self.callers.get(name)
        if place is None:
            place = self.callers[name] = len(self.names)
            self.names.append(name)
            self.age, self.off_hours, self.last = (_grown(a, place) for a in (self.age, self.off_hours, self.last))
            self.with_first, self.held = _grown(self.with_first, place), _grown(self.held, place)
            self.tops, self.sort = _grown(self.tops, place), _grown(self.sort, place)
        return place

    def series_of(self, caller: int, name: str, *, measure: bool = False) -> int:
        """Return the index of a series; add it if it is new. ``measure``: the name is one of MEASURES."""
        key = (caller, name if measure else ":" + name)
        place = self.series.get(key)
        if place is None:
            place = self.series[key] = len(self.event_names)
            self.event_names.append(None if measure else name)
            self.of, self.kind = _grown(self.of, place), _grown(self.kind, place)
            self.series_last, self.peaks = _grown(self.series_last, place), _grown(self.peaks, place)
            self.of[place] = caller
            self.kind[place] = KINDS.index(name if measure else _kind(name))
        return place

    def previous_peak(self, cells: Cells) -> Column:
        """Return the maximum of earlier days at this hour of day and its neighbours (float64)."""
        around = [self.peaks[cells.series, (cells.hour + shift) % 24] for shift in (-1, 0, 1)]
        out: Column = np.maximum.reduce(around).astype(np.float64)
        return out

    def is_new(self, keys: Column) -> Column:
        """Return a mask of the hashes that were not seen yet."""
        return ~_in(self.keys, keys)

    def callers_with(self, shared: Column) -> Column:
        """Return how many callers (3 at most) had each value before."""
        out = np.zeros(len(shared), np.uint8)
        present = _in(self.shared, shared)
        out[present] = self.shared_by[np.searchsorted(self.shared, shared[present])]
        return out

    def saturated(self, firsts: FirstSeen) -> Column:
        """Return a mask of the firsts whose caller has more values of the kind than are kept."""
        out: Column = self.held[firsts.caller, firsts.kind] >= self.limit
        return out

    def learn(self, day: Day, off_hours: Sequence[int]) -> None:
        """Add a day to the baseline. ``off_hours``: the callers that were active off-hours."""
        self._learn_firsts(day.firsts)
        self.days += 1
        self.caller_days += len(day.active)
        self.age[day.active] += 1
        self.last[day.active] = day.day
        self.off_hours[list(off_hours)] += 1
        cells = day.cells
        self.series_last[cells.series] = day.day
        np.maximum.at(self.peaks, (cells.series, cells.hour), cells.value.astype(np.float32))
        np.maximum.at(self.tops, day.hours.caller, day.hours.values.astype(np.float32))
        self.sort[day.hours.caller] = day.hours.kind
        for network in day.networks:
            self.public = np.maximum(self.public, network.values)
        self._forget()

    def mark_writes(self, series: Column) -> None:
        """Reclassify series of calls that were taken for reads and are not."""
        self.kind[series[self.kind[series] == KINDS.index("more_reads")]] = KINDS.index("more_calls")

    def _learn_firsts(self, firsts: FirstSeen) -> None:
        kept = ~self.saturated(firsts)
        seasoned = self.age[firsts.caller] > 0
        pairs = np.unique((firsts.caller * len(FIRSTS) + firsts.kind)[seasoned])
        self.with_first[pairs // len(FIRSTS), pairs % len(FIRSTS)] += 1
        np.add.at(self.common, pairs % len(FIRSTS), 1)
        caller, kind = firsts.caller[kept], firsts.kind[kept]
        np.add.at(self.held, (caller, kind), 1)
        self.keys, self.keys_of = _merged(self.keys, self.keys_of, firsts.key[kept], caller * len(FIRSTS) + kind)
        shared, counts = np.unique(firsts.shared[kept], return_counts=True)
        present = _in(self.shared, shared)
        at = np.searchsorted(self.shared, shared[present])
        self.shared_by[at] = np.minimum(3, self.shared_by[at] + counts[present])
        new = np.minimum(3, counts[~present]).astype(np.uint8)
        self.shared, self.shared_by = _merged(self.shared, self.shared_by, shared[~present], new)

    def _forget(self) -> None:
        """Enforce the limits, independently of how many runs led to this day, so that all runs agree."""
        while len(self.keys) > self.limits.values:
            self.limit = max(1, self.limit // 2)
            over = (self.held > self.limit).ravel()
            if self.limit == 1 or not over.any():
                over = (self.held > 0).ravel()
            self._drop_values(~over[self.keys_of])
        if len(self.shared) > self.limits.values:
            kept = self.shared_by > 1
            self.shared, self.shared_by = self.shared[kept], self.shared_by[kept]
            if len(self.shared) > self.limits.values:
                self.shared, self.shared_by = np.zeros(0, np.uint64), np.zeros(0, np.uint8)
        if len(self.names) > self.limits.callers:
            self._keep_callers(_newest(self.last, self.limits.callers * 9 // 10, self.names))
        if len(self.event_names) > self.limits.series:
            names = [f"{self.names[caller]} {name}" for (caller, name) in self.series]
            self._keep_series(_newest(self.series_last, self.limits.series * 9 // 10, names))

    def _drop_values(self, kept: Column) -> None:
        """Drop values but keep their counts (``held``), so that the caller stays saturated."""
        self.keys, self.keys_of = self.keys[kept], self.keys_of[kept]

    def _keep_callers(self, kept: Column) -> None:
        self.forgotten += 1
        number = np.full(len(self.names), -1, np.int64)
        number[kept] = np.arange(len(kept))
        self._drop_values(number[self.keys_of // len(FIRSTS)] >= 0)
        self.keys_of = number[self.keys_of // len(FIRSTS)] * len(FIRSTS) + self.keys_of % len(FIRSTS)
        self._keep_series(np.flatnonzero(number[self.of[: len(self.event_names)]] >= 0))
        self.of = number[self.of].astype(np.int32)
        self.series = {(int(number[caller]), name): place for (caller, name), place in self.series.items()}
        self.names = [self.names[place] for place in kept]
        self.callers = {name: place for place, name in enumerate(self.names)}
        self.age, self.off_hours, self.last = self.age[kept], self.off_hours[kept], self.last[kept]
        self.with_first, self.held = self.with_first[kept], self.held[kept]
        self.tops, self.sort = self.tops[kept], self.sort[kept]

    def _keep_series(self, kept: Column) -> None:
        self.forgotten += 1
        keys = list(self.series)
        self.series = {keys[place]: number for number, place in enumerate(kept)}
        self.event_names = [self.event_names[place] for place in kept]
        self.of, self.kind = self.of[kept], self.kind[kept]
        self.series_last, self.peaks = self.series_last[kept], self.peaks[kept]


def _kind(event_name: str) -> str:
    return "more_deletes" if event_name.startswith("Delete") else "more_reads"


def _grown(array: Column, place: int) -> Column:
    """Make room for ``place``; arrays grow by half, so the tail may hold unused zeros."""
    if place < len(array):
        return array
    grown = np.zeros((max(64, place + place // 2), *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


def _newest(last: Column, count: int, names: Sequence[object]) -> Column:
    """Return the places of the ``count`` seen most recently, in order; names break ties."""
    order = sorted(range(len(names)), key=lambda place: (-int(last[place]), str(names[place])))
    return np.array(sorted(order[:count]), np.int64)


def _in(ordered: Column, values: Column) -> Column:
    if not len(ordered):
        return np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(ordered, values), len(ordered) - 1)
    out: Column = ordered[at] == values
    return out


def _merged(keys: Column, beside: Column, new: Column, beside_new: Column) -> tuple[Column, Column]:
    """Insert new keys into two parallel arrays that are sorted by key."""
    if not len(new):
        return keys, beside
    order = np.argsort(new)
    at = np.searchsorted(keys, new[order])
    return np.insert(keys, at, new[order]), np.insert(beside, at, beside_new[order].astype(beside.dtype))
