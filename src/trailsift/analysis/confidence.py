"""The 95 % interval of a total that was estimated from events with weights.

An event stored with weight w was kept with probability 1/w, independently of all others. So the sum of w is an unbiased
estimate of a count, and the sum of w*y of a total (Horvitz and Thompson, A generalization of sampling without
replacement, 1952); an unbiased estimate of the variance under independent (Poisson) sampling is the sum of
w(w-1)y^2 (Sarndal, Swensson and Wretman, Model Assisted Survey Sampling, 1992, section 3.5). Weight 1 adds none.

The interval is the score interval of Wilson (Probable inference, 1927), extended to weighted totals: the totals that
are not too far from the estimate under *their own* variance, which is assumed to grow in proportion to the total,
(T^ - T)^2 = q^2 k T with k = V/T^. It is shifted towards larger totals, as samples of skewed values need. q is the
quantile of Student's t (by Cornish and Fisher's expansion) with half of Kish's effective sample size,
(sum wy)^2 / sum (wy)^2, as degrees of freedom: if a few large events make up the sum, the interval is wider.

If the logarithms of the values spread widely and are not skewed towards small values, the few values that make up most
of the total are mostly missing from the sample, and its variance is too small. Then the upper end is the larger of
Wilson's and Cox's for log-normal values (Land, An evaluation of approximate confidence interval estimation methods for
lognormal means, 1972), with three additions: the third cumulant of the logarithms counts (ln E(y) =
k1 + k2/2 + k3/6 + ...), the values in the sample are certain, and the unseen ones vary about their expected sum.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_Z = 1.959964
#: The tail counts from this variance of the logarithms, and fully from twice this variance.
_SPREAD = 0.5
#: The lower end then misses almost nothing, so the upper end may miss 3.5 % instead of 2.5 %.
_UPPER = 0.92
#: The exponential of this is still finite.
_LARGEST = 700.0


class Sums(NamedTuple):
    """The sums over a group's sampled events (weight w > 1) from which an interval is computed.

    Sums of w*y, w(w-1)y^2 and (wy)^2; and over the events with y > 0, with l = ln y: their number, sums of y, w, w^2,
    w*l, w*l^2 and w*l^3.
    """

    total: float = 0.0
    variance: float = 0.0
    squares: float = 0.0
    number: int = 0
    seen: float = 0.0
    weight: float = 0.0
    weight2: float = 0.0
    log: float = 0.0
    log2: float = 0.0
    log3: float = 0.0


def sums_sql(y: str) -> str:
    """Return the SQL expressions of ``Sums`` over a group of ``events``, in that order, for the number ``y``."""
    sampled, positive = "weight > 1", f"weight > 1 AND {y} > 0"
    log = f"ln(greatest({y}, 1))"
    parts = [f"weight * {y}", f"weight * (weight - 1) * {y} * {y}", f"(weight * {y}) ** 2"]
    above = [f"{y}", "weight", "weight * weight", *(f"weight * {log} ** {power}" for power in (1, 2, 3))]
    return ", ".join(
        [
            *(f"coalesce(sum({part}) FILTER ({sampled}), 0)::DOUBLE" for part in parts),
            f"count(*) FILTER ({positive})",
            *(f"coalesce(sum({part}) FILTER ({positive}), 0)::DOUBLE" for part in above),
        ]
    )


def interval(sums: Sums, slope: float = 0.0) -> tuple[float, float]:
    """Return the ends of the 95 % interval of ``sums.total``. ``slope`` replaces variance / total if nothing was
    sampled and both are 0."""
    total, variance = sums.total, sums.variance
    effective = total**2 / sums.squares if sums.squares else 0.0
    q = quantile(max(2.0, effective / 2 - 1))
    per_total = variance / total if total else slope
    middle = total + q * q * per_total / 2
    half = q * math.sqrt(variance + q * q * per_total * per_total / 4)
    return middle - half, middle + half + _tail(sums, middle + half)


def _tail(sums: Sums, upper: float) -> float:
    """Return how far the interval extends beyond ``upper`` for the unseen part of a long tail."""
    if sums.number < 3:
        return 0.0
    effective = max(3.0, sums.weight**2 / sums.weight2)
    mean = sums.log / sums.weight
    spread = (sums.log2 / sums.weight - mean**2) * effective / (effective - 1)
    if spread <= _SPREAD:
        return 0.0
    third = sums.log3 / sums.weight - 3 * mean * sums.log2 / sums.weight + 2 * mean**3
    # Skewed towards small values by more than chance (its standard error is sqrt(6/n)), it is not a long tail.
    skewness = third / math.sqrt(6 / effective * spread**3)
    share = min(1.0, max(0.0, skewness + 2)) * min(1.0, (spread - _SPREAD) / _SPREAD)
    if not share:
        return 0.0
    unseen = max(1.0, sums.weight - sums.number)
    tail = spread + max(0.0, third) / 3
    finite = math.log1p(math.expm1(min(tail, _LARGEST)) / unseen)
    number = (sums.weight2 - sums.weight) / sums.weight**2
    error = math.sqrt(tail / effective + tail**2 / (2 * (effective - 1)) + finite + number)
    end = mean + tail / 2 + math.log(unseen) - finite / 2 + _UPPER * quantile(effective - 1) * error
    return share * max(0.0, sums.seen + math.exp(min(end, _LARGEST)) - upper)


def quantile(freedom: float) -> float:
    """Return the 97.5 % quantile of Student's t, within 4 % for two or more degrees of freedom (Abramowitz and Stegun,
    26.7.5)."""
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
