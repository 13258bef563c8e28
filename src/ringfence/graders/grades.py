"""What a check says of a reply, and what it may read. Knows no particular check.

A check that cannot be carried out (the reply is too long, no tool state was given) is *undecided*:
it does not pass, and neither does its negation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StrictBool

LONGEST = 1_000_000
"""Characters up to which every check reads all of a reply."""
READING = 20_000_000
"""Characters that one grader may read in all, a costly check counting each several times."""
EXAMINED = 20
"""Characters that any examination counts as, whatever it reads (see `READING`)."""
SHOWN = 60

Text = Annotated[str, Field(max_length=20_000)]
Phrase = Annotated[str, Field(min_length=1, max_length=20_000)]
Visible = Annotated[str, Field(min_length=1, max_length=20_000, pattern=r"\S")]
"""Not only space."""
Flag = StrictBool
Number = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]

_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Grade:
    """Verdict on one reply.

    Attributes:
        passed: the reply is as the grader wants it.
        reason: why, in words.
        decided: False if the check could not be carried out; `passed` is False then.
    """

    passed: bool
    reason: str
    decided: bool = True


class Seen:
    """What a grader looks at: the reply, what the tools left behind, and how much may be read."""

    __slots__ = ("left", "reply", "state")

    def __init__(self, reply: str, state: Mapping[str, Any] | None, left: int = READING) -> None:
        """What is seen; `left` is how many characters may be read."""
        # Halves of surrogate pairs are no text: no library encodes them.
        self.reply = _SURROGATE.sub("\ufffd", reply)
        self.state = state
        self.left = left

    def pay(self, characters: int) -> bool:
        """Whether so much may still be read; if so it counts as read."""
        if characters > self.left:
            return False
        self.left -= characters
        return True


class Check(BaseModel):
    """A check as data. Subclasses add the field `check`, which names them.

    Attributes:
        cost: how many times a character counts that is read (see `READING`).
        any_length: the check itself sees to replies longer than `LONGEST`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    cost: ClassVar[int] = 1
    any_length: ClassVar[bool] = False

    def price(self, length: int) -> int:
        """What reading a reply of so many characters counts (see `READING`)."""
        return min(length, LONGEST) * self.cost

    def look(self, seen: Seen) -> Grade:
        """The verdict; never raises, whatever was seen."""
        raise NotImplementedError


def examine(check: Check, seen: Seen) -> Grade:
    """The check's verdict, unless the reply is too long for it or too much was read already."""
    length = len(seen.reply)
    if length > LONGEST and not check.any_length:
        return undecided(f"a reply of {length:,} characters is too long to check")
    # Refusals are paid for too: thousands of them may follow when little is left.
    if not seen.pay(EXAMINED) or not seen.pay(check.price(length)):
        return undecided(f"too many checks for a reply of {length:,} characters")
    return check.look(seen)


def verdict(passed: bool, reason: str) -> Grade:
    """A decided grade."""
    return Grade(passed=passed, reason=reason)


def undecided(reason: str) -> Grade:
    """A grade that is neither."""
    return Grade(passed=False, reason=reason, decided=False)


def shown(text: str) -> str:
    """A text as reasons quote it: short, on one line, nothing invisible."""
    cut = text if len(text) <= SHOWN else text[:SHOWN] + "…"
    return repr(cut)


class Bounded(Check):
    """A check on a number; at least one of the bounds must be given."""

    at_least: Number | None = None
    at_most: Number | None = None

    def model_post_init(self, _: Any) -> None:
        """Bounds that can be met, and at least one.

        Raises:
            ValueError: none, or at_most below at_least.
        """
        if self.at_least is None and self.at_most is None:
            raise ValueError("needs at_least, at_most or both")
        if self.at_least is not None and self.at_most is not None and self.at_most < self.at_least:
            raise ValueError("at_most is below at_least, which no reply can meet")

    def within(self, number: int, what: str) -> Grade:
        """Whether the number is within the bounds; `what` names what was counted."""
        low, high = self.at_least or 0, self.at_most
        wanted = f"at least {low}" if high is None else f"{low} to {high}" if low else f"≤ {high}"
        passed = number >= low and (high is None or number <= high)
        return verdict(passed, f"{number} {what}, wanted {wanted}")
