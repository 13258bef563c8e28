"""Two models on the same items: paired statistics, and a verdict in plain English.

Items pair by suite, item and seed. Knows nothing of files or pages.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ringfence.errors import InputError
from ringfence.records import Record
from ringfence.reports.observations import (
    Observation,
    good,
    grouped,
    metrics_of,
    observations,
    suite_of,
)
from ringfence.statistics import (
    Interval,
    clustered_bootstrap_difference,
    detectable_difference,
    holm,
    mcnemar_clustered,
)
from ringfence.suites import Metric, Suite

ALPHA = 0.05
_BETTER = {
    "robustness": ("is more robust", "is less robust"),
    "over-refusal": ("serves more harmless requests", "serves fewer harmless requests"),
    "fidelity": ("is more faithful", "is less faithful"),
    "capability": ("is more capable", "is less capable"),
    "utility": ("is more useful", "is less useful"),
    "diagnostic": ("is better", "is worse"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An item whose outcome differs; `fixed` where B's is as wished."""

    item: str
    seed: int
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric on the items that both have.

    Attributes:
        pairs: decided on both sides, in `clusters` clusters.
        rate_a, rate_b: of these pairs.
        difference: rate of B minus rate of A, with the 95 % interval of a bootstrap of clusters.
        p: of McNemar's exact test, which flips whole clusters where items share one.
        p_holm: adjusted for the other metrics of the comparison.
        detectable: smallest difference of rates that the pairs would show four times out of five.
        undecided: shared items that are undecided on one side or both.
        changes: items that differ, in order.
    """

    suite: str
    metric: Metric
    primary: bool
    pairs: int
    clusters: int
    rate_a: float
    rate_b: float
    difference: Interval
    p: float
    p_holm: float
    detectable: float
    undecided: int
    changes: tuple[Change, ...]

    @property
    def name(self) -> str:
        """As in `--fail-if`."""
        return f"{self.suite}.{self.metric.name}"

    @property
    def fixed(self) -> int:
        """Items that only B gets as wished."""
        return sum(change.fixed for change in self.changes)

    @property
    def broken(self) -> int:
        """Items that only A gets as wished."""
        return len(self.changes) - self.fixed

    @property
    def significant(self) -> bool:
        """Whether the difference stands after adjustment."""
        return self.p_holm < ALPHA


def compare(
    ours: Iterable[Record],
    theirs: Iterable[Record],
    catalogue: Mapping[str, Suite] | None = None,
) -> tuple[Comparison, ...]:
    """B (`theirs`) against A (`ours`), each the records of one model, metric by metric.

    Raises:
        InputError: they share no item.
    """
    first, second = _by_suite(ours), _by_suite(theirs)
    found: list[Comparison] = []
    for name in [suite for suite in first if suite in second]:
        suite = suite_of(name, [*first[name], *second[name]], catalogue)
        keys = {(r.item, r.seed) for r in first[name]} & {(r.item, r.seed) for r in second[name]}
        sides = []
        for records in (first[name], second[name]):
            common = [record for record in records if (record.item, record.seed) in keys]
            sides.append(observations(suite, common))
        for metric in metrics_of(suite):
            one = _compared(suite, metric, sides[0][metric.name], sides[1][metric.name])
            if one is not None:
                found.append(one)
    if not found:
        raise InputError(
            "the two share no graded item: they must have been evaluated on the same suites with "
            f"the same seeds and limit. Suites of A: {_listed(first)}; of B: {_listed(second)}."
        )
    adjusted = holm([one.p for one in found])
    return tuple(replace(one, p_holm=p) for one, p in zip(found, adjusted, strict=True))


def verdict(one: Comparison, a: str = "A", b: str = "B") -> str:
    """What a comparison says, in one or two sentences."""
    if not one.changes:
        return f"no difference seen: all {one.pairs} pairs agree; {_missed(one)}"
    gain = one.fixed - one.broken
    figures = (
        f"{_items(one.fixed)} fixed, {one.broken} broken, McNemar p {_equals(one.p)}, "
        f"difference {points(one.difference.estimate)} points "
        f"(95 %: {points(one.difference.low)} to {points(one.difference.high)})"
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


def _compared(
    suite: Suite, metric: Metric, ours: Sequence[Observation], theirs: Sequence[Observation]
) -> Comparison | None:
    other = {(one.item, one.seed): one.value for one in theirs}
    both = [one for one in ours if (one.item, one.seed) in other]
    pairs = [
        (one, bool(one.value), bool(other[one.item, one.seed]))
        for one in both
        if one.value is not None and other[one.item, one.seed] is not None
    ]
    if not pairs:
        return None
    known, values_a, values_b = (list(column) for column in zip(*pairs, strict=True))
    clusters = [one.cluster for one in known]
    differences = [int(b) - int(a) for _, a, b in pairs]
    p = mcnemar_clustered(differences, clusters)
    return Comparison(
        suite=suite.name,
        metric=metric,
        primary=metric.name in suite.primary,
        pairs=len(pairs),
        clusters=len(set(clusters)),
        rate_a=sum(values_a) / len(pairs),
        rate_b=sum(values_b) / len(pairs),
        difference=clustered_bootstrap_difference(values_b, values_a, clusters),
        p=p,
        p_holm=p,
        detectable=detectable_difference(differences, clusters),
        # Items of which neither side has a value are those the metric does not apply to.
        undecided=sum((one.value is None) != (other[one.item, one.seed] is None) for one in both),
        changes=tuple(
            Change(item=one.item, seed=one.seed, fixed=good(metric, b))
            for one, a, b in pairs
            if a != b
        ),
    )


def _by_suite(records: Iterable[Record]) -> dict[str, list[Record]]:
    return {
        suite: [record for members in models.values() for record in members]
        for suite, models in grouped(records).items()
    }


def _missed(one: Comparison) -> str:
    return (
        f"with {one.pairs} pairs a difference below {100 * one.detectable:.1f} points would be "
        "missed"
    )


def _equals(p: float) -> str:
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def _items(count: int) -> str:
    return f"{count} item" if count == 1 else f"{count} items"


def _listed(suites: Iterable[str]) -> str:
    return ", ".join(suites) or "none"
