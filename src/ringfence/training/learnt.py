"""What is learnt of an example: its tokens, their rings, and a mask. Knows nothing of files."""

from __future__ import annotations

from dataclasses import dataclass

from ringfence.rendering import Rendering

# What a token with a loss is a part of.
REPLY, VERDICT, DECISION = 1, 2, 3


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


def learnt_of(rendering: Rendering, replies: int | None, *, whole: bool = False) -> Learnt:
    """The last so many replies are learnt; None takes all.

    `whole` ones with what the template wrote in front because nothing was thought (`Reply.first`).
    """
    mask = [0] * len(rendering.tokens)
    skipped = 0 if replies is None else len(rendering.replies) - replies
    for reply in rendering.replies[skipped:]:
        first, last = (reply.start, reply.stop) if whole else (reply.first, reply.last)
        mask[first:last] = [REPLY] * (last - first)
    return Learnt(ids=rendering.tokens, rings=rendering.rings, mask=tuple(mask))


def joined(one: Learnt, other: Learnt) -> Learnt:
    """One behind the other."""
    return Learnt(
        ids=one.ids + other.ids, rings=one.rings + other.rings, mask=one.mask + other.mask
    )


def begins_like(longer: Learnt, learnt: Learnt) -> bool:
    """Whether it begins with the same tokens, and what is learnt of them, up to the last learnt."""
    cut = cut_after_reply(learnt)
    stop = len(cut.ids)
    return longer.ids[:stop] == cut.ids and longer.mask[:stop] == cut.mask


def cut_after_reply(learnt: Learnt) -> Learnt:
    """Without what the template writes behind the last reply, which nobody learns."""
    stop = max((place + 1 for place, bit in enumerate(learnt.mask) if bit), default=0)
    return Learnt(ids=learnt.ids[:stop], rings=learnt.rings[:stop], mask=learnt.mask[:stop])


def prompt_of(learnt: Learnt) -> tuple[int, ...]:
    """The tokens before the first that is learnt."""
    return learnt.ids[: learnt.mask.index(1)]
