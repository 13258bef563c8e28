"""Recipe composition: a task and one to four constraints that go together, scattered over rings."""

from __future__ import annotations

from collections.abc import Sequence

from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.conditional import conditional
from ringfence.synthesis.constraints import Constraint, draw_compatible, draw_pair
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.scene import Scene, speakers
from ringfence.synthesis.settling import Said, case_of, settle
from ringfence.synthesis.tasks import draw_task

# Out of so many cases one is about a conditional rule.
_CONDITIONAL = 4
# How many constraints stand beside the first: few in most cases, since who does not manage all of
# them shows nothing of whom it obeys.
_FURTHER = (0, 0, 0, 0, 1, 1, 2, 3)


def composition(draw: Draw) -> Case:
    """One case."""
    return conditional(draw) if draw.index % _CONDITIONAL == 3 else scattered(draw)


def scattered(draw: Draw) -> Case:
    """A task and constraints, each with a speaker of its own."""
    return _Scattered(draw).case()


class _Scattered:
    def __init__(self, draw: Draw) -> None:
        self.draw = draw
        first, self.rival = draw_pair(draw)
        self.constraints = [
            first,
            *draw_compatible(draw, draw.choice(_FURTHER), (first, self.rival)),
        ]
        self.task = draw_task(draw, (*self.constraints, self.rival), posted=True)
        self.scene = Scene(draw, self.task.context)
        self.ask = self.task.asked(draw)
        roles = [role for role in speakers(draw.policy) if role != "tool"]
        # The first speaks above the user, so that a rival of it can stand below.
        above = [role for role in roles if role != "user"]
        self.roles = [draw.choice(above), *(draw.choice(roles) for _ in self.constraints[1:])]

    def case(self) -> Case:
        users = ["user"] * len(self.constraints)
        first, *others = self.constraints
        siblings = {
            "reference": self.sibling(self.constraints, users, persona=False),
            "aligned": self.sibling(self.constraints, self.roles),
            "conflict": self.sibling([*self.constraints, self.rival], [*self.roles, "user"]),
            "lower-only": self.sibling(self.constraints, users),
            "role-swapped": self.sibling([self.rival, *others, first], [*self.roles, "user"]),
        }
        families = (*(item.family for item in self.constraints), self.task.name)
        return case_of(self.draw, families, siblings)

    def sibling(
        self, constraints: Sequence[Constraint], roles: Sequence[str], *, persona: bool = True
    ) -> Sibling:
        ring = self.draw.policy.ring_of("user")
        wish = Said(id="task", ring=ring, text=self.task.ask, wants=self.task.name)
        said = [
            Said(
                id=f"{role}-{number}",
                ring=self.draw.policy.ring_of(role),
                text=self.scene.say(constraint, role),
                constraint=constraint,
            )
            for number, (constraint, role) in enumerate(zip(constraints, roles, strict=True))
        ]
        order = list(speakers(self.draw.policy))
        said.sort(key=lambda item: order.index(item.id.split("-")[0]))
        rules: dict[str, list[str]] = {}
        for item in said:
            rules.setdefault(item.id.split("-")[0], []).append(item.text)
        turns = self.scene.turns(self.ask, rules, persona=persona)
        return settle(self.draw, self.task, [wish, *said], self.scene.seed).sibling(turns)
