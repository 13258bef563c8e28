"""Comparisons in plain English. Knows nothing of how they were computed."""

from __future__ import annotations

from ringfence.reports.comparison import ALPHA, Comparison
from ringfence.statistics import Interval

_BETTER = {
    "robustness": ("is more robust", "is less robust"),
    "over-refusal": ("serves more harmless requests", "serves fewer harmless requests"),
    "fidelity": ("is more faithful", "is less faithful"),
    "capability": ("is more capable", "is less capable"),
    "utility": ("is more useful", "is less useful"),
    "diagnostic": ("is better", "is worse"),
}


def verdict(one: Comparison, a: str = "A", b: str = "B") -> str:
    """What a comparison says, in one or two sentences."""
    if one.difference is None:
        empty = f"{b if one.n_a else a} has no outcome that counts"
        return f"not compared: {left_out(one) or empty}"
    words = _verdict(one, one.difference, a, b)
    return f"{words}; {left_out(one)}" if one.left_out else words


def left_out(one: Comparison) -> str:
    """How many items did not count; empty where all did."""
    if not one.left_out:
        return ""
    return f"{one.left_out} of {one.asked} items not shared, asked otherwise or undecided"


def _verdict(one: Comparison, difference: Interval, a: str, b: str) -> str:
    if not one.figure and not one.changes:
        return f"no difference seen: all {one.pairs} pairs agree; {_missed(one)}"
    gain = difference.estimate if one.metric.better == "higher" else -difference.estimate
    figures = (
        f"{_counted(one)} {_equals(one.p)}, difference {points(difference.estimate)} points "
        f"(95 %: {points(difference.low)} to {points(difference.high)})"
    )
    if one.p >= ALPHA or gain == 0:
        return f"no difference seen: {figures}; {_missed(one)}"
    words = _BETTER[one.metric.kind][gain < 0]
    if one.significant:
        return f"{b} {words} than {a}: {figures}"
    return (
        f"{b} perhaps {words} than {a}, but it does not stand among so many metrics "
        f"(p {_equals(one.p_holm)} by Holm): {figures}"
    )


def points(rate: float) -> str:
    """A difference of rates in percentage points, signed."""
    return f"{100 * rate:+.1f}" if abs(rate) >= 0.0005 else "0.0"


def p_value(p: float) -> str:
    """As people write them."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _missed(one: Comparison) -> str:
    number = f"{one.clusters} clusters" if one.figure else f"{one.pairs} pairs"
    return f"with {number} a difference below {100 * one.detectable:.1f} points would be missed"


def _counted(one: Comparison) -> str:
    if not one.figure:
        return f"{_items(one.fixed)} fixed, {one.broken} broken, McNemar p"
    rates = [
        f"{100 * (rate or 0):.1f} % of {n}"
        for rate, n in ((one.rate_a, one.n_a), (one.rate_b, one.n_b))
    ]
    better = "cluster" if one.fixed == 1 else "clusters"
    return f"{' → '.join(rates)}, {one.fixed} {better} better, {one.broken} worse, p"


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"
