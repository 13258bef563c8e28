"""Examples → token ids, ring ids and what is learnt, by `ringfence.rendering`. Knows no torch.

What cannot be trained on as it is written is dropped, and counted by its reason: nothing is cut
short, since half a reply teaches to stop in the middle.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ringfence.engine import EngineCard
from ringfence.engines.descriptions import Description
from ringfence.errors import InputError, RenderingError
from ringfence.rendering import Rendering, render
from ringfence.rings import Conversation, Policy
from ringfence.training.signal_rings import SignalRings
from ringfence.training.sources import Example

Json = dict[str, Any]
# What a token with a loss is a part of.
REPLY, VERDICT, DECISION = 1, 2, 3
# Reasons that are remembered with an example each, and how long that may be.
_SHOWN, _LONGEST = 5, 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """Tokens, the ring of each, and which have a loss.

    Attributes:
        ids: token ids.
        rings: levels, -1 for the template's own tokens; as long as `ids`. Of the ring signal where
            there is one, else of the example's policy.
        mask: REPLY where the model has to write the token, VERDICT where that is a judge's
            verdict, DECISION where a reply parts from a wrong one, else 0; as long as `ids`.
    """

    ids: tuple[int, ...]
    rings: tuple[int, ...]
    mask: tuple[int, ...]


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

    def supervised(
        self, example: Example, replies: Literal["all", "last"], dropped: Dropped
    ) -> Learnt | None:
        """A conversation to be learnt from; None where it is dropped.

        Of a synthesised case the last reply is learnt, whatever `replies` says: only that is
        checked.
        """
        rings = example.rings
        if example.verdict and rings is not None:
            policy = self._policy(example)
            own = policy.ring_of("assistant").name
            rings = (*rings, own, policy.rings[0].name, own)
        rendering = self._rendered(example, example.messages, rings, dropped)
        if rendering is None:
            return None
        if not rendering.replies:
            dropped.add("no reply", example, "no message of the assistant")
            return None
        last = example.verdict or bool(example.recipe) or replies == "last"
        count = 2 if example.target else 1 if last else None
        marked = _learnt(rendering, count, verdict=example.verdict)
        if example.decisions and not example.verdict:
            marked = self._decided(marked, rendering, example)
        learnt = self._signalled(marked, example)
        return learnt if self._fits(learnt, example, dropped) else None

    def preference(self, example: Example, dropped: Dropped) -> tuple[Learnt, Learnt] | None:
        """The chosen and the rejected conversation; None where the pair is dropped."""
        both: list[Learnt] = []
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
            learnt = self._signalled(_cut_after_reply(_learnt(rendering, 1)), example)
            if not self._fits(learnt, example, dropped):
                return None
            both.append(learnt)
        chosen, rejected = both
        if _prompt(chosen) != _prompt(rejected):
            dropped.add("two prompts", example, "the template writes the prompts differently")
            return None
        if chosen.ids == rejected.ids:
            dropped.add("equal replies", example, "chosen and rejected are the same tokens")
            return None
        return chosen, rejected

    def _rendered(
        self,
        example: Example,
        messages: Iterable[Mapping[str, Any]],
        rings: tuple[str, ...] | None,
        dropped: Dropped,
    ) -> Rendering | None:
        try:
            conversation = Conversation.of(
                messages, self._policy(example), rings, list(example.tools) or None
            )
        except InputError as error:
            raise InputError(f"{example.data}, line {example.line}: {error}") from None
        if example.verdict:
            conversation = _as_judged(conversation)
        try:
            return render(conversation, self.card, generate=False)
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
        reply = rendering.replies[-1]
        mask, text = list(learnt.mask), str(example.messages[-1].get("content") or "")
        # How many characters stand before every token of the reply; behind them its end.
        tokenizer = self.card.tokenizer
        tokens = rendering.tokens[reply.start : reply.stop]
        before = [len(tokenizer.decode(tokens[:count])) for count in range(len(tokens) + 1)]
        for character in example.decisions:
            place = bisect_right(before, min(character, len(text))) - 1
            mask[min(reply.start + place, reply.stop - 1)] = DECISION
        return replace(learnt, mask=tuple(mask))

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


def _as_judged(conversation: Conversation) -> Conversation:
    """With the reply and the question as `judges.judging_turn` puts them: whole, and above all."""
    *before, said, asked, verdict = conversation.messages
    said = replace(said, verbatim=True)
    asked = replace(asked, ring=conversation.policy.rings[0])
    return replace(conversation, messages=(*before, said, asked, verdict))


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


def _learnt(rendering: Rendering, replies: int | None, *, verdict: bool = False) -> Learnt:
    """The last so many replies are learnt; None takes all. The last one may be a verdict."""
    mask = [0] * len(rendering.tokens)
    for reply in rendering.replies[-replies:] if replies else rendering.replies:
        kind = VERDICT if verdict and reply is rendering.replies[-1] else REPLY
        mask[reply.start : reply.stop] = [kind] * (reply.stop - reply.start)
    return Learnt(ids=rendering.tokens, rings=rendering.rings, mask=tuple(mask))


def _cut_after_reply(learnt: Learnt) -> Learnt:
    """Without what the template writes behind the last reply, which nobody learns."""
    stop = max((place + 1 for place, bit in enumerate(learnt.mask) if bit), default=0)
    return Learnt(ids=learnt.ids[:stop], rings=learnt.rings[:stop], mask=learnt.mask[:stop])


def _prompt(learnt: Learnt) -> tuple[int, ...]:
    return learnt.ids[: learnt.mask.index(1)]


def _template_reason(words: str) -> str:
    for mark, reason in (
        ("drops a tool call", "template drops tool calls"),
        ("tools:", "template drops tools"),
        ("drops", "template drops a message"),
    ):
        if mark in words:
            return reason
    return "template"
