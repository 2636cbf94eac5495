"""Planted incidents: late in the period, a role with a normal past does something out of character."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from trailsift.generate.actors import Actor, resource_arn
from trailsift.generate.bulk_text import Ints, iso_time
from trailsift.generate.options import Options
from trailsift.generate.record_templates import RECORD_TEMPLATES
from trailsift.generate.scenarios import SCENARIOS, Scenario
from trailsift.generate.sessions import FIRST_INTRUDER, Intruder
from trailsift.generate.stealthy_scenarios import STEALTHY

SAMPLE = 50
"""Maximum number of event ids per incident in the truth."""

_MOST = 0.1  # share of all events that incidents may have
_WEAK = 8


@dataclass
class Incident:
    """One planted incident: times and ops of its events, and event ids seen while they were written."""

    id: str
    scenario: Scenario
    actor: Actor
    slot: int
    seconds: Ints
    ops: Ints  # index into scenario.ops, one per event
    seen: list[tuple[str, str]] = field(default_factory=list)

    def intruder(self) -> Intruder:
        """Return how its session differs from the role's own."""
        return Intruder(self.scenario.address, self.scenario.agent)

    def saw(self, second: int, event_id: str) -> None:
        """Remember an event id; the number is bounded."""
        if len(self.seen) < 4 * SAMPLE:
            self.seen.append((iso_time(second), event_id))

    def truth(self) -> dict[str, Any]:
        """Return the incident for truth.json. Times are event times (UTC); `event_ids` is a sample."""
        used = [self.scenario.ops[i] for i in np.unique(self.ops).tolist()]
        counts = np.bincount(self.ops, minlength=len(self.scenario.ops))
        arns: dict[str, int] = {}
        for op, count in zip(self.scenario.ops, counts.tolist(), strict=True):
            arn = resource_arn(self.actor, op)
            if arn and count:
                arns[arn] = arns.get(arn, 0) + count
        ranked = sorted(arns, key=lambda arn: (-arns[arn], arn))
        out: dict[str, Any] = {
            "id": self.id,
            "kind": self.scenario.kind,
            "title": self.scenario.title,
            "role_arn": self.actor.arn,
            "event_names": sorted({RECORD_TEMPLATES[op.event].event for op in used}),
            "resource_arn": ranked[0] if ranked else None,
            "resource_arns": ranked,
            "first_time": iso_time(int(self.seconds[0])),
            "last_time": iso_time(int(self.seconds[-1])),
            "events": len(self.seconds),
            "event_ids": [event_id for _, event_id in sorted(self.seen)[:SAMPLE]],
            "description": self.scenario.description,
        }
        if self.scenario.address:
            out["source_network"] = self.scenario.address.rsplit(".", 1)[0] + ".0/24"
        return out


def scenarios_of(strength: str) -> tuple[Scenario, ...]:
    """Return the scenarios of a strength: as they are, with an eighth of their events, or the stealthy ones."""
    if strength == "weak":
        return tuple(
            replace(scenario, share=scenario.share / _WEAK, most=scenario.most // _WEAK) for scenario in SCENARIOS
        )
    return STEALTHY if strength == "stealthy" else SCENARIOS


def plan(options: Options, zone: ZoneInfo, actors: tuple[Actor, ...], rng: np.random.Generator) -> list[Incident]:
    """Plan the incidents. Long and large runs get every kind twice; incidents are at most a tenth of all events.

    A kind is omitted if it is impossible: no event to spare, or no night in the period.
    """
    rounds = 2 if options.days >= 20 and options.events >= 500_000 else 1
    room = int(options.events * _MOST)
    out: list[Incident] = []
    for again in range(rounds):
        for place, scenario in enumerate(scenarios_of(options.strength)):
            if scenario.kind not in options.kinds():
                continue
            count = min(scenario.most, max(1, int(options.events * scenario.share)) // rounds, room)
            seconds = _times(scenario, options, zone, rng, count, again) if count else np.empty(0, np.int64)
            if not len(seconds):
                continue
            room -= count
            actor = _victim(scenario, actors, again, place)
            slot = 0 if scenario.hour is not None else FIRST_INTRUDER + 2 * place + again
            weights = np.array([op.weight for op in scenario.ops])
            ops = rng.choice(len(scenario.ops), count, p=weights / weights.sum()).astype(np.int64)
            out.append(Incident(f"{scenario.kind}-{again + 1}", scenario, actor, slot, seconds, ops))
    return out


def _victim(scenario: Scenario, actors: tuple[Actor, ...], again: int, place: int) -> Actor:
    fitting = [actor for actor in actors if actor.kind is scenario.victim]
    if not fitting:
        fitting = [actor for actor in actors if actor.kind.identity not in ("anonymous", "service")]
        again += place
    return fitting[again % len(fitting)]


def _times(
    scenario: Scenario, options: Options, zone: ZoneInfo, rng: np.random.Generator, count: int, again: int
) -> Ints:
    """Draw sorted event times; empty if the period has no such time."""
    first, span = options.first_second(), options.seconds()
    shift = (0.04 + 0.02 * float(rng.random())) * again - 0.3 * again * (scenario.begin > 0.7)
    begin = first + int(span * (scenario.begin + shift))
    length = min(scenario.length or span, max(1, int(span * 0.1)))
    if not scenario.length:
        length = int(span * 0.97) - (begin - first)
    if scenario.hour is not None:
        starts = _starts(scenario, first, first + span - length, zone)
        if not starts:
            return np.empty(0, np.int64)
        later = [t for t in starts if t >= begin]
        begin = (later or starts[-1:])[0]
    moments = begin + rng.integers(0, max(1, length), count)
    out: Ints = np.sort(np.minimum(moments, first + span - 1)).astype(np.int64)
    return out


def _starts(scenario: Scenario, first: int, end: int, zone: ZoneInfo) -> list[int]:
    """Return possible begin times: at its hour, or near it if no half hour of the period falls on it."""
    hour = scenario.hour or 0.0
    moments = [t for t in range(first, end, 1_800) if not scenario.workday or _weekday(t, zone) < 5]
    exact = [t for t in moments if _hour(t, zone) == hour]
    return exact or [t for t in moments if hour - 1 <= _hour(t, zone) < hour + 2]


def _weekday(second: int, zone: ZoneInfo) -> int:
    return datetime.fromtimestamp(second, zone).weekday()


def _hour(second: int, zone: ZoneInfo) -> float:
    local = datetime.fromtimestamp(second, zone)
    return local.hour + local.minute / 60
