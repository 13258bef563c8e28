"""Engines by name. Imports an engine's module when it is opened, and not before."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.engine import Engine
from ringfence.errors import InputError

__all__ = ["open_engine"]

FORMS = (
    "embedded (the packaged SmolLM2-135M-Instruct), embedded:PATH.gguf (any GGUF file, through "
    "llama.cpp), hf:PATH (a model folder, owner/name of the hub or `embedded`, through "
    "transformers) and http://HOST:PORT/v1#MODEL (a completions server: llama.cpp, vLLM, SGLang)"
)


async def open_engine(spec: str, **options: Any) -> Engine:
    """Open an engine; the caller closes it with `aclose`.

    Args:
        spec: one of `FORMS`.
        **options: of `EmbeddedEngine.open`, `EndpointEngine.open` or `TransformersEngine.open`; the
            engines that run the model themselves take `adapter` and `rings_strength`.

    Raises:
        InputError: an unknown form, or an option that the engine does not have.
        EngineError: the engine cannot be opened; the message says the way out.
    """
    kind, _, rest = spec.partition(":")
    if kind in ("http", "https"):
        from ringfence.engines.endpoint import EndpointEngine

        _check_options(EndpointEngine.open, options)
        return await EndpointEngine.open(spec, **options)
    if kind == "embedded":
        from ringfence.engines.embedded import EmbeddedEngine

        _check_options(EmbeddedEngine.open, options)
        return await EmbeddedEngine.open(rest or None, **options)
    if kind == "hf" and rest:
        from ringfence.engines.embedded import packaged_model
        from ringfence.engines.transformers import TransformersEngine

        path = packaged_model() if rest == "embedded" and not Path(rest).exists() else rest
        _check_options(TransformersEngine.open, options)
        # Takes up to minutes, in which other work of this loop goes on.
        return await asyncio.to_thread(functools.partial(TransformersEngine.open, path, **options))
    raise InputError(f"unknown engine {spec!r}. Engines: {FORMS}.")


def _check_options(opener: Callable[..., Any], options: dict[str, Any]) -> None:
    known = [
        name
        for name, parameter in inspect.signature(opener).parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    for name in options:
        if name not in known:
            raise InputError(f"this engine has no option {name!r}; it has {', '.join(known)}")
