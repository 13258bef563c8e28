"""Rates of two systems on the same clusters where each has its own number of outcomes.

So it is with rates that are conditioned on what a system did: one that obeys neither side counts
less often. Knows nothing of what an outcome is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError
from ringfence.statistics.intervals import Interval, normal_quantile
from ringfence.statistics.paired import least_rate, signs_flipped
from ringfence.statistics.resampling import RESAMPLES

Ints = npt.NDArray[np.int64]
# Sums of the exact test up to here; beyond, signs are drawn.
_EXACT = 10_000
_DRAWN = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Of two systems on each cluster: outcomes that came true, and outcomes.

    Attributes:
        ours: (hits, n) of every cluster.
        theirs: likewise, in the same order; n may be 0 on one side.
    """

    ours: Sequence[tuple[int, int]]
    theirs: Sequence[tuple[int, int]]

    def columns(self) -> tuple[Ints, Ints, Ints, Ints]:
        """Our hits and n, their hits and n.

        Raises:
            InputError: other numbers of clusters, more hits than outcomes, or a side without any.
        """
        if len(self.ours) != len(self.theirs):
            raise InputError(f"ratios: {len(self.ours)} clusters against {len(self.theirs)}")
        whole = np.array([*self.ours, *self.theirs], dtype=np.int64).reshape(2, -1, 2)
        hits, n = whole[..., 0], whole[..., 1]
        if not ((hits >= 0) & (hits <= n)).all() or not n.sum(axis=1).all():
            raise InputError("ratios: hits lie in 0…n, and each side needs an outcome")
        return hits[0], n[0], hits[1], n[1]


def ratio_difference(
    ratios: Ratios, *, seed: int = 0, confidence: float = 0.95, resamples: int = RESAMPLES
) -> Interval:
    """Our rate minus theirs, with the percentile interval of a bootstrap of whole clusters.

    Draws in which a side has no outcome say nothing and are left out.

    Raises:
        InputError: see `Ratios.columns`.
    """
    table = np.stack(ratios.columns(), axis=1)
    kinds, counts = np.unique(table, axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    # Kinds are at most as many as clusters, so a block of draws is small.
    found: list[npt.NDArray[np.float64]] = []
    for done in range(0, resamples, 1000):
        drawn = rng.multinomial(len(table), counts / counts.sum(), min(1000, resamples - done))
        hits, n, other, m = (drawn @ kinds).T
        kept = (n > 0) & (m > 0)
        found.append(hits[kept] / n[kept] - other[kept] / m[kept])
    hits, n, other, m = table.sum(axis=0)
    middle = float(hits / n - other / m)
    drawn_differences = np.concatenate([*found, [middle]])
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn_differences, [tail, 1 - tail])
    return Interval(estimate=middle, low=min(middle, float(low)), high=max(middle, float(high)))


def ratio_test(ratios: Ratios, *, seed: int = 0) -> float:
    """Two-sided p-value of the test that swaps the two systems in whole clusters.

    What a cluster adds is its hits beyond what the rate of both together would give, ours minus
    theirs: the sum is 0 where the rates agree, and a swap changes a cluster's sign. With equal n it
    is `mcnemar_clustered`. Where the sums are too large for the exact test, 100,000 swaps are
    drawn; the p-value is then at least 1e-5.

    Raises:
        InputError: see `Ratios.columns`.
    """
    hits, n, other, m = ratios.columns()
    # Times the number of all outcomes, so that sums are whole and ties are ties.
    parts = (hits - other) * (n.sum() + m.sum()) - (hits.sum() + other.sum()) * (n - m)
    parts = parts[parts != 0]
    if not len(parts):
        return 1.0
    parts = parts // np.gcd.reduce(parts)
    if np.abs(parts).sum() <= _EXACT:
        return signs_flipped(parts)
    sizes, counts = np.unique(np.abs(parts), return_counts=True)
    rng = np.random.default_rng(seed)
    sums = np.zeros(_DRAWN, dtype=np.int64)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        sums += size * (2 * rng.binomial(count, 0.5, _DRAWN) - count)
    as_far = int((np.abs(sums) >= abs(int(parts.sum()))).sum())
    return (as_far + 1) / (_DRAWN + 1)


def ratio_detectable(ratios: Ratios, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """Smallest true difference of rates that these clusters would show with a chance of `power`.

    By the linearised, cluster-robust error; never less than the test itself needs, see
    `detectable_difference`.

    Raises:
        InputError: see `Ratios.columns`, or a confidence or power outside (0, 1).
    """
    hits, n, other, m = ratios.columns()
    groups = len(hits)
    residuals = (hits - n * (hits.sum() / n.sum())) / n.sum()
    residuals = residuals - (other - m * (other.sum() / m.sum())) / m.sum()
    scale = groups / (groups - 1) if groups > 1 else 0.0
    error = math.sqrt(scale * float(residuals @ residuals))
    z = normal_quantile(confidence) + normal_quantile(2 * power - 1)
    return min(1.0, max(z * error, least_rate(groups, confidence, power)))
