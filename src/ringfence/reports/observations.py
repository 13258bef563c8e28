"""Records sorted by suite, model and metric. Knows nothing of statistics or of how they are shown.

A figure that needs several replies of a cluster is computed cluster by cluster and seed by seed, so
that it has intervals and pairs like any other metric.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.records import Record, Run
from ringfence.suites import SUITES, Metric, Suite

Grouped = dict[str, dict[str, list[Record]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Whether a metric came true for one item with one seed; None: undecided or not asked."""

    item: str
    seed: int
    cluster: str
    value: bool | None


def merged(runs: Sequence[Run]) -> tuple[Record, ...]:
    """Records of several runs.

    A model that several hold is one where they measured it on different suites, with the same
    weights and options by their manifests; else it gets the folder's name put to its own. Models
    of a run come in the order of its manifest.

    Raises:
        InputError: none has a record; a folder is named twice.
    """
    _check_distinct(runs)
    names = Counter(run.path.name for run in runs)
    apart = {model for model in _models(runs) if not _one(model, runs)}
    records: list[Record] = []
    for run in runs:
        where = str(run.path) if names[run.path.name] > 1 else run.path.name
        records += [
            replace(record, model=f"{record.model} @ {where}") if record.model in apart else record
            for record in _in_order(run)
        ]
    if not records:
        raise InputError(f"{', '.join(str(run.path) for run in runs)}: no finished sample yet")
    return tuple(records)


def _check_distinct(runs: Sequence[Run]) -> None:
    known: set[Path] = set()
    for run in runs:
        if run.path.resolve() in known:
            raise InputError(f"{run.path}: is named twice, and its samples would count twice")
        known.add(run.path.resolve())


def _in_order(run: Run) -> list[Record]:
    """By models as the user named them: the others are compared with the first."""
    told = run.manifest.get("models")
    named = told if isinstance(told, list) else []
    return sorted(
        run.records, key=lambda one: named.index(one.model) if one.model in named else len(named)
    )


def _models(runs: Sequence[Run]) -> set[str]:
    return {record.model for run in runs for record in run.records}


def _one(model: str, runs: Sequence[Run]) -> bool:
    holders = [run for run in runs if any(record.model == model for record in run.records)]
    suites = [{each.suite for each in run.records if each.model == model} for run in holders]
    told = []
    for run in holders:
        told.append([_of(run.manifest.get(field), model) for field in ("hashes", "options")])
    disjoint = sum(map(len, suites)) == len(set[str]().union(*suites))
    return len(holders) == 1 or (disjoint and all(each == told[0] for each in told))


def _of(told: Any, model: str) -> Any:
    return told.get(model) if isinstance(told, dict) else None


def grouped(records: Iterable[Record]) -> Grouped:
    """Suite → model → records, all in order of first appearance."""
    groups: Grouped = {}
    for record in records:
        groups.setdefault(record.suite, {}).setdefault(record.model, []).append(record)
    return groups


def suite_of(
    name: str, records: Iterable[Record], catalogue: Mapping[str, Suite] | None = None
) -> Suite:
    """The suite; one that is not known is described by what its records hold, as diagnostics."""
    known = SUITES if catalogue is None else catalogue
    if name in known:
        return known[name]
    metrics = dict.fromkeys(metric for record in records for metric in record.outcomes)
    unknown = "unknown: this suite is not part of this installation"
    return Suite(
        name=name,
        title=name,
        measures=unknown,
        threat_model=unknown,
        source=unknown,
        licence=unknown,
        size=unknown,
        not_meaning=unknown,
        static=True,
        packaged=False,
        max_tokens=1,
        metrics=tuple(
            Metric(name=metric, kind="diagnostic", better="higher", words="Unknown.")
            for metric in metrics
        ),
        primary=tuple(metrics),
        load=lambda data, seed: (),
        check=_ungraded,
    )


def metrics_of(suite: Suite) -> tuple[Metric, ...]:
    """Metrics and figures, those that stand for the suite first."""
    both = (*suite.metrics, *suite.figures)
    rank = {name: place for place, name in enumerate(suite.primary)}
    return tuple(sorted(both, key=lambda metric: rank.get(metric.name, len(rank))))


def observations(suite: Suite, records: Sequence[Record]) -> dict[str, list[Observation]]:
    """Metric or figure → what was seen of it, for the records of one model."""
    found: dict[str, list[Observation]] = {
        metric.name: [
            Observation(
                item=record.item,
                seed=record.seed,
                cluster=record.cluster,
                value=record.outcomes.get(metric.name),
            )
            for record in records
        ]
        for metric in suite.metrics
    }
    if suite.figures:
        found.update(_figures(suite, records))
    return found


def good(metric: Metric, value: bool) -> bool:
    """Whether an outcome is the one to be wished for."""
    return value is (metric.better == "higher")


def decided(seen: Iterable[Observation]) -> list[Observation]:
    """Those with a value."""
    return [one for one in seen if one.value is not None]


def _figures(suite: Suite, records: Sequence[Record]) -> dict[str, list[Observation]]:
    found: dict[str, list[Observation]] = {metric.name: [] for metric in suite.figures}
    clusters: dict[tuple[str, int], list[Record]] = {}
    for record in records:
        clusters.setdefault((record.cluster, record.seed), []).append(record)
    for (cluster, seed), members in clusters.items():
        for name, (hits, n) in suite.aggregates(members).items():
            # Those that came true first, so that counts of two models pair up one by one.
            for place in range(n if name in found else 0):
                found[name].append(
                    Observation(
                        item=f"{cluster}#{place}", seed=seed, cluster=cluster, value=place < hits
                    )
                )
    return found


def _ungraded(grading: Mapping[str, Any], reply: str) -> dict[str, bool | None]:
    return {}
