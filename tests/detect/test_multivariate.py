"""The learned level: small deviations in many ways are found, from earlier days alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from trailsift.cli import main
from trailsift.detect.correlate import correlate_signals
from trailsift.detect.describe import describe
from trailsift.detect.evaluation import judge, read_truth
from trailsift.detect.experiment import judge_ablations
from trailsift.detect.features import FEATURES, CallCounts, build_features, read_calls
from trailsift.detect.finding import LEVELS, Finding
from trailsift.detect.multivariate import find_outliers, outliers, rate_hours
from trailsift.detect.pipeline import DetectOptions, detect
from trailsift.generate import Options, generate
from trailsift.ingest import ingest
from trailsift.lake.open import open_snapshot
from trailsift.query import DuckDBEngine
from trailsift.times import DAY, HOUR

BEGIN = 20_510  # days since 1970
DAYS = range(20_514, 20_514 + 28)


@pytest.fixture(scope="module")
def logs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four weeks of 13 roles with stealthy incidents."""
    folder = tmp_path_factory.mktemp("learned") / "logs"
    generate(folder, Options(events=24_000, days=26, seed=613, roles=13, strength="stealthy"))
    ingest([str(folder / "AWSLogs")], folder.parent / "lake", workers=1)
    return folder


@pytest.fixture(scope="module")
def engine(logs: Path) -> Iterator[DuckDBEngine]:
    """An engine over their lake."""
    with DuckDBEngine(open_snapshot(logs.parent / "lake")) as engine:
        yield engine


def test_takeover_is_found_by_this_level_alone(engine: DuckDBEngine, logs: Path) -> None:
    """Nothing is new and nothing is large: no other level finds it, and this one reports little else."""
    truth = read_truth(logs / "truth.json")
    judged = judge_ablations(engine, truth)
    found = {name: {o.kind for o in result.outcomes if o.found} for name, result in judged.items()}
    assert "takeover" in found["all"] and "takeover" not in found["learned"]
    alone = judge(correlate_signals(find_outliers(engine, DAYS), budget=0), truth)
    assert "takeover" in {o.kind for o in alone.outcomes if o.found}
    assert alone.false_per_day <= 0.4


def test_same_signals_each_time_and_from_any_day(engine: DuckDBEngine) -> None:
    """Deterministic, and signals of a day do not depend on where the run begins."""
    whole = find_outliers(engine, DAYS)
    assert whole == find_outliers(engine, DAYS)
    middle = 20_514 + 17
    assert [one for one in whole if one.first_time >= middle * DAY] == find_outliers(engine, DAYS, middle)


def lines(days: int, rng: np.random.Generator) -> CallCounts:
    """Three roles with four calls each, active around the clock."""
    call, hour, numbers = [], [], []
    for at in range(days * 24):
        for place in range(12):
            n = int(rng.poisson((12, 6, 3, 1)[place % 4]))
            if n:
                call.append(place)
                hour.append(BEGIN * 24 + at)
                numbers.append([n, 900.0 * n, 5_000.0 * n, 0, 0, 1, n, 2, n * (place % 4 == 1)])
    role_of = np.repeat(np.arange(3), 4)
    names = [f"Call{place % 4}" for place in range(12)]
    return CallCounts(list("abc"), names, role_of, np.array(call), np.array(hour), np.array(numbers, float))


def with_more(given: CallCounts, when: int, call: int, factor: float) -> CallCounts:
    """The same with more of one call in one hour."""
    numbers = given.numbers.copy()
    here = (given.hour == when) & (given.call == call)
    numbers[here, :] *= factor
    return CallCounts(given.callers, given.names, given.caller_of, given.call, given.hour, numbers)


def test_no_signal_changes_when_later_days_are_cut_off() -> None:
    """Causal: the future does not matter."""
    rng = np.random.default_rng(5)
    whole = lines(24, rng)
    for place in (0, 1, 2, 3):
        whole = with_more(whole, (BEGIN + 15) * 24 + 9, place, 3.0 if place else 2.0)
    cut = whole.hour < (BEGIN + 17) * 24
    earlier = CallCounts(
        whole.callers, whole.names, whole.caller_of, whole.call[cut], whole.hour[cut], whole.numbers[cut]
    )
    found = [one for one in outliers(whole) if one.first_time < (BEGIN + 17) * DAY]
    assert found == outliers(earlier)
    hit = [one for one in found if one.caller == "a"]
    assert [(one.first_time - BEGIN * DAY) // HOUR for one in hit] == [15 * 24 + 9]
    assert abs(build_features(earlier).far).max() <= 4


def test_sentence_names_the_parts() -> None:
    """Each part names its feature, amount and expected amount; the shares add up to at most the whole."""
    given = lines(24, np.random.default_rng(6))
    for place in (4, 5, 6, 7):
        given = with_more(given, (BEGIN + 20) * 24 + 3, place, 4.0)
    (one,) = (one for one in outliers(given) if one.caller == "b" and one.first_time >= (BEGIN + 20) * DAY)
    assert {feature for feature, *_ in one.parts} <= set(FEATURES) and len(one.parts) >= 2
    assert sum(share for *_, share in one.parts) <= 1.001
    assert all(much > usual for _, much, usual, _ in one.parts)
    for language, word in (("en", "(usually "), ("ko", "평소")):
        described = describe(Finding("f", "b", 0.5, one.first_time, one.last_time, (one,)), language)  # type: ignore[arg-type]
        assert word in described.reasons[0] and "%" in described.reasons[0]


def test_too_little_history_says_nothing() -> None:
    """The first days of a lake, and a nearly empty lake."""
    assert outliers(lines(4, np.random.default_rng(1))) == []
    few = lines(12, np.random.default_rng(2))
    kept = np.flatnonzero(few.hour % 24 == 0)
    assert (
        outliers(CallCounts(few.callers, few.names, few.caller_of, few.call[kept], few.hour[kept], few.numbers[kept]))
        == []
    )


def test_hours_that_are_all_the_same() -> None:
    """No covariance, and nothing is far from them; one that is far from ordinary ones is rare."""
    flat, odd = np.zeros((300, len(FEATURES))), np.full((1, len(FEATURES)), 4.0)
    assert rate_hours(flat, flat[:1])[0].tolist() == [0.0]
    usual = np.random.default_rng(3).normal(0, 1, (300, len(FEATURES)))
    rarity, parts = rate_hours(usual, np.concatenate([odd, usual[:5]]))
    assert rarity[0] > 3 > rarity[1:].max()
    assert parts[0].sum() == pytest.approx(parts.sum(axis=1).max())


def test_levels_alone(engine: DuckDBEngine, logs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each level can be used alone."""
    lake = str(logs.parent / "lake")
    for name in ("novel", "volume", "shapes", "learned"):
        only = detect(engine, DetectOptions(levels=frozenset([name])))
        assert {LEVELS[signal.kind] for one in only.findings for signal in one.signals} <= {name}, name
    assert main(["detect", "--lake", lake, "--levels", "learned", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["findings"]
    assert listed and all("behaved unlike itself" in one["title"] for one in listed)


def test_lake_without_events(tmp_path: Path) -> None:
    """Nothing to learn from."""
    (tmp_path / "a.json").write_text('{"Records": []}')
    main(["ingest", str(tmp_path / "a.json"), "--lake", str(tmp_path / "lake"), "--quiet"])
    with DuckDBEngine(open_snapshot(tmp_path / "lake")) as empty:
        assert find_outliers(empty, DAYS) == []
        assert read_calls(empty, 20_000, 20_006) is None
