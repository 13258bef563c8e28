"""Messages between chat APIs, Inspect and rings. Knows nothing of engines.

Inspect has no developer role and no rings: both travel in a message's metadata, as `role` and
`ring`, which only whoever builds the sample can write.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentReasoning,
    ContentText,
)
from inspect_ai.tool import ToolCall as InspectCall
from inspect_ai.tool import ToolInfo

from ringfence.errors import InputError
from ringfence.evaluation.baseline import with_paragraph
from ringfence.evaluation.names import ModelName
from ringfence.rings import Conversation, Policy
from ringfence.tool_calls import ToolCall, calls_of, tools_of


def to_inspect(
    messages: Sequence[Mapping[str, Any]],
    rings: Sequence[str] | None = None,
    policy: str = "",
) -> list[ChatMessage]:
    """Chat API messages as Inspect has them; with the preset that the rings are of, if not harmony.

    Raises:
        InputError: a role that no chat API has, or calls that are none.
    """
    return [
        _to_inspect(index, message, rings[index] if rings else None, policy)
        for index, message in enumerate(messages)
    ]


def from_inspect(messages: Sequence[ChatMessage]) -> list[dict[str, Any]]:
    """Inspect's messages as chat APIs have them.

    Raises:
        InputError: a picture or anything else that is not text.
    """
    return [_from_inspect(index, message) for index, message in enumerate(messages)]


def conversation(
    messages: Sequence[ChatMessage], tools: Sequence[ToolInfo], name: ModelName
) -> Conversation:
    """What a model is to be given.

    Raises:
        InputError: an unknown role or ring, or content that is not text; names the message.
    """
    plain = from_inspect(messages)
    told = next(filter(None, ((one.metadata or {}).get("policy") for one in messages)), None)
    policy = Policy.preset(str(told)) if told else name.policy
    rings = [
        str((message.metadata or {}).get("ring") or _ring(index, one["role"], policy))
        for index, (message, one) in enumerate(zip(messages, plain, strict=True))
    ]
    if name.prompt_only:
        plain, rings = with_paragraph(plain, rings, policy)
    return Conversation.of(plain, policy, rings, definitions(tools) or None)


def definitions(tools: Sequence[ToolInfo]) -> list[dict[str, Any]]:
    """Tools as chat APIs define them."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool.name,
                "description": tool.description,
                "parameters": tool.parameters.model_dump(exclude_none=True),
            },
        }
        for tool in tools
    ]


def tool_infos(tools: Sequence[Mapping[str, Any]]) -> list[ToolInfo]:
    """Tools of chat APIs as Inspect has them.

    Raises:
        InputError: a definition that is none.
    """
    infos = []
    for tool in tools_of(list(tools)):
        function = tool["function"]
        try:
            described = {
                "name": function["name"],
                "description": function.get("description") or "",
                "parameters": function.get("parameters") or {},
            }
            infos.append(ToolInfo.model_validate(described))
        except ValueError as error:
            raise InputError(f"tool {function['name']}: {error}") from None
    return infos


def inspect_calls(calls: Sequence[ToolCall]) -> list[InspectCall]:
    """Calls as Inspect has them."""
    return [
        InspectCall(id=call.id or f"call_{index}", function=call.name, arguments=call.parsed or {})
        for index, call in enumerate(calls)
    ]


def _ring(index: int, role: str, policy: Policy) -> str:
    try:
        return policy.ring_of(role).name
    except InputError as error:
        raise InputError(f"messages[{index}].role: {error}") from None


def _to_inspect(
    index: int, message: Mapping[str, Any], ring: str | None, policy: str
) -> ChatMessage:
    role, content = message.get("role"), message.get("content") or ""
    metadata: dict[str, Any] = {"ring": ring} if ring else {}
    if policy:
        metadata["policy"] = policy
    if role == "developer":
        metadata["role"] = role
    extra: dict[str, Any] = {"content": content, "metadata": metadata or None}
    if role in ("system", "developer"):
        return ChatMessageSystem(**extra)
    if role == "user":
        return ChatMessageUser(**extra)
    if role == "assistant":
        calls = calls_of(f"messages[{index}]", message.get("tool_calls"))
        return ChatMessageAssistant(**extra, tool_calls=inspect_calls(calls) or None)
    if role == "tool":
        return ChatMessageTool(
            **extra,
            tool_call_id=message.get("tool_call_id") or None,
            function=message.get("name") or None,
        )
    raise InputError(f"messages[{index}].role: {role!r} is no role of a chat API")


def _from_inspect(index: int, message: ChatMessage) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": _text(index, message)}
    if message.role == "system" and (message.metadata or {}).get("role") == "developer":
        made["role"] = "developer"
    if isinstance(message, ChatMessageAssistant) and message.tool_calls:
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.function, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if isinstance(message, ChatMessageTool):
        named = {"tool_call_id": message.tool_call_id, "name": message.function}
        made |= {key: value for key, value in named.items() if value}
        if message.error and not made["content"]:
            made["content"] = message.error.message
    return made


def _text(index: int, message: ChatMessage) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = []
    for part in message.content:
        if isinstance(part, ContentText):
            parts.append(part.text)
        elif not isinstance(part, ContentReasoning):  # no part of what templates are given
            raise InputError(
                f"messages[{index}].content: {part.type} cannot be rendered, only text"
            )
    return "".join(parts)
