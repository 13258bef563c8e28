"""Examples into rows of a length, rows into batches. Knows nothing of tokens or torch."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
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
        return _shuffled(_shared(order, tree, length), seed)
    if packing == "packed":
        return _shuffled(_packed(order, lengths, length), seed)
    if packing == "grouped":
        return _grouped(order, lengths, batch, seed)
    return [(number,) for number in order]


def _shuffled(made: list[tuple[int, ...]], seed: str) -> list[tuple[int, ...]]:
    Random(seed).shuffle(made)
    return made


def _shared(order: Sequence[int], tree: Tree, length: int) -> list[tuple[int, ...]]:
    """Chunks of a case whose examples share what they can, best fitted into rows.

    What two examples of a row learn in common is learnt once. So an example that comes again comes
    in another row: in one, it would share all it has with itself.
    """
    times: Counter[int] = Counter()
    passes: list[list[int]] = []
    for number in order:
        if times[number] == len(passes):
            passes.append([])
        passes[times[number]].append(number)
        times[number] += 1
    found: list[tuple[int, ...]] = []
    for once in passes:
        chunks = list(_chunks(once, tree, length))
        packed = _packed(range(len(chunks)), [taken for _, taken in chunks], length)
        found += [tuple(number for place in row for number in chunks[place][0]) for row in packed]
    return found


def _chunks(order: Sequence[int], tree: Tree, length: int) -> Iterator[tuple[tuple[int, ...], int]]:
    """Examples of one case, and the places that they take."""
    case_of, tokens_of = tree
    cases: dict[int, list[int]] = {}
    for number in order:
        cases.setdefault(case_of(number), []).append(number)
    for members in cases.values():
        tokens = {number: tokens_of(number) for number in members}
        chunk: tuple[int, ...] = ()
        taken = 0
        # Those that begin alike come one after the other.
        for number in sorted(members, key=lambda number: tokens[number].tolist()):
            longer = size([tokens[each] for each in (*chunk, number)])
            if chunk and longer > length:
                yield chunk, taken
                chunk, longer = (), len(tokens[number])
            chunk, taken = (*chunk, number), longer
        yield chunk, taken


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
