"""How a request's events look to its client: one whole reply, or chunks of a stream.

Chat and text completion differ in little else. Knows nothing of how anything is sent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from ringfence.events import Ended
from ringfence.server.jobs import Plan
from ringfence.server.replies import (
    AssistantMessage,
    ChatChoice,
    ChatCompletion,
    Outcome,
    Said,
    TextChoice,
    TextCompletion,
    metadata,
    moderated,
    said,
    usage,
)
from ringfence.server.requests import ChatRequest, CompletionRequest
from ringfence.tool_calls import tools_of
from ringfence.written_calls import settled


class TextShape:
    """Of /v1/completions."""

    prefix, chunk_kind = "cmpl", "text_completion"

    def __init__(self, request: ChatRequest | CompletionRequest, plan: Plan) -> None:
        """A new identity."""
        self.request = request
        self.plan = plan
        self.common: dict[str, Any] = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model,
        }

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """The reply to a request that does not stream."""
        ends = [outcome.ended for outcome in outcomes]
        return TextCompletion(
            **self.common,
            object="text_completion",
            choices=[
                TextChoice(
                    index=index, text=outcome.text, logprobs=None, finish_reason=outcome.finish
                )
                for index, outcome in enumerate(outcomes)
            ],
            usage=usage(self.plan, ends),
            ringfence=metadata(self.plan, ends),
        ).model_dump()

    def openings(self) -> list[dict[str, Any]]:
        """Chunks that come before any text."""
        return []

    def pieces(self, choice: int, text: str) -> list[dict[str, Any]]:
        """The chunks of some committed text."""
        piece = {"index": choice, "text": text, "logprobs": None, "finish_reason": None}
        return [self.chunk(piece)]

    def endings(self, choice: int, outcome: Outcome) -> list[dict[str, Any]]:
        """The last chunks of one reply; an account of it is in the last one."""
        end = {"index": choice, "text": "", "logprobs": None, "finish_reason": outcome.finish}
        return [self.chunk(end) | self.account(choice, outcome.ended)]

    def closings(self, ends: Sequence[Ended]) -> list[dict[str, Any]]:
        """Chunks that come after all replies."""
        if not self.request.usage_wanted:
            return []
        counted = usage(self.plan, ends).model_dump()
        told = metadata(self.plan, ends).model_dump()
        return [self.chunk() | {"usage": counted, "ringfence": told}]

    def chunk(self, *choices: dict[str, Any]) -> dict[str, Any]:
        """One event of the stream."""
        empty_usage = {"usage": None} if self.request.usage_wanted else {}
        return {
            **self.common,
            "object": self.chunk_kind,
            "choices": list(choices),
            **empty_usage,
        }

    def account(self, choice: int, ended: Ended) -> dict[str, Any]:
        """Our metadata on one reply."""
        return {"ringfence": metadata(self.plan, [ended], first=choice).model_dump()}


class ChatShape(TextShape):
    """Of /v1/chat/completions."""

    prefix, chunk_kind = "chatcmpl", "chat.completion.chunk"

    def __init__(self, request: ChatRequest | CompletionRequest, plan: Plan) -> None:
        """A new identity."""
        super().__init__(request, plan)
        offered = request.offered if isinstance(request, ChatRequest) else []
        self._names = {str(tool["function"]["name"]) for tool in tools_of(offered)}
        one = isinstance(request, ChatRequest) and request.parallel_tool_calls is False
        self._most = 1 if one else None
        # What was said of each reply, and how much of it was sent: what may be the beginning of a
        # call is held back.
        self._texts = [""] * len(plan.options)
        self._sent = [0] * len(plan.options)

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """See `TextShape.whole`."""
        ends = [outcome.ended for outcome in outcomes]
        return ChatCompletion(
            **self.common,
            object="chat.completion",
            choices=[self._choice(index, outcome) for index, outcome in enumerate(outcomes)],
            usage=usage(self.plan, ends),
            moderation=moderated(self.plan, ends) if self._moderates else None,
            ringfence=metadata(self.plan, ends),
        ).model_dump()

    def _choice(self, index: int, outcome: Outcome) -> ChatChoice:
        found = self._said(outcome)
        return ChatChoice(
            index=index,
            message=AssistantMessage(
                role="assistant",
                # An empty reply is a reply; one that calls or was refused needs no text.
                content=found.text or (None if outcome.refusal or found.calls else ""),
                refusal=outcome.refusal,
                tool_calls=list(found.calls) or None,
            ),
            logprobs=None,
            finish_reason=found.finish,
        )

    def openings(self) -> list[dict[str, Any]]:
        """Every reply says first whose it is."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._delta(choice, delta) for choice in range(len(self.plan.options))]

    def pieces(self, choice: int, text: str) -> list[dict[str, Any]]:
        """See `TextShape.pieces`; where tools are offered, what may be a call is held back."""
        self._texts[choice] += text
        whole = self._texts[choice]
        return self._sending(choice, whole, settled(whole) if self._names else len(whole))

    def endings(self, choice: int, outcome: Outcome) -> list[dict[str, Any]]:
        """See `TextShape.endings`; what was held back, calls and refusals have own chunks."""
        found = self._said(outcome)
        chunks = self._sending(choice, found.text, len(found.text))
        if found.calls:
            calls = [
                {"index": place, **call.model_dump()} for place, call in enumerate(found.calls)
            ]
            chunks.append(self._delta(choice, {"tool_calls": calls}))
        if outcome.refusal:
            chunks.append(self._delta(choice, {"refusal": outcome.refusal}))
        end = self._delta(choice, {}, found.finish)
        return [*chunks, end | self.account(choice, outcome.ended)]

    def _said(self, outcome: Outcome) -> Said:
        return said(outcome, self._names, most=self._most)

    def _sending(self, choice: int, text: str, end: int) -> list[dict[str, Any]]:
        """Text up to `end` that was not sent yet."""
        start = self._sent[choice]
        if end <= start:
            return []
        self._sent[choice] = end
        return [self._delta(choice, {"content": text[start:end]})]

    def closings(self, ends: Sequence[Ended]) -> list[dict[str, Any]]:
        """See `TextShape.closings`; moderation comes in a chunk of its own."""
        told = moderated(self.plan, ends).model_dump() if self._moderates else None
        chunks = [self.chunk() | {"moderation": told}] if told else []
        return chunks + super().closings(ends)

    @property
    def _moderates(self) -> bool:
        return isinstance(self.request, ChatRequest) and self.request.moderation is not None

    def _delta(
        self, choice: int, delta: dict[str, Any], finish: str | None = None
    ) -> dict[str, Any]:
        return self.chunk(
            {"index": choice, "delta": delta, "logprobs": None, "finish_reason": finish}
        )


def shape_of(request: ChatRequest | CompletionRequest, plan: Plan) -> TextShape:
    """The shape that a request asks for."""
    kind = ChatShape if isinstance(request, ChatRequest) else TextShape
    return kind(request, plan)
