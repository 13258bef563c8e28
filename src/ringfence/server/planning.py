"""From what a client asks for to what is decoded: checks everything before a slot is taken.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from ringfence.budget import Budget
from ringfence.engine import Engine
from ringfence.errors import ContextError, InputError, RenderingError
from ringfence.judges import Judge
from ringfence.options import DecoderName, Options
from ringfence.rendering import Rendering, render, render_text
from ringfence.rings import PRESETS, Conversation
from ringfence.search_settings import SearchSettings
from ringfence.server.failures import Failure, invalid, of_options
from ringfence.server.jobs import Plan
from ringfence.server.requests import BudgetRequest, ChatRequest, CompletionRequest, Moderation
from ringfence.server.settings import ServerSettings

# Long conversations take seconds; each of these occupies a thread of the pool.
_RENDERED_AT_ONCE = 4

Request = ChatRequest | CompletionRequest


class Planner:
    """Turns requests into plans for one engine, its judges and its settings."""

    def __init__(
        self, engine: Engine, judges: Mapping[str, Judge], settings: ServerSettings
    ) -> None:
        """Check that the defaults can be honoured.

        Raises:
            InputError: a default principle that is not loaded, or a decoder without its principle.
        """
        self.judges = dict(judges)
        self.settings = settings
        self.model = settings.model or engine.card.name
        self.decoder: DecoderName = settings.decoder or ("guarded" if judges else "plain")
        self.principle = settings.principle or next(iter(judges), None)
        self._engine = engine
        self._rendering = asyncio.Semaphore(_RENDERED_AT_ONCE)
        if settings.principle is not None and settings.principle not in judges:
            raise InputError(
                f"principle: {settings.principle!r} is not loaded. Loaded: {self._loaded()}."
            )
        if self.decoder != "plain" and not judges:
            raise InputError(
                f"decoder: {self.decoder} judges its drafts and needs a principle; "
                "load one, or use the decoder plain"
            )

    async def plan(self, request: Request) -> Plan:
        """What is to be made.

        Raises:
            Failure: something in the request cannot be honoured; names the field.
        """
        self.check_model(request.model)
        if self.settings.locked:
            self._check_locked(request)
        decoder, principle = self._decoder(request)
        policy = request.ringfence.policy or "harmony"
        if policy not in PRESETS:
            raise invalid(
                f"ringfence.policy: unknown policy {policy!r}. Presets: {', '.join(PRESETS)}.",
                "ringfence.policy",
            )
        self._check_length(request)
        # Templates and tokenizers take their time on long conversations, and others wait. A thread
        # goes on when its client has left, so there are never more than a few.
        async with self._rendering:
            prompt = await asyncio.to_thread(self._render, request, policy)
        options = self._options(request, prompt)
        return Plan(
            prompt=prompt,
            decoder=decoder,
            principle=principle,
            judge=self.judges[principle] if principle else None,
            options=self._each(request, options),
            score=isinstance(request, ChatRequest) and request.moderation is not None,
        )

    def _check_length(self, request: Request) -> None:
        """Refuse what cannot fit before it is rendered: a message is a token at least."""
        context = self._engine.card.context
        if isinstance(request, ChatRequest) and len(request.messages) > context:
            raise Failure(
                400,
                f"messages: {len(request.messages)}, and the context is {context} tokens",
                code="context_length_exceeded",
                param="messages",
            )

    def _check_locked(self, request: Request) -> None:
        asked = {f"ringfence.{name}" for name in request.ringfence.model_fields_set - {"budget"}}
        moderation = request.moderation if isinstance(request, ChatRequest) else None
        if moderation is not None and moderation.model != self.principle:
            asked.add("moderation.model")
        for param in sorted(asked):
            raise invalid(f"{param}: this server does not let requests choose it", param, "locked")

    def check_model(self, name: str) -> None:
        """Refuse models that this server does not have.

        Raises:
            Failure: 404.
        """
        if name != self.model:
            raise Failure(
                404,
                f"there is no model {name!r}; this server has {self.model!r}",
                code="model_not_found",
                param="model",
            )

    def _loaded(self) -> str:
        return ", ".join(self.judges) or "none"

    def _decoder(self, request: Request) -> tuple[DecoderName, str | None]:
        """Decoder and principle, from the request or the defaults."""
        steering = request.ringfence
        moderation = request.moderation if isinstance(request, ChatRequest) else None
        principle, param = steering.principle, "ringfence.principle"
        if moderation is not None:
            principle, param = _moderated(moderation, principle), "moderation.model"
        if principle is not None and principle not in self.judges:
            raise invalid(f"{param}: {principle!r} is not loaded. Loaded: {self._loaded()}.", param)
        decoder = steering.decoder or self.decoder
        if moderation is not None and moderation.blocks and decoder == "plain":
            if steering.decoder is not None:
                raise invalid(
                    "moderation.policy.output.mode: the decoder plain blocks nothing; name another",
                    "moderation.policy.output.mode",
                )
            decoder = "guarded"
        if decoder == "plain" and moderation is None:
            if principle is not None:
                raise invalid(
                    "ringfence.principle: the decoder plain judges nothing; name another decoder "
                    "as well, or leave the principle out",
                    "ringfence.principle",
                )
            return decoder, None
        principle = principle or self.principle
        if principle is None:
            raise invalid(
                f"ringfence.decoder: {decoder} judges its drafts, and this server was started "
                "without a principle; only plain is possible",
                "ringfence.decoder",
            )
        return decoder, principle

    def _render(self, request: Request, policy: str) -> Rendering:
        card = self._engine.card
        try:
            if isinstance(request, CompletionRequest):
                return render_text(request.text, card.tokenizer)
            messages = request.plain_messages()
            return render(Conversation.of(messages, policy, tools=request.offered), card)
        except RenderingError as error:
            raise invalid(str(error), _place(str(error), request), "cannot_render") from None
        except InputError as error:
            raise invalid(str(error), _place(str(error), request)) from None

    def _options(self, request: Request, prompt: Rendering) -> Options:
        """Options of the request over the server's, within its limits and the context."""
        limit, limit_name = request.limit
        own = {
            "temperature": request.temperature,
            "top_p": request.top_p,
            "top_k": request.top_k,
            "stop": request.stops or None,
            "max_tokens": limit,
            "seed": self._seed() if request.seed is None else request.seed,
        }
        names = {name: name for name in own} | {"max_tokens": limit_name}
        chosen: dict[str, Any] = {name: value for name, value in own.items() if value is not None}
        defaults = self.settings.options.model_dump(exclude={"budget"})
        steered = request.ringfence.options()
        if "preset" in steered and "search" not in steered:
            # Constants the operator gave belong to the operator's preset.
            defaults["search"] = {}
        budget = _lowered(self.settings.options.budget, request.ringfence.budget)
        try:
            # `Options` checks this as well, but its errors do not say that they are about it.
            SearchSettings.model_validate(steered.get("search", {}))
        except ValidationError as error:
            raise of_options(error, {}, "ringfence.search.") from None
        try:
            options = Options.model_validate(defaults | steered | chosen | {"budget": budget})
        except ValidationError as error:
            raise of_options(error, names, "ringfence.") from None
        room = self._engine.card.context - len(prompt.tokens)
        if room < 1 or (limit is not None and limit > room):
            raise self._too_long(request, prompt, options.max_tokens)
        return options.model_copy(update={"max_tokens": min(options.max_tokens, room)})

    def _seed(self) -> int:
        """Of requests without one: the operator's if there is one, else a fresh one."""
        options = self.settings.options
        if "seed" in options.model_fields_set:
            return options.seed
        return random.SystemRandom().getrandbits(31)

    def _too_long(self, request: Request, prompt: Rendering, length: int) -> Failure:
        return invalid(
            f"{len(prompt.tokens)} tokens of prompt and {length} of reply exceed the context of "
            f"{self._engine.card.context} tokens; shorten the prompt or {request.limit[1]}",
            "prompt" if isinstance(request, CompletionRequest) else "messages",
            "context_length_exceeded",
        )

    @staticmethod
    def _each(request: Request, options: Options) -> tuple[Options, ...]:
        """Options of each of n replies: seeds count up, and the limits are shared out."""
        count = request.n or 1
        budget = options.budget
        if min(budget.tokens, budget.iterations) < count:
            raise invalid(f"n: the limits of this server do not allow {count} replies", "n")
        share = budget.model_copy(
            update={"tokens": budget.tokens // count, "iterations": budget.iterations // count}
        )
        return tuple(
            options.model_copy(update={"seed": options.seed + index, "budget": share})
            for index in range(count)
        )


def failure_in(error: ContextError, request: Request) -> Failure:
    """A context that turned out to be too small while decoding, in the client's words."""
    param = "prompt" if isinstance(request, CompletionRequest) else "messages"
    return invalid(str(error), param, "context_length_exceeded")


def _moderated(moderation: Moderation, principle: str | None) -> str:
    """The principle that moderation asks for."""
    if principle is not None and principle != moderation.model:
        raise invalid(
            "moderation.model: names another principle than ringfence.principle", "moderation.model"
        )
    return moderation.model


def _lowered(limits: Budget, wanted: BudgetRequest | None) -> Budget:
    """The server's limits, lowered by the request."""
    given = wanted.model_dump(exclude_none=True) if wanted else {}
    for name, value in given.items():
        most = getattr(limits, name)
        if value > most:
            raise invalid(
                f"ringfence.budget.{name}: {value} exceeds this server's limit of {most:g}",
                f"ringfence.budget.{name}",
            )
    return limits.model_copy(update=given)


def _place(message: str, request: Request) -> str:
    """The field that an error of rings or rendering names, such as `messages[3].role`."""
    field = "prompt" if isinstance(request, CompletionRequest) else "messages"
    named = message.split(": ", 1)[0]
    return named if named.startswith((field, "tools")) and " " not in named else field
