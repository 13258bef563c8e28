"""Reads a LoRA adapter as PEFT saves it. Knows nothing of models or of llama.cpp."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.adapters.host import Host, read_host
from ringfence.adapters.safetensors_file import Array, read_tensors
from ringfence.errors import InputError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_PREFIX = "base_model.model."
_TENSOR = re.compile(r"(?P<module>.+)\.lora_(?P<half>[AB])\.weight")

# Settings without influence on what a saved adapter does. All others have to be off: they change
# the sum that an adapter stands for, and leaving one out would be silently wrong.
_INERT = frozenset(
    "task_type peft_type auto_mapping peft_version base_model_name_or_path revision inference_mode "
    "r target_modules exclude_modules lora_alpha lora_dropout fan_in_fan_out bias use_rslora "
    "init_lora_weights layers_to_transform layers_pattern rank_pattern alpha_pattern loftq_config "
    "eva_config corda_config lora_ga_config megatron_config megatron_core qalora_group_size "
    "ensure_weight_tying".split()
)
# Initialisations after which the base model is still itself.
_PLAIN_STARTS = (True, False, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What LoRA adds to one linear module: its output plus `scale` · `b` · `a` · its input.

    Attributes:
        a: [rank, inputs].
        b: [outputs, rank].
        scale: alpha / rank, or alpha / √rank (rsLoRA).
    """

    a: Array
    b: Array
    scale: float

    @property
    def rank(self) -> int:
        """The inner dimension."""
        return int(self.a.shape[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraAdapter:
    """A LoRA adapter.

    Attributes:
        name: of its folder.
        updates: by the full name of the module in the transformers model.
        host: the model it was trained for; None if nobody wrote it down.
    """

    name: str
    updates: Mapping[str, Update]
    host: Host | None = None


def read_adapter(folder: Path) -> LoraAdapter:
    """Read `adapter_config.json` and `adapter_model.safetensors`.

    Raises:
        InputError: files that are missing, broken or pickled, or an adapter that is more than
            LoRA on linear modules; names the setting or tensor.
    """
    config = _config(folder)
    weights = folder / WEIGHTS
    if not weights.is_file():
        if any(folder.glob("*.bin")):
            raise InputError(
                f"{folder} holds pickled weights, and reading a pickle can run any code. Save the "
                f"adapter as safetensors (save_pretrained(…, safe_serialization=True))."
            )
        raise InputError(f"{folder} holds no {WEIGHTS}")
    halves: dict[str, dict[str, Array]] = {}
    for name, tensor in read_tensors(weights).items():
        match = _TENSOR.fullmatch(name)
        if match is None or tensor.ndim != 2:
            raise InputError(
                f"{weights}: {name!r} of shape {tensor.shape} is no half of a LoRA update of a "
                "linear module. Train without it (modules_to_save, embeddings, DoRA, biases); "
                "copies of the model's own layers are left out by "
                "save_pretrained(…, save_embedding_layers=False)."
            )
        halves.setdefault(match["module"].removeprefix(_PREFIX), {})[match["half"]] = tensor
    if not halves:
        raise InputError(f"{weights}: holds no tensors")
    updates = {name: _update(name, found, config, weights) for name, found in halves.items()}
    return LoraAdapter(
        name=folder.resolve().name, updates=dict(sorted(updates.items())), host=read_host(folder)
    )


def _config(folder: Path) -> dict[str, Any]:
    file = folder / CONFIG
    try:
        config = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{folder} is no adapter folder: {CONFIG} cannot be read") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not valid JSON: {error}") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise InputError(f"{file}: peft_type must be LORA")
    for key, value in config.items():
        if key not in _INERT and value:
            raise InputError(
                f"{file}: {key} is set to {value!r}, which plain LoRA does not have. Train "
                "without it, or merge the adapter into its model."
            )
    if config.get("bias", "none") != "none":
        raise InputError(f"{file}: bias must be none; LoRA alone is read")
    if config.get("init_lora_weights", True) not in _PLAIN_STARTS:
        raise InputError(
            f"{file}: init_lora_weights {config['init_lora_weights']!r} changes the base model. "
            "Convert the adapter to plain LoRA (path_initial_model_for_weight_conversion in PEFT)."
        )
    for key in ("rank_pattern", "alpha_pattern"):
        if not isinstance(config.get(key) or {}, dict):
            raise InputError(f"{file}: {key} must be a mapping of modules to numbers")
    return config


def _update(name: str, halves: dict[str, Array], config: dict[str, Any], file: Path) -> Update:
    if set(halves) != {"A", "B"}:
        raise InputError(f"{file}: {name} has only lora_{next(iter(halves))}")
    a, b = halves["A"], halves["B"]
    if a.shape[0] != b.shape[1] or not a.shape[0]:
        raise InputError(f"{file}: {name}: lora_A of shape {a.shape} and lora_B of {b.shape}")
    alpha = _alpha(name, config, file)
    root = math.sqrt(a.shape[0]) if config.get("use_rslora") else a.shape[0]
    return Update(a=a, b=b, scale=alpha / root)


def _alpha(name: str, config: dict[str, Any], file: Path) -> float:
    """The alpha of one module. Patterns are names here: PEFT would take them for expressions."""
    alpha = config.get("lora_alpha", 8)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        plain = pattern.removeprefix("^").removesuffix("$")
        if re.search(r"[^\w.-]", plain):
            raise InputError(
                f"{file}: alpha_pattern: {pattern!r} is a regular expression; names are read"
            )
        if name == plain or name.endswith(f".{plain}"):
            alpha = value
            break
    try:
        number = math.nan if isinstance(alpha, bool | str) else float(alpha)
    except (TypeError, OverflowError):  # a whole number may be larger than any float
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{file}: lora_alpha must be a number, not {alpha!r:.40}")
    return number
