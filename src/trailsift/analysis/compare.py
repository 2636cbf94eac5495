"""Two periods side by side: what is new, gone, more or less, by caller, resource, action, key pattern and network.

Tables kept by day answer for whole UTC days. Rates per day are compared, so the periods may differ in length.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import log10, sqrt
from typing import Any, ClassVar, Literal, NamedTuple

from trailsift.analysis.base import CALLS, DENIED, TARGETS, ask, together, tuple_of
from trailsift.analysis.resource import whole_days
from trailsift.analysis.resource_names import FOLDED
from trailsift.analysis.time_range import Period
from trailsift.errors import UsageError
from trailsift.query.engine import Engine
from trailsift.query.json_objects import JsonObject
from trailsift.query.relations import text
from trailsift.times import DAY, moment

Kind = Literal["new", "gone", "more", "less"]
#: Changes that are listed unless a limit is given.
MOST = 20
#: More or less: by this factor at least, and by so many standard deviations of a count.
_FACTOR, _DEVIATIONS = 2.0, 4.0
#: Dimension -> (columns of a table, the table, what is counted as denied, how much a change of it matters).
_DIMENSIONS: dict[str, tuple[tuple[str, ...], str, str, float]] = {
    "caller": (("caller",), "usage", f"CASE WHEN {DENIED} THEN events ELSE 0 END", 1.5),
    "network": (("caller", "value"), "profile", "denied", 1.3),
    "resource": (("resource_arn",), "usage", f"CASE WHEN {DENIED} THEN events ELSE 0 END", 1.2),
    "event": (("caller", "event_name"), "usage", f"CASE WHEN {DENIED} THEN events ELSE 0 END", 1.0),
    "pattern": (("resource_arn", "key_pattern"), "usage", f"CASE WHEN {DENIED} THEN events ELSE 0 END", 0.7),
}
_WEIGHTS: dict[Kind, float] = {"new": 1.5, "more": 1.2, "gone": 0.8, "less": 0.6}


class Change(NamedTuple):
    """One difference. ``dimension``: caller, network (of a caller), resource, event (of a caller) or pattern (of a
    resource); ``names`` are its values. ``before`` and ``now``: events in each period. ``seen_before``: it is new
    against the other period, but the lake has it from earlier."""

    kind: Kind
    dimension: str
    names: tuple[str | None, ...]
    before: int
    now: int
    denied_before: int
    denied_now: int
    bytes_out_before: int
    bytes_out_now: int
    seen_before: bool
    score: float


@dataclass(frozen=True, slots=True)
class Comparison(JsonObject):
    """The differences of ``period`` from ``other``, whole UTC days both, those that matter most first.

    ``days`` of each period within what the lake has; ``events`` of each; ``total``: how many differences there are, by
    kind.
    """

    period: Period
    other: Period
    days: int
    other_days: int
    events: int
    other_events: int
    total: dict[str, int]
    changes: tuple[Change, ...]

    JSON: ClassVar[dict[str, str]] = {
        "period": "period",
        "compared_with": "other",
        "days": "days",
        "days_compared_with": "other_days",
        "events": "events",
        "events_compared_with": "other_events",
        "total": "total",
        "changes": "changes",
    }

    @property
    def table(self) -> tuple[list[str], list[tuple[Any, ...]]]:
        """The changes as names of columns and rows."""
        names = ["kind", "dimension", "name", "of", *Change._fields[3:]]
        return names, [(c.kind, c.dimension, c.names[-1], _of(c), *c[3:]) for c in self.changes]


def _of(change: Change) -> str | None:
    return change.names[0] if len(change.names) > 1 else None


def compare(engine: Engine, period: Period, other: Period | None = None, limit: int = MOST) -> Comparison:
    """Return how a period differs from another one; without one, from as many days just before it.

    ``period`` needs a start. Raise UsageError for one without, for periods that overlap, or a negative limit.
    """
    if limit < 0:
        raise UsageError(f"--limit {limit} is negative: use 0 for all rows")
    now = _closed(engine, period)
    before = previous(now) if other is None else _closed(engine, other)
    _refuse_overlap(now, before)
    lake = _extent(engine)
    days, other_days = _length(now, lake), _length(before, lake)
    asked = [_sums(name, now, before) for name in _DIMENSIONS] + [_total(now), _total(before)]
    *answers, total_now, total_before = together(*(partial(ask, engine, tuple_of, sql) for sql in asked))
    changes = [
        change
        for name, rows in zip(_DIMENSIONS, answers, strict=True)
        for row in rows
        if (change := _change(name, row, days, other_days)) is not None
    ]
    changes = _without_repetition(changes)
    changes.sort(key=lambda change: (-change.score, change.dimension, tuple(map(str, change.names))))
    total: dict[str, int] = {kind: sum(change.kind == kind for change in changes) for kind in _WEIGHTS}
    events, other_events = int(total_now[0][0]), int(total_before[0][0])
    return Comparison(now, before, days, other_days, events, other_events, total, tuple(changes[: limit or None]))


def previous(period: Period) -> Period:
    """Return as many days just before a closed period."""
    assert period.since is not None and period.until is not None
    return Period(period.since - (period.until - period.since), period.since, period.zone)


def _closed(engine: Engine, period: Period) -> Period:
    """Return the whole days of a period; without an end, up to the last day with events."""
    if period.since is None:
        raise UsageError("say which period to compare: name its start with --since, such as --since -7d")
    days = whole_days(period)
    if days.until is not None:
        return days
    last = ask(engine, tuple_of, "SELECT epoch_us(max(last_time)) FROM hourly")[0][0]
    end = max(days.since or 0, last // DAY * DAY if last is not None else 0) + DAY
    return Period(days.since, end, days.zone)


def _refuse_overlap(now: Period, before: Period) -> None:
    assert now.since is not None and now.until is not None and before.since is not None and before.until is not None
    if now.since < before.until and before.since < now.until:
        raise UsageError(
            f"the periods overlap: {_days(now)} and {_days(before)} have whole UTC days in common, which is what is "
            "compared"
        )


def _days(period: Period) -> str:
    assert period.since is not None and period.until is not None
    return f"{moment(period.since):%Y-%m-%d} to {moment(period.until - DAY):%Y-%m-%d}"


def _extent(engine: Engine) -> tuple[int, int]:
    """Return the first moment of the lake's first day, and the end of its last."""
    first, last = ask(
        engine, tuple_of, "SELECT epoch_us(min(first_time)), epoch_us(max(last_time)) FROM usage WHERE events > 0"
    )[0]
    return (0, 0) if first is None else (first // DAY * DAY, last // DAY * DAY + DAY)


def _length(period: Period, lake: tuple[int, int]) -> int:
    """Return the days of a period that the lake can have events of; of one that is outside of it, all days."""
    assert period.since is not None and period.until is not None
    inside = min(period.until, lake[1]) - max(period.since, lake[0])
    return (inside if inside > 0 else period.until - period.since) // DAY


def _total(period: Period) -> str:
    return (
        f"SELECT coalesce(sum(events), 0)::BIGINT FROM usage WHERE {TARGETS} AND {CALLS} AND {period.where_day('day')}"
    )


def _sums(dimension: str, now: Period, before: Period) -> str:
    columns, table, denied, _ = _DIMENSIONS[dimension]
    names = ", ".join(columns)
    source = f"{table} WHERE {CALLS}" + (f" AND {TARGETS}" if table == "usage" else " AND dimension = 'source_network'")
    source += f" AND {columns[-1]} IS NOT NULL AND {columns[-1]} <> {text(FOLDED)}"
    in_now, in_before = now.where_day("day"), before.where_day("day")
    parts = ", ".join(
        f"coalesce(sum({value}) FILTER (WHERE {within}), 0)::BIGINT AS {name}_{word}"
        for name, value in (("events", "events"), ("denied", denied), ("out", "bytes_out"))
        for word, within in (("before", in_before), ("now", in_now))
    )
    start = f"DATE '{moment(now.since or 0):%Y-%m-%d}'"
    return f"""SELECT {names}, {parts}, min(day) < {start} AS seen
        FROM {source} AND day <= DATE '{moment(max(now.until or 0, before.until or 0) - 1):%Y-%m-%d}'
        GROUP BY {names} HAVING events_before + events_now > 0"""


def _change(dimension: str, row: tuple[Any, ...], days: int, other_days: int) -> Change | None:
    width = len(_DIMENSIONS[dimension][0])
    names, (before, now, denied_before, denied_now, out_before, out_now, seen) = row[:width], row[width:]
    expected = before * days / other_days
    kind: Kind
    if not before:
        kind = "new"
    elif not now:
        # As rare as it was, it could be missing by chance.
        if expected < 1:
            return None
        kind = "gone"
    else:
        if abs(now - expected) <= _DEVIATIONS * sqrt(expected + now):
            return None
        if not (now >= _FACTOR * expected or expected >= _FACTOR * now):
            return None
        kind = "more" if now > expected else "less"
    size = log10(1 + abs(now - expected)) + log10(1 + max(denied_now - denied_before * days / other_days, 0))
    size += log10(1 + max(out_now - out_before * days / other_days, 0) / 1e6) / 2
    score = _WEIGHTS[kind] * _DIMENSIONS[dimension][3] * size
    is_known = kind == "new" and bool(seen)
    if is_known:
        score *= 0.6
    return Change(
        kind, dimension, names, before, now, denied_before, denied_now, out_before, out_now, is_known, round(score, 3)
    )


def _without_repetition(changes: list[Change]) -> list[Change]:
    """Leave out what follows from another change: all actions and networks of a new caller are new, too."""
    alone = (c for c in changes if c.dimension in ("caller", "resource") and c.kind in ("new", "gone"))
    whole = {(change.kind, change.names[0]) for change in alone}
    return [c for c in changes if len(c.names) == 1 or (c.kind, c.names[0]) not in whole]
