"""Verdicts backed up through the tree, also to siblings that say the same by their embeddings.

Knows nothing of how leaves are selected, judged or committed. Source: RAIN (arXiv 2309.07124),
section 3.3 and equation 3.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ringfence.embedding import Embedder, Vectors
from ringfence.engine import Tokenizer, Tokens
from ringfence.search_settings import SearchSettings
from ringfence.tree import Node, average_embedding, update_siblings


class Likeness:
    """The embeddings of one search's nodes."""

    def __init__(self, embedder: Embedder, tokenizer: Tokenizer) -> None:
        """Embed the texts of tokens."""
        self._embedder = embedder
        self._tokenizer = tokenizer

    async def begin(self, nodes: Sequence[Node], settings: SearchSettings) -> None:
        """First embeddings: of the token sets alone, replaced by the first judged text."""
        if not _wanted(settings) or not nodes:
            return
        vectors = await self._embed([self._tokenizer.decode(node.tokens) for node in nodes])
        for node, vector in zip(nodes, vectors, strict=True):
            node.embedding = vector

    async def back_up(
        self, leaf: Node, value: float, simulated: Tokens, settings: SearchSettings
    ) -> None:
        """Value and embedding to every node of the path, then to siblings that say the same.

        Args:
            leaf: that was judged.
            value: of its verdict, in [-1, 1].
            simulated: tokens behind the leaf that were judged with it.
            settings: constants.
        """
        path = leaf.path()
        tail = simulated
        texts = []
        for node in reversed(path):
            tail = node.tokens + tail
            texts.append(self._tokenizer.decode(tail))
        embeds = _wanted(settings)
        vectors = await self._embed(texts[::-1]) if embeds else ()
        for node in path:
            node.updated(value, 1.0)
            node.real_visits += 1
        for node, vector in zip(path, vectors, strict=embeds):
            average_embedding(node, vector)
        if settings.similarity:
            for node in path:
                update_siblings(node, value, settings, self._embedder.similar)

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        if self._embedder.slow:
            return await asyncio.to_thread(self._embedder.embed, texts)
        return self._embedder.embed(texts)


def _wanted(settings: SearchSettings) -> bool:
    return settings.similarity or settings.dynamic_addition
