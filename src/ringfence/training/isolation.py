"""Whether examples in one row see each other, measured on the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from ringfence.errors import InputError
from ringfence.training.collation import Rows, Supervised
from ringfence.training.sharing import laid, told_apart

# Tokens of each example that are compared, behind what the two have in common.
_TOKENS = 128
# Largest difference of logits, relative to their spread, that counts as rounding.
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1}


def measured(model: Any, rows: Rows, collator: Supervised) -> dict[str, Any]:
    """Compare the logits of two examples in one row with those of each alone.

    Returns:
        For the manifest: `isolated` (None where no row holds two examples that part from each other
        and go on) and the difference.

    Raises:
        InputError: they see each other: the model's attention takes no notice of positions.
    """
    found = min(_pairs(rows), key=lambda pair: pair[0], default=None)
    if found is None:
        return {"isolated": None, "says": "no row holds two examples that part from each other"}
    common, examples = found
    cut = common + _TOKENS
    two = [{name: values[:cut] for name, values in sequence.items()} for sequence in examples]
    lengths = [len(sequence["ids"]) for sequence in two]
    # Where each of them stands in the row: as (place in the row, sequence, place in it, how many).
    stands = [(0, 0, 0, lengths[0]), (lengths[0], 1, 0, lengths[1])]
    if collator.shared:
        segments = laid([told_apart(sequence["ids"], sequence["rings"]) for sequence in two])
        stands = [(one.start, one.of[-1], one.depth, one.stop - one.start) for one in segments]
    training = model.training
    model.eval()
    try:
        together = _logits(model, collator([two]))
        alone = [_logits(model, collator([[one]])) for one in two]
    finally:
        model.train(training)
    spread = torch.cat(alone, dim=1).std().clamp(min=1e-9)
    difference = max(
        float((together[0, at : at + count] - alone[of][0, first : first + count]).abs().max())
        for at, of, first, count in stands
    ) / float(spread)
    bound = _ROUNDING.get(model.dtype, 0.1)
    if not difference <= bound:
        packing = "shared" if collator.shared else "packed"
        raise InputError(
            f"sequence.packing: {packing}: this model's attention lets examples of one row see "
            f"each other (logits differ by {difference:.3g} of their spread). Use packing: grouped."
        )
    return {
        "isolated": True,
        "says": "logits of two examples in one row against each alone",
        "difference": difference,
        "attention": model.config._attn_implementation,
    }


def _pairs(rows: Rows) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Neighbours of a row that part from each other, with how many tokens they have in common.

    Of two that begin alike, nothing but what comes behind can tell whether they see each other.
    """
    for place in range(min(len(rows), 64)):
        for one, other in itertools.pairwise(rows[place]):
            same = [a == b for a, b in zip(one["ids"], other["ids"], strict=False)]
            common = same.index(False) if False in same else len(same)
            if common < min(len(one["ids"]), len(other["ids"])):
                yield common, [one, other]


def _logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    batch = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return model(**batch, use_cache=False).logits.float()  # type: ignore[no-any-return]
