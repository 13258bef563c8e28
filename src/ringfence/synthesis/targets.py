"""What training reads: lines for supervised training, preferences and judging, from a case.

Cases of the train split alone make such lines. Those of the evaluation split make lines on which a
judge is measured.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

from ringfence.graders import grade, parse_grader
from ringfence.graders.grades import Check
from ringfence.graders.unfinished import lost
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


def judged(case: Case) -> Iterator[Json]:
    """A right reply to every sibling, one of another sibling that would be wrong, and beginnings.

    `target` marks the right reply when it is whole: training learns it together with its verdict.
    Replies that call tools are left out, since what they do is not seen in their words.
    """
    if case.split == "train":
        yield from _judged(case)


def judge_check(case: Case) -> Iterator[Json]:
    """The same of a case for evaluation, for `ringfence judge check`."""
    if case.split == "eval":
        yield from _judged(case)


def _judged(case: Case) -> Iterator[Json]:
    said = [
        text
        for sibling in case.siblings.values()
        for text in (sibling.wrong, sibling.target)
        if text is not None
    ]
    for name, sibling in case.siblings.items():
        if sibling.target is None or sibling.target_calls or sibling.world is not None:
            continue
        grader = parse_grader(sibling.grader)
        own = [sibling.wrong] if sibling.wrong is not None else []
        bad = next((text for text in (*own, *said) if not grade(grader, text).passed), None)
        if bad is None:
            continue
        for text, good in ((sibling.target, True), (bad, False)):
            for reply, right in ((text, good), *_begun(grader, text, f"{case.id}/{name}")):
                yield {
                    **_head(case, name, sibling),
                    "messages": _messages(sibling),
                    "rings": _rings(sibling),
                    "reply": reply,
                    "good": right,
                    "target": reply == sibling.target,
                }


# Replies of fewer words are never judged before they end.
_LONG = 12


def _begun(grader: Check, text: str, seed: str) -> Iterator[tuple[str, bool]]:
    """The beginning of a long reply, and whether it can still become right.

    Drafts are judged before they end, and what is only unfinished must not look wrong. It ends
    within a sentence: after one nobody could tell whether something is missing.
    """
    words = text.split(" ")
    if len(words) < _LONG:
        return
    begun = " ".join(words[: Random(seed).randint(len(words) // 3, len(words) - 2)])
    if begun[-1:].isalnum():
        yield begun, not lost(grader, begun)


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
