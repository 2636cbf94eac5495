"""Generated series of many kinds with planted anomalies, on which `score` is compared with other methods.

Each family draws its own shape from the seed: level, noise, season, step, length. Windows label the planted anomalies;
together they cover a tenth of the series, so a hit may come somewhat early or late.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Random = np.random.Generator

_LABELLED = 0.1
_QUIET = 0.15  # nothing is planted or counted in this share at the beginning, at most _LEARN points
_LEARN = 750


@dataclass
class Series:
    """One series. ``windows``: (first, last) indexes of what a detector should find."""

    name: str
    times: list[datetime]
    values: list[float]
    windows: list[tuple[int, int]] = field(default_factory=list)

    def learn(self) -> int:
        """Return the number of points at the beginning that do not count."""
        return min(_LEARN, int(_QUIET * len(self.values)))


class Plan:
    """A series under construction."""

    def __init__(self, rng: Random, n: int, step: int, start: datetime | None = None) -> None:
        self.rng, self.n, self.step = rng, n, step
        self.start = start or datetime(2025, 1, 1, tzinfo=UTC) + timedelta(minutes=int(rng.integers(0, 500_000)))
        self.y: Floats = np.zeros(n)
        self.marks: list[int] = []

    @property
    def hours(self) -> Floats:
        """Hours since a Monday midnight."""
        seconds = self.start.timestamp() + np.arange(self.n) * self.step
        return np.asarray((seconds / 3600 + 72) % 168)

    def places(self, least: int, most: int, length: int = 1) -> list[int]:
        """Return positions for anomalies: apart from each other, after the learning period."""
        count = int(self.rng.integers(least, most + 1))
        first = min(_LEARN, int(_QUIET * self.n)) + int(0.06 * self.n)
        last = self.n - max(length, int(0.03 * self.n)) - 1
        out: list[int] = []
        for _ in range(200):
            if len(out) == count:
                break
            place = int(self.rng.integers(first, last))
            if all(abs(place - other) > max(0.1 * self.n, length) for other in out):
                out.append(place)
        out.sort()
        self.marks += out
        return out

    def ar(self, phi: float, scale: float) -> Floats:
        """Return first-order autoregressive noise of standard deviation ``scale``."""
        white = self.rng.normal(0, scale * np.sqrt(1 - phi * phi), self.n)
        out = np.empty(self.n)
        last = 0.0
        for i, value in enumerate(white.tolist()):
            last = phi * last + value
            out[i] = last
        return out

    def done(self, name: str) -> Series:
        """Return the finished series with its windows."""
        times = [self.start + timedelta(seconds=self.step * i) for i in range(self.n)]
        windows: list[tuple[int, int]] = []
        if self.marks:
            half = int(_LABELLED * self.n / len(self.marks) / 2)
            floor = min(_LEARN, int(_QUIET * self.n))
            for mark in sorted(self.marks):
                windows.append((max(floor, mark - half), min(self.n - 1, mark + half)))
        return Series(name, times, self.y.tolist(), windows)


def _daily(hours: Floats, rng: Random) -> Floats:
    """Return a smooth daily shape between 0 and 1."""
    phase, second = rng.uniform(0, 24), rng.uniform(0, 0.5)
    wave = np.cos((hours - phase) / 24 * 2 * np.pi) + second * np.cos((hours - phase) / 12 * 2 * np.pi)
    return np.asarray((wave - wave.min()) / (wave.max() - wave.min() + 1e-9))


def _n(rng: Random, five_minutes: bool = True) -> int:
    return int(rng.choice([4032, 4032, 4032, 4730, 8000])) if five_minutes else int(rng.integers(1200, 2600))


def cpu_spiky(rng: Random) -> Series:
    """A CPU near idle with ordinary spikes; a lasting step, a far higher spike, or a stall."""
    p = Plan(rng, _n(rng), 300)
    level = rng.uniform(0.1, 40)
    p.y = level * np.exp(rng.normal(0, rng.uniform(0.01, 0.1), p.n))
    spikes = rng.random(p.n) < rng.uniform(0.001, 0.02)
    p.y[spikes] *= 1 + rng.gamma(2, rng.uniform(0.2, 1.0), int(spikes.sum()))
    for at in p.places(1, 3):
        kind = rng.integers(0, 4)
        if kind == 0:
            p.y[at:] *= rng.choice([rng.uniform(1.3, 3), rng.uniform(0.2, 0.75)])
        elif kind == 1:
            p.y[at : at + int(rng.integers(1, 6))] = level * rng.uniform(8, 20)
        elif kind == 2:
            p.y[at : at + int(rng.integers(12, 100))] *= rng.uniform(1.6, 4)
        else:
            p.y[at : at + int(rng.integers(20, 80))] = level * rng.uniform(0, 0.3)
    return p.done("cpu_spiky")


def cpu_jobs(rng: Random) -> Series:
    """Jobs at intervals unrelated to the calendar; one is missing, too long, or much heavier."""
    p = Plan(rng, _n(rng), 300)
    period, length = int(rng.integers(10, 300)), int(rng.integers(1, 6))
    base, high = rng.uniform(1, 20), rng.uniform(20, 60)
    at_job = (np.arange(p.n) + rng.integers(0, 300)) % period < length
    p.y = base * np.exp(rng.normal(0, 0.05, p.n)) + at_job * high * np.exp(rng.normal(0, 0.1, p.n))
    for at in p.places(1, 2, 3 * period):
        kind = rng.integers(0, 3)
        if kind == 0:
            p.y[at : at + 3 * period] = base * np.exp(rng.normal(0, 0.05, len(p.y[at : at + 3 * period])))
        elif kind == 1:
            stretch = int(rng.integers(5, 12)) * length
            p.y[at : at + stretch] = base + high
        else:
            p.y[at : at + 2] = base + high * rng.uniform(1.6, 2.5)
    return p.done("cpu_jobs")


def cpu_steps(rng: Random) -> Series:
    """A database CPU: a wandering level; jumps up, drops, noise that grows."""
    p = Plan(rng, _n(rng), 300)
    p.y = rng.uniform(5, 60) + p.ar(0.995, rng.uniform(0.3, 2)) + rng.normal(0, rng.uniform(0.2, 1.0), p.n)
    sd = float(np.std(np.diff(p.y)))
    for at in p.places(1, 3):
        kind = rng.integers(0, 4)
        if kind == 0:
            p.y[at:] += rng.choice([-1, 1]) * sd * rng.uniform(7, 20)
        elif kind == 1:
            p.y[at : at + int(rng.integers(5, 60))] += sd * rng.uniform(8, 25)
        elif kind == 2:
            stretch = int(rng.integers(60, 250))
            p.y[at : at + stretch] += rng.normal(0, 5 * sd, len(p.y[at : at + stretch]))
        else:
            p.y[at : at + int(rng.integers(2, 30))] -= sd * rng.uniform(8, 25)
    p.y = np.clip(p.y, 0, 100)
    return p.done("cpu_steps")


def disk_bursts(rng: Random) -> Series:
    """Bytes written: nothing, then bursts of any size; a burst beyond all others, or one that does not end."""
    p = Plan(rng, _n(rng), 300)
    on = rng.random(p.n) < rng.uniform(0.02, 0.3)
    size = 10 ** rng.uniform(3, 7)
    sigma = rng.uniform(0.3, 0.9)
    p.y = np.where(on, size * np.exp(rng.normal(0, sigma, p.n)), rng.choice([0.0, size * 0.001]))
    for at in p.places(1, 2):
        if rng.random() < 0.5:
            p.y[at : at + int(rng.integers(1, 5))] = size * np.exp(sigma * rng.uniform(5.5, 8))
        else:
            stretch = int(rng.integers(30, 200))
            p.y[at : at + stretch] = size * np.exp(rng.normal(0, sigma, len(p.y[at : at + stretch])) + sigma)
    return p.done("disk_bursts")


def network_in(rng: Random) -> Series:
    """Bytes in: a heavy tail on a season; several times more, or nothing."""
    p = Plan(rng, _n(rng), 300)
    base = 10 ** rng.uniform(3, 7)
    p.y = base * (1 + rng.uniform(0, 2) * _daily(p.hours, rng)) * np.exp(p.ar(0.7, rng.uniform(0.1, 0.4)))
    burst = rng.random(p.n) < 0.004
    p.y[burst] *= rng.uniform(2, 4, int(burst.sum()))
    for at in p.places(1, 3):
        stretch = int(rng.integers(2, 60))
        if rng.random() < 0.6:
            p.y[at : at + stretch] *= rng.uniform(6, 15)
        else:
            p.y[at : at + stretch] *= rng.uniform(0, 0.1)
    return p.done("network_in")


def requests(rng: Random) -> Series:
    """Requests to a load balancer: counts with a daily season; spikes, and drops in the busy hours."""
    p = Plan(rng, _n(rng), 300)
    rate = rng.uniform(5, 300) * (0.15 + _daily(p.hours, rng))
    rate *= np.exp(p.ar(0.9, 0.1))
    for at in p.places(1, 3):
        stretch = int(rng.integers(2, 50))
        rate[at : at + stretch] *= rng.choice([rng.uniform(3, 7), rng.uniform(0, 0.08)])
    p.y = rng.poisson(rate).astype(float)
    return p.done("requests")


def tweets(rng: Random) -> Series:
    """Mentions: long, bursty counts with self-exciting bursts; a burst of another magnitude."""
    n = int(rng.choice([8000, 15800]))
    p = Plan(rng, n, 300)
    rate = 10 ** rng.uniform(0.3, 2) * (0.2 + _daily(p.hours, rng)) * np.exp(p.ar(0.98, 0.35))
    for at in np.flatnonzero(rng.random(n) < 0.0012).tolist():
        tail = np.exp(-np.arange(min(60, n - at)) / rng.uniform(2, 12))
        rate[at : at + len(tail)] *= 1 + rng.gamma(1.2, 1.0) * tail
    for at in p.places(2, 4):
        tail = np.exp(-np.arange(min(150, n - at)) / rng.uniform(6, 40))
        rate[at : at + len(tail)] *= 1 + rng.uniform(8, 25) * tail
    p.y = rng.negative_binomial(4, 4 / (4 + rate)).astype(float)
    return p.done("tweets")


def rides(rng: Random) -> Series:
    """Half-hourly demand with a daily and a weekly season; holidays, storms, parties."""
    p = Plan(rng, 10_320, 1800)
    hour, weekday = p.hours % 24, p.hours // 24
    night, evening = rng.uniform(3, 5), rng.uniform(17, 20)
    shape = 1.2 - np.cos((hour - night) / 24 * 2 * np.pi) + 0.5 * np.exp(-(((hour - evening) / 2.5) ** 2))
    weekend = weekday >= 5
    shape = np.where(weekend, 0.85 * (1.2 - np.cos((hour - night - 2.5) / 24 * 2 * np.pi)) + 0.35, shape)
    slow = np.repeat(np.exp(rng.normal(0, 0.04, p.n // 48 + 1)), 48)[: p.n]
    p.y = 10_000 * shape * slow * np.exp(p.ar(0.8, 0.03)) * (1 + np.linspace(0, rng.uniform(-0.15, 0.15), p.n))
    for at in p.places(3, 5, 96):
        stretch = int(rng.choice([8, 24, 40, 48]))
        kind = rng.integers(0, 3)
        if kind == 0:
            p.y[at : at + stretch] *= rng.uniform(0.3, 0.6)
        elif kind == 1:
            p.y[at : at + stretch] *= rng.uniform(0.02, 0.3)
        else:
            p.y[at : at + 6] *= rng.uniform(1.5, 2.0)
    return p.done("rides")


def temperature(rng: Random) -> Series:
    """Hourly temperature that follows the weather and the day; the cooling fails, or the sensor does."""
    p = Plan(rng, 7_200, 3600)
    p.y = 70 + 3 * _daily(p.hours, rng) + p.ar(0.99, rng.uniform(1, 3)) + rng.normal(0, 0.5, p.n)
    for at in p.places(1, 3, 60):
        stretch = int(rng.integers(10, 60))
        part = np.hanning(len(p.y[at : at + stretch]) + 2)[1:-1]
        p.y[at : at + stretch] += rng.choice([-1, 1]) * rng.uniform(8, 18) * part
    return p.done("temperature")


def machine(rng: Random) -> Series:
    """A long sensor series within a band; it slides down and recovers, or breaks down at once."""
    p = Plan(rng, 20_000, 300)
    p.y = 90 + p.ar(0.998, rng.uniform(3, 6)) + p.ar(0.9, 1.0)
    for at in p.places(2, 4, 500):
        stretch = int(rng.integers(150, 500))
        depth = rng.uniform(30, 70)
        part = np.hanning(len(p.y[at : at + stretch]) + 2)[1:-1]
        p.y[at : at + stretch] -= depth * (part if rng.random() < 0.6 else np.ones(len(part)))
    return p.done("machine")


def road(rng: Random) -> Series:
    """Speed or travel time at a detector: bounded on one side, with rush hours; a jam at an unusual hour, a closure."""
    p = Plan(rng, _n(rng, False), 600)
    hour = p.hours % 24
    rush = np.exp(-(((hour - 8) / 1.2) ** 2)) + np.exp(-(((hour - 17.5) / 1.5) ** 2))
    rush = np.where(p.hours // 24 >= 5, 0.2 * rush, rush)
    jam = rush * rng.uniform(0, 25) * rng.gamma(4, 0.25, p.n)
    p.y = rng.uniform(60, 75) - np.abs(rng.normal(0, 2.5, p.n)) - jam
    for at in p.places(1, 3):
        p.y[at : at + int(rng.integers(2, 20))] = rng.uniform(3, 25)
    if rng.random() < 0.4:
        p.y = 30_000 / np.maximum(p.y, 3)
    series = p.done("road")
    # Detectors report at irregular times, and are offline for hours.
    gaps = rng.exponential(1.0, p.n) * 0.5 + 0.5
    gaps[rng.random(p.n) < 0.01] *= rng.uniform(5, 40)
    seconds = np.cumsum(gaps) * p.step
    series.times = [p.start + timedelta(seconds=int(s)) for s in seconds]
    return series


def occupancy(rng: Random) -> Series:
    """Share of time that a road detector is occupied: small, skewed, with rush hours."""
    p = Plan(rng, _n(rng, False), 600)
    hour = p.hours % 24
    rush = 0.2 + np.exp(-(((hour - 8) / 1.5) ** 2)) + np.exp(-(((hour - 17.5) / 1.5) ** 2))
    p.y = rush * rng.uniform(2, 8) * rng.gamma(3, 1 / 3, p.n)
    for at in p.places(1, 3):
        p.y[at : at + int(rng.integers(2, 8))] += rng.uniform(30, 60)
    return p.done("occupancy")


def prices(rng: Random) -> Series:
    """Hourly price of a click: noisy, skewed, sometimes high; an unusually high price, for hours or days."""
    p = Plan(rng, _n(rng, False), 3600)
    sigma = rng.uniform(0.15, 0.4)
    p.y = rng.uniform(0.05, 5) * np.exp(p.ar(0.4, sigma)) * (1 + 0.2 * _daily(p.hours, rng))
    for at in p.places(1, 3):
        if rng.random() < 0.6:
            p.y[at : at + int(rng.integers(1, 3))] *= np.exp(sigma * rng.uniform(5, 8))
        else:
            p.y[at : at + int(rng.integers(24, 72))] *= np.exp(sigma * rng.uniform(2, 3))
    return p.done("prices")


def days_made(rng: Random) -> Series:
    """An artificial day that repeats with little noise; one day is higher, lower, flat in the middle, or absent."""
    p = Plan(rng, 4032, 300)
    hour = p.hours % 24
    busy = (hour > rng.uniform(6, 9)) & (hour < rng.uniform(16, 20))
    p.y = np.where(busy, rng.uniform(60, 90), 20) + rng.uniform(-1, 1, p.n) * rng.uniform(0.5, 8)
    kind = rng.integers(0, 4)
    day = int(rng.integers(7, 13))
    start = int(np.flatnonzero(np.diff(busy.astype(int)) == 1)[day - 1]) + 1
    length = int(busy[start : start + 288].argmin())
    part = slice(start, start + length)
    if kind == 0:
        p.y[part] += rng.uniform(15, 50)
    elif kind == 1:
        p.y[part] -= rng.uniform(15, 30)
    elif kind == 2:
        p.y[part] = 20 + rng.uniform(-1, 1, length) * 3
    else:
        p.y[part] = p.y[start + 3]
    p.marks.append(start)
    return p.done("days_made")


def spike_density(rng: Random) -> Series:
    """Spikes on a flat line that become more frequent, but not higher."""
    p = Plan(rng, 4032, 300)
    rate = rng.uniform(0.01, 0.04)
    chance = np.full(p.n, rate)
    for at in p.places(1, 1, 300):
        chance[at : at + 250] = rate * rng.uniform(5, 9)
    p.y = (rng.random(p.n) < chance) * rng.uniform(0.5, 1.5, p.n) * 20
    return p.done("spike_density")


def quiet(rng: Random) -> Series:
    """No anomalies: constant, noise, a square wave, a noisy day, a wandering level."""
    p = Plan(rng, 4032, 300)
    kind = rng.integers(0, 6)
    if kind == 0:
        p.y += 45.0
    elif kind == 1:
        p.y = 20 + rng.normal(0, 1.5, p.n)
    elif kind == 2:
        p.y = np.where(p.hours % 24 < 9, 80.0, 20.0)
    elif kind == 3:
        p.y = 20 + 60 * _daily(p.hours, rng) + rng.uniform(-8, 8, p.n)
    elif kind == 4:
        p.y = 50 + p.ar(0.999, 8) + rng.normal(0, 0.5, p.n)
    else:
        p.y = rng.poisson(rng.uniform(0.05, 4), p.n).astype(float)
    return p.done("quiet")


def fleet(rng: Random) -> Series:
    """Size or load of an autoscaling group: constant stretches and steps; one large step, or flapping."""
    p = Plan(rng, int(rng.choice([4032, 12_000])), 300)
    level = rng.integers(3, 20)
    begin = 0
    while begin < p.n:
        length = int(rng.exponential(150)) + 5
        p.y[begin : begin + length] = float(max(1, int(level) + int(rng.integers(-2, 3))))
        begin += length
    p.y = p.y * float(rng.choice([1.0, rng.uniform(1, 9)])) + rng.normal(0, float(rng.choice([0.0, 0.05])), p.n)
    for at in p.places(1, 2):
        if rng.random() < 0.6:
            p.y[at : at + int(rng.integers(30, 250))] = p.y.max() * rng.uniform(1.5, 3)
        else:
            p.y[at : at + 60] = np.where(np.arange(len(p.y[at : at + 60])) % 4 < 2, p.y.min() / 2, p.y.max() * 1.2)
    return p.done("fleet")


def sawtooth(rng: Random) -> Series:
    """Disk or memory that fills and is freed; it fills far faster, is not freed, or is freed too early."""
    p = Plan(rng, _n(rng), 300)
    period = int(rng.integers(80, 500))
    rise = np.full(p.n, 60.0 / period)
    drops = set(range(period, p.n, period))
    for at in p.places(1, 2, period):
        if rng.random() < 0.5:
            rise[at : at + period // 2] *= rng.uniform(3, 6)
        else:
            near = round(at / period) * period
            drops.discard(near)
            p.marks[p.marks.index(at)] = near
    level = 20.0
    for i in range(p.n):
        level = 20.0 if i in drops else level + rise[i]
        p.y[i] = level
    p.y += rng.normal(0, rng.uniform(0.1, 1), p.n)
    return p.done("sawtooth")


def typing(rng: Random) -> Series:
    """Few counts per hour, of one person: working hours, breaks; another person's rhythm."""
    p = Plan(rng, int(rng.choice([1900, 5300])), 300)
    hour = p.hours % 24
    at_work = (hour > 8) & (hour < 19) & (p.hours // 24 < 5)
    p.y = np.where(at_work, rng.gamma(8, 0.02, p.n), rng.gamma(3, 0.02, p.n))
    for at in p.places(1, 2):
        stretch = int(rng.integers(20, 100))
        p.y[at : at + stretch] = rng.gamma(8, 0.02, len(p.y[at : at + stretch])) * rng.uniform(2.0, 3.5)
    return p.done("typing")


def latency(rng: Random) -> Series:
    """Response times: log-normal with rare slow ones; a slow hour, or a slow creep upwards."""
    p = Plan(rng, _n(rng), 300)
    sigma = rng.uniform(0.1, 0.3)
    p.y = rng.uniform(5, 200) * np.exp(p.ar(0.3, sigma) + 0.3 * _daily(p.hours, rng))
    slow = rng.random(p.n) < 0.003
    p.y[slow] *= rng.uniform(2, 5, int(slow.sum()))
    for at in p.places(1, 3, 250):
        if rng.random() < 0.6:
            p.y[at : at + int(rng.integers(6, 60))] *= rng.uniform(2, 4)
        else:
            stretch = int(rng.integers(100, 250))
            p.y[at : at + stretch] *= np.linspace(1, rng.uniform(2.5, 5), len(p.y[at : at + stretch]))
    return p.done("latency")


FAMILIES: tuple[Callable[[Random], Series], ...] = (
    cpu_spiky, cpu_jobs, cpu_steps, disk_bursts, network_in, requests, tweets, rides, temperature, machine, road,
    occupancy, prices, days_made, spike_density, quiet, fleet, sawtooth, typing, latency,
)  # fmt: skip


def corpus(seed: int, each: int = 3) -> list[Series]:
    """Return ``each`` series of every family."""
    return [
        family(np.random.default_rng([seed, place, number]))
        for place, family in enumerate(FAMILIES)
        for number in range(each)
    ]
