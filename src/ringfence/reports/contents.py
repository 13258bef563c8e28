"""What a report says: the figures of runs, before they are shown. Knows nothing of HTML or files.

Read models × metrics first, then the numbers that belong together, costs and paired comparisons.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ringfence.errors import InputError
from ringfence.records import Record, Run
from ringfence.reports.comparison import Comparison, compare
from ringfence.reports.costs import CostRow, cost_rows
from ringfence.reports.observations import grouped, merged, metrics_of, observations, suite_of
from ringfence.reports.rates import (
    Balance,
    Overview,
    Rate,
    apart,
    asked_of,
    attack_rates,
    balances,
    overview,
    rate,
)
from ringfence.reports.samples import Failing, Room, failing
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
        apart: primary metrics that are in no mean, because not every model has them.
        greedy: models with several seeds whose drafts are the likeliest ones: seeds are no tries.
        comparisons: model → against the first one, where they share items.
    """

    manifests: Mapping[str, Mapping[str, Any]]
    logs: tuple[str, ...]
    models: tuple[str, ...]
    greedy: tuple[str, ...]
    suites: tuple[SuiteReport, ...]
    overview: tuple[Overview, ...]
    apart: tuple[str, ...]
    costs: tuple[CostRow, ...]
    comparisons: Mapping[str, tuple[Comparison, ...]]

    @property
    def rates(self) -> tuple[Rate, ...]:
        """Of all suites."""
        return tuple(rate for suite in self.suites for rate in suite.rates)


def report_of(
    runs: Sequence[Run], catalogue: Mapping[str, Suite] | None = None, most: int | None = None
) -> Report:
    """The report of runs, with all failing samples that fit.

    Args:
        runs: folders, read.
        catalogue: suites; those of this installation unless given.
        most: failing samples shown of a suite, model and metric; None: no limit.

    Raises:
        InputError: no run has a record.
    """
    records = merged(runs)
    models = tuple(dict.fromkeys(record.model for record in records))
    greedy = _greedy(runs, records)
    room = Room()
    suites: list[SuiteReport] = []
    for name, members in grouped(records).items():
        every = [record for one in members.values() for record in one]
        suite = suite_of(name, every, catalogue)
        suites.append(_of_suite(suite, members, greedy, failing(suite, members, most, room)))
    by_model = {model: [r for r in records if r.model == model] for model in models}
    first = models[0]
    comparisons: dict[str, tuple[Comparison, ...]] = {}
    for model in models[1:]:
        # Models that share nothing are not compared.
        with suppress(InputError):
            comparisons[model] = compare(by_model[first], by_model[model], catalogue)
    rates = [one for suite in suites for one in suite.rates]
    return Report(
        manifests={str(run.path): run.manifest for run in runs},
        logs=tuple(str(run.path / "logs") for run in runs),
        models=models,
        greedy=greedy,
        suites=tuple(suites),
        overview=overview(rates),
        apart=apart(rates),
        costs=cost_rows(records),
        comparisons=comparisons,
    )


def _of_suite(
    suite: Suite,
    members: Mapping[str, Sequence[Record]],
    greedy: Sequence[str],
    failed: tuple[Failing, ...],
) -> SuiteReport:
    rates: list[Rate] = []
    pairs: list[Balance] = []
    tries: list[Tries] = []
    for model, own in members.items():
        seen = observations(suite, own)
        pairs.extend(balances(suite, model, seen))
        for metric in metrics_of(suite):
            rates.append(rate(suite, model, metric, seen[metric.name], asked_of(own)))
            # Outcomes of a figure are no items, so that there are no tries at one.
            if model in greedy or metric not in suite.metrics:
                continue
            if found := attack_rates(metric, seen[metric.name]):
                tries.append(Tries(model=model, metric=metric, rates=found))
    every = [record for one in members.values() for record in one]
    return SuiteReport(
        suite=suite,
        models=tuple(members),
        items=len({record.item for record in every}),
        seeds=tuple(sorted({record.seed for record in every})),
        errors=sum(bool(record.error) for record in every),
        rates=tuple(rates),
        balances=tuple(pairs),
        tries=tuple(tries),
        failing=failed,
    )


def _greedy(runs: Sequence[Run], records: Sequence[Record]) -> tuple[str, ...]:
    """Models with several seeds that decode at temperature 0, by what their runs say of them."""
    likeliest: set[str] = set()
    for run in runs:
        options = run.manifest.get("options")
        for model, chosen in options.items() if isinstance(options, dict) else ():
            if _draws_nothing(chosen):
                likeliest.add(model)
    seeds: dict[str, set[int]] = {}
    for record in records:
        seeds.setdefault(record.model, set()).add(record.seed)
    return tuple(
        model
        for model, found in seeds.items()
        # Where names of several runs are the same, the folder stands behind them.
        if len(found) > 1 and {model, model.rpartition(" @ ")[0]} & likeliest
    )


def _draws_nothing(chosen: Any) -> bool:
    options = chosen.get("options") if isinstance(chosen, dict) else None
    # The tree search samples whatever the temperature.
    greedy = isinstance(options, dict) and options.get("temperature") == 0
    return greedy and chosen.get("decoder") != "rain"
