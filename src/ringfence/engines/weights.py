"""Weights: found, refused or loaded through transformers. Knows nothing of drafts or caches.

Model files are data here and stay data: weights are taken from safetensors or GGUF only, since
unpickling is running code, and Python files are neither downloaded nor run.
"""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ringfence.errors import EngineError, InputError
from ringfence.gguf_metadata import read_metadata, read_tensor_names

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
# Configs, tokenizer and templates.
_DESCRIBING = ("*.json", "*.jinja")
_WANTED = ("*.safetensors", *_DESCRIBING)
# Scaled positions in llama.cpp's form: divisors of the frequencies (llama3, longrope).
_SCALING_TENSOR = re.compile(r"(.*\.)?rope_(freqs|factors).*")
# Architectures of GGUF whose scaling transformers reads, or makes of its own (proportional).
_SCALING_KEPT = ("gpt-oss", "gemma4")


def find_weights(path: str | Path, *, weights: bool = True) -> Path:
    """Find a model folder or a GGUF file; download `owner/name` from the Hugging Face hub.

    A path that exists wins over a hub name of the same spelling.

    Args:
        path: of a folder or file, or a name.
        weights: without, a folder needs no weights, and none are downloaded.

    Raises:
        EngineError: nothing is there, or something that is no model, or is refused.
    """
    found = Path(os.path.expanduser(path)).resolve()
    if found.is_file():
        return found
    if not found.is_dir():
        if not _HUB_NAME.fullmatch(str(path)):
            raise EngineError(f"{path} does not exist; name a model folder or a GGUF file")
        found = _download(str(path), _WANTED if weights else _DESCRIBING)
    _refuse_other_weights(found, needed=weights)
    return found


def _download(name: str, wanted: tuple[str, ...]) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
        return Path(
            # Files in subfolders are copies of the same weights in other formats.
            hub.snapshot_download(name, allow_patterns=wanted, ignore_patterns=["*/*"])
        )
    except Exception as error:  # network, authorisation, a missing library or repository
        raise EngineError(
            f"{name} is no path here, and cannot be downloaded from the hub: {error}. For a gated "
            "model, `hf auth login` first; without a network, name a local folder."
        ) from error


def _refuse_other_weights(folder: Path, *, needed: bool) -> None:
    """Say which of the usual reasons makes this folder no model."""
    if (folder / "adapter_config.json").exists():
        raise EngineError(
            f"{folder} is an adapter; merge it into its model first (merge_and_unload in peft)"
        )
    if not (folder / "config.json").exists():
        files = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f"; did you mean {folder / files[0]}?" if files else ""
        raise EngineError(f"{folder} is no model folder, it has no config.json{hint}")
    if not needed or any(folder.glob("*.safetensors")):
        return
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)):
        raise EngineError(
            f"{folder} holds pickled weights, and reading a pickle can run any code. Convert them "
            "to safetensors where that does no harm, or take the model's safetensors version."
        )
    raise EngineError(f"{folder} holds no weights (*.safetensors)")


def refuse_lost_scaling(gguf: Path) -> None:
    """Refuse a GGUF file with scaled positions (RoPE) where transformers would not scale them.

    It reads neither the tensors nor, but for gpt-oss, the keys: the model would run as if it had
    been made without, and be trained so.

    Raises:
        EngineError: the file cannot be read.
        InputError: its scaling would be lost.
    """
    metadata = read_metadata(gguf)
    architecture = metadata.get("general.architecture")
    if architecture in _SCALING_KEPT:
        return
    keys = f"{architecture}.rope"
    # llama.cpp takes a factor without a type as linear, and 0 as none.
    kind = metadata.get(f"{keys}.scaling.type", "linear")
    factor = metadata.get(f"{keys}.scaling.factor", metadata.get(f"{keys}.scale_linear", 1))
    lost = f"{keys}.scaling.factor: {factor:g}" if kind != "none" and factor not in (0, 1) else None
    lost = lost or next(filter(_SCALING_TENSOR.fullmatch, read_tensor_names(gguf)), None)
    if lost:
        raise InputError(
            f"{gguf} scales its positions (RoPE, {lost}), which transformers does not read from "
            "GGUF. Name the model's folder of safetensors; for replies, embedded:FILE.gguf works."
        )


def import_library(name: str) -> Any:
    """Import torch or transformers, which are optional and slow to import.

    Raises:
        EngineError: it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"a model in this process needs torch and transformers, and {name} cannot be imported "
            f"({error}). pip install 'ringfence[hf]', or open a server by its http:// address."
        ) from error


def load_model(path: Path, device: str, dtype: str) -> Any:
    """Load a causal language model: safetensors, or GGUF unpacked into plain weights.

    Args:
        path: a model folder or a GGUF file, as `find_weights` gives it.
        device: such as `cpu` or `cuda:0`.
        dtype: such as `float32`; `auto` is the checkpoint's own.

    Returns:
        The transformers model, in evaluation mode, without gradients on its parameters.

    Raises:
        EngineError: an unknown architecture, or one that needs code of the folder; weights missing
            or of another shape; too little memory; no such device or type.
        InputError: a GGUF file whose scaling of positions would be lost.
    """
    if path.is_file():
        refuse_lost_scaling(path)
    transformers = import_library("transformers")
    common = {"trust_remote_code": False, "local_files_only": True}
    try:
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            path if path.is_dir() else path.parent,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **common,
            **_format_options(transformers, path, common),
        )
        model = model.to(device).eval().requires_grad_(False)
    except Exception as error:  # whatever transformers, safetensors and torch find wrong
        raise EngineError(
            f"{path} cannot be loaded by transformers {transformers.__version__} as "
            f"{dtype} on {device}: {error}"
        ) from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise EngineError(
            f"{path} lacks {len(missing)} weights, such as {missing[0]}; transformers "
            "would make them up. Is the download complete?"
        )
    return model


def _format_options(transformers: Any, path: Path, common: Mapping[str, Any]) -> dict[str, Any]:
    if path.is_file():
        unpacked = transformers.GgufConfig(dequantize=True)
        return {"gguf_file": path.name, "quantization_config": unpacked}
    config = transformers.AutoConfig.from_pretrained(path, **common)
    # A config may name an attention kernel on the hub, which is code: take the default.
    config._attn_implementation = None
    return {"config": config}


def context_of(model: Any) -> int:
    """The longest sequence the model was made for, in tokens.

    Of a model that turns its positions otherwise once a sequence grows long (`longrope` of Phi,
    `dynamic`), what it takes before that: keys that are kept from before the border would stay
    turned the first way.
    """
    config = model.config.get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    if not isinstance(context, int):
        raise EngineError(
            f"the config of {model.name_or_path} names no max_position_embeddings; add it to "
            "config.json"
        )
    told = getattr(config, "rope_parameters", None) or {}
    # One for all layers, or one a kind of layer.
    for rope in (told, *(one for one in told.values() if isinstance(one, Mapping))):
        if rope.get("rope_type") in ("longrope", "dynamic"):
            before = rope.get("original_max_position_embeddings")
            before = before or getattr(config, "original_max_position_embeddings", None)
            context = min(context, before) if isinstance(before, int) else context
    return context
