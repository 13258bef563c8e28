"""Key-value caches: made, forked, kept. Knows nothing of sampling, threads or model files."""

from __future__ import annotations

import copy
from typing import Any

from ringfence.engine import Tokens
from ringfence.engines.weights import import_library
from ringfence.errors import EngineError

# A transformers DynamicCache; transformers may be absent, so its type has no name here.
Cache = Any


def empty_cache(config: Any) -> Cache:
    """An empty cache for a model, which can be cropped at every length.

    Raises:
        EngineError: the model's context is no list of keys and values, as in state-space models.
    """
    transformers = import_library("transformers")
    layers = transformers.cache_utils
    cache = transformers.DynamicCache(config=config)
    for layer in cache.layers:
        if type(layer) not in (
            layers.DynamicLayer,
            layers.DynamicSlidingWindowLayer,
            layers.DummyLayer,
        ):
            raise EngineError(
                f"a {config.model_type} model keeps its context in a {type(layer).__name__}, which "
                "cannot be rewound here. Serve it with vLLM or SGLang and open its http:// address."
            )
    # transformers' sliding-window layers forget what leaves the window and cannot go back; a full
    # layer under the model's sliding mask gives the same attention.
    cache.layers = [
        layers.DynamicLayer() if isinstance(layer, layers.DynamicSlidingWindowLayer) else layer
        for layer in cache.layers
    ]
    return cache


class KeptCaches:
    """Caches of recent prefixes, bounded by their tokens. Forgets the least recently used first.

    Only leaves are kept: a cache that is the beginning of another is a crop of it.
    """

    def __init__(self, capacity: int) -> None:
        """Start empty; `capacity` is the most tokens kept, over all caches."""
        self._capacity = capacity
        self._caches: dict[Tokens, Cache] = {}  # least recently used first

    @property
    def tokens(self) -> int:
        """How many tokens are kept now."""
        return sum(map(len, self._caches))

    def fork(self, tokens: Tokens) -> tuple[int, Cache | None]:
        """The longest beginning of `tokens` that is kept: its length, and a cache to extend."""
        shared = {known: _shared(known, tokens) for known in self._caches}
        nearest = max(shared, key=shared.__getitem__, default=())
        if not shared.get(nearest):
            return 0, None
        cache = self._caches[nearest] = self._caches.pop(nearest)  # now the most recently used
        cropped = fork(cache)
        cropped.crop(shared[nearest] - len(nearest))
        return shared[nearest], cropped

    def keep(self, tokens: Tokens, cache: Cache) -> None:
        """Keep the cache of exactly these tokens, unless it is too large or covered already."""
        covered = any(known[: len(tokens)] == tokens for known in self._caches)
        if covered or len(tokens) > self._capacity:
            return
        for known in [known for known in self._caches if tokens[: len(known)] == known]:
            del self._caches[known]
        self._caches[tokens] = cache
        while self.tokens > self._capacity:
            del self._caches[next(iter(self._caches))]

    def clear(self) -> None:
        """Forget everything."""
        self._caches.clear()


def fork(cache: Cache) -> Cache:
    """A cache that can be extended and cropped alone.

    It shares the tensors, which is safe: a layer replaces its tensors and never writes into them.
    """
    forked = copy.copy(cache)
    forked.layers = [copy.copy(layer) for layer in cache.layers]
    return forked


def _shared(one: Tokens, other: Tokens) -> int:
    """Length of the common beginning."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(index for index in range(shorter) if one[index] != other[index])
