"""Whether training text occurs in evaluation data, by n-grams of words. Knows nothing of models."""

from __future__ import annotations

import codecs
import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.synthesis.sketch import grams, hashed, words

Json = dict[str, Any]
GRAM = 8
"""Words that count as the same text; as in the manifests of synthesis."""
# Read by their form; all other files as lines of text.
_KINDS = (".jsonl", ".json", ".csv", ".tsv")
# As much of a file tells whether it is text.
_HEAD = 65_536
# Letters of scripts that put no space between words: Thai, Lao, Tibetan, Burmese, Khmer, Japanese,
# Chinese. Two of them count as a word.
_UNSPACED = re.compile(
    "[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff]"
)
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
            InputError: no folder, a file in it that cannot be read, no text, or more than fits.
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
        for file in _files(folder):
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
            raise InputError(f"--check-against {folder}: no text of {GRAM} words in its files")

    def see(self, texts: Iterable[str]) -> None:
        """Take note of one example of the training data."""
        hit = False
        for text in texts:
            for gram in _grams(text):
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
        found = set(_grams(text))
        if not found:
            self._short += 1
            return
        number = len(self._texts)
        self._texts.append(text[:120])
        for gram in found:
            self._where.setdefault(gram, []).append(number)


def stamp(folder: Path) -> str:
    """Evaluation data for a key: names, sizes and times are enough to notice a change."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(stats).encode()).hexdigest()


def told(found: Json) -> str:
    """For people, what `Overlap.described` says."""
    return (
        f"--check-against: {found['evaluation_texts_shared']} of {found['evaluation_texts']:,} "
        f"evaluation texts ({found['files']} files) share {found['words']} words in a row with "
        f"training examples; {found['too_short_to_tell']:,} more are too short to tell"
    )


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


def _grams(text: str) -> Iterator[int]:
    """Hashes of all runs of `GRAM` words, where two letters without spaces are a word."""
    if not _UNSPACED.search(text):
        yield from grams(text, GRAM)
        return
    pieces = [piece for word in words(text) for piece in _pieces(word)]
    halves = [1 if _UNSPACED.match(piece) else 2 for piece in pieces]
    stop = length = 0
    for start in range(len(pieces)):
        while length < 2 * GRAM and stop < len(pieces):
            length += halves[stop]
            stop += 1
        if length < 2 * GRAM:
            return
        yield hashed(" ".join(pieces[start:stop]))
        length -= halves[start]


def _pieces(word: str) -> Iterator[str]:
    """Letters without spaces one by one, and what stands between them."""
    at = 0
    for match in _UNSPACED.finditer(word):
        if at < match.start():
            yield word[at : match.start()]
        yield match[0]
        at = match.end()
    if at < len(word):
        yield word[at:]


def _files(folder: Path) -> list[Path]:
    """All files that may hold evaluation data.

    Raises:
        InputError: some cannot be read, which would pass for data without overlap.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    found = [file for file in files if _known(file) or not _hidden(file, folder)]
    if unread := [file for file in found if not _known(file) and not _is_text(file)]:
        more = f" and {len(unread) - _SHOWN} more" if len(unread) > _SHOWN else ""
        raise InputError(
            f"--check-against {folder}: cannot be read here: "
            f"{', '.join(str(file.relative_to(folder)) for file in unread[:_SHOWN])}{more}. Make "
            "JSON lines or CSV of evaluation data, and move away what is none."
        )
    return found


def _known(file: Path) -> bool:
    return file.suffix.lower() in _KINDS


def _hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


def _is_text(file: Path) -> bool:
    try:
        with file.open("rb") as data:
            head = data.read(_HEAD)
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except (OSError, UnicodeDecodeError):
        return False
    return b"\0" not in head


def _texts(file: Path) -> Iterator[str]:
    kind = file.suffix.lower()
    try:
        with file.open(encoding="utf-8", errors="replace", newline="") as lines:
            if kind == ".json":
                yield from strings(json.load(lines))
            elif kind == ".jsonl":
                for line in lines:
                    if line.strip():
                        yield from strings(json.loads(line))
            elif kind in (".csv", ".tsv"):
                for row in csv.reader(lines, delimiter="\t" if kind == ".tsv" else ","):
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
