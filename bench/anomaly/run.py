"""Compares ways to score a series: `python bench/anomaly/run.py [SEEDS] [EACH]` prints the tables of ANOMALY.md."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from corpus import Series, corpus
from measure import Tally, at, best, step_of
from others import OTHERS

from trailsift.analysis.anomaly import THRESHOLD, score


def _ours(series: Series) -> list[float]:
    return score(series.times, series.values)


def _held(scores: list[float], points: int = 150) -> list[float]:
    """Only what exceeds an earlier peak as it fades: the others get the same treatment of lasting changes as ours."""
    out, peak, age = [], 0.0, 0
    for value in scores:
        bar = peak * max(0.0, 1 - age / points)
        out.append(value if value > bar else 0.0)
        if value >= bar:
            peak, age = value, 0
        age += 1
    return out


def main() -> None:
    """All ways on all series; then ours by family."""
    seeds = [int(part) for part in (sys.argv[1] if len(sys.argv) > 1 else "11,12").split(",")]
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    series = [one for seed in seeds for one in corpus(seed, each)]
    points = sum(len(one.values) for one in series)
    print(f"{len(series)} series, {points:,} points, {sum(len(one.windows) for one in series)} planted anomalies\n")
    print("| way | best threshold | scale | found | false alarms per 1,000 points | CPU us a point |")
    print("|---|---|---|---|---|---|")
    ways: dict[str, Callable[[Series], list[float]]] = {"trailsift score": _ours}
    ways |= {name: lambda one, way=way: _held(way(one)) for name, way in OTHERS.items()}  # type: ignore[misc]
    ours: list[Tally] = []
    for name, way in ways.items():
        begun = time.process_time()
        tallies = [Tally(one, way(one)) for one in series]
        cost = (time.process_time() - begun) / points * 1e6
        ours = ours or tallies
        mark = best(tallies)
        print(f"| {name} | {mark.threshold:g} | {mark.points:.1f} | {mark.found:.0%} | {mark.false:.2f} | {cost:.0f} |")
        if name == "trailsift score":
            fixed = at(tallies, step_of(THRESHOLD))
            print(
                f"| at its own threshold | {THRESHOLD} | {fixed.points:.1f} | {fixed.found:.0%} | {fixed.false:.2f} | |"
            )
    print("\n| family | scale | found | false alarms per 1,000 points |\n|---|---|---|---|")
    for family in dict.fromkeys(one.name for one in series):
        mark = at([t for t, one in zip(ours, series, strict=True) if one.name == family], step_of(THRESHOLD))
        print(f"| {family} | {mark.points:.0f} | {mark.found:.0%} | {mark.false:.2f} |")


if __name__ == "__main__":
    main()
