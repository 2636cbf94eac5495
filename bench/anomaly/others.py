"""Other methods of scoring a series, in their plain forms, to compare with `trailsift.analysis.anomaly.score`.

Each uses earlier points only and returns a number between 0 and 1 per point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np
from corpus import Floats, Series

_NORMAL = NormalDist()


def _squash(decades: float) -> float:
    return decades / (decades + 3) if decades > 0 else 0.0


def _tail(z: float) -> float:
    """Return the two-sided normal tail as -log10."""
    z = min(abs(z), 37.0)
    return -math.log10(max(2 * (1 - _NORMAL.cdf(z)) if z < 8 else math.exp(-z * z / 2), 1e-300))


def window_gauss(series: Series) -> list[float]:
    """Score by the normal tail of the value among the last 500."""
    values = np.array(series.values)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    squares = np.concatenate([[0.0], np.cumsum(values**2)])
    out = []
    for i, value in enumerate(series.values):
        first = max(0, i - 500)
        n = i - first
        if n < 30:
            out.append(0.0)
            continue
        mean = (sums[i] - sums[first]) / n
        spread = math.sqrt(max(1e-12, (squares[i] - squares[first]) / n - mean * mean)) + 1e-9 * abs(mean)
        out.append(_squash(_tail((value - mean) / spread)))
    return out


def season_z(series: Series) -> list[float]:
    """Score by the distance from the mean of this half hour of the day, relative to the running mean distance."""
    usual: dict[int, tuple[float, int]] = {}
    spread, seen = 0.0, 0
    out = []
    for time, value in zip(series.times, series.values, strict=True):
        place = time.hour * 2 + time.minute // 30
        mean, count = usual.get(place, (value, 0))
        off = value - mean
        out.append(_squash(_tail(off / (1.25 * spread + 1e-9))) if count >= 6 and seen > 100 else 0.0)
        if count:
            seen += 1
            spread += max(0.01, 1 / seen) * (min(abs(off), 6 * spread if seen > 50 else math.inf) - spread)
        usual[place] = (mean + max(0.05, 1 / (count + 1)) * (value - mean), count + 1)
    return out


def spectral_residual(series: Series, width: int = 128) -> list[float]:
    """Score by the last point's saliency (Ren et al., Time-series anomaly detection service at Microsoft, 2019)."""
    values = np.array(series.values)
    out = [0.0] * len(values)
    for i in range(width, len(values)):
        part = values[i - width + 1 : i + 1]
        slope = np.mean([(part[-1] - part[-1 - k]) / k for k in range(1, 6)])
        longer = np.append(part, [part[-5] + slope * 5] * 5)
        spectrum = np.fft.fft(longer)
        size = np.maximum(np.abs(spectrum), 1e-8)
        log = np.log(size)
        rest = np.exp(log - np.convolve(log, np.full(3, 1 / 3), "same"))
        saliency = np.abs(np.fft.ifft(spectrum * rest / size))
        before = float(np.mean(saliency[-27:-6]))
        out[i] = _squash(max(0.0, float(saliency[-6]) / (before + 1e-12) - 1))
    return out


def neighbours(series: Series, width: int = 16, held: int = 500) -> list[float]:
    """Score by the last window's distance to the third nearest earlier one, ranked among earlier distances."""
    values = np.array(series.values)
    rng = np.random.default_rng(1)
    bank: Floats = np.empty((held, width))
    past: list[float] = []
    out = [0.0] * len(values)
    for count, i in enumerate(range(width, len(values))):
        window = values[i - width : i]
        if count >= 60:
            apart = np.abs(bank[: min(count, held)] - window).sum(axis=1)
            distance = float(np.partition(apart, 2)[2])
            top = np.sort(past[-4000:])
            if len(top) > 60:
                over = len(top) - int(np.searchsorted(top, distance))
                base = float(top[-len(top) // 40 - 1])
                excess = float(np.mean(top[-len(top) // 40 :])) - base + 1e-9
                decades = math.log10((len(top) + 1) / (over + 1))
                if over == 0:
                    decades = math.log10(40) + (distance - base) / excess * 0.434
                out[i - 1] = _squash(decades)
            past.append(distance)
        place = count if count < held else int(rng.integers(0, count + 1))
        if place < held:
            bank[place] = window
    return out


def relative_entropy(series: Series, width: int = 52, bins: int = 7) -> list[float]:
    """Score by the distance of the last window's histogram from all earlier ones (after Wang et al., 2011)."""
    values = np.array(series.values)
    out = [0.0] * len(values)
    low, high = math.inf, -math.inf
    histograms: list[Floats] = []
    for i, value in enumerate(series.values):
        low, high = min(low, value), max(high, value)
        if i < width or i % 8:
            continue
        place = ((values[i - width + 1 : i + 1] - low) / (high - low + 1e-9) * bins).astype(int)
        share = (np.bincount(np.minimum(place, bins - 1), minlength=bins) + 0.1) / (width + 0.1 * bins)
        if histograms:
            apart = min(2 * width * float(np.sum(share * np.log(share / other))) for other in histograms)
            out[i] = _squash(apart / 8)
            if apart < 18:
                continue
        histograms = [*histograms[-60:], np.asarray(share, float)]
    return out


OTHERS: dict[str, Callable[[Series], list[float]]] = {
    "normal tail of the last 500": window_gauss,
    "time of day, normal tail": season_z,
    "spectral residual": spectral_residual,
    "nearest earlier windows": neighbours,
    "relative entropy": relative_entropy,
}
