"""Each caller's activity per hour as a row of features, and the deviation of each feature from the caller's own past.

Everything is causal: a day is compared with earlier days only. The expected values of a caller are learned by hour of
day, shrunk towards the caller as a whole, and towards all callers if it has little history.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from trailsift.analysis.base import CALLS, DENIED, ask, tuple_of
from trailsift.detect.daily_data import LAST_DAY, PASSED, once, whole_days
from trailsift.times import HOUR

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

#: The features, in the order of the columns.
FEATURES = ("calls", "kinds", "resources", "keys", "addresses", "refused", "failed", "bytes_in", "bytes_out", "writes",
    "rare", "mix")  # fmt: skip

_DAYS_AT_ONCE = 7
_RARE = 0.03  # share of a caller's calls below which a call is rare
_HOUR_PRIOR = 4.0  # hours of experience that a caller's whole day is worth, for one hour of day
_SPREAD_PRIOR = 24.0  # hours of experience that the spread of all callers is worth
_LEAST_SPREAD = 0.33  # of logarithms: less than a third more is never unusual
_FARTHEST = 4.0  # spreads; larger deviations are clipped to this
_PULL = 3.0  # spreads; larger deviations do not move the expected value more than this


@dataclass(frozen=True)
class FeatureHours:
    """Caller-hours in order of time: caller and hour, and the deviation of each feature in spreads (``far``).

    ``values``: the features themselves, logarithms of counts; ``usual``: their expected values. ``known``: earlier
    active days of the caller. ``odd_call``: index into CallCounts.names of the call that fits the caller's mix least.
    """

    callers: list[str | None]
    caller: Ints
    hour: Ints  # since 1970
    calls: Ints
    values: Floats
    usual: Floats
    far: Floats
    known: Ints
    odd_call: Ints


@dataclass(frozen=True)
class CallCounts:
    """Calls per caller, hour and name, the source of the features. ``call``: number of a (caller, name) pair."""

    callers: list[str | None]
    names: list[str | None]  # call -> its name
    caller_of: Ints  # call -> caller
    call: Ints
    hour: Ints
    numbers: Floats  # columns: events, bytes in, bytes out, refused, failed, resources, keys, addresses, writes


@dataclass(frozen=True)
class WeekOfCalls:
    """Calls of up to a week as they were read: (caller, name) by number, and batches of columns."""

    kinds: list[tuple[str | None, str | None]]
    batches: list[list[NDArray[Any]]]


def read_calls(
    engine: DuckDBEngine, first: int, last: int, cache: dict[int, WeekOfCalls] | None = None
) -> CallCounts | None:
    """Return the calls of some days (since 1970), in order of time; None if there are none.

    ``cache``: weeks that were read before, by their first day; updated to exactly the weeks of these days.
    """
    cache = {} if cache is None else cache
    last = min(last, LAST_DAY)
    begins = range(first, last + 1, _DAYS_AT_ONCE)
    for begin in [begin for begin in cache if begin not in begins]:
        del cache[begin]
    for begin in begins:
        if begin not in cache:
            cache[begin] = _week(engine, begin, min(begin + _DAYS_AT_ONCE - 1, last))
    weeks = [cache[begin] for begin in begins if cache[begin].kinds]
    if not weeks:
        return None
    order = sorted({kind for week in weeks for kind in week.kinds}, key=lambda kind: tuple(map(str, kind)))
    place = {kind: number for number, kind in enumerate(order)}
    parts = []
    for week in weeks:
        places = np.array([place[kind] for kind in week.kinds], np.int64)
        parts += [[places[call], *columns] for call, *columns in week.batches]
    call, hour, *numbers = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    callers = {caller: number for number, caller in enumerate(dict.fromkeys(caller for caller, _ in order))}
    return CallCounts(
        list(callers),
        [name for _, name in order],
        np.array([callers[caller] for caller, _ in order], np.int64),
        call,
        hour.astype(np.int64),
        np.column_stack(numbers),
    )


def _week(engine: DuckDBEngine, first: int, last: int) -> WeekOfCalls:
    # A week at a time, so that grouping and sorting need less memory.
    where = f"{whole_days(first, last).where('hour')} AND {CALLS}"
    kinds = ask(engine, tuple_of, f"{_names_sql(where)} ORDER BY caller, event_name")
    if not kinds:
        return WeekOfCalls([], [])
    result = engine.query(_lines_sql(where), cache=False, arrow=True)
    batches = [[np.asarray(column) for column in batch.columns] for batch in result.batches()]
    return WeekOfCalls([(caller, name) for caller, name in kinds], batches)


def _names_sql(where: str) -> str:
    return f"SELECT DISTINCT caller, event_name FROM hourly WHERE {where}"


def _lines_sql(where: str) -> str:
    # Conditions name columns of `hourly` without the table: no other table here may have these names.
    return f"""WITH names AS (SELECT caller AS who, event_name AS call,
            row_number() OVER (ORDER BY caller, event_name)::INTEGER - 1 AS number FROM ({_names_sql(where)}))
    SELECT number, (epoch_us(hour) // {HOUR})::INTEGER, {once("events")}::DOUBLE, {once("bytes_in")}::DOUBLE,
        {once("bytes_out")}::DOUBLE, coalesce(sum(events) FILTER ({DENIED} AND NOT {PASSED}), 0)::DOUBLE,
        coalesce(sum(events) FILTER (error_code IS NOT NULL AND NOT {DENIED} AND NOT {PASSED}), 0)::DOUBLE,
        count(DISTINCT resource_arn)::DOUBLE, {once("len(object_keys)")}::DOUBLE,
        coalesce(max(len(source_ips)), 0)::DOUBLE, sum(events * (NOT coalesce(read_only, true))::INTEGER)::DOUBLE
    FROM hourly JOIN names ON caller IS NOT DISTINCT FROM who AND event_name IS NOT DISTINCT FROM call
    WHERE {where} GROUP BY 1, 2 ORDER BY 2, 1"""


def build_features(lines: CallCounts) -> FeatureHours:
    """Return the caller-hours of calls, each day compared with the days before."""
    caller = lines.caller_of[lines.call]
    place = lines.hour * len(lines.callers) + caller
    unique, of = np.unique(place, return_inverse=True)
    hour, caller_at = np.divmod(unique, len(lines.callers))
    sums = np.column_stack([np.bincount(of, column, len(unique)) for column in lines.numbers.T])
    addresses = np.zeros(len(unique))
    np.maximum.at(addresses, of, lines.numbers[:, 7])
    rare, mix, odd_call = _mixes(lines, caller, of, len(unique))
    events, came, out, refused, failed, resources, keys, _, writes = sums.T
    kinds = np.bincount(of, minlength=len(unique)).astype(np.float64)
    values = np.column_stack(
        [
            *(np.log1p(x) for x in (events, kinds, resources, keys, addresses, refused, failed)),
            *(np.log1p(x / 1000) for x in (came, out)),
            np.log1p(writes),
            np.log1p(rare),
            mix,
        ]
    )
    usual, far, known = _against_the_past(values, caller_at, hour, len(lines.callers))
    return FeatureHours(lines.callers, caller_at, hour, events.astype(np.int64), values, usual, far, known, odd_call)


def _mixes(lines: CallCounts, caller: Ints, of: Ints, count: int) -> tuple[Floats, Floats, Ints]:
    """Return for each caller-hour: its rare calls, the deviation of its mix of calls, and the call that deviates most.

    The deviation is the root of the likelihood ratio (G) of the calls against the caller's earlier shares.
    """
    rare, ratio, terms = np.zeros(count), np.zeros(count), np.zeros(len(of))
    calls = np.zeros(len(lines.caller_of))
    total = np.zeros(len(lines.callers))
    kinds = np.bincount(lines.caller_of, minlength=len(lines.callers))
    events = lines.numbers[:, 0]
    of_hour = np.bincount(of, events, count)
    for part in _days(lines.hour):
        call, who, n = lines.call[part], caller[part], events[part]
        share = (calls[call] + 0.5) / (total[who] + 0.5 * kinds[who])
        np.add.at(rare, of[part], n * (share < _RARE))
        terms[part] = 2 * n * np.log(n / (of_hour[of[part]] * share))
        np.add.at(ratio, of[part], terms[part])
        np.add.at(calls, call, n)
        np.add.at(total, who, n)
    odd = np.zeros(count, np.int64)
    order = np.argsort(terms, kind="stable")
    odd[of[order]] = lines.call[order]  # the greatest is written last
    return rare, np.sqrt(np.maximum(ratio, 0)), odd


def _days(hour: Ints) -> list[slice]:
    """Return one slice per day of sorted hours."""
    cuts = np.flatnonzero(np.diff(hour // 24)) + 1
    return [slice(a, b) for a, b in pairwise([0, *cuts.tolist(), len(hour)])]


def _against_the_past(values: Floats, caller: Ints, hour: Ints, callers: int) -> tuple[Floats, Floats, Ints]:
    """Return for each caller-hour the expected values, the deviation from them in spreads, and earlier active days."""
    width = values.shape[1]
    at_hour, hours = np.zeros((callers, 24, width)), np.zeros((callers, 24))
    total, lived = np.zeros((callers, width)), np.zeros(callers)
    squares = np.zeros((callers, width))
    all_squares, all_lived = np.full(width, 0.25), 1.0
    usual, far = np.zeros_like(values), np.zeros_like(values)
    known, age = np.zeros(len(values), np.int64), np.zeros(callers, np.int64)
    for part in _days(hour):
        who, when, now = caller[part], hour[part] % 24, values[part]
        mean = total[who] / np.maximum(lived[who], 1)[:, None]
        near = at_hour[who, when] + 0.5 * (at_hour[who, (when + 1) % 24] + at_hour[who, (when - 1) % 24])
        count = hours[who, when] + 0.5 * (hours[who, (when + 1) % 24] + hours[who, (when - 1) % 24])
        base = (near + _HOUR_PRIOR * mean) / (count + _HOUR_PRIOR)[:, None]
        common = all_squares / all_lived
        spread = np.sqrt(
            (squares[who] + _SPREAD_PRIOR * common) / (lived[who] + _SPREAD_PRIOR)[:, None] + _LEAST_SPREAD**2
        )
        off = now - base
        usual[part], known[part] = base, age[who]
        far[part] = np.clip(off / spread, -_FARTHEST, _FARTHEST)
        # An outlier must not become the expected value at once.
        pulled = np.where(lived[who][:, None] > 0, base + np.clip(off, -_PULL * spread, _PULL * spread), now)
        np.add.at(at_hour, (who, when), pulled)
        np.add.at(hours, (who, when), 1)
        np.add.at(total, who, pulled)
        old = lived[who] > 0
        error = np.where(old[:, None], np.minimum(off, _PULL * spread).clip(-_PULL * spread) ** 2, 0)
        np.add.at(squares, who, error)
        np.add.at(lived, who, 1)
        age[np.unique(who)] += 1
        all_squares, all_lived = all_squares + error.sum(axis=0), all_lived + old.sum()
    return usual, far, known
