"""JSON in the middle of text, and the calls that it makes. Knows no mark of a call."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json

MOST = 200
"""Calls of a reply that are read, and values of JSON that follow one another."""

SPACE = re.compile(r"\s*")
_BETWEEN = re.compile(r"[\s,;]*")


def values(part: str) -> Iterator[tuple[int, Any]]:
    """The JSON objects and lists that a piece begins with, and where they stand in it.

    Models write several calls one after the other, and go on talking behind them.
    """
    place = behind(SPACE, part, 0)
    for _ in range(MOST):
        end = end_of(part, place)
        if end < 0:
            return
        try:
            yield place, from_json(part[place:end], allow_inf_nan=False)
        except ValueError:
            return
        place = behind(_BETWEEN, part, end)


def first_value(part: str) -> Any:
    """The JSON object or list that a piece begins with; None if it is none."""
    return next((value for _, value in values(part)), None)


def behind(pattern: re.Pattern[str], text: str, place: int) -> int:
    """The place behind what the pattern matches there; the same place where it does not."""
    found = pattern.match(text, place)
    return found.end() if found else place


def end_of_all(part: str, place: int) -> int:
    """Behind all JSON that begins at a place and the white space and commas between it."""
    while (end := end_of(part, place)) >= 0:
        place = behind(_BETWEEN, part, end)
    return place


def end_of(part: str, place: int) -> int:
    """Where the JSON object or list ends that begins at a place; -1 if none does, or it goes on.

    By its brackets; strings are left alone.
    """
    if not part.startswith(("{", "["), place):
        return -1
    depth, quoted = 0, False
    while place < len(part):
        sign = part[place]
        if quoted:
            if sign == "\\":
                place += 1
            quoted = sign != '"'
        elif sign == '"':
            quoted = True
        elif sign in "{[":
            depth += 1
        elif sign in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
        place += 1
    return -1


def calls_of(value: Any) -> Iterator[dict[str, Any]]:
    """The calls that a value of JSON is, or those in a list; arguments may be JSON in a text."""
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, Mapping):
            continue
        function = one.get("function", one)
        if not isinstance(function, Mapping):
            function = one
        name = _first(function, ("name", "tool", "action", "function"))
        arguments = _first(function, ("arguments", "parameters", "action_input"))
        if isinstance(name, str) and arguments is not None:
            yield {"name": name, "arguments": _object(arguments)}


def _first(value: Mapping[str, Any], names: Iterable[str]) -> Any:
    return next((value[name] for name in names if name in value), None)


def _object(arguments: Any) -> Any:
    if isinstance(arguments, str):
        found = first_value(arguments)
        return found if isinstance(found, dict) else arguments
    return arguments
