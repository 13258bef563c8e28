"""Errors and intervals where items share a cluster, such as a base prompt or a seed's twin.

Items of one cluster are no independent trials: what a plain interval says of them is too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError
from ringfence.statistics.intervals import Interval, normal_quantile, student_quantile, wilson

Floats = npt.NDArray[np.float64]


def cluster_codes(clusters: Sequence[Hashable]) -> npt.NDArray[np.int64]:
    """Numbers from 0 on, in order of first appearance; equal clusters have equal ones."""
    codes: dict[Hashable, int] = {}
    return np.array([codes.setdefault(one, len(codes)) for one in clusters], dtype=np.int64)


def cluster_sums(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum and size of every cluster.

    Raises:
        InputError: no values, or not as many clusters as values.
    """
    if len(values) != len(clusters) or not len(values):
        raise InputError(f"clusters: {len(clusters)} for {len(values)} values; at least one needed")
    codes = cluster_codes(clusters)
    sums = np.bincount(codes, weights=np.asarray(values, dtype=np.float64)).astype(np.float64)
    return sums, np.bincount(codes).astype(np.float64)


def clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    """Cluster-robust standard error of a mean (the sandwich with the factor G / (G - 1)).

    Also that of a paired difference, given differences.

    Raises:
        InputError: fewer than two clusters, from which no error can be told.
    """
    sums, sizes = cluster_sums(values, clusters)
    groups, n = len(sums), sizes.sum()
    if groups < 2:
        raise InputError("clusters: one cluster has no standard error; two are needed")
    residuals = sums - sizes * (sums.sum() / n)
    return float(math.sqrt(groups / (groups - 1) * float(residuals @ residuals)) / n)


# An error of a mean in [0, 1] that is rounding: clusters agree.
_NOTHING = 1e-9


def clustered_rate(
    values: Sequence[float], clusters: Sequence[Hashable], confidence: float = 0.95
) -> Interval:
    """Mean of values in [0, 1] with Wilson's interval at the effective sample size.

    The effective size is the one at which independent trials would have the cluster-robust error,
    lessened by Student's factor for few clusters (Korn and Graubard, Survey Methodology 24:193,
    1998, with Wilson's interval in place of Clopper and Pearson's). Where all values agree nothing
    is known of how alike clusters are, and every cluster counts as one trial. Clusters of one item
    each give Wilson's interval itself.

    Raises:
        InputError: no values, values outside [0, 1], or not as many clusters as values.
    """
    sums, sizes = cluster_sums(values, clusters)
    data = np.asarray(values, dtype=np.float64)
    if data.min() < 0 or data.max() > 1:
        raise InputError("clusters: a rate needs values in [0, 1]")
    groups, n = len(sums), len(data)
    rate = min(1.0, max(0.0, float(data.mean())))
    binary = bool(((data == 0) | (data == 1)).all())
    if binary and groups == n:
        return wilson(round(float(data.sum())), n, confidence)
    spread = rate * (1 - rate)
    error = clustered_error(values, clusters) if groups > 1 else 0.0
    if groups < 2 or spread <= 0:
        effective = float(groups)
    else:
        # Clusters that agree exactly are no better known than independent ones.
        effective = float(n) if error < _NOTHING else n / (error**2 / (spread / (n - 1)))
        factor = normal_quantile(confidence) / student_quantile(confidence, groups - 1)
        effective = max(1.0, (min(effective, n) if binary else effective) * factor**2)
    return wilson(rate * effective, effective, confidence)


def shared_correlation(
    ours: Sequence[float],
    our_clusters: Sequence[Hashable],
    theirs: Sequence[float],
    their_clusters: Sequence[Hashable],
) -> float:
    """Correlation of two means in [-1, 1] that comes from clusters both have items of.

    Raises:
        InputError: as `cluster_sums`.
    """
    parts: list[dict[Hashable, float]] = []
    for values, clusters in ((ours, our_clusters), (theirs, their_clusters)):
        sums, sizes = cluster_sums(values, clusters)
        residuals = sums - sizes * (sums.sum() / sizes.sum())
        names = dict.fromkeys(clusters)
        parts.append(dict(zip(names, residuals.tolist(), strict=True)))
    first, second = parts
    both = sum(first[name] * second[name] for name in first.keys() & second.keys())
    scale = math.sqrt(sum(v * v for v in first.values()) * sum(v * v for v in second.values()))
    return max(-1.0, min(1.0, both / scale)) if scale > 0 else 0.0
