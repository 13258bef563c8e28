"""What the operations of a template cost, and who pays. Knows nothing of Jinja.

Whatever makes text or lists pays for its length, beforehand where that could be enormous, and looks
at the clock. So neither time nor memory grows beyond an allowance, whatever a template does.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextvars import ContextVar
from datetime import datetime
from typing import Any

_SECONDS = 10.0
_CHARACTERS = 32_000_000
_MOST_ITEMS = 500_000
_DEEPEST = 100
_SIZED = (str, list, tuple)
_WIDE = re.compile(r"\*|[0-9]{5,}")
_NESTED_WIDTH = re.compile(r"\{[^{}]*:[^{}]*\{|[0-9]{5,}")


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
        """Start a run: text it may make, in proportion to what it is given."""
        self.characters = _CHARACTERS + 64 * extent(variables, limit=_CHARACTERS)[0]

    def tick(self) -> None:
        """Raises TemplateCostly once the time is up."""
        if time.thread_time() > self.ends:
            raise TemplateCostly("it takes too long")

    def charge(self, size: int) -> None:
        """Pay for text or list items; raises TemplateCostly once nothing is left."""
        self.characters -= size
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
        size += len(item) + 1 if isinstance(item, str) else 1
        deepest = max(deepest, depth)
        if size > limit or items > _MOST_ITEMS or depth > _DEEPEST:
            raise TemplateCostly("it builds too large a value")
        if isinstance(item, Mapping):
            waiting.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list | tuple):
            waiting.extend((part, depth + 1) for part in item)
    return size, deepest


def written(value: object) -> None:
    """Pay for a value that is about to become text."""
    allowance = PAYING.get()
    if isinstance(value, str):
        allowance.charge(len(value))
    elif isinstance(value, Mapping | list | tuple):
        allowance.charge(extent(value, limit=allowance.characters)[0])


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


def _refuse_wide(pattern: re.Pattern[str], text: object) -> None:
    if isinstance(text, str) and pattern.search(text):
        raise TemplateCostly("it formats to an enormous width")


def operation(operator: str, left: Any, right: Any) -> None:
    """Pay for what `+`, `*`, `**` or `%` would make."""
    if operator == "+" and isinstance(left, _SIZED) and isinstance(right, _SIZED):
        pay(len(left) + len(right))
    elif operator == "*":
        for many, times in ((left, right), (right, left)):
            if isinstance(many, _SIZED) and isinstance(times, int):
                pay(len(many) * max(0, times))
        if isinstance(left, int) and isinstance(right, int):
            _small(left.bit_length() + right.bit_length())
    elif operator == "**" and isinstance(left, int) and isinstance(right, int):
        _small(left.bit_length() * abs(right))
    elif operator == "%" and isinstance(left, str):
        _refuse_wide(_WIDE, left)
        written(right)
        pay(left.count("%") * (len(right) if isinstance(right, str) else 0))


def formatting(form: str, given: object) -> None:
    """Pay for what `str.format` would make."""
    _refuse_wide(_NESTED_WIDTH, form)
    pay(form.count("{") * extent(given, limit=PAYING.get().characters)[0])


def _small(bits: int) -> None:
    if bits > 4096:
        raise TemplateCostly("it computes an enormous number")


def method(called: Any, args: tuple[Any, ...]) -> None:
    """Pay for what a method of text would make, where that is more than it was given."""
    owner = getattr(called, "__self__", None)
    if isinstance(owner, int | float | bytes):
        raise TemplateCostly(
            f"it calls a method of {type(owner).__name__}, which no template needs"
        )
    if not isinstance(owner, str):
        return
    pay(len(owner))
    name = getattr(called, "__name__", "")
    numbers = [arg for arg in args if isinstance(arg, int)]
    texts = [len(arg) for arg in args if isinstance(arg, str)]
    if name in ("center", "ljust", "rjust", "zfill"):
        pay(sum(numbers))
    elif name == "expandtabs":
        pay(owner.count("\t") * sum(numbers))
    elif name == "replace" and len(texts) > 1:
        pay((owner.count(args[0]) if args[0] else len(owner) + 1) * texts[1])
    elif name == "join" and args and isinstance(args[0], list | tuple):
        pay(len(owner) * len(args[0]) + sum(len(part) for part in args[0] if part))
    elif name == "translate":
        raise TemplateCostly("it translates text by a table")


def shape(value: Any) -> Any:
    """A literal without the characters in it, which were paid for when they were made."""
    items = list(value.values()) if isinstance(value, Mapping) else list(value)
    return [item for item in items if not isinstance(item, str)]


def filtering(name: str, value: Any, options: list[Any]) -> None:
    """Pay for what a filter would make of a value, where that is more than it was given."""
    texts = [item for item in options if isinstance(item, str)]
    number = max((abs(item) for item in options if isinstance(item, int)), default=0)
    for item in (value, *options):
        written(item)
    if name in ("batch", "slice", "round") and number > 1000:
        raise TemplateCostly("it asks for an enormous number of items")
    if name == "format" and isinstance(value, str):
        _refuse_wide(_WIDE, value)
        pay(value.count("%") * max(map(len, texts), default=0))
    elif name == "replace" and len(texts) > 1:
        text = str(value)
        pay((text.count(texts[0]) if texts[0] else len(text) + 1) * len(texts[1]))
    elif name == "indent":
        pay((str(value).count("\n") + 1) * (number + sum(map(len, texts))))
    elif name == "join" and texts:
        pay(len(value) * len(texts[0]))
