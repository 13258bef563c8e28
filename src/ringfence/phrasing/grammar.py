"""Small grammars of phrasings, as data. Knows nothing of what the phrases are for.

A grammar file lists rules, and every rule its alternatives: text in which `<<rule>>` stands for an
alternative of another rule, `{slot}` for what the caller puts in, and `{Slot}` for the same with a
capital first letter. Alternatives belong to the train split, to the eval split, or to both.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import accumulate, product
from math import prod
from pathlib import Path
from random import Random
from typing import Literal, get_args

from ringfence.errors import InputError
from ringfence.phrasing.grammar_file import Alternatives, GrammarFile, text_of
from ringfence.yaml_files import parsed, read

Split = Literal["train", "eval"]
SPLITS: tuple[Split, ...] = get_args(Split)
_REFERENCE = re.compile(r"<<([a-z][a-z0-9_]*)>>|\{([A-Za-z][a-z0-9_]*)\}")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text and how it was derived.

    Attributes:
        text: with slots filled.
        path: the alternatives taken, outermost first, such as `opening/train.3`.
    """

    text: str
    path: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str
    capital: bool

    def filled(self, slots: Mapping[str, str]) -> str:
        value = slots[self.name]
        return value[:1].upper() + value[1:] if self.capital else value


@dataclass(slots=True)
class _Rule:
    """A rule of one split; `alternatives` are filled in when every rule has its place.

    `bounds` are weights at first, and sums of weights when every rule has been measured.
    """

    name: str
    alternatives: list[_Alternative]
    bounds: list[float]


@dataclass(frozen=True, slots=True)
class _Alternative:
    """`name` is its place in paths; `split` is empty where it belongs to both."""

    name: str
    split: str
    parts: tuple[str | _Slot | _Rule, ...]
    stacked: tuple[str | _Slot | _Rule, ...]


class Grammar:
    """Phrases of both splits, drawn by seed, counted exactly, or listed.

    No derivation of one split is a derivation of the other, unless the file says that its splits
    need not be disjoint: on the way from every start to every phrase stands at least one
    alternative of that split alone.
    """

    def __init__(self, file: GrammarFile, where: str = "grammar") -> None:
        """Check a grammar and make it ready.

        Raises:
            InputError: a rule or slot that does not exist or is never used, the same alternative
                twice, a rule that contains itself, or a start that mixes the splits.
        """
        self.name = file.name
        self.summary = file.summary
        self.starts = file.starts
        self.disjoint = file.disjoint
        self._where = where
        self._declared = frozenset(file.slots)
        lists = file.alternatives()
        self._rules: dict[str, dict[str, _Rule]] = {
            split: self._compiled(lists, split) for split in SPLITS
        }
        self._counts: dict[str, dict[str, int]] = {split: {} for split in SPLITS}
        self._slots: dict[str, dict[str, frozenset[str]]] = {split: {} for split in SPLITS}
        self._check()

    @classmethod
    def load(cls, name_or_path: str) -> Grammar:
        """A packaged grammar by name, or any YAML file by path.

        Raises:
            InputError: no such grammar, or a broken one; names file, rule and the fix.
        """
        if name_or_path in packaged_grammars():
            return _packaged(name_or_path)
        if not Path(name_or_path).is_file():
            raise InputError(
                f"no grammar {name_or_path!r}. Packaged: {', '.join(packaged_grammars())}; "
                "or give the path of a YAML file."
            )
        return cls(read(GrammarFile, Path(name_or_path)), name_or_path)

    def draw(self, rng: Random, start: str, slots: Mapping[str, str], split: Split) -> Phrase:
        """One phrase; at every rule an alternative of the split.

        An alternative is drawn by its weight, multiplied by the number of binary digits of its
        number of derivations: so one that varies much is drawn more often than one that is always
        the same, and the latter is still drawn.

        What stands in slots is put in as it is and never read as grammar.

        Args:
            rng: the only source of chance.
            start: one of `starts`.
            slots: must hold everything in `needs(start, split)`; more does no harm.
            split: whose alternatives.

        Raises:
            InputError: no such start or split, or a slot is missing.
        """
        stack: list[str | _Slot | _Rule] = [self._ready(start, slots, split)]
        text: list[str] = []
        path: list[str] = []
        chance = rng.random
        while stack:
            part = stack.pop()
            if isinstance(part, str):
                text.append(part)
            elif isinstance(part, _Rule):
                bounds = part.bounds
                place = bisect(bounds, chance() * bounds[-1], 0, len(bounds) - 1)
                chosen = part.alternatives[place]
                path.append(chosen.name)
                stack.extend(chosen.stacked)
            else:
                text.append(part.filled(slots))
        return Phrase("".join(text), tuple(path))

    def phrases(self, start: str, slots: Mapping[str, str], split: Split) -> Iterator[Phrase]:
        """Every phrase of a start, once for each derivation. There may be very many.

        Raises:
            InputError: as `draw`.
        """
        return self._listed(self._ready(start, slots, split), slots)

    def count(self, start: str, split: Split) -> int:
        """The exact number of distinct derivations, whatever stands in the slots.

        Raises:
            InputError: no such start or split.
        """
        rule = self._start(start, split)
        return self._counts[split][rule.name]

    def needs(self, start: str, split: Split) -> frozenset[str]:
        """The slots that phrases of a start may use.

        Raises:
            InputError: no such start or split.
        """
        rule = self._start(start, split)
        return self._slots[split][rule.name]

    def _start(self, start: str, split: Split) -> _Rule:
        if split not in SPLITS:
            raise InputError(f"split: {split!r} is neither train nor eval")
        if start not in self.starts:
            raise InputError(
                f"grammar {self.name}: no start {start!r}. Starts: {', '.join(self.starts)}."
            )
        return self._rules[split][start]

    def _ready(self, start: str, slots: Mapping[str, str], split: Split) -> _Rule:
        rule = self._start(start, split)
        if missing := self._slots[split][start] - slots.keys():
            raise InputError(
                f"grammar {self.name}: {start} needs the slots {', '.join(sorted(missing))}"
            )
        return rule

    def _listed(self, rule: _Rule, slots: Mapping[str, str]) -> Iterator[Phrase]:
        for chosen in rule.alternatives:
            choices = [
                list(self._listed(part, slots))
                if isinstance(part, _Rule)
                else [Phrase(part if isinstance(part, str) else part.filled(slots), ())]
                for part in chosen.parts
            ]
            for phrases in product(*choices):
                text = "".join(phrase.text for phrase in phrases)
                path = (step for phrase in phrases for step in phrase.path)
                yield Phrase(text, (chosen.name, *path))

    def _compiled(self, lists: Mapping[str, Alternatives], split: Split) -> dict[str, _Rule]:
        rules = {name: _Rule(name, [], []) for name in lists}
        for name, listed in lists.items():
            items = [("", item) for item in listed.both]
            items += [(split, item) for item in getattr(listed, split)]
            rule = rules[name]
            weights, texts = [], set()
            for place, (tag, item) in enumerate(items):
                text, weight = (item, 1.0) if isinstance(item, str) else (item.text, item.weight)
                if text in texts:
                    raise self._error(name, f"{text!r} stands here twice for split {split}")
                texts.add(text)
                weights.append(weight)
                parts = tuple(self._parts(name, text, rules))
                within = place if not tag else place - len(listed.both)
                path = f"{name}/{tag or 'both'}.{within}"
                rule.alternatives.append(_Alternative(path, tag, parts, parts[::-1]))
            rule.bounds.extend(weights)
        for name, listed in lists.items():
            for text in {text_of(item) for item in listed.train} & {
                text_of(i) for i in listed.eval
            }:
                raise self._error(name, f"{text!r} stands in both splits; list it under both")
        return rules

    def _parts(
        self, name: str, text: str, rules: Mapping[str, _Rule]
    ) -> Iterator[str | _Slot | _Rule]:
        done = 0
        for match in _REFERENCE.finditer(text):
            if match.start() > done:
                yield text[done : match.start()]
            done = match.end()
            if match[1]:
                if match[1] not in rules:
                    raise self._error(name, f"there is no rule <<{match[1]}>>")
                yield rules[match[1]]
                continue
            slot = match[2][0].lower() + match[2][1:]
            if slot not in self._declared:
                raise self._error(name, f"{{{match[2]}}} is not in the list of slots")
            yield _Slot(slot, match[2] != slot)
        if done < len(text):
            yield text[done:]

    def _check(self) -> None:
        for split in SPLITS:
            separate: dict[str, bool] = {}
            for start in self.starts:
                if start not in self._rules[split]:
                    raise InputError(f"{self._where}: starts: there is no rule {start!r}")
                self._measure(self._rules[split][start], split, separate, ())
                if not self._counts[split][start]:
                    raise self._error(start, f"split {split} has no alternative at all")
                if self.disjoint and not separate[start]:
                    raise self._error(
                        start, f"phrases of split {split} may be made of shared alternatives alone"
                    )
        seen = self._counts["train"].keys() | self._counts["eval"].keys()
        if unused := self._rules["train"].keys() - seen:
            raise self._error(min(unused), "no start leads here")
        used = frozenset().union(*(self._slots[split][s] for split in SPLITS for s in self.starts))
        if idle := self._declared - used:
            raise InputError(f"{self._where}: slots: {min(idle)} is never used")

    def _measure(
        self, rule: _Rule, split: Split, separate: dict[str, bool], above: tuple[str, ...]
    ) -> None:
        """Count a rule, find its slots, and see whether its phrases belong to the split alone."""
        if rule.name in above:
            raise self._error(rule.name, f"contains itself: {' > '.join([*above, rule.name])}")
        if rule.name in separate:
            return
        count, slots, apart = 0, set[str](), True
        for place, chosen in enumerate(rule.alternatives):
            inner = [part for part in chosen.parts if isinstance(part, _Rule)]
            for part in inner:
                self._measure(part, split, separate, (*above, rule.name))
                slots |= self._slots[split][part.name]
            slots |= {part.name for part in chosen.parts if isinstance(part, _Slot)}
            if not all(self._counts[split][part.name] for part in inner):
                raise self._error(rule.name, f"split {split} cannot finish {chosen.name}")
            derivations = prod(self._counts[split][part.name] for part in inner)
            count += derivations
            rule.bounds[place] *= derivations.bit_length()
            apart &= bool(chosen.split) or any(separate[part.name] for part in inner)
        rule.bounds[:] = accumulate(rule.bounds)
        separate[rule.name] = apart
        self._counts[split][rule.name] = count
        self._slots[split][rule.name] = frozenset(slots)

    def _error(self, rule: str, what: str) -> InputError:
        return InputError(f"{self._where}: rules: {rule}: {what}")


def packaged_grammars() -> list[str]:
    """Names of the grammars that ship."""
    folder = resources.files("ringfence.phrasing") / "grammars"
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".yaml"))


def count_phrasings() -> dict[str, dict[str, int]]:
    """Packaged grammar → split → distinct derivations of all its starts' first one.

    The first start of a grammar is the one that leads to everything an ordinary caller draws.
    """
    grammars = [Grammar.load(name) for name in packaged_grammars()]
    return {
        grammar.name: {split: grammar.count(grammar.starts[0], split) for split in SPLITS}
        for grammar in grammars
    }


@lru_cache(maxsize=64)
def _packaged(name: str) -> Grammar:
    file = resources.files("ringfence.phrasing") / "grammars" / f"{name}.yaml"
    return Grammar(parsed(GrammarFile, file.read_text("utf-8"), f"{name}.yaml"), f"{name}.yaml")
