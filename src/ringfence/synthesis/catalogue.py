"""The packaged data that cases are drawn from, one part a split. Knows nothing of cases."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict

from ringfence.synthesis.case import Split
from ringfence.yaml_files import read

DATA = Path(__file__).parent / "data"
# Symbols that are words as well: a reply may hold them by accident.
_WORDS = frozenset({"I", "He", "In", "As", "At", "No", "Be", "Am", "Os", "Ho", "Po", "Pa", "Es"})


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Relation(_Plain):
    """What facts of one kind have in common; see relations.yaml."""

    split: Literal["train", "eval"]
    topic: str
    questions: tuple[str, ...]
    statement: str
    table: str = "pairs"
    subject: str = "subject"
    answer: str = "answer"


class Relations(_Plain):
    """relations.yaml."""

    relations: dict[str, Relation]


class Lookup(_Plain):
    """A question whose answer stands in it or in the system message; see lookups.yaml."""

    split: Literal["train", "eval"]
    subject: Literal["name", "place", "firm", "thing", "number", "time", "code"]
    answer: Literal["name", "place", "firm", "thing", "number", "time", "code"]
    record: str
    join: str
    asks: tuple[str, ...]
    posted: tuple[str, str] | None = None
    statement: str


class Mention(_Plain):
    """A request to write about something; see mentions.yaml."""

    split: Literal["train", "eval"]
    subject: Literal["name", "place", "firm", "thing"]
    asks: tuple[str, ...]
    statements: tuple[str, ...]


class Mentions(_Plain):
    """mentions.yaml."""

    relays: dict[Split, tuple[str, ...]]
    mentions: dict[str, Mention]


class Lookups(_Plain):
    """lookups.yaml."""

    lookups: dict[str, Lookup]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something everybody may know: what `relation` says of `subject` is `answer`."""

    relation: str
    subject: str
    answer: str


class Statement(NamedTuple):
    """Something that is so in a trade, and perhaps a question about it, in small letters.

    Attributes:
        text: with slots.
        question: with the same values in its slots; empty for none.
        answer: the slot that answers it.
    """

    text: str
    question: str = ""
    answer: str = ""


class Domain(_Plain):
    """A trade, with statements about it for either split; see domains.yaml."""

    trade: str
    train: tuple[str, ...]
    eval: tuple[str, ...]

    def statements(self, split: Split) -> tuple[Statement, ...]:
        """Those of one split."""
        lines = self.train if split == "train" else self.eval
        return tuple(Statement(*line.split("|")) for line in lines)


class Domains(_Plain):
    """domains.yaml."""

    domains: dict[str, Domain]


class Fillers(_Plain):
    """names.yaml: slot → words, for either split."""

    train: dict[str, tuple[str, ...]]
    eval: dict[str, tuple[str, ...]]


@cache
def relations() -> dict[str, Relation]:
    """Every relation by its name."""
    return read(Relations, DATA / "relations.yaml").relations


@cache
def lookups(split: Split) -> dict[str, Lookup]:
    """The lookups of a split by name."""
    every = read(Lookups, DATA / "lookups.yaml").lookups
    return {name: lookup for name, lookup in every.items() if lookup.split == split}


@cache
def mentions(split: Split) -> dict[str, Mention]:
    """The mentions of a split by name."""
    every = read(Mentions, DATA / "mentions.yaml").mentions
    return {name: mention for name, mention in every.items() if mention.split == split}


@cache
def relays(split: Split) -> tuple[str, ...]:
    """Ways of a split to ask for a statement word by word; there may be none."""
    return read(Mentions, DATA / "mentions.yaml").relays[split]


@cache
def statements() -> dict[tuple[str, str], tuple[str, ...]]:
    """Sentences about one subject, for mentions of the training split; a pair may have none."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    with (DATA / "statements.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            pair = row["mention"], row["subject"]
            found[pair] = (*found.get(pair, ()), row["statement"])
    return found


@cache
def facts(split: Split) -> tuple[Fact, ...]:
    """Every fact of a split."""
    return tuple(
        Fact(relation=name, subject=row[relation.subject], answer=row[relation.answer])
        for name, relation in relations().items()
        if relation.split == split
        for row in _table(relation.table)
        if row.get("relation", name) == name
        and row[relation.subject]
        and row[relation.answer]
        and row[relation.answer] not in _WORDS
    )


@cache
def facts_by_relation(split: Split) -> dict[str, tuple[Fact, ...]]:
    """The facts of a split, sorted by what they say."""
    found: dict[str, list[Fact]] = {}
    for fact in facts(split):
        found.setdefault(fact.relation, []).append(fact)
    return {name: tuple(group) for name, group in found.items()}


@cache
def domains() -> dict[str, Domain]:
    """Every domain by its name."""
    return read(Domains, DATA / "domains.yaml").domains


@cache
def names(split: Split) -> dict[str, tuple[str, ...]]:
    """Words for slots of statements."""
    return _split(Fillers, "names.yaml", split)


@cache
def openings(split: Split) -> dict[str, tuple[str, ...]]:
    """Templates around instructions."""
    return _split(Fillers, "openings.yaml", split)


def _split(model: type[Fillers], file: str, split: Split) -> dict[str, tuple[str, ...]]:
    data = read(model, DATA / file)
    return data.train if split == "train" else data.eval


@cache
def _table(name: str) -> tuple[dict[str, str], ...]:
    with (DATA / "facts" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
        return tuple(csv.DictReader(file))
