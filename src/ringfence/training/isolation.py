"""Whether examples in one row see each other, measured on the model itself.

The tokens of one are swapped for others, in a row that stays as it is: what the other's logits do
is no rounding, in 16 bits either. In float32 they are those of each example alone, too. Where that
precision or the whole model is not to be had, a small copy of the model's kind has it: who sees
whom is a matter of masks and layers, not of size.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from ringfence.errors import InputError
from ringfence.training import trainers
from ringfence.training.collation import Rows, Supervised
from ringfence.training.job import Job, Json, Say
from ringfence.training.models import library, quiet, signal_of
from ringfence.training.plan import packing_of
from ringfence.training.sharing import LEAST, laid, told_apart

# Tokens of each example that are compared, behind what the two have in common.
_TOKENS = 128
# Largest difference of logits, relative to their spread, that counts as rounding in float32.
_ROUNDING = 1e-3
# The same, in float32 and in 16 bits, of a row in which others' tokens were swapped. Shapes stay,
# and no bit of the logits changed on a CPU in Llama, Qwen3-MoE and Mixtral, with any of
# transformers' ways to compute experts. LFM2 and Qwen3-Next leak: 0.0005 and more in float32, in 16
# bits 0.0165 and more; a logit of the size of the spread has steps of 0.004 to 0.008 there.
_CHANGE, _CHANGE_OF_16_BITS = 1e-4, 1e-3
# A kernel may sum otherwise when experts get other numbers of tokens. How much that makes is seen
# on the example that stands before the swapped one: nothing causal shows it what comes behind. The
# other may differ by so many times as much; in 16 bits by the spread at most, in float32 by what
# counts as rounding anyway.
_TIMES, _MOST = 4.0, 1.0
# Of a small copy: tokens in its vocabulary and in an example, width between the linear layers of a
# block, experts, and the longest reach of its windows, which an example has to exceed.
_VOCABULARY, _LENGTH, _WIDTH, _EXPERTS, _REACH = 512, 64, 64, 16, 24
_WIDTHS = ("ffn_dim", "n_inner", "ffn_hidden_size", "block_ff_dim")
_REACHES = ("sliding_window", "attention_chunk_size")
# Where configurations say of every block what kind it is.
_KINDS = ("layer_types", "layers_block_type", "block_types")
# Where tokens stand in a row: place in it, the sequences that they are of, place in them, how many.
_Stand = tuple[int, tuple[int, ...], int, int]


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
        InputError: they do, or rows of several make other logits than each example alone.
    """
    recipe, packing = job.recipe, packing_of(job.recipe, job.kind)
    model = trainer.model
    collator = trainers.supervised(recipe, pad=0, rings=signal_of(model) is not None)
    batch = recipe.sft.rows if collator.flat else 1
    alone = job.kind == "dpo" or (packing in ("grouped", "none") and batch == 1)
    if alone:
        return {"isolated": True, "says": "one example a row"}
    bfloat16 = recipe.hardware.precision == "bfloat16"
    if not trainer.is_fsdp_enabled:
        found = measured(model, rows, collator, batch=batch, bfloat16=bfloat16)
        # Flash attention is told of bounds that others are not, and does not run in float32.
        if bfloat16 and not collator.flat and found["isolated"]:
            small = _of_copy(model, collator)
            found["copy"] = small and small["difference"]
        return found
    if next(_pairs(rows, batch), None) is None:
        return _unknown()
    # Every process holds a part of the model, and has the same copy.
    device = trainer.args.device if collator.flat else torch.device("cpu")
    small = _of_copy(model, collator, device)
    if small is None:
        unmeasured = (
            "examples share rows, and whether they see each other was not measured: under fsdp no "
            "process holds the whole model, and no small copy of its kind could be made"
        )
        say(f"{unmeasured}. Try one step of a small model of its kind without fsdp.")
        return {"isolated": None, "says": unmeasured}
    return small | {"says": f"{small['says']}, of a small copy of the model's kind"}


def measured(
    model: Any, rows: Any, collator: Supervised, *, batch: int = 1, bfloat16: bool = False
) -> dict[str, Any]:
    """See whether the logits of an example change with the tokens of another in its row.

    In float32 they are compared with those of each alone, too, under an attention of transformers:
    in 16 bits other shapes round otherwise, by up to twice the spread where experts are chosen.

    Args:
        model: on the device, and with the attention, that it is trained with.
        rows: of the run; a list of rows will do.
        collator: makes batches of them.
        batch: rows that the collator lays end to end.
        bfloat16: compute in it, as the training does.

    Returns:
        For the manifest: `isolated` (None where no row holds two examples that part from each other
        and go on) and the largest difference.

    Raises:
        InputError: they see each other, as the model's attention takes no notice of positions; or
            a row of both makes other logits than each alone.
    """
    found = min(_pairs(rows, batch), key=lambda pair: pair[0], default=None)
    if found is None:
        return _unknown()
    common, examples = found
    cut = common + _TOKENS
    two = [{name: values[:cut] for name, values in sequence.items()} for sequence in examples]
    lengths = [len(sequence["ids"]) for sequence in two]
    stands: list[_Stand] = [(0, (0,), 0, lengths[0]), (lengths[0], (1,), 0, lengths[1])]
    if collator.shared:
        segments = laid([told_apart(sequence["ids"], sequence["rings"]) for sequence in two])
        stands = [(one.start, one.of, one.depth, one.stop - one.start) for one in segments]
    alone: list[torch.Tensor] = []
    training = model.training
    model.eval()
    try:
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bfloat16):
            row = collator([two])
            together = _logits(model, row)
            others = [_logits(model, _swapped(row, stands, number)) for number in (0, 1)]
        if not bfloat16:
            with _own_attention(model, collator.shared):
                plain = dataclasses.replace(collator, shared=False)
                alone = [_logits(model, plain([[one]])) for one in two]
    finally:
        model.train(training)
    spread = float(together.std().clamp(min=1e-9))
    # What each does when the other is swapped; of the one that stands behind, it tells of a leak.
    moved = [
        max(
            float(
                (others[1 - number][0, at : at + count] - together[0, at : at + count]).abs().max()
            )
            for at, of, _, count in stands
            if number in of
        )
        / spread
        for number in (0, 1)
    ]
    behind = next(of[0] for _, of, _, _ in reversed(stands))
    least, difference = _CHANGE_OF_16_BITS if bfloat16 else _CHANGE, max(moved)
    allowed = min(max(least, _TIMES * moved[1 - behind]), _MOST if bfloat16 else _ROUNDING)
    way_out = "attention: sdpa, and packing: grouped" if collator.flat else "packing: grouped"
    if not difference <= allowed:
        raise InputError(
            f"sequence.packing: this model lets examples of one row see each other (logits differ "
            f"by {difference:.3g} of their spread). Use {way_out}."
        )
    if alone:
        apart = max(
            float(
                (together[0, at : at + count] - alone[each][0, first : first + count]).abs().max()
            )
            for at, of, first, count in stands
            for each in of
        )
        difference = max(difference, apart / spread)
        if not difference <= _ROUNDING:
            raise InputError(
                f"sequence.packing: this model makes something else of examples that are in one "
                f"row than of each alone (logits differ by {difference:.3g} of their spread). Use "
                f"{way_out}."
            )
    against = ", and against each alone" if alone else ""
    return {
        "isolated": True,
        "says": f"logits of an example when another of its row is swapped{against}",
        "difference": difference,
        "attention": model.config._attn_implementation,
    }


def _unknown() -> Json:
    return {"isolated": None, "says": "no row holds two examples that part from each other"}


def _swapped(row: dict[str, Any], stands: list[_Stand], number: int) -> dict[str, Any]:
    """The row with every token that is of this sequence only replaced by another of the row."""
    ids = row["input_ids"].clone()
    # Of the row itself: other ids of a vocabulary may stand for an image.
    known = ids.unique()
    for at, of, _, count in stands:
        if of == (number,):
            there = torch.searchsorted(known, ids[0, at : at + count])
            ids[0, at : at + count] = known[(there + 1) % len(known)]
    return row | {"input_ids": ids}


@contextmanager
def _own_attention(model: Any, shared: bool) -> Iterator[None]:
    """Let a model that has our attention, for shared rows, compute with one of transformers'."""
    if not shared:
        yield
        return
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    before = base.config._attn_implementation
    with quiet():
        try:
            base.set_attn_implementation("sdpa")
        except ValueError:  # it has none
            base.set_attn_implementation("eager")
    try:
        yield
    finally:
        base.set_attn_implementation(before)


def _of_copy(model: Any, collator: Supervised, device: torch.device | None = None) -> Json | None:
    """What `measured` finds in a small copy of the model's kind, the same in every process.

    On a CPU in float32; on another device in bfloat16, for flash attention.

    Raises:
        InputError: as `measured`.
    """
    bfloat16 = device is not None and device.type != "cpu"
    ids = np.random.default_rng(0).integers(3, _VOCABULARY, (3, _LENGTH))
    examples = [np.concatenate([ids[0][:LEAST], own[LEAST:]]) for own in ids[1:]]
    row = [
        {"ids": each, "rings": np.zeros_like(each), "mask": np.ones_like(each)} for each in examples
    ]
    try:
        # Seeds of other devices stay as they are, and this one's are put back.
        with quiet(), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(0)
            made = library("transformers").AutoModelForCausalLM.from_config(
                _small(model.config),
                dtype=torch.float32,
                attn_implementation=model.config._attn_implementation,
            )
            if bfloat16:
                made = made.to(device, torch.bfloat16)
        collator = dataclasses.replace(collator, rings=False)
        return measured(made, [row], collator, bfloat16=bfloat16)
    except InputError:
        raise
    except Exception:  # whatever transformers and torch find wrong with such a configuration
        return None


def _small(config: Any) -> Any:
    """A configuration with a few blocks, of every kind that there is, and little between them.

    Heads and what they are made of stay, since their sizes depend on each other.
    """
    made = copy.deepcopy(config)
    parts = [made]
    for part in parts:
        parts += [each for name in part.sub_configs if (each := getattr(part, name, None))]
        blocks = getattr(part, "num_hidden_layers", None)
        kinds = list(next((found for name in _KINDS if (found := getattr(part, name, None))), ()))
        kept = max([2, *(kinds.index(kind) + 1 for kind in set(kinds))])
        for name, value in list(vars(part).items()):
            if isinstance(value, list | tuple) and len(value) == blocks:
                setattr(part, name, value[:kept])
            elif not isinstance(value, int) or isinstance(value, bool):
                continue
            elif "intermediate" in name or name in _WIDTHS:
                setattr(part, name, min(value, _WIDTH))
            elif "expert" in name:
                setattr(part, name, min(value, _EXPERTS))
            elif name in _REACHES:
                setattr(part, name, min(value, _REACH))
            elif name == "vocab_size":
                setattr(part, name, _VOCABULARY)
            elif name == "pad_token_id":
                setattr(part, name, None)
        if blocks:
            part.num_hidden_layers = min(blocks, kept)
    return made


def _pairs(rows: Any, batch: int = 1) -> Iterator[tuple[int, list[dict[str, Any]]]]:
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
