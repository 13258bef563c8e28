"""Wordings: grammars of phrases, mutators of them, and carriers that hide them in documents.

Knows nothing of recipes, graders or models. All text in here is harmless by itself.
"""

from ringfence.phrasing.carriers import Carried, Carrier, carrier, carriers
from ringfence.phrasing.grammar import (
    SPLITS,
    Grammar,
    Phrase,
    Split,
    count_phrasings,
    packaged_grammars,
)
from ringfence.phrasing.mutators import (
    MUTATORS,
    PUBLIC_CONTROL,
    Context,
    Mutator,
    chain,
    draw_chain,
    filler,
    mutators,
)

__all__ = [
    "MUTATORS",
    "PUBLIC_CONTROL",
    "SPLITS",
    "Carried",
    "Carrier",
    "Context",
    "Grammar",
    "Mutator",
    "Phrase",
    "Split",
    "carrier",
    "carriers",
    "chain",
    "count_phrasings",
    "draw_chain",
    "filler",
    "mutators",
    "packaged_grammars",
]
