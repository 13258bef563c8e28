"""Preferences from a model's own failures: what it says, what its graders say of that.

Chosen is a reply of its own that passes, or the target of synthesis; rejected is one of its own
that fails. What is thought before is neither graded nor kept. Knows nothing of terminals, and of
engines only how to draft.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import AsyncGenerator
from contextlib import closing
from dataclasses import dataclass
from random import Random
from typing import Any

from ringfence.engine import Engine, Sampling
from ringfence.errors import ContextError, InputError, RenderingError
from ringfence.graders import grade, parse_grader
from ringfence.rendering import answer, render
from ringfence.rings import Conversation, Policy
from ringfence.synthesis.case import Case, Sibling, Turn
from ringfence.synthesis.targets import preference, reply_of
from ringfence.training.pairs_folder import Folder

Json = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """How replies are drawn and how many.

    Attributes:
        samples: replies to every conversation.
        tokens: longest reply, with what is thought before; one that is cut off there is not used.
        temperature: of the draws.
        seed: of the draws.
    """

    samples: int = 4
    tokens: int = 256
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what draws nothing.

        Raises:
            InputError: a number below 1, or a temperature of 0 with several samples.
        """
        if self.samples < 1 or self.tokens < 1:
            raise InputError("--samples and --max-tokens: must be at least 1")
        if self.temperature <= 0 and self.samples > 1:
            raise InputError("--temperature 0: all samples would be equal; use --samples 1")


async def pairs(
    engine: Engine, folder: Folder, sampled: Sampled, finished: int, *, concurrency: int
) -> AsyncGenerator[int, None]:
    """Do the cases that are left, some side by side; yields how many are safe.

    Raises:
        EngineError: the engine cannot answer; cases before are safe.
        InputError: the model thinks in a form that its template does not tell from replies.
    """
    cases = folder.cases()
    for _ in range(finished):
        next(cases, None)
    flying: deque[asyncio.Task[Json]] = deque()
    with closing(folder):
        try:
            number = finished
            while True:
                while len(flying) < concurrency and (case := next(cases, None)) is not None:
                    task = _of_case(engine, case, folder.policy, sampled)
                    flying.append(asyncio.create_task(task))
                if not flying:
                    break
                folder.append(await flying.popleft())
                number += 1
                yield number
        finally:
            for task_left in flying:
                task_left.cancel()
            await asyncio.gather(*flying, return_exceptions=True)
        folder.finish()


async def _of_case(engine: Engine, case: Case, policy: Policy, sampled: Sampled) -> Json:
    counts: Counter[str] = Counter()
    made = []
    for name in case.siblings:
        pair = await _of_sibling(engine, case, name, policy, sampled, counts)
        if pair is not None:
            made.append(pair)
        counts["conversations"] += 1
    return {"case": case.id, "pairs": made, "counts": dict(counts)}


async def _of_sibling(
    engine: Engine,
    case: Case,
    name: str,
    policy: Policy,
    sampled: Sampled,
    counts: Counter[str],
) -> Json | None:
    sibling = case.siblings[name]
    if sibling.target is None or sibling.world is not None:
        counts["left out: no target, or one that calls tools"] += 1
        return None
    replies = await _replies(engine, case, name, policy, sampled)
    if replies is None:
        counts["left out: the template or the window does not take it"] += 1
        return None
    counts["replies"] += sampled.samples
    counts["replies cut off"] += sampled.samples - len(replies)
    grader = parse_grader(sibling.grader)
    verdicts = [(reply, grade(grader, reply)) for reply in replies]
    right = [reply for reply, verdict in verdicts if verdict.passed]
    wrong = [reply for reply, verdict in verdicts if verdict.decided and not verdict.passed]
    counts["replies right"] += len(right)
    counts["replies wrong"] += len(wrong)
    if not wrong:
        counts["left out: no failure" if replies else "left out: no whole reply"] += 1
        return None
    rejected = _worst(sibling, wrong)
    chosen = right[0] if right else sibling.target
    counts["chosen: own" if right else "chosen: target"] += 1
    line = preference(
        case,
        name,
        reply_of(chosen, () if right else sibling.target_calls),
        reply_of(rejected),
    )
    return {
        **line,
        "split": "train",
        "chosen_by": "model" if right else sibling.target_by,
        "rejected_by": "model",
    }


def _worst(sibling: Sibling, wrong: list[str]) -> str:
    """The first failure that obeys what is void, else the first."""
    if sibling.lower is not None:
        lower = parse_grader(sibling.lower)
        for reply in wrong:
            if grade(lower, reply).passed:
                return reply
    return wrong[0]


async def _replies(
    engine: Engine, case: Case, name: str, policy: Policy, sampled: Sampled
) -> list[str] | None:
    """Whole replies, drawn with a seed of their own; None if the model cannot be asked.

    Raises:
        InputError: the model thinks in a form that its template does not tell from replies.
    """
    messages = case.siblings[name].messages
    rings = [turn.ring for turn in messages]
    own = policy if policy.name == case.policy else _made_of(case, messages)
    turns = [turn.model_dump(exclude_defaults=True) for turn in messages]
    try:
        conversation = Conversation.of(turns, own, rings, list(case.siblings[name].tools) or None)
        prompt = render(conversation, engine.card)
    except RenderingError:
        return None
    sampling = Sampling(
        temperature=sampled.temperature,
        seed=Random(f"{sampled.seed}:{case.id}/{name}").getrandbits(31),
    )
    try:
        drafts = await engine.draft(prompt.tokens, sampled.samples, sampled.tokens, sampling)
    except ContextError:
        return None
    # Without their thoughts. The case's target has none, and beside it DPO would learn from a
    # thought in the rejected reply not to think; so both are rendered as replies without thoughts
    # are, and DPO learns which answer to give.
    decode = engine.card.tokenizer.decode
    said = [answer(decode(draft.tokens), engine.card) for draft in drafts if draft.finished]
    return [reply.strip() for reply in said if reply is not None]


def _made_of(case: Case, messages: tuple[Turn, ...]) -> Policy:
    """A policy with the case's rings, where its name is not that of the data."""
    roles = {turn.role: turn.ring for turn in messages}
    return Policy.of(case.policy, case.rings, {"assistant": case.reply_ring} | roles)
