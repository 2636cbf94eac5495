"""Volume of each caller per hour against its own rhythm, and activity off-hours.

A series is one caller and one call (or one measure of a caller: bytes, denials, resources). Its expected value in an
hour is the maximum of earlier days at this hour of day, one hour to either side: robust against noise and weekly jobs,
and it follows a lasting change after a day. The excess is rated by its ratio and by what chance alone would give. A
drop in activity is never reported.
"""

from __future__ import annotations

import math

import numpy as np

from trailsift.detect.baseline import KINDS, Baseline, Column, Day
from trailsift.detect.finding import Signal
from trailsift.times import DAY, HOUR

#: Smallest value per hour that can be a signal: events, bytes, denials, resources.
_LEAST = {"more_calls": 30, "more_reads": 30, "more_deletes": 20, "more_bytes": 50e6, "more_denied": 8}
_LEAST |= {"many_resources": 8, "calls": math.inf}
_LEASTS = np.array([_LEAST[kind] for kind in KINDS])
_SLACKS = np.array([20e6 if kind == "more_bytes" else 3.0 for kind in KINDS])
_BYTES, _CALLS = KINDS.index("more_bytes"), KINDS.index("calls")
_HISTORY = 5  # days of a caller at which half of a signal counts
_MIN_RARITY = 1.2  # below this, no signal
_HOURS_LEAST = 6  # calls per off-hour
_DAYS_LEAST = 5  # days of a caller before it can have off-hours
_TOGETHER = 3  # hours between two that are one signal


def find_surges(baseline: Baseline, day: Day) -> list[Signal]:
    """Return series above all earlier days at that time; neighbouring hours are one signal."""
    cells, kind = day.cells, baseline.kind[day.cells.series]
    least = cells.value >= _LEASTS[kind]
    if not baseline.days or not least.any():
        return []
    expected = baseline.previous_peak(cells)
    # A caller that is new in an old lake is as little known as every caller of a new lake.
    known_days = np.minimum(baseline.days, baseline.age[baseline.of[cells.series]])
    rarity = np.where(least, _rarity(cells.value, expected, kind), 0) * known_days / (known_days + _HISTORY)
    out = []
    for series, hours in _runs(cells.series, cells.hour, rarity >= _MIN_RARITY):
        place = int(series)
        part = (cells.series == place) & (cells.hour >= hours[0]) & (cells.hour <= hours[-1])
        begin = day.day * DAY + hours[0] * HOUR
        name = baseline.event_names[place]
        out.append(
            Signal(
                KINDS[int(baseline.kind[place])],
                baseline.names[int(baseline.of[place])],
                float(rarity[part].max()),
                begin,
                begin + (hours[-1] + 1 - hours[0]) * HOUR - 1,
                name or KINDS[int(baseline.kind[place])],
                int(cells.value[part].sum()),
                float(expected[part].sum()),
                name or None,
                past=int(baseline.age[baseline.of[place]]),
            )
        )
    return out


def _rarity(values: Column, expected: Column, kind: Column) -> Column:
    base = expected + _SLACKS[kind]
    rarity = 3 * np.log10(np.maximum(np.maximum(values, 1) / base, 1))
    chance = (values * np.log(np.maximum(values, 1e-9) / base) - (values - base)) / math.log(10)
    by_chance = np.minimum(rarity, np.where(values > base, chance, 0))
    out: Column = np.where(kind == _BYTES, rarity, by_chance)
    return out


def find_off_hours(baseline: Baseline, day: Day) -> list[Signal]:
    """Return callers that are active at a time of day at which they never were before."""
    cells, kind = day.cells, baseline.kind[day.cells.series]
    caller = baseline.of[cells.series]
    off = (kind == _CALLS) & (cells.value >= _HOURS_LEAST) & (baseline.age[caller] >= _DAYS_LEAST)
    off[off] = baseline.previous_peak(type(cells)(*(column[off] for column in cells))) == 0
    out = []
    for place in np.unique(caller[off]).tolist():
        own = caller == place
        at = np.sort(cells.hour[off & own])
        events = int(cells.value[off & own].sum())
        chance = (int(baseline.off_hours[place]) + 0.2) / (int(baseline.age[place]) + 1)
        rarity = -math.log10(chance) + 0.35 * math.log10(events)
        called = own & (kind < KINDS.index("more_bytes")) & np.isin(cells.hour, at)
        sums: dict[str, float] = {}
        for series, value in zip(cells.series[called].tolist(), cells.value[called].tolist(), strict=True):
            name = baseline.event_names[series] or ""
            sums[name] = sums.get(name, 0) + value
        busiest = max(sums, key=lambda name: (sums[name], name), default="")
        begin, end = (day.day * DAY + int(hour) * HOUR for hour in (at[0], at[-1] + 1))
        value, arn = f"{int(at[0]):02d}:00", baseline.names[place]
        age = int(baseline.age[place])
        out.append(Signal("first_hour", arn, rarity, begin, end - 1, value, events, None, busiest or None, past=age))
    return out


def _runs(series: Column, hour: Column, chosen: Column) -> list[tuple[int, list[int]]]:
    """Return the chosen hours of each series; hours close to each other form one run."""
    at = np.flatnonzero(chosen)
    order = at[np.lexsort((hour[at], series[at]))]
    out: list[tuple[int, list[int]]] = []
    for place, when in zip(series[order].tolist(), hour[order].tolist(), strict=True):
        if out and out[-1][0] == place and when - out[-1][1][-1] <= _TOGETHER:
            out[-1][1].append(when)
        else:
            out.append((place, [when]))
    return out
