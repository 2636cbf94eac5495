"""`trailsift evaluate`: generate logs with incidents and without, ingest, detect, judge, add up."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trailsift.detect.evaluate import Outcome, Result, judge, read_truth
from trailsift.detect.finding import LEVELS
from trailsift.detect.join import join
from trailsift.detect.known import shipped
from trailsift.detect.look import look
from trailsift.engine import Engine as DuckEngine
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.store.index import open_snapshot

#: All levels, then each one off.
WAYS = ("all", *dict.fromkeys(LEVELS.values()))


@dataclass(frozen=True)
class Cast:
    """What is generated for each seed."""

    events: int
    days: float
    roles: int


@dataclass
class Table:
    """The results of all seeds: by level left out ("all" is none), and of quiet periods."""

    cast: Cast
    seeds: int = 0
    results: dict[str, list[Result]] = field(default_factory=lambda: {way: [] for way in WAYS})
    quiet: list[Result] = field(default_factory=list)

    def outcomes(self, way: str = "all", kind: str | None = None) -> list[Outcome]:
        """The planted incidents, all or of one kind."""
        return [o for result in self.results[way] for o in result.outcomes if kind in (None, o.kind)]

    def found(self, way: str = "all", kind: str | None = None) -> float:
        """Part of the incidents that was found."""
        return _mean([one.found for one in self.outcomes(way, kind)])

    def on_top(self, way: str = "all") -> float:
        """Part of the incidents that is among the first ten of its day."""
        return _mean([one.rank is not None and one.rank <= 10 for one in self.outcomes(way)])

    def false(self, way: str = "all") -> float:
        """False findings a day."""
        return _mean([one.false_per_day for one in self.results[way]])

    def as_dict(self) -> dict[str, Any]:
        """For ``--json``."""
        kinds = dict.fromkeys(one.kind for one in self.outcomes())
        return {
            "seeds": self.seeds,
            "events": self.cast.events,
            "days": self.cast.days,
            "roles": self.cast.roles,
            "levels": [
                {
                    "without": None if way == "all" else way,
                    "found": self.found(way),
                    "in_top_10": self.on_top(way),
                    "false_per_day": self.false(way),
                    "false_per_day_and_1000_roles": 1000 * self.false(way) / self.cast.roles,
                }
                for way in WAYS
            ],
            "kinds": [
                {
                    "kind": kind,
                    "planted": len(self.outcomes(kind=kind)),
                    "found": self.found(kind=kind),
                    "hours_to_detect": _mean([o.delay for o in self.outcomes(kind=kind) if o.delay is not None]),
                }
                for kind in kinds
            ],
            "quiet_false_per_day": _mean([one.false_per_day for one in self.quiet]),
        }


def rehearse(seeds: Iterable[int], cast: Cast, tell: Callable[[str], None] = lambda text: None) -> Table:
    """One run a seed with incidents and one without, in a temporary folder that is removed."""
    table = Table(cast)
    for seed in seeds:
        for planted in (True, False):
            folder = Path(tempfile.mkdtemp(prefix="trailsift-evaluate-"))
            try:
                options = Options(cast.events, cast.days, seed, roles=cast.roles, incidents=planted)
                generate(folder / "logs", options)
                ingest([str(folder / "logs" / "AWSLogs")], folder / "lake", workers=1)
                truth = read_truth(folder / "logs" / "truth.json")
                with DuckEngine(open_snapshot(folder / "lake")) as engine:
                    judged = judge_all(engine, truth)
            finally:
                shutil.rmtree(folder, ignore_errors=True)
            if planted:
                for way, result in judged.items():
                    table.results[way].append(result)
            else:
                table.quiet.append(judged["all"])
        table.seeds += 1
        tell(f"seed {seed}: {table.found():.0%} found so far, {table.false():.2f} false findings a day")
    return table


def judge_all(engine: DuckEngine, truth: dict[str, Any]) -> dict[str, Result]:
    """The result with all levels, and with each one off."""
    seen = look(engine, shipped()[0], save=False)
    out = {}
    for way in WAYS:
        out[way] = judge(join([one for one in seen.signals if LEVELS[one.kind] != way], links=seen.links), truth)
    return out


def _mean(values: Iterable[float]) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else 0.0
