"""After a run: which rules could not run after all, how often the others matched, and what the lake hid from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from trailsift.detect.pipeline import DetectionResult
from trailsift.lake.retention import day_text, removed_days
from trailsift.times import literal

if TYPE_CHECKING:
    from trailsift.detect.detection_rules import Problem
    from trailsift.detect.sigma.report import SigmaReport
    from trailsift.query import DuckDBEngine


def covered(
    result: DetectionResult, report: SigmaReport, engine: DuckDBEngine, problems: Sequence[Problem] = ()
) -> DetectionResult:
    """Return a result with the report of its Sigma rules, and all problems: those of files first."""
    failed = {(problem.path, problem.line): problem for problem in result.problems}
    ran, late = [], []
    for rule in report.rules:
        problem = failed.get((rule.path, rule.detection.line))
        if problem is None:
            ran.append(replace(rule, hits=result.hits.get(rule.detection.id, 0)))
        else:
            late.append(problem)
    report = replace(report, rules=tuple(ran), problems=(*report.problems, *late), unseen=tuple(_unseen(engine)))
    return replace(result, problems=(*problems, *report.problems, *_others(result, late)), sigma=report)


def _others(result: DetectionResult, late: Sequence[Problem]) -> list[Problem]:
    return [problem for problem in result.problems if problem not in late]


def _unseen(engine: DuckDBEngine) -> list[str]:
    """Return what rules on events cannot see in this lake: what was removed, dropped or sampled away."""
    out = []
    removed = removed_days(engine.snapshot).events
    since = "" if removed is None else literal(removed)
    if removed is not None:
        out.append(f"events before {day_text(removed)} are no longer stored: only their counts are")
    counted = _number(engine, f"SELECT sum(events) FROM hourly{f' WHERE hour >= {since}' if since else ''}")
    stored = _number(engine, f"SELECT count(*) FROM events{f' WHERE event_time >= {since}' if since else ''}")
    if counted > stored:
        out.append(
            f"{counted - stored:,} of {counted:,} events are not stored, because rules dropped or sampled them away:"
            " no Sigma rule sees those, and counts of correlations are estimates"
        )
    return out


def _number(engine: DuckDBEngine, sql: str) -> int:
    ((value,),) = engine.query(sql).rows()
    return int(value or 0)
