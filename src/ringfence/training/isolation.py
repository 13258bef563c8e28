"""Whether examples in one row see each other, measured on the model itself."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch

from ringfence.errors import InputError
from ringfence.training import trainers
from ringfence.training.collation import Rows, Supervised
from ringfence.training.job import Job, Json, Say
from ringfence.training.models import signal_of
from ringfence.training.plan import packing_of
from ringfence.training.sharing import laid, told_apart

# Tokens of each example that are compared, behind what the two have in common.
_TOKENS = 128
# Largest difference of logits, relative to their spread, that counts as rounding. Over millions of
# logits that of 16 bits reaches 0.13 in SmolLM2-135M, and more in deeper models; examples that see
# each other differ by about 3 and more.
_ROUNDING, _ROUNDING_OF_16_BITS = 1e-3, 1.0


def of_run(job: Job, trainer: Any, rows: Rows, say: Say) -> Json:
    """Measure it for a run, before its model is wrapped or sharded.

    Args:
        job: gives the recipe.
        trainer: has the model where it will be trained.
        rows: of the run.
        say: takes a line for people, where it cannot be measured.

    Returns:
        For the manifest; `isolated` is None where it is not known.

    Raises:
        InputError: they do.
    """
    recipe, packing = job.recipe, packing_of(job.recipe, job.kind)
    model = trainer.model
    collator = trainers.supervised(recipe, pad=0, rings=signal_of(model) is not None)
    batch = recipe.sft.rows if collator.flat else 1
    alone = job.kind == "dpo" or (packing in ("grouped", "none") and batch == 1)
    if alone:
        return {"isolated": True, "says": "one example a row"}
    if trainer.is_fsdp_enabled:
        unmeasured = (
            "examples share rows, and whether they see each other was not measured: under fsdp no "
            "process holds the whole model"
        )
        say(f"{unmeasured}. Try one step of a small model of its kind without fsdp.")
        return {"isolated": None, "says": unmeasured}
    bfloat16 = recipe.hardware.precision == "bfloat16"
    return measured(model, rows, collator, batch=batch, bfloat16=bfloat16)


def measured(
    model: Any, rows: Rows, collator: Supervised, *, batch: int = 1, bfloat16: bool = False
) -> dict[str, Any]:
    """Compare the logits of two examples in one row with those of each alone.

    Args:
        model: on the device, and with the attention, that it is trained with.
        rows: of the run.
        collator: makes batches of them.
        batch: rows that the collator lays end to end.
        bfloat16: compute in it, as the training does.

    Returns:
        For the manifest: `isolated` (None where no row holds two examples that part from each other
        and go on) and the difference.

    Raises:
        InputError: they see each other: the model's attention takes no notice of positions.
    """
    found = min(_pairs(rows, batch), key=lambda pair: pair[0], default=None)
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
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            together = _logits(model, collator([two]))
            alone = [_logits(model, collator([[one]])) for one in two]
    finally:
        model.train(training)
    spread = torch.cat(alone, dim=1).std().clamp(min=1e-9)
    difference = max(
        float((together[0, at : at + count] - alone[of][0, first : first + count]).abs().max())
        for at, of, first, count in stands
    ) / float(spread)
    if not difference <= (_ROUNDING_OF_16_BITS if bfloat16 else _ROUNDING):
        way_out = "attention: sdpa, and packing: grouped" if collator.flat else "packing: grouped"
        raise InputError(
            f"sequence.packing: this model lets examples of one row see each other (logits differ "
            f"by {difference:.3g} of their spread). Use {way_out}."
        )
    return {
        "isolated": True,
        "says": "logits of two examples in one row against each alone",
        "difference": difference,
        "attention": model.config._attn_implementation,
    }


def _pairs(rows: Rows, batch: int = 1) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Neighbours of a row that part from each other, with how many tokens they have in common.

    Of two that begin alike, nothing but what comes behind can tell whether they see each other.
    """
    for start in range(0, min(len(rows), 64), batch):
        places = range(start, min(start + batch, len(rows)))
        for one, other in itertools.pairwise(each for place in places for each in rows[place]):
            same = [a == b for a, b in zip(one["ids"], other["ids"], strict=False)]
            common = same.index(False) if False in same else len(same)
            if common < min(len(one["ids"]), len(other["ids"])):
                yield common, [one, other]


def _logits(model: Any, batch: dict[str, Any]) -> torch.Tensor:
    given = {
        name: value.to(model.device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if name not in ("labels", "weights")
    }
    with torch.no_grad():
        return model(**given, use_cache=False).logits.float()  # type: ignore[no-any-return]
