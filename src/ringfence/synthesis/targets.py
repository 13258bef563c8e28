"""What training reads: lines for supervised training, preferences and judging, from a case.

Cases of the train split alone make such lines. Those of the evaluation split make lines on which a
judge is measured.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from os.path import commonprefix
from typing import Any

from ringfence.graders import grade, parse_grader
from ringfence.graders.grades import Check
from ringfence.graders.unfinished import lost
from ringfence.synthesis.case import Case, Sibling, Split, Turn
from ringfence.synthesis.catalogue import openings

Json = dict[str, Any]


def sft(case: Case) -> Iterator[Json]:
    """One line a sibling with a target: the conversation with it, and the ring of every message.

    `decisions` are characters of the reply: see `_decisions`.
    """
    for name, sibling in _trained(case):
        if sibling.target is not None:
            reply = reply_of(sibling.target, sibling.target_calls)
            yield {
                **_head(case, name, sibling),
                "messages": [*_messages(sibling), reply],
                "rings": [*_rings(sibling), case.reply_ring],
                "decisions": _decisions(case, sibling),
            }


def preferences(case: Case) -> Iterator[Json]:
    """One line a sibling with a target and a wrong reply."""
    for name, sibling in _trained(case):
        wrong = _rejected(case, name, sibling)
        if sibling.target is not None and wrong is not None:
            yield preference(
                case,
                name,
                reply_of(sibling.target, sibling.target_calls),
                reply_of(wrong, sibling.wrong_calls),
            )


def preference(case: Case, name: str, chosen: Json, rejected: Json) -> Json:
    """A line that prefers one reply to another, as messages, in the conversation of a sibling."""
    sibling = case.siblings[name]
    return {
        **_head(case, name, sibling),
        "prompt": _messages(sibling),
        "rings": _rings(sibling),
        "reply_ring": case.reply_ring,
        "chosen": [chosen],
        "rejected": [rejected],
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


def _decisions(case: Case, sibling: Sibling) -> list[int]:
    """Characters at which the right reply parts from each that would be wrong here.

    There the model decides whom it obeys; the rest of a reply follows from it, or is the same
    whoever is obeyed. The place behind the last character stands for the reply's end.
    """
    if sibling.target is None or sibling.target_calls:
        return []
    grader = parse_grader(sibling.grader)
    others = (text for text in _said(case) if not grade(grader, text).passed)
    return sorted({len(commonprefix((sibling.target, other))) for other in others})


def _said(case: Case) -> list[str]:
    """Every reply, right or wrong, to any sibling."""
    texts = (text for each in case.siblings.values() for text in (each.wrong, each.target))
    return [text for text in dict.fromkeys(texts) if text is not None]


def _judged(case: Case) -> Iterator[Json]:
    said = _said(case)
    for name, sibling in case.siblings.items():
        if sibling.target is None or sibling.target_calls or sibling.world is not None:
            continue
        grader = parse_grader(sibling.grader)
        # A lone word that stands nowhere above is wrong without reading what is asked.
        read = "\n".join(turn.content for turn in sibling.messages)
        failing = [
            text
            for text in said
            if (text in read or not text.isalpha()) and not grade(grader, text).passed
        ]
        if not failing:
            continue
        own = _rejected(case, name, sibling)
        bad = own if own in failing else failing[case.index % len(failing)]
        assert bad is not None
        begun = _begun(grader, sibling.target, bad, refuses(bad, case.split))
        # Right and wrong take turns.
        for number, reply in enumerate((sibling.target, bad, *begun)):
            yield {
                **_head(case, name, sibling),
                "messages": _messages(sibling),
                "rings": _rings(sibling),
                "reply": reply,
                "good": number % 2 == 0,
                "target": reply == sibling.target,
                "begun": number > 1,
            }


_REFUSALS = ("decline", "unseen", "refuse")


@cache
def _refusals(split: Split) -> re.Pattern[str]:
    templates = (text for kind in _REFUSALS for text in openings(split)[kind])
    tails = "|".join(map(re.escape, openings(split)["otherwise"]))
    each = (re.escape(text).replace(re.escape("{text}"), ".+") for text in templates)
    return re.compile(f"(?:{'|'.join(each)})(?:{tails})?", re.IGNORECASE)


def refuses(reply: str, split: Split) -> bool:
    """Whether a reply of a case is one of the refusals of openings.yaml, and nothing else."""
    return _refusals(split).fullmatch(reply) is not None


# Words of the shortest beginning, so that a refusal can be told by it.
_FEWEST = 6


def _begun(grader: Check, target: str, bad: str, refusal: bool) -> tuple[str, str] | tuple[()]:
    """Beginnings of a right reply and of a wrong one, where the wrong one has just gone wrong.

    Drafts are judged before they end, and what is only unfinished must not look wrong. Both are cut
    at the same word, within a sentence: neither length nor ending tells them apart. Where no word
    settles that the wrong one is wrong, there are none.
    """
    right, wrong = target.split(" "), bad.split(" ")
    pairs = zip(right, wrong, strict=False)
    same = next((number for number, (one, two) in enumerate(pairs) if one != two), None)
    if same is None:
        return ()
    for words in range(max(same + 1, _FEWEST), min(len(right), len(wrong))):
        ended = [re.sub(r"\W+$", "", " ".join(text[:words])) for text in (right, wrong)]
        # No reply that begins as a refusal does answers, and how it goes on does not matter.
        gone = refusal or lost(grader, ended[1])
        if gone and not target.startswith(ended[1]):
            return (ended[0], ended[1])
    return ()


def _rejected(case: Case, name: str, sibling: Sibling) -> str | None:
    """The sibling's own wrong reply.

    Of a text that holds an instruction it is by turns the one that leaves the instruction out:
    otherwise a bare word would always be wrong there, and all else right.
    """
    if case.recipe == "closed-domain" and name == "conflict" and case.index % 2:
        return case.siblings["aligned"].target
    return sibling.wrong


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


def reply_of(text: str, calls: tuple[Mapping[str, Any], ...] = ()) -> Json:
    """A reply as a message."""
    message: Json = {"role": "assistant", "content": text}
    if calls:
        message["tool_calls"] = [_call(call) for call in calls]
    return message


def _call(call: Mapping[str, Any]) -> Json:
    return {"type": "function", "function": dict(call)}
