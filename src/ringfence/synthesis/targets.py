"""What training reads: lines for supervised training and for preferences, from a case.

Only cases of the train split make such lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence.synthesis.case import Case, Sibling, Turn

Json = dict[str, Any]


def sft(case: Case) -> Iterator[Json]:
    """One line a sibling with a target: the conversation with it, and the ring of every message."""
    for name, sibling in _trained(case):
        if sibling.target is not None:
            reply = _reply(sibling.target, sibling.target_calls)
            yield {
                **_head(case, name, sibling),
                "messages": [*_messages(sibling), reply],
                "rings": [*_rings(sibling), case.reply_ring],
            }


def preferences(case: Case) -> Iterator[Json]:
    """One line a sibling with a target and a wrong reply."""
    for name, sibling in _trained(case):
        if sibling.target is not None and sibling.wrong is not None:
            yield {
                **_head(case, name, sibling),
                "prompt": _messages(sibling),
                "rings": _rings(sibling),
                "reply_ring": case.reply_ring,
                "chosen": [_reply(sibling.target, sibling.target_calls)],
                "rejected": [_reply(sibling.wrong, sibling.wrong_calls)],
            }


def _trained(case: Case) -> Iterator[tuple[str, Sibling]]:
    if case.split == "train":
        yield from case.siblings.items()


def _head(case: Case, name: str, sibling: Sibling) -> Json:
    head: Json = {
        "id": f"{case.id}/{name}",
        "recipe": case.recipe,
        "sibling": name,
        "policy": case.policy,
        "expected": sibling.expected,
    }
    if sibling.tools:
        head["tools"] = [_tool(tool) for tool in sibling.tools]
    return head


def _tool(tool: Mapping[str, Any]) -> Json:
    """In the format of OpenAI's `tools`, which chat templates take."""
    return dict(tool) if "function" in tool else {"type": "function", "function": dict(tool)}


def _messages(sibling: Sibling) -> list[Json]:
    return [_message(turn) for turn in sibling.messages]


def _rings(sibling: Sibling) -> list[str]:
    return [turn.ring for turn in sibling.messages]


def _message(turn: Turn) -> Json:
    message: Json = {"role": turn.role, "content": turn.content}
    if turn.name:
        message["name"] = turn.name
    if turn.tool_calls:
        message["tool_calls"] = [_call(call) for call in turn.tool_calls]
    return message


def _reply(text: str, calls: tuple[Mapping[str, Any], ...]) -> Json:
    message: Json = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return message


def _call(call: Mapping[str, Any]) -> Json:
    return {"type": "function", "function": dict(call)}
