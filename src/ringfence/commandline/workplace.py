"""What a command works with: settings, an open engine, judges. Knows nothing of terminals."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from ringfence.adapters.choosing import PACKAGED, packaged_adapter
from ringfence.configuration import Settings
from ringfence.decoding import decode
from ringfence.embedding import EMBEDDERS, Embedder
from ringfence.engine import Engine
from ringfence.errors import InputError
from ringfence.evaluation.names import judge_of
from ringfence.events import Events
from ringfence.generation import Prompt
from ringfence.judges import Judge, SelfJudge
from ringfence.options import DecoderName
from ringfence.policy_files import load
from ringfence.principle import Principle
from ringfence.rendering import Rendering, render, render_text
from ringfence.rings import Conversation, Policy

# Settings that are options of engines; each engine knows its own and refuses the others.
_OF_ENGINES = ("tokenizer", "adapter", "rings_strength", "chat_template", "template_options")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """An open engine and how to use it.

    Attributes:
        principle: of the judge; None without one.
        judge: None without a principle.
        judge_engine: asks its model for verdicts; `engine` itself unless another was named.
        decoder: makes the replies.
        policy: of conversations.
        trained: the engine is the packaged model with the packaged adapter.
    """

    settings: Settings
    engine: Engine
    judge_engine: Engine
    embedder: Embedder
    decoder: DecoderName
    principle: Principle | None = None
    judge: Judge | None = None
    policy: Policy
    trained: bool = False

    def events(self, prompt: Rendering, **options: Any) -> Events:
        """Make a reply; `options` replace those of the settings."""
        return decode(
            self.engine,
            prompt,
            decoder=self.decoder,
            judge=self.judge,
            options=self.settings.options.model_copy(update=options),
            embedder=self.embedder,
        )

    def rendering(self, prompt: Prompt) -> Rendering:
        """The prompt for the engine's model.

        Raises:
            InputError: the model cannot be given this prompt.
        """
        if prompt.messages is None:
            return render_text(prompt.text or "", self.engine.card.tokenizer)
        return render(Conversation.of(prompt.messages, self.policy), self.engine.card)

    async def judging(self, name: str) -> Workplace:
        """The same with another principle."""
        principle = Principle.load(name)
        if (threshold := self.settings.options.threshold) is not None:
            principle = principle.model_copy(update={"threshold": threshold})
        judge = await SelfJudge.open(self.judge_engine, principle)
        return replace(self, principle=principle, judge=judge)

    def decoding(self, decoder: DecoderName) -> Workplace:
        """The same with another decoder.

        Raises:
            InputError: it needs a principle and there is none.
        """
        if decoder != "plain" and self.judge is None:
            raise InputError(
                f"decoder {decoder} judges its drafts: name a principle first (--principle NAME; "
                "in chat /principle NAME)"
            )
        return replace(self, decoder=decoder)


def takes_packaged(settings: Settings, *, trained: bool) -> bool:
    """Whether the engine gets the packaged adapter unasked; `trained` as of `opened`."""
    untold = settings.adapter is None and settings.rings_strength is None
    return trained and untold and settings.engine == "embedded" and bool(packaged_adapter())


@asynccontextmanager
async def opened(settings: Settings, *, trained: bool = True) -> AsyncIterator[Workplace]:
    """Open the engine and the judge that the settings name; closes them at the end.

    Args:
        settings: of the command.
        trained: the packaged model gets the packaged adapter unless the settings say otherwise; for
            commands that talk. What is measured or made for training starts from the base model.

    Raises:
        RingfenceError: one of them cannot be opened, or the decoder needs a principle.
    """
    from ringfence.engines import open_engine

    name = settings.one_principle()
    decoder = settings.chosen_decoder()
    other = judge_of(settings)
    policy = load(settings.policy)
    embedder = EMBEDDERS[settings.embedder]()
    options = {name: getattr(settings, name) for name in _OF_ENGINES}
    given = {name: value for name, value in options.items() if value is not None}
    adapted = takes_packaged(settings, trained=trained)
    if adapted:
        given["adapter"] = PACKAGED
    async with AsyncExitStack() as stack:
        engine = judging = await open_engine(settings.engine, **given)
        stack.push_async_callback(engine.aclose)
        if other is not None:
            judging = await open_engine(other.engine, **other.opening)
            stack.push_async_callback(judging.aclose)
        place = Workplace(
            settings=settings,
            engine=engine,
            judge_engine=judging,
            embedder=embedder,
            decoder="plain",
            policy=policy,
            trained=adapted,
        )
        if name is not None:
            place = await place.judging(name)
        yield place.decoding(decoder)
