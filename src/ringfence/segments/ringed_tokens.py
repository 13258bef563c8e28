"""Tokens that remember who wrote them. Knows nothing of models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, SupportsIndex, overload

# The ring of tokens that nobody in the conversation wrote: the template's own.
NO_RING = -1


class RingedTokens(tuple[int, ...]):
    """Token ids with the ring of each: a tuple of ids in every other respect.

    Engines take tokens, and those that have no use for rings see a plain tuple. What is appended to
    a prompt is the model's reply, so plain tokens that are added get the ring of the reply; slices
    keep their rings. Equality and hash are those of the ids alone.

    Attributes:
        rings: the level of every token, `NO_RING` for the template's own; as long as the tokens.
        reply: the level of whatever is appended.
        names: of the levels, highest privilege first; empty if nobody said.
    """

    rings: tuple[int, ...]
    reply: int
    names: tuple[str, ...]

    def __new__(
        cls,
        tokens: Iterable[int] = (),
        rings: Iterable[int] | None = None,
        *,
        reply: int = NO_RING,
        names: Sequence[str] = (),
    ) -> RingedTokens:
        """Pair tokens with rings; without any, all have `NO_RING`.

        Raises:
            ValueError: there are more or fewer rings than tokens.
        """
        made = super().__new__(cls, tokens)
        made.rings = (NO_RING,) * len(made) if rings is None else tuple(rings)
        made.reply = reply
        made.names = tuple(names)
        if len(made.rings) != len(made):
            raise ValueError(f"{len(made.rings)} rings for {len(made)} tokens")
        return made

    def _like(self, tokens: Iterable[int], rings: Iterable[int]) -> RingedTokens:
        return RingedTokens(tokens, rings, reply=self.reply, names=self.names)

    def __add__(self, other: tuple[Any, ...], /) -> RingedTokens:
        """Append; plain tokens are the reply's."""
        if not isinstance(other, tuple):
            return NotImplemented
        more = other.rings if isinstance(other, RingedTokens) else (self.reply,) * len(other)
        return self._like(tuple.__add__(self, other), self.rings + more)

    @overload
    def __getitem__(self, key: SupportsIndex, /) -> int: ...
    @overload
    def __getitem__(self, key: slice[Any, Any, Any], /) -> RingedTokens: ...
    def __getitem__(self, key: Any, /) -> Any:
        """A token, or a slice with its rings."""
        found = tuple.__getitem__(self, key)
        return self._like(found, self.rings[key]) if isinstance(key, slice) else found

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles keep the rings."""
        return _restored, (tuple(self), self.rings, self.reply, self.names)


def _restored(
    tokens: tuple[int, ...], rings: tuple[int, ...], reply: int, names: tuple[str, ...]
) -> RingedTokens:
    return RingedTokens(tokens, rings, reply=reply, names=names)
