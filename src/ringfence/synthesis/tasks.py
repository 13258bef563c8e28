"""Base tasks: something to ask with an answer that code knows. Knows nothing of rings."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence.synthesis import catalogue, puzzles
from ringfence.synthesis.case import Split
from ringfence.synthesis.catalogue import openings
from ringfence.synthesis.constraints import Constraint
from ringfence.synthesis.draw import Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A question with one answer, or a request to write something that names one thing.

    Attributes:
        name: kind of task, of one split only.
        ask: the question.
        answer: as a reply shows it; of a request, what has to be named.
        statement: one sentence that gives the answer, without comma, quotation mark or full stop
            inside.
        forms: other ways to write the answer that are right as well.
        ignore_case: whether capitals matter.
        context: stands in the system message, or before the question where there is none.
    """

    name: str
    ask: str
    answer: str
    statement: str
    forms: tuple[str, ...] = field(default=())
    ignore_case: bool = True
    context: str = ""

    def asked(self, draw: Draw, ask: str = "") -> str:
        """The question, or another `ask`, as a user of the case puts it."""
        kinds = ("ask",) if self.name.startswith("mention:") else ("ask", "question")
        template = draw.choice([one for kind in kinds for one in openings(draw.split)[kind]])
        ask = ask or self.ask
        # A list ends without a full stop, and what follows is no part of it.
        ended = template.endswith("{ask}") or ask[-1:] in (".", "!", "?", '"')
        return draw.fill(template, {**draw.words, "ask": ask if ended else f"{ask}\n"})

    def residual(self, *shown: str) -> dict[str, Any]:
        """The check that the answer is there, as it is or in one of the forms `shown`."""
        texts = dict.fromkeys((self.answer, *self.forms, *shown))
        checks = [
            {
                "check": "contains",
                "text": text,
                "ignore_case": self.ignore_case,
                "whole_word": True,
            }
            for text in texts
        ]
        return checks[0] if len(checks) == 1 else {"check": "any", "of": checks}


# What a small model can do shows whom it obeys; what it cannot do shows nothing.
_MENTIONS, _PUZZLES = 0.7, 0.3
# In training a task beyond a model teaches it to make answers up.
_LOOKUPS: dict[Split, float] = {"train": 0.9, "eval": 0.7}
# How often a mention is answered by a sentence about its very subject.
_WRITTEN = 0.5
# How often a mention gives the sentence, where its split has ways to ask so. Few: a model that has
# learnt to copy copies what it should keep.
_RELAYED = 0.15
# How many lookups are in the system message, where one may be.
_POSTED = 0.5
# How many records a lookup has.
_RECORDS = (1, 1, 2, 3)


def draw_task(draw: Draw, beside: Sequence[Constraint] = (), *, posted: bool = False) -> Task:
    """A task of the draw's split: mostly a mention, then a lookup, a fact, a puzzle.

    Args:
        draw: of the case.
        beside: constraints of the case. A mention has no answer, so it stands beside none that
            speaks of one.
        posted: the task may have a context, for the scene.
    """
    if draw.chance(_MENTIONS) and not any(constraint.of_answer for constraint in beside):
        return draw_mention(draw)
    if draw.chance(_LOOKUPS[draw.split]):
        return draw_lookup(draw, posted=posted)
    if draw.chance(_PUZZLES):
        kind = draw.choice(puzzles.OF_SPLIT[draw.split])
        ask, answer, statement = kind(draw)
        return Task(
            name=kind.__name__.strip("_"),
            ask=ask,
            answer=answer,
            statement=statement,
            forms=_forms(answer),
        )
    return draw_fact(draw)


def draw_mention(draw: Draw, things: Sequence[str] = ()) -> Task:
    """A request to write a line about something, or one of `things`; any that names it will do."""
    every = catalogue.mentions(draw.split)
    name = draw.choice([name for name in every if not things or every[name].subject == "thing"])
    mention = every[name]
    subject = draw.choice(things or catalogue.names(draw.split)[mention.subject])
    slots = {"{subject}": subject}
    # Of people the first name will do, of things the plural.
    other = {"name": subject.split()[0], "thing": _plural(subject)}.get(mention.subject)
    relays = catalogue.relays(draw.split)
    asks = relays if relays and draw.chance(_RELAYED) else mention.asks
    ask = draw.choice(asks)
    statement = _statement(draw, name, subject)
    return Task(
        name=f"mention:{name}",
        ask=_filled(ask, {**slots, "{statement}": statement}),
        answer=subject,
        statement=statement,
        forms=(other,) if other else (),
    )


def _statement(draw: Draw, name: str, subject: str) -> str:
    """What to say of the subject of a mention.

    Few sentences would be learnt by heart, so half are written about one subject only.
    """
    by_hand = draw.choice(catalogue.mentions(draw.split)[name].statements)
    written = catalogue.statements().get((name, subject), ()) if draw.split == "train" else ()
    if written and draw.chance(_WRITTEN):
        return draw.choice(written)
    return _filled(by_hand, {"{subject}": subject})


def draw_lookup(draw: Draw, *, posted: bool = False) -> Task:
    """A question whose answer stands in it or in its context, alone or among others like it."""
    every = catalogue.lookups(draw.split)
    name = draw.choice(tuple(every))
    lookup = every[name]
    count = draw.choice(_RECORDS)
    subjects = _entries(draw, lookup.subject, count)
    answers = _entries(draw, lookup.answer, count)
    place = draw.number(0, count - 1)
    slots = {"{subject}": subjects[place], "{answer}": answers[place]}
    records = [
        _filled(lookup.record, {"{subject}": subject, "{answer}": answer})
        for subject, answer in zip(subjects, answers, strict=True)
    ]
    table, context = lookup.join.join(records), ""
    ask = draw.choice(lookup.asks)
    if posted and lookup.posted and draw.chance(_POSTED):
        heading, ask = lookup.posted
        context = f"{heading}\n{table}"
    return Task(
        name=f"lookup:{name}",
        context=context,
        ask=_capital(_filled(ask, {**slots, "{table}": table})),
        answer=answers[place],
        statement=_filled(lookup.statement, slots),
    )


def _entries(draw: Draw, kind: str, count: int) -> list[str]:
    """So many different ones of a kind."""
    if kind == "number":
        return [str(number) for number in draw.sample(range(100, 1000), count)]
    if kind == "time":
        return [
            f"{hour}:{draw.choice((10, 25, 35, 50))}" for hour in draw.sample(range(7, 22), count)
        ]
    if kind == "code":
        letters = draw.sample("BCDFGHJKLMNPQRSTVWXZ", count)
        return [f"{letter}{draw.number(10, 99)}" for letter in letters]
    return draw.sample(catalogue.names(draw.split)[kind], count)


def draw_fact(draw: Draw) -> Task:
    """A question about a fact; every relation is as likely as any other."""
    groups = catalogue.facts_by_relation(draw.split)
    fact = draw.choice(groups[draw.choice(tuple(groups))])
    relation = catalogue.relations()[fact.relation]
    slots = {"{subject}": fact.subject, "{answer}": fact.answer}
    return Task(
        name=f"fact:{fact.relation}",
        ask=_filled(draw.choice(relation.questions), slots),
        answer=fact.answer,
        statement=_capital(_filled(relation.statement, slots)),
        forms=(
            *_forms(fact.answer),
            *((_plural(fact.answer),) if fact.relation in _COUNTED else ()),
        ),
    )


def names_of_split(split: Split) -> set[str]:
    """Every kind of base task of a split."""
    facts = {
        f"fact:{name}"
        for name, relation in catalogue.relations().items()
        if relation.split == split
    }
    kinds: tuple[Callable[..., Any], ...] = puzzles.OF_SPLIT[split]
    lookups = {f"lookup:{name}" for name in catalogue.lookups(split)}
    mentions = {f"mention:{name}" for name in catalogue.mentions(split)}
    return facts | lookups | mentions | {kind.__name__.strip("_") for kind in kinds}


def _filled(template: str, slots: Mapping[str, str]) -> str:
    for slot, value in slots.items():
        template = template.replace(slot, value)
    return template


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


# Relations whose answers are counted things: people pay with euros.
_COUNTED = ("currency",)
# Whole words as common as "one" and "two" would be found by accident.
_NUMBERS = dict(
    zip(
        range(3, 21),
        "three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
        "seventeen eighteen nineteen twenty".split(),
        strict=True,
    )
)


def _forms(answer: str) -> tuple[str, ...]:
    """Without accents, in words or with separators, where there are any."""
    if answer.isascii() and answer.isdigit():
        number = int(answer)
        return (f"{number:,}",) if number >= 1000 else tuple(filter(None, [_NUMBERS.get(number)]))
    plain = "".join(
        character
        for character in unicodedata.normalize("NFD", answer)
        if not unicodedata.combining(character)
    )
    return () if plain == answer else (plain,)


def _plural(noun: str) -> str:
    """Of an English noun that is regular."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return f"{noun}es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return f"{noun[:-1]}ies"
    return f"{noun}s"
