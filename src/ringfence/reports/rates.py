"""Rates of one model on one metric, and what is made of several. Knows nothing of pages.

Every rate has Wilson's 95 % interval, at the effective sample size where items share a cluster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringfence.records import Record
from ringfence.reports.observations import Observation, decided, good
from ringfence.statistics import (
    AttackRate,
    Interval,
    asr_at_k,
    clustered_rate,
    shared_correlation,
    sum_of_rates,
)
from ringfence.suites import Metric, Suite, Twin

KINDS = ("robustness", "over-refusal", "fidelity", "capability", "utility")
TRIES = (1, 10, 100)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often a metric came true.

    Attributes:
        n: decided outcomes; `hits` of them came true and `failing` are not as wished.
        undecided: replies to which the metric does not apply, or that could not be graded.
        clusters: distinct ones among the decided; `clustered` where fewer than `n`.
        interval: None where nothing was decided.
        by_seed: seed → rate.
    """

    suite: str
    model: str
    metric: Metric
    primary: bool
    hits: int
    n: int
    failing: int
    undecided: int
    clusters: int
    interval: Interval | None
    by_seed: Mapping[int, float]

    @property
    def clustered(self) -> bool:
        """Whether items share clusters."""
        return self.clusters < self.n

    @property
    def goodness(self) -> Interval | None:
        """The rate turned so that higher is better."""
        if self.interval is None or self.metric.better == "higher":
            return self.interval
        one = self.interval
        return Interval(estimate=1 - one.estimate, low=1 - one.high, high=1 - one.low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A security figure with its benign twin, and J = security + benign - 1."""

    suite: str
    model: str
    twin: Twin
    security: Interval
    benign: Interval
    j: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """One of the numbers to be read together: the mean over suites, turned so that high is good.

    `parts`: the metrics it is made of, the same for every model.
    """

    model: str
    kind: str
    interval: Interval
    parts: tuple[str, ...]


def rate(suite: Suite, model: str, metric: Metric, seen: Sequence[Observation], asked: int) -> Rate:
    """The rate of one metric. `asked`: replies it could have been graded on."""
    known = decided(seen)
    values = [bool(one.value) for one in known]
    clusters = [one.cluster for one in known]
    seeds: dict[int, list[bool]] = {}
    for one, value in zip(known, values, strict=True):
        seeds.setdefault(one.seed, []).append(value)
    hits = sum(values)
    return Rate(
        suite=suite.name,
        model=model,
        metric=metric,
        primary=metric.name in suite.primary,
        hits=hits,
        n=len(values),
        failing=sum(not good(metric, value) for value in values),
        undecided=max(0, asked - len(values)) if metric in suite.metrics else 0,
        clusters=len(set(clusters)),
        interval=clustered_rate(values, clusters) if values else None,
        by_seed={seed: sum(known) / len(known) for seed, known in sorted(seeds.items())},
    )


def attack_rates(metric: Metric, seen: Sequence[Observation]) -> tuple[AttackRate, ...]:
    """Attack success at 1, 10 and 100 tries, where the tries at an item are its seeds.

    Empty unless the metric is one of robustness and some item was tried more than once.
    """
    tries: dict[tuple[str, str], list[bool]] = {}
    for one in decided(seen):
        breach = not good(metric, bool(one.value))
        tries.setdefault((one.cluster, one.item), []).append(breach)
    if metric.kind != "robustness" or all(len(one) < 2 for one in tries.values()):
        return ()
    counts = [len(one) for one in tries.values()]
    breaches = [sum(one) for one in tries.values()]
    clusters = [cluster for cluster, _ in tries]
    return tuple(asr_at_k(counts, breaches, k, clusters) for k in TRIES)


def balances(
    suite: Suite, model: str, seen: Mapping[str, Sequence[Observation]]
) -> tuple[Balance, ...]:
    """J of every pair of the suite that was decided on both sides."""
    found = []
    for twin in suite.twins:
        sides: list[tuple[list[bool], list[str]]] = []
        for name in (twin.security, twin.benign):
            metric = suite.metric(name)
            known = decided(seen.get(name, ()))
            sides.append(
                (
                    [good(metric, bool(one.value)) for one in known],
                    [one.cluster for one in known],
                )
            )
        (secure, at), (served, there) = sides
        if not secure or not served:
            continue
        security, benign = clustered_rate(secure, at), clustered_rate(served, there)
        shared = shared_correlation(secure, at, served, there)
        found.append(
            Balance(
                suite=suite.name,
                model=model,
                twin=twin,
                security=security,
                benign=benign,
                j=sum_of_rates(security, benign, shared),
            )
        )
    return tuple(found)


def overview(rates: Sequence[Rate]) -> tuple[Overview, ...]:
    """Robustness, over-refusal, fidelity, capability and utility of every model.

    Of every suite the primary metrics of a kind count, where every model has them, so that all
    means are of the same; each suite weighs the same. Suites are taken as independent.
    """
    common, _ = _primary(rates)
    found = []
    for model in dict.fromkeys(one.model for one in rates):
        for kind in KINDS:
            suites: dict[str, list[Rate]] = {}
            for one in rates:
                if one.model == model and one.metric.kind == kind and _name(one) in common:
                    suites.setdefault(one.suite, []).append(one)
            if suites:
                found.append(
                    Overview(
                        model=model,
                        kind=kind,
                        interval=_mean([_mean_of(p) for p in suites.values()], independent=True),
                        parts=tuple(_name(one) for p in suites.values() for one in p),
                    )
                )
    return tuple(found)


def apart(rates: Sequence[Rate]) -> tuple[str, ...]:
    """Primary metrics that `overview` leaves out, because some models have them and others not."""
    return _primary(rates)[1]


def _primary(rates: Sequence[Rate]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of those that every model has and that only some have, each by order."""
    models = {one.model for one in rates}
    holders: dict[str, set[str]] = {}
    for one in rates:
        if one.primary and one.metric.kind in KINDS and one.interval is not None:
            holders.setdefault(_name(one), set()).add(one.model)
    common = tuple(name for name, found in holders.items() if found == models)
    return common, tuple(name for name in holders if name not in common)


def _name(one: Rate) -> str:
    return f"{one.suite}.{one.metric.name}"


def _mean_of(rates: Sequence[Rate]) -> Interval:
    """Of metrics of one suite, which share items: bounds are averaged, as if fully correlated."""
    return _mean([one.goodness for one in rates if one.goodness is not None], independent=False)


def _mean(parts: Sequence[Interval], *, independent: bool) -> Interval:
    n = len(parts)
    middle = sum(one.estimate for one in parts) / n

    def side(lengths: list[float]) -> float:
        return math.hypot(*lengths) / n if independent else sum(lengths) / n

    below = side([one.estimate - one.low for one in parts])
    above = side([one.high - one.estimate for one in parts])
    return Interval(estimate=middle, low=middle - below, high=middle + above)


def asked_of(records: Sequence[Record]) -> int:
    """Replies that could be graded: all but those that never came."""
    return sum(not record.error for record in records)
