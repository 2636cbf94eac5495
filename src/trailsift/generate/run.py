"""One run: batch by batch through the period, then truth.json beside the logs."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from trailsift.errors import UsageError
from trailsift.generate.actors import ACCOUNTS, REGIONS, Actor, create_actors
from trailsift.generate.archetypes import Op
from trailsift.generate.bulk_text import Ints, iso_time
from trailsift.generate.delivery import DeliveryStream, TrailWriter, delays, window_seconds
from trailsift.generate.incidents import Incident, plan
from trailsift.generate.options import Generated, Options, check
from trailsift.generate.records import RecordGroup, render
from trailsift.generate.schedule import Schedule
from trailsift.generate.sessions import Intruder, open_sessions

_SECOND_TRAIL = 0.996  # part of the events that the second trail delivers too


def generate(target: Path, options: Options, progress: Callable[[int], None] | None = None) -> Generated:
    """Write `target`/AWSLogs/... and `target`/truth.json, and return what was written.

    target    a folder that is empty or does not exist yet
    progress  called after each batch with the number of events so far

    Raise UsageError for impossible options or a target that is not empty.
    """
    zone = check(options)
    _check_target(target)
    actors = create_actors(options.roles, options.seed, options.first_second(), options.seconds())
    incidents = plan(options, zone, actors, np.random.default_rng([options.seed, 3]))
    planted = sum(len(incident.seconds) for incident in incidents)
    schedule = Schedule(options, zone, actors, options.events - planted)
    run = _LogGenerator(target, options, actors, incidents, schedule)
    done = 0
    for batch in range(len(schedule.bounds)):
        done += run.write_batch(batch)
        if progress:
            progress(done)
    for trail in run.trails:
        trail.flush(None)
    _write_truth(target, options, actors, incidents, schedule)
    return Generated(
        events=done,
        records=sum(trail.records for trail in run.trails),
        log_objects=sum(trail.objects for trail in run.trails),
        bytes=sum(trail.written for trail in run.trails),
        plain_bytes=sum(trail.plain for trail in run.trails),
        planted=tuple(incident.scenario.kind for incident in incidents),
    )


def _check_target(target: Path) -> None:
    if target.exists() and not target.is_dir():
        raise UsageError(f"cannot generate into {target}: it is a file; name a new or an empty folder")
    if target.is_dir() and next(target.iterdir(), None) is not None:
        raise UsageError(f"cannot generate into {target}: it is not empty; name a new or an empty folder")
    target.mkdir(parents=True, exist_ok=True)


class _LogGenerator:
    """Generates batches; holds what they share: actors, incidents and trails."""

    def __init__(
        self, target: Path, options: Options, actors: tuple[Actor, ...], incidents: list[Incident], schedule: Schedule
    ) -> None:
        self.seed, self.actors, self.incidents, self.schedule = options.seed, actors, incidents, schedule
        self.ops: list[Op] = list(dict.fromkeys([*schedule.ops, *(op for i in incidents for op in i.scenario.ops)]))
        place = {op: index for index, op in enumerate(self.ops)}
        self.incident_ops = [np.array([place[op] for op in i.scenario.ops], np.int64)[i.ops] for i in incidents]
        self.intruders: dict[tuple[int, int], Intruder] = {
            (i.actor.index, i.slot): i.intruder() for i in incidents if i.scenario.hour is None
        }
        streams = tuple(DeliveryStream(account, region) for account in ACCOUNTS for region in REGIONS)
        where = {(s.account, s.region): n for n, s in enumerate(streams)}
        self.stream = np.array([where[r.account, r.region] for r in actors], np.int64)
        self.partner_stream = np.array([where[r.partner, r.region] for r in actors], np.int64)
        window = window_seconds(options.events, options.seconds())
        self.trails = [
            TrailWriter(target, streams, window, options.tiny_objects, np.random.default_rng([options.seed, 4, number]))
            for number in range(2 if options.two_trails else 1)
        ]

    def write_batch(self, batch: int) -> int:
        """Draw, write and deliver one batch. Return its number of events."""
        rng = np.random.default_rng([self.seed, 5, batch])
        actor, op, slot, seconds, incident = self._events(batch, rng)
        sessions = open_sessions(self.actors, actor, slot, seconds, self.intruders)
        of = np.array(sessions.of, np.int64)
        order = np.lexsort((seconds, op))
        cuts = np.flatnonzero(np.diff(op[order])) + 1
        records: list[bytes] = []
        moments, streams = [], []
        for places in np.split(order, cuts) if len(order) else []:
            kind = self.ops[int(op[places[0]])]
            copies = len(places) // 2 if kind.across else 0
            places = places[::2] if copies else places
            places = np.concatenate([places, places[:copies]])
            group = RecordGroup(
                kind, self.actors, actor[places].tolist(), of[places].tolist(), seconds[places], sessions, rng, copies
            )
            written = render(group)
            records += written.records
            moments.append(seconds[places])
            stream = self.stream[actor[places]]
            if copies:
                stream[-copies:] = self.partner_stream[actor[places[-copies:]]]
            streams.append(stream)
            for at in np.flatnonzero(incident[places] >= 0).tolist():
                self.incidents[incident[places[at]]].saw(int(seconds[places[at]]), written.event_ids[at].decode())
        if records:
            self._deliver(records, np.concatenate(moments), np.concatenate(streams), rng)
        for trail in self.trails:
            trail.flush(self.schedule.end_of(batch))
        return len(records)

    def _events(self, batch: int, rng: np.random.Generator) -> tuple[Ints, Ints, Ints, Ints, Ints]:
        """Draw actor, op, slot, time and incident (-1: none) of the batch's events."""
        drawn = self.schedule.draw(batch, rng)
        parts = [(drawn.actor, drawn.op, drawn.slot, drawn.seconds, np.full(len(drawn.actor), -1))]
        begin = self.schedule.end_of(batch - 1) if batch else self.schedule.first
        for number, (incident, ops) in enumerate(zip(self.incidents, self.incident_ops, strict=True)):
            a, b = np.searchsorted(incident.seconds, [begin, self.schedule.end_of(batch)]).tolist()
            if a < b:
                same = np.ones(b - a, np.int64)
                row = (
                    same * incident.actor.index,
                    ops[a:b],
                    same * incident.slot,
                    incident.seconds[a:b],
                    same * number,
                )
                parts.append(row)
        actor, op, slot, seconds, number_of = (np.concatenate(column) for column in zip(*parts, strict=True))
        return actor, op, slot, seconds, number_of

    def _deliver(self, records: list[bytes], seconds: Ints, stream: Ints, rng: np.random.Generator) -> None:
        for number, trail in enumerate(self.trails):
            due = seconds + delays(rng, len(records))
            if number == 0:
                trail.add(records, stream, due)
                continue
            taken = np.flatnonzero(rng.random(len(records)) < _SECOND_TRAIL)
            trail.add([records[i] for i in taken.tolist()], stream[taken], due[taken])


def _write_truth(
    target: Path, options: Options, actors: tuple[Actor, ...], incidents: list[Incident], schedule: Schedule
) -> None:
    """Write truth.json: what a detector should find, what it should not, and all roles."""
    first = options.first_second()
    jobs: dict[str | None, dict[str, Any]] = {}
    for actor in actors:
        # A service principal is one identity, no matter how many teams it serves.
        jobs.setdefault(
            actor.arn, {"role_arn": actor.arn, "job": actor.kind.job, "account": actor.account, "region": actor.region}
        )
    chosen = asdict(options) | {
        "start": iso_time(first),
        "incidents": list(options.kinds()),
    }
    truth = {
        "seed": options.seed,
        "options": chosen,
        "start": iso_time(first),
        "end": iso_time(first + options.seconds()),
        "events": options.events,
        "incidents": [incident.truth() for incident in incidents],
        "benign": schedule.news(),
        "roles": list(jobs.values()),
    }
    (target / "truth.json").write_text(json.dumps(truth, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
