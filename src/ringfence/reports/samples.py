"""Replies that a report shows: those that failed or never came, as many as there is room for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringfence.records import Record
from ringfence.reports.markup import shown
from ringfence.reports.observations import good, metrics_of
from ringfence.suites import Metric, Suite

MOST_NAMED = 5_000
"""Ids of samples that do not fit, of a suite, model and metric."""
MOST_CHARACTERS = 24_000_000
"""Of all prompts and replies that one report shows, with their markup."""
MOST_OF_A_TEXT = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """What failed of one model on one metric.

    Attributes:
        metric: None for replies that never came.
        shown: records in full, in order of the run; one that fails on several metrics is in each.
        named: ids of others; `count` says how many failed in all.
    """

    suite: str
    model: str
    metric: Metric | None
    count: int
    shown: tuple[Record, ...]
    named: tuple[str, ...]

    @property
    def name(self) -> str:
        """Of the metric; empty for replies that never came."""
        return self.metric.name if self.metric else ""


class Room:
    """Characters that a report has left for samples."""

    def __init__(self, characters: int | None = None) -> None:
        """`MOST_CHARACTERS` of them, unless told."""
        self._left = MOST_CHARACTERS if characters is None else characters
        self._taken: set[tuple[str, str, str, int]] = set()

    def takes(self, record: Record) -> bool:
        """Whether the record still fits; if so its characters are gone, the first time."""
        if record.key in self._taken:
            return True
        size = 500 + _size(record.reply) + len(shown(record.error))
        for message in record.prompt:
            texts = (str(message.get("content") or ""), json.dumps(message.get("tool_calls")))
            size += 200 + sum(map(_size, texts))
        if size > self._left:
            return False
        self._left -= size
        self._taken.add(record.key)
        return True


def _size(text: str) -> int:
    return len(shown(text, MOST_OF_A_TEXT))


def failing(
    suite: Suite, models: Mapping[str, Sequence[Record]], most: int | None, room: Room
) -> tuple[Failing, ...]:
    """Failing samples, model by model and metric by metric; those without any are left out.

    Args:
        suite: of the records.
        models: model → records.
        most: samples of a metric shown in full; None: as many as fit.
        room: that the report has left.
    """
    found = []
    for model, records in models.items():
        groups: list[tuple[Metric | None, list[Record]]] = [
            (None, [record for record in records if record.error])
        ]
        for metric in metrics_of(suite):
            groups.append((metric, [record for record in records if _failed(metric, record)]))
        for named, failed in groups:
            if failed:
                found.append(_group(suite.name, model, named, failed, most, room))
    return tuple(found)


def _failed(metric: Metric, record: Record) -> bool:
    value = record.outcomes.get(metric.name)
    return value is not None and not good(metric, value)


def _group(
    suite: str,
    model: str,
    metric: Metric | None,
    failed: Sequence[Record],
    most: int | None,
    room: Room,
) -> Failing:
    shown = [record for record in failed[:most] if room.takes(record)]
    there = {record.key for record in shown}
    rest = [record for record in failed if record.key not in there]
    return Failing(
        suite=suite,
        model=model,
        metric=metric,
        count=len(failed),
        shown=tuple(shown),
        named=tuple(f"{one.item} (seed {one.seed})" for one in rest[:MOST_NAMED]),
    )
