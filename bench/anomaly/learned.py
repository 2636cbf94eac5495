"""Compare models of the usual hours of roles, on logs with planted incidents by a careful attacker.

All models read the same features, are refitted every five days from earlier days only, and may report three false
role-days in thirty days. The table counts the incidents of each kind with at least one reported hour.

    python bench/anomaly/learned.py FIRST_SEED SEEDS
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from sklearn.covariance import EmpiricalCovariance, LedoitWolf, MinCovDet, ShrunkCovariance
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import LocalOutlierFactor

from trailsift.detect.features import FeatureHours, Floats, Ints, build_features, read_calls
from trailsift.generate import KINDS, QUIET_KINDS, Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine

Method = Callable[[Floats, Floats], Floats]
_FALSE = 3
_STEP = 5


class Case(NamedTuple):
    """Role-hours of one lake, the number of each one's incident (-1: none), and the incidents' kinds."""

    hours: FeatureHours
    label: Ints
    kinds: list[str]


def _upwards(x: Floats) -> Floats:
    return np.maximum(x, -1)


def _sum_of_squares(past: Floats, now: Floats) -> Floats:
    return np.asarray((np.maximum(now, 0) ** 2).sum(axis=1))


def _distance(model: Any, upwards: bool) -> Method:
    def method(past: Floats, now: Floats) -> Floats:
        model.fit(past)
        off = now - model.location_
        parts = off * (off @ model.precision_)
        return np.asarray((parts * (off > 0) if upwards else parts).sum(axis=1))

    return method


def _residual(past: Floats, now: Floats) -> Floats:
    model = PCA(4).fit(past)
    rest = now - model.inverse_transform(model.transform(now))
    return np.asarray((rest**2).sum(axis=1))


def _forest(trees: int, rows: int) -> Method:
    def method(past: Floats, now: Floats) -> Floats:
        model = IsolationForest(n_estimators=trees, max_samples=min(rows, len(past)), random_state=0)
        return np.asarray(-model.fit(_upwards(past)).score_samples(_upwards(now)))

    return method


def _neighbours(past: Floats, now: Floats) -> Floats:
    chosen = np.random.default_rng(0).choice(len(past), min(len(past), 4_000), False)
    model = LocalOutlierFactor(20, novelty=True).fit(_upwards(past[chosen]))
    return np.asarray(-model.score_samples(_upwards(now)))


def _mixture(past: Floats, now: Floats) -> Floats:
    return np.asarray(-GaussianMixture(4, reg_covar=0.05, random_state=0).fit(past).score_samples(now))


METHODS: dict[str, Method] = {
    "sum of squares, no model": _sum_of_squares,
    "isolation forest, 100 trees of 512": _forest(100, 512),
    "isolation forest, 200 trees of 2,048": _forest(200, 2_048),
    "local outlier factor": _neighbours,
    "Gaussian mixture, 4 parts": _mixture,
    "PCA, residual of 4": _residual,
    "covariance, robust (MCD)": _distance(MinCovDet(random_state=0, support_fraction=0.9), True),
    "covariance, as it is": _distance(EmpiricalCovariance(), True),
    "covariance, Ledoit-Wolf, both sides": _distance(LedoitWolf(), False),
    "covariance, Ledoit-Wolf": _distance(LedoitWolf(), True),
    **{f"covariance, shrunk by {s}": _distance(ShrunkCovariance(shrinkage=s), True) for s in (0.03, 0.1, 0.2, 0.4)},
}


def case(seed: int) -> Case:
    """Return the role-hours of a seed."""
    folder = Path(tempfile.mkdtemp(prefix="trailsift-learned-"))
    try:
        generate(folder / "logs", Options(120_000, 30, seed, roles=40, strength="stealthy"))
        ingest([str(folder / "logs" / "AWSLogs")], folder / "lake", workers=1)
        truth = json.loads((folder / "logs" / "truth.json").read_text())
        with DuckDBEngine(open_snapshot(folder / "lake")) as engine:
            begin = int(datetime.fromisoformat(truth["start"]).timestamp() // 86_400)
            lines = read_calls(engine, begin, begin + 30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert lines is not None
    hours = build_features(lines)
    label = np.full(len(hours.caller), -1)
    for number, incident in enumerate(truth["incidents"]):
        first, last = (
            int(datetime.fromisoformat(incident[name]).timestamp() // 3600) for name in ("first_time", "last_time")
        )
        mine = hours.caller == hours.callers.index(incident["role_arn"])
        label[mine & (hours.hour >= first) & (hours.hour <= last)] = number
    return Case(hours, label, [incident["kind"] for incident in truth["incidents"]])


def found_kinds(data: Case, method: Method) -> set[str]:
    """Return the kinds with an hour that scores above all but three role-days without an incident."""
    hours = data.hours
    day = hours.hour // 24 - hours.hour[0] // 24
    scores = np.full(len(day), -np.inf)
    for begin in range(5, int(day.max()) + 1, _STEP):
        past = (day < begin) & (hours.known > 0)
        now = (day >= begin) & (day < begin + _STEP) & (hours.known > 0)
        if now.any():
            scores[now] = method(hours.far[past], hours.far[now])
    ordinary = data.label < 0
    best: dict[tuple[int, int], float] = {}
    for key, score in zip(zip(hours.caller[ordinary], day[ordinary], strict=True), scores[ordinary], strict=True):
        best[key] = max(score, best.get(key, -np.inf))
    least = sorted(best.values())[-1 - _FALSE]
    return {kind for number, kind in enumerate(data.kinds) if (scores[data.label == number] > least).any()}


def main(first: int, count: int) -> None:
    """Print the table."""
    warnings.filterwarnings("ignore")
    cases = [case(seed) for seed in range(first, first + count)]
    kinds = (*KINDS, *QUIET_KINDS)
    print(f"{count} seeds from {first}; incidents found of {count} each\n")
    print("| method |", " | ".join(kind.replace("_", " ") for kind in kinds), "| CPU s per month |")
    print("|---" * (len(kinds) + 2) + "|")
    for name, method in METHODS.items():
        begin = time.process_time()
        counts = Counter(kind for each in cases for kind in found_kinds(each, method))
        seconds = (time.process_time() - begin) / count
        print(f"| {name} |", " | ".join(str(counts[kind]) for kind in kinds), f"| {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
