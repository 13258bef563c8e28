"""Tokens of all examples as flat arrays on the disk. Knows nothing of rendering or torch.

Written once by the first process of a run and mapped by all of them, so that a resumed run renders
nothing, and memory does not grow with the data.
"""

from __future__ import annotations

import json
import os
import shutil
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.errors import InputError
from ringfence.training.learnt import Learnt
from ringfence.training.sharing import told_apart

Json = dict[str, Any]
_ARRAYS = {"ids": "u4", "rings": "i1", "mask": "u1", "offsets": "i8", "parts": "i2", "groups": "i4"}
_SUMMARY = "summary.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """Sequences of tokens, one after the other.

    Attributes:
        ids: token ids of all sequences.
        rings: their rings.
        mask: not 0 where there is a loss; see `Learnt`.
        offsets: where each sequence starts, and where the last one ends.
        parts: the part of the mixture of every example; -1 for none.
        groups: the case of every example, by number.
        each: sequences of an example: 1, or 2 for preferences (chosen, rejected).
        summary: what was dropped and found out when it was made.
    """

    ids: NDArray[np.uint32]
    rings: NDArray[np.int8]
    mask: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    parts: NDArray[np.int16]
    groups: NDArray[np.int32]
    each: int
    summary: Json

    def __len__(self) -> int:
        """How many examples."""
        return len(self.parts)

    def sequence(self, number: int) -> slice:
        """Where a sequence stands."""
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def group(self, number: int) -> int:
        """The case of an example."""
        return int(self.groups[number])

    def lengths(self) -> list[int]:
        """Tokens of every example; of preferences both sequences."""
        whole = np.diff(self.offsets).reshape(-1, self.each).sum(axis=1)
        return [int(value) for value in whole]

    def told_apart(self, number: int) -> NDArray[np.int64]:
        """See `sharing.told_apart`; of a sequence."""
        where = self.sequence(number)
        return told_apart(self.ids[where], self.rings[where])

    def sequences(
        self, numbers: Iterable[int]
    ) -> tuple[list[NDArray[np.int64]], list[NDArray[np.uint8]]]:
        """What tells the tokens of sequences apart, and their masks."""
        where = [self.sequence(number) for number in numbers]
        tokens = [told_apart(self.ids[place], self.rings[place]) for place in where]
        return tokens, [self.mask[place] for place in where]

    def learnt(self) -> list[int]:
        """Tokens with a loss of every example, alone in its row."""
        if not len(self):
            return []
        total = np.concatenate([[0], np.cumsum(self.mask != 0, dtype=np.int64)])
        whole = np.diff(total[self.offsets]).reshape(-1, self.each).sum(axis=1)
        return [int(value) for value in whole]


def write(
    folder: Path, key: str, examples: Iterable[tuple[int, str, tuple[Learnt, ...]]], each: int
) -> None:
    """Write all arrays; `finish` names them.

    Args:
        folder: of the arrays; replaced.
        key: what they were made of.
        examples: part, case and sequences of every example.
        each: sequences of an example.
    """
    ids, rings, mask = array("I"), array("b"), array("B")
    offsets, parts, groups = array("q", [0]), array("h"), array("i")
    cases: dict[str, int] = {}
    for part, case, sequences in examples:
        for learnt in sequences:
            ids.extend(learnt.ids)
            rings.extend(learnt.rings)
            mask.extend(learnt.mask)
            offsets.append(len(ids))
        parts.append(part)
        groups.append(cases.setdefault(case, len(cases)))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    values = {
        "ids": ids,
        "rings": rings,
        "mask": mask,
        "offsets": offsets,
        "parts": parts,
        "groups": groups,
    }
    for name, items in values.items():
        np.save(partial / f"{name}.npy", np.frombuffer(items, dtype=_ARRAYS[name]))
    (partial / _SUMMARY).write_text(json.dumps({"key": key, "each": each}), "utf-8")


def finish(folder: Path, summary: Json) -> None:
    """Give what `write` wrote its name, with a summary."""
    partial = folder.with_name(folder.name + ".partial")
    head = json.loads((partial / _SUMMARY).read_text("utf-8"))
    (partial / _SUMMARY).write_text(json.dumps({**head, "summary": summary}), "utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def read(folder: Path, key: str) -> Store | None:
    """The store of a folder; None if there is none, or it was made of something else.

    Raises:
        InputError: its files are broken.
    """
    try:
        head = json.loads((folder / _SUMMARY).read_text("utf-8"))
        if head["key"] != key:
            return None
        found = {
            name: np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)
            for name in _ARRAYS
        }
        return Store(**found, each=int(head["each"]), summary=head["summary"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: is broken ({error}); remove it") from None
