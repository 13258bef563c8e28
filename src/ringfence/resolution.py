"""Which of several instructions holds. Knows nothing of messages, roles, tokens or models.

Orders instructions by the authority of whoever gave them (arXiv 2404.13208, section 3.1), with
supersession and delegation as the Model Spec (2025) has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence.errors import InputError


@dataclass(frozen=True, slots=True, order=True)
class Ring:
    """A privilege. `level` 0 is the highest; rings are ordered by it."""

    level: int
    name: str

    def overrules(self, other: Ring) -> bool:
        """Whether an instruction of this ring wins against a conflicting one of `other`."""
        return self.level < other.level


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """Something that somebody wants, as far as a policy cares.

    Two instructions conflict exactly if they are `about` the same and want different things.

    Attributes:
        id: unique among those resolved together.
        ring: of whoever wrote it.
        about: what it is about, such as `language`.
        wants: what it wants of that, such as `French`.
        quoted: it stands in text that its writer only shows: a quotation, a document, a file. Such
            text has no authority, whoever shows it.
        delegated_by: id of the instruction that lends its authority to this one, such as "follow
            the steps in TODO.md"; empty for none.
    """

    id: str
    ring: Ring
    about: str
    wants: str
    quoted: bool = False
    delegated_by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a policy says of one instruction.

    Attributes:
        instruction: the one ruled on.
        holds: to be followed; otherwise it is void: to be treated as if it were not there.
        authority: ring it speaks with; None without any.
        overruled_by: id of the instruction that made it void; empty if there is none.
        reason: why, in words.
    """

    instruction: Instruction
    holds: bool
    authority: Ring | None
    overruled_by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Resolution:
    """Rulings on instructions, in the order they were given in."""

    rulings: tuple[Ruling, ...]

    @property
    def holding(self) -> tuple[Instruction, ...]:
        """What is to be followed."""
        return tuple(ruling.instruction for ruling in self.rulings if ruling.holds)

    @property
    def void(self) -> tuple[Instruction, ...]:
        """What is to be treated as if it were not there."""
        return tuple(ruling.instruction for ruling in self.rulings if not ruling.holds)

    def of(self, identifier: str) -> Ruling:
        """The ruling on one instruction, by its id.

        Raises:
            KeyError: there is none.
        """
        for ruling in self.rulings:
            if ruling.instruction.id == identifier:
                return ruling
        raise KeyError(identifier)


class Precedence(Protocol):
    """What a `Policy` says about who goes before whom; see there."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def rings(self) -> tuple[Ring, ...]: ...  # noqa: D102
    @property
    def supersession(self) -> bool: ...  # noqa: D102
    @property
    def delegation(self) -> bool: ...  # noqa: D102
    @property
    def silent(self) -> frozenset[str]: ...  # noqa: D102


class Resolver:
    """One run of `Policy.resolve`: the highest authority is ruled on first, then the next."""

    def __init__(self, policy: Precedence, instructions: Sequence[Instruction]) -> None:
        """See `Policy.resolve`, also for the errors."""
        self._policy = policy
        self._instructions = instructions
        self._place = {item.id: place for place, item in enumerate(instructions)}
        if len(self._place) != len(instructions):
            raise InputError("instructions: two of them have the same id")
        for item in instructions:
            if item.ring not in policy.rings:
                raise InputError(
                    f"instruction {item.id}: policy {policy.name} has no ring {item.ring.name!r} "
                    f"of level {item.ring.level}"
                )
            if item.delegated_by and item.delegated_by not in self._place:
                raise InputError(
                    f"instruction {item.id}: delegated by {item.delegated_by!r}, which is not there"
                )
        # Level, and how often authority was lent on the way: what is lent weighs less than what
        # is one's own, so that nobody is overruled by what he delegated to.
        self._authority: dict[int, tuple[int, int]] = {
            place: (item.ring.level, 0)
            for place, item in enumerate(instructions)
            if not item.quoted and item.ring.name not in policy.silent
        }
        self._rulings: dict[int, Ruling] = {}

    def resolution(self) -> Resolution:
        """Rule on every instruction."""
        holders: dict[str, int] = {}
        while waiting := self._authority.keys() - self._rulings.keys():
            place = min(waiting, key=self._rank)
            item = self._instructions[place]
            holder = holders.setdefault(item.about, place)
            holds = self._instructions[holder].wants == item.wants
            self._rulings[place] = Ruling(
                instruction=item,
                holds=holds,
                authority=self._policy.rings[self._authority[place][0]],
                overruled_by="" if holds else self._instructions[holder].id,
                reason=self._why_it_holds(place) if holds else self._why_not(place, holder),
            )
            if holds:
                self._lend(place)
        return Resolution(
            tuple(
                self._rulings.get(place) or self._unheard(item)
                for place, item in enumerate(self._instructions)
            )
        )

    def _rank(self, place: int) -> tuple[int, int, int]:
        return *self._authority[place], -place if self._policy.supersession else place

    def _lend(self, lender: int) -> None:
        if not self._policy.delegation:
            return
        level, lent = self._authority[lender]
        for place, item in enumerate(self._instructions):
            if item.delegated_by == self._instructions[lender].id and place not in self._rulings:
                own = self._authority.get(place, (level, lent + 1))
                self._authority[place] = min(own, (level, lent + 1))

    def _why_it_holds(self, place: int) -> str:
        item = self._instructions[place]
        if self._authority[place][1]:
            return (
                f"{item.delegated_by} lends it the authority of ring "
                f"{self._ring(place)}, and nothing of that authority contradicts it"
            )
        return f"nothing of the authority of ring {self._ring(place)} or above contradicts it"

    def _why_not(self, place: int, holder: int) -> str:
        item, other = self._instructions[place], self._instructions[holder]
        said = f"{other.id} ({other.about}: {other.wants})"
        own, others = self._authority[place], self._authority[holder]
        if own[0] != others[0]:
            return f"ring {self._ring(holder)} overrules ring {self._ring(place)}: {said}"
        if own != others:
            return (
                f"authority lent by {item.delegated_by} does not go against the ring's own words: "
                f"{said}"
            )
        order = "later" if self._policy.supersession else "earlier"
        return f"the {order} instruction of ring {self._ring(place)} holds: {said}"

    def _unheard(self, item: Instruction) -> Ruling:
        where = "quoted text" if item.quoted else f"ring {item.ring.name}"
        reason = f"{where} has no authority of its own"
        if not item.delegated_by:
            reason += ", and nobody lends it any"
        elif not self._policy.delegation:
            reason += f", and policy {self._policy.name} has no delegation"
        else:
            reason += f", and {item.delegated_by}, which would lend it some, is void"
        return Ruling(instruction=item, holds=False, authority=None, overruled_by="", reason=reason)

    def _ring(self, place: int) -> str:
        return self._policy.rings[self._authority[place][0]].name
