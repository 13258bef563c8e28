"""Reports and comparisons as JSON. Numbers are rates in [0, 1]; nothing is rounded."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from ringfence.reports.comparison import Comparison
from ringfence.reports.contents import Report, SuiteReport
from ringfence.reports.gates import GateResult
from ringfence.reports.rates import Rate
from ringfence.reports.verdicts import verdict
from ringfence.statistics import Interval


def report_as_data(report: Report) -> dict[str, Any]:
    """A report, without the text of samples: those are in the run's own `records.jsonl`."""
    return {
        "runs": {path: dict(manifest) for path, manifest in report.manifests.items()},
        "models": list(report.models),
        "greedy": list(report.greedy),
        "overview": [
            {
                "model": one.model,
                "kind": one.kind,
                "goodness": _interval(one.interval),
                "parts": list(one.parts),
            }
            for one in report.overview
        ],
        "apart": list(report.apart),
        "suites": [_suite(one) for one in report.suites],
        "costs": [asdict(one) for one in report.costs],
        "comparisons": {
            model: [comparison_as_data(one, report.models[0], model, 0) for one in found]
            for model, found in report.comparisons.items()
        },
    }


def comparison_as_data(one: Comparison, a: str, b: str, most: int = 1000) -> dict[str, Any]:
    """A comparison with at most `most` of its changed items."""
    return {
        "suite": one.suite,
        "metric": one.metric.name,
        "kind": one.metric.kind,
        "better": one.metric.better,
        "primary": one.primary,
        "pairs": one.pairs,
        "clusters": one.clusters,
        "figure": one.figure,
        "undecided": one.undecided,
        "asked": one.asked,
        "left_out": one.left_out,
        "rate_a": one.rate_a,
        "rate_b": one.rate_b,
        "n_a": one.n_a,
        "n_b": one.n_b,
        "difference": _interval(one.difference),
        "fixed": one.fixed,
        "broken": one.broken,
        "mcnemar_p": one.p,
        "holm_p": one.p_holm,
        "detectable": one.detectable,
        "verdict": verdict(one, a, b),
        "changes": [asdict(change) for change in one.changes[:most]],
    }


def gates_as_data(results: Iterable[GateResult]) -> list[dict[str, Any]]:
    """What became of `--fail-if`."""
    return [
        {
            "gate": one.gate.text,
            "suite": one.comparison.suite,
            "metric": one.comparison.metric.name,
            "holds": one.holds,
            "incomplete": one.incomplete,
            "words": one.words,
        }
        for one in results
    ]


def _suite(one: SuiteReport) -> dict[str, Any]:
    return {
        "suite": one.suite.name,
        "title": one.suite.title,
        "threat_model": one.suite.threat_model,
        "not_meaning": one.suite.not_meaning,
        "static": one.suite.static,
        "items": one.items,
        "seeds": list(one.seeds),
        "errors": one.errors,
        "rates": _rates(one.rates),
        "balances": [
            {
                "model": pair.model,
                "name": pair.twin.name,
                "security": pair.twin.security,
                "benign": pair.twin.benign,
                "security_rate": _interval(pair.security),
                "benign_rate": _interval(pair.benign),
                "j": _interval(pair.j),
            }
            for pair in one.balances
        ],
        "attack_success": [
            {
                "model": tries.model,
                "metric": tries.metric.name,
                "k": rate.k,
                "rate": _interval(rate.rate),
                "items": rate.items,
                "left_out": rate.left_out,
            }
            for tries in one.tries
            for rate in tries.rates
        ],
        "failing": [
            {
                "model": found.model,
                "metric": found.metric.name if found.metric else None,
                "count": found.count,
                "items": [f"{r.item} (seed {r.seed})" for r in found.shown] + list(found.named),
            }
            for found in one.failing
        ],
    }


def _rates(rates: Sequence[Rate]) -> list[dict[str, Any]]:
    return [
        {
            "model": one.model,
            "metric": one.metric.name,
            "kind": one.metric.kind,
            "better": one.metric.better,
            "primary": one.primary,
            "rate": _interval(one.interval),
            "hits": one.hits,
            "n": one.n,
            "undecided": one.undecided,
            "clusters": one.clusters,
            "by_seed": {str(seed): value for seed, value in one.by_seed.items()},
        }
        for one in rates
    ]


def _interval(one: Interval | None) -> dict[str, float] | None:
    return None if one is None else asdict(one)
