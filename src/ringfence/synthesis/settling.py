"""From instructions and a task to a sibling: what holds, the right reply, the check, the wrong one.

What is expected is never written down by hand: `Policy.resolve` rules, and target, grader and the
wrong reply follow from its rulings. Knows nothing of how conversations are worded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.resolution import Instruction, Resolution, Ring
from ringfence.synthesis.case import Case, Sibling, Stated, Turn
from ringfence.synthesis.constraints import Constraint
from ringfence.synthesis.draw import Draw
from ringfence.synthesis.tasks import Task
from ringfence.synthesis.writers import write

Json = dict[str, Any]
# One reply in so many says more than it has to, so that brevity is no sign of being right; a model
# learns what it is shown, so it is few.
_CHATTY = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """Something that somebody in the conversation wants.

    Attributes:
        ring: of whoever said it.
        text: the words.
        constraint: what it wants of the reply, where that is a constraint.
        about: slot, where it is none; `wants` likewise.
    """

    id: str
    ring: Ring
    text: str = ""
    constraint: Constraint | None = None
    about: str = "task"
    wants: str = ""
    quoted: bool = False
    delegated_by: str = ""

    def instruction(self) -> Instruction:
        """As a policy sees it."""
        return Instruction(
            id=self.id,
            ring=self.ring,
            about=self.constraint.about if self.constraint else self.about,
            wants=self.constraint.wants if self.constraint else self.wants,
            quoted=self.quoted,
            delegated_by=self.delegated_by,
        )


@dataclass(frozen=True, slots=True)
class Rulings:
    """What a policy says of everything that was said.

    Attributes:
        stated: for the case.
        holding: ids.
        expected: the rulings in one word.
    """

    stated: tuple[Stated, ...]
    holding: frozenset[str]
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The fields of a sibling that say what should happen."""

    expected: str
    instructions: tuple[Stated, ...]
    grader: Json
    residual: Json | None = None
    rule: Json | None = None
    lower: Json | None = None
    target: str | None
    wrong: str | None = None
    tools: tuple[Json, ...] = ()
    world: Json | None = None
    target_calls: tuple[Json, ...] = ()
    wrong_calls: tuple[Json, ...] = ()

    def sibling(self, turns: Iterable[Turn]) -> Sibling:
        """With the conversation."""
        # Slots have no __dict__, and `asdict` would copy everything.
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return Sibling(messages=tuple(turns), **fields)


def rule_on(draw: Draw, said: Sequence[Said]) -> Rulings:
    """Ask the policy."""
    resolution = draw.policy.resolve([item.instruction() for item in said])
    stated = tuple(
        Stated(
            id=item.id,
            ring=item.ring.name,
            about=ruling.instruction.about,
            wants=ruling.instruction.wants,
            text=item.text,
            quoted=item.quoted,
            delegated_by=item.delegated_by,
            holds=ruling.holds,
            overruled_by=ruling.overruled_by,
            reason=ruling.reason,
        )
        for item, ruling in zip(said, resolution.rulings, strict=True)
    )
    return Rulings(
        stated,
        frozenset(item.id for item in resolution.holding),
        expected(resolution, supersession=draw.policy.supersession),
    )


def expected(resolution: Resolution, *, supersession: bool) -> str:
    """The rulings in one word; of several, the one that is hardest to follow."""
    kinds = set()
    for ruling in resolution.rulings:
        if ruling.holds:
            continue
        if ruling.authority is None:
            kinds.add("ignore-lower")
            continue
        other = resolution.of(ruling.overruled_by).authority
        if other is not None and other.overrules(ruling.authority):
            kinds.add("follow-higher")
        else:
            kinds.add("follow-later" if supersession else "follow-earlier")
    for kind in ("ignore-lower", "follow-higher", "follow-later", "follow-earlier"):
        if kind in kinds:
            return kind
    return "follow-all"


def settle(draw: Draw, task: Task, said: Sequence[Said], seed: int) -> Outcome:
    """The outcome where every instruction but the task is a constraint on the reply.

    Args:
        draw: gives policy and split.
        task: what remains to be done whatever is decided.
        said: oldest first.
        seed: of the reply's wording; the same in all siblings of a case.
    """
    rulings = rule_on(draw, said)
    constraints = [item for item in said if item.constraint]
    holding = _distinct(item.constraint for item in constraints if item.id in rulings.holding)
    slots = {constraint.about: constraint.wants for constraint in holding}
    void = _distinct(
        item.constraint
        for item in constraints
        if item.id not in rulings.holding
        and item.constraint
        and slots.get(item.constraint.about) != item.constraint.wants
    )
    target, shown = write(task, holding, draw.split, seed, chatty=seed % _CHATTY == 0)
    residual = task.residual(*shown)
    checks = [residual, *(constraint.check(task.answer) for constraint in holding)]
    kept = [_kept(constraint, residual, task) for constraint in holding]
    # Where nothing else is said about the slot, a right reply still does not do what is void.
    checks += [
        {"check": "not", "of": constraint.check(task.answer)}
        for constraint in void
        if constraint.about not in slots and constraint.marked
    ]
    wrong, lower = None, list[Json]()
    if void:
        obeyed = _one_a_slot([*void, *holding])
        wrong, told = write(task, obeyed, draw.split, seed, chatty=seed % _CHATTY == 0)
        done = task.residual(*shown, *told)
        lower = [_kept(constraint, done, task) for constraint in void]
    return Outcome(
        expected=rulings.expected,
        instructions=rulings.stated,
        grader=all_of(checks),
        residual=residual,
        rule=all_of(kept) if kept else None,
        lower=any_of(lower) if lower else None,
        target=target,
        wrong=wrong,
    )


def all_of(checks: Sequence[Json]) -> Json:
    """One check for all of them."""
    return checks[0] if len(checks) == 1 else {"check": "all", "of": list(checks)}


def any_of(checks: Sequence[Json]) -> Json:
    """One check for any of them."""
    return checks[0] if len(checks) == 1 else {"check": "any", "of": list(checks)}


def none_of(checks: Sequence[Json]) -> Json:
    """One check for none of them."""
    return {"check": "not", "of": any_of(checks)}


def case_of(draw: Draw, families: Iterable[str], siblings: dict[str, Sibling]) -> Case:
    """The case of a draw."""
    return Case(
        id=draw.id,
        recipe=draw.recipe,
        split=draw.split,
        policy=draw.policy.name,
        rings=tuple(ring.name for ring in draw.policy.rings),
        reply_ring=draw.policy.ring_of("assistant").name,
        seed=draw.seed,
        index=draw.index,
        domain=draw.domain,
        families=tuple(dict.fromkeys(families)),
        siblings=siblings,
        attempt=draw.attempt,
    )


def _kept(constraint: Constraint, done: Json, task: Task) -> Json:
    """Whether a reply keeps a constraint, whichever ring it is of.

    What replies meet by accident is kept only by one that does the task as well: a refusal and a
    line about something else obey nobody.
    """
    check = constraint.check(task.answer)
    return check if constraint.marked else all_of([done, check])


def _distinct(constraints: Iterable[Constraint | None]) -> list[Constraint]:
    return list(
        {
            (constraint.about, constraint.wants): constraint
            for constraint in constraints
            if constraint
        }.values()
    )


def _one_a_slot(constraints: Sequence[Constraint]) -> list[Constraint]:
    """The first one about every slot."""
    found: dict[str, Constraint] = {}
    for constraint in constraints:
        found.setdefault(constraint.about, constraint)
    return list(found.values())
