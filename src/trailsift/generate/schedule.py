"""The schedule: rates of every activity over the period, and batches of events drawn from them.

The period is cut into cells of five minutes (less for many events); a batch is a run of cells with some 20,000 events,
so that memory does not grow with the period.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from numpy.typing import NDArray

from trailsift.generate.actors import Actor, resource_arn
from trailsift.generate.archetypes import RHYTHMS, Activity, Op, Rhythm
from trailsift.generate.bulk_text import Ints, iso_time, mix_int
from trailsift.generate.options import Options

Floats = NDArray[np.float64]

_BIN = 300  # seconds of a step of the weekly profile
_BINS = 7 * 86_400 // _BIN
_BATCH = 20_000  # events
_MATRIX = 2_000_000  # cells x activities of a batch
_HIRED = 0.65  # part of the period after which the third person of a team begins


def weekly_profile(rhythm: Rhythm) -> Floats:
    """Return the relative rate of each five minutes of a local week (Monday first), 1 on average."""
    bins = np.arange(_BINS)
    minute = bins % 12 * 5
    rate = np.array(rhythm.hours, float)[bins // 12 % 24] * np.array(rhythm.weekdays, float)[bins // 288]
    rate[(minute < rhythm.minutes[0]) | (minute >= rhythm.minutes[1])] = 0
    out: Floats = rate / rate.mean()
    return out


@dataclass(frozen=True)
class OrdinaryEvents:
    """Events drawn for a stretch of time: actor, op (index into Schedule.ops), slot and time (seconds) of each."""

    actor: Ints
    op: Ints
    slot: Ints
    seconds: Ints


class Schedule:
    """The rates of all activities; `counts`: number of ordinary events per batch."""

    def __init__(self, options: Options, zone: ZoneInfo, actors: tuple[Actor, ...], ordinary: int) -> None:
        self.seed, self.zone, self.actors = options.seed, zone, actors
        self.first, self.span = options.first_second(), options.seconds()
        rows: list[tuple[Actor, Activity]] = [(actor, act) for actor in actors for act in actor.kind.activities]
        self.ops: list[Op] = list(dict.fromkeys(op for _, act in rows for op in act.ops))
        self._actor = np.array([actor.index for actor, _ in rows], np.int64)
        names = list(RHYTHMS)
        self._rhythm = np.array([names.index(act.rhythm) for _, act in rows], np.int64)
        self._profiles = np.array([weekly_profile(rhythm) for rhythm in RHYTHMS.values()])
        sizes = _actor_sizes(actors)
        self._weight = np.array([sizes[actor.index] * act.share for actor, act in rows])
        self._since = np.array([self.first + act.since * self.span for _, act in rows])
        self._slots = np.array([actor.kind.slots for actor in actors], np.int64)
        self._joined = np.array([actor.kind.session == "email" for actor in actors])
        self._op_table, self._op_chances = self._choices([act for _, act in rows])
        self._cell = next(c for c in (300, 60, 10, 1) if ordinary * c / self.span <= _BATCH or c == 1)
        cells = -(-self.span // self._cell)
        per_batch = max(1, min(cells, int(_BATCH * cells / max(1, ordinary)), _MATRIX // len(rows)))
        self.bounds = [(a, min(a + per_batch, cells)) for a in range(0, cells, per_batch)]
        weights = np.array([self._rates(a, b).sum() for a, b in self.bounds])
        draw = np.random.default_rng([self.seed, 1])
        self.counts: list[int] = draw.multinomial(ordinary, weights / weights.sum()).tolist()

    def _choices(self, activities: list[Activity]) -> tuple[Ints, Floats]:
        """Return the ops of each activity, padded to a table, and their cumulative probabilities."""
        place = {op: i for i, op in enumerate(self.ops)}
        width = max(len(act.ops) for act in activities)
        table = np.zeros((len(activities), width), np.int64)
        chances = np.full((len(activities), width), 2.0)
        for row, act in enumerate(activities):
            table[row, : len(act.ops)] = [place[op] for op in act.ops]
            weights = np.array([op.weight for op in act.ops], float)
            chances[row, : len(act.ops)] = np.cumsum(weights / weights.sum())
            chances[row, len(act.ops) - 1] = 2.0
        return table, chances

    def end_of(self, batch: int) -> int:
        """Return the first second after the batch."""
        return min(self.first + self.bounds[batch][1] * self._cell, self.first + self.span)

    def _rates(self, a: int, b: int) -> Floats:
        """Return relative rates, activities x cells a..b."""
        times = self.first + np.arange(a, b, dtype=np.int64) * self._cell
        bins = self._local_bins(times)
        rates = self._profiles[:, bins][self._rhythm] + 1e-9  # so that no period is impossible
        rates *= self._weight[:, None]
        rates[times[None, :] < self._since[:, None]] = 0
        days = times // 86_400
        for day in np.unique(days).tolist():
            # Days differ per activity, as in reality.
            noise = np.random.default_rng([self.seed, 2, day]).normal(0.0, 0.1, len(rates))
            rates[:, days == day] *= np.exp(noise)[:, None]
        rest = self.first + self.span - times[-1]
        if rest < self._cell:
            rates[:, -1] *= rest / self._cell
        return rates

    def _local_bins(self, times: Ints) -> Ints:
        hours = times // 3600
        unique, of = np.unique(hours, return_inverse=True)
        offsets = []
        for hour in unique.tolist():
            offset = datetime.fromtimestamp(hour * 3600, self.zone).utcoffset()
            offsets.append(int(offset.total_seconds()) if offset else 0)
        local = times + np.array(offsets, np.int64)[of]
        monday_first: Ints = (local // 86_400 + 3) % 7 * 288 + local % 86_400 // _BIN  # 1970 began on a Thursday
        return monday_first

    def draw(self, batch: int, rng: np.random.Generator) -> OrdinaryEvents:
        """Draw the ordinary events of a batch."""
        a, b = self.bounds[batch]
        n = self.counts[batch]
        running = np.cumsum(self._rates(a, b))
        flat = np.searchsorted(running, np.sort(rng.random(n)) * running[-1], side="right")
        row, cell = np.divmod(np.minimum(flat, len(running) - 1), b - a)
        actor = self._actor[row]
        seconds = self.first + (a + cell) * self._cell + rng.integers(0, self._cell, n)
        seconds = np.minimum(seconds, self.first + self.span - 1)
        choice = (rng.random(n)[:, None] > self._op_chances[row]).sum(axis=1)
        slot = (rng.random(n) * self._slots[actor]).astype(np.int64)
        early = self._joined[actor] & (slot == 2) & (seconds < self.first + _HIRED * self.span)
        slot[early] = 0
        return OrdinaryEvents(actor, self._op_table[row, choice], slot, seconds)

    def news(self) -> list[dict[str, Any]]:
        """Return benign changes in the period that a detector may report: kind, role, time, description."""
        out: list[dict[str, Any]] = []
        end = self.first + self.span
        for actor in self.actors:
            if len(actor.kind.agents) > 1 and actor.deployed < end and actor.arn:
                out.append(_item("new_user_agent", actor, actor.deployed, "a deployment brings a newer SDK"))
            if actor.kind.session == "email":
                when = self.first + int(_HIRED * self.span)
                out.append(_item("new_person", actor, when, "a new colleague begins, who works from home"))
            for act in actor.kind.activities:
                if act.note:
                    kind = "weekly_job" if not act.since else "new_activity"
                    item = _item(kind, actor, self.first + int(act.since * self.span), act.note)
                    out.append(item | {"resource_arn": resource_arn(actor, act.ops[0])})
        return out


def _item(kind: str, actor: Actor, second: int, text: str) -> dict[str, Any]:
    return {"kind": kind, "role_arn": actor.arn, "first_time": iso_time(second), "description": text}


def _actor_sizes(actors: tuple[Actor, ...]) -> list[float]:
    """Return each actor's share of all events: its archetype's share, divided unevenly among its copies."""
    sizes = [2.0 ** (mix_int(actor.salt, 41) % 1000 / 250) for actor in actors]  # the largest 16 times the smallest
    totals: dict[str, float] = {}
    for actor, size in zip(actors, sizes, strict=True):
        totals[actor.kind.job] = totals.get(actor.kind.job, 0.0) + size
    return [actor.kind.share * size / totals[actor.kind.job] for actor, size in zip(actors, sizes, strict=True)]
