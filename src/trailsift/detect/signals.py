"""All levels over a lake, day by day: from where the last run stopped, over what changed since, to the newest day."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.analysis.time_range import Period
from trailsift.detect import checkpoint
from trailsift.detect.baseline import BOUNDS, Bounds, Habits
from trailsift.detect.checkpoint import State
from trailsift.detect.daily_data import days, period_of, totals
from trailsift.detect.detection_rules import Detection, Happening, Problem, happenings, search, signals_of
from trailsift.detect.egress import daily_egress
from trailsift.detect.finding import DRIPS, Link, Signal
from trailsift.detect.low_and_slow import Drips
from trailsift.detect.multivariate import available, learned
from trailsift.detect.novelty import links, novel
from trailsift.detect.rescore import rescored
from trailsift.detect.volume import exceeding, hours
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Signals, and links, that are kept at most, and happenings of one detection: the newest.
SIGNALS = 20_000
HAPPENINGS = 2_000
_Timed = TypeVar("_Timed", Signal, Link)
_OPEN = 2  # days with events that are looked at in each run, besides the newest


@dataclass
class SignalSet:
    """What all levels see; ``problems`` are detections that do not run, ``days`` (since 1970) those that were read."""

    signals: list[Signal] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    days: list[int] = field(default_factory=list)


def look(
    engine: DuckDBEngine,
    detections: Sequence[Detection] = (),
    *,
    afresh: bool = False,
    save: bool = True,
    bounds: Bounds = BOUNDS,
) -> SignalSet:
    """Signals of a lake. Only days from the first one that changed since the last run are read, and some before it.

    ``afresh``: read everything. ``save``: keep what was found for the next run, where the lake can be written.
    """
    lake = engine.snapshot.root
    of = _looked_at(engine, detections, bounds)
    again = None if afresh else checkpoint.last(lake, of)
    if again is not None:
        return SignalSet(*again)
    begun = None if afresh else checkpoint.load(lake, lambda state: _fits(engine, state))
    state = begun or State(Habits(bounds))
    present = totals(engine, [Period(state.before * DAY)])
    order = sorted(present)
    # Not the newest day less some: one event of a wrong clock would make all days to come late.
    settled = order[-1 - _OPEN] if len(order) > _OPEN else state.before
    kept, found, problems = _known(engine, detections, state, settled)
    new = not state.happenings.keys() >= kept.keys()
    closed = _closed(engine, state, {day: events for day, events in present.items() if day < settled}, settled)
    closed.happenings = kept
    unlike = _of_somebody(learned(engine, order, state.before)) if available() else []
    closed.signals = _newest([*closed.signals, *(one for one in unlike if one.first_time < settled * DAY)])
    if save and (begun is None or new or settled > begun.before):
        checkpoint.save(lake, closed)
    later = {day: events for day, events in present.items() if day >= settled}
    seen = _folded(engine, closed.habits, closed.drips, later)
    seen.signals += [one for one in unlike if one.first_time >= settled * DAY]
    signals = _newest(_grown([*closed.signals, *seen.signals])) + found
    found_links = _newest([*closed.links, *seen.links])
    if save and not problems:
        checkpoint.save_last(lake, of, signals, found_links)
    return SignalSet(signals, found_links, problems, order)


def _looked_at(engine: DuckDBEngine, detections: Sequence[Detection], bounds: Bounds) -> str:
    """All that an answer rests on."""
    at = engine.snapshot
    lake = (at.seq, at.committed_at, sorted(at.locations.items()))
    asked = [(one.title, one.title_ko, one.severity, one.mitre, one.history, one.sql) for one in detections]
    return hashlib.sha256(repr((lake, asked, bounds, SIGNALS, available())).encode()).hexdigest()


def _fits(engine: DuckDBEngine, state: State) -> bool:
    """Whether no event came since that is of a day which the state has behind it."""
    if state.seq > engine.snapshot.seq:
        return False
    spans = engine.snapshot.added_after("hourly", state.seq)
    touched = {day for low, high in spans for day in range(low // DAY, min(high // DAY + 1, state.before))}
    if not touched:
        return True
    now = totals(engine, _ranges(sorted(touched)))
    return all(now.get(day, 0) == state.totals.get(day, 0) for day in touched)


def _ranges(ordered: Sequence[int]) -> list[Period]:
    ends: list[list[int]] = []
    for day in ordered:
        if ends and day == ends[-1][1] + 1:
            ends[-1][1] = day
        else:
            ends.append([day, day])
    return [period_of(first, last) for first, last in ends]


def _closed(engine: DuckDBEngine, state: State, present: Mapping[int, int], settled: int) -> State:
    """The state with further days behind it."""
    seen = _folded(engine, state.habits, state.drips, present)
    return State(
        state.habits,
        state.drips,
        settled,
        engine.snapshot.seq,
        state.totals | dict(present),
        _newest(_grown([*state.signals, *seen.signals])),
        _newest([*state.links, *seen.links]),
    )


def _folded(engine: DuckDBEngine, habits: Habits, drips: Drips, wanted: Mapping[int, int]) -> SignalSet:
    """What is seen on these days; the habits know them afterwards."""
    seen = SignalSet()
    for day in days(engine, habits, wanted):
        habits.see_writes(day.writes)
        strange = hours(habits, day)
        seen.signals += _of_somebody([*novel(habits, day), *exceeding(habits, day), *strange])
        seen.links += links(habits, day)
        habits.learn(day, [habits.roles[signal.role_arn] for signal in strange])
    seen.signals = rescored(engine, seen.signals)
    for taken_of_day in daily_egress(engine, wanted):
        seen.signals += drips.fold(taken_of_day)
    return seen


def _of_somebody(signals: Sequence[Signal]) -> list[Signal]:
    """Callers without a role are many, and have no habit together: only detections tell of them."""
    return [signal for signal in signals if signal.role_arn is not None]


def _known(
    engine: DuckDBEngine, detections: Sequence[Detection], state: State, settled: int
) -> tuple[dict[str, list[Happening]], list[Signal], list[Problem]]:
    """Happenings of the days before ``settled``, by detection; signals of all days; and what does not run."""
    kept: dict[str, list[Happening]] = {}
    signals: list[Signal] = []
    problems: list[Problem] = []
    for one in detections:
        key = hashlib.sha256(f"{one.history} {one.sql}".encode()).hexdigest()[:16]
        before = state.happenings.get(key, [])
        rows = search(engine, one, state.before if key in state.happenings else 0)
        if isinstance(rows, Problem):
            problems.append(rows)
            continue
        if one.history is not None:
            before = _last(happenings([row for row in rows if row.first_time < settled * DAY], before))
            kept[key] = before
            rows = [row for row in rows if row.first_time >= settled * DAY]
        signals += signals_of(one, _last(happenings(rows, before)))
    return kept, signals, problems


def _last(found: list[Happening]) -> list[Happening]:
    if len(found) <= HAPPENINGS:
        return found
    limit = sorted(one.last_time for one in found)[-HAPPENINGS]
    return [one for one in found if one.last_time >= limit]


def _grown(found: list[Signal]) -> list[Signal]:
    """Of each drip, what was said of it last."""
    out: dict[tuple[Any, ...], Signal] = {}
    for place, one in enumerate(found):
        out[(one.kind, one.role_arn, one.value, one.first_time) if one.kind in DRIPS else (place,)] = one
    return list(out.values())


def _newest(found: list[_Timed]) -> list[_Timed]:
    if len(found) <= SIGNALS:
        return found
    return sorted(found, key=lambda one: one.first_time)[-SIGNALS:]
