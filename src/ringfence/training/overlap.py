"""Whether training text occurs in evaluation data, by n-grams of words. Knows nothing of models."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.synthesis.sketch import grams, words

Json = dict[str, Any]
GRAM = 8
"""Words that count as the same text; as in the manifests of synthesis."""
_KINDS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".md")
# All of the evaluation data is held in memory, 8 bytes a gram and more for the set.
_MOST_BYTES = 256 * 1024 * 1024
_SHOWN = 5


class Overlap:
    """Evaluation texts that share a run of `GRAM` words with what is trained on.

    Texts of fewer words are counted and never match: short answers are everywhere.
    """

    def __init__(self, folder: Path) -> None:
        """Read the evaluation data.

        Raises:
            InputError: no folder, nothing in it that can be read, or more than fits.
        """
        if not folder.is_dir():
            raise InputError(f"--check-against {folder}: is no folder of evaluation data")
        self._texts: list[str] = []
        self._where: dict[int, list[int]] = {}
        self._hit: dict[int, int] = {}
        self._short = 0
        self._files = 0
        self._examples = self._examples_hit = 0
        size = 0
        for file in sorted(path for path in folder.rglob("*") if path.suffix in _KINDS):
            if not file.is_file():
                continue
            size += file.stat().st_size
            if size > _MOST_BYTES:
                raise InputError(
                    f"--check-against {folder}: holds more than {_MOST_BYTES:,} bytes; name the "
                    "folders of the evaluation sets one by one"
                )
            self._files += 1
            for text in _texts(file):
                self._take(text)
        if not self._texts:
            raise InputError(
                f"--check-against {folder}: no text of {GRAM} words in files ending with "
                f"{', '.join(_KINDS)}"
            )

    def see(self, texts: Iterable[str]) -> None:
        """Take note of one example of the training data."""
        hit = False
        for text in texts:
            for gram in grams(text, GRAM):
                for number in self._where.get(gram, ()):
                    self._hit[number] = self._hit.get(number, 0) + 1
                    hit = True
        self._examples += 1
        self._examples_hit += hit

    def described(self) -> Json:
        """For the manifest."""
        most = sorted(self._hit, key=lambda number: -self._hit[number])[:_SHOWN]
        return {
            "words": GRAM,
            "files": self._files,
            "evaluation_texts": len(self._texts),
            "too_short_to_tell": self._short,
            "evaluation_texts_shared": len(self._hit),
            "share": round(len(self._hit) / len(self._texts), 6),
            "training_examples": self._examples,
            "training_examples_shared": self._examples_hit,
            "most_shared": [self._texts[number] for number in most],
        }

    def _take(self, text: str) -> None:
        if len(words(text)) < GRAM:
            self._short += 1
            return
        number = len(self._texts)
        self._texts.append(text[:120])
        for gram in set(grams(text, GRAM)):
            self._where.setdefault(gram, []).append(number)


def refuse(found: Json, most: float) -> None:
    """Refuse training where too much is shared.

    Args:
        found: as `Overlap.described` says it.
        most: share of the evaluation texts up to which shared wording is taken for chance.

    Raises:
        InputError: more is shared; with counts and an example.
    """
    if found["share"] > most:
        raise InputError(
            f"--check-against: {found['evaluation_texts_shared']} of {found['evaluation_texts']} "
            f"evaluation texts share {found['words']} words in a row with "
            f"{found['training_examples_shared']} training examples, such as "
            f"{found['most_shared'][0]!r}. Take them out of the training data, or allow a share "
            "with --most-overlap."
        )


def _texts(file: Path) -> Iterator[str]:
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            if file.suffix == ".json":
                yield from strings(json.load(lines))
            elif file.suffix == ".jsonl":
                for line in lines:
                    if line.strip():
                        yield from strings(json.loads(line))
            elif file.suffix in (".csv", ".tsv"):
                for row in csv.reader(lines, delimiter="\t" if file.suffix == ".tsv" else ","):
                    yield from row
            else:
                yield from lines
    except (OSError, ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"--check-against: {file} cannot be read: {error}") from None


def strings(data: object) -> Iterator[str]:
    """Every string in JSON, in no order.

    One that is an object of JSON itself, as the arguments of a tool call are, by the strings in it.
    """
    waiting = [data]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                inner = json.loads(item) if item.startswith("{") else None
            except (ValueError, RecursionError):
                inner = None
            if inner is None:
                yield item
            else:
                waiting.append(inner)
        elif isinstance(item, dict):
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
