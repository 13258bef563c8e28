"""Reads safetensors files into numpy. Knows nothing of what the tensors mean.

The format is a length, a JSON header and raw numbers; nothing in it is trusted. bfloat16, which
numpy lacks, is widened to float32, like everything else.
"""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ringfence.errors import InputError

Array = NDArray[np.float32]

_LONGEST_HEADER = 64 << 20
_LARGEST = 8 << 30
_TYPES = {"F32": "<f4", "F16": "<f2", "F64": "<f8", "BF16": "<u2"}


def read_tensors(path: Path) -> dict[str, Array]:
    """All tensors of a file, as float32.

    Raises:
        InputError: the file cannot be read, is broken, or holds numbers of another kind, or some
            that are not finite.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST >> 30} GiB")
        data = path.read_bytes()
        header, start = _header(data)
        _refuse_shared(header)
        return {
            name: _tensor(entry, name, memoryview(data)[start:])
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not a usable safetensors file: {error}") from error


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or not 2 <= length <= min(_LONGEST_HEADER, len(data) - 8):
        raise ValueError("its header is cut off; the download may be incomplete")
    header = json.loads(data[8 : 8 + length])
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    return header, 8 + length


def _refuse_shared(header: dict[str, Any]) -> None:
    """Tensors that share bytes would let a small file become any amount of memory."""
    places = [entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"]
    places = sorted((start, stop) for start, stop in places if start != stop)
    for (_, stop), (start, _) in itertools.pairwise(places):
        if start < stop:
            raise ValueError("two of its tensors share bytes")


def _tensor(entry: Any, name: str, body: memoryview) -> Array:
    kind, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if kind not in _TYPES:
        raise ValueError(f"{name!r} is of the kind {kind!r}; floating-point numbers are read")
    if not all(isinstance(size, int) and size >= 0 for size in (*shape, start, stop)):
        raise ValueError(f"{name!r} has a broken shape or place")
    if not start <= stop <= len(body):
        raise ValueError(f"{name!r} lies outside the file; the download may be incomplete")
    flat = np.frombuffer(body[start:stop], dtype=_TYPES[kind])
    if kind == "BF16":
        flat = (flat.astype(np.uint32) << 16).view(np.float32)
    array = flat.astype(np.float32).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError(f"{name!r} holds numbers that are not finite")
    return array
