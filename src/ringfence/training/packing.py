"""Examples into rows of a length, rows into batches. Knows nothing of tokens or torch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from random import Random

import numpy as np
from numpy.typing import NDArray

from ringfence.training.recipe import Packing
from ringfence.training.sharing import size

Tree = tuple[Callable[[int], int], Callable[[int], NDArray[np.int64]]]

# Batches within which examples of like length are put side by side.
_WINDOW = 32


def rows(
    order: Sequence[int],
    lengths: Sequence[int],
    *,
    length: int,
    batch: int,
    packing: Packing,
    seed: str,
    tree: Tree | None = None,
) -> list[tuple[int, ...]]:
    """The rows of an epoch, in order; every example stands in exactly one.

    Args:
        order: the examples of the epoch.
        lengths: tokens of every example.
        length: most tokens of a row.
        batch: rows that one device processes at once.
        packing: see `recipe.Sequence`.
        seed: of the order of batches.
        tree: the case of every example, and its tokens; for `shared`.
    """
    if packing == "shared":
        assert tree is not None
        return _shared(order, tree, length)
    if packing == "packed":
        packed = _packed(order, lengths, length)
        Random(seed).shuffle(packed)
        return packed
    if packing == "grouped":
        return _grouped(order, lengths, batch, seed)
    return [(number,) for number in order]


def _shared(order: Sequence[int], tree: Tree, length: int) -> list[tuple[int, ...]]:
    """The examples of a case together, in rows of at most `length` places."""
    case_of, tokens_of = tree
    cases: dict[int, list[int]] = {}
    for number in order:
        cases.setdefault(case_of(number), []).append(number)
    found: list[tuple[int, ...]] = []
    for members in cases.values():
        tokens = {number: tokens_of(number) for number in set(members)}
        row: list[int] = []
        # Those that begin alike come one after the other.
        for number in sorted(members, key=lambda number: tokens[number].tolist()):
            longer = [tokens[each] for each in (*row, number)]
            if row and sum(map(len, longer)) > length and size(longer) > length:
                found.append(tuple(row))
                row = []
            row.append(number)
        found.append(tuple(row))
    return found


def _packed(order: Sequence[int], lengths: Sequence[int], length: int) -> list[tuple[int, ...]]:
    """Best fit, longest first: each into the fullest row that has room for it."""
    bins: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (tokens left, number of the row), sorted
    for number in sorted(order, key=lambda number: -lengths[number]):
        place = bisect_left(room, (lengths[number], -1))
        if place < len(room):
            left, row = room.pop(place)
        else:
            left, row = length, len(bins)
            bins.append([])
        bins[row].append(number)
        insort(room, (left - lengths[number], row))
    return [tuple(row) for row in bins]


def _grouped(
    order: Sequence[int], lengths: Sequence[int], batch: int, seed: str
) -> list[tuple[int, ...]]:
    """Sorted by length within windows, the batches of each window in a random order."""
    rng = Random(seed)
    found: list[tuple[int, ...]] = []
    for start in range(0, len(order), batch * _WINDOW):
        window = sorted(order[start : start + batch * _WINDOW], key=lambda number: lengths[number])
        batches = [window[place : place + batch] for place in range(0, len(window), batch)]
        # A short batch stays at the end, so that all before it keep their bounds.
        last = batches.pop() if len(batches[-1]) < batch else []
        rng.shuffle(batches)
        found += [(number,) for group in (*batches, last) for number in group]
    return found
