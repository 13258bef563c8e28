"""Whether examples in one row see each other, measured on the model itself."""

from __future__ import annotations

from typing import Any

import torch

from ringfence.errors import InputError
from ringfence.training.collation import Rows, Supervised

# Tokens of each example that are compared.
_TOKENS = 128
# Largest difference of logits, relative to their spread, that counts as rounding.
_ROUNDING = {torch.float32: 1e-3, torch.bfloat16: 0.1}


def measured(model: Any, rows: Rows, collator: Supervised) -> dict[str, Any]:
    """Compare the logits of two examples in one row with those of each alone.

    Returns:
        For the manifest: `isolated` (None where no row holds two examples) and the difference.

    Raises:
        InputError: they see each other: the model's attention takes no notice of positions.
    """
    first = (rows[place] for place in range(min(len(rows), 64)))
    found = next((row for row in first if len(row) > 1), None)
    if found is None:
        return {"isolated": None, "says": "no row holds two examples"}
    two = [{name: values[:_TOKENS] for name, values in sequence.items()} for sequence in found[:2]]
    training = model.training
    model.eval()
    try:
        together = _logits(model, collator([two]))
        alone = torch.cat([_logits(model, collator([[one]])) for one in two], dim=1)
    finally:
        model.train(training)
    difference = float((together - alone).abs().max() / alone.std().clamp(min=1e-9))
    bound = _ROUNDING.get(model.dtype, 0.1)
    if not difference <= bound:
        raise InputError(
            "sequence.packing: packed: this model's attention lets examples of one row see each "
            f"other (logits differ by {difference:.3g} of their spread). Use packing: grouped."
        )
    return {
        "isolated": True,
        "says": "logits of two examples in one row against each alone",
        "difference": difference,
        "attention": model.config._attn_implementation,
    }


def _logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    batch = {name: value for name, value in batch.items() if name != "labels"}
    with torch.no_grad():
        return model(**batch, use_cache=False).logits.float()  # type: ignore[no-any-return]
