"""Tests of two systems on the same items, and of many at once. Knows nothing of what they are."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError
from ringfence.statistics.clusters import cluster_sums, clustered_error
from ringfence.statistics.intervals import beta_quantile, normal_quantile


def mcnemar_exact(only_ours: int, only_theirs: int) -> float:
    """Two-sided exact p-value of McNemar's test, from the two counts of discordant items.

    Raises:
        InputError: a negative count.
    """
    if only_ours < 0 or only_theirs < 0:
        raise InputError("mcnemar: counts of items cannot be negative")
    n, fewer = only_ours + only_theirs, min(only_ours, only_theirs)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return float(min(1.0, 2 * tail / 2**n))


def mcnemar_clustered(differences: Sequence[int], clusters: Sequence[Hashable]) -> float:
    """Two-sided exact p-value of the test that flips the signs of whole clusters.

    Under the null hypothesis the two systems are exchangeable within a cluster, so that the sum of
    its differences is as likely with either sign. Clusters of one item each give McNemar's test.

    Args:
        differences: ours minus theirs on an item, each -1, 0 or 1.
        clusters: one for each.

    Raises:
        InputError: no items, or another difference.
    """
    if not set(differences) <= {-1, 0, 1}:
        raise InputError("mcnemar: a difference of outcomes is -1, 0 or 1")
    return signs_flipped(np.rint(cluster_sums(differences, clusters)[0]).astype(np.int64))


def signs_flipped(sums: npt.NDArray[np.int64]) -> float:
    """Two-sided exact p-value of a sum under the null that every part may have either sign.

    Args:
        sums: of the clusters; time and memory grow with the sum of their sizes.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        steps = np.zeros(2 * size * count + 1)
        steps[:: 2 * size] = _binomial_half(count)
        chances = np.convolve(chances, steps)
    reach = len(chances) // 2
    distance = abs(int(sums.sum()))
    if distance == 0:
        return 1.0
    return float(min(1.0, 2 * chances[reach + distance :].sum()))


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """P-values adjusted so that one false alarm among them stays as rare as stated (Holm, 1979).

    Raises:
        InputError: a p-value outside [0, 1].
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise InputError("holm: a p-value lies in [0, 1]")
    adjusted = [0.0] * len(p_values)
    worst = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda one: p_values[one])):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = worst
    return tuple(adjusted)


def detectable_difference(
    differences: Sequence[int],
    clusters: Sequence[Hashable],
    *,
    confidence: float = 0.95,
    power: float = 0.8,
) -> float:
    """Smallest true difference of rates that these pairs would show with a chance of `power`.

    Never less than the rate at which so many clusters as McNemar's exact test needs, all differing
    one way, turn up with that chance.

    Raises:
        InputError: as `mcnemar_clustered`; a confidence outside (0, 1) or power outside [0.5, 1).
    """
    if not 0.5 <= power < 1:
        raise InputError(f"detectable: power must lie in [0.5, 1), not {power}")
    if not set(differences) <= {-1, 0, 1}:
        raise InputError("detectable: a difference of outcomes is -1, 0 or 1")
    groups = len(set(clusters))
    error = clustered_error(differences, clusters) if groups > 1 else 0.0
    z = normal_quantile(confidence) + (normal_quantile(2 * power - 1) if power > 0.5 else 0)
    return min(1.0, max(z * error, least_rate(groups, confidence, power)))


def least_rate(groups: int, confidence: float = 0.95, power: float = 0.8) -> float:
    """Rate at which `fewest_that_show` of so many clusters differ with a chance of `power`."""
    fewest = fewest_that_show(confidence)
    return beta_quantile(power, fewest, groups - fewest + 1) if groups >= fewest else 1.0


def fewest_that_show(confidence: float = 0.95) -> int:
    """Clusters that must all differ one way before McNemar's exact test says so."""
    return math.ceil(1 - math.log2(1 - confidence))


def _binomial_half(n: int) -> npt.NDArray[np.float64]:
    """Chances of 0…n heads of n fair coins."""
    logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(n, 0, -1) / np.arange(1, n + 1)))])
    return np.asarray(np.exp(logs - n * math.log(2)), dtype=np.float64)
