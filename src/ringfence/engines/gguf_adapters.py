"""Adapters as llama.cpp loads them. Knows nothing of child processes."""

from __future__ import annotations

from pathlib import Path

from ringfence.adapters import Chosen
from ringfence.adapters.converting import as_gguf
from ringfence.adapters.host import host_of
from ringfence.engines.descriptions import Description
from ringfence.engines.requantising import cache_folder
from ringfence.errors import EngineError, InputError
from ringfence.segments.saved import has_signal


def gguf_adapter(wanted: Chosen, model: Path, description: Description) -> Path:
    """The adapter as llama.cpp loads it, checked against the model.

    Raises:
        InputError: it has a ring signal, or does not fit the model.
        EngineError: it cannot be converted.
    """
    if has_signal(wanted.path):
        raise InputError(
            f"adapter {wanted.path.name} has a ring signal, which llama.cpp cannot add. Open the "
            "model with hf:, or name an adapter that was trained without one."
        )
    try:
        return as_gguf(wanted.path, host_of(model, description.tokenizer), cache_folder())
    except (OSError, RuntimeError) as error:
        raise EngineError(
            f"adapter {wanted.path.name} cannot be converted in the cache folder ({error}). "
            "Convert it once (ringfence adapter convert FOLDER --out FILE) and name the file."
        ) from error
