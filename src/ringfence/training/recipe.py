"""Recipes of training as YAML files, with their JSON Schema. Knows nothing of torch or of data."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from ringfence.errors import InputError
from ringfence.yaml_files import read

Kind = Literal["sft", "dpo"]
Packing = Literal["packed", "grouped", "shared", "none"]
KINDS: tuple[Kind, ...] = ("sft", "dpo")
UNSHARDED = "a ring signal cannot be sharded; use hardware.strategy: ddp"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Adapter(_Section):
    """A LoRA adapter, as PEFT takes it."""

    rank: int = Field(default=16, ge=1, le=1024)
    """Rank of the two factors."""
    alpha: float = Field(default=32.0, gt=0)
    """The product of the factors is scaled by alpha / rank."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the adapter's inputs that is zeroed in `train sft`; preferences compare with what
    the model said before, and are trained without."""
    targets: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the linear layers that get one; `all-linear` is every one of the text model, but the
    output layer."""


class Part(_Section):
    """A part of the mixture. An example belongs to the first part that takes it."""

    name: str = Field(min_length=1, max_length=80)
    """For counts and the manifest."""
    weight: float = Field(gt=0)
    """Share of the examples, relative to the other parts."""
    data: tuple[str, ...] = ()
    """Names of the data it takes (NAME=PATH of --data, else the folder's name); empty takes all."""
    recipes: tuple[str, ...] = ()
    """Recipes of synthesis it takes; empty takes all."""
    siblings: tuple[str, ...] = ()
    """Siblings of cases it takes; empty takes all."""
    replies: Literal["all", "last"] = "all"
    """Which of the assistant's messages are learnt. Of a synthesised case it is always the last,
    the only one that is checked."""
    longest: int | None = Field(default=None, ge=16)
    """Most tokens of an example it takes; longer ones go to the next part that takes them."""


class Sequence(_Section):
    """How examples become batches."""

    length: int = Field(default=1024, ge=16)
    """Longest example in tokens; longer ones are dropped and counted."""
    packing: Packing = "grouped"
    """`packed` fills rows with several examples that do not see each other; `grouped` puts examples
    of like length side by side; `shared` takes all examples of a case together, and computes and
    learns what they have in common once; `none` takes them as they come. Preferences are `grouped`
    at most."""


class Schedule(_Section):
    """Steps of the optimiser (AdamW), and when to save."""

    epochs: float = Field(default=1.0, gt=0)
    """Passes over the mixture; each draws and orders anew."""
    steps: int | None = Field(default=None, ge=1)
    """At most so many steps."""
    rows: int = Field(default=4, ge=1)
    """Rows a device processes at once; for preferences, pairs."""
    accumulate: int = Field(default=4, ge=1)
    """Batches of a device that make one step."""
    learning_rate: float = Field(default=1e-4, gt=0)
    """At the peak."""
    decay: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(default=0.03, ge=0, lt=1)
    """Share of the steps in which it rises."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Of AdamW."""
    clip: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    save_every: int = Field(default=100, ge=1)
    """Steps from one checkpoint to the next."""
    keep: int = Field(default=2, ge=1)
    """Checkpoints that are kept while training."""


class Preferences(Schedule):
    """Steps of preference training (DPO, arXiv 2305.18290)."""

    learning_rate: float = Field(default=5e-6, gt=0)
    """At the peak."""
    beta: float = Field(default=0.1, gt=0)
    """How dear it is to move away from the model before training."""
    sft_weight: float = Field(default=0.0, ge=0)
    """Weight of the chosen replies' own loss, added to that of the preferences."""


class Hardware(_Section):
    """What the recipe is meant for."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16` computes in it; a frozen model lies in it, weights that are trained in float32."""
    attention: Literal["sdpa", "eager", "flash_attention_2", "flash_attention_3"] = "sdpa"
    """The implementation in transformers."""
    checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a quarter more time."""
    strategy: Literal["one", "ddp", "fsdp"] = "one"
    """`ddp` copies the model to every device, `fsdp` shards weights, gradients and optimiser."""
    devices: int = Field(default=1, ge=1)
    """Devices in all, over all nodes; only for the arithmetic of --dry-run."""
    memory_gib: float | None = Field(default=None, gt=0)
    """Memory of a device, for the arithmetic of --dry-run."""
    threads: int | None = Field(default=None, ge=1)
    """CPU threads; None takes torch's own choice."""
    offload: bool = False
    """With fsdp: keep weights and optimiser in the memory of the host."""


class Recipe(_Section):
    """How a model is trained."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, title="ringfence recipe", use_attribute_docstrings=True
    )

    format: Literal[1] = 1
    """Of this file."""
    title: str = Field(default="", max_length=200)
    """For people."""
    adapter: Adapter | None = Adapter()
    """None trains all weights, as --full does."""
    segments: Literal["none", "input", "blocks"] = "none"
    """A learned embedding per ring, added at the input or at every block; starts at zero."""
    segments_rate: float = Field(default=10.0, gt=0, le=1000)
    """How many times the schedule's learning rate these embeddings learn with: from zero, the rate
    of an adapter brings them nowhere in a short training."""
    mixture: tuple[Part, ...] = ()
    """Empty takes all data once an epoch."""
    examples: int | None = Field(default=None, ge=1)
    """Examples an epoch; None takes as many as the proportions allow without repeating any."""
    repeats: int = Field(default=4, ge=1)
    """How often an epoch may repeat an example of a part that is short, when `examples` is set."""
    verdicts: float = Field(default=1.0, gt=0, le=1000)
    """How much a token of a judge's verdict counts in the loss; one of a reply counts 1. A verdict
    is one word beside replies of many."""
    decisions: float = Field(default=1.0, gt=0, le=1000)
    """How much the token counts at which a right reply of a synthesised case parts from a wrong
    one. Most of a reply is the same whoever is obeyed."""
    sequence: Sequence = Sequence()
    """How examples become batches."""
    sft: Schedule = Schedule()
    """For `train sft`."""
    dpo: Preferences = Preferences()
    """For `train dpo`."""
    hardware: Hardware = Hardware()
    """What the recipe is meant for."""
    seed: int = Field(default=0, ge=0, lt=2**31)
    """Of the mixture, the order, and new weights."""

    @model_validator(mode="after")
    def _parts(self) -> Recipe:
        names = [part.name for part in self.mixture]
        if len(set(names)) != len(names):
            raise ValueError("mixture: two parts have the same name")
        return self

    @model_validator(mode="after")
    def _signals(self) -> Recipe:
        # FSDP would shard the signal's table, which is read whole at every block.
        if self.segments != "none" and self.hardware.strategy == "fsdp":
            raise ValueError(f"segments: {UNSHARDED}, or segments: none")
        if self.segments != "none" and self.adapter is None:
            raise ValueError(
                "segments: a ring signal is saved with an adapter, and adapter: null has none; "
                "leave one of them out"
            )
        return self

    @model_validator(mode="after")
    def _hardware(self) -> Recipe:
        if self.hardware.offload and self.hardware.strategy != "fsdp":
            raise ValueError(
                "hardware.offload: only fsdp can do it; strategy: fsdp, or leave it out"
            )
        if self.sequence.packing == "shared" and self.hardware.attention != "sdpa":
            raise ValueError(
                "hardware.attention: sequence.packing: shared has an attention of its own; leave "
                "it out, or take packing: packed"
            )
        if self.hardware.attention.startswith("flash") and self.hardware.precision == "float32":
            raise ValueError(
                "hardware.attention: flash attention computes in 16 bits only; precision: "
                "bfloat16, or attention: sdpa"
            )
        return self

    def schedule(self, kind: Kind) -> Schedule:
        """The schedule of a kind of training."""
        return self.sft if kind == "sft" else self.dpo


def load(path: Path | None, *, full: bool = False) -> Recipe:
    """A recipe from a file; the defaults without one. `full` trains all weights.

    Raises:
        InputError: a broken file; names file, field and the fix.
    """
    recipe = Recipe() if path is None else read(Recipe, path)
    if full and recipe.segments != "none":
        raise InputError("--full: segment signals are saved with an adapter; leave one of them out")
    return recipe.model_copy(update={"adapter": None}) if full else recipe


def schema() -> dict[str, Any]:
    """JSON Schema of a recipe file."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Recipe.model_json_schema(),
    }
