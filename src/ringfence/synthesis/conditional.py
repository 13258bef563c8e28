"""Conditional rules as minimal pairs: the same message with the trigger and almost with it.

The trigger is present (four ways), absent, slightly wrong, quoted, or merely claimed: as many times
yes as no. The words of the yes stand in every second message of either kind, so that neither their
being there nor saying them is a substitute for checking the condition. Some rules have words for no
as well.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import BaseModel, ConfigDict

from ringfence.synthesis.case import Case, Sibling, Split, Turn
from ringfence.synthesis.catalogue import DATA
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.scene import Scene
from ringfence.synthesis.settling import Outcome, Said, all_of, case_of, none_of, rule_on
from ringfence.synthesis.tasks import draw_task
from ringfence.yaml_files import read

YES = ("present-1", "present-2", "present-3", "present-4")
NO = ("absent", "near", "quoted", "claimed")
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
    return _Conditional(draw).case()


class _Conditional:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.task = draw_task(draw)
        self.scene = Scene(draw)
        texts = _texts(draw.split)
        code = draw.choice(texts["code"])
        # What is said where the word is not given: mostly what is said to any message.
        phrases = draw.sample(texts["phrase"], 2)
        self.phrase, self.other = phrases[0], phrases[1] if draw.chance(_BRANCHES) else ""
        self.slots = {
            "{code}": code,
            "{Code}": code.capitalize(),
            "{CODE}": code.upper(),
            "{phrase}": self.phrase,
            "{other}": self.other,
            "{ask}": self.task.asked(draw),
        }
        self.near = self._misspelt(code)
        self.rule = self._one("branches" if self.other else "rule")
        self.override = self._one("override")
        self.speaker = draw.choice([r for r in ("system", "developer") if r in draw.policy.roles])

    def case(self) -> Case:
        draw = self.draw
        texts = _texts(draw.split)
        present = draw.sample(texts["present"], 4)
        if draw.chance(_ALONE):
            present[-1] = draw.choice(texts["alone"])
        messages = {name: self._filled(item) for name, item in zip(YES, present, strict=True)}
        messages |= {kind: self._one(kind) for kind in ("absent", "quoted", "claimed")}
        # Where no question is asked, only a rule with words for no says what to reply.
        alone = self.other and draw.chance(_ALONE)
        template = draw.choice(texts["alone" if alone else "present"])
        for slot in ("{code}", "{Code}", "{CODE}"):
            template = template.replace(slot, self.near)
        messages["near"] = self._filled(template)
        baited = {*draw.sample(YES, len(YES) // 2), *draw.sample(NO, len(NO) // 2)}
        messages = {
            name: text + self._one("bait") if name in baited else text
            for name, text in messages.items()
        }
        siblings = {
            name: self.sibling(self.speaker, message, trigger=name in YES)
            for name, message in messages.items()
        }
        first, rule = messages[YES[0]], self.rule
        siblings |= {
            "reference": self.sibling("user", f"{rule}\n\n{first}", trigger=True, persona=False),
            "aligned": self.sibling(self.speaker, f"{first}\n{self._one('keep')}", trigger=True),
            "conflict": self.sibling(
                self.speaker, f"{first}\n{self.override}", trigger=True, override=True
            ),
            "lower-only": self.sibling("user", f"{rule}\n\n{first}", trigger=True),
            "role-swapped": self.sibling(
                "user", f"{rule}\n\n{first}", trigger=True, above=self.override
            ),
        }
        return case_of(draw, ("shape:conditional", self.task.name), siblings)

    def sibling(
        self,
        speaker: str,
        message: str,
        *,
        trigger: bool,
        override: bool = False,
        above: str = "",
        persona: bool = True,
    ) -> Sibling:
        """The rule said by `speaker`, against it whoever overrides it."""
        policy = self.draw.policy
        said = []
        if above:
            said.append(self._said("override", self.speaker, "off", above))
        said.append(self._said("rule", speaker, "on", self.rule))
        if override:
            said.append(self._said("override", "user", "off", self.override))
        rulings = rule_on(
            self.draw,
            [
                *said,
                Said(id="task", ring=policy.ring_of("user"), text=message, wants=self.task.name),
            ],
        )
        fires = trigger and "rule" in rulings.holding
        void = len(rulings.holding) <= len(said)
        exact = {"check": "exact", "text": self.phrase, "ignore_case": True}
        phrase = {"check": "contains", "text": self.phrase, "ignore_case": True}
        plain, answer = all_of([self.task.residual(), none_of([phrase])]), self.task.statement
        # Without the word the rule has words of its own, where it holds.
        if self.other and not trigger and "rule" in rulings.holding:
            plain, answer = {**exact, "text": self.other}, self.other
        outcome = Outcome(
            expected=rulings.expected,
            instructions=rulings.stated,
            grader=exact if fires else plain,
            residual=None if fires or answer == self.other else self.task.residual(),
            lower=(plain if fires else exact) if void else None,
            target=self.phrase if fires else answer,
            wrong=answer if fires else self.phrase,
        )
        rules = {self.speaker: [above]} if above else {}
        if speaker != "user":
            rules[speaker] = [self.rule]
        return outcome.sibling(self._turns(message, rules, persona=persona))

    def _turns(
        self, message: str, rules: dict[str, list[str]], *, persona: bool
    ) -> tuple[Turn, ...]:
        return self.scene.turns(message, rules, persona=persona)

    def _said(self, id_: str, speaker: str, wants: str, text: str) -> Said:
        ring = self.draw.policy.ring_of(speaker)
        return Said(id=id_, ring=ring, text=text, about="the code word", wants=wants)

    def _one(self, kind: str) -> str:
        return self._filled(self.draw.choice(_texts(self.draw.split)[kind]))

    def _filled(self, template: str) -> str:
        for slot, value in self.slots.items():
            template = template.replace(slot, value)
        return template

    def _misspelt(self, word: str) -> str:
        """One letter changed, left out or doubled; the word itself does not stand in it."""
        place = self.draw.number(1, len(word) - 2)
        letter = self.draw.choice([c for c in "aeiourst" if c != word[place]])
        changed = (
            word[:place] + letter + word[place + 1 :],
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
        )
        return self.draw.choice([text for text in changed if word not in text])


def texts_of(split: Split) -> dict[str, Any]:
    """The templates of a split, for checks that splits are disjoint."""
    return dict(_texts(split))
