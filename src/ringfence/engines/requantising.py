"""Q4_1 weights rewritten as Q8_0, once, in the user's cache. Knows nothing of engines.

llama.cpp multiplies batches by Q4_1 without its fast kernels on x86; the same weights as Q8_0
process prompts and batches 1.5 times as fast. The rounding to 8 bits is fine.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ringfence.gguf_metadata import read_metadata

_MOSTLY_Q4_1 = 3
_MOSTLY_Q8_0 = 7


def requantised(path: Path) -> Path:
    """A Q8_0 copy of a Q4_1 file, made on first use (a few seconds); other files as they are.

    The copy lies in `$XDG_CACHE_HOME/ringfence` (default `~/.cache/ringfence`) under the hash of
    the source, and appears there complete or not at all; two processes may make it at once. Where
    it cannot be made, a RuntimeWarning says why, and the file itself is returned.

    Raises:
        EngineError: the file is no GGUF file.
    """
    if read_metadata(path).get("general.file_type") != _MOSTLY_Q4_1:
        return path
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        copy = cache_folder() / f"{digest[:32]}-q8_0.gguf"
        if not copy.exists():
            _make(path, copy)
        return copy
    except (OSError, ImportError, RuntimeError) as error:
        warnings.warn(
            f"{path.name} runs as it is, which is slower by a third: the faster copy cannot be "
            f"made ({error}). It needs a writable cache folder (XDG_CACHE_HOME) and the package "
            "gguf (pip install 'ringfence[embedded]').",
            RuntimeWarning,
            stacklevel=2,
        )
        return path


def cache_folder() -> Path:
    """Where this user's kept files lie. Raises RuntimeError where there is no home."""
    root = os.environ.get("XDG_CACHE_HOME", "")
    base = Path(root) if os.path.isabs(root) else Path.home() / ".cache"
    return base / "ringfence"


def _make(source: Path, copy: Path) -> None:
    import gguf  # before the folder is made, so that nothing is left behind without it

    copy.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=copy.parent)
    os.close(handle)
    try:
        _write(gguf, source, name)
        os.replace(name, copy)
    finally:
        Path(name).unlink(missing_ok=True)


def _write(gguf: Any, source: Path, target: str) -> None:
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    _copy_metadata(gguf, reader, writer)
    q4, q8 = gguf.GGMLQuantizationType.Q4_1, gguf.GGMLQuantizationType.Q8_0
    for tensor in reader.tensors:
        data, type_ = tensor.data, tensor.tensor_type
        if type_ == q4:
            data, type_ = gguf.quants.quantize(gguf.quants.dequantize(data, q4), q8), q8
        writer.add_tensor(tensor.name, data, raw_dtype=type_)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _copy_metadata(gguf: Any, reader: Any, writer: Any) -> None:
    for key, field in reader.fields.items():
        # The writer writes these itself.
        if key.startswith("GGUF.") or key == "general.architecture":
            continue
        value = _MOSTLY_Q8_0 if key == "general.file_type" else field.contents()
        array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(
            key, value, field.types[0], sub_type=field.types[-1] if array else None
        )
