"""Bootstraps: of values, of clusters of values, of paired values. Randomness is a seed.

Resampling goes by blocks, so that memory stays bounded whatever the sample size.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError
from ringfence.statistics.clusters import cluster_sums
from ringfence.statistics.intervals import Interval

RESAMPLES = 10_000
# Numbers drawn at once while resampling: 32 MB of them.
_BLOCK = 4_000_000


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean with the percentile bootstrap interval.

    Raises:
        InputError: no values.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise InputError("bootstrap: there are no values")
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // data.size)
    means = np.concatenate(
        [
            data[rng.integers(0, data.size, (min(step, resamples - done), data.size))].mean(axis=1)
            for done in range(0, resamples, step)
        ]
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    mean = float(data.mean())
    return Interval(estimate=mean, low=min(mean, float(low)), high=max(mean, float(high)))


def paired_bootstrap_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of `ours - theirs` on the same items, resampling items.

    Raises:
        InputError: lists of different lengths, or empty ones.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired bootstrap: {len(ours)} values against {len(theirs)}")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return bootstrap_mean(differences, seed=seed, confidence=confidence, resamples=resamples)


def clustered_bootstrap_mean(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean with the percentile interval of a bootstrap that draws whole clusters.

    Clusters that agree in sum and size are drawn together, as counts of a multinomial: the same
    distribution as drawing them one by one, in a fraction of the time.

    Raises:
        InputError: no values, or not as many clusters as values.
    """
    sums, sizes = cluster_sums(values, clusters)
    kinds, counts = np.unique(np.stack([sums, sizes], axis=1), axis=0, return_counts=True)
    rng = np.random.default_rng(seed)
    step = max(1, _BLOCK // len(kinds))
    shares = counts / counts.sum()
    means: list[npt.NDArray[np.float64]] = []
    for done in range(0, resamples, step):
        drawn = rng.multinomial(len(sums), shares, min(step, resamples - done))
        means.append((drawn @ kinds[:, 0]) / (drawn @ kinds[:, 1]))
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    mean = float(sums.sum() / sizes.sum())
    return Interval(estimate=mean, low=min(mean, float(low)), high=max(mean, float(high)))


def clustered_bootstrap_difference(
    ours: Sequence[float],
    theirs: Sequence[float],
    clusters: Sequence[Hashable],
    *,
    seed: int = 0,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
) -> Interval:
    """Mean of `ours - theirs` on the same items, drawing whole clusters of items.

    Where every item is a cluster of its own this is the paired bootstrap.

    Raises:
        InputError: lists of different lengths, or empty ones.
    """
    if len(ours) != len(theirs):
        raise InputError(f"paired bootstrap: {len(ours)} values against {len(theirs)}")
    differences = [a - b for a, b in zip(ours, theirs, strict=True)]
    return clustered_bootstrap_mean(
        differences, clusters, seed=seed, confidence=confidence, resamples=resamples
    )
