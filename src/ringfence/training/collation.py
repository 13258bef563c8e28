"""Rows of tokens → tensors for a forward pass. Knows nothing of files, models or trainers.

Nothing is marked as padding. Padding stands behind the text and a causal model does not look
ahead, so no mask is needed where a row holds one example; where it holds several, positions start
again at zero, from which transformers makes a mask that keeps examples apart. Flash attention
takes that from one long row instead, so its rows are laid end to end; so are rows that share what
their examples have in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ringfence.training.learnt import DECISION, VERDICT
from ringfence.training.sharing import Segment, laid, told_apart
from ringfence.training.store import Store

# Labels without a loss, in torch and transformers.
IGNORED = -100
# Ring of padding: nobody's.
NOBODY = -1
Row = list[dict[str, Any]]


class Rows:
    """The rows of a plan as what torch calls a dataset: a row is a list of sequences."""

    def __init__(self, store: Store, rows: Sequence[tuple[int, ...]]) -> None:
        """Look up `rows` in `store`."""
        self._store = store
        self._rows = rows

    def __len__(self) -> int:
        """How many rows."""
        return len(self._rows)

    def __getitem__(self, place: int) -> Row:
        """The sequences of a row: of every example one, or chosen and rejected."""
        store = self._store
        found = []
        for number in self._rows[place]:
            for sequence in range(number * store.each, (number + 1) * store.each):
                where = store.sequence(sequence)
                found.append(
                    {
                        "ids": np.asarray(store.ids[where], dtype=np.int64),
                        "rings": np.asarray(store.rings[where], dtype=np.int64),
                        "mask": np.array(store.mask[where]),
                    }
                )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervised:
    """Batches for supervised training.

    Attributes:
        pad: id of the padding.
        flat: lay all rows end to end, for flash attention.
        shared: lay them out as trees, for `shared_attention`.
        verdicts: how much a token of a verdict counts, one of a reply counting 1.
        decisions: the same of a token at which a reply parts from a wrong one.
        rings: hand the ring of every token to the model.
    """

    pad: int
    flat: bool = False
    shared: bool = False
    verdicts: float = 1.0
    decisions: float = 1.0
    rings: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Input ids, labels and positions [rows, longest row]; flat or shared, one row of all."""
        if self.shared:
            return self._trees(rows)
        if self.flat:
            rows = [[sequence for row in rows for sequence in row]]
        width = max(sum(len(sequence["ids"]) for sequence in row) for row in rows)
        batch = _empty(len(rows), width, self.pad)
        labels = torch.full((len(rows), width), IGNORED)
        kinds = torch.zeros(len(rows), width, dtype=torch.uint8)
        positions = torch.arange(width).repeat(len(rows), 1)
        for place, row in enumerate(rows):
            start = 0
            for sequence in row:
                stop = start + len(sequence["ids"])
                _fill(batch, place, start, sequence)
                learnt = np.where(sequence["mask"], sequence["ids"], IGNORED)
                labels[place, start:stop] = torch.from_numpy(learnt)
                kinds[place, start:stop] = torch.from_numpy(sequence["mask"])
                # The token before belongs to another example.
                labels[place, start] = IGNORED
                positions[place, start:stop] = torch.arange(stop - start)
                start = stop
            if len(row) > 1:
                # The padding is an example of its own. Behind a single example positions go on, so
                # that no mask is made for it.
                positions[place, start:] = torch.arange(width - start)
        made = {"input_ids": batch["ids"], "labels": labels, "position_ids": positions}
        return made | self._more(batch, kinds) | (_bounds(rows[0]) if self.flat else {})

    def _more(self, batch: dict[str, Tensor], kinds: Tensor) -> dict[str, Tensor]:
        """What only some models and recipes want."""
        made = {"ring_ids": batch["rings"]} if self.rings else {}
        weights = {VERDICT: self.verdicts, DECISION: self.decisions}
        if any(weight != 1 for weight in weights.values()):
            made["weights"] = torch.ones(kinds.shape)
            for kind, weight in weights.items():
                made["weights"][kinds == kind] = weight
        return made

    def _trees(self, rows: Sequence[Row]) -> dict[str, Any]:
        from ringfence.training.shared_attention import Seen

        segments: list[tuple[Segment, Row]] = []
        for row in rows:
            start = segments[-1][0].stop if segments else 0
            segments += [
                (each.moved(start), row)
                for each in laid([told_apart(each["ids"], each["rings"]) for each in row])
            ]
        width = segments[-1][0].stop
        batch = _empty(1, width, self.pad)
        labels, positions = torch.full((1, width), IGNORED), torch.empty(1, width, dtype=torch.long)
        kinds = torch.zeros(1, width, dtype=torch.uint8)
        for segment, row in segments:
            start, stop, first = segment.start, segment.stop, segment.depth
            where = slice(first, first + stop - start)
            sequences = [row[number] for number in segment.of]
            _fill(batch, 0, start, {name: sequences[0][name][where] for name in batch})
            learnt = np.max([item["mask"][where] for item in sequences], axis=0)
            labels[0, start:stop] = torch.from_numpy(
                np.where(learnt, sequences[0]["ids"][where], IGNORED)
            )
            kinds[0, start:stop] = torch.from_numpy(learnt)
            # What comes before it in the row is no beginning of it.
            labels[0, start] = IGNORED
            positions[0, start:stop] = torch.arange(where.start, where.stop)
        made = {
            "input_ids": batch["ids"],
            "labels": labels,
            "position_ids": positions,
            "seen": Seen([segment for segment, _ in segments]),
        }
        return made | self._more(batch, kinds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Batches for preference training, as TRL's DPO takes them: all chosen, then all rejected.

    Attributes:
        pad: id of the padding.
        rings: hand the ring of every token to the model.
    """

    pad: int
    rings: bool = False

    def __call__(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Input ids, attention and completion masks [2 · pairs, longest]."""
        pairs = [row[place : place + 2] for row in rows for place in range(0, len(row), 2)]
        sequences = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
        width = max(len(sequence["ids"]) for sequence in sequences)
        batch = _empty(len(sequences), width, self.pad)
        completion = torch.zeros(len(sequences), width, dtype=torch.long)
        attention = torch.zeros_like(completion)
        for place, sequence in enumerate(sequences):
            stop = len(sequence["ids"])
            _fill(batch, place, 0, sequence)
            completion[place, :stop] = torch.from_numpy((sequence["mask"] != 0).astype(np.int64))
            attention[place, :stop] = 1
        made = {
            "input_ids": batch["ids"],
            "attention_mask": attention,
            "completion_mask": completion,
        }
        return made | ({"ring_ids": batch["rings"]} if self.rings else {})


class Numbered:
    """Batches by the numbers of their rows."""

    def __init__(self, rows: Rows, collator: Supervised | Pairs) -> None:
        """Look rows up, then collate them."""
        self._rows, self._collator = rows, collator

    def __call__(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """The batch of rows whose numbers stand under `row`."""
        return self._collator([self._rows[int(item["row"])] for item in items])


def _empty(rows: int, width: int, pad: int) -> dict[str, Tensor]:
    return {
        "ids": torch.full((rows, width), pad),
        "rings": torch.full((rows, width), NOBODY),
    }


def _fill(batch: dict[str, Tensor], place: int, start: int, sequence: dict[str, Any]) -> None:
    for name, tensor in batch.items():
        values = torch.from_numpy(sequence[name])
        tensor[place, start : start + len(values)] = values


def _bounds(row: Row) -> dict[str, Any]:
    """Where sequences of one long row start and end, under the names of transformers."""
    lengths = [len(sequence["ids"]) for sequence in row]
    ends = torch.tensor([0, *np.cumsum(lengths).tolist()], dtype=torch.int32)
    longest = max(lengths)
    return {
        "cu_seq_lens_q": ends,
        "cu_seq_lens_k": ends,
        "max_length_q": longest,
        "max_length_k": longest,
    }
