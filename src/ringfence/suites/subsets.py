"""Small parts of many items: seeded, and balanced. Knows nothing of what items are about."""

from __future__ import annotations

import random
from collections import Counter
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

    Every kind takes clusters in one order, those with most kinds first: what is drawn of two kinds
    is of the same clusters, so that an attack comes with its twin.

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
    queues = (_whole if whole else _single)(everything, rng)
    chosen: list[int] = []
    for group in in_turn(queues):
        if not chosen or len(chosen) + len(group) <= limit:
            chosen.extend(group)
    return [everything[place] for place in sorted(chosen)]


def _whole(items: Sequence[_Sortable], rng: random.Random) -> list[list[list[int]]]:
    """For every kind its clusters, as places of their items."""
    clusters: dict[str, list[int]] = {}
    for place, item in enumerate(items):
        clusters.setdefault(item.cluster, []).append(place)
    kinds: dict[str, list[list[int]]] = {}
    for name in sorted(clusters):
        kinds.setdefault(items[clusters[name][0]].kind, []).append(clusters[name])
    for kind in sorted(kinds):
        rng.shuffle(kinds[kind])
    return [kinds[kind] for kind in sorted(kinds)]


def _single(items: Sequence[_Sortable], rng: random.Random) -> list[list[list[int]]]:
    """For every kind its items, clusters in turn, as lists of one place."""
    kinds: dict[str, dict[str, list[int]]] = {}
    for place, item in enumerate(items):
        kinds.setdefault(item.kind, {}).setdefault(item.cluster, []).append(place)
    has = Counter(cluster for clusters in kinds.values() for cluster in clusters)
    ranks: dict[str, int] = {}
    queues = []
    for kind in sorted(kinds):
        new = sorted(set(kinds[kind]) - set(ranks))
        rng.shuffle(new)
        for name in new:
            ranks[name] = len(ranks)
        order = sorted(kinds[kind], key=lambda name: (-has[name], ranks[name]))
        groups = [kinds[kind][name] for name in order]
        for group in groups:
            rng.shuffle(group)
        queues.append([[place] for place in in_turn(groups)])
    return queues


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
