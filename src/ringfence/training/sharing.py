"""Sequences that begin alike, laid out as a tree, so that what they share is computed once.

Siblings of a case have a system message in common, and a reply and its verdict the whole
conversation. A causal model makes the same of a prefix whatever follows it, so every token of the
tree has the loss and the gradient that it has in its sequence alone, for the price of the distinct
tokens. A token that several sequences of a row learn is one token of the tree: it is learnt once.

Knows nothing of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

# A shorter beginning is not worth a segment of its own.
LEAST = 16
Range = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """A run of tokens in a row, without a branch.

    Attributes:
        start: its first place in the row; `stop` is behind its last.
        seen: places before it that it sees, whole; in itself it sees what comes before.
        of: numbers of the sequences that it is a part of.
        depth: place of its first token in them.
    """

    start: int
    stop: int
    seen: tuple[Range, ...]
    of: tuple[int, ...]
    depth: int

    def moved(self, places: int) -> Segment:
        """The same, so many places further on."""
        return replace(
            self,
            start=self.start + places,
            stop=self.stop + places,
            seen=tuple((start + places, stop + places) for start, stop in self.seen),
        )


def told_apart(ids: NDArray[Any], rings: NDArray[Any]) -> NDArray[np.int64]:
    """What tells tokens apart, one number a token: with another ring a token is another input."""
    return ids.astype(np.int64) << 8 | (rings.astype(np.int64) & 0xFF)


def laid(sequences: Sequence[NDArray[np.int64]], least: int = LEAST) -> list[Segment]:
    """Lay out sequences as a tree.

    A segment below another begins with a copy of the last token above it: that is the one whose
    prediction is the segment's own beginning.

    Args:
        sequences: what tells tokens apart, one number a token; none is empty.
        least: most tokens that are not worth sharing.

    Returns:
        Segments in the order of the row; every sequence is the last segment that is a part of it,
        with those it sees.
    """
    order = sorted(range(len(sequences)), key=lambda number: sequences[number].tolist())
    found: list[Segment] = []
    growing: list[tuple[tuple[int, ...], int, tuple[Range, ...]]] = [(tuple(order), 0, ())]
    while growing:
        of, depth, seen = growing.pop()
        for group in _alike(sequences, of, depth + least):
            # They are in order, so what the first and the last have in common, all have.
            shared = _common(sequences[group[0]], sequences[group[-1]])
            start, first = found[-1].stop if found else 0, max(depth - 1, 0)
            stop = start + shared - first
            found.append(Segment(start=start, stop=stop, seen=seen, of=group, depth=first))
            longer = tuple(number for number in group if len(sequences[number]) > shared)
            if longer:
                above = (start, stop - 1)
                below = (*seen, above) if above[0] < above[1] else seen
                growing.append((longer, shared, below))
    return found


def size(sequences: Sequence[NDArray[np.int64]], least: int = LEAST) -> int:
    """Places that they take when laid out."""
    return laid(sequences, least)[-1].stop if sequences else 0


def learnt_once(sequences: Sequence[NDArray[np.int64]], masks: Sequence[NDArray[Any]]) -> list[int]:
    """Tokens with a loss when they are laid out; of several that learn one, the first has it.

    Args:
        sequences: what tells tokens apart, one number a token.
        masks: of the sequences; not 0 where there is a loss.
    """
    found = [0] * len(sequences)
    for each in laid(sequences):
        # The first place has no loss: it begins the row, or is a copy of the token above.
        where = slice(each.depth + 1, each.depth + each.stop - each.start)
        taken = np.zeros(where.stop - where.start, dtype=bool)
        for number in each.of:
            mine = (masks[number][where] != 0) & ~taken
            found[number] += int(mine.sum())
            taken |= mine
    return found


def _alike(
    sequences: Sequence[NDArray[np.int64]], of: tuple[int, ...], least: int
) -> Iterator[tuple[int, ...]]:
    """Neighbours that have `least` tokens or more in common."""
    group: list[int] = []
    for number in of:
        if group and _common(sequences[group[-1]], sequences[number]) < least:
            yield tuple(group)
            group = []
        group.append(number)
    if group:
        yield tuple(group)


def _common(one: NDArray[np.int64], other: NDArray[np.int64]) -> int:
    """Length of the beginning that two sequences have in common."""
    length = min(len(one), len(other))
    different = np.flatnonzero(one[:length] != other[:length])
    return int(different[0]) if len(different) else length
