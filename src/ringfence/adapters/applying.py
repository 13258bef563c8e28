"""A LoRA adapter in a transformers model of this process. Knows nothing of files."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ringfence.adapters.folder import LoraAdapter, Update
from ringfence.errors import InputError


def apply(model: Any, adapter: LoraAdapter, strength: float) -> None:
    """Add an adapter's updates to the outputs of the modules they are for.

    By forward hooks: the weights stay as they are, so that nothing is lost to rounding in 16-bit
    types. The updates are computed in float32, as PEFT does.

    Args:
        model: a transformers model; all its later forward passes have the adapter.
        adapter: as `read_adapter` gives it.
        strength: scales the updates; at 0 nothing is added.

    Raises:
        InputError: the model has no such modules, or of another shape.
    """
    modules = dict(model.named_modules())
    for name, update in adapter.updates.items():
        _check(adapter.name, name, modules.get(name), update)
    if not strength:
        return
    for name, update in adapter.updates.items():
        module = modules[name]
        device = module.weight.device
        down = torch.from_numpy(update.a).to(device)
        up = torch.from_numpy(update.b).to(device) * (strength * update.scale)
        module.register_forward_hook(_adding(down, up))


def _adding(down: Tensor, up: Tensor) -> Any:
    linear = nn.functional.linear

    def add(_module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        change = linear(linear(args[0].float(), down), up)
        return (output + change).to(output.dtype)

    return add


def _check(adapter: str, name: str, module: Any, update: Update) -> None:
    # transformers' Conv1D (GPT-2) is a linear module with its weight the other way round.
    if type(module).__name__ == "Conv1D":
        shape = tuple(module.weight.shape)
    elif isinstance(module, nn.Linear):
        shape = (module.in_features, module.out_features)
    else:
        raise InputError(
            f"adapter {adapter} is for another model: this one has no linear module {name}"
        )
    found = (update.a.shape[1], update.b.shape[0])
    if shape != found:
        raise InputError(
            f"adapter {adapter} is for another model: its update of {name} goes from {found[0]} "
            f"to {found[1]} numbers, and the model's from {shape[0]} to {shape[1]}"
        )
