"""The rewindable tree search of RAIN (arXiv 2309.07124, section 3 and algorithm 1).

Knows an engine and a judge through a `Meter`, and nothing of HTTP, models or attacks. It yields
events and keeps no log. A tree of token sets grows below the committed reply: select a leaf by
PUCT, look ahead to the end of a phrase, judge, back the value up, and rewind to the root, until one
child of the root is visited often enough and good enough to be committed; then that child is the
root and its siblings are gone.

One departure from the released code changes no result and most of the cost: a leaf's children are
drafted when the search first descends through it, not when the leaf is judged.
"""

from __future__ import annotations

import math
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ringfence.budget import Exhausted, Meter
from ringfence.concurrency import together
from ringfence.embedding import Embedder, Vectors
from ringfence.engine import Draft, Sampling, Tokens
from ringfence.events import Committed, Drafted, Event, Judged, Rewound
from ringfence.judges import Verdict
from ringfence.rendering import Rendering

PHRASE_ENDS = (",", ".", "?", ":", ";", "\n")


class SearchSettings(BaseModel):
    """Constants of the search; every part can be switched off on its own.

    Attributes:
        lengths: token-set length by depth from the start of the reply; the last one stays.
        width: token sets drafted below a leaf (q).
        max_width: most children dynamic addition may reach.
        top_k: sampled token sets keep the k most likely tokens of each step.
        greedy: one of the token sets is the greedy one.
        exploration: c of the PUCT term; 0 switches exploration off.
        rescale: values enter selection as (v + 1) / 2, which doubles the weight of exploration.
        unvisited: the value a node counts with before its first visit.
        root_uniform: share of the uniform distribution in the priors of the root's children.
        simulation: look ahead to the end of the phrase before judging.
        simulation_length: most tokens to look ahead.
        similarity: update siblings that say the same.
        similarity_weight: γ, the weight of such an update at cosine 1.
        similarity_unvisited: update siblings that were never judged, too.
        dynamic_addition: draft another child where all children are alike and bad.
        variance: children are alike if ‖variance of their embeddings‖ < variance x set length.
        iterations: most judgements for one commit (T).
        visits: a commit needs at least this many real visits of the child (paper: more than T_m).
        threshold: and at least this mean value (V); None takes the judge's own.
        leaves: leaves in flight at once, with virtual loss.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    lengths: tuple[int, ...] = Field(default=(1, 2, 4, 10), min_length=1)
    width: int = Field(default=10, ge=1, le=64)
    max_width: int = Field(default=20, ge=1, le=64)
    top_k: int = Field(default=15, ge=0)
    greedy: bool = True
    exploration: float = Field(default=2.0, ge=0)
    rescale: bool = False
    unvisited: float = Field(default=0.0, ge=-1, le=1)
    root_uniform: float = Field(default=0.25, ge=0, le=1)
    simulation: bool = True
    simulation_length: int = Field(default=16, ge=1)
    similarity: bool = True
    similarity_weight: float = Field(default=0.2, ge=0, le=1)
    similarity_unvisited: bool = True
    dynamic_addition: bool = True
    variance: float = Field(default=0.03, ge=0)
    iterations: int = Field(default=50, ge=1)
    visits: int = Field(default=7, ge=1)
    threshold: float | None = Field(default=0.8, ge=-1, le=1)
    leaves: int = Field(default=1, ge=1, le=16)


PRESETS: dict[str, SearchSettings] = {
    # What the paper says; constants that it does not give are those of its code.
    "paper": SearchSettings(simulation=False, dynamic_addition=True),
    # The released code: rescaled values, unvisited nodes count as -1, only judged siblings updated.
    "code": SearchSettings(rescale=True, unvisited=-1.0, similarity_unvisited=False),
    # Ours: the judge's own threshold, longer token sets from the start, fewer and cheaper visits.
    "fast": SearchSettings(
        lengths=(8,),
        width=4,
        max_width=8,
        visits=1,
        iterations=16,
        threshold=None,
        simulation=False,
        root_uniform=0.0,
    ),
}
Preset = Literal["paper", "code", "fast"]


@dataclass(slots=True, eq=False)
class Node:
    """A token set in the tree. `visits` and `value` include similarity updates."""

    id: int
    parent: Node | None
    tokens: Tokens
    prior: float
    logprob: float
    start: int
    depth: int
    finished: bool
    visits: float = 0.0
    real_visits: int = 0
    value: float = 0.0
    pending: int = 0
    embedded: int = 0
    embedding: Vectors | None = None
    verdict: Verdict | None = None
    children: list[Node] | None = None

    @property
    def stop(self) -> int:
        """Reply tokens up to and including this node."""
        return self.start + len(self.tokens)

    def path(self) -> list[Node]:
        """Nodes from below the root down to this one."""
        nodes: list[Node] = []
        node: Node = self
        while node.parent is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]

    def updated(self, value: float, weight: float) -> None:
        """Running mean of the value with the given weight."""
        self.value = (self.value * self.visits + value * weight) / (self.visits + weight)
        self.visits += weight


class TreeSearch:
    """The search of one reply. `commit` runs one turn of the outer loop.

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
        next_id: int = 1,
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
            next_id: first node id; 0 is the prompt.
        """
        self.settings = settings
        self.finished = False
        self.spent = ""
        self.committed = committed
        self.threshold = settings.threshold if settings.threshold is not None else threshold
        self.next_id = next_id
        self.root = Node(
            id=next_id - 1,
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
        self._embedder = embedder
        self._limit = limit
        self._rng = rng

    async def commit(self, *, exhausted_best: bool = False) -> AsyncIterator[Event]:
        """Search until one child of the root is committed, or the iterations are spent.

        With `exhausted_best`, spent iterations commit the child of the highest value instead of
        nothing. The stream always ends; see `finished` and `spent`.
        """
        self.spent = ""
        iterations = 0
        try:
            while not (child := self._ready()):
                if iterations >= self.settings.iterations:
                    raise Exhausted(f"{iterations} drafts judged, none good enough")
                allowed = min(self.settings.iterations - iterations, self._meter.iterations_left)
                async for event in self._iterate(max(1, min(self.settings.leaves, allowed))):
                    iterations += isinstance(event, Judged)
                    yield event
        except Exhausted as limit:
            self.spent = str(limit)
            best = self._best_judged()
            if not exhausted_best or best is None:
                return
            child = best
        yield self._reroot(child)

    def _ready(self) -> Node | None:
        """The child of the root that may be committed now."""
        if not self.root.children:
            return None
        best = max(self.root.children, key=lambda node: (node.real_visits, node.value))
        good = best.real_visits >= self.settings.visits and best.value >= self.threshold
        return best if good else None

    def _best_judged(self) -> Node | None:
        judged = [node for node in self.root.children or () if node.real_visits]
        return max(judged, key=lambda node: (node.value, node.real_visits), default=None)

    def _reroot(self, child: Node) -> Committed:
        """Make the child the root; its siblings and their trees are freed."""
        event = Committed(
            node=child.id, tokens=child.tokens, value=child.value, visits=child.real_visits
        )
        self.committed += child.tokens
        self.finished = child.finished
        child.parent = None
        self.root = child
        self._meter.committed(len(child.tokens))
        return event

    async def _iterate(self, leaves: int) -> AsyncIterator[Event]:
        """One iteration for each of up to `leaves` leaves."""
        chosen: list[Node] = []
        while len(chosen) < leaves:
            events: list[Event] = []
            leaf = await self._select(events)
            for event in events:
                yield event
            if leaf in chosen:
                break
            chosen.append(leaf)
            for node in leaf.path():
                node.pending += 1
        for leaf in chosen:
            for node in leaf.path():
                node.pending -= 1
        for judged in await self._judge(chosen):
            yield judged
            leaf = next(node for node in chosen if node.id == judged.node)
            self._back_up(leaf, judged)
            if judged.value < self.threshold:
                self._meter.rewound()
                dropped = tuple(token for node in leaf.path() for token in node.tokens)
                yield Rewound(kept=self.root.stop, dropped=dropped, value=judged.value)

    async def _select(self, events: list[Event]) -> Node:
        """Descend to a leaf never judged, or one where the reply ends; expand on the way."""
        node = self.root
        while True:
            if node.children is None:
                await self._expand(node, events)
            elif self.settings.dynamic_addition and self._alike_and_bad(node):
                await self._add_child(node, events)
            node = self._best_child(node)
            if not node.real_visits or self._ends(node):
                return node

    def _ends(self, node: Node) -> bool:
        return node.finished or node.stop >= self._limit

    def _best_child(self, node: Node) -> Node:
        """Argmax of value + c * prior * sqrt(sum of sibling visits) / (1 + visits)."""
        settings, children = self.settings, node.children
        assert children
        total = math.sqrt(sum(child.visits + child.pending for child in children))
        uniform = settings.root_uniform if node is self.root else 0.0

        def score(child: Node) -> tuple[float, float]:
            prior = (1 - uniform) * child.prior + uniform / len(children)
            visits = child.visits + child.pending
            # Leaves in flight count as visits of the worst value (virtual loss).
            value = (
                (child.value * child.visits - child.pending) / visits
                if visits
                else settings.unvisited
            )
            if settings.rescale:
                value = (value + 1) / 2
            return value + settings.exploration * prior * total / (1 + visits), prior

        return max(children, key=score)

    def _length(self, node: Node) -> int:
        """Tokens of the sets below a node."""
        lengths = self.settings.lengths
        return min(lengths[min(node.depth, len(lengths) - 1)], self._limit - node.stop)

    def _prefix(self, node: Node) -> Tokens:
        below = tuple(token for step in node.path() for token in step.tokens)
        return self._prompt.tokens + self.committed + below

    async def _expand(self, node: Node, events: list[Event]) -> None:
        """Draft the children of a node, with priors from the model's probabilities."""
        length = self._length(node)
        drafts = await self._most_likely(node) if length == 1 else await self._sets(node, length)
        node.children = []
        if not node.stop:
            # An empty reply is no reply; it counts only where the model offers nothing else.
            drafts = [draft for draft in drafts if draft.tokens] or drafts
        for draft in drafts:
            self._attach(node, draft)
        masses = [math.exp(child.logprob) for child in node.children]
        total = sum(masses)
        for child, mass in zip(node.children, masses, strict=True):
            child.prior = mass / total if total else 1 / len(masses)
            events.append(self._drafted(child))
        self._embed(node.children)

    async def _most_likely(self, node: Node) -> list[Draft]:
        """Token sets of one token: the most likely next ones, from a single request."""
        sampling = Sampling(temperature=0, alternatives=self.settings.width, seed=self._seed())
        [draft] = await self._meter.draft(self._prefix(node), 1, 1, sampling)
        ends = self._meter.engine.card.ends
        return [
            Draft(tokens=() if t in ends else (t,), logprobs=(p,), finished=t in ends)
            for t, p in draft.alternatives[0]
        ]

    async def _sets(self, node: Node, length: int) -> list[Draft]:
        """Token sets of several tokens: one greedy, the others sampled."""
        prefix, width = self._prefix(node), self.settings.width
        greedy = int(self.settings.greedy)
        requests = []
        if greedy:
            sampling = Sampling(temperature=0, seed=self._seed())
            requests.append(self._meter.draft(prefix, 1, length, sampling))
        if width > greedy:
            sampling = Sampling(top_k=self.settings.top_k, seed=self._seed())
            requests.append(self._meter.draft(prefix, width - greedy, length, sampling))
        return [draft for drafts in await together(requests) for draft in drafts]

    def _attach(self, node: Node, draft: Draft) -> Node | None:
        """A new child, unless the node has the same one already; then None."""
        assert node.children is not None
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
            logprob=sum(draft.logprobs),
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

    def _alike_and_bad(self, node: Node) -> bool:
        """Whether dynamic addition applies: all children visited, alike, and none of them good."""
        children = node.children
        if not children or len(children) >= self.settings.max_width:
            return False
        if not all(child.real_visits for child in children):
            return False
        if max(child.value for child in children) >= 0:
            return False
        vectors = np.stack([_mean(child) for child in children])
        spread = float(np.linalg.norm(vectors.var(axis=0)))
        return spread < self.settings.variance * max(len(child.tokens) for child in children)

    async def _add_child(self, node: Node, events: list[Event]) -> None:
        """Dynamic node addition: one more sampled token set, its prior relative to its siblings."""
        sampling = Sampling(top_k=self.settings.top_k, seed=self._seed())
        [draft] = await self._meter.draft(self._prefix(node), 1, self._length(node), sampling)
        child = self._attach(node, draft)
        if child is None:
            return
        assert node.children is not None
        total = sum(math.exp(sibling.logprob) for sibling in node.children)
        child.prior = math.exp(child.logprob) / total if total else 1 / len(node.children)
        self._embed([child])
        events.append(self._drafted(child))

    async def _judge(self, leaves: Sequence[Node]) -> list[Judged]:
        """Verdicts for leaves, looking ahead first; an ended reply is judged only once."""
        new = [leaf for leaf in leaves if leaf.verdict is None]
        ahead = await together(self._simulate(leaf) for leaf in new)
        decode = self._meter.engine.card.tokenizer.decode
        start = len(self._prompt.tokens)
        replies = [
            decode(self._prefix(leaf)[start:] + simulated)
            for leaf, simulated in zip(new, ahead, strict=True)
        ]
        verdicts = await self._meter.judge(self._prompt, replies) if new else []
        for leaf, verdict in zip(new, verdicts, strict=True):
            leaf.verdict = verdict
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

    async def _simulate(self, leaf: Node) -> Tokens:
        """Look ahead, untruncated, to the end of the phrase. Empty where the phrase has ended."""
        room = min(self.settings.simulation_length, self._limit - leaf.stop)
        if not self.settings.simulation or leaf.finished or room < 1:
            return ()
        text = self._meter.engine.card.tokenizer.decode(leaf.tokens)
        if text.rstrip(" ").endswith(PHRASE_ENDS):
            return ()
        sampling = Sampling(stop=PHRASE_ENDS, seed=self._seed())
        [draft] = await self._meter.draft(self._prefix(leaf), 1, room, sampling)
        return draft.tokens

    def _back_up(self, leaf: Node, judged: Judged) -> None:
        """Value and embedding to every node of the path, then to siblings that say the same."""
        path = leaf.path()
        tail: Tokens = judged.simulated
        texts = []
        for node in reversed(path):
            tail = node.tokens + tail
            texts.append(self._meter.engine.card.tokenizer.decode(tail))
        vectors = self._embedder.embed(texts[::-1]) if self._embeds else ()
        for node in path:
            node.updated(judged.value, 1.0)
            node.real_visits += 1
        for node, vector in zip(path, vectors, strict=self._embeds):
            _average(node, vector)
        if self.settings.similarity:
            for node in path:
                self._update_siblings(node, judged.value)

    def _update_siblings(self, node: Node, value: float) -> None:
        """Equation 3 of the paper: siblings similar to the judged node share its verdict."""
        assert node.parent is not None and node.parent.children is not None
        own = _mean(node)
        for sibling in node.parent.children:
            if sibling is node:
                continue
            if not sibling.real_visits and not self.settings.similarity_unvisited:
                continue
            cosine = float(own @ _mean(sibling))
            if cosine >= self._embedder.similar:
                sibling.updated(value, self.settings.similarity_weight * cosine)

    @property
    def _embeds(self) -> bool:
        return self.settings.similarity or self.settings.dynamic_addition

    def _embed(self, nodes: Sequence[Node]) -> None:
        """First embeddings: of the token sets alone, replaced by the first judged text."""
        if not self._embeds or not nodes:
            return
        decode = self._meter.engine.card.tokenizer.decode
        vectors = self._embedder.embed([decode(node.tokens) for node in nodes])
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector

    def _seed(self) -> int:
        return self._rng.getrandbits(31)


def _mean(node: Node) -> Vectors:
    """Unit vector of the node's running mean embedding."""
    assert node.embedding is not None
    norm = float(np.linalg.norm(node.embedding))
    return node.embedding / norm if norm else node.embedding


def _average(node: Node, vector: Vectors) -> None:
    """Running mean over judged texts."""
    if node.embedding is None or not node.embedded:
        node.embedding = vector
    else:
        share = np.float32(1 / (node.embedded + 1))
        node.embedding = node.embedding + (vector - node.embedding) * share
    node.embedded += 1
