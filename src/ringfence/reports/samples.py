"""Replies that a report shows: those that failed, at most so many. Knows nothing of HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ringfence.records import Record
from ringfence.reports.observations import good, metrics_of
from ringfence.suites import Metric, Suite

MOST = 20
"""Failing samples of a suite, model and metric that are shown, unless the user says otherwise."""
MOST_NAMED = 500
MOST_CHARACTERS = 24_000_000
"""Of all prompts and replies that one report shows."""
MOST_OF_A_TEXT = 8_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Failing:
    """What failed of one model on one metric.

    Attributes:
        shown: records in full, in order of the run.
        named: ids of others; `count` says how many failed in all.
    """

    suite: str
    model: str
    metric: Metric
    count: int
    shown: tuple[Record, ...]
    named: tuple[str, ...]


class Room:
    """Characters that a report has left for samples."""

    def __init__(self, characters: int = MOST_CHARACTERS) -> None:
        """All of them."""
        self._left = characters

    def takes(self, record: Record) -> bool:
        """Whether the record still fits; if so its characters are gone."""
        size = 500 + min(len(record.reply), MOST_OF_A_TEXT)
        for message in record.prompt:
            size += 200 + min(len(str(message.get("content") or "")), MOST_OF_A_TEXT)
        if size > self._left:
            return False
        self._left -= size
        return True


def failing(
    suite: Suite, models: Mapping[str, Sequence[Record]], most: int, room: Room
) -> tuple[Failing, ...]:
    """Failing samples, model by model and metric by metric; those without any are left out."""
    found = []
    for model, records in models.items():
        for metric in metrics_of(suite):
            failed = [
                record
                for record in records
                if (value := record.outcomes.get(metric.name)) is not None
                and not good(metric, value)
            ]
            if not failed:
                continue
            shown = [record for record in failed[:most] if room.takes(record)]
            there = {record.key for record in shown}
            rest = [record for record in failed if record.key not in there]
            found.append(
                Failing(
                    suite=suite.name,
                    model=model,
                    metric=metric,
                    count=len(failed),
                    shown=tuple(shown),
                    named=tuple(f"{one.item} (seed {one.seed})" for one in rest[:MOST_NAMED]),
                )
            )
    return tuple(found)
