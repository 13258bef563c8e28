"""Adapters and ring signals of a model in this process. Knows nothing of drafts or caches.

torch is imported when there is something to add, and never before.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from ringfence.adapters import Chosen
from ringfence.adapters.folder import CONFIG, read_adapter
from ringfence.adapters.host import host_of_config
from ringfence.engine import Tokens
from ringfence.engines.weights import import_library
from ringfence.errors import InputError
from ringfence.segments.saved import has_signal
from ringfence.vocabulary import Vocabulary


class Rings:
    """Tells a model's ring signal whose tokens a forward pass is about; without one, nothing."""

    def __init__(self, signal: Any = None) -> None:
        """Wrap a `RingSignal`, or None."""
        self._signal = signal

    def levels(self, prefix: Tokens) -> tuple[Sequence[int], int]:
        """The signal's level of every token of a prefix, and of what follows it."""
        if self._signal is None:
            return (), 0
        levels: tuple[Sequence[int], int] = self._signal.levels(prefix)
        return levels

    def key(self, prefix: Tokens) -> Tokens:
        """By what the cache of a prefix is kept: equal tokens of other rings are others."""
        if self._signal is None:
            return tuple(prefix)
        # One integer for token and level, which is -1 at least.
        span = self._signal.card.rings + 1
        levels, _ = self._signal.levels(prefix)
        return tuple(token * span + level + 1 for token, level in zip(prefix, levels, strict=True))

    def told(self, rows: Sequence[Sequence[int]], like: Any) -> AbstractContextManager[None]:
        """For one forward pass: the levels of its tokens, on the device of `like`."""
        if self._signal is None:
            return nullcontext()
        told: AbstractContextManager[None] = self._signal.rings(like.new_tensor(rows))
        return told


def adapted(model: Any, wanted: Chosen | None, vocabulary: Vocabulary) -> Rings:
    """Add a LoRA adapter, a ring signal or both to a model.

    Args:
        model: the transformers model; changed in place.
        wanted: a folder; None leaves the model alone.
        vocabulary: of the model.

    Raises:
        InputError: the adapter cannot be used, or not with this model.
    """
    if wanted is None:
        return Rings()
    folder, strength = wanted.path, wanted.strength
    if not folder.is_dir():
        raise InputError(
            f"adapter: {folder.name} is no folder. A model in this process takes adapters as PEFT "
            "saves them; GGUF files are for embedded."
        )
    signalled = has_signal(folder)
    if (folder / CONFIG).is_file() or not signalled:
        from ringfence.adapters.applying import apply

        adapter = read_adapter(folder)
        if adapter.host is not None:
            config = model.config.to_dict()
            host = host_of_config(config, f"the config of {model.name_or_path}", vocabulary)
            adapter.host.refuse(host, f"adapter {adapter.name}")
        apply(model, adapter, strength)
    return Rings(_signal(model, folder, strength) if signalled else None)


def _signal(model: Any, folder: Path, strength: float) -> Any:
    import_library("torch")
    from ringfence.segments.signal import load

    return load(folder, model, strength=strength).requires_grad_(False)
