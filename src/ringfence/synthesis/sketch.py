"""Counting in bounded memory: which texts were seen before, and which n-grams two splits share.

Neither depends on the order in which texts come, and neither grows with their number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from hashlib import blake2b

_WORD = re.compile(r"\w+")
# s p a c e d letters are a word, not a run of words that any other text may share.
_SPACED = re.compile(r"\b\w(?:[ .-]\w\b)+")


def words(text: str) -> list[str]:
    """Words in small letters, without punctuation; spaced letters count as one word."""
    return _WORD.findall(_SPACED.sub(_joined, text.lower()))


def _joined(spaced: re.Match[str]) -> str:
    return "".join(letter for letter in spaced[0] if letter not in " .-")


def hashed(text: str) -> int:
    """64 bits of a text, the same on every machine."""
    return int.from_bytes(blake2b(text.encode("utf-8", "replace"), digest_size=8).digest(), "big")


def grams(text: str, length: int) -> Iterator[int]:
    """Hashes of all runs of `length` words."""
    found = words(text)
    return (
        hashed(" ".join(found[place : place + length])) for place in range(len(found) - length + 1)
    )


class Seen:
    """A Bloom filter over texts: says "seen before" wrongly about once in 100,000 at a million."""

    _BITS = 1 << 26
    _WAYS = 4

    def __init__(self) -> None:
        """Nothing seen; 8 MiB."""
        self._bits = bytearray(self._BITS // 8)

    def add(self, text: str) -> bool:
        """Whether a text of the same words was there before; it is from now on."""
        first = hashed(" ".join(words(text)))
        step = (first >> 32) | 1
        new = False
        for way in range(self._WAYS):
            place = (first + way * step) % self._BITS
            byte, bit = place >> 3, 1 << (place & 7)
            if not self._bits[byte] & bit:
                new = True
                self._bits[byte] |= bit
        return not new


class Smallest:
    """The smallest hashes of a set that may be huge: a fair sample, the same for equal sets."""

    def __init__(self, keep: int = 50_000) -> None:
        """Keep so many."""
        self._keep = keep
        self._kept: set[int] = set()
        self._limit = 1 << 64

    def add(self, hashes: Iterable[int]) -> None:
        """Take in hashes."""
        self._kept.update(one for one in hashes if one < self._limit)
        if len(self._kept) > 2 * self._keep:
            smallest = sorted(self._kept)[: self._keep]
            self._kept, self._limit = set(smallest), smallest[-1] + 1

    def shared(self, other: Smallest) -> float | None:
        """Share of this set's members that are in the other one; None if either is empty."""
        limit = min(self._limit, other._limit)
        mine = {one for one in self._kept if one < limit}
        if not mine or not other._kept:
            return None
        return len(mine & other._kept) / len(mine)
