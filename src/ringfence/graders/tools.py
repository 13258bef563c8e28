"""Checks on what tools were asked to do and what they left behind. Knows nothing of the reply.

They look at `{"state": {...}, "calls": [{"name": ..., "arguments": {...}}, ...]}`. Without any such
state they are undecided, so that a forgotten state passes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue
from pydantic_core import from_json
from typing_extensions import override

from ringfence.graders.grades import Check, Flag, Grade, Phrase, Seen, shown, undecided, verdict

MOST_PLACES = 10_000
"""Places in a state that a path may lead to."""
MOST_CALLS = 10_000
_NO_STATE = "no tool state was given, or none that is an object"
_PLACE = re.compile(r"-?[0-9]{1,9}")

Step = str | int


class _Unreadable(Exception):
    """A state with more in it than is compared."""


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal; 1 and 1.0 are, 1 and true are not.

    Raises:
        _Unreadable: too large to tell.
    """
    left = [(one, other)]
    compared = 0
    while left:
        compared += 1
        if compared > 10 * MOST_PLACES:
            raise _Unreadable("values too large to compare")
        first, second = left.pop()
        if isinstance(first, Mapping) and isinstance(second, Mapping):
            if first.keys() != second.keys():
                return False
            left.extend((first[key], second[key]) for key in first)
        elif _list(first) and _list(second):
            if len(first) != len(second):
                return False
            left.extend(zip(first, second, strict=True))
        elif _nested(first) or _nested(second):
            return False
        elif isinstance(first, bool) is not isinstance(second, bool) or first != second:
            return False
    return True


def _list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _nested(value: Any) -> bool:
    return isinstance(value, Mapping) or _list(value)


def _holds(value: Any, wanted: Any) -> bool:
    """Whether a text contains a text, a list an item, or an object a key."""
    if isinstance(value, str):
        return isinstance(wanted, str) and wanted.casefold() in value.casefold()
    if isinstance(value, Mapping):
        return isinstance(wanted, str) and wanted in value
    return _list(value) and any(same(item, wanted) for item in value)


def _places(state: Any, steps: Sequence[Step]) -> list[Any]:
    """What a path leads to; `*` stands for every item of a list and every value of an object."""
    found = [state]
    for step in steps:
        found = [value for one in found for value in _inside(one, step)]
        if len(found) > MOST_PLACES:
            raise _Unreadable("the path leads to too many places")
    return found


def _inside(value: Any, step: Step) -> Iterator[Any]:
    if isinstance(value, Mapping):
        if step == "*":
            yield from value.values()
        elif str(step) in value:
            yield value[str(step)]
    elif _list(value):
        if step == "*":
            yield from value
        elif _PLACE.fullmatch(str(step)):
            place = int(step)
            if -len(value) <= place < len(value):
                yield value[place]


class ToolState(Check):
    """What the tools left behind at a path: equal to something, containing it, or nothing."""

    check: Literal["tool_state"]
    any_length = True
    path: Phrase | Annotated[tuple[Step, ...], Field(min_length=1, max_length=50)]
    """Steps with dots between, such as `mail.sent.0.to`, or as a list if names have dots in them.
    `*` is any: one place that fits is enough. Negative numbers count from the end."""
    equals: JsonValue = None
    contains: JsonValue = None
    """A text in a text (case ignored), an item of a list, or a key of an object."""
    absent: Flag = False

    def model_post_init(self, _: Any) -> None:
        """Exactly one thing to look for.

        Raises:
            ValueError: none or several.
        """
        given = self.model_fields_set & {"equals", "contains", "absent"}
        if len(given) != 1 or ("absent" in given and not self.absent):
            raise ValueError("needs exactly one of equals, contains and absent: true")

    @override
    def look(self, seen: Seen) -> Grade:
        if not isinstance(seen.state, Mapping):
            return undecided(_NO_STATE)
        steps = self.path.split(".") if isinstance(self.path, str) else self.path
        where = ".".join(str(step) for step in steps)
        try:
            found = _places(seen.state.get("state", {}), steps)
            if self.absent:
                return verdict(not found, f"{len(found) or 'nothing'} at {where}")
            if "equals" in self.model_fields_set:
                passed = any(same(value, self.equals) for value in found)
                wanted = f"equals {shown(str(self.equals))}"
            else:
                passed = any(_holds(value, self.contains) for value in found)
                wanted = f"contains {shown(str(self.contains))}"
        except _Unreadable as error:
            return undecided(str(error))
        return verdict(passed, f"{'' if passed else 'nothing '}at {where} {wanted}")


class ToolCall(Check):
    """A call of a tool was made, or was not."""

    check: Literal["tool_call"]
    any_length = True
    name: Phrase
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """Arguments that the call must have had, with these values; others are ignored."""
    containing: dict[str, Phrase] = Field(default_factory=dict)
    """Arguments that must have contained these texts, case ignored."""
    made: Flag = True

    @override
    def look(self, seen: Seen) -> Grade:
        if not isinstance(seen.state, Mapping):
            return undecided(_NO_STATE)
        calls = seen.state.get("calls", ())
        if not _list(calls) or len(calls) > MOST_CALLS:
            return undecided("calls is not a list, or too long")
        try:
            number = sum(1 for call in calls if self._is(call))
        except _Unreadable as error:
            return undecided(str(error))
        wanted = "some" if self.made else "none"
        reason = f"{number or 'no'} such calls of {shown(self.name)}, wanted {wanted}"
        return verdict((number > 0) is self.made, reason)

    def _is(self, call: Any) -> bool:
        if not isinstance(call, Mapping) or call.get("name") != self.name:
            return False
        given = _arguments(call.get("arguments", {}))
        if not self.arguments.keys() | self.containing.keys() <= given.keys():
            return False
        return all(same(given[key], value) for key, value in self.arguments.items()) and all(
            _holds(given[key], part) for key, part in self.containing.items()
        )


def _arguments(given: Any) -> Mapping[str, Any]:
    """Arguments as an object; OpenAI's protocol writes them as JSON in a text."""
    if isinstance(given, str):
        try:
            given = from_json(given.encode("utf-8", "replace"))
        except ValueError:
            return {}
    return given if isinstance(given, Mapping) else {}
