"""Calls without credentials by network: each network is a caller of its own, judged by the others and by priors.

Networks of the public come and go, so their past is that of all: the most that any network did on an earlier day.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from trailsift.analysis.base import CALLS, TARGETS, ask, tuple_of
from trailsift.analysis.time_range import Period
from trailsift.cloudtrail.callers import ANONYMOUS
from trailsift.detect.baseline import PUBLIC, Baseline, Day, PublicNetwork
from trailsift.detect.callers import anonymous_of
from trailsift.detect.finding import Signal
from trailsift.detect.priors import CALLER_KINDS, priors_of
from trailsift.query.relations import text
from trailsift.times import DAY

if TYPE_CHECKING:
    from trailsift.query import DuckDBEngine

_HOURS = 3  # hours of an ordinary busy day of a network
_OVER_PAST = 1.5  # times the most of any network on an earlier day
_PEERS_HALF, _PEERS_MOST = 4, 1.5
_PEAK = 0.9
_FLOOR = 0.05
_SLOPE = 3.0
_ALONE = 0.8
_MIN_RARITY, _MAX_RARITY = 0.8, 5.0
_SECOND = 0.5
_NETWORKS_MOST = 2_000  # of a day; those with most calls
#: Measure -> the prior that it is compared with.
_PRIOR = {
    "calls": "keys",
    "bytes_out": "bytes_out",
    "resources": "resources",
    "refused": "refused",
    "writes": "deletes",
}


def read_networks(engine: DuckDBEngine, period: Period) -> dict[int, list[PublicNetwork]]:
    """Return what each network did without credentials, by day (since 1970)."""
    sql = f"""SELECT epoch_us(day::TIMESTAMP) // {DAY} AS of_day, source_network, sum(events)::BIGINT AS calls,
            sum(bytes_out)::BIGINT, count(DISTINCT resource_arn)::BIGINT, sum(denied)::BIGINT,
            coalesce(sum(events - denied) FILTER (kind IN ('write', 'delete', 'delete-batch')), 0)::BIGINT,
            epoch_us(min(first_time)), epoch_us(max(last_time))
        FROM access WHERE {period.where_day("day")} AND {CALLS} AND {TARGETS} AND caller = {text(ANONYMOUS)}
            AND source_network IS NOT NULL AND source_network <> '(other)' GROUP BY 1, 2
        QUALIFY row_number() OVER (PARTITION BY of_day ORDER BY calls DESC, source_network) <= {_NETWORKS_MOST}
        ORDER BY 1, 2"""
    out: dict[int, list[PublicNetwork]] = defaultdict(list)
    for day, network, *values, first, last in ask(engine, tuple_of, sql):
        out[day].append(PublicNetwork(network, tuple(map(float, values)), first, last))
    return out


def find_public_bursts(baseline: Baseline, day: Day) -> list[Signal]:
    """Return the networks that did far more without credentials than the others, earlier ones, and what is typical."""
    networks = day.networks
    if not networks:
        return []
    typical = _HOURS * priors_of(CALLER_KINDS.index("anonymous"), [_PRIOR[measure] for measure in PUBLIC])
    values = np.array([network.values for network in networks])
    past = _OVER_PAST * baseline.public
    signals = []
    for row in np.flatnonzero((values > np.maximum(past, typical)).any(axis=1)).tolist():
        others = np.delete(values, row, axis=0)
        count = len(others)
        peers = np.quantile(others, _PEAK, axis=0) if count else typical
        weight = _PEERS_MOST * count / (count + _PEERS_HALF)
        logs = [np.log(np.maximum(part, _FLOOR * typical)) for part in (typical, peers)]
        usual = np.maximum(np.exp((logs[0] + weight * logs[1]) / (1 + weight)), baseline.public)
        over = np.where(values[row] > past, np.log10(np.maximum(values[row], 1e-9) / usual), 0)
        parts = np.maximum(over, 0) * _SLOPE
        rarity = float((np.sort(parts)[::-1] * _SECOND ** np.arange(len(parts))).sum())
        rarity *= 1.0 if count or baseline.days else _ALONE
        if rarity < _MIN_RARITY:
            continue
        leading = [place for place in np.argsort(-parts, kind="stable").tolist() if parts[place] > 0.2 * parts.max()]
        first = leading[0]
        network = networks[row]
        few = count < _PEERS_HALF
        signals.append(
            Signal(
                "burst" if few else "unlike_peers",
                anonymous_of(network.network),
                min(rarity, _MAX_RARITY),
                network.first_time,
                network.last_time,
                PUBLIC[first],
                round(float(values[row, first])),
                round(float(usual[first]), 1),
                parts=tuple(
                    (PUBLIC[place], round(float(values[row, place]), 1), round(float(usual[place]), 1), float(count))
                    for place in leading[:3]
                ),
                past=baseline.days,
                basis="prior" if few else "day",
            )
        )
    return signals
