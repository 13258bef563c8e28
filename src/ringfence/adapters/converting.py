"""A LoRA adapter in llama.cpp's form. Knows nothing of servers or of torch.

The form is that of llama.cpp's own converter: for a matrix NAME of the model, tensors NAME.lora_a
[rank, inputs] and NAME.lora_b [outputs, rank], and one alpha for all; llama.cpp scales each update
by alpha / rank.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ringfence.adapters.folder import CONFIG, WEIGHTS, LoraAdapter, Update, read_adapter
from ringfence.adapters.host import FILE, Host, OtherModelError
from ringfence.adapters.safetensors_file import Array
from ringfence.errors import EngineError, InputError
from ringfence.gguf_metadata import read_metadata

Precision = Literal["f32", "f16", "q8_0"]

# Architectures whose query and key rows llama.cpp keeps in another order (pairs of a rotation side
# by side), and those whose matrices it keeps as they are. Of all others nothing is assumed.
PERMUTED = frozenset({"llama", "granite", "smollm3"})
PLAIN = frozenset({"qwen2", "qwen3", "gemma", "gemma2", "gemma3", "phi3"})
_HOST_KEY = "ringfence.host"
# Where transformers keeps a text model that is a part of one that sees, too, and one that is alone,
# as llama.cpp has both. The key says of a GGUF adapter that it is of a part.
PART, ALONE, PART_KEY = "model.language_model.", "model.", "ringfence.text_model"
_LARGEST_FLOAT16 = 65504.0
# Part of the name of kept conversions; a change of the form above changes it.
_FORM = b"1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """What was written.

    Attributes:
        updates: how many matrices of the model are changed.
        wider: tensors that were kept as f16, since their rows do not divide into blocks of q8_0.
    """

    path: Path
    updates: int
    ranks: tuple[int, ...]
    wider: int
    size: int


def convert(
    adapter: LoraAdapter, host: Host, out: Path, *, precision: Precision = "f16"
) -> Converted:
    """Write an adapter as GGUF; the file appears complete or not at all.

    Args:
        adapter: as `read_adapter` gives it.
        host: the model it is for, as `host_of` gives it.
        out: the file; one that is there is replaced.
        precision: of the numbers.

    Raises:
        OtherModelError: another model's adapter.
        InputError: a module that llama.cpp has no matrix for, or an
            architecture whose matrices it keeps in a way that is not known here.
    """
    if adapter.host is not None:
        adapter.host.refuse(host, f"adapter {adapter.name}")
    gguf = library()
    tensors = list(_tensors(gguf, adapter, host))
    alpha = Counter(update.scale * update.rank for _, update in tensors).most_common(1)[0][0]
    if not alpha:
        raise InputError(f"adapter {adapter.name}: lora_alpha is 0, so it does nothing")
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=out.resolve().parent)
    os.close(handle)
    try:
        wider = _write(gguf, Path(name), adapter, host, tensors, alpha, precision)
        os.chmod(name, 0o644)
        os.replace(name, out)
    finally:
        Path(name).unlink(missing_ok=True)
    return Converted(
        path=out,
        updates=len(tensors),
        ranks=tuple(sorted({update.rank for _, update in tensors})),
        wider=wider,
        size=out.stat().st_size,
    )


def as_gguf(path: Path, host: Host, cache: Path) -> Path:
    """An adapter as llama.cpp loads it: the file itself, or a conversion kept in `cache`.

    A kept conversion is named by the hash of the adapter's files and of the model's measures, so
    none is ever taken for another.

    Raises:
        InputError: the adapter cannot be used with this model; says why.
        OSError: the cache cannot be written.
    """
    if path.is_file():
        check_gguf(path, host)
        return path
    adapter = read_adapter(path)
    digest = hashlib.sha256(_FORM + host.model_dump_json().encode())
    for name in (CONFIG, WEIGHTS, FILE):
        file = path / name
        content = file.read_bytes() if file.is_file() else b""
        digest.update(hashlib.sha256(content).digest())
    kept = cache / f"{digest.hexdigest()[:32]}-lora.gguf"
    if not kept.exists():
        cache.mkdir(parents=True, exist_ok=True)
        convert(adapter, host, kept)
    return kept


def check_gguf(path: Path, host: Host) -> None:
    """Check that a GGUF file is a LoRA adapter for this model; llama.cpp checks the shapes.

    Raises:
        OtherModelError: it is another model's.
        InputError: it is none.
    """
    try:
        metadata = read_metadata(path)
    except EngineError as error:
        raise InputError(f"adapter: {error}") from error
    if (metadata.get("general.type"), metadata.get("adapter.type")) != ("adapter", "lora"):
        raise InputError(f"adapter: {path} is a GGUF file, but no LoRA adapter")
    if metadata.get("general.architecture") != host.architecture:
        raise OtherModelError(
            f"adapter {path.name} is for another model: architecture is "
            f"{metadata.get('general.architecture')} there and {host.architecture} here"
        )
    if isinstance(written := metadata.get(_HOST_KEY), str):
        try:
            expected = Host.model_validate_json(written)
        except ValueError as error:
            raise InputError(f"adapter: {path}: {_HOST_KEY} cannot be read") from error
        expected.refuse(host, f"adapter {path.name}")


def library() -> Any:
    """The package gguf.

    Raises:
        InputError: it is not installed.
    """
    try:
        import gguf
    except ImportError as error:
        raise InputError(
            "converting an adapter needs the package gguf: pip install 'ringfence[embedded]'"
        ) from error
    return gguf


def _tensors(gguf: Any, adapter: LoraAdapter, host: Host) -> Iterator[tuple[str, Update]]:
    """The matrix of the model that each update is for, and the update in its order of rows."""
    names = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
    if host.architecture not in PERMUTED | PLAIN or host.architecture not in names:
        raise InputError(
            f"adapter {adapter.name}: how llama.cpp keeps the matrices of {host.architecture} is "
            f"not known here (known: {', '.join(sorted(PERMUTED | PLAIN))}). Use the adapter "
            "with hf:, or merge it into its model and convert that."
        )
    known = gguf.get_tensor_name_map(names[host.architecture], host.layers)
    for module, update in adapter.updates.items():
        name = known.get_name(re.sub(rf"^{re.escape(PART)}", ALONE, module))
        if name is None:
            raise InputError(
                f"adapter {adapter.name}: llama.cpp has no matrix for the module {module} in a "
                f"{host.architecture} model of {host.layers} layers. Train without it."
            )
        _refuse_embeddings(adapter.name, module, name, host)
        _check_shape(adapter.name, module, name, update, host)
        if host.architecture in PERMUTED and re.search(r"\.attn_[qk]$", name):
            heads = host.heads if name.endswith("q") else host.kv_heads
            if heads is None or update.b.shape[0] % (2 * heads):
                raise InputError(
                    f"adapter {adapter.name}: the model does not say how many heads {module} has, "
                    "or another number than it has, and its rows cannot be put into llama.cpp's "
                    "order. Use the adapter with hf:."
                )
            update = Update(a=update.a, b=_paired(update.b, heads), scale=update.scale)
        yield f"{name}.weight", update


def _refuse_embeddings(adapter: str, module: str, name: str, host: Host) -> None:
    if name == "token_embd" or (name == "output" and host.tied is not False):
        raise InputError(
            f"adapter {adapter}: {module} is the embedding, or an output layer that may be tied to "
            "it, which llama.cpp cannot change alone. Train without it."
        )


def _check_shape(adapter: str, module: str, name: str, update: Update, host: Host) -> None:
    attention = host.heads and host.head and host.heads * host.head
    keys = host.kv_heads and host.head and host.kv_heads * host.head
    shapes = {
        "attn_q": (host.hidden, attention),
        "attn_k": (host.hidden, keys),
        "attn_v": (host.hidden, keys),
        "attn_output": (attention, host.hidden),
        "ffn_gate": (host.hidden, host.feed_forward),
        "ffn_up": (host.hidden, host.feed_forward),
        "ffn_down": (host.feed_forward, host.hidden),
    }
    if host.architecture == "phi3":  # gate and up are one matrix
        del shapes["ffn_up"]
    expected = shapes.get(name.rsplit(".", 1)[-1])
    found = (int(update.a.shape[1]), int(update.b.shape[0]))
    if expected and any(want and want != have for want, have in zip(expected, found, strict=True)):
        raise OtherModelError(
            f"adapter {adapter} is for another model: its update of {module} goes from {found[0]} "
            f"to {found[1]} numbers, and the model's from {expected[0]} to {expected[1]}"
        )


def _paired(b: Array, heads: int) -> Array:
    """Rows of each head from halves (i, i + n/2) to pairs (2i, 2i + 1), as llama.cpp rotates."""
    rows, rank = b.shape
    halves = b.reshape(heads, 2, rows // heads // 2, rank)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows, rank))


def _write(
    gguf: Any,
    target: Path,
    adapter: LoraAdapter,
    host: Host,
    tensors: list[tuple[str, Update]],
    alpha: float,
    precision: Precision,
) -> int:
    """Write the file; returns how many tensors are wider than asked."""
    writer = gguf.GGUFWriter(target, host.architecture)
    writer.add_type("adapter")
    writer.add_name(adapter.name)
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    writer.add_string(_HOST_KEY, host.model_dump_json())
    if any(module.startswith(PART) for module in adapter.updates):
        writer.add_string(PART_KEY, PART)
    wider = 0
    for name, update in sorted(tensors, key=lambda pair: pair[0]):
        # One alpha for all: what an update's own scale differs by goes into its numbers.
        own = update.scale * update.rank / alpha
        for half, values in ((".lora_a", update.a), (".lora_b", update.b * np.float32(own))):
            kind = _kind(gguf, values, precision)
            wider += precision == "q8_0" and kind != gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name + half, gguf.quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return wider


def _kind(gguf: Any, values: Array, precision: Precision) -> Any:
    kinds = gguf.GGMLQuantizationType
    if precision == "f32" or np.abs(values).max(initial=0) > _LARGEST_FLOAT16:
        return kinds.F32
    block = gguf.GGML_QUANT_SIZES[kinds.Q8_0][0]
    if precision == "q8_0" and values.shape[-1] % block == 0:
        return kinds.Q8_0
    return kinds.F16
