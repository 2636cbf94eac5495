"""`trailsift evaluate`: generate logs with and without incidents, ingest, detect, judge, and add up over seeds."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trailsift.detect.correlate import correlate_signals
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.evaluation import EvaluationResult, IncidentOutcome, judge, read_truth
from trailsift.detect.finding import LEVELS
from trailsift.detect.signals import collect_signals
from trailsift.generate import STRENGTHS, Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

#: All levels, then each level left out.
ABLATIONS = ("all", *dict.fromkeys(LEVELS.values()))


@dataclass(frozen=True)
class ExperimentConfig:
    """Logs to generate for each seed; each strength gets lakes of its own."""

    events: int
    days: float
    roles: int
    strengths: tuple[str, ...] = STRENGTHS


@dataclass
class ExperimentReport:
    """The results of all seeds: by strength and level left out ("all": none), and of periods without incidents."""

    config: ExperimentConfig
    seeds: int = 0
    results: dict[tuple[str, str], list[EvaluationResult]] = field(default_factory=lambda: defaultdict(list))
    quiet: list[EvaluationResult] = field(default_factory=list)

    def outcomes(self, strength: str, ablation: str = "all", kind: str | None = None) -> list[IncidentOutcome]:
        """Return the planted incidents, all or of one kind."""
        return [o for result in self.results[strength, ablation] for o in result.outcomes if kind in (None, o.kind)]

    def found(self, strength: str, ablation: str = "all", kind: str | None = None) -> float:
        """Return the share of incidents that were found."""
        return _mean([outcome.found for outcome in self.outcomes(strength, ablation, kind)])

    def on_top(self, strength: str, ablation: str = "all", kind: str | None = None) -> float:
        """Return the share of incidents among the first ten findings of their day."""
        ranks = [outcome.rank for outcome in self.outcomes(strength, ablation, kind)]
        return _mean([rank is not None and rank <= 10 for rank in ranks])

    def false(self, strength: str, ablation: str = "all") -> float:
        """Return the false findings per day."""
        return _mean([result.false_per_day for result in self.results[strength, ablation]])

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "seeds": self.seeds,
            "events": self.config.events,
            "days": self.config.days,
            "roles": self.config.roles,
            "strengths": [
                {
                    "strength": strength,
                    "levels": [self._level(strength, ablation) for ablation in ABLATIONS],
                    "kinds": [
                        self._kind(strength, kind) for kind in dict.fromkeys(o.kind for o in self.outcomes(strength))
                    ],
                }
                for strength in self.config.strengths
            ],
            "quiet_false_per_day": _mean([result.false_per_day for result in self.quiet]),
        }

    def _level(self, strength: str, ablation: str) -> dict[str, Any]:
        return {
            "without": None if ablation == "all" else ablation,
            "found": self.found(strength, ablation),
            "in_top_10": self.on_top(strength, ablation),
            "false_per_day": self.false(strength, ablation),
            "false_per_day_and_1000_roles": 1000 * self.false(strength, ablation) / self.config.roles,
        }

    def _kind(self, strength: str, kind: str) -> dict[str, Any]:
        planted = self.outcomes(strength, kind=kind)
        return {
            "kind": kind,
            "planted": len(planted),
            "found": self.found(strength, kind=kind),
            "in_top_10": self.on_top(strength, kind=kind),
            "hours_to_detect": _mean([o.delay for o in planted if o.delay is not None]),
            "found_without": {name: self.found(strength, name, kind) for name in ABLATIONS if name != "all"},
        }


def run_experiment(
    seeds: Iterable[int], config: ExperimentConfig, progress: Callable[[str], None] = lambda text: None
) -> ExperimentReport:
    """Build and judge a lake per seed and strength, and one without incidents; they are temporary and deleted."""
    report = ExperimentReport(config)
    for seed in seeds:
        for strength in config.strengths:
            for ablation, result in judge_seed(seed, config, strength).items():
                report.results[strength, ablation].append(result)
        report.quiet.append(judge_seed(seed, config, None)["all"])
        report.seeds += 1
        recall = ", ".join(f"{report.found(strength):.0%} {strength}" for strength in config.strengths)
        false = _mean([report.false(strength) for strength in config.strengths])
        progress(f"seed {seed}: found so far {recall}; {false:.2f} false findings per day")
    return report


def judge_seed(seed: int, config: ExperimentConfig, strength: str | None) -> dict[str, EvaluationResult]:
    """Generate the logs of a seed in a temporary folder (None: without incidents), and return the result by level
    left out."""
    folder = Path(tempfile.mkdtemp(prefix="trailsift-evaluate-"))
    try:
        options = Options(config.events, config.days, seed, roles=config.roles, incidents=strength is not None)
        options = replace(options, strength=strength) if strength else options
        generate(folder / "logs", options)
        ingest([str(folder / "logs" / "AWSLogs")], folder / "lake", workers=1)
        truth = read_truth(folder / "logs" / "truth.json")
        with DuckDBEngine(open_snapshot(folder / "lake")) as engine:
            return judge_ablations(engine, truth)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge_ablations(engine: DuckDBEngine, truth: dict[str, Any]) -> dict[str, EvaluationResult]:
    """Return the result with all levels, and with each level left out."""
    seen = collect_signals(engine, builtin_rules()[0], save=False)
    out = {}
    for ablation in ABLATIONS:
        signals = [signal for signal in seen.signals if LEVELS[signal.kind] != ablation]
        out[ablation] = judge(correlate_signals(signals, links=seen.links), truth)
    return out


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
