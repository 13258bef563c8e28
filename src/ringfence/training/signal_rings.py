"""Levels of a ring signal for the rings of any policy, by their names. Knows no torch and no data.

Inference matches rings by name (`segments.signal`), so training has to: under another policy a ring
of the same name may have another level.
"""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.errors import InputError
from ringfence.rings import Policy
from ringfence.segments.saved import SignalCard


class SignalRings:
    """The rings of a signal, which grow with the policies that come along, or are those of a card.

    Attributes:
        names: of the rings, by level.
    """

    def __init__(self, card: SignalCard | None = None) -> None:
        """A new signal's rings; with a card, those of a saved signal, which stay as they are."""
        self._card = card
        self.names: list[str] = list(card.names) if card else []

    def of(self, policy: Policy, levels: Sequence[int]) -> tuple[int, ...]:
        """The signal's levels for those of a policy; -1 stays -1.

        A saved signal without names takes levels as they are, as inference does.

        Raises:
            InputError: a ring that a saved signal was not trained on.
        """
        if self._card is None:
            new = [ring.name for ring in policy.rings if ring.name not in self.names]
            self.names += new
        level = {ring: self._level(policy, ring) if ring >= 0 else ring for ring in {*levels}}
        return tuple(level[ring] for ring in levels)

    def _level(self, policy: Policy, ring: int) -> int:
        name = policy.rings[ring].name
        if name in self.names:
            return self.names.index(name)
        if self._card is not None and not self.names and ring < self._card.rings:
            return ring
        raise InputError(
            f"the adapter's ring signal knows no ring {name!r} of policy {policy.name}; it was "
            f"trained with {', '.join(self.names) or 'fewer rings'}. Use data of those rings, or "
            "train a new adapter."
        )
