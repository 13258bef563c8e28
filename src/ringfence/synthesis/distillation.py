"""Replies and wordings by an engine, kept only where the graders agree. Knows no engine.

Context distillation (arXiv 2404.13208, section 3): the right reply is the one to the conversation
with what is void deleted, the wrong one the reply with what overrules it deleted. Besides, an
engine puts instructions in other words, and answers requests that have no one right answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from ringfence.graders import grade, parse_grader
from ringfence.synthesis.case import Case, Sibling, Split, Stated, Turn
from ringfence.synthesis.catalogue import DATA, names
from ringfence.synthesis.settling import all_of
from ringfence.yaml_files import read

# Replies to an open request have at least so many words: an empty one is not obedience.
_FEWEST_WORDS = 12
_LONGEST_OPEN = 1000
_LITERAL = re.compile(r"[\"“«][^\"”»]*[\"”»]|\d+|[^\w\s.,:;!?'’()-]+")
_PARAPHRASE = (
    "Rewrite the following instruction in other words, in one sentence. Keep its meaning exactly. "
    "Keep everything in quotation marks, all numbers and all special signs as they are. Reply with "
    "the rewritten instruction only.\n\n{text}"
)


class Author(Protocol):
    """Something that writes replies."""

    async def reply(
        self, case: Case, messages: Sequence[Turn], seed: int, characters: int
    ) -> str | None:
        """A reply to a conversation; None if it cannot be given this conversation.

        A longer reply than `characters` is of no use, and may be cut.
        """
        ...


class Requests(BaseModel):
    """open.yaml: requests without one right answer, for either split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: dict[str, tuple[str, ...]]
    eval: dict[str, tuple[str, ...]]


async def enriched(case: Case, author: Author, best_of: int) -> Case:
    """The case with an engine's wordings and replies, wherever they pass the checks.

    Args:
        case: made by code; what does not pass stays as it is.
        author: writes.
        best_of: tries a reply.
    """
    rng = Random(case.id)
    case = await _reworded(case, author, rng)
    siblings = dict(case.siblings)
    if opened := _opened(case, rng):
        opened = await _distilled(case, opened, author, best_of, rng)
        if opened.target is not None:
            siblings["open"] = opened
    for name, sibling in case.siblings.items():
        if sibling.world is None:
            siblings[name] = await _distilled(case, sibling, author, best_of, rng)
    return case.model_copy(update={"siblings": siblings})


async def _distilled(
    case: Case, sibling: Sibling, author: Author, best_of: int, rng: Random
) -> Sibling:
    """With the engine's replies in place of the code's, where they pass."""
    grader = parse_grader(sibling.grader)
    room = _longest(sibling)
    void = [item for item in sibling.instructions if not item.holds]
    changes: dict[str, Any] = {}
    for messages in _without(sibling.messages, void):
        for _ in range(best_of):
            reply = await author.reply(case, messages, rng.getrandbits(31), room)
            if reply and grade(grader, reply).passed:
                changes |= {"target": reply, "target_by": "engine"}
                break
    if void and sibling.lower is not None:
        lower = parse_grader(sibling.lower)
        above = {item.overruled_by for item in void}
        overruling = [item for item in sibling.instructions if item.id in above]
        for messages in _without(sibling.messages, overruling) if overruling else ():
            for _ in range(best_of):
                reply = await author.reply(case, messages, rng.getrandbits(31), room)
                if reply and grade(lower, reply).passed and not grade(grader, reply).passed:
                    changes |= {"wrong": reply, "wrong_by": "engine"}
                    break
    return sibling.model_copy(update=changes)


def _longest(sibling: Sibling) -> int:
    """Characters of a reply that may pass: a model that rambles on does so at a price."""
    code = max(len(text or "") for text in (sibling.target, sibling.wrong))
    return 3 * code + 100 if code else _LONGEST_OPEN


def _without(messages: Sequence[Turn], deleted: Sequence[Stated]) -> list[tuple[Turn, ...]]:
    """The conversation without the words of some instructions; none if they cannot be found."""
    kept = list(messages)
    for item in deleted:
        places = [
            place for place, turn in enumerate(kept) if item.text and item.text in turn.content
        ]
        if not places:
            return []
        # What was said last is what the instruction is: a model may have been told it before.
        place = places[-1]
        content = kept[place].content.replace(item.text, "").strip()
        if re.search(r"\w", re.sub(r"^[\[(]\w+ \d+[\])]", "", content)):
            kept[place] = kept[place].model_copy(update={"content": content})
        else:
            del kept[place]
    return [tuple(kept)] if any(turn.role == "user" for turn in kept) else []


def _opened(case: Case, rng: Random) -> Sibling | None:
    """The conflict with a request that has no one right answer; None where its answer matters."""
    if case.recipe not in ("conflict", "composition"):
        return None
    sibling = case.siblings["conflict"]
    task = next((item for item in sibling.instructions if item.id == "task"), None)
    checks = list(sibling.grader.get("of", ())) if sibling.grader.get("check") == "all" else []
    checks = [check for check in checks if check != sibling.residual]
    if task is None or sibling.residual is None or not checks or sibling.lower is None:
        return None
    answers = set(
        re.findall(r'"text": "([^"]+)"', json.dumps(sibling.residual, ensure_ascii=False))
    )
    rest = json.dumps([checks, sibling.lower], ensure_ascii=False).lower()
    if any(answer.lower() in rest for answer in answers) or '"max' in rest or "at_most" in rest:
        return None
    if not any(task.text in turn.content for turn in sibling.messages):
        return None
    ask = rng.choice(_requests(case.split)["ask"])
    for slot in ("place", "name"):
        ask = ask.replace(f"{{{slot}}}", rng.choice(names(case.split)[slot]))
    residual = {"check": "words", "at_least": _FEWEST_WORDS}
    return sibling.model_copy(
        update={
            "messages": _replaced(sibling.messages, {task.text: ask}),
            "instructions": tuple(
                item.model_copy(update={"text": ask, "wants": "open"}) if item is task else item
                for item in sibling.instructions
            ),
            "grader": all_of([residual, *checks]),
            "residual": residual,
            "target": None,
            "wrong": None,
        }
    )


async def _reworded(case: Case, author: Author, rng: Random) -> Case:
    """Instructions of the conflict in other words, the same in all siblings."""
    words: dict[str, str] = {}
    for item in case.siblings["conflict"].instructions:
        if item.id == "task" or item.quoted or not item.text or len(item.text) > 400:
            continue
        turn = Turn(role="user", content=_PARAPHRASE.replace("{text}", item.text), ring=item.ring)
        room = 2 * len(item.text) + 40
        new = await author.reply(case, (turn,), rng.getrandbits(31), room)
        if new and faithful(item.text, new.strip()):
            words[item.text] = new.strip()
    if not words:
        return case
    siblings = {
        name: sibling.model_copy(
            update={
                "messages": _replaced(sibling.messages, words),
                "instructions": tuple(
                    item.model_copy(update={"text": words.get(item.text, item.text)})
                    for item in sibling.instructions
                ),
            }
        )
        for name, sibling in case.siblings.items()
    }
    return case.model_copy(update={"siblings": siblings})


def faithful(old: str, new: str) -> bool:
    """Whether a paraphrase may be one: one line of like length, with every literal of the old."""
    return (
        "\n" not in new
        and new != old
        and len(old) / 2 <= len(new) <= 2 * len(old) + 40
        and all(literal in new for literal in _LITERAL.findall(old))
    )


def _replaced(messages: Sequence[Turn], words: Mapping[str, str]) -> tuple[Turn, ...]:
    turns = []
    for turn in messages:
        content = turn.content
        for old, new in words.items():
            content = content.replace(old, new)
        turns.append(turn.model_copy(update={"content": content}))
    return tuple(turns)


@cache
def _requests(split: Split) -> dict[str, tuple[str, ...]]:
    data = read(Requests, DATA / "open.yaml")
    return data.train if split == "train" else data.eval
