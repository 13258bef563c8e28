"""What a report says: the figures of runs, before they are shown. Knows nothing of HTML or files.

Read models × metrics first, then the numbers that belong together, costs and paired comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.records import Run
from ringfence.reports.comparison import Comparison, compare
from ringfence.reports.costs import CostRow, cost_rows
from ringfence.reports.observations import grouped, merged, metrics_of, observations, suite_of
from ringfence.reports.rates import (
    Balance,
    Overview,
    Rate,
    asked_of,
    attack_rates,
    balances,
    overview,
    rate,
)
from ringfence.reports.samples import MOST, Failing, Room, failing
from ringfence.statistics import AttackRate
from ringfence.suites import Metric, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Tries:
    """Attack success at several tries of one model on one metric."""

    model: str
    metric: Metric
    rates: tuple[AttackRate, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteReport:
    """Everything of one suite. `items`: distinct ones; `errors`: replies that never came."""

    suite: Suite
    models: tuple[str, ...]
    items: int
    seeds: tuple[int, ...]
    errors: int
    rates: tuple[Rate, ...]
    balances: tuple[Balance, ...]
    tries: tuple[Tries, ...]
    failing: tuple[Failing, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything of some runs.

    Attributes:
        manifests: name of the folder → what its `run.json` says.
        models: in order of first appearance; the others are compared with the first.
        comparisons: model → against the first one, where they share items.
    """

    manifests: Mapping[str, Mapping[str, Any]]
    logs: tuple[str, ...]
    models: tuple[str, ...]
    suites: tuple[SuiteReport, ...]
    overview: tuple[Overview, ...]
    costs: tuple[CostRow, ...]
    comparisons: Mapping[str, tuple[Comparison, ...]]

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Of all suites."""
        return tuple(rate for suite in self.suites for rate in suite.rates)


def report_of(
    runs: Sequence[Run], catalogue: Mapping[str, Suite] | None = None, most: int = MOST
) -> Report:
    """The report of runs; at most `most` failing samples a suite, model and metric.

    Raises:
        InputError: no run has a record.
    """
    records = merged(runs)
    models = tuple(dict.fromkeys(record.model for record in records))
    room = Room()
    suites: list[SuiteReport] = []
    for name, members in grouped(records).items():
        every = [record for one in members.values() for record in one]
        suite = suite_of(name, every, catalogue)
        rates: list[Rate] = []
        pairs: list[Balance] = []
        tries: list[Tries] = []
        for model, own in members.items():
            seen = observations(suite, own)
            pairs.extend(balances(suite, model, seen))
            for metric in metrics_of(suite):
                rates.append(rate(suite, model, metric, seen[metric.name], asked_of(own)))
                if found := attack_rates(metric, seen[metric.name]):
                    tries.append(Tries(model=model, metric=metric, rates=found))
        suites.append(
            SuiteReport(
                suite=suite,
                models=tuple(members),
                items=len({record.item for record in every}),
                seeds=tuple(sorted({record.seed for record in every})),
                errors=sum(bool(record.error) for record in every),
                rates=tuple(rates),
                balances=tuple(pairs),
                tries=tuple(tries),
                failing=failing(suite, members, most, room),
            )
        )
    by_model = {model: [r for r in records if r.model == model] for model in models}
    first = models[0]
    comparisons: dict[str, tuple[Comparison, ...]] = {}
    keys = {(record.suite, record.item, record.seed) for record in by_model[first]}
    for model in models[1:]:
        if any((r.suite, r.item, r.seed) in keys for r in by_model[model]):
            comparisons[model] = compare(by_model[first], by_model[model], catalogue)
    return Report(
        manifests={str(run.path): run.manifest for run in runs},
        logs=tuple(str(run.path / "logs") for run in runs),
        models=models,
        suites=tuple(suites),
        overview=overview([one for suite in suites for one in suite.rates]),
        costs=cost_rows(records),
        comparisons=comparisons,
    )
