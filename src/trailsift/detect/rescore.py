"""Rescore the strongest surge of each day with the anomaly score of its series, which knows weekdays and trends.

Hours without any event from the accounts and regions of a series are unknown, not silent: they are left out, so that
the return to normal after a gap in delivery does not look like a surge.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from trailsift.analysis.anomaly import score
from trailsift.analysis.base import CALLS, ask, tuple_of
from trailsift.detect.daily_data import once, whole_days
from trailsift.detect.finding import Signal
from trailsift.query.relations import text
from trailsift.times import DAY, HOUR, moment

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

_KINDS = ("more_calls", "more_reads", "more_deletes")
_PAST = 14  # days of history


def rescored(engine: DuckDBEngine, signals: Sequence[Signal]) -> list[Signal]:
    """Return the signals; the strongest surge of each day has a new rarity."""
    of_day: dict[int, list[Signal]] = defaultdict(list)
    for signal in signals:
        if signal.kind in _KINDS and signal.caller and signal.event_name:
            of_day[signal.first_time // DAY].append(signal)
    best = {
        day: max(surges, key=lambda surge: (surge.rarity, str(surge.caller), str(surge.event_name)))
        for day, surges in of_day.items()
    }
    if not best:
        return list(signals)
    values, heard = _read(engine, list(best.values()))
    chosen = set(best.values())
    out = []
    for signal in signals:
        if signal in chosen:
            highest = _highest(signal, values[signal.caller, signal.event_name], heard[signal.caller])
            signal = signal._replace(rarity=signal.rarity * (0.8 + 0.4 * highest))
        out.append(signal)
    return out


def _highest(signal: Signal, values: dict[int, int], heard: set[int]) -> float:
    """Return the highest anomaly score in the hours of a signal, given two weeks of its past."""
    first, last = signal.first_time // HOUR, signal.last_time // HOUR
    hours = [hour for hour in range(first // 24 * 24 - _PAST * 24, last + 1) if hour in heard]
    scores = score([moment(hour * HOUR) for hour in hours], [float(values.get(hour, 0)) for hour in hours])
    return max((value for hour, value in zip(hours, scores, strict=True) if hour >= first), default=0.0)


def _read(
    engine: DuckDBEngine, chosen: Sequence[Signal]
) -> tuple[dict[tuple[str | None, str | None], dict[int, int]], dict[str | None, set[int]]]:
    """Return events by caller, call and hour; and by caller the hours with any event from its accounts and regions."""
    begin = min(surge.first_time for surge in chosen) // DAY - _PAST
    days = whole_days(max(0, begin), max(surge.last_time for surge in chosen) // DAY)
    where = f"{days.where('hour')} AND {CALLS}"
    names = ", ".join(sorted({f"({text(str(surge.caller))}, {text(str(surge.event_name))})" for surge in chosen}))
    callers = ", ".join(sorted({text(str(surge.caller)) for surge in chosen}))
    values: dict[tuple[str | None, str | None], dict[int, int]] = defaultdict(dict)
    lines = f"""SELECT caller, event_name, epoch_us(hour) // {HOUR}, {once("events")}::BIGINT FROM hourly
        WHERE {where} AND caller IN ({callers}) AND (caller, event_name) IN ({names}) GROUP BY 1, 2, 3"""
    for caller, name, hour, events in ask(engine, tuple_of, lines):
        values[caller, name][hour] = events
    heard: dict[str | None, set[int]] = defaultdict(set)
    lines = f"""WITH places AS (SELECT DISTINCT caller, account_id, aws_region FROM hourly
            WHERE {where} AND caller IN ({callers})),
        alive AS (SELECT DISTINCT account_id, aws_region, hour FROM hourly WHERE {where})
        SELECT DISTINCT caller, epoch_us(hour) // {HOUR} FROM places JOIN alive
            ON places.account_id IS NOT DISTINCT FROM alive.account_id
            AND places.aws_region IS NOT DISTINCT FROM alive.aws_region"""
    for caller, hour in ask(engine, tuple_of, lines):
        heard[caller].add(hour)
    return values, heard
