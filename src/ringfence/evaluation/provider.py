"""Our decoders as a model of Inspect: `ringfence/ENGINE?options`.

Knows nothing of suites, graders or run folders. What happened to a reply is in
`ModelOutput.metadata["ringfence"]`, and with it in every log.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from dataclasses import asdict
from typing import Any

from inspect_ai.model import (
    ChatCompletionChoice,
    ChatMessage,
    ChatMessageAssistant,
    GenerateConfig,
    ModelAPI,
    ModelOutput,
    ModelUsage,
    StopReason,
    get_model_info,
)
from inspect_ai.tool import ToolChoice, ToolInfo
from pydantic import ValidationError

from ringfence.decoding import complete, decode
from ringfence.errors import InputError
from ringfence.evaluation import calls, conversations
from ringfence.evaluation.engines import ENGINES
from ringfence.evaluation.names import ModelName, parse
from ringfence.events import Reply
from ringfence.options import Options
from ringfence.rendering import Rendering, render
from ringfence.yaml_files import explain

CONNECTIONS = 16
"""Requests side by side, unless told otherwise: what fills the slots of the embedded engine."""
PRIVATE = "ringfence"
"""Key of `GenerateConfig.extra_body` for what only this provider does: `{"choices": […]}`."""
LEAST = -1e9
"""Stands for a log-probability of minus infinity, which JSON does not have."""

_HONOURED = {"temperature", "top_p", "top_k", "max_tokens", "seed", "stop_seqs", "extra_body"}
# What Inspect does itself, whatever the provider.
_INSPECTS = {
    "max_retries",
    "timeout",
    "attempt_timeout",
    "stream_idle_timeout",
    "max_connections",
    "adaptive_connections",
    "system_message",
    "max_tool_output",
    "cache",
    "cache_prompt",
    "fail_on_refusal",
    "reasoning_history",
    "internal_tools",
}
# Values that ask for what happens anyway.
_HARMLESS: dict[str, Any] = {
    "num_choices": 1,
    "best_of": 1,
    "logprobs": False,
    "batch": False,
    "frequency_penalty": 0,
    "presence_penalty": 0,
    "parallel_tool_calls": True,
}
_REASONS: dict[str, StopReason] = {
    "stop": "stop",
    "length": "max_tokens",
    "refused": "content_filter",
}


class RingfenceAPI(ModelAPI):
    """An engine under a decoder; see `names` for how it is named.

    Attributes:
        name: what the model's name and arguments mean.
    """

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig | None = None,
        **model_args: Any,
    ) -> None:
        """Open nothing yet: the engine opens with the first request, in its loop.

        Raises:
            InputError: a name or an argument that means nothing.
        """
        super().__init__(model_name, base_url, api_key, [], config or GenerateConfig())
        if base_url is not None:
            raise InputError("model_base_url: name the server as ringfence/http://HOST/v1#MODEL")
        self.name = parse(model_name, model_args)
        # Inspect reads its table of models with the first reply, and everything stands still for
        # seconds while the clocks of the replies go on. So it is read before.
        get_model_info("none/none")

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """One reply, or the log-probabilities of choices (see `PRIVATE`).

        Raises:
            InputError: something is asked for that cannot be honoured; names it.
            EngineError: the engine cannot answer.
        """
        began = time.monotonic()
        if tool_choice not in ("auto", "none"):
            raise InputError(f"tool_choice: {tool_choice!r} cannot be enforced; use auto or none")
        options = _options(self.name, config)
        choices = _choices(config)
        place = await ENGINES.place(self.name)
        asked = conversations.conversation(input, tools, self.name)
        # Templates are sandboxed and take their time; others are waiting for their replies.
        prompt = await asyncio.to_thread(render, asked, place.engine.card)
        if choices:
            output = await self._scored(place.engine, prompt, choices)
        else:
            judging = await ENGINES.place(self.name.judge) if self.name.judge else place
            judge = await judging.judge(self.name.settings.one_principle())
            reply = await complete(
                decode(
                    place.engine,
                    prompt,
                    decoder=self.name.settings.chosen_decoder(),
                    judge=judge,
                    options=options,
                    embedder=place.embedder(self.name.settings.embedder),
                )
            )
            output = self._output(prompt, reply, [tool.name for tool in tools])
        output.time = time.monotonic() - began
        return output

    def max_connections(self) -> int:
        """See `CONNECTIONS`."""
        return CONNECTIONS

    def connection_key(self) -> str:
        """Models of one engine share its slots."""
        return self.name.engine

    def should_retry(self, ex: Exception) -> bool:
        """Never: engines repeat what is worth repeating themselves."""
        return False

    async def aclose(self) -> None:
        """Close the engine, and that of the judge."""
        await ENGINES.release(self.name)
        if self.name.judge:
            await ENGINES.release(self.name.judge)

    async def count_text_tokens(self, text: str) -> int:
        """By the model's own tokenizer."""
        place = await ENGINES.place(self.name)
        return len(place.engine.card.tokenizer.encode(text))

    async def tokenize(self, text: str) -> list[int]:
        """By the model's own tokenizer; nothing in the text becomes a control token."""
        place = await ENGINES.place(self.name)
        return list(place.engine.card.tokenizer.encode(text))

    def _output(self, prompt: Rendering, reply: Reply, tools: list[str]) -> ModelOutput:
        text, made = calls.found(reply.text, tools)
        account: dict[str, Any] = {
            "reason": reply.reason,
            "value": reply.value,
            "detail": reply.detail,
            "cost": asdict(reply.cost),
            "decoder": self.name.settings.chosen_decoder(),
            "notes": list(prompt.notes),
        }
        if made:
            account["raw"] = reply.text
        stopped = _REASONS[reply.reason]
        message = ChatMessageAssistant(
            content=text,
            tool_calls=conversations.inspect_calls(made) or None,
            model=self.model_name,
            source="generate",
        )
        return ModelOutput(
            model=self.model_name,
            choices=[
                ChatCompletionChoice(
                    message=message,
                    stop_reason="tool_calls" if made and stopped == "stop" else stopped,
                )
            ],
            usage=_usage(len(prompt.tokens), len(reply.tokens)),
            metadata={"ringfence": account},
            error=reply.detail if reply.reason == "refused" else None,
        )

    async def _scored(self, engine: Any, prompt: Rendering, choices: list[str]) -> ModelOutput:
        """`[[log-probability, tokens], …]`: summed over the tokens of each choice."""
        began = time.monotonic()
        tokens = [engine.card.tokenizer.encode(choice) for choice in choices]
        if not all(tokens):
            raise InputError(f"extra_body.{PRIVATE}.choices: an empty text has no likelihood")
        scores = await engine.logprobs(prompt.tokens, tokens)
        pairs = [
            [max(value, LEAST) if not math.isnan(value) else LEAST, len(choice)]
            for value, choice in zip(scores.logprobs, tokens, strict=True)
        ]
        fed = scores.fed
        cost = {"fed": fed, "requests": scores.requests, "seconds": time.monotonic() - began}
        account = {
            "reason": "stop",
            "value": None,
            "detail": "",
            "cost": cost,
            "decoder": "likelihood",
            "notes": list(prompt.notes),
        }
        output = ModelOutput.from_content(self.model_name, json.dumps(pairs))
        output.usage = _usage(len(prompt.tokens), 0)
        output.metadata = {"ringfence": account}
        return output


def _usage(given: int, made: int) -> ModelUsage:
    return ModelUsage(input_tokens=given, output_tokens=made, total_tokens=given + made)


def _options(name: ModelName, config: GenerateConfig) -> Options:
    """Options of the name; where it says nothing, those of the request.

    Raises:
        InputError: the request wants what cannot be honoured.
    """
    asked = config.model_dump(exclude_none=True)
    for field, value in asked.items():
        if field in _HONOURED | _INSPECTS or _HARMLESS.get(field, ()) == value:
            continue
        raise InputError(f"{field}: ringfence models cannot honour {field}={value!r}")
    given = {
        ("stop" if field == "stop_seqs" else field): value
        for field, value in asked.items()
        if field in _HONOURED - {"extra_body"}
    }
    given = {field: value for field, value in given.items() if field not in name.named}
    if "seed" in given:
        given["seed"] = int(given["seed"])
    try:
        return Options.model_validate(name.settings.options.model_dump() | given)
    except ValidationError as error:
        raise InputError(f"generate options: {explain(error)}") from None


def _choices(config: GenerateConfig) -> list[str]:
    body = config.extra_body or {}
    if unknown := sorted(set(body) - {PRIVATE}):
        raise InputError(f"extra_body.{unknown[0]}: only {PRIVATE} is understood")
    private = body.get(PRIVATE, {})
    if not isinstance(private, dict) or set(private) - {"choices"}:
        raise InputError(f"extra_body.{PRIVATE}: must be an object with choices")
    choices = private.get("choices", [])
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise InputError(f"extra_body.{PRIVATE}.choices: must be a list of texts")
    return choices
