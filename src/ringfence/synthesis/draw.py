"""One draw: a seeded source of choices, and the little world that a case plays in.

Case `index` of a recipe depends on nothing but the seed, the recipe, the split and the index, so
that runs can be resumed, divided and repeated.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from ringfence.rings import Policy
from ringfence.synthesis import catalogue
from ringfence.synthesis.case import Split

T = TypeVar("T")
_SLOT = re.compile(r"\{(name|place|day|firm|time|number|trade|ask|rule|noun|text|answer)\}")


class Known(NamedTuple):
    """A statement filled in, and a question in small letters with its answer, if there is one."""

    text: str
    question: str
    answer: str


@dataclass(slots=True)
class Draw:
    """Choices for one case. Every call uses up randomness; the order of calls is part of the case.

    Attributes:
        domain: key of the trade.
        words: slots that have one value throughout the case, such as the name of the firm.
        attempt: 0, or the number of a further draw for the same case.
    """

    seed: int
    recipe: str
    split: Split
    index: int
    policy: Policy
    attempt: int = 0
    rng: random.Random = field(init=False)
    domain: str = field(init=False)
    words: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        """Seed, and settle on a world."""
        name = f"{self.seed}/{self.recipe}/{self.split}/{self.index}"
        self.rng = random.Random(f"{name}/{self.attempt}" if self.attempt else name)
        self.domain = self.choice(tuple(catalogue.domains()))
        names = catalogue.names(self.split)
        firm = self.choice(names["firm"]) + self.choice(("", " & Co", " House", " Services", " 24"))
        self.words = {
            "firm": firm,
            "trade": catalogue.domains()[self.domain].trade,
            "name": self.choice(names["name"]),
            "place": self.choice(names["place"]),
        }

    @property
    def id(self) -> str:
        """Name of the case."""
        return f"{self.recipe}-{self.split}-{self.seed}-{self.index}"

    def choice(self, options: Sequence[T]) -> T:
        """One of them."""
        return options[int(self.rng.random() * len(options))]

    def sample(self, options: Sequence[T], count: int) -> list[T]:
        """`count` different ones; fewer where there are fewer."""
        return self.rng.sample(options, min(count, len(options)))

    def number(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return low + int(self.rng.random() * (high - low + 1))

    def chance(self, probability: float) -> bool:
        """True so often."""
        return self.rng.random() < probability

    def opening(self, kind: str, **given: str) -> str:
        """A template of openings.yaml, filled in with the words of this case and those given."""
        return self.fill(self.choice(catalogue.openings(self.split)[kind]), {**self.words, **given})

    def wording(self, kind: str, **given: str) -> str:
        """Like `opening`, but drawn apart: how it is worded changes nothing else of the case."""
        apart = random.Random(f"{self.id}/{self.attempt}/{kind}")
        return self.fill(apart.choice(catalogue.openings(self.split)[kind]), given)

    def fill(self, template: str, given: Mapping[str, str] | None = None) -> str:
        """Fill the slots of a template; those not given are drawn anew."""
        return self._fill(template, dict(given or {}))

    def _fill(self, template: str, values: dict[str, str]) -> str:
        """The same, adding to `values` what was drawn."""

        def value(match: re.Match[str]) -> str:
            slot = match[1]
            if slot not in values:
                values[slot] = self._drawn(slot)
            return values[slot]

        return _SLOT.sub(value, template)

    def statements(self, count: int) -> list[str]:
        """Statements about the trade, and about others once those are used up; no two alike."""
        return [known.text for known in self.known(count)]

    def known(self, count: int) -> list[Known]:
        """The same, with what can be asked about them."""
        domains = catalogue.domains()
        own = list(domains[self.domain].statements(self.split))
        self.rng.shuffle(own)
        if count > len(own):
            rest = [
                statement
                for name, domain in domains.items()
                if name != self.domain
                for statement in domain.statements(self.split)
            ]
            own += self.sample(rest, count - len(own))
        return [self._known(statement) for statement in own[:count]]

    def _known(self, statement: catalogue.Statement) -> Known:
        values: dict[str, str] = {}
        text = self._fill(statement.text, values)
        return Known(text, self._fill(statement.question, values), values.get(statement.answer, ""))

    def passage(self, low: int = 2, high: int = 5) -> str:
        """A paragraph of statements."""
        return " ".join(self.statements(self.number(low, high)))

    def length(self) -> int:
        """How many statements stand around what matters: mostly few, now and then very many."""
        return self.choice((0, 1, 1, 2, 2, 3, 4, 6, 8, 12, 20, 30, 40))

    def _drawn(self, slot: str) -> str:
        if slot == "time":
            return f"{self.number(6, 21)}:{self.choice(('00', '15', '20', '30', '40', '45'))}"
        if slot == "number":
            return str(self.number(2, 90))
        return self.choice(catalogue.names(self.split)[slot])
