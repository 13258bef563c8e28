"""Writes the reply that meets constraints and still does the task. Knows nothing of rings.

A constraint is met by a template or by a writer named in data/constraints.yaml. Writing goes in
stages, from the language over length, words and layout to the letters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

from ringfence.synthesis.case import Split
from ringfence.synthesis.constraints import Constraint, data
from ringfence.synthesis.tasks import Task

# A reply so far, the constraint to meet, the answer as it is shown, and where to draw from.
Writer = Callable[[str, Constraint, str, "Desk"], str]


class Desk:
    """What a writer works with: fillers of a split, in an order drawn by a seed."""

    def __init__(self, split: Split, seed: int) -> None:
        """Shuffle the fillers."""
        self.fillers = list(data().fillers[split])
        Random(seed).shuffle(self.fillers)

    def more(self, text: str, enough: Callable[[str], bool], joint: str = " ") -> str:
        """The text with fillers behind it until it is enough."""
        place = 0
        while not enough(text):
            text = f"{text}{joint}{self.fillers[place % len(self.fillers)]}"
            place += 1
        return text


def write(
    task: Task, constraints: Sequence[Constraint], split: Split, seed: int, *, chatty: bool = False
) -> tuple[str, tuple[str, ...]]:
    """A reply to the task that meets the constraints, and the forms that the answer has in it.

    Args:
        task: what is to be done.
        constraints: any two of them compatible.
        split: whose fillers to use.
        seed: of their order.
        chatty: put a filler behind the statement where the length is free.
    """
    desk = Desk(split, seed)
    text, answer, shown = task.statement, task.answer, list[str]()
    touched = {aspect for constraint in constraints for aspect in constraint.touches}
    if chatty and not touched & {"length", "language", "all", "case", "frame"}:
        text = f"{text} {desk.fillers[-1]}"
    # Siblings state their constraints in different orders, and the reply is to be the same.
    for constraint in sorted(constraints, key=lambda one: (one.stage, one.family)):
        name, _, argument = constraint.variant.write.partition(":")
        if name in WRITERS:
            text = WRITERS[name](text, constraint, argument if name in _ARGUED else answer, desk)
        else:
            text = _template(text, constraint, answer)
        if name == "join":
            shown.append(argument.join(answer.split()))
    return text, tuple(shown)


def _template(text: str, constraint: Constraint, answer: str) -> str:
    parts = constraint.variant.write.replace("%v%", constraint.variant.v).replace("%A%", answer)
    return parts.replace("%S%", text)


def _mark(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    """The answer in its look; the last place is it, also where the answer is a word of the task."""
    before, found, after = text.rpartition(answer)
    assert found, f"{answer!r} is not in {text!r}"
    return before + constraint.variant.look.replace("%A%", answer) + after


def _language(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return data().languages[constraint.variant.code].replace("%A%", answer)


def _sentences(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return " ".join([text, *desk.fillers[: constraint.variant.n - 1]])


def _paragraphs(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return "\n\n".join([text, *desk.fillers[: constraint.variant.n - 1]])


def _words(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return desk.more(text, lambda text: len(text.split()) >= constraint.variant.n)


def _characters(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return desk.more(text, lambda text: len(text) >= constraint.variant.n)


def _acrostic(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    lines = [data().lines[letter] for letter in constraint.variant.v]
    lines[-1] = f"{lines[-1]}: {text}"
    return "\n".join(lines)


def _upper(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return text.upper()


def _lower(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return text.lower()


def _end(text: str, constraint: Constraint, ending: str, desk: Desk) -> str:
    return re.sub(r"[.!?]+(?=\s|$)", ending, text)


def _join(text: str, constraint: Constraint, joint: str, desk: Desk) -> str:
    return joint.join(text.replace(joint, " ").split())


def _loud_first(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return f"ANSWER: {text} So it is."


def _loud_last(text: str, constraint: Constraint, answer: str, desk: Desk) -> str:
    return f"{text} That is CERTAIN."


# Writers that take what stands after the colon in place of the answer.
_ARGUED = frozenset({"end", "join"})
WRITERS: dict[str, Writer] = {
    "mark": _mark,
    "language": _language,
    "sentences": _sentences,
    "paragraphs": _paragraphs,
    "words": _words,
    "characters": _characters,
    "acrostic": _acrostic,
    "upper": _upper,
    "lower": _lower,
    "end": _end,
    "join": _join,
    "loud-first": _loud_first,
    "loud-last": _loud_last,
}
