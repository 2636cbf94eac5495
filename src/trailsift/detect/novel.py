"""What a role does for the first time, rated by how rarely it shows such firsts.

Everything here is read from ``usage`` and ``profile``, by days (UTC). The chance of a first on a day is estimated from
the role's own earlier days, and from all other roles where it has few; so a role that meets new keys every day is not
told of, and one that never changed its network is.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict
from datetime import date
from typing import NamedTuple

from trailsift.analysis.asking import Engine, ask, tuple_of
from trailsift.detect.finding import Signal

#: Dimension -> how much a first in it counts. A newer client or one more resource is mostly harmless.
_WEIGHTS = {
    "first_service": 1.2,
    "first_action": 1.0,
    "first_resource": 0.9,
    "first_pattern": 1.0,
    "first_network": 1.0,
    "first_agent": 0.6,
    "first_endpoint": 0.8,
    "first_account": 1.2,
}
_PRIOR_DAYS = 4  # days of experience that the other roles' rate is worth
_YOUNG = 2  # active days after which half of a signal counts
_FLOOR = 0.004  # chance a day that is never gone below
_LEAST = 0.6  # decades below which nothing is a signal

_USAGE = {
    "first_service": "service",
    "first_action": "service || ':' || event_name",
    "first_resource": "resource_arn",
    "first_pattern": "resource_arn || '/' || key_pattern",
}
_PROFILE = {
    "first_network": "source_network",
    "first_agent": "user_agent",
    "first_endpoint": "vpc_endpoint",
    "first_account": "principal_account",
}


class First(NamedTuple):
    """The first day of one value for one role; times and events are those of that day."""

    role_arn: str | None
    kind: str
    value: str
    day: date
    events: int
    first_time: int
    last_time: int
    event_name: str | None
    resource_arn: str | None


def novel(engine: Engine, until: date | None = None) -> list[Signal]:
    """Signals of everything that a role did for the first time. ``until``: look no further than this day."""
    limit = "" if until is None else f" WHERE day <= DATE '{until:%Y-%m-%d}'"
    firsts = ask(engine, First, _firsts(limit))
    days: dict[str | None, list[date]] = defaultdict(list)
    for role, day in ask(engine, tuple_of, f"SELECT DISTINCT role_arn, day FROM usage{limit} ORDER BY day"):
        days[role].append(day)
    if not days:
        return []
    return rate(firsts, days)


def rate(firsts: list[First], days: dict[str | None, list[date]]) -> list[Signal]:
    """``novel`` without the lake. ``days``: the days on which each role did anything, in order."""
    begin = min(active[0] for active in days.values())
    seen: dict[tuple[str, str], int] = defaultdict(int)  # kind, value -> roles that have it already
    own: dict[tuple[str | None, str], list[date]] = defaultdict(list)  # role, kind -> earlier days with a first
    common: dict[str, float] = defaultdict(float)
    signals = []
    by_day: dict[date, list[First]] = defaultdict(list)
    for first in firsts:
        by_day[first.day].append(first)
    lived = 0  # role-days before today
    for day in sorted(by_day):
        lived = sum(bisect_left(active, day) for active in days.values())
        for first in by_day[day]:
            age = bisect_left(days[first.role_arn], day)
            if not age:
                continue  # a new role: all that it does is new, and says nothing of it
            elsewhere = (common[first.kind] + 1) / (lived + 20)
            chance = (len(own[first.role_arn, first.kind]) + _PRIOR_DAYS * elsewhere) / (age + _PRIOR_DAYS)
            decades = -math.log10(max(_FLOOR, min(1.0, chance))) + 0.35 * math.log10(first.events)
            decades -= 0.4 * min(2, seen[first.kind, first.value])
            known = (day - begin).days
            decades *= _WEIGHTS[first.kind] * age / (age + _YOUNG) * known / (known + 1)
            if decades >= _LEAST:
                signals.append(_signal(first, decades))
        for role, kind in {(first.role_arn, first.kind) for first in by_day[day]}:
            if bisect_left(days[role], day):
                own[role, kind].append(day)
                common[kind] += 1
        for first in by_day[day]:
            seen[first.kind, first.value] += 1
    return signals


def _signal(first: First, decades: float) -> Signal:
    return Signal(
        first.kind,
        first.role_arn,
        decades,
        first.first_time,
        first.last_time,
        first.value,
        first.events,
        None,
        first.event_name,
        first.resource_arn,
    )


def _firsts(limit: str) -> str:
    sums = "sum(events)::BIGINT AS events, epoch_us(min(first_time)) AS a, epoch_us(max(last_time)) AS b"
    busiest = "arg_max(event_name, events) AS event_name, arg_max(resource_arn, events) AS resource_arn"
    parts = [
        f"SELECT role_arn, '{kind}' AS kind, {column} AS value, day, {sums}, {busiest} FROM usage{limit}"
        " GROUP BY 1, 3, 4"
        for kind, column in _USAGE.items()
    ]
    parts += [
        f"SELECT role_arn, '{kind}' AS kind, value, day, {sums}, NULL, NULL FROM profile"
        f"{limit or ' WHERE true'} AND dimension = '{dimension}' GROUP BY 1, 3, 4"
        for kind, dimension in _PROFILE.items()
    ]
    return f"""SELECT role_arn, kind, value, min(day), arg_min(events, day), arg_min(a, day), arg_min(b, day),
            arg_min(event_name, day), arg_min(resource_arn, day)
        FROM ({" UNION ALL ".join(parts)}) WHERE value IS NOT NULL GROUP BY role_arn, kind, value
        ORDER BY 4, role_arn, kind, value"""
