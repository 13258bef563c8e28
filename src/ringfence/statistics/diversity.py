"""How varied texts are. Knows nothing of who wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.errors import InputError


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Share of word n-grams that differ from each other, over all texts together, in [0, 1].

    Words are split at whitespace and lower-cased; texts shorter than n give no n-gram. The number
    falls as the amount of text grows: compare equal amounts only.

    Raises:
        InputError: no text is long enough to have an n-gram.
    """
    grams: list[tuple[str, ...]] = []
    for text in texts:
        words = text.lower().split()
        grams.extend(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    if n < 1 or not grams:
        raise InputError(f"distinct-{n}: no text has {n} words")
    return len(set(grams)) / len(grams)
