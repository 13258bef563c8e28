"""Small parts of many items: seeded, and balanced. Knows nothing of what items are about."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
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
        whole: take clusters whole, as many as fit, but at least one.
    """
    everything = list(items)
    if len(everything) <= limit:
        return everything
    rng = random.Random(seed)
    kinds: dict[str, dict[str, list[int]]] = {}
    for place, item in enumerate(everything):
        kinds.setdefault(item.kind, {}).setdefault(item.cluster, []).append(place)
    queues = []
    for kind in sorted(kinds):
        groups = [kinds[kind][cluster] for cluster in sorted(kinds[kind])]
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


Thing = TypeVar("Thing")


def in_turn(queues: Sequence[Sequence[Thing]]) -> Iterator[Thing]:
    """First things first, then the second ones, until every queue is empty."""
    for place in range(max(map(len, queues), default=0)):
        for queue in queues:
            if place < len(queue):
                yield queue[place]
