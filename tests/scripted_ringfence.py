"""`ringfence` with a scripted engine behind `embedded`, as a program of its own.

Every draft takes RINGFENCE_TEST_PAUSE seconds, so that a test can step in.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from fakes import random_script, scripted

import ringfence.engines
from ringfence.cli import main
from ringfence.engine import Draft, Engine, Sampling, ScriptedEngine, Tokens


class Paused:
    """An engine that takes its time."""

    def __init__(self, inner: ScriptedEngine, seconds: float) -> None:
        self.card, self.logprobs, self.aclose = inner.card, inner.logprobs, inner.aclose
        self._inner, self._seconds = inner, seconds

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        await asyncio.sleep(self._seconds)
        return await self._inner.draft(prefix, count, length, sampling)


TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def engine() -> ScriptedEngine:
    made = scripted(random_script(7, end=0.01), context=600)
    made.template = TEMPLATE
    return made


async def open_engine(spec: str, **options: Any) -> Engine:
    return Paused(engine(), float(os.environ.get("RINGFENCE_TEST_PAUSE", "0")))


if __name__ == "__main__":
    ringfence.engines.open_engine = open_engine
    main()
