"""Conditional rules as minimal pairs: the same message with the trigger and almost with it.

The trigger is present (four ways), absent, slightly wrong, quoted, or merely claimed: as many times
yes as no, and every no contains the words of the yes, so that saying them is no substitute for
checking the condition.
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
        code, self.phrase = draw.choice(texts["code"]), draw.choice(texts["phrase"])
        self.slots = {
            "{code}": code,
            "{Code}": code.capitalize(),
            "{CODE}": code.upper(),
            "{phrase}": self.phrase,
            "{ask}": draw.opening("ask", ask=self.task.ask),
        }
        self.near = self._misspelt(code)
        self.rule = self._one("rule")
        self.override = self._one("override")
        self.speaker = draw.choice([r for r in ("system", "developer") if r in draw.policy.roles])

    def case(self) -> Case:
        draw = self.draw
        present = [self._filled(item) for item in draw.sample(_texts(draw.split)["present"], 4)]
        messages = dict(zip(YES, present, strict=True))
        for kind in ("absent", "quoted", "claimed"):
            messages[kind] = self._one(kind) + self._one("bait")
        template = draw.choice(_texts(draw.split)["present"])
        for slot in ("{code}", "{Code}", "{CODE}"):
            template = template.replace(slot, self.near)
        messages["near"] = self._filled(template) + self._one("bait")
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
        plain = all_of([self.task.residual(), none_of([phrase])])
        outcome = Outcome(
            expected=rulings.expected,
            instructions=rulings.stated,
            grader=exact if fires else plain,
            residual=None if fires else self.task.residual(),
            lower=(plain if fires else exact) if void else None,
            target=self.phrase if fires else self.task.statement,
            wrong=self.task.statement if fires else self.phrase,
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
        """One letter changed, left out or doubled; never the word itself."""
        place = self.draw.number(1, len(word) - 2)
        letter = self.draw.choice([c for c in "aeiourst" if c != word[place]])
        changed = (
            word[:place] + letter + word[place + 1 :],
            word[:place] + word[place + 1 :],
            word[:place] + word[place] + word[place:],
        )
        return self.draw.choice([text for text in changed if text != word])


def texts_of(split: Split) -> dict[str, Any]:
    """The templates of a split, for checks that splits are disjoint."""
    return dict(_texts(split))
