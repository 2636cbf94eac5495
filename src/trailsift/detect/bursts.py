"""Bursts: an hour of a caller with far more than such callers do, judged with little or no past of its own.

What is usual at most is estimated on a logarithmic scale from three sources: what is typical of the caller's kind
anywhere (``priors``), the highest hours of its peers in this lake (callers of the same kind, on earlier days and on the
same one), and its own highest hour. The more peers and the more own days, the less the others count. With each day of
its own past a burst counts less: the other levels know the caller by then.
"""

from __future__ import annotations

import numpy as np

from trailsift.detect.baseline import BURSTS, Baseline, Column, Day
from trailsift.detect.finding import Signal
from trailsift.detect.priors import priors

#: Rarity of ten times the usual, by measure: kinds of calls and resources vary less between callers than amounts do.
_SLOPES = np.array([{"kinds": 5.0, "resources": 4.0, "refused": 3.5}.get(measure, 3.0) for measure in BURSTS])
_PEERS_HALF, _PEERS_MOST = 4, 1.5  # peers at which they count half, and at most this many times a prior
_OWN = 0.5  # priors that each own day counts for
_FADE = 7  # own days at which half of a burst counts
_LONGEST = 30  # own days from which on there are no bursts
_PEAK = 0.9  # quantile of the peers' highest hours that is their usual
_FLOOR = 0.05  # of the prior: less is never compared with
_OVER_OWN = 1.5  # times the own highest hour
_ALONE = 0.8  # what a burst counts where neither peers nor own days say anything
_MIN_RARITY, _MAX_RARITY = 0.8, 6.0
_SECOND = 0.5  # what each further measure adds


def find_bursts(baseline: Baseline, day: Day) -> list[Signal]:
    """Return the callers with an hour far above the usual of their kind, of their peers and their own; one a day."""
    hours = day.hours
    age = baseline.age[hours.caller]
    typical = priors()[hours.kind]
    own = baseline.tops[hours.caller].astype(np.float64)
    may = (hours.values > _OVER_OWN * own) & (hours.values > _FLOOR * typical) & (age < _LONGEST)[:, None]
    may[:, [BURSTS.index("keys")]] &= hours.values[:, [BURSTS.index("keys")]] > 20
    rows = np.flatnonzero((may & (hours.values > 0.5 * typical)).any(axis=1))
    best: dict[int, tuple[float, int, Column, Column, int]] = {}
    for row in rows.tolist():
        caller = int(hours.caller[row])
        usual, peers = _usual(baseline, day, row)
        over = np.log10(np.maximum(hours.values[row], 1e-9) / usual)
        parts = np.where(may[row], np.maximum(over, 0) * _SLOPES, 0)
        strongest = np.sort(parts)[::-1]
        rarity = float((strongest * _SECOND ** np.arange(len(BURSTS))).sum())
        rarity *= _FADE / (_FADE + int(age[row])) * (1 if peers or age[row] else _ALONE)
        if rarity >= _MIN_RARITY and rarity > best.get(caller, (0.0,))[0]:
            best[caller] = (min(rarity, _MAX_RARITY), row, parts, usual, peers)
    return [_signal(baseline, day, *best[caller]) for caller in sorted(best)]


def _usual(baseline: Baseline, day: Day, row: int) -> tuple[Column, int]:
    """Return what is usual at most for the caller of a row, and how many peers that rests on."""
    hours = day.hours
    caller, kind = int(hours.caller[row]), int(hours.kind[row])
    prior = priors()[kind]
    floor = _FLOOR * prior
    same = (hours.kind == kind) & (hours.caller != caller)
    count = len(baseline.names)
    tops = np.where((baseline.sort[:count] == kind) & (baseline.age[:count] > 0), 1, 0)
    tops[caller] = 0
    known = np.flatnonzero(tops)
    today = np.unique(hours.caller[same])
    of_peers = np.union1d(known, today)
    peaks = baseline.tops[of_peers].astype(np.float64)
    np.maximum.at(peaks, np.searchsorted(of_peers, hours.caller[same]), hours.values[same])
    peers = len(of_peers)
    usual_of_peers = np.quantile(peaks, _PEAK, axis=0) if peers else floor
    weights = (1.0, _PEERS_MOST * peers / (peers + _PEERS_HALF), _OWN * int(baseline.age[caller]))
    own = baseline.tops[caller].astype(np.float64)
    logs = [np.log(np.maximum(values, floor)) for values in (prior, usual_of_peers, own)]
    usual = np.exp(sum(weight * log for weight, log in zip(weights, logs, strict=True)) / sum(weights))
    out: Column = np.maximum(usual, own)
    return out, peers


def _signal(baseline: Baseline, day: Day, rarity: float, row: int, parts: Column, usual: Column, peers: int) -> Signal:
    hours = day.hours
    caller = int(hours.caller[row])
    leading = [place for place in np.argsort(-parts, kind="stable").tolist() if parts[place] > 0.2 * parts.max()][:3]
    # An amount says more than how fast it was reached.
    leading.sort(key=lambda place: BURSTS[place] in ("pace", "rate"))
    values = hours.values[row]
    basis = "prior" if peers < _PEERS_HALF else "peers" if baseline.days else "day"
    first = leading[0]
    return Signal(
        "burst" if basis == "prior" else "unlike_peers",
        baseline.names[caller],
        rarity,
        int(hours.first_time[row]),
        int(hours.last_time[row]),
        BURSTS[first],
        round(float(values[first])),
        round(float(usual[first]), 1),
        hours.names[int(hours.call[row])],
        parts=tuple(
            (BURSTS[place], round(float(values[place]), 1), round(float(usual[place]), 1), float(peers))
            for place in leading
        ),
        past=int(baseline.age[caller]),
        basis=basis,
    )
