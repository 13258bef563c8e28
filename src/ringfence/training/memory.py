"""How much memory a run needs on every device, by arithmetic; no weights are loaded.

Weights, gradients and optimiser are counted exactly from the model's own modules; activations are
an estimate (tensors that a decoder block of the Llama kind keeps for its backward pass), and what
the allocator and libraries take comes on top.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ringfence.adapters.folder import read_adapter
from ringfence.errors import EngineError
from ringfence.training.models import freeze_beside_text, library, lora, quiet
from ringfence.training.recipe import Kind, Recipe

GIB = 2**30
# Bytes of a number in each precision.
_WIDTH = {"float32": 4, "bfloat16": 2}
# Adam keeps two moments in float32.
_MOMENTS = 8
# Tensors a block keeps per token: norms, queries, outputs and residuals are as wide as the model,
# gate, up, activation and product as wide as the feed-forward layer.
_MODEL_WIDE, _FEED_WIDE = 8, 4
# TRL scores the vocabulary in tiles of so many tokens by so many entries.
_TILE = 4096 * 8192
_TILE_COPIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one device, and the counts behind them.

    Attributes:
        parameters: of the model, adapter left out.
        trained: that change.
        devices: over which is sharded or copied.
        weights: of the model and the adapter.
        gradients: of what is trained.
        optimizer: two moments of each.
        copies: of trained weights in bfloat16, which autocast keeps until the backward pass.
        buckets: gradients once more, as ddp sends them.
        gathered: whole blocks that fsdp brings together to compute.
        activations: an estimate.
        reference: a second model, for preferences without an adapter.
        total: of all, or what it takes to shard the reference if that is more.
        available: of a device, None if the recipe does not say.
        fits: None likewise; a tenth is left for the allocator.
    """

    parameters: int
    trained: int
    devices: int
    strategy: str
    weights: int
    gradients: int
    optimizer: int
    copies: int
    buckets: int
    gathered: int
    activations: int
    reference: int
    total: int
    available: int | None
    fits: bool | None

    def described(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        rows = (
            *("weights", "gradients", "optimizer", "copies", "buckets"),
            *("gathered", "activations", "reference"),
        )
        found = [
            f"{self.parameters / 1e6:,.1f} M parameters, {self.trained / 1e6:,.2f} M of them or of "
            f"the adapter trained; {self.strategy} on {self.devices} devices; each needs"
        ]
        found += [f"  {name:<12}{getattr(self, name) / GIB:10.2f} GiB" for name in (*rows, "total")]
        if self.available is not None:
            verdict = "fits" if self.fits else "does not fit"
            found.append(f"  {verdict} into {self.available / GIB:.0f} GiB (a tenth kept free)")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Sizes of a model that memory depends on."""

    parameters: int
    trainable: int
    block: int
    embeddings: int
    adapter: int
    layers: int
    hidden: int
    heads: int
    keys: int
    feed: int
    vocabulary: int


def estimated(shape: Shape, recipe: Recipe, kind: Kind) -> Memory:
    """The arithmetic for a model of a shape."""
    hardware, schedule = recipe.hardware, recipe.schedule(kind)
    full = recipe.adapter is None
    compute = _WIDTH[hardware.precision]
    resting = 4 if full else compute
    trained = shape.trainable if full else shape.adapter
    shards = hardware.devices if hardware.strategy == "fsdp" else 1
    weights = (shape.parameters * resting + (0 if full else shape.adapter * 4)) / shards
    moved = trained * (4 + _MOMENTS) / shards if not hardware.offload else 0
    # Both are of whole weights; fsdp shards them in the precision that it computes in.
    copies = trained * 2 if compute == 2 and hardware.strategy != "fsdp" else 0
    buckets = trained * 4 if hardware.strategy == "ddp" else 0
    gathered = 0
    if hardware.strategy == "fsdp":
        # The block in hand and the next one, and once the embeddings or the head.
        gathered = (2 * shape.block + shape.embeddings) * compute
    # Without an adapter to switch off, the reference of preferences is a second model, which TRL
    # shards as one piece under fsdp: a device holds it whole before, and again as it computes.
    reference, whole = 0.0, 0
    if kind == "dpo" and full:
        reference = weights
        if hardware.strategy == "fsdp":
            reference += shape.parameters * compute
            whole = shape.parameters * resting
    if hardware.offload:
        weights = 0
    rows = schedule.rows * (2 if kind == "dpo" else 1)
    activations = _activations(shape, recipe, rows * recipe.sequence.length, compute)
    gradients = 0 if hardware.offload else trained * 4 / shards
    total = math.ceil(weights + moved + copies + buckets + gathered + activations + reference)
    total = max(total, math.ceil(weights + whole))
    available = None if hardware.memory_gib is None else int(hardware.memory_gib * GIB)
    return Memory(
        parameters=shape.parameters,
        trained=trained,
        devices=hardware.devices,
        strategy=hardware.strategy,
        weights=math.ceil(weights),
        gradients=math.ceil(gradients),
        optimizer=math.ceil(moved - gradients) if moved else 0,
        copies=copies,
        buckets=buckets,
        gathered=gathered,
        activations=activations,
        reference=math.ceil(reference),
        total=total,
        available=available,
        fits=None if available is None else total <= 0.9 * available,
    )


def shape_of(folder: Path, recipe: Recipe, going_on: Path | None = None) -> Shape:
    """The sizes of a model folder, from its config alone.

    Args:
        folder: of the model.
        recipe: says whether there is an adapter, and of which rank.
        going_on: an adapter to go on with, which has a rank of its own.

    Raises:
        EngineError: transformers knows no such architecture, or the config is broken.
        InputError: the adapter cannot be read.
    """
    torch, transformers = library("torch"), library("transformers")
    try:
        with quiet():
            config = transformers.AutoConfig.from_pretrained(
                folder, trust_remote_code=False, local_files_only=True
            )
            with torch.device("meta"):
                model = transformers.AutoModelForCausalLM.from_config(config)
    except Exception as error:  # whatever transformers finds wrong
        raise EngineError(f"{folder}: {error}") from error
    text = config.get_text_config()
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    embeddings = model.get_input_embeddings().weight.numel()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    freeze_beside_text(model)
    trainable = sum(each.numel() for each in model.parameters() if each.requires_grad)
    blocks = max(
        (module for module in model.modules() if isinstance(module, torch.nn.ModuleList)), key=len
    )
    block = sum(parameter.numel() for parameter in blocks[0].parameters())
    adapter = 0
    if going_on is not None:
        updates = read_adapter(going_on).updates.values()
        adapter = sum(update.a.size + update.b.size for update in updates)
    elif recipe.adapter is not None:
        with quiet():
            peft = library("peft")
            fitted = peft.get_peft_model(model, lora(peft, recipe.adapter, model))
        adapter = sum(each.numel() for each in fitted.parameters() if each.requires_grad)
    return Shape(
        parameters=parameters,
        trainable=trainable,
        block=block,
        embeddings=embeddings,
        adapter=adapter,
        layers=len(blocks),
        hidden=text.hidden_size,
        heads=heads,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        feed=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        vocabulary=text.vocab_size,
    )


def _activations(shape: Shape, recipe: Recipe, tokens: int, compute: int) -> int:
    wide = _MODEL_WIDE * shape.hidden + 2 * shape.keys + _FEED_WIDE * shape.feed
    block = tokens * wide * compute
    if recipe.hardware.attention == "eager":
        # Scores, their softmax in float32 and what is left of it: each a number for every two
        # places of a row and every head.
        block += tokens * recipe.sequence.length * shape.heads * (4 + 2 * compute)
    if recipe.hardware.checkpointing:
        kept = tokens * shape.hidden * compute * shape.layers + block
    else:
        kept = block * shape.layers
    tile = min(_TILE, tokens * shape.vocabulary) * _TILE_COPIES * 4
    # Hidden states before the head, and their gradient.
    return int(kept + 2 * tokens * shape.hidden * compute + tile)
