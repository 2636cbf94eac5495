"""First-seen activity of callers, rated by how rarely a caller does something new.

The chance of a first on a day is estimated from the caller's own earlier days, and from all other callers if it has
few. So a caller that touches new keys every day is not reported, and one that never changed its network is.
"""

from __future__ import annotations

import numpy as np

from trailsift.detect.baseline import FIRSTS, Baseline, Column, Day
from trailsift.detect.finding import Link, Signal
from trailsift.detect.priors import CALLER_KINDS

#: Kind -> weight of a first. A newer client or one more resource is mostly harmless.
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
#: A service of AWS that calls on behalf of a caller stands in the place of a network, and is none.
_SERVICE, _THROUGH_SERVICE = ".amazonaws.com", 0.4
_PRIOR_DAYS = 4  # days of experience that the other callers' rate is worth
_YOUNG = 2  # active days after which half of a signal counts
_MIN_CHANCE = 0.004  # per day
_MIN_RARITY = 0.6  # below this, no signal
_JUDGED_BY_PEERS = ("first_service", "first_action")
_AMONG_PEERS, _AMONG_PEERS_MOST = 0.7, 0.9  # what a first counts that is judged by peers, and its upper limit
_PEERS_MOST = 30  # more peers say no more
_FEW_DAYS = 5  # days of a lake before which peers judge
_LINKS = ("first_network", "first_endpoint")
_KNOWN_DAYS = 3  # days of a lake before which every origin is new
_FAMILIAR = 2  # callers that had an origin before; from then on it links no callers


def find_firsts(baseline: Baseline, day: Day) -> list[Signal]:
    """Return signals of everything that a caller does for the first time on a day."""
    firsts = day.firsts
    own, peers = rarity_of(baseline, day), rarity_among_peers(baseline, day)
    rarity = np.where(baseline.saturated(firsts), 0, np.maximum(own, peers))
    age = baseline.age[firsts.caller]
    return [
        Signal(
            FIRSTS[int(firsts.kind[i])],
            baseline.names[int(firsts.caller[i])],
            float(rarity[i]),
            int(firsts.first_time[i]),
            int(firsts.last_time[i]),
            firsts.value[i],
            int(firsts.events[i]),
            None,
            firsts.event_name[i],
            firsts.resource_arn[i],
            past=int(age[i]),
            basis="peers" if peers[i] > own[i] else "own",
        )
        for i in np.flatnonzero(rarity >= _MIN_RARITY).tolist()
    ]


def rarity_of(baseline: Baseline, day: Day) -> Column:
    """Return the rarity of each first for its caller; it is lower if other callers had the value before."""
    firsts = day.firsts
    age = baseline.age[firsts.caller]
    elsewhere = (baseline.common[firsts.kind] + 1) / (baseline.caller_days + 20)
    own = baseline.with_first[firsts.caller, firsts.kind]
    chance = (own + _PRIOR_DAYS * elsewhere) / (age + _PRIOR_DAYS)
    rarity = -np.log10(np.clip(chance, _MIN_CHANCE, 1)) + 0.35 * np.log10(np.maximum(firsts.events, 1))
    rarity -= 0.4 * np.minimum(2, baseline.callers_with(firsts.shared))
    weights = np.array([_WEIGHTS[kind] for kind in FIRSTS])[firsts.kind]
    networks = np.flatnonzero(firsts.kind == FIRSTS.index("first_network")).tolist()
    weights[[row for row in networks if firsts.value[row].endswith(_SERVICE)]] = _THROUGH_SERVICE
    # Everything that a new caller (age 0) does is new, which says nothing about it.
    out: Column = rarity * weights * age / (age + _YOUNG) * baseline.days / (baseline.days + 1)
    return out


def rarity_among_peers(baseline: Baseline, day: Day) -> Column:
    """Return the rarity of each first in a lake with little past: by how few of the caller's peers ever did it.

    Peers are the known callers of its kind. Only actions and services count: resources, patterns and origins of a new
    caller are new by nature. Alone this makes no finding, as a new program does new things; it strengthens others.
    """
    firsts = day.firsts
    known = baseline.age[: len(baseline.names)] > 0
    peers = np.bincount(baseline.sort[: len(baseline.names)][known], minlength=len(CALLER_KINDS))
    kind_of_caller = np.zeros(len(baseline.names), np.int64)
    kind_of_caller[day.hours.caller] = day.hours.kind
    count = peers[kind_of_caller[firsts.caller]]
    age = baseline.age[firsts.caller]
    chance = (baseline.callers_with(firsts.shared) + 1) / (np.minimum(count, _PEERS_MOST) + 1)
    judged = np.isin(firsts.kind, [FIRSTS.index(kind) for kind in _JUDGED_BY_PEERS]) & (baseline.days < _FEW_DAYS)
    rarity = np.minimum(-_AMONG_PEERS * np.log10(np.minimum(chance, 1)), _AMONG_PEERS_MOST)
    # Of a new caller everything is new to somebody.
    out: Column = np.where(judged, rarity * np.where(age > 0, 1.0, 0.7), 0.0)
    return out


def find_links(baseline: Baseline, day: Day) -> list[Link]:
    """Return new origins of callers that hardly any caller came from before: they may link callers to each other.

    New callers count here, because whoever creates a role uses it next. Names of AWS services are not origins.
    """
    firsts = day.firsts
    if baseline.days < _KNOWN_DAYS:
        return []
    kinds = [FIRSTS.index(kind) for kind in _LINKS]
    chosen = np.isin(firsts.kind, kinds) & (baseline.callers_with(firsts.shared) < _FAMILIAR)
    return [
        Link(
            baseline.names[int(firsts.caller[i])],
            firsts.value[i],
            int(firsts.first_time[i]),
            int(firsts.last_time[i]),
        )
        for i in np.flatnonzero(chosen).tolist()
        if any(character.isdigit() for character in firsts.value[i]) and "amazonaws" not in firsts.value[i]
    ]
