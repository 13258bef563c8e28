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
    TextChoice,
    TextCompletion,
    metadata,
    moderated,
    usage,
)
from ringfence.server.requests import ChatRequest, CompletionRequest


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

    def piece(self, choice: int, text: str) -> dict[str, Any]:
        """A chunk of committed text."""
        return self.chunk({"index": choice, "text": text, "logprobs": None, "finish_reason": None})

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

    def whole(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """See `TextShape.whole`."""
        ends = [outcome.ended for outcome in outcomes]
        return ChatCompletion(
            **self.common,
            object="chat.completion",
            choices=[
                ChatChoice(
                    index=index,
                    message=AssistantMessage(
                        role="assistant",
                        # An empty reply is a reply; a refused one without text has no content.
                        content=outcome.text or (None if outcome.refusal else ""),
                        refusal=outcome.refusal,
                    ),
                    logprobs=None,
                    finish_reason=outcome.finish,
                )
                for index, outcome in enumerate(outcomes)
            ],
            usage=usage(self.plan, ends),
            moderation=moderated(self.plan, ends) if self._moderates else None,
            ringfence=metadata(self.plan, ends),
        ).model_dump()

    def openings(self) -> list[dict[str, Any]]:
        """Every reply says first whose it is."""
        delta = {"role": "assistant", "content": "", "refusal": None}
        return [self._delta(choice, delta) for choice in range(len(self.plan.options))]

    def piece(self, choice: int, text: str) -> dict[str, Any]:
        """See `TextShape.piece`."""
        return self._delta(choice, {"content": text})

    def endings(self, choice: int, outcome: Outcome) -> list[dict[str, Any]]:
        """See `TextShape.endings`; a refusal has a chunk of its own."""
        refusal = [self._delta(choice, {"refusal": outcome.refusal})] if outcome.refusal else []
        end = self._delta(choice, {}, outcome.finish)
        return [*refusal, end | self.account(choice, outcome.ended)]

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
