"""Anomaly scores: causal, bounded, independent of units, high on anomalies and only there."""

from __future__ import annotations

import math
import random
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.paths import ROOT
from trailsift.analysis.anomaly import THRESHOLD, score
from trailsift.errors import UsageError

START = datetime(2026, 3, 2, tzinfo=UTC)
Values = list[float]


def times(count: int, minutes: float = 5) -> list[datetime]:
    """Return times at even steps, starting on a Monday."""
    return [START + timedelta(minutes=minutes * i) for i in range(count)]


def noise(count: int, seed: int = 1) -> Values:
    """Normal noise around 50."""
    rng = random.Random(seed)
    return [50 + rng.gauss(0, 2) for _ in range(count)]


def day(count: int, seed: int = 1) -> Values:
    """A daily wave with noise, at steps of five minutes."""
    rng = random.Random(seed)
    return [100 - 60 * math.cos(i / 288 * 2 * math.pi) + rng.gauss(0, 3) for i in range(count)]


def counts(count: int, seed: int = 1) -> Values:
    """Rare small counts."""
    rng = random.Random(seed)
    return [float(sum(rng.random() < 0.1 for _ in range(4))) for _ in range(count)]


def alarms(scores: list[float]) -> list[int]:
    """Return the indexes of alarms at the default threshold."""
    return [i for i, one in enumerate(scores) if one >= THRESHOLD]


def spike(values: Values, at: int) -> None:
    """One value far above."""
    values[at] += 60 + abs(values[at])


def shift(values: Values, at: int) -> None:
    """Higher from here on."""
    values[at:] = [value + 40 for value in values[at:]]


def stop(values: Values, at: int) -> None:
    """No events for a while."""
    values[at : at + 60] = [0.0] * 60


def stuck(values: Values, at: int) -> None:
    """The same value repeated."""
    values[at : at + 120] = [values[at]] * 120


def wild(values: Values, at: int) -> None:
    """The same level with eight times the noise."""
    rng = random.Random(3)
    values[at : at + 80] = [value + rng.gauss(0, 20) for value in values[at : at + 80]]


def creep(values: Values, at: int) -> None:
    """A slow climb."""
    values[at : at + 200] = [value + 1.0 * i for i, value in enumerate(values[at : at + 200])]


@pytest.mark.parametrize("planted", [spike, shift, stop, stuck, wild, creep])
@pytest.mark.parametrize("make", [noise, day])
def test_planted_anomaly_is_found_and_reported_few_times(make, planted) -> None:  # type: ignore[no-untyped-def]
    """Each kind is found in time, on noise and on a season, and a lasting one does not raise a storm of alarms."""
    values = make(3000)
    planted(values, 2300)
    found = [i for i in alarms(score(times(3000), values)) if i > 300]
    assert any(2300 <= i < 2500 for i in found)
    assert len(found) <= 12


@pytest.mark.parametrize("make", [noise, day, counts])
def test_ordinary_series_stay_quiet(make) -> None:  # type: ignore[no-untyped-def]
    """About one alarm in 1,000 points, in series of any shape."""
    assert len(alarms(score(times(6000), make(6000, 5)))) <= 8


def test_season_is_learned_from_the_clock() -> None:
    """A busy hour at night is found, although its value is normal during the day."""
    values = day(288 * 14)
    at = 288 * 12 + 6
    values[at : at + 12] = [150.0 + i % 3 for i in range(12)]
    assert any(at <= i < at + 12 for i in alarms(score(times(len(values)), values)))


def test_weekday_is_learned() -> None:
    """Saturdays are quiet; after some weeks a quiet Wednesday is found and the next Saturday is not."""
    rng = random.Random(2)
    values = [
        (20 if i // 24 % 7 >= 5 else 200) * (1 + 0.5 * math.sin(i / 24 * 6.28)) + rng.gauss(0, 4)
        for i in range(24 * 84)
    ]
    wednesday = 24 * (7 * 10 + 2)
    values[wednesday : wednesday + 24] = values[wednesday + 72 : wednesday + 96]
    found = alarms(score(times(len(values), 60), values))
    assert any(wednesday <= i < wednesday + 24 for i in found)
    assert not any(24 * 7 * 11 + 24 * 5 <= i < 24 * 7 * 12 for i in found)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.floats(allow_nan=True, allow_infinity=True), st.integers(-3, 3).map(float), st.just(7.0), st.none()
        ),
        max_size=160,
    ),
    st.integers(0, 160),
    st.integers(0, 10_000),
)
def test_causal_and_bounded(values, cut, seed) -> None:  # type: ignore[no-untyped-def]
    """Cutting off later points changes nothing; every score is a number in [0, 1]; missing values score 0."""
    rng = random.Random(seed)
    at, when = START, []
    for _ in values:
        at += timedelta(seconds=rng.choice([0, 60, 60, 300, 86_400 * 9]))
        when.append(at)
    whole = score(when, values)
    assert len(whole) == len(values)
    assert all(0 <= one <= 1 for one in whole)
    assert score(when[:cut], values[:cut]) == whole[:cut]
    for value, one in zip(values, whole, strict=True):
        assert one == 0 or (value is not None and math.isfinite(value))


def test_causal_on_a_long_series() -> None:
    """The same after seasons were learned and anomalies occurred."""
    values = day(2500)
    shift(values, 1500)
    whole = score(times(2500), values)
    for cut in (700, 1501, 2000):
        assert score(times(cut), values[:cut]) == whole[:cut]


def test_unit_does_not_matter() -> None:
    """Bytes or gigabytes: nearly the same scores."""
    values = day(2000)
    spike(values, 1700)
    small = score(times(2000), [value * 1e-6 for value in values])
    large = score(times(2000), [value * 1e6 for value in values])
    assert small == pytest.approx(large, abs=1e-6)


def test_first_points_score_zero() -> None:
    """Without a past, nothing is unusual."""
    assert score([], []) == []
    assert not any(score(times(30), [1.0] * 29 + [1e9]))
    assert not alarms(score(times(100), noise(100)))


def test_constant_and_its_end() -> None:
    """A flat line is quiet; its first change raises an alarm, unless it is tiny."""
    values = [45.0] * 1000
    assert not alarms(score(times(1000), values))
    values[800] = 60.0
    assert 800 in alarms(score(times(1000), values))
    values[800] = 45.0000001
    assert not alarms(score(times(1000), values))


def test_gap_is_not_an_anomaly() -> None:
    """Missing points, left out or NaN, raise no alarm; later points are judged as before."""
    values, when = day(288 * 9), times(288 * 9)
    gap = slice(288 * 6, 288 * 7)
    assert not [i for i in alarms(score(when[: gap.start] + when[gap.stop :], values[: gap.start] + values[gap.stop :]))
                if gap.start <= i < gap.start + 40]  # fmt: skip
    values[gap] = [math.nan] * 288
    spike(values, 288 * 8)
    found = alarms(score(when, values))
    assert 288 * 8 in found
    assert not [i for i in found if gap.start <= i < gap.stop + 40]


def test_second_shift_is_reported_too() -> None:
    """After a lasting change, the new level is normal."""
    values = noise(4000)
    shift(values, 1500)
    shift(values, 3000)
    found = alarms(score(times(4000), values))
    assert any(1500 <= i < 1510 for i in found)
    assert any(3000 <= i < 3010 for i in found)


def test_invalid_arguments() -> None:
    """Invalid calls raise errors that name the fault."""
    with pytest.raises(UsageError, match="3 times and 2 values"):
        score(times(3), [1.0, 2.0])
    with pytest.raises(UsageError, match="numbers"):
        score(times(1), ["x"])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="datetimes"):
        score([3], [1.0])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="zone"):
        score([START, datetime(2026, 3, 3)], [1.0, 2.0])


def test_tens_of_thousands_of_points() -> None:
    """12,000 points take a few seconds of CPU, and memory is bounded."""
    begun = time.process_time()
    score(times(12_000), day(12_000))
    assert time.process_time() - begun < 6


def test_one_threshold_on_the_corpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """On series of other kinds than above (a part of bench/ANOMALY.md): most anomalies found, few false alarms."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "bench" / "anomaly"), *sys.path])
    from corpus import corpus  # type: ignore[import-not-found]
    from measure import Tally, at, step_of  # type: ignore[import-not-found]

    short = [one for one in corpus(21, 1) if len(one.values) < 6000][::2]
    assert len(short) >= 6
    mark = at([Tally(one, score(one.times, one.values)) for one in short], step_of(THRESHOLD))
    assert mark.found > 0.65
    assert mark.false < 1.0
