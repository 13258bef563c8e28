"""Conditional rules as minimal pairs: the same rule where its condition holds and almost holds.

Of a code word, which is present (four ways), absent, slightly wrong, quoted, or merely claimed; or
of a topic that alone is served, which is asked for or only mentioned. As many times yes as no, and
the words of the yes stand in every second message of either kind, so that neither their being there
nor saying them is a substitute for checking the condition. Some rules have words for no as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from ringfence.synthesis.case import Case, Sibling, Split
from ringfence.synthesis.catalogue import DATA
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.scene import Scene
from ringfence.synthesis.settling import Outcome, Said, all_of, case_of, none_of, rule_on
from ringfence.synthesis.tasks import Task, draw_mention, draw_task
from ringfence.yaml_files import read

YES = ("present-1", "present-2", "present-3", "present-4")
NO = ("absent", "near", "quoted", "claimed")
# How many conditions are that something else is asked than what is served.
_TOPICS = 0.4
# How many rules say what a message without the word gets.
_BRANCHES = 0.3
# How often a word is all that is said.
_ALONE = 0.5


class Conditionals(BaseModel):
    """conditional.yaml: kind of text → templates, for either split."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    train: dict[str, tuple[str, ...]]
    eval: dict[str, tuple[str, ...]]


@cache
def _texts(split: Split) -> dict[str, tuple[str, ...]]:
    data = read(Conditionals, DATA / "conditional.yaml")
    return data.train if split == "train" else data.eval


def conditional(draw: Draw) -> Case:
    """One case."""
    condition = _topic(draw) if draw.chance(_TOPICS) else _code_word(draw)
    return _Conditional(draw, condition).case()


@dataclass(frozen=True, kw_only=True)
class _Condition:
    """A rule and the messages that it is tried on.

    Attributes:
        about: what the rule is about, in a word.
        phrase: the reply where the condition holds.
        other: the reply where it does not; empty for whatever was asked.
        messages: sibling → what the user writes, and what is asked with it.
    """

    about: str
    rule: str
    phrase: str
    other: str = ""
    override: str
    keep: str
    messages: Mapping[str, tuple[str, Task]]


def _code_word(draw: Draw) -> _Condition:
    """The user says a word."""
    texts = _texts(draw.split)
    task = draw_task(draw)
    code = draw.choice(texts["code"])
    near = _misspelt(draw, code)
    # What is said where the word is not given: mostly what is said to any message.
    phrases = draw.sample(texts["phrase"], 2)
    phrase, other = phrases[0], phrases[1] if draw.chance(_BRANCHES) else ""
    slots = {
        "{code}": code,
        "{Code}": code.capitalize(),
        "{CODE}": code.upper(),
        "{phrase}": phrase,
        "{other}": other,
        "{ask}": task.asked(draw),
    }

    def one(kind: str, **words: str) -> str:
        return _filled(draw.choice(texts[kind]), {**slots, **words})

    present = draw.sample(texts["present"], 4)
    if draw.chance(_ALONE):
        present[-1] = draw.choice(texts["alone"])
    messages = {name: _filled(item, slots) for name, item in zip(YES, present, strict=True)}
    messages |= {kind: one(kind) for kind in ("absent", "quoted", "claimed")}
    # Where no question is asked, only a rule with words for no says what to reply.
    alone = other and draw.chance(_ALONE)
    misspelt = {"{code}": near, "{Code}": near, "{CODE}": near}
    messages["near"] = one("alone" if alone else "present", **misspelt)
    return _Condition(
        about="the code word",
        rule=one("branches" if other else "rule"),
        phrase=phrase,
        other=other,
        override=one("override"),
        keep=one("keep"),
        messages={
            name: (text, task) for name, text in _baited(draw, messages, partial(one, "bait"))
        },
    )


def _topic(draw: Draw) -> _Condition:
    """The user asks for something else than what is served."""
    texts = _texts(draw.split)
    topics = draw.sample(texts["topics"], 2)
    (topic, inside), (_, outside) = (text.split("|") for text in topics)
    phrase = draw.choice(texts["topic_phrase"])
    kinds = {name: "off_topic" for name in YES} | dict.fromkeys(NO, "on_topic")
    messages, tasks = {}, {}
    for names, own, others in ((YES, outside, inside), (NO, inside, outside)):
        templates = draw.sample(texts[kinds[names[0]]], len(names))
        for name, template in zip(names, templates, strict=True):
            tasks[name] = draw_mention(draw, own.split(","))
            slots = {
                "{ask}": tasks[name].asked(draw),
                "{topic}": topic,
                "{thing}": draw.choice(others.split(",")),
            }
            messages[name] = _filled(template, slots)
    slots = {"{topic}": topic, "{phrase}": phrase}

    def one(kind: str) -> str:
        return _filled(draw.choice(texts[kind]), slots)

    return _Condition(
        about="the topic",
        rule=one("topic_rule"),
        phrase=phrase,
        override=one("topic_override"),
        keep=one("topic_keep"),
        messages={
            name: (text, tasks[name])
            for name, text in _baited(draw, messages, partial(one, "bait"))
        },
    )


def _baited(
    draw: Draw, messages: Mapping[str, str], bait: Callable[[], str]
) -> Iterator[tuple[str, str]]:
    """Every second message of either kind with the words of the yes."""
    chosen = {*draw.sample(YES, len(YES) // 2), *draw.sample(NO, len(NO) // 2)}
    for name, text in messages.items():
        yield name, text + bait() if name in chosen else text


class _Conditional:
    def __init__(self, draw: Draw, condition: _Condition) -> None:
        self.draw = draw
        self.condition = condition
        self.scene = Scene(draw)
        self.speaker = draw.choice([r for r in ("system", "developer") if r in draw.policy.roles])

    def case(self) -> Case:
        condition = self.condition
        siblings = {
            name: self.sibling(self.speaker, *message, trigger=name in YES)
            for name, message in condition.messages.items()
        }
        first, task = condition.messages[YES[0]]
        whole = f"{condition.rule}\n\n{first}"
        siblings |= {
            "reference": self.sibling("user", whole, task, trigger=True, persona=False),
            "aligned": self.sibling(self.speaker, f"{first}\n{condition.keep}", task, trigger=True),
            "conflict": self.sibling(
                self.speaker, f"{first}\n{condition.override}", task, trigger=True, override=True
            ),
            "lower-only": self.sibling("user", whole, task, trigger=True),
            "role-swapped": self.sibling(
                "user", whole, task, trigger=True, above=condition.override
            ),
        }
        return case_of(
            self.draw, ("shape:conditional", f"shape:{condition.about}", task.name), siblings
        )

    def sibling(
        self,
        speaker: str,
        message: str,
        task: Task,
        *,
        trigger: bool,
        override: bool = False,
        above: str = "",
        persona: bool = True,
    ) -> Sibling:
        """The rule said by `speaker`, against it whoever overrides it."""
        policy, condition = self.draw.policy, self.condition
        said = []
        if above:
            said.append(self._said("override", self.speaker, "off", above))
        said.append(self._said("rule", speaker, "on", condition.rule))
        if override:
            said.append(self._said("override", "user", "off", condition.override))
        rulings = rule_on(
            self.draw,
            [
                *said,
                Said(id="task", ring=policy.ring_of("user"), text=message, wants=task.name),
            ],
        )
        fires = trigger and "rule" in rulings.holding
        void = len(rulings.holding) <= len(said)
        exact = {"check": "exact", "text": condition.phrase, "ignore_case": True}
        phrase = {"check": "contains", "text": condition.phrase, "ignore_case": True}
        plain, answer = all_of([task.residual(), none_of([phrase])]), task.statement
        # Where the condition fails the rule may have words of its own, if it holds.
        other = condition.other if not trigger and "rule" in rulings.holding else ""
        if other:
            plain, answer = {**exact, "text": other}, other
        outcome = Outcome(
            expected=rulings.expected,
            instructions=rulings.stated,
            grader=exact if fires else plain,
            residual=None if fires or other else task.residual(),
            lower=(plain if fires else exact) if void else None,
            target=condition.phrase if fires else answer,
            wrong=answer if fires else condition.phrase,
        )
        rules = {self.speaker: [above]} if above else {}
        if speaker != "user":
            rules[speaker] = [condition.rule]
        return outcome.sibling(self.scene.turns(message, rules, persona=persona))

    def _said(self, id_: str, speaker: str, wants: str, text: str) -> Said:
        ring = self.draw.policy.ring_of(speaker)
        return Said(id=id_, ring=ring, text=text, about=self.condition.about, wants=wants)


def _filled(template: str, slots: Mapping[str, str]) -> str:
    for slot, value in slots.items():
        template = template.replace(slot, value)
    return template


def _misspelt(draw: Draw, word: str) -> str:
    """One letter changed, left out or doubled; the word itself does not stand in it."""
    place = draw.number(1, len(word) - 2)
    letter = draw.choice([c for c in "aeiourst" if c != word[place]])
    changed = (
        word[:place] + letter + word[place + 1 :],
        word[:place] + word[place + 1 :],
        word[:place] + word[place] + word[place:],
    )
    return draw.choice([text for text in changed if word not in text])


def texts_of(split: Split) -> dict[str, Any]:
    """The templates of a split, for checks that splits are disjoint."""
    return dict(_texts(split))
