"""What a role does for the first time, rated by how rarely it shows such firsts.

The chance of a first on a day is estimated from the role's own earlier days, and from all other roles where it has
few; so a role that meets new keys every day is not told of, and one that never changed its network is.
"""

from __future__ import annotations

import numpy as np

from trailsift.detect.baseline import FIRSTS, Column, Day, Habits
from trailsift.detect.finding import Link, Signal

#: Kind -> how much a first of it counts. A newer client or one more resource is mostly harmless.
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
_LINKS = ("first_network", "first_endpoint")
_KNOWN_DAYS = 3  # of a lake, before which every place is new
_FAMILIAR = 2  # roles that had it before: from then on, it links nobody


def novel(habits: Habits, day: Day) -> list[Signal]:
    """Signals of everything that a role does for the first time on a day."""
    firsts = day.firsts
    decades = np.where(habits.saturated(firsts), 0, rate(habits, day))
    return [
        Signal(
            FIRSTS[int(firsts.kind[i])],
            habits.names[int(firsts.role[i])],
            float(decades[i]),
            int(firsts.first_time[i]),
            int(firsts.last_time[i]),
            firsts.value[i],
            int(firsts.events[i]),
            None,
            firsts.event_name[i],
            firsts.resource_arn[i],
        )
        for i in np.flatnonzero(decades >= _LEAST).tolist()
    ]


def rate(habits: Habits, day: Day) -> Column:
    """Decades of each first of a day: how rare it is for its role, less where other roles had it before."""
    firsts = day.firsts
    age = habits.age[firsts.role]
    elsewhere = (habits.common[firsts.kind] + 1) / (habits.lived + 20)
    own = habits.with_first[firsts.role, firsts.kind]
    chance = (own + _PRIOR_DAYS * elsewhere) / (age + _PRIOR_DAYS)
    decades = -np.log10(np.clip(chance, _FLOOR, 1)) + 0.35 * np.log10(np.maximum(firsts.events, 1))
    decades -= 0.4 * np.minimum(2, habits.had_by(firsts.shared))
    weights = np.array([_WEIGHTS[kind] for kind in FIRSTS])
    # A new role (age 0): all that it does is new, and says nothing of it.
    out: Column = decades * weights[firsts.kind] * age / (age + _YOUNG) * habits.days / (habits.days + 1)
    return out


def links(habits: Habits, day: Day) -> list[Link]:
    """Where a role came from for the first time, if hardly anybody came from there before: it may tie roles together.

    New roles count here, for whoever makes a role uses it next. Names of AWS services are no places.
    """
    firsts = day.firsts
    if habits.days < _KNOWN_DAYS:
        return []
    kinds = [FIRSTS.index(kind) for kind in _LINKS]
    chosen = np.isin(firsts.kind, kinds) & (habits.had_by(firsts.shared) < _FAMILIAR)
    return [
        Link(
            habits.names[int(firsts.role[i])],
            firsts.value[i],
            int(firsts.first_time[i]),
            int(firsts.last_time[i]),
        )
        for i in np.flatnonzero(chosen).tolist()
        if any(character.isdigit() for character in firsts.value[i]) and "amazonaws" not in firsts.value[i]
    ]
