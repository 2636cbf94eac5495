"""All levels over a lake, day by day: from the last checkpoint over what changed since, up to the newest day."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from trailsift.analysis.time_range import Period
from trailsift.detect import checkpoint
from trailsift.detect.baseline import BASELINE_LIMITS, Baseline, BaselineLimits
from trailsift.detect.bursts import find_bursts
from trailsift.detect.callers import is_nobody
from trailsift.detect.checkpoint import State
from trailsift.detect.daily_data import daily_totals, read_days, whole_days
from trailsift.detect.detection_rules import (
    Detection,
    Problem,
    RuleMatch,
    group_matches,
    run_all,
    to_signals,
)
from trailsift.detect.egress import daily_egress
from trailsift.detect.finding import LOW_AND_SLOW, Link, Signal
from trailsift.detect.low_and_slow import LowAndSlowDetector
from trailsift.detect.multivariate import find_outliers
from trailsift.detect.newcomers import find_newcomers
from trailsift.detect.novelty import find_firsts, find_links
from trailsift.detect.public_networks import find_public_bursts
from trailsift.detect.rescore import rescored
from trailsift.detect.split_sessions import find_split_sessions
from trailsift.detect.volume import find_off_hours, find_surges
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

#: Signals (and links) kept, and matches kept per detection; the newest are kept.
MAX_SIGNALS = 20_000
MAX_MATCHES = 2_000
_Timed = TypeVar("_Timed", Signal, Link)
#: What arithmetic raises on arrays and numbers that do not fit together.
_MISFIT = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, MemoryError, RecursionError)
_OPEN = 2  # days with events, besides the newest, that every run reads again


@dataclass
class SignalSet:
    """Signals and links of all levels; detections that failed; and the days (since 1970) that were read."""

    signals: list[Signal] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    days: list[int] = field(default_factory=list)


def collect_signals(
    engine: DuckDBEngine,
    detections: Sequence[Detection] = (),
    *,
    afresh: bool = False,
    save: bool = True,
    limits: BaselineLimits = BASELINE_LIMITS,
) -> SignalSet:
    """Return the signals of a lake, reading only the days since the last checkpoint that is still valid.

    ``afresh``: ignore checkpoints and read everything. ``save``: store a checkpoint if the lake is writable.
    """
    if not afresh:
        try:
            return _collect(engine, detections, afresh=False, save=save, limits=limits)
        except _MISFIT as error:
            # A checkpoint that somebody else wrote may have the right form and still hold numbers that fit nothing.
            logging.getLogger("trailsift").warning(
                "the stored state of detection fits nothing (%r): all days are read again", error
            )
    return _collect(engine, detections, afresh=True, save=save, limits=limits)


def _collect(
    engine: DuckDBEngine, detections: Sequence[Detection], *, afresh: bool, save: bool, limits: BaselineLimits
) -> SignalSet:
    lake = engine.snapshot.root
    fingerprint = _fingerprint(engine, detections, limits)
    last = None if afresh else checkpoint.last(lake, fingerprint)
    if last is not None:
        return SignalSet(*last)
    loaded = None if afresh else checkpoint.load(lake, lambda state: _is_current(engine, state))
    state = loaded or State(Baseline(limits), format_version=engine.snapshot.format_version)
    present = daily_totals(engine, [Period(state.before * DAY)])
    order = sorted(present)
    # Counted in days with events, not in calendar days: an event with a wrong clock must not make all later days late.
    settled = order[-1 - _OPEN] if len(order) > _OPEN else state.before
    days = sorted({*state.totals, *order})
    matches, detected, problems = _run_detections(engine, detections, state, settled, days)
    new = not state.matches.keys() >= matches.keys()
    closed = _advanced(engine, state, {day: events for day, events in present.items() if day < settled}, settled)
    closed.matches = matches
    outliers = _of_known(find_outliers(engine, order, state.before))
    closed.signals = _newest([*closed.signals, *(signal for signal in outliers if signal.first_time < settled * DAY)])
    if save and (loaded is None or new or settled > loaded.before):
        checkpoint.save(lake, closed)
    open_days = {day: events for day, events in present.items() if day >= settled}
    recent = _signals_of_days(engine, closed.baseline, closed.low_and_slow, open_days)
    recent.signals += [signal for signal in outliers if signal.first_time >= settled * DAY]
    signals = _newest(_latest_of_each([*closed.signals, *recent.signals])) + detected
    links = _newest([*closed.links, *recent.links])
    if save and not problems:
        checkpoint.save_last(lake, fingerprint, signals, links)
    return SignalSet(signals, links, problems, order)


def _fingerprint(engine: DuckDBEngine, detections: Sequence[Detection], limits: BaselineLimits) -> str:
    """Return a hash of everything that the result depends on."""
    at = engine.snapshot
    lake = (at.seq, at.committed_at, sorted(at.locations.items()))
    rules = [
        (rule.title, rule.title_ko, rule.severity, rule.mitre, rule.history, rule.calls, rule.sql, rule.supporting)
        for rule in detections
    ]
    return hashlib.sha256(repr((lake, rules, limits, MAX_SIGNALS)).encode()).hexdigest()


def _is_current(engine: DuckDBEngine, state: State) -> bool:
    """Return whether no event of a day before ``state.before`` arrived since the checkpoint."""
    if state.seq > engine.snapshot.seq or state.format_version != engine.snapshot.format_version:
        return False
    spans = engine.snapshot.added_after("hourly", state.seq)
    touched = {day for low, high in spans for day in range(low // DAY, min(high // DAY + 1, state.before))}
    if not touched:
        return True
    now = daily_totals(engine, _ranges(sorted(touched)))
    return all(now.get(day, 0) == state.totals.get(day, 0) for day in touched)


def _ranges(ordered: Sequence[int]) -> list[Period]:
    ends: list[list[int]] = []
    for day in ordered:
        if ends and day == ends[-1][1] + 1:
            ends[-1][1] = day
        else:
            ends.append([day, day])
    return [whole_days(first, last) for first, last in ends]


def _advanced(engine: DuckDBEngine, state: State, present: Mapping[int, int], settled: int) -> State:
    """Return the state after the days of ``present``."""
    seen = _signals_of_days(engine, state.baseline, state.low_and_slow, present)
    return State(
        state.baseline,
        state.low_and_slow,
        settled,
        engine.snapshot.seq,
        state.totals | dict(present),
        _newest(_latest_of_each([*state.signals, *seen.signals])),
        _newest([*state.links, *seen.links]),
        format_version=state.format_version,
    )


def _signals_of_days(
    engine: DuckDBEngine, baseline: Baseline, low_and_slow: LowAndSlowDetector, events_of: Mapping[int, int]
) -> SignalSet:
    """Return the signals of days (day -> events); baseline and detector have learned the days afterwards."""
    seen = SignalSet()
    for day in read_days(engine, baseline, events_of):
        baseline.mark_writes(day.writes)
        off_hours = find_off_hours(baseline, day)
        bursts = [*find_bursts(baseline, day), *find_public_bursts(baseline, day), *find_split_sessions(baseline, day)]
        firsts = [*find_firsts(baseline, day), *find_newcomers(baseline, day)]
        seen.signals += _of_known([*firsts, *find_surges(baseline, day), *off_hours, *bursts])
        seen.links += find_links(baseline, day)
        baseline.learn(day, [baseline.callers[signal.caller] for signal in off_hours])
    seen.signals = rescored(engine, seen.signals)
    for egress_of_day in daily_egress(engine, events_of):
        seen.signals += low_and_slow.process(egress_of_day)
    return seen


def _of_known(signals: Sequence[Signal]) -> list[Signal]:
    """Drop signals of nobody in particular: these are many, with no common baseline; detections report them."""
    return [signal for signal in signals if not is_nobody(signal.caller)]


def _run_detections(
    engine: DuckDBEngine, detections: Sequence[Detection], state: State, settled: int, days: Sequence[int]
) -> tuple[dict[str, list[RuleMatch]], list[Signal], list[Problem]]:
    """Return matches of the days before ``settled`` by detection, signals of all days, and detections that failed."""
    matches_of: dict[str, list[RuleMatch]] = {}
    signals: list[Signal] = []
    problems: list[Problem] = []
    for rule, rows in run_all(engine, detections, lambda rule: state.before if _key(rule) in state.matches else 0):
        key = _key(rule)
        before = state.matches.get(key, [])
        if isinstance(rows, Problem):
            problems.append(rows)
            continue
        if rule.history is not None:
            before = _newest_matches(group_matches([row for row in rows if row.first_time < settled * DAY], before))
            matches_of[key] = before
            rows = [row for row in rows if row.first_time >= settled * DAY]
        signals += to_signals(rule, _newest_matches(group_matches(rows, before)), days)
    return matches_of, signals, problems


def _key(rule: Detection) -> str:
    return hashlib.sha256(f"{rule.history} {' '.join(rule.calls)} {rule.sql}".encode()).hexdigest()[:16]


def _newest_matches(matches: list[RuleMatch]) -> list[RuleMatch]:
    if len(matches) <= MAX_MATCHES:
        return matches
    limit = sorted(match.last_time for match in matches)[-MAX_MATCHES]
    return [match for match in matches if match.last_time >= limit]


def _latest_of_each(signals: list[Signal]) -> list[Signal]:
    """Keep only the latest signal of each low-and-slow run, and all other signals."""
    out: dict[tuple[Any, ...], Signal] = {}
    for place, signal in enumerate(signals):
        low_and_slow = signal.kind in LOW_AND_SLOW
        out[(signal.kind, signal.caller, signal.value, signal.first_time) if low_and_slow else (place,)] = signal
    return list(out.values())


def _newest(items: list[_Timed]) -> list[_Timed]:
    if len(items) <= MAX_SIGNALS:
        return items
    return sorted(items, key=lambda item: item.first_time)[-MAX_SIGNALS:]
