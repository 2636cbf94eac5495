"""All levels over one lake: signals, what was muted taken out, findings in rank order, told in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from trailsift.analysis.base import ask, plain, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.detect.correlate import BUDGET, LEAST, budgeted, finding_id, join, ranked
from trailsift.detect.describe import Language, describe
from trailsift.detect.finding import LEVELS, Finding, Signal
from trailsift.detect.finding_ids import named
from trailsift.detect.triage import Verdict, marks, taught
from trailsift.errors import UsageError
from trailsift.times import HOUR, UTC_ZONE, literal

if TYPE_CHECKING:
    from trailsift.detect.detection_rules import Detection, Problem
    from trailsift.detect.signals import SignalSet
    from trailsift.query import DuckDBEngine


#: The levels that a person can choose among.
ALL_LEVELS = frozenset(LEVELS.values())


@dataclass(frozen=True)
class DetectOptions:
    """How findings are wanted: the period they touch, the budget of a day (0: all), words, muted ones, levels."""

    period: Period = field(default_factory=Period)
    budget: int = BUDGET
    least: float = LEAST
    language: Language = "en"
    muted: bool = False
    afresh: bool = False
    clean: Callable[[str], str] = str
    levels: frozenset[str] = ALL_LEVELS

    @property
    def zone(self) -> ZoneInfo:
        """The zone in which times are told."""
        return self.period.zone or UTC_ZONE


@dataclass(frozen=True)
class DetectionResult:
    """Findings in rank order, the detections that did not run, and how many days of the lake were read for it."""

    findings: list[Finding]
    problems: tuple[Problem, ...]
    days: int


def detect(
    engine: DuckDBEngine, wish: DetectOptions = DetectOptions(), detections: Sequence[Detection] = ()
) -> DetectionResult:
    """Findings of a lake in rank order. Habits are learnt from the whole lake, whatever the period.

    What was found is kept in the lake, so that the next run reads only what changed; ``wish.afresh`` reads everything.
    """
    # numpy is paid for by who detects only.
    from trailsift.detect.signals import look

    seen = look(engine, detections, afresh=wish.afresh)
    if wish.levels != ALL_LEVELS:
        seen.signals = [one for one in seen.signals if LEVELS[one.kind] in wish.levels]
        seen.links = seen.links if "novel" in wish.levels else []
    known = marks(engine.snapshot.root)
    # A part of the levels may see another finding where all see a drip of days, which must not lose its id to it.
    remember = wish.levels == ALL_LEVELS
    everything = named(engine.snapshot.root, join(seen.signals, wish.least, 0, seen.links), remember=remember)
    found = everything if wish.muted else _unmuted(everything, seen, known, wish.least)
    return DetectionResult(_reported(_of_period(ranked(found), wish), wish), tuple(seen.problems), len(seen.days))


def _unmuted(found: Sequence[Finding], seen: SignalSet, known: Mapping[str, Verdict], least: float) -> list[Finding]:
    """Findings without those that were muted, and without what is left below the least where a mute has taught."""
    mutes = [said for said in known.values() if said.word == "mute"]
    if not mutes:
        return list(found)
    muted = {said.id for said in mutes}
    left = join(taught(seen.signals, mutes), least, 0, seen.links)
    kept = {(signal.role_arn, signal.first_time, signal.kind, signal.value) for one in left for signal in one.signals}
    return [
        one
        for one in found
        if not muted & {one.id, *one.also}
        and any((signal.role_arn, signal.first_time, signal.kind, signal.value) in kept for signal in one.signals)
    ]


def over_threshold(engine: DuckDBEngine, threshold: int, wish: DetectOptions = DetectOptions()) -> list[Finding]:
    """Hours in which one event occurred more than ``threshold`` times: the simplest level, without any habit."""
    if threshold < 1:
        raise UsageError(f"--threshold {threshold} means nothing: give a number of events in an hour, 1 or more")
    sql = f"""SELECT epoch_us(hour), event_name, sum(events)::BIGINT, arg_max(role_arn, events),
            arg_max(resource_arn, events), epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM hourly WHERE {wish.period.where("hour")} GROUP BY hour, event_name HAVING sum(events) > {threshold}
        ORDER BY 3 DESC, 1, 2"""
    out = []
    for _, name, events, role, resource, first, last in ask(engine, tuple_of, sql):
        seen = Signal("over_threshold", role, events / threshold, first, last, name, events, threshold, name, resource)
        score = events / (events + threshold)
        found = Finding(finding_id(role, first, name), role, score, first, last, (seen,), span=(first, last))
        out.append(found)
    return _reported(out, wish)


def find(
    engine: DuckDBEngine, name: str, wish: DetectOptions = DetectOptions(), detections: Sequence[Detection] = ()
) -> Finding:
    """The finding of an id, of the beginning of one, or of a rank in the list. UsageError where none or several fit."""
    rank = int(name) if name.isdigit() and len(name) < 4 else 0
    wanted = DetectOptions(
        Period(zone=wish.zone), BUDGET if rank else 0, LEAST, wish.language, not rank, clean=wish.clean
    )
    found = detect(engine, wanted, detections).findings
    if 0 < rank <= len(found):
        return found[rank - 1]
    hits = [one for one in found if any(id_.startswith(name) for id_ in (one.id, *one.also))]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(f"{name!r} begins {len(hits)} ids: {', '.join(one.id for one in hits[:5])}")
    raise UsageError(f"there is no finding {name!r} in this lake: `trailsift detect` lists them")


@dataclass(frozen=True)
class FindingDetail:
    """A finding down to its events: lines of ``hourly``, then events (the first ones), and where their records are."""

    finding: Finding
    lines: list[tuple[Any, ...]]
    events: list[dict[str, Any]]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        names = ("hour", "service", "event_name", "resource_arn", "error_code", "events", "bytes_out")
        lines = [dict(zip(names, line, strict=True)) for line in self.lines]
        return self.finding.as_dict() | {"summary": plain(lines), "events": plain(self.events)}


def drill(engine: DuckDBEngine, finding: Finding, limit: int = 10) -> FindingDetail:
    """The summary lines of a finding's role and time, and its events; ``limit`` 0 gives all events."""
    since, until = finding.first_time // HOUR * HOUR, finding.last_time
    lines = engine.sql(
        f"""SELECT hour, service, event_name, resource_arn, error_code, sum(events)::BIGINT,
            coalesce(sum(bytes_out), 0)::BIGINT FROM hourly
        WHERE {finding.roles} AND hour >= {literal(since)} AND hour <= {literal(until)} GROUP BY 1, 2, 3, 4, 5
        ORDER BY sum(events) DESC, 1, 2, 3, 4 LIMIT 20"""
    ).rows()
    most = f" LIMIT {limit}" if limit else ""
    events = engine.sql(finding.query + most).dicts()
    return FindingDetail(finding, lines, events)


def _of_period(found: Sequence[Finding], wish: DetectOptions) -> list[Finding]:
    inside = [
        one
        for one in found
        if (wish.period.since is None or one.last_time >= wish.period.since)
        and (wish.period.until is None or one.first_time < wish.period.until)
    ]
    return budgeted(inside, wish.budget)


def _reported(found: Sequence[Finding], wish: DetectOptions) -> list[Finding]:
    return [describe(one, wish.language, wish.zone, wish.clean) for one in found]
