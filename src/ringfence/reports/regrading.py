"""Stored replies graded again: do the graders of today say what was stored?

Knows no Inspect: items come from the suites, and count only where their prompt is the stored one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.records import Record, asked
from ringfence.suites import SUITES, Item, Suite


@dataclass(frozen=True, slots=True, kw_only=True)
class Differing:
    """An outcome that is another today."""

    model: str
    suite: str
    item: str
    seed: int
    metric: str
    stored: bool | None
    now: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regraded:
    """What grading again found.

    Attributes:
        replies: graded again.
        left_out: reason → how many were not.
        differing: outcomes, in order of the records.
        records: all of them; those that were graded again with what the graders say now.
        ungraded: suite, item and seed of the others.
    """

    replies: int
    left_out: Mapping[str, int]
    differing: tuple[Differing, ...]
    records: tuple[Record, ...] = ()
    ungraded: frozenset[tuple[str, str, int]] = frozenset()

    def to_json(self) -> dict[str, Any]:
        """For programs: what was found, without the records."""
        return {
            "replies": self.replies,
            "left_out": dict(self.left_out),
            "differing": [asdict(one) for one in self.differing],
        }


def regraded(
    records: Iterable[Record],
    data: Path | None = None,
    limit: int | None = None,
    catalogue: Mapping[str, Suite] | None = None,
) -> Regraded:
    """Grade replies again with the graders of the suites.

    Args:
        records: of any models.
        data: folder that the run was made with.
        limit: of the run; its items are drawn anew, and where one is not among them, all items are
            read: the run may have been drawn by other rules.
        catalogue: suites; those of this installation unless given.

    Raises:
        InputError: nothing could be graded; data is missing.
    """
    known = SUITES if catalogue is None else catalogue
    items: dict[str, _Items] = {}
    left: dict[str, int] = {}
    found: list[Differing] = []
    whole: list[Record] = []
    ungraded: set[tuple[str, str, int]] = set()
    for record in records:
        item = None
        reason = _unfit(record, known)
        if not reason:
            if record.suite not in items:
                items[record.suite] = _Items(known[record.suite], data, limit)
            item = items[record.suite].get(record.item)
            reason = _other(record, item)
        if reason or item is None:
            left[reason] = left.get(reason, 0) + 1
            whole.append(record)
            ungraded.add((record.suite, record.item, record.seed))
            continue
        now = known[record.suite].grade(item.grading, record.reply, record.reason)
        whole.append(replace(record, outcomes=now))
        for metric in [*record.outcomes, *(name for name in now if name not in record.outcomes)]:
            if record.outcomes.get(metric) is not now.get(metric):
                found.append(
                    Differing(
                        model=record.model,
                        suite=record.suite,
                        item=record.item,
                        seed=record.seed,
                        metric=metric,
                        stored=record.outcomes.get(metric),
                        now=now.get(metric),
                    )
                )
    if not (replies := len(whole) - sum(left.values())):
        reasons = "; ".join(f"{reason}: {count}" for reason, count in left.items())
        raise InputError(f"--regrade: no reply could be graded again ({reasons or 'no records'})")
    return Regraded(
        replies=replies,
        left_out=left,
        differing=tuple(found),
        records=tuple(whole),
        ungraded=frozenset(ungraded),
    )


class _Items:
    """Items of a suite by id: those of a limit, and every one as soon as another is wanted."""

    def __init__(self, suite: Suite, data: Path | None, limit: int | None) -> None:
        self._suite, self._data = suite, data
        self._all = limit is None
        self._found = {item.id: item for item in suite.items(data, limit, 0)}

    def get(self, id: str) -> Item | None:
        """None where the suite has no such item."""
        if id not in self._found and not self._all:
            self._all = True
            self._found = {item.id: item for item in self._suite.items(self._data)}
        return self._found.get(id)


def _unfit(record: Record, known: Mapping[str, Suite]) -> str:
    if record.suite not in known:
        return f"suite {record.suite} is not part of this installation"
    return "the reply never came" if record.error else ""


def _other(record: Record, item: Item | None) -> str:
    if item is None:
        return "the suite no longer has the item"
    if record.prompt and asked(record.prompt) != asked(item.messages):
        return "the prompt of the item is another today"
    return ""
