"""Run the findings over a lake, with all levels and without each, and compare them with what is right."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from real_sets import Label, RealSet, Record, records_of, stolen_sessions
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.finding import Finding, calls_of
from trailsift.detect.pipeline import ALL_LEVELS, DetectOptions, detect
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import HOUR

#: All levels ("all"), then each level left out.
ABLATIONS = ("all", *sorted(ALL_LEVELS))


@dataclass(frozen=True)
class Content:
    """What a lake holds: events, days with events, and callers."""

    events: int
    days: int
    callers: int


@dataclass(frozen=True)
class SetResult:
    """A real set: its content, findings by ablation (all: in rank order), and per label the rank that names it."""

    set: RealSet
    content: Content
    findings: dict[str, list[Finding]]
    ranks: dict[str, dict[str, int | None]]
    false: dict[str, list[Finding]]
    seconds: float

    def severities(self) -> Counter[str]:
        """Return the findings by severity."""
        return Counter(finding.severity for finding in self.findings["all"])


def findings_of(lake: Path, ablations: Sequence[str] = ABLATIONS) -> tuple[Content, dict[str, list[Finding]], float]:
    """Return the content of a lake, its findings by ablation as `trailsift detect` lists them, and the seconds for all
    levels."""
    with DuckDBEngine(open_snapshot(lake)) as engine:
        sql = """SELECT sum(events)::BIGINT, count(DISTINCT date_trunc('day', hour)), count(DISTINCT caller)
            FROM hourly"""
        events, days, callers = engine.sql(sql).rows()[0]
        out: dict[str, list[Finding]] = {}
        seconds = 0.0
        for ablation in ablations:
            begun = time.perf_counter()
            levels = ALL_LEVELS - {ablation}
            options = DetectOptions(levels=frozenset(levels), afresh=ablation == "all", blind=False)
            out[ablation] = list(detect(engine, options, builtin_rules()[0]).findings)
            seconds = seconds or time.perf_counter() - begun
    return Content(events or 0, days, callers), out, seconds


def judge_set(chosen: RealSet, lake: Path) -> SetResult:
    """Return the findings of a real set, judged."""
    content, findings, seconds = findings_of(lake)
    records = records_of(chosen.records)
    ranks: dict[str, dict[str, int | None]] = {}
    false: dict[str, list[Finding]] = {}
    for ablation, listed in findings.items():
        named: set[str] = set()
        ranks[ablation] = {}
        for label in chosen.labels:
            hits = [place for place, finding in enumerate(listed, 1) if names(finding, label, records)]
            ranks[ablation][label.name] = min(hits, default=None)
            named |= {listed[place - 1].id for place in hits}
        false[ablation] = [finding for finding in listed if finding.id not in named]
    return SetResult(chosen, content, findings, ranks, false, seconds)


def names(finding: Finding, label: Label, records: list[Record]) -> bool:
    """Return whether a finding names a labelled action: its call, at its time (to the hour), or the session's role."""
    first, last = label.span
    if not overlaps(finding, first, last):
        return False
    if label.anything:
        return True
    if not label.calls:
        sessions = stolen_sessions(records, first, last)
        return any(same_caller(caller, who) for caller in finding.callers or (finding.caller,) for who in sessions)
    signals = [s for s in finding.signals if s.first_time <= last + HOUR and s.last_time >= first - HOUR]
    near = {name for signal in signals for name in calls_of(signal)}
    text = " ".join([finding.title, *finding.reasons])
    return any(call in near or re.search(rf"\b{call}\b", text) for call in label.calls)


def overlaps(finding: Finding, first: int, last: int) -> bool:
    """Return whether a finding and a time span (microseconds) are within an hour of each other."""
    return finding.first_time <= last + HOUR and finding.last_time >= first - HOUR


def same_caller(caller: str | None, who: str) -> bool:
    """Return whether a finding's caller is this one, or a session of it."""
    return caller is not None and (caller == who or (caller.startswith(who) and not caller[len(who)].isalnum()))
