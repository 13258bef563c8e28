"""How well scores rank, and whether stated probabilities come true. Knows nothing of judges."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError
from ringfence.statistics.intervals import Interval, normal_quantile

Floats = npt.NDArray[np.float64]


def auroc(scores: Sequence[float], good: Sequence[bool]) -> float:
    """Probability that a good item scores above a bad one; ties count half.

    Raises:
        InputError: the items are not of both kinds, or a score is not a number.
    """
    above, below = _two_kinds(scores, good)
    ranked = np.sort(below)
    under = np.searchsorted(ranked, above, side="left")
    upto = np.searchsorted(ranked, above, side="right")
    return float((under + upto).sum() / (2 * above.size * below.size))


def auroc_interval(
    scores: Sequence[float],
    good: Sequence[bool],
    confidence: float = 0.95,
    *,
    clusters: Sequence[str] | None = None,
) -> Interval:
    """AUROC with Newcombe's interval (Statistics in Medicine 25:559, 2006, method 5).

    Chosen over DeLong and the bootstrap because those have no width at all when the two kinds are
    separated perfectly, which small check sets often are.

    Args:
        scores: of the items, the higher the better.
        good: of the items.
        confidence: of the interval.
        clusters: of the items, which are not independent within one: the interval is that of so
            many fewer items as the variance of the area is larger than it would be if they were.

    Raises:
        InputError: as `auroc`.
    """
    area = auroc(scores, good)
    effect = 1.0 if clusters is None else _design_effect(scores, good, clusters)
    positives = sum(map(bool, good)) / effect
    negatives = (len(good) - sum(map(bool, good))) / effect
    z = normal_quantile(confidence)

    def spread(theta: float) -> float:
        pairs = max((positives + negatives) / 2 - 1, 0.0)
        shape = (1 - theta) / (2 - theta) + theta / (1 + theta)
        return math.sqrt(theta * (1 - theta) * (1 + pairs * shape) / (positives * negatives))

    def bound(inside: float, outside: float) -> float:
        """Bisect for the theta at which the estimate lies exactly z spreads away."""
        for _ in range(60):
            middle = (inside + outside) / 2
            if abs(area - middle) <= z * spread(middle):
                inside = middle
            else:
                outside = middle
        return inside

    return Interval(estimate=area, low=bound(area, 0.0), high=bound(area, 1.0))


def _design_effect(scores: Sequence[float], good: Sequence[bool], clusters: Sequence[str]) -> float:
    """How much larger the variance of the area is because of clusters; at least 1.

    Obuchowski, Biometrics 53:567, 1997: placements of good and bad items, summed by cluster.
    """
    above, below = _two_kinds(scores, good)
    truth = np.asarray(good, dtype=bool)
    _, cluster = np.unique(np.asarray(clusters, dtype=object).astype(str), return_inverse=True)
    count = int(cluster.max()) + 1
    area = auroc(scores, good)

    def variance(of: npt.NDArray[np.int64], groups: int) -> float:
        sums = []
        for kind, ours, theirs in ((True, above, below), (False, below, above)):
            ranked = np.sort(theirs)
            low = np.searchsorted(ranked, ours, side="left") / theirs.size
            high = np.searchsorted(ranked, ours, side="right") / theirs.size
            placed = (low + high) / 2 if kind else 1 - (low + high) / 2
            where = of[truth == kind]
            total = np.bincount(where, placed - area, minlength=groups)
            held = int((np.bincount(where, minlength=groups) > 0).sum())
            if held < 2:
                return math.inf
            sums.append((total, held / (held - 1), ours.size))
        (first, one, n), (second, other, m) = sums
        both = groups / (groups - 1) * float((first * second).sum()) / (n * m)
        own = one * float((first**2).sum()) / n**2
        return own + other * float((second**2).sum()) / m**2 + 2 * both

    alone = variance(np.arange(truth.size), truth.size)
    found = variance(cluster, count) if count > 1 else math.inf
    if not math.isfinite(found):  # nothing but the number of clusters is known
        return truth.size / count
    return max(1.0, found / alone) if alone > 0 else max(1.0, truth.size / count)


def tpr_at_fpr(scores: Sequence[float], good: Sequence[bool], fpr: float) -> float:
    """Largest share of good items above a threshold that at most `fpr` of the bad ones exceed.

    Raises:
        InputError: as `auroc`, or `fpr` outside [0, 1].
    """
    if not 0 <= fpr <= 1:
        raise InputError(f"fpr must lie in [0, 1], not {fpr}")
    above, below = _two_kinds(scores, good)
    allowed = math.floor(fpr * below.size + 1e-9)
    if allowed >= below.size:
        return 1.0
    bar = np.sort(below)[::-1][allowed]
    return float((above > bar).mean())


@dataclass(frozen=True, slots=True, kw_only=True)
class Bin:
    """Items with a stated probability in [low, high): what was stated and what happened."""

    low: float
    high: float
    n: int
    stated: float
    happened: float


def reliability(
    probabilities: Sequence[float], happened: Sequence[bool], bins: int = 10
) -> tuple[Bin, ...]:
    """Bins of equal width over [0, 1] that hold at least one item.

    Raises:
        InputError: a probability outside [0, 1], or lists of different lengths.
    """
    stated = np.asarray(probabilities, dtype=np.float64)
    truth = np.asarray(happened, dtype=np.float64)
    if stated.shape != truth.shape or stated.size == 0:
        raise InputError("reliability: needs as many outcomes as probabilities, at least one")
    if not ((stated >= 0) & (stated <= 1)).all():
        raise InputError("reliability: a probability lies outside [0, 1]")
    place = np.minimum((stated * bins).astype(int), bins - 1)
    return tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            n=int((place == index).sum()),
            stated=float(stated[place == index].mean()),
            happened=float(truth[place == index].mean()),
        )
        for index in range(bins)
        if (place == index).any()
    )


def expected_calibration_error(
    probabilities: Sequence[float], happened: Sequence[bool], bins: int = 10
) -> float:
    """Mean distance between stated and happened over the bins, weighted by their items.

    Raises:
        InputError: as `reliability`.
    """
    kept = reliability(probabilities, happened, bins)
    return sum(bin_.n * abs(bin_.stated - bin_.happened) for bin_ in kept) / len(probabilities)


def _two_kinds(scores: Sequence[float], good: Sequence[bool]) -> tuple[Floats, Floats]:
    """Scores of the good and of the bad items."""
    values = np.asarray(scores, dtype=np.float64)
    kinds = np.asarray(good, dtype=bool)
    if values.shape != kinds.shape:
        raise InputError(f"{values.size} scores for {kinds.size} labels")
    if np.isnan(values).any():
        raise InputError("a score is not a number")
    if not kinds.any() or kinds.all():
        raise InputError("needs at least one good and one bad item to compare")
    return values[kinds], values[~kinds]
