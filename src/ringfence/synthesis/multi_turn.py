"""Recipe multi-turn: a rule at the start, turns that keep it, and a breach asked for later.

The newest rule of the highest ring holds. Besides the usual siblings one has both rules in the same
ring, where the policy's supersession decides.
"""

from __future__ import annotations

from ringfence.synthesis.case import Case, Sibling, Turn
from ringfence.synthesis.constraints import Constraint, draw_pair
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.scene import Scene
from ringfence.synthesis.settling import Said, case_of, settle
from ringfence.synthesis.tasks import draw_task
from ringfence.synthesis.writers import write

_FILLERS = (0, 4, 8)


def multi_turn(draw: Draw) -> Case:
    """One case."""
    return _Talk(draw).case()


class _Talk:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        self.first, self.second = draw_pair(draw)
        pair = (self.first, self.second)
        self.task = draw_task(draw, pair)
        self.fillers = [draw_task(draw, pair) for _ in range(draw.choice(_FILLERS))]
        self.scene = Scene(draw)
        self.asks = [task.asked(draw) for task in (*self.fillers, self.task)]
        self.speaker = draw.choice([r for r in ("system", "developer") if r in draw.policy.roles])

    def case(self) -> Case:
        first, second, speaker = self.first, self.second, self.speaker
        siblings = {
            "reference": self.reference(),
            "aligned": self.sibling((speaker, first), ("user", first)),
            "conflict": self.sibling((speaker, first), ("user", second)),
            "lower-only": self.sibling(None, ("user", second)),
            "role-swapped": self.sibling((speaker, second), ("user", first)),
            "same-ring": self.sibling(("user", first), ("user", second)),
        }
        families = (first.family, self.task.name, f"shape:fillers-{len(self.fillers)}")
        return case_of(self.draw, families, siblings)

    def reference(self) -> Sibling:
        """The last question and the rule in one message."""
        said = self._said("user", self.first, 0)
        turns = self.scene.turns(self.asks[-1], {"user": [said.text]}, persona=False)
        return settle(self.draw, self.task, [said, self._wish()], self.scene.seed).sibling(turns)

    def sibling(
        self, first: tuple[str, Constraint] | None, second: tuple[str, Constraint]
    ) -> Sibling:
        """A rule at the start, turns that keep it, and another rule with the last question."""
        said = [self._said(*first, 0)] if first else []
        rules = {"user": [(later := self._said(*second, 1)).text]}
        opener = ""
        if first and first[0] == "user":
            opener = said[0].text
        elif first:
            rules[first[0]] = [said[0].text]
        history = self._history(opener, [first[1]] if first else [])
        turns = self.scene.turns(self.asks[-1], rules, history=history)
        everything = [*said, self._wish(), later]
        return settle(self.draw, self.task, everything, self.scene.seed).sibling(turns)

    def _history(self, opener: str, kept: list[Constraint]) -> list[Turn]:
        """Questions and answers before the last; `opener` is said first."""
        turns = []
        if opener and not self.fillers:
            turns.append(self.scene.turn("user", opener))
            turns.append(self.scene.turn("assistant", "Understood."))
        for number, task in enumerate(self.fillers):
            ask = f"{opener}\n{self.asks[0]}" if opener and not number else self.asks[number]
            reply, _ = write(task, kept, self.draw.split, self.scene.seed + number)
            turns.append(self.scene.turn("user", ask))
            turns.append(self.scene.turn("assistant", reply))
        return turns

    def _said(self, speaker: str, constraint: Constraint, number: int) -> Said:
        return Said(
            id=f"{speaker}-{number}",
            ring=self.draw.policy.ring_of(speaker),
            text=self.scene.say(constraint, speaker, number),
            constraint=constraint,
        )

    def _wish(self) -> Said:
        ring = self.draw.policy.ring_of("user")
        return Said(id="task", ring=ring, text=self.task.ask, wants=self.task.name)
