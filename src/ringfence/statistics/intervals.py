"""Intervals for rates of independent trials. Knows nothing of items that share a cluster."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

from ringfence.errors import InputError


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


def wilson(successes: float, n: float, confidence: float = 0.95) -> Interval:
    """Wilson's score interval for a rate (no continuity correction).

    Fractions are taken, for effective sample sizes.

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if n <= 0 or not 0 <= successes <= n:
        raise InputError(f"wilson: {successes} successes of {n} trials is not a rate")
    z = normal_quantile(confidence)
    rate = successes / n
    centre = (rate + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n))
    # Rounding must not push a bound past the rate it bounds.
    return Interval(
        estimate=rate,
        low=min(rate, max(0.0, centre - half)),
        high=max(rate, min(1.0, centre + half)),
    )


def clopper_pearson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Clopper and Pearson's exact interval for a rate: never covers less often than it says.

    Raises:
        InputError: no trials, or more successes than trials.
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError(f"clopper_pearson: {successes} successes of {n} trials is not a rate")
    normal_quantile(confidence)
    tail = (1 - confidence) / 2
    failures = n - successes
    low = beta_quantile(tail, successes, failures + 1) if successes else 0.0
    high = beta_quantile(1 - tail, successes + 1, failures) if failures else 1.0
    return Interval(estimate=successes / n, low=low, high=high)


def sum_of_rates(security: Interval, benign: Interval, correlation: float = 0.0) -> Interval:
    """J = security + benign - 1 in [-1, 1]: 0 for a system that refuses, or obeys, everything.

    The interval recovers variances from the bounds of the two rates (MOVER; Zou and Donner,
    Statistics in Medicine 27:1693, 2008), so that it has a width where both rates are 1. For
    independent rates with Wilson bounds it is Newcombe's.

    Args:
        security: rate of attempts resisted.
        benign: rate of harmless twins served.
        correlation: of the two estimates; 0 where they share no cluster.
    """
    middle = security.estimate + benign.estimate - 1

    def half(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one + other * other + 2 * correlation * one * other))

    below = half(security.estimate - security.low, benign.estimate - benign.low)
    above = half(security.high - security.estimate, benign.high - benign.estimate)
    return Interval(estimate=middle, low=max(-1.0, middle - below), high=min(1.0, middle + above))


def incomplete_beta(x: float, a: float, b: float) -> float:
    """Regularised incomplete beta function I_x(a, b) for a, b > 0 and x in [0, 1].

    By the continued fraction of Numerical Recipes, section 6.4, in Lentz's order.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - incomplete_beta(1 - x, b, a)
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    tiny = 1e-300
    upper, lower = 1.0, 1.0 / _off_zero(1 - (a + b) * x / (a + 1), tiny)
    value = lower
    for m in range(1, 100_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        step = 1.0
        for term in (even, odd):
            lower = 1.0 / _off_zero(1 + term * lower, tiny)
            upper = _off_zero(1 + term / upper, tiny)
            step = upper * lower
            value *= step
        if abs(step - 1) < 1e-15:
            break
    return min(1.0, front * value / a)


def beta_quantile(probability: float, a: float, b: float) -> float:
    """The x at which I_x(a, b) is `probability`, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        if incomplete_beta(middle, a, b) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def student_quantile(confidence: float, freedom: int) -> float:
    """As `normal_quantile`, for Student's t with `freedom` degrees of freedom, at least 1."""
    normal_quantile(confidence)
    x = beta_quantile(1 - confidence, freedom / 2, 0.5)
    return math.sqrt(freedom * (1 - x) / x)


def normal_quantile(confidence: float) -> float:
    """Standard deviations within which a share of `confidence` of a normal variable lies."""
    if not 0 < confidence < 1:
        raise InputError(f"confidence must lie in (0, 1), not {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _off_zero(value: float, tiny: float) -> float:
    return value if abs(value) > tiny else tiny
