"""Compare methods of scoring a series: `python bench/anomaly/run.py [SEEDS] [EACH]` prints the tables of ANOMALY.md."""

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
    """Keep only scores above a fading earlier peak: the other methods then treat lasting changes as ours does."""
    out, peak, age = [], 0.0, 0
    for value in scores:
        bar = peak * max(0.0, 1 - age / points)
        out.append(value if value > bar else 0.0)
        if value >= bar:
            peak, age = value, 0
        age += 1
    return out


def main() -> None:
    """Compare all methods on all series, then show ours by family."""
    seeds = [int(part) for part in (sys.argv[1] if len(sys.argv) > 1 else "11,12").split(",")]
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 3
    all_series = [series for seed in seeds for series in corpus(seed, each)]
    points = sum(len(series.values) for series in all_series)
    planted = sum(len(series.windows) for series in all_series)
    print(f"{len(all_series)} series, {points:,} points, {planted} planted anomalies\n")
    print("| method | best threshold | scale | found | false alarms per 1,000 points | CPU us per point |")
    print("|---|---|---|---|---|---|")
    methods: dict[str, Callable[[Series], list[float]]] = {"trailsift score": _ours}
    methods |= {name: lambda s, way=method: _held(way(s)) for name, method in OTHERS.items()}  # type: ignore[misc]
    ours: list[Tally] = []
    for name, method in methods.items():
        begun = time.process_time()
        tallies = [Tally(series, method(series)) for series in all_series]
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
    for family in dict.fromkeys(series.name for series in all_series):
        tallies = [tally for tally, series in zip(ours, all_series, strict=True) if series.name == family]
        mark = at(tallies, step_of(THRESHOLD))
        print(f"| {family} | {mark.points:.0f} | {mark.found:.0%} | {mark.false:.2f} |")


if __name__ == "__main__":
    main()
