"""What a client may ask for: request bodies as OpenAI defines them, and our own options.

Nothing is ignored in silence: a field is honoured, or it is an error that names it. Knows nothing
of engines or decoding.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, WithJsonSchema, model_validator

from ringfence.options import DecoderName
from ringfence.search_settings import Preset
from ringfence.server.failures import Failure, invalid
from ringfence.tool_calls import is_name

_NOTHING: tuple[object, ...] = (None,)
_OFF: tuple[object, ...] = (None, False)
_ZERO: tuple[object, ...] = (None, 0, 0.0)

# Fields of OpenAI's requests that cannot be honoured: the values that ask for nothing, and why.
_UNSUPPORTED: Mapping[str, tuple[tuple[object, ...], str]] = {
    "audio": (_NOTHING, "replies are text"),
    "best_of": ((None, 1), "use ringfence.n with the decoder best-of-n"),
    "echo": (_OFF, "the prompt is not repeated"),
    "frequency_penalty": (_ZERO, "penalties are not supported"),
    "function_call": ((None, "none"), "use tool_choice"),
    "functions": ((None, []), "use tools"),
    "logit_bias": ((None, {}), "biases are not supported"),
    "logprobs": (_OFF, "log-probabilities are not returned"),
    "metadata": ((None, {}), "nothing is stored"),
    "modalities": ((None, ["text"]), "replies are text"),
    "prediction": (_NOTHING, "predicted outputs are not supported"),
    "presence_penalty": (_ZERO, "penalties are not supported"),
    "reasoning_effort": ((None, "none"), "the model does not reason apart"),
    "response_format": ((None, {"type": "text"}), "only the type text is supported"),
    "service_tier": ((None, "auto", "default"), "there is one tier"),
    "store": (_OFF, "nothing is stored"),
    "suffix": ((None, ""), "text is not inserted"),
    "top_logprobs": ((None, 0), "log-probabilities are not returned"),
    "verbosity": ((None, "medium"), "the length is governed by max_completion_tokens alone"),
    "web_search_options": (_NOTHING, "nothing is searched"),
}


class Strict(BaseModel):
    """Base of all requests: no unknown field, and no text where a number belongs."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Part(Strict):
    """A part of a message: text, or in an assistant's message why it refused."""

    type: Literal["text", "refusal"]
    text: str | None = None
    refusal: str | None = None

    @property
    def said(self) -> str | None:
        """The text of the part; None if the field that its type calls for is missing."""
        return self.text if self.type == "text" else self.refusal


# Refused with a reason where it is something.
Nothing = Annotated[JsonValue, WithJsonSchema({"enum": [None, []]})]


class ChatMessage(Strict):
    """One message.

    Attributes:
        role: who speaks; the policy says in which ring.
        content: text. An assistant's message may have a refusal instead.
        name: of whoever wrote it; for people.
        tool_call_id: of the call that a tool's message answers.
        refusal: of an assistant's message, as this server returns it.
        tool_calls: of an assistant's message.
        function_call: none; like those below, there because clients send a reply back as it came.
        audio: none.
        annotations: none.
    """

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    tool_calls: list[dict[str, JsonValue]] | None = None
    function_call: Nothing = None
    audio: Nothing = None
    annotations: Nothing = None

    def plain(self, where: str) -> dict[str, Any]:
        """As `Conversation.of` takes it. `where` names the message in errors.

        Raises:
            Failure: the message holds something other than text.
        """
        for field in ("function_call", "audio", "annotations"):
            if getattr(self, field):
                raise unsupported(f"{where}.{field}", "only the text of a message can be rendered")
        if self.role != "tool" and self.tool_call_id is not None:
            raise unsupported(f"{where}.tool_call_id", "only messages of the role tool have one")
        texts, refusals = self._said(where)
        if self.role != "assistant" and refusals:
            raise unsupported(f"{where}.refusal", "only messages of the role assistant have one")
        text = "".join(texts)
        plain: dict[str, Any] = {
            "role": self.role,
            "content": "\n\n".join(([text] if text else []) + refusals),
            "source": self.name or self.tool_call_id or "",
        }
        if self.tool_calls:
            plain["tool_calls"] = self.tool_calls
        if self.tool_call_id is not None:
            plain["tool_call_id"] = self.tool_call_id
        if self.name and is_name(self.name):
            plain["name"] = self.name
        return plain

    def _said(self, where: str) -> tuple[list[str], list[str]]:
        """Texts and refusals, in order."""
        texts: list[str] = []
        refusals = [self.refusal] if self.refusal else []
        if self.content is None and not refusals and not self.tool_calls:
            raise invalid(f"{where}.content: must be text", f"{where}.content")
        parts = self.content if isinstance(self.content, list) else []
        for index, part in enumerate(parts):
            if part.said is None:
                param = f"{where}.content[{index}].{part.type}"
                raise invalid(f"{param}: is missing", param)
            (texts if part.type == "text" else refusals).append(part.said)
        return [self.content] if isinstance(self.content, str) else texts, refusals


def unsupported(param: str, why: str) -> Failure:
    """The error about a field that cannot be honoured."""
    return invalid(f"{param}: cannot be honoured: {why}", param, "unsupported_parameter")


class BudgetRequest(Strict):
    """Limits below those of the server; see `ringfence.budget.Budget`."""

    tokens: int | None = Field(default=None, ge=1)
    iterations: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)


class Steering(Strict):
    """Our own options, under `ringfence` in the body (the client's `extra_body`).

    Attributes:
        decoder: how the reply is made.
        principle: what the judge looks for; one of those loaded when the server started.
        policy: the order of rings: `paper`, `harmony` or `model-spec`.
        budget: may lower the server's limits, not raise them.

    The others are those of `ringfence.options.Options`.
    """

    decoder: DecoderName | None = None
    principle: str | None = None
    policy: str | None = None
    budget: BudgetRequest | None = None
    exhausted: Literal["refuse", "best", "error"] | None = None
    n: int | None = Field(default=None, ge=1, le=256)
    segment: int | None = Field(default=None, ge=1)
    redraws: int | None = Field(default=None, ge=1)
    widenings: int | None = Field(default=None, ge=1, le=8)
    preset: Preset | None = None
    search: dict[str, JsonValue] | None = None
    threshold: float | None = Field(default=None, ge=-1, le=1)

    def options(self) -> dict[str, Any]:
        """What is set of `Options`, without the budget."""
        apart = {"decoder", "principle", "policy", "budget"}
        return self.model_dump(exclude=apart, exclude_none=True)


class ModerationMode(Strict):
    """What moderation does: `score` reports, `block` holds back what is bad."""

    mode: Literal["score", "block"]


class ModerationPolicy(Strict):
    """Moderation of what comes in and what goes out."""

    input: ModerationMode | None = None
    output: ModerationMode | None = None


class Moderation(Strict):
    """OpenAI's moderated completions; here the model that moderates is a principle.

    Attributes:
        model: name of a loaded principle.
        policy: of the output only; judges judge replies.
    """

    model: str
    policy: ModerationPolicy | None = None

    @property
    def blocks(self) -> bool:
        """Whether a bad reply is to be held back."""
        return bool(self.policy and self.policy.output and self.policy.output.mode == "block")

    @model_validator(mode="after")
    def _of_output(self) -> Self:
        if self.policy is not None and self.policy.input is not None:
            raise unsupported("moderation.policy.input", "judges judge replies, not messages")
        return self


class StreamOptions(Strict):
    """Options of a stream."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


class Generation(Strict):
    """What chat and text completion have in common."""

    model: str
    n: int | None = Field(default=None, ge=1, le=16)
    stop: str | list[str] | None = None
    seed: int | None = Field(default=None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(default=None, ge=0, le=10)
    top_p: float | None = Field(default=None, gt=0, le=1)
    top_k: int | None = Field(default=None, ge=0, lt=2**31)
    max_tokens: int | None = Field(default=None, ge=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    ringfence: Steering = Steering()

    @model_validator(mode="before")
    @classmethod
    def _known(cls, body: object) -> object:
        """Take out fields that ask for nothing; refuse those that ask for what there is not."""
        if not isinstance(body, dict):
            return body
        for name in body.keys() & _UNSUPPORTED.keys():
            neutral, why = _UNSUPPORTED[name]
            value = body[name]
            # True equals 1 and False equals 0, but they do not ask for the same.
            if not any(type(value) is type(one) and value == one for one in neutral):
                raise unsupported(name, why)
        return {name: value for name, value in body.items() if name not in _UNSUPPORTED}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options: may only be set with stream: true", "stream_options")
        if isinstance(self.stop, list) and len(self.stop) > 16:
            raise invalid(f"stop: at most 16 strings, not {len(self.stop)}", "stop")
        if "" in self.stops:
            raise invalid("stop: an empty string would end every reply", "stop")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop strings."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def usage_wanted(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return bool(self.stream_options and self.stream_options.include_usage)


class ChatRequest(Generation):
    """The body of POST /v1/chat/completions."""

    messages: list[ChatMessage] = Field(min_length=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    moderation: Moderation | None = None
    tools: list[dict[str, JsonValue]] | None = None
    tool_choice: JsonValue = None
    parallel_tool_calls: bool | None = None

    @model_validator(mode="after")
    def _choosable(self) -> Self:
        if self.tool_choice not in (None, "none", "auto"):
            raise unsupported("tool_choice", "the model itself decides what it calls: auto or none")
        return self

    @property
    def offered(self) -> list[dict[str, JsonValue]]:
        """Definitions of the tools that the reply may call."""
        return [] if self.tool_choice == "none" else self.tools or []

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        given = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(given) > 1:
            raise invalid(
                "max_completion_tokens: differs from max_tokens, its old name; set one of the two",
                "max_completion_tokens",
            )
        return self

    @property
    def limit(self) -> tuple[int | None, str]:
        """Longest reply and the name of the field that says so."""
        if self.max_completion_tokens is None and self.max_tokens is not None:
            return self.max_tokens, "max_tokens"
        return self.max_completion_tokens, "max_completion_tokens"

    def plain_messages(self) -> list[dict[str, Any]]:
        """Messages as `Conversation.of` takes them.

        Raises:
            Failure: a message holds something other than text.
        """
        return [message.plain(f"messages[{index}]") for index, message in enumerate(self.messages)]


class CompletionRequest(Generation):
    """The body of POST /v1/completions: raw text that is continued, without a chat template."""

    prompt: str | Annotated[list[str], Field(min_length=1, max_length=1)]

    @property
    def limit(self) -> tuple[int | None, str]:
        """Longest reply and the name of the field that says so; 16 as in OpenAI's API."""
        return self.max_tokens or 16, "max_tokens"

    @property
    def text(self) -> str:
        """The prompt."""
        return self.prompt if isinstance(self.prompt, str) else self.prompt[0]
