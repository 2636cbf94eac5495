"""`trailsift evaluate`: generate logs with incidents and without, ingest, detect, judge, add up."""

from __future__ import annotations

import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from trailsift.detect.correlate import join
from trailsift.detect.detection_rules import builtin_rules
from trailsift.detect.evaluation import Outcome, Result, judge, read_truth
from trailsift.detect.finding import LEVELS
from trailsift.detect.signals import look
from trailsift.generate import STRENGTHS, Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine as DuckEngine

#: All levels, then each one off.
WAYS = ("all", *dict.fromkeys(LEVELS.values()))


@dataclass(frozen=True)
class ExperimentConfig:
    """What is generated for each seed; incidents in each of the strengths, in lakes of their own."""

    events: int
    days: float
    roles: int
    strengths: tuple[str, ...] = STRENGTHS


@dataclass
class Table:
    """The results of all seeds: by strength and level left out ("all" is none), and of quiet periods."""

    cast: ExperimentConfig
    seeds: int = 0
    results: dict[tuple[str, str], list[Result]] = field(default_factory=lambda: defaultdict(list))
    quiet: list[Result] = field(default_factory=list)

    def outcomes(self, strength: str, way: str = "all", kind: str | None = None) -> list[Outcome]:
        """The planted incidents, all or of one kind."""
        return [o for result in self.results[strength, way] for o in result.outcomes if kind in (None, o.kind)]

    def found(self, strength: str, way: str = "all", kind: str | None = None) -> float:
        """Part of the incidents that was found."""
        return _mean([one.found for one in self.outcomes(strength, way, kind)])

    def on_top(self, strength: str, way: str = "all", kind: str | None = None) -> float:
        """Part of the incidents that is among the first ten of its day."""
        return _mean([one.rank is not None and one.rank <= 10 for one in self.outcomes(strength, way, kind)])

    def false(self, strength: str, way: str = "all") -> float:
        """False findings a day."""
        return _mean([one.false_per_day for one in self.results[strength, way]])

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "seeds": self.seeds,
            "events": self.cast.events,
            "days": self.cast.days,
            "roles": self.cast.roles,
            "strengths": [
                {
                    "strength": strength,
                    "levels": [self._level(strength, way) for way in WAYS],
                    "kinds": [
                        self._kind(strength, kind) for kind in dict.fromkeys(o.kind for o in self.outcomes(strength))
                    ],
                }
                for strength in self.cast.strengths
            ],
            "quiet_false_per_day": _mean([one.false_per_day for one in self.quiet]),
        }

    def _level(self, strength: str, way: str) -> dict[str, Any]:
        return {
            "without": None if way == "all" else way,
            "found": self.found(strength, way),
            "in_top_10": self.on_top(strength, way),
            "false_per_day": self.false(strength, way),
            "false_per_day_and_1000_roles": 1000 * self.false(strength, way) / self.cast.roles,
        }

    def _kind(self, strength: str, kind: str) -> dict[str, Any]:
        planted = self.outcomes(strength, kind=kind)
        return {
            "kind": kind,
            "planted": len(planted),
            "found": self.found(strength, kind=kind),
            "in_top_10": self.on_top(strength, kind=kind),
            "hours_to_detect": _mean([o.delay for o in planted if o.delay is not None]),
            "found_without": {way: self.found(strength, way, kind) for way in WAYS if way != "all"},
        }


def rehearse(seeds: Iterable[int], cast: ExperimentConfig, tell: Callable[[str], None] = lambda text: None) -> Table:
    """A lake for each seed and strength, and one without incidents, in temporary folders that are removed."""
    table = Table(cast)
    for seed in seeds:
        for strength in cast.strengths:
            for way, result in _judged(seed, cast, strength).items():
                table.results[strength, way].append(result)
        table.quiet.append(_judged(seed, cast, None)["all"])
        table.seeds += 1
        found = ", ".join(f"{table.found(strength):.0%} {strength}" for strength in cast.strengths)
        false = _mean([table.false(strength) for strength in cast.strengths])
        tell(f"seed {seed}: found so far {found}; {false:.2f} false findings a day")
    return table


def _judged(seed: int, cast: ExperimentConfig, strength: str | None) -> dict[str, Result]:
    folder = Path(tempfile.mkdtemp(prefix="trailsift-evaluate-"))
    try:
        options = Options(cast.events, cast.days, seed, roles=cast.roles, incidents=strength is not None)
        options = replace(options, strength=strength) if strength else options
        generate(folder / "logs", options)
        ingest([str(folder / "logs" / "AWSLogs")], folder / "lake", workers=1)
        truth = read_truth(folder / "logs" / "truth.json")
        with DuckEngine(open_snapshot(folder / "lake")) as engine:
            return judge_all(engine, truth)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def judge_all(engine: DuckEngine, truth: dict[str, Any]) -> dict[str, Result]:
    """The result with all levels, and with each one off."""
    seen = look(engine, builtin_rules()[0], save=False)
    out = {}
    for way in WAYS:
        out[way] = judge(join([one for one in seen.signals if LEVELS[one.kind] != way], links=seen.links), truth)
    return out


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
