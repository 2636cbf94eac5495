"""The detection pipeline over one lake: collect signals, correlate, drop muted findings, rank and describe."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from trailsift.analysis.base import CALLS, ask, plain, tuple_of
from trailsift.analysis.time_range import UTC_ZONE, Period
from trailsift.detect.blind import BlindSpot, blind_spots
from trailsift.detect.context import Context, context_of
from trailsift.detect.correlate import (
    DAILY_BUDGET,
    MIN_SCORE,
    apply_budget,
    correlate_signals,
    finding_id,
    rank_findings,
)
from trailsift.detect.describe import Language, describe
from trailsift.detect.facts import facts_of
from trailsift.detect.finding import LEVELS, Finding, Signal
from trailsift.detect.finding_ids import named
from trailsift.detect.next_steps import Step, in_aws, look_further
from trailsift.detect.own import Own, own_of, respect
from trailsift.detect.triage import Verdict, marks, without_muted
from trailsift.detect.writer import Writer
from trailsift.errors import UsageError
from trailsift.lake.home import home
from trailsift.lake.retention import day_text, removed_days
from trailsift.times import HOUR, literal

if TYPE_CHECKING:
    from trailsift.detect.detection_rules import Detection, Problem
    from trailsift.detect.sigma.report import SigmaReport
    from trailsift.detect.signals import SignalSet
    from trailsift.query import DuckDBEngine


#: The levels to choose from.
ALL_LEVELS = frozenset(LEVELS.values())


@dataclass(frozen=True)
class DetectOptions:
    """Options of ``detect``: period, daily budget (0: all), minimum score, language, muted findings, levels, and what
    is one's own (None: as the lake keeps it). ``blind``: also say what could not be judged.
    """

    period: Period = field(default_factory=Period)
    budget: int = DAILY_BUDGET
    least: float = MIN_SCORE
    language: Language = "en"
    muted: bool = False
    afresh: bool = False
    clean: Callable[[str], str] = str
    levels: frozenset[str] = ALL_LEVELS
    blind: bool = True
    own: Own | None = None

    @property
    def zone(self) -> ZoneInfo:
        """The time zone for times in sentences."""
        return self.period.zone or UTC_ZONE

    @property
    def writer(self) -> Writer:
        """Writer of sentences in the language."""
        return Writer(self.language, self.clean, self.zone)


@dataclass(frozen=True)
class DetectionResult:
    """Findings in rank order, the detections that failed, and the number of days of the lake that were read.

    ``hits``: events by the id of the detection that matched them. ``sigma``: what became of Sigma rules, if there were.
    ``blind``: what could not be judged, and why; ``not_judged`` has it as sentences.
    """

    findings: list[Finding]
    problems: tuple[Problem, ...]
    days: int
    blind: tuple[BlindSpot, ...] = ()
    writer: Writer = field(default_factory=Writer, compare=False, repr=False)
    hits: Mapping[str, int] = field(default_factory=dict)
    sigma: SigmaReport | None = None

    @property
    def not_judged(self) -> tuple[str, ...]:
        """Sentences about what could not be judged, in the language of the findings."""
        return tuple(spot.sentence(self.writer) for spot in self.blind)


def detect(
    engine: DuckDBEngine, options: DetectOptions = DetectOptions(), detections: Sequence[Detection] = ()
) -> DetectionResult:
    """Return the findings of a lake in rank order. Baselines are learned from the whole lake, whatever the period.

    Checkpoints are kept in the lake, so that the next run reads only what changed; ``options.afresh`` reads everything.
    """
    # Imported lazily: only detection needs numpy.
    from trailsift.detect.signals import collect_signals

    own = own_of(engine.snapshot.root) if options.own is None else options.own
    seen = collect_signals(engine, detections, afresh=options.afresh)
    hits: Counter[str] = Counter()
    for signal in seen.signals:
        if signal.rule is not None:
            hits[signal.rule] += signal.events
    seen.signals, seen.links = respect(engine, own, seen.signals, seen.links)
    if options.levels != ALL_LEVELS:
        seen.signals = [signal for signal in seen.signals if LEVELS[signal.kind] in options.levels]
        seen.links = seen.links if "novel" in options.levels else []
    # Some of the levels may split what all levels see as one long finding, and must not take its id.
    remember = options.levels == ALL_LEVELS
    findings = correlate_signals(seen.signals, options.least, 0, seen.links)
    findings = named(engine.snapshot.root, findings, remember=remember)
    if not options.muted:
        findings = _unmuted(findings, seen, marks(engine.snapshot.root), options.least)
    chosen = _of_period(rank_findings(findings), options)
    spots = blind_spots(engine, options.levels, len(seen.problems)) if options.blind else ()
    described = _described(engine, chosen, options, detections)
    return DetectionResult(described, tuple(seen.problems), len(seen.days), spots, options.writer, hits)


def _unmuted(
    findings: Sequence[Finding], seen: SignalSet, verdicts: Mapping[str, Verdict], least: float
) -> list[Finding]:
    """Drop muted findings, and findings whose signals that no mute covers score less than ``least``."""
    mutes = [verdict for verdict in verdicts.values() if verdict.word == "mute"]
    if not mutes:
        return list(findings)
    muted = {verdict.id for verdict in mutes}
    left = correlate_signals(without_muted(seen.signals, mutes), least, 0, seen.links)
    kept = {_key(signal) for finding in left for signal in finding.signals}
    return [
        finding
        for finding in findings
        if not muted & {finding.id, *finding.also} and any(_key(signal) in kept for signal in finding.signals)
    ]


def _key(signal: Signal) -> tuple[str | None, int, str, str]:
    return signal.caller, signal.first_time, signal.kind, signal.value


def over_threshold(engine: DuckDBEngine, threshold: int, options: DetectOptions = DetectOptions()) -> list[Finding]:
    """Return hours in which one event occurred more than ``threshold`` times: the simplest level, no baseline."""
    if threshold < 1:
        raise UsageError(f"--threshold {threshold} is not valid: give a number of events per hour, 1 or more")
    from trailsift.detect.daily_data import once_of_many

    sql = f"""SELECT epoch_us(hour), event_name, {once_of_many("events")}::BIGINT AS calls, arg_max(caller, events),
            arg_max(resource_arn, events), epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM hourly WHERE {options.period.where("hour")} AND {CALLS} GROUP BY hour, event_name
        HAVING calls > {threshold}
        ORDER BY 3 DESC, 1, 2"""
    out = []
    for _, name, events, caller, resource, first, last in ask(engine, tuple_of, sql):
        signal = Signal(
            "over_threshold", caller, events / threshold, first, last, name, events, threshold, name, resource
        )
        score = events / (events + threshold)
        id_ = finding_id(caller, first, name)
        out.append(Finding(id_, caller, score, first, last, (signal,), span=(first, last)))
    return _described(engine, out, options)


def find(
    engine: DuckDBEngine, name: str, options: DetectOptions = DetectOptions(), detections: Sequence[Detection] = ()
) -> Finding:
    """Return a finding by id, prefix of an id, or rank in the list. Raise UsageError unless exactly one matches."""
    rank = int(name) if name.isdigit() and len(name) < 4 else 0
    options = DetectOptions(
        Period(zone=options.zone),
        DAILY_BUDGET if rank else 0,
        MIN_SCORE,
        options.language,
        not rank,
        clean=options.clean,
        blind=False,
    )
    findings = detect(engine, options, detections).findings
    if 0 < rank <= len(findings):
        return findings[rank - 1]
    hits = [finding for finding in findings if any(id_.startswith(name) for id_ in (finding.id, *finding.also))]
    if len(hits) == 1:
        return hits[0]
    if hits:
        raise UsageError(f"{name!r} is a prefix of {len(hits)} ids: {', '.join(hit.id for hit in hits[:5])}")
    raise UsageError(f"there is no finding {name!r} in this lake: `trailsift detect` lists them")


@dataclass(frozen=True)
class FindingDetail:
    """A finding with its evidence: rows of ``hourly``, then the first events.

    ``removed_before``: the day (ISO 8601, UTC) before which retention has removed the events, if that concerns some of
    the finding's; else None. ``context``: what surrounds the finding. ``next``: commands that show more; ``in_aws``:
    the steps there. ``meaning``: what the strongest detection says of its findings.
    """

    finding: Finding
    lines: list[tuple[Any, ...]]
    events: list[dict[str, Any]]
    removed_before: str | None = None
    context: Context = field(default_factory=Context)
    next: tuple[Step, ...] = ()
    in_aws: tuple[Step, ...] = ()
    meaning: str | None = None
    writer: Writer = field(default_factory=Writer, compare=False, repr=False)

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        names = ("hour", "service", "event_name", "resource_arn", "error_code", "events", "bytes_out")
        lines = [dict(zip(names, line, strict=True)) for line in self.lines]
        shown = {"summary": plain(lines), "events": plain(self.events), "events_removed_before": self.removed_before}
        about = {"meaning": self.meaning, "context": plain(self.context)}
        about |= {"next": plain(self.next), "in_aws": plain(self.in_aws)}
        return self.finding.as_dict() | shown | about


def drill(
    engine: DuckDBEngine,
    finding: Finding,
    limit: int = 10,
    writer: Writer | None = None,
    detections: Sequence[Detection] = (),
) -> FindingDetail:
    """Return the summary rows of a finding's caller and time, its events, what surrounds it and what to do next.

    ``limit`` 0 returns all events. ``writer``: the language of what to do next; ``detections``: their own texts.
    """
    from trailsift.detect.daily_data import once_of_many

    since, until = finding.first_time // HOUR * HOUR, finding.last_time
    lines = engine.sql(
        f"""SELECT hour, service, event_name, resource_arn, error_code, {once_of_many("events")}::BIGINT AS calls,
            {once_of_many("bytes_out")}::BIGINT FROM hourly
        WHERE {finding.by_callers} AND {CALLS} AND hour >= {literal(since)} AND hour <= {literal(until)}
        GROUP BY 1, 2, 3, 4, 5
        ORDER BY calls DESC, 1, 2, 3, 4 LIMIT 20"""
    ).rows()
    most = f" LIMIT {limit}" if limit else ""
    events = engine.sql(finding.query + most).dicts()
    removed = removed_days(engine.snapshot).events
    before = day_text(removed) if removed is not None and finding.first_time < removed else None
    writer = writer or Writer()
    context = context_of(engine, finding)
    rules = {rule.id: rule for rule in detections}
    known = [rules[signal.rule] for signal in finding.leading_signals if signal.rule in rules]
    return FindingDetail(
        finding,
        lines,
        events,
        before,
        context,
        look_further(finding, writer, home(engine.snapshot.root), context),
        in_aws(finding, writer, context, rules),
        _meaning(known[0], writer) if known else None,
        writer,
    )


def _meaning(rule: Detection, writer: Writer) -> str | None:
    """Return what a detection says of its findings; a user's own may have no Korean text."""
    return rule.description if writer.language == "en" else rule.description_ko


def _of_period(findings: Sequence[Finding], options: DetectOptions) -> list[Finding]:
    period = options.period
    inside = [
        finding
        for finding in findings
        if (period.since is None or finding.last_time >= period.since)
        and (period.until is None or finding.first_time < period.until)
    ]
    return apply_budget(inside, options.budget)


def _described(
    engine: DuckDBEngine, findings: Sequence[Finding], options: DetectOptions, detections: Sequence[Detection] = ()
) -> list[Finding]:
    facts = facts_of(engine, findings)
    rules = {rule.id: rule for rule in detections}
    return [
        describe(finding, options.language, options.zone, options.clean, rules, facts.get(finding.id))
        for finding in findings
    ]
