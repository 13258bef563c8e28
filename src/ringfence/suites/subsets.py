"""Small parts of many items: seeded, and balanced. Knows nothing of what items are about."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Protocol, TypeVar


class _Sortable(Protocol):
    @property
    def cluster(self) -> str: ...

    @property
    def kind(self) -> str: ...


One = TypeVar("One", bound=_Sortable)


def subset(items: Iterable[One], limit: int, seed: str, *, whole: bool) -> list[One]:
    """At most `limit` items, in their order, kinds in turn and then clusters in turn.

    Args:
        items: any number; read to the end.
        limit: at least 1.
        seed: of the draw.
        whole: take clusters whole, as many as fit, but at least one; a cluster's kind is that of
            its first item.
    """
    everything = list(items)
    if len(everything) <= limit:
        return everything
    rng = random.Random(seed)
    clusters: dict[str, list[int]] = {}
    for place, item in enumerate(everything):
        clusters.setdefault(item.cluster if whole else f"{item.kind}\n{item.cluster}", []).append(
            place
        )
    kinds: dict[str, list[list[int]]] = {}
    for name in sorted(clusters):
        kinds.setdefault(everything[clusters[name][0]].kind, []).append(clusters[name])
    queues = []
    for kind in sorted(kinds):
        groups = kinds[kind]
        rng.shuffle(groups)
        if not whole:
            for group in groups:
                rng.shuffle(group)
            groups = [[place] for place in in_turn(groups)]
        queues.append(groups)
    chosen: list[int] = []
    for group in in_turn(queues):
        if not chosen or len(chosen) + len(group) <= limit:
            chosen.extend(group)
    return [everything[place] for place in sorted(chosen)]


def beginning(items: Iterable[One], limit: int) -> list[One]:
    """The first clusters that make no more than `limit` items, but at least one.

    Args:
        items: clusters one after the other; read no further than needed.
        limit: at least 1.
    """
    chosen: list[One] = []
    for _, group in groupby(items, key=lambda item: item.cluster):
        cluster = list(group)
        if chosen and len(chosen) + len(cluster) > limit:
            break
        chosen.extend(cluster)
    return chosen


Thing = TypeVar("Thing")


def in_turn(queues: Sequence[Sequence[Thing]]) -> Iterator[Thing]:
    """First things first, then the second ones, until every queue is empty."""
    for place in range(max(map(len, queues), default=0)):
        for queue in queues:
            if place < len(queue):
                yield queue[place]
