"""Recipe conflict: two constraints that exclude each other, at two rings.

The right reply obeys the one that holds and does the remaining task: an empty one obeys nobody.
"""

from __future__ import annotations

from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.constraints import Constraint, draw_compatible, draw_pair
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.scene import Scene, draw_speakers
from ringfence.synthesis.settling import Said, case_of, settle
from ringfence.synthesis.tasks import Task, draw_task


def conflict(draw: Draw) -> Case:
    """One case."""
    upper, lower = draw_speakers(draw)
    high, low = draw_pair(draw, marked=lower == "tool")
    if lower == "tool" and not high.marked:
        # Swapped, it is the other one that stands in the tool's text.
        lower = "user"
        upper = "system"
    beside = draw_compatible(draw, draw.choice((0, 0, 0, 1)), (high, low))
    duel = Duel(draw, draw_task(draw, (high, low, *beside), posted=True), upper, lower, beside)
    siblings = {
        "reference": duel.merged(high),
        "aligned": duel.sibling(high, high),
        "conflict": duel.sibling(high, low),
        "lower-only": duel.sibling(None, low),
        "role-swapped": duel.sibling(low, high),
    }
    families = (high.family, *(item.family for item in beside), duel.task.name)
    return case_of(draw, families, siblings)


class Duel:
    """Two speakers, a task, and constraints that both of them leave alone."""

    def __init__(
        self, draw: Draw, task: Task, upper: str, lower: str, beside: list[Constraint]
    ) -> None:
        """Set the scene.

        Args:
            draw: of the case.
            task: what is asked.
            upper: who speaks first.
            lower: who speaks later.
            beside: what the first speaker wants besides.
        """
        self.draw, self.task = draw, task
        self._upper, self._lower, self._beside = upper, lower, beside
        self._scene = Scene(draw, task.context)
        ask = draw.opening("lookup", ask=task.ask) if lower == "tool" else task.ask
        self._ask = task.asked(draw, ask)

    def merged(self, *constraints: Constraint) -> Sibling:
        """Everything in one user message."""
        said = [self._said("user", item, n) for n, item in enumerate((*constraints, *self._beside))]
        rules = {"user": [item.text for item in said]}
        turns = self._scene.turns(self._ask, rules, persona=False)
        outcome = settle(self.draw, self.task, [*said, self._wish()], self._scene.seed)
        return outcome.sibling(turns)

    def sibling(self, high: Constraint | None, low: Constraint) -> Sibling:
        """The first speaker wants `high`, the later one `low`."""
        wanted = ([high] if high else []) + self._beside
        said = [self._said(self._upper, item, n) for n, item in enumerate(wanted)]
        rules: dict[str, list[str]] = {self._lower: []}
        rules[self._upper] = [item.text for item in said]
        later = self._said(self._lower, low, len(said))
        rules[self._lower].append(later.text)
        turns = self._scene.turns(self._ask, rules)
        everything = [*said, self._wish(), later]
        outcome = settle(self.draw, self.task, everything, self._scene.seed)
        sibling = outcome.sibling(turns)
        if self._lower == "tool":
            return sibling.model_copy(update={"tools": self._scene.tools()})
        return sibling

    def _said(self, speaker: str, constraint: Constraint, number: int) -> Said:
        return Said(
            id=f"{speaker}-{number}",
            ring=self.draw.policy.ring_of(speaker),
            text=self._scene.say(constraint, speaker),
            constraint=constraint,
        )

    def _wish(self) -> Said:
        ring = self.draw.policy.ring_of("user")
        return Said(id="task", ring=ring, text=self.task.ask, wants=self.task.name)
