"""The tree of drafts: nodes, PUCT selection, and the updates of values and embeddings.

Pure state without any engine or judge; `search` drives it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ringfence.embedding import Vectors
from ringfence.engine import Tokens
from ringfence.judges import Verdict
from ringfence.search_settings import SearchSettings


@dataclass(slots=True, eq=False)
class Node:
    """A token set in the tree.

    `visits` and `value` include similarity updates. A node is saturated when another draft below it
    said what a child says already; dynamic addition then leaves it alone.
    """

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
    saturated: bool = False

    @property
    def stop(self) -> int:
        """Reply tokens up to and including this node."""
        return self.start + len(self.tokens)

    @property
    def verdict_value(self) -> float:
        """Of its own verdict; below every verdict where it has none."""
        return self.verdict.value if self.verdict else -math.inf

    def below(self) -> Iterator[Node]:
        """Every node below this one."""
        for child in self.children or ():
            yield child
            yield from child.below()

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
        self.visits += weight
        # In this form the mean of equal values is that value: it meets a threshold they all meet.
        self.value += (value - self.value) * (weight / self.visits)


def best_child(node: Node, settings: SearchSettings) -> Node:
    """Argmax of value + c * prior * sqrt(sum of sibling visits) / (1 + visits)."""
    children = node.children
    assert children
    total = math.sqrt(sum(child.visits + child.pending for child in children))
    uniform = settings.root_uniform if node.parent is None else 0.0

    def score(child: Node) -> tuple[float, float]:
        prior = (1 - uniform) * child.prior + uniform / len(children)
        visits = child.visits + child.pending
        # Leaves in flight count as visits of the worst value (virtual loss).
        value = (
            (child.value * child.visits - child.pending) / visits if visits else settings.unvisited
        )
        if settings.rescale:
            value = (value + 1) / 2
        return value + settings.exploration * prior * total / (1 + visits), prior

    return max(children, key=score)


def alike_and_bad(node: Node, settings: SearchSettings) -> bool:
    """Whether dynamic addition applies: all children visited, alike, and none of them good."""
    children = node.children
    if not children or node.saturated or len(children) >= settings.max_width:
        return False
    if not all(child.real_visits for child in children):
        return False
    if max(child.value for child in children) >= 0:
        return False
    vectors = np.stack([mean_embedding(child) for child in children])
    spread = float(np.linalg.norm(vectors.var(axis=0)))
    return spread < settings.variance * max(len(child.tokens) for child in children)


def update_siblings(node: Node, value: float, settings: SearchSettings, similar: float) -> None:
    """Equation 3 of the paper: siblings similar to the judged node share its verdict."""
    assert node.parent is not None and node.parent.children is not None
    own = mean_embedding(node)
    for sibling in node.parent.children:
        if sibling is node:
            continue
        if not sibling.real_visits and not settings.similarity_unvisited:
            continue
        cosine = float(own @ mean_embedding(sibling))
        weight = settings.similarity_weight * cosine
        if cosine >= similar and weight > 0:
            sibling.updated(value, weight)


def mean_embedding(node: Node) -> Vectors:
    """Unit vector of the node's running mean embedding."""
    assert node.embedding is not None
    norm = float(np.linalg.norm(node.embedding))
    return node.embedding / norm if norm else node.embedding


def average_embedding(node: Node, vector: Vectors) -> None:
    """Running mean over judged texts."""
    if node.embedding is None or not node.embedded:
        node.embedding = vector
    else:
        share = np.float32(1 / (node.embedded + 1))
        node.embedding = node.embedding + (vector - node.embedding) * share
    node.embedded += 1
