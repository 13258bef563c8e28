"""Judges: the value of a draft, and the frozen model as its own judge.

A principle says what to look for, as data (`principles/*.yaml` or any file); `SelfJudge` asks the
model about it by the probabilities of the answer's labels, never by what it writes. Source: RAIN
(arXiv 2309.07124), section 3.2, with a margin in place of a vote. Knows nothing of search.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from ringfence.concurrency import together
from ringfence.engine import Engine, Sampling, Scores, Tokens
from ringfence.errors import JudgeError
from ringfence.principle import Principle, letter
from ringfence.rendering import Rendering, render, transcript
from ringfence.rings import Conversation, Message
from ringfence.written_calls import written


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """A judge's opinion of one draft.

    Attributes:
        value: in [-1, 1]; 1 is what the principle asks for.
        reason: the options with their shares, in words.
        shares: probability of each option, in the principle's order; sums to 1.
        flipped: the answer changed when the options were swapped; None without a swap.
        fed: tokens processed for this verdict after cache hits.
        requests: requests made.
    """

    value: float
    reason: str
    shares: tuple[float, ...] = ()
    flipped: bool | None = None
    fed: int = 0
    requests: int = 0


class Judge(Protocol):
    """Gives every draft a value. Memoryless; may be called concurrently."""

    @property
    def name(self) -> str:
        """What people call it, for logs."""
        ...

    @property
    def threshold(self) -> float:
        """Drafts of at least this value are acceptable."""
        ...

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        """A verdict for each reply (text so far) to one prompt.

        Raises:
            EngineError: the engine behind the judge cannot answer.
        """
        ...


# Fewer tokens of fixed text than this are not worth a request of their own.
_WORTH_WARMING = 32
# Log-probabilities in a baseline are at least this, so that no difference is undefined.
_LEAST = -100.0


class SelfJudge:
    """The engine's own model judges by the probabilities it gives to the labels.

    Open it with `SelfJudge.open`, which resolves the labels for the model's tokenizer.
    """

    def __init__(self, engine: Engine, principle: Principle, labels: tuple[Tokens, ...]) -> None:
        """Use `open` instead; `labels` are the tokens of the labels."""
        self.principle = principle
        self._engine = engine
        self._labels = labels
        self._baseline: dict[tuple[int, ...], list[float]] = {}

    @classmethod
    async def open(cls, engine: Engine, principle: Principle) -> SelfJudge:
        """Resolve labels, process the fixed text once, and measure the neutral baseline.

        Raises:
            JudgeError: two labels begin with the same token for this tokenizer.
            RenderingError: the chat form on a model without a chat template.
        """
        judge = cls(engine, principle, _label_tokens(engine, principle))
        await judge._warm()
        for order in judge._orders() if principle.neutral else ():
            asked = [judge._prompt(text, order) for text in principle.neutral]
            answers = await together(judge._ask(tokens) for tokens in asked)
            rows = [judge._by_option(scores.logprobs, order) for scores in answers]
            # A label that is impossible after a neutral text has no baseline to divide by.
            judge._baseline[order] = [
                max(sum(column) / len(rows), _LEAST) for column in zip(*rows, strict=True)
            ]
        return judge

    @property
    def name(self) -> str:
        """Engine and principle."""
        return f"self:{self.principle.name}"

    @property
    def threshold(self) -> float:
        """Of the principle."""
        return self.principle.threshold

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        """See `Judge.judge`. All replies and orders are asked side by side."""
        orders = self._orders()
        # Templates take their time on long conversations, and others wait.
        asked = await asyncio.to_thread(
            lambda: [self._asked(prompt, reply, order) for reply in replies for order in orders]
        )
        answers = await together(self._ask(tokens) for tokens in asked)
        rows = [answers[i : i + len(orders)] for i in range(0, len(answers), len(orders))]
        return [self._verdict(row) for row in rows]

    async def _warm(self) -> None:
        """Process the fixed text once for all: engines that keep a cache a slot copy it to each."""
        tokenizer = self._engine.card.tokenizer
        fixed = tokenizer.start + tokenizer.encode(self.principle.fixed())
        if self.principle.form == "continuation" and len(fixed) >= _WORTH_WARMING:
            # One draft a slot, which greedy drafts would not be: engines ask for those only once.
            sampling = Sampling(top_k=1, seed=0)
            await self._engine.draft(fixed, min(self._engine.card.slots, 10), 1, sampling)

    def _orders(self) -> list[tuple[int, ...]]:
        forward = tuple(range(len(self.principle.options)))
        return [forward, forward[::-1]] if self.principle.swap else [forward]

    def _shown(self, prompt: Rendering, reply: str) -> str:
        """What the principle shows of the conversation.

        No line of it is begun by a writer: text can neither pose as another message nor as the
        judge's own words, which begin lines of their own.
        """
        conversation = prompt.conversation
        if conversation is None:
            return _on_one_line(prompt.text + reply)
        if self.principle.shows == "reply":
            return _on_one_line(reply)
        rings = self.principle.shows == "rings"
        messages = [
            replace(message, content=_indented(_said(message))) for message in conversation.messages
        ]
        shown = f"{transcript(messages, rings=rings)}\n\nAssistant: {_indented(reply)}"
        if not conversation.tools:
            return shown
        tools = "\n  ".join(json.dumps(tool, ensure_ascii=False) for tool in conversation.tools)
        return f"Tools: {tools}\n\n{shown}"

    async def _ask(self, prompt: Tokens) -> Scores:
        return await self._engine.logprobs(prompt, self._labels)

    def _asked(self, prompt: Rendering, reply: str, order: tuple[int, ...]) -> Tokens:
        if self.principle.form == "turn":
            return self._turn(prompt, reply, order)
        return self._prompt(self._shown(prompt, reply), order)

    def _turn(self, prompt: Rendering, reply: str, order: tuple[int, ...]) -> Tokens:
        """The conversation, the reply so far, and the question as the next turn."""
        if prompt.conversation is None:
            raise JudgeError(
                f"principle {self.principle.name} asks within a conversation, and this prompt is "
                "raw text. Give messages, or take a principle of another form."
            )
        asked = judging_turn(prompt.conversation, reply, self.principle.asked(order)[0])
        card = self._engine.card
        return render(asked, card).tokens + card.tokenizer.encode(self.principle.answer)

    def _prompt(self, shown: str, order: tuple[int, ...]) -> Tokens:
        principle, card = self.principle, self._engine.card
        before, after = principle.asked(order)
        if principle.form == "continuation":
            # Encoded piece by piece, so that the fixed text has the same tokens whatever follows.
            encode = card.tokenizer.encode
            fixed = card.tokenizer.start + encode(principle.fixed(order))
            return fixed + encode(shown) + encode(after + principle.answer)
        messages: list[dict[str, Any]] = [{"role": "user", "content": before + shown + after}]
        if principle.instruction:
            messages.insert(0, {"role": "system", "content": principle.instruction})
        rendering = render(Conversation.of(messages), card)
        return rendering.tokens + card.tokenizer.encode(principle.answer)

    def _by_option(self, logprobs: Sequence[float], order: tuple[int, ...]) -> list[float]:
        """Log-probability of every option in the principle's order."""
        if not self.principle.letters:
            return list(logprobs)
        return [logprobs[order.index(option)] for option in range(len(order))]

    def _verdict(self, answers: Sequence[Scores]) -> Verdict:
        options = self.principle.options
        rows, picks = [], []
        for scores, order in zip(answers, self._orders(), strict=True):
            masses = self._by_option(scores.logprobs, order)
            baseline = self._baseline.get(order, [0.0] * len(options))
            fair = [mass - base for mass, base in zip(masses, baseline, strict=True)]
            rows.append(_normalised([self.principle.sharpness * mass for mass in fair]))
            picks.append(max(range(len(options)), key=rows[-1].__getitem__))
        shares = tuple(sum(column) / len(rows) for column in zip(*rows, strict=True))
        if self.principle.votes == "hard":
            value = sum(options[pick].value for pick in picks) / len(picks)
        else:
            value = sum(s * option.value for s, option in zip(shares, options, strict=True))
        return Verdict(
            value=max(-1.0, min(1.0, value)),
            reason=", ".join(f"{o.label} {s:.0%}" for o, s in zip(options, shares, strict=True)),
            shares=shares,
            flipped=len(set(picks)) > 1 if len(picks) > 1 else None,
            fed=sum(scores.fed for scores in answers),
            requests=sum(scores.requests for scores in answers),
        )


def judging_turn(conversation: Conversation, reply: str, question: str) -> Conversation:
    """The conversation with a reply and, from the ring above all others, a question about it.

    The question has the user's role, since templates know no other after a reply.

    Raises:
        InputError: the policy has no assistant.
    """
    policy = conversation.policy
    # Templates drop a message without text, and reasoning of an earlier turn: but all of a reply is
    # committed and shown, so all of it is judged.
    ring = policy.ring_of("assistant")
    said = Message(role="assistant", ring=ring, content=reply or "…", verbatim=True)
    asked = Message(role="user", ring=policy.rings[0], content=question)
    return replace(conversation, messages=(*conversation.messages, said, asked))


def _label_tokens(engine: Engine, principle: Principle) -> tuple[Tokens, ...]:
    """The first token of every label, as it would follow the words before it.

    One token a label and no variants: every token outside the engine's list of likely ones costs a
    request of its own.

    Raises:
        JudgeError: two labels begin with the same token.
    """
    encode = engine.card.tokenizer.encode
    words = (
        [letter(place) for place in range(len(principle.options))]
        if principle.letters
        else [option.label for option in principle.options]
    )
    gap = " " if principle.spaced else ""
    firsts = [encode(gap + word)[:1] for word in words]
    for i, one in enumerate(firsts):
        for j in range(i):
            if one == firsts[j]:
                raise JudgeError(
                    f"principle {principle.name}: the labels {words[j]!r} and {words[i]!r} begin "
                    f"with the same token for {engine.card.name}, so the judge could not tell them "
                    "apart. Choose labels that differ from their first letters on."
                )
    return tuple(firsts)


def _said(message: Message) -> str:
    """The text of a message and the calls that it makes."""
    calls = [{"name": call.name, "arguments": call.arguments} for call in message.tool_calls]
    return written(message.content, calls)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _indented(text: str) -> str:
    return "\n  ".join(text.splitlines())


def _logsumexp(values: Sequence[float]) -> float:
    top = max(values)
    if top == -math.inf:
        return top
    return top + math.log(sum(math.exp(value - top) for value in values))


def _normalised(masses: Sequence[float]) -> tuple[float, ...]:
    """Log-masses → shares that sum to 1; equal shares where no label has any mass."""
    total = _logsumexp(masses)
    if total == -math.inf:
        return tuple(1 / len(masses) for _ in masses)
    return tuple(math.exp(mass - total) for mass in masses)
