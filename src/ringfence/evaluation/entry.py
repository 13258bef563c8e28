"""What Inspect finds of ours: the provider and one task a suite. Entry point `inspect_ai`."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi

from ringfence.evaluation.provider import RingfenceAPI
from ringfence.evaluation.tasks import register


@modelapi(name="ringfence")
def ringfence() -> type[ModelAPI]:
    """Decoders on the embedded model, a transformers folder or a completions server."""
    return RingfenceAPI


TASKS = register()
