"""Newcomers: a user never seen before that reads what others use, from a network where nobody ever came from.

Everything that a new caller does is new, so firsts say nothing about it, and a few reads are no burst. What can be
judged is where it came from and what it took: new programs run where the old ones do, and new colleagues sit with the
others. Only users with long-term keys are judged, because roles are created by every deployment.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from trailsift.detect.baseline import FIRSTS, Baseline, Day
from trailsift.detect.finding import CONTENT_READS, Signal
from trailsift.detect.priors import CALLER_KINDS

_RARITY = 4.0  # in a lake with much past; half of it with one day
_EACH, _RESOURCES_MOST = 0.25, 4  # what each further resource adds, and how many count


def find_newcomers(baseline: Baseline, day: Day) -> list[Signal]:
    """Return users on their first day that read from resources of others, all of them from networks new to everyone."""
    if not baseline.days:
        return []
    user = CALLER_KINDS.index("user")
    users = np.unique(day.hours.caller[day.hours.kind == user])
    new = users[baseline.age[users] == 0]
    firsts = day.firsts
    networks: dict[int, list[int]] = defaultdict(list)
    read: dict[int, list[int]] = defaultdict(list)
    known = baseline.callers_with(firsts.shared)
    for row in np.flatnonzero(np.isin(firsts.caller, new)).tolist():
        caller, kind = int(firsts.caller[row]), FIRSTS[int(firsts.kind[row])]
        if kind == "first_network":
            networks[caller].append(row)
        elif kind == "first_resource" and known[row] and (firsts.event_name[row] or "").startswith(CONTENT_READS):
            read[caller].append(row)
    return [
        _signal(baseline, day, networks[caller], rows)
        for caller, rows in sorted(read.items())
        if networks[caller] and all(not known[row] and _is_address(firsts.value[row]) for row in networks[caller])
    ]


def _is_address(network: str) -> bool:
    return network.endswith(("/24", "/48"))


def _signal(baseline: Baseline, day: Day, networks: list[int], read: list[int]) -> Signal:
    firsts = day.firsts
    most = max(read, key=lambda row: (int(firsts.events[row]), firsts.value[row]))
    network = min(networks, key=lambda row: (int(firsts.first_time[row]), firsts.value[row]))
    rarity = _RARITY + _EACH * (min(len(read), _RESOURCES_MOST) - 1)
    return Signal(
        "newcomer",
        baseline.names[int(firsts.caller[most])],
        rarity * baseline.days / (baseline.days + 1),
        min(int(firsts.first_time[row]) for row in read),
        max(int(firsts.last_time[row]) for row in read),
        firsts.value[most],
        sum(int(firsts.events[row]) for row in read),
        None,
        firsts.event_name[most],
        firsts.resource_arn[most] or firsts.value[most],
        parts=((firsts.value[network], float(firsts.events[network]), 0.0, 0.0),),
        past=0,
        basis="peers",
    )
