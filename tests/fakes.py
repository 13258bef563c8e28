"""Small worlds for tests: scripted models, judges with an opinion, embedders with none."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ringfence.engine import Draft, Sampling, Scores, ScriptedEngine, Tokens
from ringfence.errors import ContextError
from ringfence.judges import Verdict
from ringfence.rendering import Rendering, render_text
from ringfence.vocabulary import Vocabulary

VOCABULARY = Vocabulary.characters()
END = VOCABULARY.control["<|im_end|>"]
PROMPT = render_text("go:", VOCABULARY)


def ids(text: str) -> Tokens:
    """Token ids of a text: its bytes."""
    return VOCABULARY.encode(text)


def text_of(tokens: Sequence[int]) -> str:
    return VOCABULARY.decode(tokens)


def noise(*parts: object) -> float:
    """A number in [0, 1) that depends on nothing but its arguments, in every process."""
    return zlib.crc32(repr(parts).encode()) % 100_003 / 100_003


def scripted(
    script: Callable[[Tokens], Mapping[int, float]], *, context: int = 100_000
) -> ScriptedEngine:
    return ScriptedEngine(
        script=script, tokenizer=VOCABULARY, ends=frozenset({END}), context=context
    )


def random_script(
    seed: int, *, letters: str = "abcd e.", end: float = 0.05
) -> Callable[[Tokens], Mapping[int, float]]:
    """A language model drawn by a seed: the next letter depends on the two before."""

    def script(prefix: Tokens) -> Mapping[int, float]:
        masses = {ids(letter)[0]: 0.02 + noise(seed, prefix[-2:], letter) for letter in letters}
        return masses | ({END: end * len(letters)} if end else {})

    return script


def says(text: str, prompt: Rendering = PROMPT) -> Callable[[Tokens], Mapping[int, float]]:
    """A language model that says one thing (its UTF-8 bytes) and ends."""
    wanted = (*ids(text), END)
    start = len(prompt.tokens)

    def script(prefix: Tokens) -> Mapping[int, float]:
        return {wanted[min(len(prefix) - start, len(wanted) - 1)]: 1.0}

    return script


class FakeJudge:
    """Judges by a function of the reply's text, and remembers what it was shown."""

    name = "fake"

    def __init__(self, opinion: Callable[[str], float], threshold: float = 0.5) -> None:
        self.opinion = opinion
        self.threshold = threshold
        self.seen: list[str] = []

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        await asyncio.sleep(0)
        self.seen.extend(replies)
        return [
            Verdict(
                value=self.opinion(reply), reason=f"saw {len(reply)}", fed=len(reply), requests=1
            )
            for reply in replies
        ]


def loves(threshold: float = 0.5) -> FakeJudge:
    return FakeJudge(lambda text: 1.0, threshold)


def hates(threshold: float = 0.5) -> FakeJudge:
    return FakeJudge(lambda text: -1.0, threshold)


class NearsightedJudge(FakeJudge):
    """A judge whose prompt does not fit from some length on, and which knows how often it did."""

    def __init__(
        self, room: int, opinion: Callable[[str], float] = lambda text: 1.0, threshold: float = 0.5
    ) -> None:
        super().__init__(opinion, threshold)
        self.room = room
        self.too_long: list[str] = []

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        too_long = [reply for reply in replies if len(reply) > self.room]
        self.too_long += too_long
        if too_long:
            raise ContextError("too long for the judge")
        return await super().judge(prompt, replies)


def random_judge(seed: int, threshold: float = 0.5) -> FakeJudge:
    """A value between -1 and 1, or one of both, drawn by seed and text."""

    def opinion(text: str) -> float:
        return max(-1.0, min(1.0, 3 * noise(seed, text) - 1.5))

    return FakeJudge(opinion, threshold)


class OneVector:
    """Finds all texts alike."""

    similar = 0.9
    slow = False

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 4), dtype=np.float32)
        vectors[:, 0] = 1
        return vectors


class OwnVectors:
    """Finds no two texts alike: every new text gets a direction of its own."""

    similar = 0.9
    slow = False

    def __init__(self, dimension: int = 512) -> None:
        self.dimension = dimension
        self.known: dict[str, int] = {}

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in enumerate(texts):
            vectors[row, self.known.setdefault(text, len(self.known)) % self.dimension] = 1
        return vectors


class SlowEngine:
    """An engine whose every call takes a while, and which knows what was cancelled."""

    def __init__(self, inner: ScriptedEngine, seconds: float = 3600.0) -> None:
        self.inner = inner
        self.seconds = seconds
        self.started = self.cancelled = self.running = 0

    @property
    def card(self):
        return self.inner.card

    async def _wait(self) -> None:
        self.started += 1
        self.running += 1
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        await self._wait()
        return await self.inner.draft(prefix, count, length, sampling)

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        await self._wait()
        return await self.inner.logprobs(prefix, continuations)

    async def aclose(self) -> None:
        await self.inner.aclose()


class FailingEngine(SlowEngine):
    """An engine that fails at its n-th draft."""

    def __init__(self, inner: ScriptedEngine, error: Exception, after: int) -> None:
        super().__init__(inner, 0.0)
        self.error = error
        self.after = after

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        await self._wait()
        if self.started > self.after:
            raise self.error
        return await self.inner.draft(prefix, count, length, sampling)
