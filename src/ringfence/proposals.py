"""What the search asks the engine for: token sets below a node, and looks ahead.

Knows nothing of trees, values or judges.
"""

from __future__ import annotations

import random

from ringfence.budget import Meter
from ringfence.concurrency import together
from ringfence.engine import Draft, Sampling, Tokens
from ringfence.search_settings import SearchSettings

PHRASE_ENDS = (",", ".", "?", ":", ";", "\n")


class Proposals:
    """Drafts of one search, each with a fresh seed."""

    def __init__(self, meter: Meter, rng: random.Random) -> None:
        """Ask the engine of `meter`; `rng` seeds every draft."""
        self._meter = meter
        self._rng = rng

    async def token_sets(
        self, prefix: Tokens, length: int, settings: SearchSettings
    ) -> list[Draft]:
        """Token sets of at most `length` tokens, as many as `settings.width`; some may be equal."""
        if length == 1:
            return await self._most_likely(prefix, settings)
        greedy = int(settings.greedy)
        requests = []
        if greedy:
            sampling = Sampling(temperature=0, seed=self._seed())
            requests.append(self._meter.draft(prefix, 1, length, sampling))
        if settings.width > greedy:
            sampling = Sampling(top_k=settings.top_k, seed=self._seed())
            requests.append(self._meter.draft(prefix, settings.width - greedy, length, sampling))
        return [draft for drafts in await together(requests) for draft in drafts]

    async def one_more(self, prefix: Tokens, length: int, settings: SearchSettings) -> Draft:
        """One more sampled token set, for dynamic node addition."""
        sampling = Sampling(top_k=settings.top_k, seed=self._seed())
        [draft] = await self._meter.draft(prefix, 1, length, sampling)
        return draft

    async def look_ahead(
        self, prefix: Tokens, last: Tokens, room: int, settings: SearchSettings
    ) -> Tokens:
        """Simulation: from a leaf, untruncated, to the end of the phrase.

        Args:
            prefix: all tokens up to and including the leaf's.
            last: the leaf's tokens; empty is returned where the phrase ends with them.
            room: tokens that still fit into the reply; 0 for a reply that has ended.
            settings: constants.
        """
        room = min(settings.simulation_length, room)
        if not settings.simulation or room < 1:
            return ()
        text = self._meter.engine.card.tokenizer.decode(last)
        if text.rstrip(" ").endswith(PHRASE_ENDS):
            return ()
        sampling = Sampling(stop=PHRASE_ENDS, seed=self._seed())
        [draft] = await self._meter.draft(prefix, 1, room, sampling)
        return draft.tokens

    async def _most_likely(self, prefix: Tokens, settings: SearchSettings) -> list[Draft]:
        """Token sets of one token: the most likely next ones, from a single request."""
        sampling = Sampling(temperature=0, alternatives=settings.width, seed=self._seed())
        [draft] = await self._meter.draft(prefix, 1, 1, sampling)
        ends = self._meter.engine.card.ends
        return [
            Draft(tokens=(), logprobs=(), finished=True, end_logprob=logprob)
            if token in ends
            else Draft(tokens=(token,), logprobs=(logprob,), finished=False)
            for token, logprob in draft.alternatives[0]
        ]

    def _seed(self) -> int:
        return self._rng.getrandbits(31)
