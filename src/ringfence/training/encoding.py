"""Examples → token ids, ring ids and what is learnt, by `ringfence.rendering`. Knows no torch.

What cannot be trained on as it is written is dropped, and counted by its reason: nothing is cut
short, since half a reply teaches to stop in the middle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ringfence.engine import EngineCard
from ringfence.engines.descriptions import Description
from ringfence.errors import InputError, RenderingError
from ringfence.judges import judging_turn
from ringfence.rendering import Rendering, render
from ringfence.rings import Conversation, Policy
from ringfence.training.learnt import (
    DECISION,
    VERDICT,
    Learnt,
    begins_like,
    cut_after_reply,
    joined,
    learnt_of,
    prompt_of,
)
from ringfence.training.signal_rings import SignalRings
from ringfence.training.sources import Example

Json = dict[str, Any]
# Reasons that are remembered with an example each, and how long that may be.
_SHOWN, _LONGEST = 5, 300


@dataclass(slots=True)
class Dropped:
    """What was left out, and why.

    Attributes:
        reasons: counts.
        shown: the first few of every reason, in words.
    """

    reasons: Counter[str] = field(default_factory=Counter)
    shown: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: Example, words: str) -> None:
        """Count one."""
        self.reasons[reason] += 1
        shown = self.shown.setdefault(reason, [])
        if len(shown) < _SHOWN:
            shown.append(f"{example.data}, line {example.line} ({example.id}): {words}"[:_LONGEST])

    def described(self) -> Json:
        """For the manifest."""
        return {
            "count": sum(self.reasons.values()),
            "reasons": dict(sorted(self.reasons.items())),
            "examples": {reason: self.shown[reason] for reason in sorted(self.shown)},
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """Renders examples for one model.

    Attributes:
        card: of the model: its template and tokenizer.
        policies: what a source's manifest says of policies, by data name.
        length: most tokens of an example.
        signal: the rings of a ring signal; None leaves levels as the policies have them.
    """

    card: EngineCard
    policies: Mapping[str, Policy]
    length: int
    signal: SignalRings | None = None
    _closings: dict[tuple[str, ...], Learnt] = field(default_factory=dict, init=False, repr=False)

    def supervised(
        self, example: Example, replies: Literal["all", "last"], dropped: Dropped
    ) -> tuple[Learnt, ...]:
        """What is to be learnt of a conversation; nothing where it is dropped.

        Of a synthesised case the last reply is learnt, whatever `replies` says: only that is
        checked. A judged line whose reply is a target gives two where the template writes that
        reply otherwise as soon as a judge's question comes after it.
        """
        if example.verdict:
            found = self._judged(example, dropped)
        else:
            last = bool(example.recipe) or replies == "last"
            found = self._replied(example, example.rings, 1 if last else None, dropped)
        signalled = [self._signalled(learnt, example) for learnt in found]
        return tuple(learnt for learnt in signalled if self._fits(learnt, example, dropped))

    def preference(self, example: Example, dropped: Dropped) -> tuple[Learnt, Learnt] | None:
        """The chosen and the rejected conversation; None where the pair is dropped."""
        renderings: list[Rendering] = []
        ring = example.reply_ring
        for replies in (example.chosen, example.rejected):
            rings = None
            if example.rings is not None:
                policy = self._policy(example)
                own = [ring or policy.ring_of("assistant").name] * len(replies)
                rings = (*example.rings, *own)
            messages = (*example.messages, *replies)
            rendering = self._rendered(example, messages, rings, dropped)
            if rendering is None:
                return None
            renderings.append(rendering)
        # Where they begin differently, that is learnt as well: gpt-oss's calls and answers.
        for whole in (False, True):
            chosen, rejected = (
                self._signalled(cut_after_reply(learnt_of(one, 1, whole=whole)), example)
                for one in renderings
            )
            if not all(self._fits(one, example, dropped) for one in (chosen, rejected)):
                return None
            if prompt_of(chosen) == prompt_of(rejected):
                break
        else:
            dropped.add("two prompts", example, "the template writes the prompts differently")
            return None
        if chosen.ids == rejected.ids:
            dropped.add("equal replies", example, "chosen and rejected are the same tokens")
            return None
        return chosen, rejected

    def _replied(
        self,
        example: Example,
        rings: tuple[str, ...] | None,
        count: int | None,
        dropped: Dropped,
    ) -> list[Learnt]:
        """The last so many replies of a conversation; None takes all."""
        rendering = self._rendered(example, example.messages, rings, dropped)
        if rendering is None:
            return []
        if not rendering.replies:
            dropped.add("no reply", example, "no message of the assistant")
            return []
        learnt = learnt_of(rendering, count)
        return [self._decided(learnt, rendering, example) if example.decisions else learnt]

    def _judged(self, example: Example, dropped: Dropped) -> list[Learnt]:
        """A verdict, and the reply that it is on where that is a target.

        The verdict follows the very tokens in which a judge asks for it: a template may write more
        before a reply that it is given than before one that is to come.
        """
        *before, said, question, verdict = example.messages
        asked = self._asked(example, before, said, question, dropped)
        if asked is None:
            return []
        closing = self._closing(example, question, verdict, dropped)
        if closing is None:
            return []
        judged = joined(learnt_of(asked, 0), closing)
        if not example.target:
            return [judged]
        alone = replace(example, messages=(*before, said), decisions=())
        own = self._policy(example).ring_of("assistant").name
        rings = None if example.rings is None else (*example.rings, own)
        replied = self._replied(alone, rings, 1, dropped)
        together = joined(learnt_of(asked, 1), closing)
        if replied and begins_like(together, replied[0]):
            return [together]
        return [*replied, judged]

    def _asked(
        self,
        example: Example,
        before: Sequence[Json],
        said: Json,
        question: Json,
        dropped: Dropped,
    ) -> Rendering | None:
        """A judge's question about a reply, up to where the judge answers."""
        conversation = self._conversation(example, before, example.rings)
        try:
            turn = judging_turn(conversation, said["content"], question["content"])
        except InputError as error:
            raise InputError(f"{example.data}, line {example.line}: {error}") from None
        return self._tried(example, turn, dropped, generate=True)

    def _closing(
        self, example: Example, question: Json, verdict: Json, dropped: Dropped
    ) -> Learnt | None:
        """A verdict's label, and how the template ends the turn that says it."""
        key = (example.data, example.policy, question["content"], verdict["content"])
        if key not in self._closings:
            conversation = self._conversation(example, (question, verdict), None)
            rendering = self._tried(example, conversation, dropped)
            if rendering is None:
                return None
            reply = rendering.replies[-1]
            start = next(span.start for span in rendering.spans if span.message == reply.message)
            mask = [VERDICT] * (reply.stop - start) + [0] * (len(rendering.tokens) - reply.stop)
            self._closings[key] = Learnt(
                ids=rendering.tokens[start:], rings=rendering.rings[start:], mask=tuple(mask)
            )
        return self._closings[key]

    def _rendered(
        self,
        example: Example,
        messages: Iterable[Mapping[str, Any]],
        rings: tuple[str, ...] | None,
        dropped: Dropped,
    ) -> Rendering | None:
        return self._tried(example, self._conversation(example, messages, rings), dropped)

    def _conversation(
        self,
        example: Example,
        messages: Iterable[Mapping[str, Any]],
        rings: tuple[str, ...] | None,
    ) -> Conversation:
        try:
            return Conversation.of(
                messages, self._policy(example), rings, list(example.tools) or None
            )
        except InputError as error:
            raise InputError(f"{example.data}, line {example.line}: {error}") from None

    def _tried(
        self,
        example: Example,
        conversation: Conversation,
        dropped: Dropped,
        *,
        generate: bool = False,
    ) -> Rendering | None:
        try:
            return render(conversation, self.card, generate=generate)
        except RenderingError as error:
            dropped.add(_template_reason(str(error)), example, str(error))
            return None

    def _signalled(self, learnt: Learnt, example: Example) -> Learnt:
        """With the levels of the ring signal, where there is one."""
        if self.signal is None:
            return learnt
        try:
            return replace(learnt, rings=self.signal.of(self._policy(example), learnt.rings))
        except InputError as error:
            raise InputError(f"{example.data}, line {example.line}: {error}") from None

    def _decided(self, learnt: Learnt, rendering: Rendering, example: Example) -> Learnt:
        """With the tokens marked in which the last reply's decisions fall."""
        mask, text = list(learnt.mask), str(example.messages[-1].get("content") or "")
        stop = rendering.replies[-1].stop
        places = self._places(rendering, text)
        characters = [character for character, _ in places]
        for character in example.decisions:
            place = max(bisect_right(characters, min(character, len(text))) - 1, 0)
            mask[min(places[place][1], stop - 1)] = DECISION
        return replace(learnt, mask=tuple(mask))

    def _places(self, rendering: Rendering, text: str) -> list[tuple[int, int]]:
        """Where tokens of the last reply begin in its text: (character, token), and behind it.

        Tokens that the template wrote into the reply's turn are left out, such as a block of
        reasoning.
        """
        reply, decode = rendering.replies[-1], self.card.tokenizer.decode
        places: list[tuple[int, int]] = []
        at = 0
        for span in rendering.spans if text else ():
            if span.message != reply.message or not reply.start <= span.start < reply.stop:
                continue
            tokens = rendering.tokens[span.start : span.stop]
            said = decode(tokens)
            begin = text.find(said, at)
            if begin < 0 and places:
                continue  # of a call
            begin = max(begin, at)
            places += [
                (begin + len(decode(tokens[:count])), span.start + count)
                for count in range(len(tokens) + 1)
            ]
            at = begin + len(said)
        return places or [(0, reply.first)]

    def _policy(self, example: Example) -> Policy:
        found = self.policies.get(example.data)
        if found is not None and found.name == example.policy:
            return found
        return Policy.preset(example.policy)

    def _fits(self, learnt: Learnt, example: Example, dropped: Dropped) -> bool:
        if len(learnt.ids) > self.length:
            dropped.add("too long", example, f"{len(learnt.ids)} tokens, at most {self.length}")
            return False
        if not any(learnt.mask[1:]):
            dropped.add("nothing to learn", example, "the replies are empty")
            return False
        return True


def card_of(description: Description) -> EngineCard:
    """What rendering needs to know of a model that no engine runs."""
    return EngineCard(
        name=description.name,
        tokenizer=description.tokenizer,
        template=description.template,
        bos=description.bos,
        eos=description.eos,
        ends=description.ends,
        context=description.context or 2**31,
        slots=1,
    )


def policy_of(data: Mapping[str, Any]) -> Policy:
    """A policy as a job of synthesis describes it.

    Raises:
        InputError: it describes none.
    """
    try:
        return Policy.of(
            str(data["name"]),
            [str(name) for name in data["rings"]],
            {str(role): str(ring) for role, ring in data["roles"].items()},
            supersession=bool(data["supersession"]),
            delegation=bool(data["delegation"]),
            silent=[str(name) for name in data["silent"]],
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"manifest: job.policy: describes no policy ({error})") from None


def _template_reason(words: str) -> str:
    for mark, reason in (
        ("drops a tool call", "template drops tool calls"),
        ("tools:", "template drops tools"),
        ("drops", "template drops a message"),
    ):
        if mark in words:
            return reason
    return "template"
