"""What a run made, counted while its cases pass by. The same cases make the same manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from ringfence.synthesis.case import Case
from ringfence.synthesis.sketch import Seen, Smallest, grams, words

Json = dict[str, Any]
GRAM = 8
# Cases whose n-grams are compared; of larger runs, so many at even distances.
_COMPARED = 20_000
LICENCES = {
    "text and code": "Apache-2.0: made by ringfence from its own grammars and tables",
    "facts": "public facts, written down by hand; no data set of others was used",
}


class Tally:
    """Counts of cases, in memory that does not grow with them."""

    def __init__(self, count: int) -> None:
        """Nothing counted yet.

        Args:
            count: cases to come.
        """
        self._stride = max(1, count // _COMPARED)
        self._number = 0
        self._counts: dict[str, Counter[str]] = {
            name: Counter() for name in ("recipe", "split", "sibling", "expected", "redrawn")
        }
        self._families: dict[str, Counter[str]] = {"train": Counter(), "eval": Counter()}
        self._seen = Seen()
        self._duplicates = 0
        self._grams = {"train": Smallest(), "eval": Smallest()}
        self._longest = self._words = self._conversations = 0

    def add(self, case: Case) -> None:
        """Count a case."""
        self._counts["recipe"][case.recipe] += 1
        self._counts["split"][case.split] += 1
        self._counts["redrawn"][case.recipe] += case.attempt
        self._families[case.split].update(case.families)
        whole = []
        texts: dict[str, None] = {}
        for name, sibling in case.siblings.items():
            self._counts["sibling"][name] += 1
            self._counts["expected"][sibling.expected] += 1
            contents = [turn.content for turn in sibling.messages]
            length = sum(len(words(text)) for text in contents)
            self._longest = max(self._longest, length)
            self._words += length
            self._conversations += 1
            whole += contents
            texts.update(
                (turn.content, None) for turn in sibling.messages if turn.role != "assistant"
            )
        self._duplicates += self._seen.add("\n".join(whole))
        if self._number % self._stride == 0:
            for text in texts:
                self._grams[case.split].add(grams(text, GRAM))
        self._number += 1

    def summary(self) -> Json:
        """Everything counted."""
        train, evaluation = (
            {name for name in self._families[split] if not name.startswith("shape:")}
            for split in ("train", "eval")
        )
        return {
            "cases": self._number,
            "conversations": self._conversations,
            "counts": {name: _sorted(counts) for name, counts in self._counts.items()},
            "families": {name: _sorted(counts) for name, counts in self._families.items()},
            "families_in_both_splits": sorted(train & evaluation),
            "duplicates": self._duplicates,
            "overlap": {
                "words": GRAM,
                "share_of_eval_in_train": self._grams["eval"].shared(self._grams["train"]),
            },
            "words": {
                "longest": self._longest,
                "mean": round(self._words / max(1, self._conversations), 1),
            },
            "licences": LICENCES,
        }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: counts[name] for name in sorted(counts) if counts[name]}
