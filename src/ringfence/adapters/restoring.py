"""A LoRA adapter in llama.cpp's form back as PEFT saves it, to go on training with it.

The other way round from `converting`, which describes the form.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ringfence.adapters.converting import (
    ALONE,
    PART,
    PART_KEY,
    PERMUTED,
    PLAIN,
    check_gguf,
    library,
)
from ringfence.adapters.folder import CONFIG, WEIGHTS
from ringfence.adapters.host import Host, write_host
from ringfence.adapters.safetensors_file import Array
from ringfence.errors import InputError
from ringfence.gguf_metadata import read_metadata

# What transformers calls the matrices of a block, in all architectures that `converting` knows.
_MODULES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_qkv": "self_attn.qkv_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# Where gate and up are one matrix.
_FUSED = {"phi3": {"ffn_up": "mlp.gate_up_proj"}}
_TENSOR = re.compile(
    r"(?:blk\.(?P<block>\d{1,4})\.(?P<matrix>\w+)|output)\.weight\.lora_(?P<half>[ab])"
)
_LARGEST = 8 << 30


def restore(path: Path, host: Host, out: Path) -> dict[str, Any]:
    """Write a GGUF adapter as a PEFT folder; it appears complete or not at all.

    What `converting.convert` wrote comes back with the same numbers, as far as its precision kept
    them. Scales of single modules have become part of the numbers there, and stay so.

    Args:
        path: the GGUF file.
        host: the model it is for, as `host_of` gives it.
        out: the folder; must not be there.

    Returns:
        `updates`, how many matrices of the model are changed; `ranks`, `alpha`.

    Raises:
        InputError: no LoRA adapter, another model's, or one with matrices that are not known here.
        OSError: the folder cannot be written.
    """
    check_gguf(path, host)
    if host.architecture not in PERMUTED | PLAIN:
        raise InputError(
            f"adapter: {path}: how llama.cpp keeps matrices of {host.architecture} is not known "
            f"here (known: {', '.join(sorted(PERMUTED | PLAIN))})"
        )
    metadata = read_metadata(path)
    alpha = metadata.get("adapter.lora.alpha")
    if not isinstance(alpha, float) or not np.isfinite(alpha) or not alpha:
        raise InputError(f"adapter: {path}: adapter.lora.alpha is {alpha!r}, no usable number")
    halves = _halves(path, host, PART if metadata.get(PART_KEY) == PART else ALONE)
    ranks = {module: int(pair["a"].shape[0]) for module, pair in halves.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": None,
        "r": rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": list(halves),
        "rank_pattern": {module: own for module, own in ranks.items() if own != rank},
        "inference_mode": True,
    }
    tensors = {
        f"base_model.model.{module}.lora_{half.upper()}.weight": np.ascontiguousarray(values)
        for module, pair in halves.items()
        for half, values in pair.items()
    }
    _write(out, config, tensors, host)
    return {"updates": len(halves), "ranks": sorted(set(ranks.values())), "alpha": alpha}


def _halves(path: Path, host: Host, decoder: str) -> dict[str, dict[str, Array]]:
    """Both halves of every update, by the full name of the module in the transformers model."""
    gguf = library()
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 30} GiB")
        found = {
            str(tensor.name): gguf.quants.dequantize(tensor.data, tensor.tensor_type)
            for tensor in gguf.GGUFReader(path).tensors
        }
    except Exception as error:  # whatever gguf and numpy find wrong with it
        raise InputError(f"adapter: {path} is not a usable GGUF file: {error}") from error
    modules = _MODULES | _FUSED.get(host.architecture, {})
    halves: dict[str, dict[str, Array]] = {}
    for name, tensor in found.items():
        match = _TENSOR.fullmatch(name)
        matrix = match and (match["matrix"] or "output")
        if match is None or matrix not in ("output", *modules) or tensor.ndim != 2:
            raise InputError(
                f"adapter: {path}: {name!r} of shape {tensor.shape} is no half of an update of a "
                f"known matrix (known: {', '.join(modules)})"
            )
        if not np.isfinite(tensor).all():
            raise InputError(f"adapter: {path}: {name!r} holds numbers that are not finite")
        values = tensor.astype(np.float32)
        if match["half"] == "b" and matrix in ("attn_q", "attn_k"):
            values = _unpaired(values, host, matrix, path)
        within = modules.get(matrix)
        module = f"{decoder}layers.{match['block']}.{within}" if within else "lm_head"
        halves.setdefault(module, {})[match["half"]] = values
    if not halves:
        raise InputError(f"adapter: {path} holds no tensors")
    for module, pair in halves.items():
        if set(pair) != {"a", "b"} or pair["a"].shape[0] != pair["b"].shape[1]:
            raise InputError(f"adapter: {path}: the halves for {module} do not fit together")
    return dict(sorted(halves.items()))


def _unpaired(b: Array, host: Host, matrix: str, path: Path) -> Array:
    """Rows of each head from pairs (2i, 2i + 1) to halves (i, i + n/2), as transformers rotates."""
    if host.architecture not in PERMUTED:
        return b
    rows, rank = b.shape
    heads = host.heads if matrix == "attn_q" else host.kv_heads
    if heads is None or rows % (2 * heads):
        raise InputError(f"adapter: {path}: {rows} rows of {matrix} for {heads} heads")
    pairs = b.reshape(heads, rows // heads // 2, 2, rank)
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(rows, rank))


def _write(out: Path, config: dict[str, Any], tensors: dict[str, Array], host: Host) -> None:
    try:
        from safetensors.numpy import save_file
    except ImportError as error:
        raise InputError(
            "restoring an adapter needs the package safetensors: pip install 'ringfence[train]'"
        ) from error
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=out.resolve().parent))
    try:
        save_file(tensors, partial / WEIGHTS)
        (partial / WEIGHTS).chmod(0o644)
        (partial / CONFIG).write_text(json.dumps(config, indent=2) + "\n", "utf-8")
        write_host(partial, host)
        partial.chmod(0o755)
        partial.rename(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
