"""What became of a folder of Sigma rules: which run, which cannot and why, which are about other logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from trailsift.detect.detection_rules import Detection, Problem


@dataclass(frozen=True)
class SigmaRule:
    """One rule that was translated. ``level`` and ``status`` are the rule's own words, "" if it has none.

    ``notes``: why it may never match. ``correlates``: it is a correlation. ``hidden``: it only serves a correlation.
    ``hits``: events that it matched in a run, as far as they are still remembered.
    """

    id: str
    title: str
    level: str
    status: str
    techniques: tuple[str, ...]
    path: str
    line: int
    detection: Detection
    notes: tuple[str, ...] = ()
    correlates: bool = False
    hidden: bool = False
    hits: int = 0

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "id": self.id,
            "title": self.title,
            "level": self.level,
            "status": self.status,
            "techniques": list(self.techniques),
            "file": self.path,
            "line": self.line,
            "correlation": self.correlates,
            "hits": self.hits,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class SigmaReport:
    """The rules of a folder. ``other_logs``: how many are for other logs than CloudTrail's."""

    rules: tuple[SigmaRule, ...] = ()
    problems: tuple[Problem, ...] = ()
    other_logs: int = 0
    #: What the lake does not hold, so that no rule can see it: sentences.
    unseen: tuple[str, ...] = field(default=())

    def summary(self, verb: str = "ran") -> str:
        """Return one sentence about a run, or about what could run."""
        shown = [rule for rule in self.rules if not rule.hidden]
        total = len(shown) + len(self.problems)
        parts = [f"{len(shown):,} of {total:,} rules {verb}"]
        if self.problems:
            parts.append(f"{len(self.problems):,} could not be used, see above")
        hidden = len(self.rules) - len(shown)
        if hidden:
            parts.append(f"{hidden:,} only serve correlations")
        if self.other_logs:
            parts.append(f"{self.other_logs:,} are for other logs than CloudTrail's")
        idle = [rule for rule in shown if rule.notes]
        if idle:
            named = "; ".join(f"{rule.title}: {rule.notes[0]}" for rule in idle[:3])
            parts.append(f"{len(idle):,} may never match ({named})")
        return f"Sigma: {', '.join(parts)}"

    @property
    def detections(self) -> list[Detection]:
        """The detections that the rules are."""
        return [rule.detection for rule in self.rules if not rule.hidden]

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "ran": [rule.as_dict() for rule in self.rules if not rule.hidden],
            "for_correlations_only": [rule.as_dict() for rule in self.rules if rule.hidden],
            "could_not_run": [
                {"file": problem.path, "line": problem.line, "reason": problem.text} for problem in self.problems
            ],
            "other_logs": self.other_logs,
            "unseen": list(self.unseen),
        }
