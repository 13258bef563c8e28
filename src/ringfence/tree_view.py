"""The tree of drafts behind one reply: a fold over its events, and the rows it is drawn as.

Knows nothing of terminals, colours or pictures; `commandline.drawing` and `commandline.picture`
draw the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from ringfence.engine import Tokenizer, Tokens
from ringfence.events import Committed, Drafted, Ended, Event, Judged

RowKind = Literal["prompt", "committed", "dropped", "more", "refused"]


@dataclass(slots=True, kw_only=True, eq=False)
class Twig:
    """One draft in the tree.

    Attributes:
        id: of the node; 0 is the prompt.
        text: of its tokens alone.
        prior: the model's own share of it among its siblings.
        value: its verdict, and once committed its mean value; None if never judged.
        reason: of its verdict.
        committed: it became part of the reply.
        children: in the order they were drafted.
    """

    id: int
    tokens: Tokens = ()
    text: str = ""
    prior: float = 1.0
    value: float | None = None
    reason: str = ""
    committed: bool = False
    parent: Twig | None = None
    children: list[Twig] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the drawn tree.

    Attributes:
        kind: `prompt`; `committed` (on the trunk); `dropped` (a branch that was judged and left);
            `more` (branches that are not shown); `refused` (the last row of a refused reply).
        depth: 0 on the trunk, 1 for its branches, …
        value: verdict, None if there is none.
        text: what to show; hostile unless you wrote it.
        drafts: drafts that this one was chosen from, itself included.
    """

    kind: RowKind
    text: str
    depth: int = 0
    value: float | None = None
    drafts: int = 1


class DraftTree:
    """Fold of the events of one reply.

    Attributes:
        trunk: the prompt and the committed nodes, in order.
        text: of the reply as far as it may be shown; the trunk can go on after a stop string.
        ended: the last event, None while the reply is being made.
    """

    def __init__(self, prompt: str, tokenizer: Tokenizer) -> None:
        """Start with the prompt alone."""
        self._tokenizer = tokenizer
        root = Twig(id=0, text=prompt, committed=True)
        self._twigs = {0: root}
        self.trunk = [root]
        self.text = ""
        self.ended: Ended | None = None

    @classmethod
    def of(cls, events: Iterable[Event], prompt: str, tokenizer: Tokenizer) -> DraftTree:
        """The tree of finished events."""
        tree = cls(prompt, tokenizer)
        for event in events:
            tree.grow(event)
        return tree

    def grow(self, event: Event) -> None:
        """Take in the next event."""
        if isinstance(event, Drafted):
            parent = self._twigs[event.parent]
            twig = Twig(id=event.node, tokens=event.tokens, prior=event.prior, parent=parent)
            twig.text = self._tokenizer.decode(event.tokens)
            parent.children.append(twig)
            self._twigs[event.node] = twig
        elif isinstance(event, Judged):
            twig = self._twigs[event.node]
            twig.value, twig.reason = event.value, event.reason
        elif isinstance(event, Committed):
            self.text += event.text
            if event.tokens:
                self._commit(event)
        elif isinstance(event, Ended):
            self.ended = event

    def twigs(self) -> list[Twig]:
        """All drafts in the order they were made; the prompt is not one."""
        return [twig for id_, twig in self._twigs.items() if id_]

    def rows(self, breadth: int = 3, depth: int = 4) -> Iterator[Row]:
        """The tree as rows from top to bottom: the trunk, and what was judged and left beside it.

        Args:
            breadth: branches shown at one place; a row says how many more there are.
            depth: how far branches are followed; a row says how many drafts lie deeper.
        """
        yield Row(kind="prompt", text=self.trunk[0].text)
        for here, following in pairwise([*self.trunk, None]):
            assert here is not None
            yield from _branches(here, following, (breadth, depth), 1)
            if following is not None:
                yield Row(
                    kind="committed",
                    text=following.text,
                    value=following.value,
                    drafts=len(here.children),
                )
        if self.ended is not None and self.ended.reason == "refused":
            yield Row(kind="refused", text=self.ended.detail, value=self.ended.value)

    def to_json(self) -> list[dict[str, Any]]:
        """Every draft as plain data, in the order they were made."""
        return [
            {
                "node": twig.id,
                "parent": twig.parent.id if twig.parent else 0,
                "text": twig.text,
                "tokens": list(twig.tokens),
                "prior": round(twig.prior, 4),
                "value": None if twig.value is None else round(twig.value, 4),
                "reason": twig.reason,
                "committed": twig.committed,
            }
            for twig in self.twigs()
        ]

    def _commit(self, event: Committed) -> None:
        twig = self._twigs[event.node]
        twig.committed = True
        if event.value is not None:
            twig.value = event.value
        self.trunk.append(twig)


def _branches(node: Twig, chosen: Twig | None, most: tuple[int, int], depth: int) -> Iterator[Row]:
    """Judged drafts below a node that were not chosen, each with its own branches below it."""
    breadth, deepest = most
    left = _judged(node, chosen)
    if depth > deepest:
        yield from _summary(list(_all(left)), depth)
        return
    for child in left[:breadth]:
        assert child.value is not None
        yield Row(kind="dropped", text=child.text, depth=depth, value=child.value)
        yield from _branches(child, None, most, depth + 1)
    yield from _summary(list(_all(left[breadth:])), depth)


def _judged(node: Twig, chosen: Twig | None = None) -> list[Twig]:
    return [child for child in node.children if child is not chosen and child.value is not None]


def _all(twigs: Iterable[Twig]) -> Iterator[Twig]:
    """The drafts and everything judged below them."""
    for twig in twigs:
        yield twig
        yield from _all(_judged(twig))


def signed(value: float) -> str:
    """Two digits with a sign, and no minus before zero."""
    return f"{round(value, 2) + 0.0:+.2f}"


def _summary(hidden: Sequence[Twig], depth: int) -> Iterator[Row]:
    values = [twig.value for twig in hidden if twig.value is not None]
    if not values:
        return
    low, high = signed(min(values)), signed(max(values))
    span = low if low == high else f"{low} to {high}"
    drafts = "draft" if len(values) == 1 else "drafts"
    yield Row(kind="more", text=f"{len(values)} more {drafts} dropped, {span}", depth=depth)
