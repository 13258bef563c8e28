"""Intervals, tests and rates for tables. Knows nothing of judges, engines or suites.

Every function takes plain sequences and returns plain numbers; randomness is a seed. Resampling is
done in blocks, so that memory stays bounded whatever the sample size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from ringfence.errors import InputError

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
# Numbers drawn at once while resampling: 32 MB of indices.
_BLOCK = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An estimate with its confidence bounds, `low <= estimate <= high`."""

    estimate: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        """Whether a difference of this interval is told from none."""
        return self.low > 0 or self.high < 0


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a rate (no continuity correction).

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"wilson: {successes} successes of {n} trials is not a rate")
    z = _z(confidence)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # Rounding must not push a bound past the rate it bounds.
    return Interval(
        estimate=rate,
        low=min(rate, max(0.0, centre - half)),
        high=max(rate, min(1.0, centre + half)),
    )


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
    scores: Sequence[float], good: Sequence[bool], confidence: float = 0.95
) -> Interval:
    """AUROC with Newcombe's interval (Statistics in Medicine 25:559, 2006, method 5).

    Chosen over DeLong and the bootstrap because those have no width at all when the two kinds are
    separated perfectly, which small check sets often are.

    Raises:
        InputError: as `auroc`.
    """
    area = auroc(scores, good)
    positives = sum(map(bool, good))
    negatives = len(good) - positives
    z = _z(confidence)

    def spread(theta: float) -> float:
        pairs = (positives + negatives) / 2 - 1
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


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of word n-grams that differ from each other, over all texts together, in [0, 1].

    Words are split at whitespace and lower-cased; texts shorter than n give no n-gram. The number
    falls as the amount of text grows: compare equal amounts only.

    Raises:
        InputError: no text is long enough to have an n-gram.
    """
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.lower().split()
        grams.extend(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if n < 1 or not grams:
        raise InputError(f"distinct-{n}: no text has {n} words")
    return len(set(grams)) / len(grams)


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie in (0, 1), not {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


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
