"""How much of a wanted text is in another: lists by F1, sentences by ROUGE-L. Knows no suite."""

from __future__ import annotations

import re
from collections import Counter

_WORD = re.compile(r"\w+")
MOST = 600
"""Words of either text that are compared; ROUGE-L takes their product."""


def listed_f1(wanted: str, given: str) -> float:
    """F1 of two lists with commas or line breaks between their items, 0 to 1."""
    one, other = _listed(wanted), _listed(given)
    shared = (one & other).total()
    return 2 * shared / (one.total() + other.total()) if shared else 0.0


def _listed(text: str) -> Counter[str]:
    parts = re.split(r"[,\n;]", text[: 20 * MOST].casefold())
    return Counter(part.strip(" .\"'`*-") for part in parts if part.strip(" .\"'`*-"))


def rouge_l(wanted: str, given: str) -> float:
    """F1 of the longest common subsequence of words (Lin 2004), 0 to 1; texts are cut to `MOST`."""
    one = _WORD.findall(wanted[: 20 * MOST].casefold())[:MOST]
    other = _WORD.findall(given[: 20 * MOST].casefold())[:MOST]
    row = [0] * (len(other) + 1)
    for word in one:
        before = 0
        for place, there in enumerate(other, start=1):
            kept = row[place]
            row[place] = before + 1 if word == there else max(row[place], row[place - 1])
            before = kept
    return 2 * row[-1] / (len(one) + len(other)) if row[-1] else 0.0
