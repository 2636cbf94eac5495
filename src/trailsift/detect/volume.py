"""How much each role does, hour by hour, against its own rhythm; and when it works.

A series is one role and one call (or one measure of a role: bytes, refusals, resources). What is usual in an hour is
the most that the series had at this time of the day, an hour to either side, on any earlier day: robust against noise
and weekly jobs, and it follows a lasting change after a day. What exceeds it is rated by its ratio and by what chance
alone would give; the strongest are looked at again with ``analysis.anomaly.score``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trailsift.analysis.anomaly import score
from trailsift.analysis.asking import DENIED, ask, tuple_of
from trailsift.analysis.period import DAY, HOUR, moment
from trailsift.detect.finding import Signal

if TYPE_CHECKING:
    from trailsift.engine import Engine

Floats = NDArray[np.floating[Any]]
Column = NDArray[Any]

#: Measures of a role, in the order in which they are read.
_MEASURES = ("more_bytes", "more_denied", "many_resources")

#: Least of a measure in an hour that can be a signal: events, bytes, refusals, resources.
_LEAST = {"more_calls": 30, "more_reads": 30, "more_deletes": 20, "more_bytes": 50e6, "more_denied": 8}
_LEAST["many_resources"] = 8
_HISTORY = 5  # days of experience at which half of a signal counts
_AGAIN = 40  # series that are looked at once more, hour by hour
_PAST = 28 * 24  # hours that are then looked at
_DECADES = 1.2  # below this nothing is a signal
_HOURS_LEAST = 6  # calls of an hour at an unknown time of the day


@dataclass(frozen=True)
class Series:
    """Hourly numbers of one role: ``values`` is days x 24, from ``begin`` (microseconds, a midnight) on."""

    role_arn: str | None
    kind: str
    event_name: str | None
    values: Floats
    begin: int


def volume(engine: Engine) -> list[Signal]:
    """Signals of what is more than usual, and of work at unusual times."""
    series = _read(engine)
    found = [signal for one in series for signal in exceeding(one)]
    return [*_looked_at_again(found, series), *hours(series)]


def exceeding(series: Series) -> list[Signal]:
    """The hours of a series that exceed all earlier days at that time, neighbouring ones as one signal."""
    values = series.values.astype(np.float64)
    if len(values) < 2:
        return []
    usual = _usual(values)
    known = np.arange(len(values))[:, None]
    excess = np.maximum(values, 1) / (usual + _slack(series.kind))
    with np.errstate(divide="ignore", invalid="ignore"):
        decades = 3 * np.log10(np.maximum(excess, 1))
        if series.kind != "more_bytes":
            base = usual + _slack(series.kind)
            chance = (values * np.log(np.maximum(values, 1e-9) / base) - (values - base)) / math.log(10)
            decades = np.minimum(decades, np.where(values > base, chance, 0))
    decades = decades * known / (known + _HISTORY)
    flat = np.where((values >= _LEAST[series.kind]) & (decades >= _DECADES), decades, 0).ravel()
    out = []
    for first, last in _runs(np.flatnonzero(flat)):
        part = slice(first, last + 1)
        begin = series.begin + first * HOUR
        out.append(
            Signal(
                series.kind,
                series.role_arn,
                float(flat[part].max()),
                begin,
                begin + (last + 1 - first) * HOUR - 1,
                series.event_name or series.kind,
                int(values.ravel()[part].sum()),
                float(usual.ravel()[part].sum()),
                series.event_name,
            )
        )
    return out


def hours(series: Sequence[Series]) -> list[Signal]:
    """Roles at work at a time of the day at which they never were."""
    out = []
    by_role: dict[str | None, list[Series]] = {}
    for one in series:
        if one.event_name:
            by_role.setdefault(one.role_arn, []).append(one)
    for role, of_role in by_role.items():
        total = np.sum([one.values for one in of_role], axis=0)
        usual = _usual(total)
        active = np.cumsum(total.sum(axis=1) > 0) - (total.sum(axis=1) > 0)
        strange = (usual == 0) & (total >= _HOURS_LEAST) & (active[:, None] >= 5)
        for before, day in enumerate(np.flatnonzero(strange.any(axis=1)).tolist()):
            at = np.flatnonzero(strange[day])
            events = int(total[day, at].sum())
            chance = (before + 0.2) / (float(active[day]) + 1)
            decades = -math.log10(chance) + 0.35 * math.log10(events)
            begin = of_role[0].begin + (day * 24 + int(at[0])) * HOUR
            end = of_role[0].begin + (day * 24 + int(at[-1]) + 1) * HOUR - 1
            busiest = max(of_role, key=lambda one, day=day, at=at: float(one.values[day, at].sum()))  # type: ignore[misc]
            names = f"{int(at[0]):02d}:00"
            out.append(Signal("first_hour", role, decades, begin, end, names, events, None, busiest.event_name))
    return out


def _usual(values: Floats) -> Floats:
    """The most of all earlier days at this hour and its neighbours; 0 on the first day."""
    flat = values.ravel()
    around = np.maximum(flat, np.maximum(np.append(flat[1:], 0), np.append(0, flat[:-1]))).reshape(values.shape)
    out = np.zeros_like(values)
    out[1:] = np.maximum.accumulate(around[:-1], axis=0)
    return out


def _slack(kind: str) -> float:
    return 20e6 if kind == "more_bytes" else 3.0


def _runs(places: NDArray[Any]) -> list[tuple[int, int]]:
    """First and last of each run of places, gaps of up to two hours included."""
    out: list[tuple[int, int]] = []
    for place in places.tolist():
        if out and place - out[-1][1] <= 3:
            out[-1] = (out[-1][0], place)
        else:
            out.append((place, place))
    return out


def _looked_at_again(signals: list[Signal], series: Sequence[Series]) -> list[Signal]:
    """The strongest signals weighed once more with the score of their series, which knows weeks and trends."""
    by_key = {(one.role_arn, one.kind, one.event_name): one for one in series}
    ranked = sorted(signals, key=lambda signal: -signal.decades)
    out = []
    known: dict[tuple[str | None, str, str | None], list[float]] = {}
    for signal in ranked:
        key = (signal.role_arn, signal.kind, signal.event_name)
        if key not in known and len(known) < _AGAIN:
            one = by_key[key]
            flat = one.values.ravel()[-_PAST:].tolist()
            start = one.values.size - len(flat)
            times = [moment(one.begin + (start + i) * HOUR) for i in range(len(flat))]
            known[key] = [0.0] * start + score(times, flat)
        if key in known:
            first = (signal.first_time - by_key[key].begin) // HOUR
            last = (signal.last_time - by_key[key].begin) // HOUR
            best = max(known[key][first : last + 2], default=0.0)
            signal = signal._replace(decades=signal.decades * (0.8 + 0.4 * best))
        out.append(signal)
    return out


def _read(engine: Engine) -> list[Series]:
    names = "SELECT DISTINCT role_arn, event_name FROM hourly"
    kinds = [(role, event) for role, event in ask(engine, tuple_of, f"{names} ORDER BY role_arn, event_name")]
    if not kinds:
        return []
    low, high = ask(engine, tuple_of, f"SELECT min(epoch_us(hour)) // {DAY}, max(epoch_us(hour)) // {DAY} FROM hourly")[
        0
    ]
    grids = _Grids(kinds, low, high - low + 1)
    # A number instead of two texts a line, and batches instead of rows: millions of lines fit.
    result = engine.query(
        f"""WITH names AS (SELECT role_arn, event_name,
                row_number() OVER (ORDER BY role_arn, event_name)::INTEGER - 1 AS number FROM ({names}))
        SELECT number, (epoch_us(hour) // {HOUR})::INTEGER, sum(events)::BIGINT, coalesce(sum(bytes_out), 0)::BIGINT,
            coalesce(sum(events) FILTER (WHERE {DENIED}), 0)::BIGINT, count(DISTINCT resource_arn)::BIGINT,
            bool_and(coalesce(read_only, false))
        FROM hourly JOIN names ON hourly.role_arn IS NOT DISTINCT FROM names.role_arn
            AND hourly.event_name IS NOT DISTINCT FROM names.event_name GROUP BY 1, 2""",
        cache=False,
        arrow=True,
    )
    for batch in result.batches():
        grids.add(*(np.asarray(column) for column in batch.columns))
    return grids.series()


class _Grids:
    """Hourly numbers of all roles and calls, filled batch by batch."""

    def __init__(self, kinds: list[tuple[str | None, str | None]], first_day: int, days: int) -> None:
        roles = {role: place for place, role in enumerate(dict.fromkeys(role for role, _ in kinds))}
        self._kinds, self._roles, self._first_day, self._days = kinds, list(roles), first_day, days
        self._role_of = np.array([roles[role] for role, _ in kinds], np.int64)
        self._calls = np.zeros((len(kinds), days * 24), np.float32)
        self._reads = np.ones(len(kinds), bool)
        self._measures = {kind: np.zeros((len(roles), days * 24), np.float32) for kind in _MEASURES}

    def add(
        self,
        number: Column,
        hour: Column,
        events: Column,
        out: Column,
        denied: Column,
        resources: Column,
        reads: Column,
    ) -> None:
        """One batch of lines, a role, call and hour each."""
        at = hour.astype(np.int64) - self._first_day * 24
        np.add.at(self._calls, (number, at), events)
        np.logical_and.at(self._reads, number, reads.astype(bool))
        role = self._role_of[number]
        for kind, values in zip(_MEASURES, (out, denied, resources), strict=True):
            np.add.at(self._measures[kind], (role, at), values)

    def series(self) -> list[Series]:
        """All that is not empty."""
        shape, begin = (self._days, 24), self._first_day * DAY
        found = []
        for place, (role, event) in enumerate(self._kinds):
            deletes = (event or "").startswith("Delete")
            kind = "more_deletes" if deletes else "more_reads" if self._reads[place] else "more_calls"
            found.append(Series(role, kind, event, self._calls[place].reshape(shape), begin))
        for kind, grid in self._measures.items():
            for role, values in zip(self._roles, grid, strict=True):
                if values.any():
                    found.append(Series(role, kind, None, values.reshape(shape), begin))
        return found
