"""What a client gets back: replies and chunks as OpenAI defines them, with our own account.

Knows nothing of how replies are made or sent.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from ringfence.events import Cost, Ended, EndReason
from ringfence.server.jobs import Plan
from ringfence.written_calls import apart

FinishReason = Literal["stop", "length", "content_filter", "tool_calls"]


class Reported(BaseModel):
    """Base of all that is returned."""

    model_config = ConfigDict(extra="forbid")


class TokenCounts(Reported):
    """Tokens of a reply. `fed` are those processed: drafted, judged and the prompt's."""

    drafted: int
    judged: int
    committed: int
    fed: int


class Account(Reported):
    """How one reply came about and what it took.

    Attributes:
        seed: gives the same reply again, where the engine is deterministic.
        reason: `stop`, `length` or `refused`.
        detail: for a refusal, why.
        verdict: of the judge on the whole reply, in [-1, 1]; null where nothing was judged.
        rewinds: times that rejected tokens were dropped.
        tokens: those searched are not part of `usage`.
        iterations: drafts judged.
        requests: requests to the engine.
        seconds: wall time from the first draft.
        first_commit_seconds: likewise, to the first committed token.
    """

    seed: int
    reason: EndReason
    detail: str
    verdict: float | None
    rewinds: int
    tokens: TokenCounts
    iterations: int
    requests: int
    seconds: float
    first_commit_seconds: float | None


class Metadata(Account):
    """The account of a request, under `ringfence` in the reply: sums over its replies.

    Attributes:
        decoder: how the replies were made.
        principle: what was judged; null where nothing was.
        notes: what the chat template could not express, and how it was expressed instead.
        replies: the account of each, where there are several.
    """

    decoder: str
    principle: str | None
    notes: list[str]
    replies: list[Account] | None


class Usage(Reported):
    """Tokens as clients count them: `completion_tokens` are the committed ones."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class FunctionCall(Reported):
    """What is called; the arguments are JSON, or what the model wrote in its place."""

    name: str
    arguments: str


class ReportedCall(Reported):
    """A call of a tool, to be carried out by the client."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class AssistantMessage(Reported):
    """A reply. Content and refusal are both set where a reply was refused half way."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None
    tool_calls: list[ReportedCall] | None = None


class ChatChoice(Reported):
    """One of the replies."""

    index: int
    message: AssistantMessage
    logprobs: None
    finish_reason: FinishReason


class Moderated(Reported):
    """OpenAI's moderation object: results, or an error that says why there are none."""

    input: dict[str, Any]
    output: dict[str, Any]


class ChatCompletion(Reported):
    """The reply to POST /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage
    moderation: Moderated | None
    ringfence: Metadata


class TextChoice(Reported):
    """One of the continuations."""

    index: int
    text: str
    logprobs: None
    finish_reason: FinishReason


class TextCompletion(Reported):
    """The reply to POST /v1/completions."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage
    ringfence: Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One finished reply."""

    text: str
    ended: Ended

    @property
    def finish(self) -> FinishReason:
        """Why it ended, in OpenAI's words."""
        return "content_filter" if self.ended.reason == "refused" else self.ended.reason

    @property
    def refusal(self) -> str | None:
        """What is said of a refused reply."""
        if self.ended.reason != "refused":
            return None
        return f"The reply was refused: {self.ended.detail or 'no acceptable draft was found'}."


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A finished reply as a chat message: its text, and the calls of tools that it holds."""

    text: str
    calls: tuple[ReportedCall, ...]
    finish: FinishReason


def said(outcome: Outcome, names: Collection[str], *, most: int | None) -> Said:
    """A reply, with calls of the tools of these names apart from its text.

    Args:
        outcome: the reply; one that was refused calls nothing.
        names: of the tools that were offered.
        most: calls that are wanted; None for all.
    """
    if not names or outcome.refusal:
        return Said(text=outcome.text, calls=(), finish=outcome.finish)
    text, found = apart(outcome.text, names)
    calls = tuple(_call(call) for call in found[:most])
    finish: FinishReason = "tool_calls" if calls else outcome.finish
    return Said(text=text, calls=calls, finish=finish)


def _call(call: Mapping[str, Any]) -> ReportedCall:
    given = call["arguments"]
    arguments = given if isinstance(given, str) else json.dumps(given, ensure_ascii=False)
    function = FunctionCall(name=call["name"], arguments=arguments)
    return ReportedCall(id=f"call_{uuid.uuid4().hex[:24]}", type="function", function=function)


def account(plan: Plan, index: int, ended: Ended) -> Account:
    """How one reply came about."""
    cost = ended.cost
    return Account(
        seed=plan.options[index].seed,
        reason=ended.reason,
        detail=ended.detail,
        verdict=ended.value,
        rewinds=cost.rewinds,
        tokens=_counts([cost]),
        iterations=cost.iterations,
        requests=cost.requests,
        seconds=round(cost.seconds, 6),
        first_commit_seconds=_earliest([cost]),
    )


def metadata(plan: Plan, ends: Sequence[Ended], *, first: int = 0) -> Metadata:
    """The account of replies `first` and up: sums; the worst verdict and a refusal stand out."""
    each = [account(plan, first + index, ended) for index, ended in enumerate(ends)]
    costs = [ended.cost for ended in ends]
    worst = next((one for one in each if one.reason == "refused"), each[0])
    verdicts = [one.verdict for one in each if one.verdict is not None]
    return Metadata(
        decoder=plan.decoder,
        principle=plan.principle,
        notes=list(plan.prompt.notes),
        replies=each if len(each) > 1 else None,
        seed=each[0].seed,
        reason=worst.reason,
        detail=worst.detail,
        verdict=min(verdicts, default=None),
        rewinds=sum(one.rewinds for one in each),
        tokens=_counts(costs),
        iterations=sum(one.iterations for one in each),
        requests=sum(one.requests for one in each),
        seconds=max(one.seconds for one in each),
        first_commit_seconds=_earliest(costs),
    )


def _counts(costs: Sequence[Cost]) -> TokenCounts:
    return TokenCounts(
        drafted=sum(cost.drafted for cost in costs),
        judged=sum(cost.judged for cost in costs),
        committed=sum(cost.committed for cost in costs),
        fed=sum(cost.fed for cost in costs),
    )


def _earliest(costs: Sequence[Cost]) -> float | None:
    firsts = [c.first_commit_seconds for c in costs if c.first_commit_seconds is not None]
    return round(min(firsts), 6) if firsts else None


def usage(plan: Plan, ends: Sequence[Ended]) -> Usage:
    """Tokens of the prompt and of what was committed."""
    prompt, completion = len(plan.prompt.tokens), sum(ended.cost.committed for ended in ends)
    return Usage(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion
    )


def moderated(plan: Plan, ends: Sequence[Ended]) -> Moderated:
    """Verdicts as OpenAI's moderation results: one category, the principle."""
    assert plan.principle is not None and plan.judge is not None
    results = []
    for index, ended in enumerate(ends):
        threshold = plan.options[index].threshold
        bar = plan.judge.threshold if threshold is None else threshold
        bad = ended.reason == "refused" or (ended.value is not None and ended.value < bar)
        score = float(bad) if ended.value is None else (1 - ended.value) / 2
        results.append(
            {
                "type": "moderation_result",
                "model": plan.principle,
                "flagged": bad,
                "categories": {plan.principle: bad},
                "category_scores": {plan.principle: score},
                "category_applied_input_types": {plan.principle: ["text"]},
            }
        )
    return Moderated(
        input={
            "type": "error",
            "code": "not_supported",
            "message": "judges judge replies, not messages",
        },
        output={"type": "moderation_results", "model": plan.principle, "results": results},
    )
