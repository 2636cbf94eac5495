"""Planted incidents: a role that exists and has a past does something unlike itself, late in the period."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from trailsift.generate.bulk_text import Ints, iso_time
from trailsift.generate.options import Options
from trailsift.generate.record_templates import RECORD_TEMPLATES
from trailsift.generate.roles import Actor, resource_arn
from trailsift.generate.scenarios import SCENARIOS, Scenario
from trailsift.generate.sessions import FIRST_INTRUDER, Intruder
from trailsift.generate.stealthy_scenarios import STEALTHY

SAMPLE = 50
"""Event ids that the truth names for an incident."""

_MOST = 0.1  # part of all events that incidents may be
_WEAK = 8


@dataclass
class Incident:
    """One planted incident: its events' times and ops, and the ids met while they were written."""

    id: str
    plot: Scenario
    role: Actor
    slot: int
    seconds: Ints
    ops: Ints  # index into plot.ops, one an event
    seen: list[tuple[str, str]] = field(default_factory=list)

    def intruder(self) -> Intruder:
        """What its session has of its own."""
        return Intruder(self.plot.address, self.plot.agent)

    def saw(self, second: int, event_id: str) -> None:
        """Remember an event's id; a bounded number."""
        if len(self.seen) < 4 * SAMPLE:
            self.seen.append((iso_time(second), event_id))

    def truth(self) -> dict[str, Any]:
        """The incident as truth.json tells it. Times are event times (UTC); `event_ids` is a sample."""
        used = [self.plot.ops[i] for i in np.unique(self.ops).tolist()]
        counts = np.bincount(self.ops, minlength=len(self.plot.ops))
        arns: dict[str, int] = {}
        for op, count in zip(self.plot.ops, counts.tolist(), strict=True):
            arn = resource_arn(self.role, op)
            if arn and count:
                arns[arn] = arns.get(arn, 0) + count
        ranked = sorted(arns, key=lambda arn: (-arns[arn], arn))
        out: dict[str, Any] = {
            "id": self.id,
            "kind": self.plot.kind,
            "title": self.plot.title,
            "role_arn": self.role.arn,
            "event_names": sorted({RECORD_TEMPLATES[op.event].event for op in used}),
            "resource_arn": ranked[0] if ranked else None,
            "resource_arns": ranked,
            "first_time": iso_time(int(self.seconds[0])),
            "last_time": iso_time(int(self.seconds[-1])),
            "events": len(self.seconds),
            "event_ids": [event_id for _, event_id in sorted(self.seen)[:SAMPLE]],
            "description": self.plot.description,
        }
        if self.plot.address:
            out["source_network"] = self.plot.address.rsplit(".", 1)[0] + ".0/24"
        return out


def scenarios_of(strength: str) -> tuple[Scenario, ...]:
    """The plots of a strength: as they are, with an eighth of their events, or told apart by hardly anything."""
    if strength == "weak":
        return tuple(replace(plot, share=plot.share / _WEAK, most=plot.most // _WEAK) for plot in SCENARIOS)
    return STEALTHY if strength == "stealthy" else SCENARIOS


def plan(options: Options, zone: ZoneInfo, roles: tuple[Actor, ...], rng: np.random.Generator) -> list[Incident]:
    """Who does what and when. Long and large runs get every kind twice; incidents are at most a tenth of all events.

    A kind is left out where it cannot be: no event to spare, or no night in the period.
    """
    rounds = 2 if options.days >= 20 and options.events >= 500_000 else 1
    room = int(options.events * _MOST)
    out: list[Incident] = []
    for again in range(rounds):
        for place, plot in enumerate(scenarios_of(options.strength)):
            if plot.kind not in options.kinds():
                continue
            count = min(plot.most, max(1, int(options.events * plot.share)) // rounds, room)
            seconds = _times(plot, options, zone, rng, count, again) if count else np.empty(0, np.int64)
            if not len(seconds):
                continue
            room -= count
            role = _victim(plot, roles, again, place)
            slot = 0 if plot.hour is not None else FIRST_INTRUDER + 2 * place + again
            weights = np.array([op.weight for op in plot.ops])
            ops = rng.choice(len(plot.ops), count, p=weights / weights.sum()).astype(np.int64)
            out.append(Incident(f"{plot.kind}-{again + 1}", plot, role, slot, seconds, ops))
    return out


def _victim(plot: Scenario, roles: tuple[Actor, ...], again: int, place: int) -> Actor:
    fitting = [role for role in roles if role.kind is plot.victim]
    if not fitting:
        fitting = [role for role in roles if role.kind.identity not in ("anonymous", "service")]
        again += place
    return fitting[again % len(fitting)]


def _times(plot: Scenario, options: Options, zone: ZoneInfo, rng: np.random.Generator, count: int, again: int) -> Ints:
    """Sorted event times; empty where the period has no such moment."""
    first, span = options.first_second(), options.seconds()
    shift = (0.04 + 0.02 * float(rng.random())) * again - 0.3 * again * (plot.begin > 0.7)
    begin = first + int(span * (plot.begin + shift))
    length = min(plot.length or span, max(1, int(span * 0.1)))
    if not plot.length:
        length = int(span * 0.97) - (begin - first)
    if plot.hour is not None:
        starts = _starts(plot, first, first + span - length, zone)
        if not starts:
            return np.empty(0, np.int64)
        later = [t for t in starts if t >= begin]
        begin = (later or starts[-1:])[0]
    moments = begin + rng.integers(0, max(1, length), count)
    out: Ints = np.sort(np.minimum(moments, first + span - 1)).astype(np.int64)
    return out


def _starts(plot: Scenario, first: int, end: int, zone: ZoneInfo) -> list[int]:
    """The moments at which it may begin: at its hour, or around it where no half hour of the period falls on it."""
    hour = plot.hour or 0.0
    moments = [t for t in range(first, end, 1_800) if not plot.workday or _weekday(t, zone) < 5]
    exact = [t for t in moments if _hour(t, zone) == hour]
    return exact or [t for t in moments if hour - 1 <= _hour(t, zone) < hour + 2]


def _weekday(second: int, zone: ZoneInfo) -> int:
    return datetime.fromtimestamp(second, zone).weekday()


def _hour(second: int, zone: ZoneInfo) -> float:
    local = datetime.fromtimestamp(second, zone)
    return local.hour + local.minute / 60
