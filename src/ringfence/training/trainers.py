"""TRL's trainers, told what is ours: data that is rendered already, and checkpoints that are whole.

Losses, optimiser, schedules and distribution are TRL's and transformers'.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from ringfence.training.checkpoints import CHECKPOINTS, PARTIAL, checkpoints, synced
from ringfence.training.collation import Numbered, Pairs, Rows, Supervised
from ringfence.training.models import library, signal_of
from ringfence.training.plan import packing_of
from ringfence.training.recipe import Kind, Preferences, Recipe

_trl: Any = library("trl")
_SFT: Any = _trl.SFTTrainer
_DPO: Any = _trl.DPOTrainer
# What transformers calls `constant` takes no notice of a warm-up.
_DECAYS = {"constant": "constant_with_warmup"}


class _Ours:
    """What both kinds of trainer do our way; comes before TRL's class among the bases."""

    keep: int
    folder: Path
    signal_rate: float

    def _prepare_dataset(self, dataset: Any, *_args: Any, **_options: Any) -> Any:
        return dataset

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        """The plan's own order."""
        return torch.utils.data.SequentialSampler(
            dataset if dataset is not None else self.train_dataset  # type: ignore[attr-defined]
        )

    def create_optimizer(self, model: Any = None) -> Any:
        """TRL's, with a learning rate of its own for a ring signal."""
        optimizer = super().create_optimizer(model)  # type: ignore[misc]
        signal = signal_of(self.model)  # type: ignore[attr-defined]
        if signal is not None:
            for group in optimizer.param_groups:
                group["params"] = [one for one in group["params"] if one is not signal.table]
            rate = self.args.learning_rate * self.signal_rate  # type: ignore[attr-defined]
            optimizer.add_param_group({"params": [signal.table], "lr": rate, "weight_decay": 0.0})
        return optimizer

    def _set_signature_columns_if_needed(self) -> None:
        self._signature_columns: list[str] = []

    def create_model_card(self, *_args: Any, **_options: Any) -> None:
        """None: ours is written at the end."""

    def _send_telemetry(self) -> None:
        """None: what is trained here is nobody else's business."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self.folder / CHECKPOINTS / PARTIAL)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Written aside and renamed, so that a checkpoint is whole or not there."""
        accelerator = self.accelerator  # type: ignore[attr-defined]
        partial = self.folder / CHECKPOINTS / PARTIAL
        if accelerator.is_main_process:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)  # type: ignore[misc]
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            name = f"checkpoint-{self.state.global_step}"  # type: ignore[attr-defined]
            signal = signal_of(accelerator.unwrap_model(model))
            if signal is not None:
                signal.save(partial / name)
            synced(partial / name)
            final = self.folder / CHECKPOINTS / name
            shutil.rmtree(final, ignore_errors=True)
            os.replace(partial / name, final)
            for old in checkpoints(self.folder)[: -self.keep]:
                shutil.rmtree(old, ignore_errors=True)
        accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)  # type: ignore[misc]
        signal = signal_of(self.model)  # type: ignore[attr-defined]
        if signal is not None:
            from safetensors.torch import load_file

            from ringfence.segments.saved import WEIGHTS

            table = load_file(Path(resume_from_checkpoint) / WEIGHTS)["table"]
            with torch.no_grad():
                signal.table.copy_(table)


class SupervisedTrainer(_Ours, _SFT):  # type: ignore[misc]
    """TRL's SFTTrainer on rendered rows."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **options: Any) -> Any:
        """As TRL's; scores only tokens with a loss on processors without Triton, too.

        `weights` among the inputs, [rows, places] as the labels, say how much each label counts.
        """
        weights = inputs.pop("weights", None)
        with _scoring_what_is_learnt(), _weighing(model, weights):
            return super().compute_loss(model, inputs, *args, **options)


class PreferenceTrainer(_Ours, _DPO):  # type: ignore[misc]
    """TRL's DPOTrainer on rendered pairs."""

    def compute_loss(self, *args: Any, **options: Any) -> Any:
        """As TRL's; scores only tokens with a loss on processors without Triton, too."""
        with _scoring_what_is_learnt():
            return super().compute_loss(*args, **options)


@contextmanager
def _weighing(model: Any, weights: torch.Tensor | None) -> Iterator[None]:
    """Multiply what TRL makes its loss of, the log-probability of every label after the first."""
    if weights is None:
        yield
        return

    def weigh(_module: Any, _args: Any, output: Any) -> None:
        output.log_probs = output.log_probs * weights[:, 1:]

    handle = model.register_forward_hook(weigh)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _scoring_what_is_learnt() -> Iterator[None]:
    """TRL leaves tokens without a loss out of the head's product only where Triton runs.

    Elsewhere it avoids shapes that change, for compilers; torch on a CPU compiles nothing here. The
    switch is private to TRL: without it all is as TRL does it, slower by the head's share.
    """
    module = _trl.trainer.utils
    before = getattr(module, "_use_triton", None)
    if before is None:
        yield
        return
    module._use_triton = lambda device: device.type == "cpu" or before(device)
    try:
        yield
    finally:
        module._use_triton = before


def arguments(recipe: Recipe, kind: Kind, folder: Path, steps: int, *, cpu: bool) -> Any:
    """TRL's configuration of a recipe."""
    schedule, hardware = recipe.schedule(kind), recipe.hardware
    fsdp: dict[str, Any] = {}
    if hardware.strategy == "fsdp":
        settings: dict[str, Any] = {
            "version": 2,
            "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "reshard_after_forward": True,
            "cpu_ram_efficient_loading": True,
            "state_dict_type": "SHARDED_STATE_DICT",
            "activation_checkpointing": hardware.checkpointing,
            "cpu_offload": hardware.offload,
        }
        fsdp = {"fsdp": True, "fsdp_config": settings}
    common: dict[str, Any] = {
        "output_dir": str(folder / CHECKPOINTS),
        "max_steps": steps,
        "per_device_train_batch_size": schedule.rows,
        "gradient_accumulation_steps": schedule.accumulate,
        "learning_rate": schedule.learning_rate,
        "lr_scheduler_type": _DECAYS.get(schedule.decay, schedule.decay),
        "warmup_steps": round(schedule.warmup * steps),
        "weight_decay": schedule.weight_decay,
        "max_grad_norm": schedule.clip,
        "bf16": hardware.precision == "bfloat16",
        "gradient_checkpointing": hardware.checkpointing and hardware.strategy != "fsdp",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": schedule.save_every,
        "seed": recipe.seed,
        "use_cpu": cpu,
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": not cpu,
        "max_length": None,
        "ddp_find_unused_parameters": False,
        # A mixture of experts balances its routers by a loss over all tokens, prompts and padding
        # too; without a word TRL adds it as the model's config weighs it, and what shall be learnt
        # is the assistant's.
        "router_aux_loss_coef": 0.0,
        **fsdp,
    }
    if kind == "sft":
        return _trl.SFTConfig(**common, packing=False)
    assert isinstance(schedule, Preferences)
    losses: dict[str, Any] = {"loss_type": ["sigmoid"]}
    if schedule.sft_weight:
        losses = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, schedule.sft_weight]}
    return _trl.DPOConfig(**common, beta=schedule.beta, **losses)


def supervised(recipe: Recipe, *, pad: int, rings: bool) -> Supervised:
    """What makes batches for supervised training by a recipe.

    Args:
        recipe: gives packing, attention and weights.
        pad: id of the padding.
        rings: the model has a ring signal.
    """
    shared = packing_of(recipe, "sft") == "shared"
    return Supervised(
        pad=pad,
        flat=not shared and recipe.hardware.attention.startswith("flash"),
        shared=shared,
        verdicts=recipe.verdicts,
        decisions=recipe.decisions,
        rings=rings,
    )


def trainer(
    kind: Kind,
    model: Any,
    settings: Any,
    rows: Rows,
    recipe: Recipe,
    folder: Path,
    tokenizer: PreTrainedTokenizerFast,
) -> Any:
    """The trainer of a kind, ready to run."""
    tokenizer = copy.deepcopy(tokenizer)  # what is saved keeps the padding that it has, or none
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    pad = tokenizer.pad_token_id
    rings = signal_of(model) is not None
    collator: Supervised | Pairs = (
        supervised(recipe, pad=pad, rings=rings) if kind == "sft" else Pairs(pad=pad, rings=rings)
    )
    if kind == "dpo" and rings:
        _reference_without_training(model)
    # TRL wants a data set of its own library: it gets the numbers of the rows.
    numbers = library("datasets").Dataset.from_dict({"row": list(range(len(rows)))})
    made = (SupervisedTrainer if kind == "sft" else PreferenceTrainer)(
        model=model,
        args=settings,
        data_collator=Numbered(rows, collator),
        train_dataset=numbers,
        processing_class=tokenizer,
    )
    made.folder, made.keep = folder, recipe.schedule(kind).keep
    made.signal_rate = recipe.segments_rate
    from transformers import PrinterCallback

    made.remove_callback(PrinterCallback)
    return made


def _reference_without_training(model: Any) -> None:
    """The reference of DPO is the model before training, its ring signal included.

    TRL computes it with the adapter swapped, in forward passes without gradients, and knows nothing
    of the signal.
    """
    signal = signal_of(model)
    assert signal is not None
    first = signal.table.detach().clone()
    held: list[torch.Tensor] = []

    def swap(_module: Any, args: Any, options: Any) -> Any:
        if not torch.is_grad_enabled():
            held.append(signal.table.data)
            signal.table.data = first.to(signal.table.device)
        return args, options

    def swap_back(_module: Any, _args: Any, _output: Any) -> None:
        if held:
            signal.table.data = held.pop()

    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    inner.register_forward_pre_hook(swap, with_kwargs=True, prepend=True)
    inner.register_forward_hook(swap_back, always_call=True)
