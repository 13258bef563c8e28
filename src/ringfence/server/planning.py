"""From what a client asks for to what is decoded: checks everything before a slot is taken.

Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from ringfence.budget import Budget
from ringfence.engine import Engine
from ringfence.errors import InputError, RenderingError
from ringfence.judges import Judge, SelfJudge
from ringfence.options import DecoderName, Options
from ringfence.policy_files import load
from ringfence.rendering import Rendering, render, render_text
from ringfence.rings import PRESETS, Conversation, Policy
from ringfence.search_settings import SearchSettings
from ringfence.server.failures import Failure, invalid, of_options
from ringfence.server.jobs import Plan
from ringfence.server.requests import BudgetRequest, ChatRequest, CompletionRequest, Moderation
from ringfence.server.settings import ServerSettings

# Long conversations take seconds each.
_RENDERED_AT_ONCE = 4

Request = ChatRequest | CompletionRequest


class Planner:
    """Turns requests into plans for one engine, its judges and its settings."""

    def __init__(
        self, engine: Engine, judges: Mapping[str, Judge], settings: ServerSettings
    ) -> None:
        """Check that the defaults can be honoured.

        Raises:
            InputError: a default principle that is not loaded, a decoder without its principle, or
                a policy that cannot be used.
        """
        self.judges = dict(judges)
        self.settings = settings
        self.model = settings.model or engine.card.name
        self._policy = load(settings.policy)
        self.decoder: DecoderName = settings.decoder or ("guarded" if judges else "plain")
        self.principle = settings.principle or next(iter(judges), None)
        self._engine = engine
        # A thread goes on when its client has left, so they are counted by a pool of their own.
        self._rendering = ThreadPoolExecutor(_RENDERED_AT_ONCE, "ringfence-rendering")
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
        policy = self._chosen_policy(request.ringfence.policy)
        self._check_length(request)
        judge = self.judges[principle] if principle else None
        self._check_judged(request, judge)
        # Templates and tokenizers take their time on long conversations, and others wait.
        prompt = await asyncio.get_running_loop().run_in_executor(
            self._rendering, self._render, request, policy
        )
        options = self._options(request, prompt)
        return Plan(
            prompt=prompt,
            decoder=decoder,
            principle=principle,
            judge=judge,
            options=self._each(request, options),
            score=isinstance(request, ChatRequest) and request.moderation is not None,
        )

    def close(self) -> None:
        """Take no more plans; what is being rendered is finished."""
        self._rendering.shutdown(wait=False)

    @staticmethod
    def _check_judged(request: Request, judge: Judge | None) -> None:
        """Refuse raw text where the judge asks within a conversation."""
        if not isinstance(request, CompletionRequest) or not isinstance(judge, SelfJudge):
            return
        if judge.principle.form == "turn":
            param = "prompt" if request.ringfence.principle is None else "ringfence.principle"
            raise invalid(
                f"{param}: the principle {judge.principle.name} judges conversations, and not raw "
                "text; use /v1/chat/completions, another principle or the decoder plain",
                param,
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
        if _blocks(request) and decoder == "plain":
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

    def _chosen_policy(self, name: str | None) -> Policy:
        """The server's own, which requests call by its name, or a preset; never a file."""
        if name is None or name == self._policy.name:
            return self._policy
        if name not in PRESETS:
            known = ", ".join(dict.fromkeys([self._policy.name, *PRESETS]))
            raise invalid(
                f"ringfence.policy: unknown policy {name!r}. Known: {known}.", "ringfence.policy"
            )
        return Policy.preset(name)

    def _render(self, request: Request, policy: Policy) -> Rendering:
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
        if _blocks(request) and options.exhausted == "best":
            if request.ringfence.exhausted == "best":
                raise invalid(
                    "moderation.policy.output.mode: block delivers nothing bad, and "
                    "ringfence.exhausted best does; leave one of the two out",
                    "moderation.policy.output.mode",
                )
            options = options.model_copy(update={"exhausted": "refuse"})
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

    def _each(self, request: Request, options: Options) -> tuple[Options, ...]:
        """Options of each of n replies: seeds count up, and the limits are shared out."""
        count = request.n or 1
        budget = options.budget
        if min(budget.tokens, budget.iterations) < count:
            raise invalid(f"n: the limits of this server do not allow {count} replies", "n")
        share = budget.model_copy(
            update={"tokens": budget.tokens // count, "iterations": budget.iterations // count}
        )
        if self.settings.locked and share != self.settings.options.budget:
            # The operator takes the best of his own budget; a client could make it as small as to
            # have the first draft, however bad.
            exhausted = "refuse" if options.exhausted == "best" else options.exhausted
            options = options.model_copy(update={"exhausted": exhausted})
        return tuple(
            options.model_copy(update={"seed": options.seed + index, "budget": share})
            for index in range(count)
        )


def too_small(request: Request) -> Failure:
    """A context that turned out to be too small while decoding, in the client's words."""
    param = "prompt" if isinstance(request, CompletionRequest) else "messages"
    return invalid(
        f"prompt and reply exceed the context; shorten the prompt or {request.limit[1]}",
        param,
        "context_length_exceeded",
    )


def _blocks(request: Request) -> bool:
    """Whether a bad reply must not be delivered."""
    moderation = request.moderation if isinstance(request, ChatRequest) else None
    return moderation is not None and moderation.blocks


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
