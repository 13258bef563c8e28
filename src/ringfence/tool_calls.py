"""Tools, and calls of them, as chat APIs write them. Knows nothing of rings, tokens or templates.

A call is what a model wrote, so all of it is hostile: arguments stay the text they came as, and
what templates use as a name or an id must look like one.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from ringfence.errors import InputError

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,127}")
_LONGEST = 1_000_000
_DEEPEST = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A call that an assistant's message makes.

    Attributes:
        name: of the tool.
        arguments: JSON, or whatever else the model wrote in its place.
        id: by which a tool's result names its call; may be empty.
    """

    name: str
    arguments: str
    id: str = ""

    @property
    def parsed(self) -> dict[str, Any] | None:
        """The arguments as an object; None where an object would say less than the text.

        So it is where they are no JSON object, nest too deeply, name a key twice or hold a number
        that is larger than a float can be. Other numbers are rounded to floats; see `exact`.
        """
        return _object(self.arguments, _finite)

    @property
    def exact(self) -> bool:
        """Whether the object says what the text says to the last digit of every number."""
        return _object(self.arguments, _exact) is not None


def calls_of(where: str, value: object) -> tuple[ToolCall, ...]:
    """Calls from an API message's `tool_calls`; none where it has none.

    Raises:
        InputError: naming the field, where the list is not what chat APIs send.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InputError(f"{where}.tool_calls: must be a list, not {type(value).__name__}")
    return tuple(_call(f"{where}.tool_calls[{index}]", item) for index, item in enumerate(value))


def tools_of(value: object) -> tuple[Mapping[str, Any], ...]:
    """Tool definitions: objects with `name`, `description`, `parameters`, bare or as `function`.

    Raises:
        InputError: naming the field, where a definition is not what chat APIs send.
    """
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise InputError(f"tools: must be a list, not {type(value).__name__}")
    return tuple(_tool(f"tools[{index}]", item) for index, item in enumerate(value))


def is_name(text: str) -> bool:
    """Whether templates may print it as a name or an id."""
    return _NAME.fullmatch(text) is not None


def name_in(where: str, value: object) -> str:
    """A name or id as templates may print it; empty where there is none.

    Raises:
        InputError: it could be something else than a name.
    """
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not is_name(value):
        raise InputError(
            f"{where}: must be 1 to 128 letters, digits, _ . : / or -, not {str(value)[:80]!r}"
        )
    return value


def _call(where: str, item: object) -> ToolCall:
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: must be an object with id and function")
    function = item.get("function", item)
    if not isinstance(function, Mapping):
        raise InputError(f"{where}.function: must be an object with name and arguments")
    name = name_in(f"{where}.function.name", function.get("name"))
    if not name:
        raise InputError(f"{where}.function.name: is missing")
    arguments = function.get("arguments", "{}")
    if isinstance(arguments, str):
        # Clients send back a call without arguments like this.
        arguments = arguments if arguments.strip() else "{}"
    else:
        arguments = _json(f"{where}.function.arguments", arguments)
    if len(arguments) > _LONGEST:
        raise InputError(f"{where}.function.arguments: longer than {_LONGEST} characters")
    return ToolCall(name=name, arguments=arguments, id=name_in(f"{where}.id", item.get("id")))


def _tool(where: str, item: object) -> Mapping[str, Any]:
    if not isinstance(item, Mapping):
        raise InputError(f"{where}: must be an object with type and function")
    function = item.get("function", item)
    if not isinstance(function, Mapping):
        raise InputError(f"{where}.function: must be an object with name and parameters")
    if not name_in(f"{where}.function.name", function.get("name")):
        raise InputError(f"{where}.function.name: is missing")
    copy = json.loads(_json(f"{where}.function", dict(function)))
    return {"type": "function", "function": copy}


def _json(where: str, value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{where}: is no JSON: {error}") from None
    if len(text) > _LONGEST or not _shallow(value):
        raise InputError(f"{where}: longer than {_LONGEST} characters or nested too deeply")
    return text


def _object(text: str, number: Callable[[str], float]) -> dict[str, Any] | None:
    """Reads an object; None where it is none that `parsed` gives, or `number` raises ValueError."""
    try:
        value = json.loads(
            text,
            parse_constant=_no_constant,
            parse_float=number,
            object_pairs_hook=_without_twins,
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and _shallow(value) else None


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is larger than a float can be")
    return value


def _exact(text: str) -> float:
    value = _finite(text)
    try:
        same = Decimal(text) == Decimal(repr(value))
    except ArithmeticError:  # an exponent beyond Decimal's own
        same = False
    if not same:
        raise ValueError(f"{text[:40]} is rounded to {value}")
    return value


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _without_twins(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key comes twice")
    return dict(pairs)


def _shallow(value: object) -> bool:
    layer, depth = [value], 0
    while layer:
        if depth > _DEEPEST:
            return False
        layer = [
            inner
            for item in layer
            if isinstance(item, Mapping | list | tuple)
            for inner in (item.values() if isinstance(item, Mapping) else item)
        ]
        depth += 1
    return True
