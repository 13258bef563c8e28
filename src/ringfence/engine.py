"""What an engine is. Knows nothing of HTTP, judges, chat templates or search."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from ringfence.errors import ContextError, EngineError

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How the next tokens are drawn.

    Attributes:
        temperature: 0 is greedy; 1 is the model's own distribution.
        top_k: keep only the k most likely tokens of each step; 0 keeps all.
        top_p: keep the smallest set of tokens whose mass reaches top_p, in (0, 1].
        seed: drafts of one call differ from each other, two equal calls do not (where the engine
            promises that; see `EngineCard.deterministic`). None draws a fresh seed.
        stop: strings before which a draft ends, as soon as one is complete; the string itself is
            not part of the draft.
        alternatives: how many most likely tokens to report beside each drafted token.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    alternatives: int = 0

    def __post_init__(self) -> None:
        """Refuse values outside the documented ranges."""
        if not 0 <= self.temperature < math.inf:
            raise EngineError(f"temperature must be at least 0 and finite, not {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise EngineError(f"top_p must lie in (0, 1], not {self.top_p}")
        if self.top_k < 0 or self.alternatives < 0:
            raise EngineError("top_k and alternatives must be at least 0")
        if "" in self.stop:
            raise EngineError("stop: an empty string would end every draft at once")


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Tokens proposed after a prefix, not yet accepted.

    Attributes:
        tokens: without the end-of-sequence token.
        logprobs: natural log of the model's own probability (temperature 1, nothing truncated) of
            each token; as long as `tokens`.
        finished: the model ended its reply after these tokens (it drew an end-of-sequence token).
            False when the length or a stop string ended the draft.
        alternatives: for each drafted token, and for the end-of-sequence token if `finished`, the
            most likely tokens with their log-probabilities, best first; empty unless asked for.
        fed: tokens of the prefix the engine had to process for this draft after cache hits. Of
            drafts that share one processed prefix, the first carries the count and the rest 0.
        end_logprob: natural log of the probability of the end-of-sequence token if `finished`; 0
            otherwise, and where the engine does not tell.
    """

    tokens: Tokens
    logprobs: tuple[float, ...]
    finished: bool
    alternatives: tuple[tuple[tuple[int, float], ...], ...] = ()
    fed: int = 0
    end_logprob: float = 0.0

    @property
    def logprob(self) -> float:
        """Natural log of the probability of the whole draft, its end included."""
        return sum(self.logprobs) + self.end_logprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Log-probabilities of continuations.

    Attributes:
        logprobs: for each continuation, the natural log of the product of its tokens' model
            probabilities; -inf only where the model's probability is exactly zero.
        fed: tokens the engine had to process after cache hits.
        requests: requests made to get them.
    """

    logprobs: tuple[float, ...]
    fed: int
    requests: int


class Tokenizer(Protocol):
    """Text to token ids and back, for one model."""

    @property
    def control(self) -> Mapping[str, int]:
        """Every control token (special or added) of the model: its text and its id."""
        ...

    @property
    def strips(self) -> tuple[frozenset[str], frozenset[str]]:
        """Control tokens that take white space away: that before them, and that behind them."""
        ...

    @property
    def start(self) -> Tokens:
        """What the model expects in front of every text that no template begins; may be empty."""
        ...

    def encode(self, text: str) -> Tokens:
        """Encode plain text. Control tokens that stand in the text stay plain characters."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens; control tokens appear as their own text, broken UTF-8 as U+FFFD."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCard:
    """What one needs to know to talk to an engine.

    Attributes:
        name: what people call it, such as `embedded:SmolLM2-135M-Instruct`.
        tokenizer: the model's tokenizer.
        template: source of the model's chat template (Jinja), None if the model has none.
        bos: text that the template may refer to as `bos_token`; `eos` likewise.
        ends: ids that end a reply.
        context: longest prefix plus draft, in tokens.
        slots: most drafts per call that run side by side; a larger count is split by the engine.
        deterministic: equal calls with equal seeds give equal drafts.
        stamp: tells the files of weights and adapter from others of the same name; empty where
            nobody can tell, as of a server.
    """

    name: str
    tokenizer: Tokenizer
    template: str | None
    ends: frozenset[int]
    context: int
    slots: int
    bos: str = ""
    eos: str = ""
    deterministic: bool = True
    stamp: str = ""


@runtime_checkable
class Engine(Protocol):
    """Proposes drafts and gives probabilities of continuations. Memoryless: to rewind, pass less.

    Reusing caches is the engine's own business. Every method may be called concurrently; a
    cancelled call stops the work it started.
    """

    @property
    def card(self) -> EngineCard:
        """What this engine is."""
        ...

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """Draw `count` independent drafts of at most `length` tokens after `prefix`.

        Greedy sampling (temperature 0) returns `count` equal drafts.

        Raises:
            ContextError: prefix plus length exceed `card.context`.
            EngineError: the engine cannot answer; the message says the way out.
        """
        ...

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        """Score continuations (each of at least one token) after `prefix`.

        Raises:
            ContextError: prefix plus the longest continuation exceed `card.context`.
            EngineError: the engine cannot answer, or gives no log-probabilities.
        """
        ...

    async def aclose(self) -> None:
        """Free what the engine holds. Calling it twice is fine."""
        ...


def check_call(card: EngineCard, prefix: Tokens, count: int, length: int) -> None:
    """Refuse a call that no engine can answer, with the same words everywhere.

    Raises:
        ContextError: the window is too small.
        EngineError: an empty prefix, or counts below one.
    """
    if not prefix:
        raise EngineError("the prefix is empty; an engine needs at least one token to go on from")
    if count < 1 or length < 1:
        raise EngineError(f"count and length must be at least 1, not {count} and {length}")
    if len(prefix) + length > card.context:
        raise ContextError(
            f"{len(prefix)} tokens of prompt and {length} to draft exceed the context of "
            f"{card.context} tokens of {card.name}. Shorten the conversation or max_tokens."
        )


NextTokens = Callable[[Tokens], Mapping[int, float]]


@dataclass(slots=True)
class ScriptedEngine:
    """The fake that ships: a next-token distribution written down as a function.

    Deterministic for equal seeds, cheap, and exact in its accounting; for logic tests and for
    trying out principles and searches without a model.

    Attributes:
        script: prefix → probabilities of the next token; need not sum to one.
        tokenizer: what its ids mean.
        ends: ids that end a reply.
        calls: how often each method was called, for tests.
    """

    script: NextTokens
    tokenizer: Tokenizer
    ends: frozenset[int]
    context: int = 4096
    slots: int = 64
    template: str | None = None
    calls: dict[str, int] = field(default_factory=lambda: {"draft": 0, "logprobs": 0})

    @property
    def card(self) -> EngineCard:
        """See `Engine.card`."""
        return EngineCard(
            name="scripted",
            tokenizer=self.tokenizer,
            template=self.template,
            ends=self.ends,
            context=self.context,
            slots=self.slots,
        )

    async def draft(
        self, prefix: Tokens, count: int, length: int, sampling: Sampling
    ) -> list[Draft]:
        """See `Engine.draft`."""
        check_call(self.card, prefix, count, length)
        self.calls["draft"] += 1
        await asyncio.sleep(0)  # as every real engine does, so that others get their turn
        seed = random.Random().getrandbits(32) if sampling.seed is None else sampling.seed
        return [
            self._one(prefix, length, sampling, random.Random(f"{seed}/{index}"), index)
            for index in range(count)
        ]

    async def logprobs(self, prefix: Tokens, continuations: Sequence[Tokens]) -> Scores:
        """See `Engine.logprobs`."""
        check_call(self.card, prefix, 1, max(len(tokens) for tokens in continuations))
        self.calls["logprobs"] += 1
        await asyncio.sleep(0)
        scores = tuple(
            sum(
                _log(self._probabilities(prefix + tokens[:i]).get(token, 0.0))
                for i, token in enumerate(tokens)
            )
            for tokens in continuations
        )
        return Scores(logprobs=scores, fed=len(prefix), requests=1)

    async def aclose(self) -> None:
        """See `Engine.aclose`."""

    def _probabilities(self, prefix: Tokens) -> dict[int, float]:
        raw = self.script(prefix)
        total = sum(raw.values())
        if total <= 0:
            raise EngineError(f"the script gives no next token after {len(prefix)} tokens")
        return {token: mass / total for token, mass in raw.items()}

    def _before_stop(self, tokens: Sequence[int], stops: Sequence[str]) -> int:
        """How many tokens lie wholly before the first stop string."""
        text = self.tokenizer.decode(tokens)
        found = [place for stop in stops if (place := text.find(stop)) >= 0]
        if not found:
            return len(tokens)
        lengths = (len(self.tokenizer.decode(tokens[:keep])) for keep in range(len(tokens) + 1))
        return sum(length <= min(found) for length in lengths) - 1

    def _one(
        self, prefix: Tokens, length: int, sampling: Sampling, rng: random.Random, index: int
    ) -> Draft:
        tokens: list[int] = []
        logprobs: list[float] = []
        alternatives: list[tuple[tuple[int, float], ...]] = []
        finished, end_logprob = False, 0.0
        while len(tokens) < length and not finished:
            probabilities = self._probabilities(prefix + tuple(tokens))
            ranked = sorted(probabilities.items(), key=lambda pair: (-pair[1], pair[0]))
            if sampling.alternatives:
                alternatives.append(
                    tuple((token, _log(mass)) for token, mass in ranked[: sampling.alternatives])
                )
            token = _draw(ranked, sampling, rng)
            if token in self.ends:
                finished = True
                end_logprob = _log(probabilities[token])
                break
            tokens.append(token)
            logprobs.append(_log(probabilities[token]))
            if (kept := self._before_stop(tokens, sampling.stop)) < len(tokens):
                del tokens[kept:], logprobs[kept:], alternatives[kept:]
                break
        return Draft(
            tokens=tuple(tokens),
            logprobs=tuple(logprobs),
            finished=finished,
            alternatives=tuple(alternatives),
            fed=len(prefix) if index == 0 else 0,
            end_logprob=end_logprob,
        )


def _log(mass: float) -> float:
    return math.log(mass) if mass > 0 else -math.inf


def _draw(ranked: list[tuple[int, float]], sampling: Sampling, rng: random.Random) -> int:
    """Draw from (token, probability) pairs, best first, after top-k, top-p and temperature."""
    if sampling.temperature == 0:
        return ranked[0][0]
    kept = ranked[: sampling.top_k] if sampling.top_k else ranked
    mass, nucleus = 0.0, []
    for token, probability in kept:
        nucleus.append((token, probability))
        mass += probability
        if mass >= sampling.top_p:
            break
    # Relative to the best one, so that a low temperature does not round all of them to 0.
    best = nucleus[0][1]
    weights = [(probability / best) ** (1 / sampling.temperature) for _, probability in nucleus]
    return rng.choices([token for token, _ in nucleus], weights)[0]
