"""What functions of tools take, as JSON Schema, and whether a call gives it. Knows no tool."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_MOST_CHARACTERS = 20_000
_MOST_ITEMS = 100
_MOST_DEPTH = 20
_TYPES = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "array": "a list of strings",
}

Arguments = dict[str, Any]
Schema = dict[str, Any]


class ToolError(Exception):
    """What a tool answers instead of a result; never leaves the toolbox."""


def text(description: str, *, default: str | None = None, pattern: str = "") -> Schema:
    """A string; one with a default need not be given."""
    schema: Schema = {"type": "string", "description": description}
    if pattern:
        schema["pattern"] = pattern
    return schema if default is None else {**schema, "default": default}


def date(description: str, *, default: str | None = None) -> Schema:
    """A day such as 2026-05-31."""
    return text(description, default=default, pattern=r"^(20[0-9]{2}-[01][0-9]-[0-3][0-9])?$")


def time(description: str) -> Schema:
    """A time of day such as 09:30."""
    return text(description, pattern=r"^[0-2][0-9]:[0-5][0-9]$")


def whole(description: str, minimum: int, maximum: int, *, default: int | None = None) -> Schema:
    """A whole number of a range."""
    schema: Schema = {
        "type": "integer",
        "description": description,
        "minimum": minimum,
        "maximum": maximum,
    }
    return schema if default is None else {**schema, "default": default}


def amount(description: str) -> Schema:
    """An amount of money, at least a cent."""
    return {"type": "number", "description": description, "minimum": 0.01, "maximum": 1_000_000}


def texts(description: str) -> Schema:
    """A list of strings, empty unless given."""
    return {
        "type": "array",
        "items": {"type": "string"},
        "description": description,
        "maxItems": _MOST_ITEMS,
        "default": [],
    }


def parameters(properties: Mapping[str, Schema]) -> Schema:
    """The JSON Schema of all arguments of a function."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name, schema in properties.items() if "default" not in schema],
        "additionalProperties": False,
    }


def unpacked(arguments: object) -> Arguments:
    """Arguments as a model gives them: an object, or JSON text of one.

    Raises:
        ToolError: neither.
    """
    if isinstance(arguments, str):
        if len(arguments) > _MOST_CHARACTERS * 10:
            raise ToolError("arguments are too long")
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError):
            raise ToolError("arguments are not valid JSON") from None
    if not isinstance(arguments, Mapping) or not all(isinstance(key, str) for key in arguments):
        raise ToolError("arguments must be a JSON object")
    return dict(arguments)


def checked(schema: Schema, arguments: Arguments) -> Arguments:
    """Arguments with defaults filled in, new objects throughout.

    Raises:
        ToolError: one is missing, unknown, or not what the schema says.
    """
    properties: Mapping[str, Schema] = schema["properties"]
    if unknown := sorted(arguments.keys() - properties.keys()):
        raise ToolError(
            f"unknown argument {unknown[0][:50]!r}; it takes {', '.join(properties) or 'none'}"
        )
    if missing := [name for name in schema["required"] if name not in arguments]:
        raise ToolError(f"argument {missing[0]!r} is missing")
    return {
        name: _checked(name, wanted, arguments[name] if name in arguments else wanted["default"])
        for name, wanted in properties.items()
    }


def _checked(name: str, schema: Schema, value: Any) -> Any:
    kind = schema["type"]
    if kind == "string" and isinstance(value, str):
        if len(value) > _MOST_CHARACTERS:
            raise ToolError(f"argument {name!r} is longer than {_MOST_CHARACTERS} characters")
        if "pattern" in schema and not re.search(schema["pattern"], value):
            raise ToolError(f"argument {name!r} must match {schema['pattern']}")
        return value
    if kind == "array" and isinstance(value, Sequence) and not isinstance(value, str):
        if len(value) > _MOST_ITEMS:
            raise ToolError(f"argument {name!r} has more than {_MOST_ITEMS} items")
        return [
            _checked(f"{name}[{place}]", schema["items"], item) for place, item in enumerate(value)
        ]
    number = isinstance(value, int | float) and not isinstance(value, bool)
    # An integer may be too large for a float; a float may be none.
    if kind in ("integer", "number") and number and value == value and abs(value) != math.inf:
        if kind == "integer" and value != int(value):
            raise ToolError(f"argument {name!r} must be a whole number")
        if not schema["minimum"] <= value <= schema["maximum"]:
            raise ToolError(
                f"argument {name!r} must be between {schema['minimum']} and {schema['maximum']}"
            )
        return int(value) if kind == "integer" else round(float(value), 2)
    raise ToolError(f"argument {name!r} must be {_TYPES[kind]}")


def plain(value: Any, depth: int = 0) -> Any:
    """A JSON value as new objects; what lies too deep or is no JSON is left out."""
    if depth > _MOST_DEPTH:
        return None
    if isinstance(value, Mapping):
        return {str(key): plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float) else None
