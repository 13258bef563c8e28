"""Engines and judges that models share: opened once, closed when nobody uses them.

Several names of one run mean the same engine under different decoders. Knows nothing of Inspect.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

from ringfence.embedding import EMBEDDERS, Embedder
from ringfence.engine import Engine
from ringfence.evaluation.names import ModelName
from ringfence.judges import Judge, SelfJudge
from ringfence.principle import Principle

Opener = Callable[..., Awaitable[Engine]]


async def _open(spec: str, **options: Any) -> Engine:
    from ringfence.engines import open_engine

    return await open_engine(spec, **options)


class Place:
    """One engine with what belongs to it. Everything is made once, however many ask at a time.

    Attributes:
        engine: open.
        embedders: by name.
    """

    def __init__(self, engine: Engine) -> None:
        """No judge is open yet."""
        self.engine = engine
        self._judges: dict[str, asyncio.Task[Judge]] = {}
        self._embedders: dict[str, Embedder] = {}

    async def judge(self, principle: str | None) -> Judge | None:
        """The judge of a principle; None without one."""
        if principle is None:
            return None
        if principle not in self._judges:
            self._judges[principle] = asyncio.create_task(self._open(principle))
        opening = self._judges[principle]
        try:
            return await asyncio.shield(opening)
        except Exception:
            # Who asks later tries again.
            if self._judges.get(principle) is opening:
                del self._judges[principle]
            raise

    def embedder(self, name: str) -> Embedder:
        """One of `EMBEDDERS`."""
        if name not in self._embedders:
            self._embedders[name] = EMBEDDERS[name]()
        return self._embedders[name]

    async def _open(self, principle: str) -> Judge:
        return await SelfJudge.open(self.engine, Principle.load(principle))


class Engines:
    """Open engines by what was asked for.

    Attributes:
        opener: makes an engine of a name; tests put their own here.
        cards: engine → what is known of it, for manifests.
    """

    def __init__(self, opener: Opener = _open) -> None:
        """Nothing is open."""
        self.opener = opener
        self._cards: dict[str, dict[str, Any]] = {}
        self._places: dict[str, tuple[asyncio.AbstractEventLoop, asyncio.Task[Place]]] = {}

    async def place(self, name: ModelName) -> Place:
        """The engine of a model.

        Raises:
            RingfenceError: it cannot be opened. Who asks later tries again.
        """
        key, loop = _key(name), asyncio.get_running_loop()
        held = self._places.get(key)
        if held is None or held[0] is not loop:
            if held is not None:
                await self._close(held[1])
            held = (loop, asyncio.create_task(self._make(name)))
            self._places[key] = held
        try:
            return await asyncio.shield(held[1])
        except Exception:
            if self._places.get(key) is held:
                del self._places[key]
            raise

    def card(self, name: ModelName) -> dict[str, Any] | None:
        """What the engine of a model said of itself when it was opened; None before."""
        return self._cards.get(_key(name))

    async def aclose(self) -> None:
        """Close whatever is open; calling it twice is fine."""
        while self._places:
            _, (_, task) = self._places.popitem()
            await self._close(task)

    async def release(self, name: ModelName) -> None:
        """Close the engine of a model, if it is open."""
        if held := self._places.pop(_key(name), None):
            await self._close(held[1])

    async def _make(self, name: ModelName) -> Place:
        engine = await self.opener(name.engine, **name.opening)
        self._cards[_key(name)] = _described(engine)
        return Place(engine)

    @staticmethod
    async def _close(task: asyncio.Task[Place]) -> None:
        if not task.done():
            task.cancel()
        if task.done() and not task.cancelled() and task.exception() is None:
            # An engine of a loop that has ended cannot close its connections; they are gone.
            with contextlib.suppress(RuntimeError):
                await task.result().engine.aclose()


def _key(name: ModelName) -> str:
    return repr((name.engine, sorted(name.opening.items())))


def _described(engine: Engine) -> dict[str, Any]:
    card = engine.card
    template = card.template
    return {
        "name": card.name,
        "template_sha256": hashlib.sha256(template.encode()).hexdigest() if template else None,
        "context": card.context,
        "deterministic": card.deterministic,
    }


ENGINES = Engines()
"""Of this process."""
