"""Two models on the same items: paired statistics, and a verdict in plain English.

Items pair by suite, item and seed. A figure, which each side has its own number of outcomes of, is
compared by its rates over the clusters that both answered. Knows nothing of files or pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ringfence.errors import InputError
from ringfence.records import Record, asked
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
    Ratios,
    clustered_bootstrap_difference,
    detectable_difference,
    holm,
    mcnemar_clustered,
    ratio_detectable,
    ratio_difference,
    ratio_test,
)
from ringfence.suites import Metric, Suite

ALPHA = 0.05
Key = tuple[str, int]
Seen = dict[str, list[Observation]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An item whose outcome differs; `fixed` where B's is as wished. Of a figure: a cluster."""

    item: str
    seed: int
    fixed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One metric on the items that both have.

    Attributes:
        figure: whether the metric is one; pairs and changes are then of clusters, seed by seed.
        pairs: decided on both sides, in `clusters` clusters.
        rate_a, rate_b: of these pairs; None where there is nothing to compare.
        n_a, n_b: outcomes that the rates are of; they differ only for figures.
        difference: rate of B minus rate of A, with the 95 % interval of a bootstrap of clusters;
            None where there is nothing to compare.
        p: of McNemar's exact test, which flips whole clusters where items share one; of figures the
            test that swaps A and B in whole clusters.
        p_holm: adjusted for the other metrics of the comparison.
        detectable: smallest difference of rates that the pairs would show four times out of five.
        undecided: items that both answered and only one side has a value of.
        asked: items that A or B has a value of; of figures the items of such clusters.
        left_out: of these the ones that do not count, because the other side has no reply or value,
            or was asked something else, or because they could not be graded again.
        changes: items that differ, in order.
    """

    suite: str
    metric: Metric
    primary: bool
    figure: bool
    pairs: int = 0
    clusters: int = 0
    rate_a: float | None = None
    rate_b: float | None = None
    n_a: int = 0
    n_b: int = 0
    difference: Interval | None = None
    p: float = 1.0
    p_holm: float = 1.0
    detectable: float = 1.0
    undecided: int = 0
    asked: int = 0
    left_out: int = 0
    changes: tuple[Change, ...] = ()

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
    ungraded: Collection[tuple[str, str, int]] = (),
) -> tuple[Comparison, ...]:
    """B (`theirs`) against A (`ours`), each the records of one model, metric by metric.

    Suite, item and seed in `ungraded` do not count, and are told as left out: the outcomes of their
    records are of other graders.

    Raises:
        InputError: they share no item.
    """
    first, second = _by_suite(ours), _by_suite(theirs)
    found: list[Comparison] = []
    for name in [suite for suite in first if suite in second]:
        suite = suite_of(name, [*first[name], *second[name]], catalogue)
        other = {(item, seed) for where, item, seed in ungraded if where == name}
        sides = _Sides.of(suite, first[name], second[name], other)
        if sides is not None:
            found += [one for m in metrics_of(suite) if (one := _compared(suite, m, sides))]
    if not found:
        raise InputError(
            "the two share no graded item: they must have been evaluated on the same suites with "
            f"the same seeds and limit. Suites of A: {_listed(first)}; of B: {_listed(second)}."
        )
    compared = [one.p for one in found if one.difference is not None]
    adjusted = iter(holm(compared))
    return tuple(
        one if one.difference is None else replace(one, p_holm=next(adjusted)) for one in found
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sides:
    """Records of both models on a suite.

    Attributes:
        clusters: item and seed, of either side → cluster.
        shared: items with seeds that both answered and were asked in the same words, graded alike.
        seen: of A and B, all of it; `paired`: what was seen of the shared items alone.
    """

    clusters: Mapping[Key, str]
    shared: frozenset[Key]
    seen: tuple[Seen, Seen]
    paired: tuple[Seen, Seen]

    @classmethod
    def of(
        cls,
        suite: Suite,
        ours: Sequence[Record],
        theirs: Sequence[Record],
        ungraded: Collection[Key],
    ) -> _Sides | None:
        """None where no item was put to both."""
        keys = [{(one.item, one.seed) for one in side} for side in (ours, theirs)]
        if not keys[0] & keys[1]:
            return None
        first, second = (
            {(one.item, one.seed): one.prompt and asked(one.prompt) for one in side}
            for side in ([one for one in side if not one.error] for side in (ours, theirs))
        )
        # Items keep their ids when what they ask changes with a version.
        shared = frozenset(
            key
            for key in first.keys() & second.keys()
            if key not in ungraded
            and (first[key] == second[key] or not (first[key] and second[key]))
        )

        def common(side: Sequence[Record]) -> Seen:
            return observations(suite, [one for one in side if (one.item, one.seed) in shared])

        return cls(
            clusters={(one.item, one.seed): one.cluster for one in (*theirs, *ours)},
            shared=shared,
            seen=(observations(suite, ours), observations(suite, theirs)),
            paired=(common(ours), common(theirs)),
        )


def _compared(suite: Suite, metric: Metric, sides: _Sides) -> Comparison | None:
    """None where neither side has a value."""
    figure = metric not in suite.metrics
    seen = [[one for one in side[metric.name] if one.value is not None] for side in sides.seen]
    if not any(seen):
        return None
    if figure:
        places = {(one.cluster, one.seed) for side in seen for one in side}
        wanted = {key for key, cluster in sides.clusters.items() if (cluster, key[1]) in places}
    else:
        wanted = {(one.item, one.seed) for side in seen for one in side}
    empty = Comparison(
        suite=suite.name,
        metric=metric,
        primary=metric.name in suite.primary,
        figure=figure,
        asked=len(wanted),
    )
    ours, theirs = (side[metric.name] for side in sides.paired)
    paired = _figures_paired(empty, ours, theirs) if figure else _paired(empty, ours, theirs)
    return replace(paired, left_out=len(wanted - sides.shared) + paired.undecided)


def _paired(
    empty: Comparison, ours: Sequence[Observation], theirs: Sequence[Observation]
) -> Comparison:
    """Of a metric, item by item."""
    other = {(one.item, one.seed): one.value for one in theirs}
    pairs = [
        (one, bool(one.value), bool(other[one.item, one.seed]))
        for one in ours
        if one.value is not None and other[one.item, one.seed] is not None
    ]
    # Items of which neither side has a value are those the metric does not apply to.
    undecided = sum((one.value is None) != (other[one.item, one.seed] is None) for one in ours)
    if not pairs:
        return replace(empty, undecided=undecided)
    known, values_a, values_b = (list(column) for column in zip(*pairs, strict=True))
    clusters = [one.cluster for one in known]
    differences = [int(b) - int(a) for _, a, b in pairs]
    return replace(
        empty,
        pairs=len(pairs),
        clusters=len(set(clusters)),
        rate_a=sum(values_a) / len(pairs),
        rate_b=sum(values_b) / len(pairs),
        n_a=len(pairs),
        n_b=len(pairs),
        difference=clustered_bootstrap_difference(values_b, values_a, clusters),
        p=mcnemar_clustered(differences, clusters),
        detectable=detectable_difference(differences, clusters),
        undecided=undecided,
        changes=tuple(
            Change(item=one.item, seed=one.seed, fixed=good(empty.metric, b))
            for one, a, b in pairs
            if a != b
        ),
    )


def _figures_paired(
    empty: Comparison, ours: Sequence[Observation], theirs: Sequence[Observation]
) -> Comparison:
    """Of a figure, by its rates: A and B may have other numbers of outcomes in a cluster."""
    empty = replace(empty, n_a=len(ours), n_b=len(theirs))
    if not ours or not theirs:
        return empty
    counts = [_counts(side, seeds=True) for side in (ours, theirs)]
    places = list(dict.fromkeys([*counts[0], *counts[1]]))
    whole = [_counts(side, seeds=False) for side in (ours, theirs)]
    clusters = list(dict.fromkeys((place[0], 0) for place in places))
    table = Ratios(
        ours=[whole[1].get(one, (0, 0)) for one in clusters],
        theirs=[whole[0].get(one, (0, 0)) for one in clusters],
    )
    changes = []
    for cluster, seed in places:
        (hits, n), (other, m) = (side.get((cluster, seed), (0, 0)) for side in counts)
        if n and m and hits * m != other * n:
            better = good(empty.metric, other * n > hits * m)
            changes.append(Change(item=cluster, seed=seed, fixed=better))
    return replace(
        empty,
        pairs=len(places),
        clusters=len(clusters),
        rate_a=sum(bool(one.value) for one in ours) / len(ours),
        rate_b=sum(bool(one.value) for one in theirs) / len(theirs),
        difference=ratio_difference(table),
        p=ratio_test(table),
        detectable=ratio_detectable(table),
        changes=tuple(changes),
    )


def _counts(seen: Sequence[Observation], *, seeds: bool) -> dict[Key, tuple[int, int]]:
    """Hits and number by cluster, and by seed or over all seeds."""
    found: dict[Key, tuple[int, int]] = {}
    for one in seen:
        place = (one.cluster, one.seed if seeds else 0)
        hits, n = found.get(place, (0, 0))
        found[place] = (hits + bool(one.value), n + 1)
    return found


def _by_suite(records: Iterable[Record]) -> dict[str, list[Record]]:
    return {
        suite: [record for members in models.values() for record in members]
        for suite, models in grouped(records).items()
    }


def _listed(suites: Iterable[str]) -> str:
    return ", ".join(suites) or "none"
