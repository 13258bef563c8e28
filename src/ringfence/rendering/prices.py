"""What the operations of a template cost, and who pays. Knows nothing of Jinja.

Whatever makes text or lists pays for its length, beforehand where that could be enormous, and looks
at the clock. So neither time nor memory grows beyond an allowance, whatever a template does.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, KeysView, Mapping, Set, ValuesView
from contextvars import ContextVar
from datetime import datetime
from typing import Any

_SECONDS = 10.0
_CHARACTERS = 32_000_000
_MOST_ITEMS = 500_000
_DEEPEST = 100
_PLAIN = (str, int, float, type(None))
_SIZED = (str, list, tuple)
_HOLDING = (Mapping, list, tuple, Set, KeysView, ValuesView, ItemsView)
# Inside a container, text is written as Python or JSON spell it: `\U000e0001`, `\udb40\udc01`.
_SPELT = 10
_SPELT_IN_JSON = 12
# Letters of the longest float.
_FLOAT = 330
_NUMBER = re.compile(r"\d+")
_NEEDLESS = ("encode", "expandtabs", "translate")


class TemplateFailed(Exception):
    """A template that cannot be compiled or run with these variables."""


class TemplateRefused(TemplateFailed):
    """A template that called `raise_exception`; the message is its own."""


class TemplateCostly(TemplateFailed):
    """A template that takes too long or makes too much text."""


class Allowance:
    """What the runs for one rendering may cost together, and the time they believe it is.

    Seconds are those of this thread's processor time, so a busy machine changes nothing.
    """

    def __init__(self, *, seconds: float = _SECONDS, now: datetime | None = None) -> None:
        """Start counting."""
        self.ends = time.thread_time() + seconds
        self.now = now or datetime.now()
        self.characters = 0

    def begin(self, variables: object) -> None:
        """Start a run: text it may make, in proportion to what it is given.

        Raises TemplateCostly where no time is left from the runs before.
        """
        self.tick()
        self.characters = _CHARACTERS + 64 * extent(variables, limit=_CHARACTERS)[0]

    def tick(self) -> None:
        """Raises TemplateCostly once the time is up."""
        if time.thread_time() > self.ends:
            raise TemplateCostly("it takes too long")

    def charge(self, size: int) -> None:
        """Pay for text or list items; raises TemplateCostly once nothing is left."""
        self.characters -= max(0, size)
        if self.characters < 0:
            raise TemplateCostly("it makes too much text")


PAYING: ContextVar[Allowance] = ContextVar("PAYING")


def extent(value: object, *, limit: int) -> tuple[int, int]:
    """Characters and items in a value when written out, and how deep it nests.

    What is contained twice counts twice, so a list that holds itself many times over is seen for
    what it would become.
    """
    size, items, deepest, waiting = 0, 0, 0, [(value, 0)]
    while waiting:
        item, depth = waiting.pop()
        items += 1
        size += _length(item)
        deepest = max(deepest, depth)
        if size > limit or items > _MOST_ITEMS or depth > _DEEPEST:
            raise TemplateCostly("it builds too large a value")
        if isinstance(item, _PLAIN):
            continue  # nearly everything is, and asking an abstract class is slow
        if isinstance(item, Mapping):
            waiting.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, _HOLDING):
            waiting.extend((part, depth + 1) for part in item)
    return size, deepest


def _length(item: object) -> int:
    if isinstance(item, str):
        return len(item) + 1
    return 1 + item.bit_length() // 4 if isinstance(item, int) else 1


def written(value: object) -> None:
    """Pay for a value that is about to become text."""
    allowance = PAYING.get()
    times = _SPELT if isinstance(value, _HOLDING) else 1
    allowance.charge(times * extent(value, limit=allowance.characters)[0])


def made(value: Any) -> Any:
    """Pay for a value that an operation made."""
    allowance = PAYING.get()
    allowance.tick()
    if isinstance(value, str | list | tuple | dict):
        allowance.charge(len(value))
    elif isinstance(value, int):
        allowance.charge(value.bit_length() // 8)
    return value


def pay(size: int) -> None:
    """Pay for something before it is made."""
    allowance = PAYING.get()
    allowance.tick()
    allowance.charge(size)


def field(form: str, value: object, times: int = 1) -> None:
    """Pay for a value that is formatted, to the width and precision that the format names.

    Args:
        form: a format; the largest number in it counts, whatever it means.
        value: to be formatted.
        times: how often.
    """
    numbers = _NUMBER.findall(form)
    if any(len(number) > 9 for number in numbers):
        raise TemplateCostly("it formats to an enormous width")
    size = extent(value, limit=PAYING.get().characters)[0]
    pay(times * (max(map(int, numbers), default=0) + _SPELT * size + _FLOAT))


def operation(operator: str, left: Any, right: Any) -> None:
    """Pay for what `+`, `*`, `**` or `%` would make."""
    if operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        pay(len(left) * _escaping(right) + len(right) * _escaping(left))
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, _SIZED) and isinstance(times, int):
                pay(len(many) * max(0, times))
        if isinstance(left, int) and isinstance(right, int):
            _small(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _small(left.bit_length() * abs(right))
    elif operator == "%" and isinstance(left, str):
        given = right if isinstance(right, tuple) else (right,)
        widths = [abs(one) for one in given if isinstance(one, int)] if "*" in left else []
        longest = max(given, key=lambda one: extent(one, limit=_CHARACTERS)[0], default=None)
        times = left.count("%")
        pay(times * max(widths, default=0))
        field(left, longest, times)


def _small(bits: int) -> None:
    if bits > 4096:
        raise TemplateCostly("it computes an enormous number")


def method(called: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Pay for what a method of text would make, where that is more than it was given.

    Returns what it is to be called with: generators, which nobody can pay for, as lists.
    """
    owner = getattr(called, "__self__", None)
    name = getattr(called, "__name__", "")
    if isinstance(owner, int | float) or (isinstance(owner, str) and name in _NEEDLESS):
        raise TemplateCostly(f"it calls {name} of {type(owner).__name__}, which no template needs")
    if not isinstance(owner, str):
        return args
    pay(len(owner))
    if name in ("center", "ljust", "rjust", "zfill"):
        pay(sum(arg for arg in args if isinstance(arg, int)))
    elif name == "replace" and all(isinstance(arg, str) for arg in args[:2]):
        replacing(owner, *args[:2])
    elif name == "join" and args:
        parts = list(args[0])
        joining(owner, parts)
        return (parts, *args[1:])
    return args


def replacing(text: str, old: str = "", new: str = "") -> None:
    """Pay for new text in the place of old."""
    pay((text.count(old) if old else len(text) + 1) * len(new) * _escaping(text))


def joining(between: str, parts: list[Any]) -> None:
    """Pay for parts that are joined."""
    pay(len(between) * len(parts) + sum(map(_length, parts)) * _escaping(between))


def _escaping(text: object) -> int:
    """How many characters text marked as safe makes of one that is put into it."""
    return 5 if hasattr(text, "__html__") else 1


def shape(value: Any) -> Any:
    """A literal without the characters in it, which were paid for when they were made."""
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    return [item for item in items if not isinstance(item, str)]


def filtering(name: str, value: Any, given: Mapping[str, Any]) -> None:
    """Pay for what a filter would make of a value, where that is more than it was given.

    Args:
        name: of the filter.
        value: to be filtered.
        given: everything else the filter was given, by name.
    """
    if name in ("batch", "slice", "round"):
        if any(isinstance(item, int) and abs(item) > 1000 for item in given.values()):
            raise TemplateCostly("it asks for an enormous number of items")
        return
    if name == "sum":
        if isinstance(given.get("start"), _SIZED):
            raise TemplateCostly("it adds up lists")
        return
    for item in (value, *given.values()):
        if not isinstance(item, str):
            written(item)
    if name == "format":
        operation("%", str(value), given.get("kwargs") or given.get("args"))
    elif name == "replace":
        replacing(str(value), str(given["old"]), str(given["new"]))
    elif name == "indent":
        width = given.get("width", 4)
        pay((str(value).count("\n") + 1) * (width if isinstance(width, int) else len(width)))
    elif name in ("e", "escape"):
        pay(5 * len(str(value)))


def in_json(value: object, indent: int | str | None, separators: tuple[str, str] | None) -> None:
    """Pay for a value that is written as JSON."""
    allowance = PAYING.get()
    size, depth = extent(value, limit=allowance.characters)
    wide = indent if isinstance(indent, int) else len(indent or "")
    between = sum(map(len, separators or ()))
    allowance.charge(size * (_SPELT_IN_JSON + between + max(0, wide) * depth))
