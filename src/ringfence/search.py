"""The rewindable tree search of RAIN (arXiv 2309.07124, section 3 and algorithm 1).

Knows an engine and a judge through a `Meter`, and nothing of HTTP, models or attacks. It yields
events and keeps no log. A tree of token sets grows below the committed reply: select a leaf by
PUCT, look ahead to the end of a phrase, judge, back the value up, and rewind to the root, until one
child of the root is visited often enough and good enough to be committed (or a draft below it is
good enough by itself); then that child is the root and its siblings are gone.

One departure from the released code changes no result and most of the cost: a leaf's children are
drafted when the search first descends through it, not when the leaf is judged.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence

from ringfence.budget import Exhausted, Meter
from ringfence.concurrency import together
from ringfence.embedding import Embedder
from ringfence.engine import Draft, Tokens
from ringfence.events import Committed, Drafted, Event, Events, Judged, Rewound
from ringfence.likeness import Likeness
from ringfence.proposals import Proposals
from ringfence.rendering import Rendering
from ringfence.search_settings import SearchSettings
from ringfence.stop_strings import StopStrings
from ringfence.tree import Node, alike_and_bad, best_child


class TreeSearch:
    """The search of one reply. `commit` runs one turn of the outer loop.

    By `visits` a turn commits one child of the root, as in the paper; by `verdict` the whole way to
    the accepted draft, one event a step.

    Attributes:
        settings: may be replaced between commits (a wider search after a failed one).
        root: the committed reply so far.
        finished: the committed reply is complete.
        spent: why the last call of `commit` committed nothing; empty if it did.
    """

    def __init__(
        self,
        prompt: Rendering,
        meter: Meter,
        embedder: Embedder,
        settings: SearchSettings,
        *,
        threshold: float,
        limit: int,
        rng: random.Random,
        committed: Tokens = (),
        root_id: int = 0,
        next_id: int = 1,
        stops: Sequence[str] = (),
    ) -> None:
        """Start below the tokens committed so far.

        Args:
            prompt: what the model is given.
            meter: engine and judge.
            embedder: for the similarity update.
            settings: constants.
            threshold: the judge's; used where the settings give none.
            limit: most tokens of the whole reply.
            rng: seeds every draft.
            committed: reply tokens that are final already.
            root_id: node of the last committed tokens; 0 is the prompt.
            next_id: first id of a new node.
            stops: strings that end the reply; a token set ends with the token that completes one.
        """
        self.settings = settings
        self.finished = False
        self.spent = ""
        self.committed = committed
        self.threshold = settings.threshold if settings.threshold is not None else threshold
        self.next_id = next_id
        self.root = Node(
            id=root_id,
            parent=None,
            tokens=(),
            prior=1.0,
            logprob=0.0,
            start=len(committed),
            depth=0 if not committed else len(settings.lengths) - 1,
            finished=False,
        )
        self._prompt = prompt
        self._meter = meter
        self._limit = limit
        tokenizer = meter.engine.card.tokenizer
        self._likeness = Likeness(embedder, tokenizer)
        self._stops = StopStrings(tokenizer, stops)
        self._proposals = Proposals(meter, rng)

    async def commit(self, *, exhausted_best: bool = False) -> Events:
        """Search until one child of the root is committed, or the iterations are spent.

        With `exhausted_best`, spent iterations commit the child of the highest value instead of
        nothing. The stream always ends; see `finished` and `spent`.
        """
        self.spent = ""
        first = left = self._meter.iterations_left
        iterations = newest = 0
        # Coming back to replies that have ended asks nobody and never ends by itself. A commit by
        # visits needs some of it, however small the budget.
        most_in_a_row = self._meter.budget.iterations + self.settings.visits
        try:
            while not (chosen := self._ready()):
                if iterations >= self.settings.iterations or iterations - newest > most_in_a_row:
                    raise Exhausted(f"{first - left} drafts judged, none good enough")
                await self._meter.turn()
                allowed = min(self.settings.iterations - iterations, left)
                async for event in self._iterate(max(1, min(self.settings.leaves, allowed))):
                    iterations += isinstance(event, Judged)
                    yield event
                if self._meter.iterations_left < left:
                    left, newest = self._meter.iterations_left, iterations
        except Exhausted as limit:
            chosen = self._acceptable() or (self._best_judged() if exhausted_best else None)
            if chosen is None:
                self.spent = str(limit)
                return
        for event in self._commit(chosen):
            yield event

    def settle(self) -> list[Committed]:
        """Commit the best draft judged so far, acceptable or not; nothing without one."""
        best = self._best_judged()
        if best is None:
            return []
        self.spent = ""
        return list(self._commit(best))

    @property
    def best_value(self) -> float:
        """Value of the draft that `settle` would commit, in [-1, 1]; -inf without one."""
        best = self._best_judged()
        return -math.inf if best is None else self._value(best)

    def _commit(self, chosen: Node) -> Iterator[Committed]:
        """The whole way to a node: its first steps alone may have been judged badly."""
        value = self._value(chosen)
        for step in chosen.path():
            yield self._reroot(step, value)

    def _value(self, node: Node) -> float:
        return node.verdict_value if self.settings.commit == "verdict" else node.value

    def _ready(self) -> Node | None:
        """The node that may be committed now, with all above it."""
        best = self._best()
        if best is None:
            return None
        if self.settings.commit == "verdict":
            aim = self.settings.aim
            wanted = self.threshold if aim is None else max(aim, self.threshold)
            return best if best.verdict_value >= wanted else None
        good = best.real_visits >= self.settings.visits and best.value >= self.threshold
        return best if good else None

    def _acceptable(self) -> Node | None:
        """An acceptable draft, although a better one was looked for."""
        best = self._best()
        if self.settings.commit == "visits" or best is None:
            return None
        return best if best.verdict_value >= self.threshold else None

    def _best(self) -> Node | None:
        """The most visited child of the root, or the draft with the best verdict."""
        if self.settings.commit == "verdict":
            return max(self.root.below(), key=lambda node: node.verdict_value, default=None)
        children = self.root.children or ()
        return max(children, key=lambda node: (node.real_visits, node.value), default=None)

    def _best_judged(self) -> Node | None:
        """The node to commit where nothing acceptable was found."""
        if self.settings.commit == "verdict":
            best = self._best()
            return best if best and best.verdict else None
        judged = [node for node in self.root.children or () if node.real_visits]
        return max(judged, key=lambda node: (node.value, node.real_visits), default=None)

    def _reroot(self, child: Node, value: float) -> Committed:
        """Make the child the root; its siblings and their trees are freed."""
        event = Committed(
            node=child.id,
            tokens=child.tokens,
            value=value,
            visits=child.real_visits,
            logprob=child.logprob,
        )
        self.committed += child.tokens
        self.finished = child.finished
        child.parent = None
        self.root = child
        self._meter.committed(len(child.tokens))
        return event

    async def _iterate(self, leaves: int) -> Events:
        """One iteration for each of up to `leaves` leaves."""
        chosen: list[Node] = []
        try:
            while len(chosen) < leaves:
                events: list[Event] = []
                try:
                    leaf = await self._select(events)
                except Exhausted:
                    for event in events:  # what was drafted before the limit is in the tree
                        yield event
                    raise
                for event in events:
                    yield event
                if leaf in chosen:
                    break
                chosen.append(leaf)
                for node in leaf.path():
                    node.pending += 1
        finally:
            for leaf in chosen:
                for node in leaf.path():
                    node.pending -= 1
        # Coming back to a reply that has ended is a visit, and neither a new verdict nor a rewind.
        new = {leaf.id for leaf in chosen if leaf.verdict is None}
        for judged in await self._judge(chosen):
            yield judged
            leaf = next(node for node in chosen if node.id == judged.node)
            await self._likeness.back_up(leaf, judged.value, judged.simulated, self.settings)
            if judged.value < self.threshold and leaf.id in new:
                self._meter.rewound()
                dropped = tuple(token for node in leaf.path() for token in node.tokens)
                yield Rewound(kept=self.root.stop, dropped=dropped, value=judged.value)

    async def _select(self, events: list[Event]) -> Node:
        """Descend to a leaf never judged, or one where the reply ends; expand on the way."""
        node = self.root
        while True:
            if node.children is None:
                await self._expand(node, events)
            elif self.settings.dynamic_addition and alike_and_bad(node, self.settings):
                await self._add_child(node, events)
            if not node.children:
                raise Exhausted("no room to judge a longer reply")
            node = best_child(node, self.settings)
            if not node.real_visits or self._ends(node):
                return node

    def _ends(self, node: Node) -> bool:
        """Whether nothing can be judged below a node."""
        return node.finished or node.stop >= self._limit or node.children == []

    def _length(self, node: Node) -> int:
        """Tokens of the sets below a node."""
        lengths = self.settings.lengths
        return min(lengths[min(node.depth, len(lengths) - 1)], self._limit - node.stop)

    def _reply(self, node: Node) -> Tokens:
        return self.committed + tuple(token for step in node.path() for token in step.tokens)

    def _prefix(self, node: Node) -> Tokens:
        return self._prompt.tokens + self._reply(node)

    async def _expand(self, node: Node, events: list[Event]) -> None:
        """Draft the children of a node, with priors from the model's probabilities."""
        drafts = await self._proposals.token_sets(
            self._prefix(node), self._length(node), self.settings
        )
        node.children = []
        if not node.stop:
            # An empty reply is no reply; it counts only where the model offers nothing else.
            drafts = [draft for draft in drafts if draft.tokens] or drafts
        for draft in drafts:
            self._attach(node, draft)
        for child in node.children:
            child.prior = self._prior(child, node.children)
            events.append(self._drafted(child))
        await self._likeness.begin(node.children, self.settings)

    def _prior(self, child: Node, children: Sequence[Node]) -> float:
        total = sum(math.exp(sibling.logprob) for sibling in children)
        if self.settings.priors == "equal" or not total:
            return 1 / len(children)
        return math.exp(child.logprob) / total

    def _attach(self, node: Node, draft: Draft) -> Node | None:
        """A new child, unless the node has the same one already; then None."""
        assert node.children is not None
        draft = self._stops.cut(self._reply(node), draft)
        seen = any(
            child.tokens == draft.tokens and child.finished == draft.finished
            for child in node.children
        )
        if seen:
            return None
        child = Node(
            id=self.next_id,
            parent=node,
            tokens=draft.tokens,
            prior=0.0,
            logprob=draft.logprob,
            start=node.stop,
            depth=node.depth + 1,
            finished=draft.finished,
        )
        self.next_id += 1
        node.children.append(child)
        return child

    @staticmethod
    def _drafted(child: Node) -> Drafted:
        assert child.parent is not None
        return Drafted(
            node=child.id, parent=child.parent.id, tokens=child.tokens, prior=child.prior
        )

    async def _add_child(self, node: Node, events: list[Event]) -> None:
        """Dynamic node addition: one more sampled token set, its prior relative to its siblings."""
        draft = await self._proposals.one_more(
            self._prefix(node), self._length(node), self.settings
        )
        empty = not node.stop and not draft.tokens  # as in _expand
        child = None if empty else self._attach(node, draft)
        if child is None:
            node.saturated = True
            return
        assert node.children is not None
        child.prior = self._prior(child, node.children)
        await self._likeness.begin([child], self.settings)
        events.append(self._drafted(child))

    async def _judge(self, leaves: Sequence[Node]) -> list[Judged]:
        """Verdicts for leaves, looking ahead first; an ended reply is judged only once.

        Leaves that the judge has no room for leave the tree.
        """
        new = [leaf for leaf in leaves if leaf.verdict is None]
        ahead = await together(self._look_ahead(leaf) for leaf in new)
        replies = [
            self._stops.text(self._reply(leaf) + simulated)
            for leaf, simulated in zip(new, ahead, strict=True)
        ]
        verdicts = await self._meter.judge(self._prompt, replies) if new else []
        for leaf, verdict in zip(new, verdicts, strict=True):
            leaf.verdict = verdict
            if verdict is None:  # what goes on from it would be longer still
                assert leaf.parent is not None and leaf.parent.children is not None
                leaf.parent.children.remove(leaf)
        simulated_by = {leaf.id: simulated for leaf, simulated in zip(new, ahead, strict=True)}
        return [
            Judged(
                node=leaf.id,
                value=leaf.verdict.value,
                reason=leaf.verdict.reason,
                simulated=simulated_by.get(leaf.id, ()),
            )
            for leaf in leaves
            if leaf.verdict is not None
        ]

    async def _look_ahead(self, leaf: Node) -> Tokens:
        room = 0 if leaf.finished else self._limit - leaf.stop
        return await self._proposals.look_ahead(
            self._prefix(leaf), leaf.tokens, room, self.settings
        )
