"""How much each role does, hour by hour, against its own rhythm; and when it works.

A series is one role and one call (or one measure of a role: bytes, refusals, resources). What is usual in an hour is
the most that the series had at this time of the day, an hour to either side, on any earlier day: robust against noise
and weekly jobs, and it follows a lasting change after a day. What exceeds it is rated by its ratio and by what chance
alone would give. Silence is never told of.
"""

from __future__ import annotations

import math

import numpy as np

from trailsift.detect.baseline import KINDS, Column, Day, Habits
from trailsift.detect.finding import Signal
from trailsift.times import DAY, HOUR

#: Least of a measure in an hour that can be a signal: events, bytes, refusals, resources.
_LEAST = {"more_calls": 30, "more_reads": 30, "more_deletes": 20, "more_bytes": 50e6, "more_denied": 8}
_LEAST |= {"many_resources": 8, "calls": math.inf}
_LEASTS = np.array([_LEAST[kind] for kind in KINDS])
_SLACKS = np.array([20e6 if kind == "more_bytes" else 3.0 for kind in KINDS])
_BYTES, _CALLS = KINDS.index("more_bytes"), KINDS.index("calls")
_HISTORY = 5  # days of a role at which half of a signal counts
_DECADES = 1.2  # below this nothing is a signal
_HOURS_LEAST = 6  # calls of an hour at an unknown time of the day
_DAYS_LEAST = 5  # days of a role before it can have strange hours
_TOGETHER = 3  # hours from one to the next that are one signal


def exceeding(habits: Habits, day: Day) -> list[Signal]:
    """Where series exceed all earlier days at that time, neighbouring hours as one signal."""
    cells, kind = day.cells, habits.kind[day.cells.series]
    least = cells.value >= _LEASTS[kind]
    if not habits.days or not least.any():
        return []
    usual = habits.usual(cells)
    # A role that is new in an old lake is as little known as all are in a new one.
    known = np.minimum(habits.days, habits.age[habits.of[cells.series]])
    decades = np.where(least, _decades(cells.value, usual, kind), 0) * known / (known + _HISTORY)
    out = []
    for series, hours in _runs(cells.series, cells.hour, decades >= _DECADES):
        place = int(series)
        part = (cells.series == place) & (cells.hour >= hours[0]) & (cells.hour <= hours[-1])
        begin = day.day * DAY + hours[0] * HOUR
        name = habits.event_names[place]
        out.append(
            Signal(
                KINDS[int(habits.kind[place])],
                habits.names[int(habits.of[place])],
                float(decades[part].max()),
                begin,
                begin + (hours[-1] + 1 - hours[0]) * HOUR - 1,
                name or KINDS[int(habits.kind[place])],
                int(cells.value[part].sum()),
                float(usual[part].sum()),
                name or None,
            )
        )
    return out


def _decades(values: Column, usual: Column, kind: Column) -> Column:
    base = usual + _SLACKS[kind]
    decades = 3 * np.log10(np.maximum(np.maximum(values, 1) / base, 1))
    chance = (values * np.log(np.maximum(values, 1e-9) / base) - (values - base)) / math.log(10)
    by_chance = np.minimum(decades, np.where(values > base, chance, 0))
    out: Column = np.where(kind == _BYTES, decades, by_chance)
    return out


def hours(habits: Habits, day: Day) -> list[Signal]:
    """Roles at work at a time of the day at which they never were."""
    cells, kind = day.cells, habits.kind[day.cells.series]
    role = habits.of[cells.series]
    strange = (kind == _CALLS) & (cells.value >= _HOURS_LEAST) & (habits.age[role] >= _DAYS_LEAST)
    strange[strange] = habits.usual(type(cells)(*(column[strange] for column in cells))) == 0
    out = []
    for place in np.unique(role[strange]).tolist():
        mine = role == place
        at = np.sort(cells.hour[strange & mine])
        events = int(cells.value[strange & mine].sum())
        chance = (int(habits.strange[place]) + 0.2) / (int(habits.age[place]) + 1)
        decades = -math.log10(chance) + 0.35 * math.log10(events)
        called = mine & (kind < KINDS.index("more_bytes")) & np.isin(cells.hour, at)
        sums: dict[str, float] = {}
        for series, value in zip(cells.series[called].tolist(), cells.value[called].tolist(), strict=True):
            name = habits.event_names[series] or ""
            sums[name] = sums.get(name, 0) + value
        busiest = max(sums, key=lambda name: (sums[name], name), default="")
        begin, end = (day.day * DAY + int(hour) * HOUR for hour in (at[0], at[-1] + 1))
        value, arn = f"{int(at[0]):02d}:00", habits.names[place]
        out.append(Signal("first_hour", arn, decades, begin, end - 1, value, events, None, busiest or None))
    return out


def _runs(series: Column, hour: Column, chosen: Column) -> list[tuple[int, list[int]]]:
    """Chosen hours of each series, those close to each other together."""
    at = np.flatnonzero(chosen)
    order = at[np.lexsort((hour[at], series[at]))]
    out: list[tuple[int, list[int]]] = []
    for place, when in zip(series[order].tolist(), hour[order].tolist(), strict=True):
        if out and out[-1][0] == place and when - out[-1][1][-1] <= _TOGETHER:
            out[-1][1].append(when)
        else:
            out.append((place, [when]))
    return out
