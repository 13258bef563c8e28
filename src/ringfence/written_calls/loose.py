"""Forms of calls that graders read besides, because a call that nobody sees counts as not made."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Container, Iterator
from itertools import chain, islice
from typing import Any

from pydantic_core import from_json

from ringfence.written_calls.json_text import MOST, calls_of, end_of, first_value

TRIES = 100
"""Lines of a reply that are read as beginnings of JSON, and as many as ones of Python."""
_LONGEST = 10_000
_LONGEST_STATEMENT = 4_000  # longer ones may be too much for Python's parser

_PYTHON_TAG = "<|python_tag|>"
_LINE = re.compile(r"^[ \t]*(?=[{\[])", re.MULTILINE)
_FUNCTION = re.compile(
    r"<function=([A-Za-z0-9_.\-]{1,128})>(.*?)(?:</function>|(?=<function=)|\Z)", re.DOTALL
)
_STATEMENT = re.compile(
    r"^[ \t]*(?:Action:[ \t]*|<\|python_tag\|>[ \t]*)?(?=(\[[ \t\n]*)?([A-Za-z_][\w.]{0,127})\()",
    re.MULTILINE,
)
_AFTER = re.compile(r"[ \t]*;?[ \t]*(?:$|<\||</)", re.MULTILINE)
_CONSTANTS = {"true": True, "false": False, "null": None}


def loose(reply: str, offered: Container[str]) -> Iterator[dict[str, Any]]:
    """Calls in all of these forms; arguments as of `calls_in`."""
    return chain(_tagged(reply), _on_lines(reply), _functions(reply), _statements(reply, offered))


def _tagged(reply: str) -> Iterator[dict[str, Any]]:
    """Behind Llama's mark of a call."""
    for part in reply.split(_PYTHON_TAG)[1:][:TRIES]:
        yield from calls_of(first_value(part[:_LONGEST]))


def _on_lines(reply: str) -> Iterator[dict[str, Any]]:
    """JSON that begins a line; what stands inside other JSON is a part of that."""
    done = 0
    for begin in islice(_LINE.finditer(reply), TRIES):
        if begin.end() >= done:
            part = reply[begin.end() : begin.end() + _LONGEST]
            value = first_value(part)
            done = done if value is None else begin.end() + end_of(part, 0)
            yield from calls_of(value)


def _functions(reply: str) -> Iterator[dict[str, Any]]:
    """Arguments as a JSON object, or one by one in tags."""
    for match in islice(_FUNCTION.finditer(reply), MOST):
        value = first_value(match[2])
        if not isinstance(value, dict):
            given = dict(map(_parameter, match[2].split("<parameter=")[1:][:TRIES]))
            value = given or ({} if not match[2].strip() else None)
        if value is not None:
            yield {"name": match[1], "arguments": value}


def _parameter(text: str) -> tuple[str, Any]:
    """Name and value of `NAME>VALUE</parameter>`; a value is JSON where it is some, else text."""
    name, _, rest = text.partition(">")
    value = rest.partition("</parameter>")[0].strip("\n")
    try:
        return name.strip(), from_json(value, allow_inf_nan=False)
    except ValueError:
        return name.strip(), value


def _statements(reply: str, offered: Container[str]) -> Iterator[dict[str, Any]]:
    """Calls of offered tools that are whole lines, alone or in a list, with literal arguments."""
    done = 0
    for begin in islice(_STATEMENT.finditer(reply), TRIES):
        if begin.end() < done or not (begin[1] or begin[2] in offered):
            continue
        text = _closed(reply[begin.end() : begin.end() + _LONGEST_STATEMENT])
        if text and _AFTER.match(reply, begin.end() + len(text)):
            found = [call for call in _in_python(text) if call["name"] in offered]
            done = begin.end() + len(text)
            yield from found


def _closed(part: str) -> str:
    """Up to where the first bracket of a piece of Python closes; empty if it never does."""
    depth, quote, place = 0, "", 0
    while place < len(part):
        sign = part[place]
        if quote:
            if sign == "\\":
                place += 1
            quote = "" if sign == quote else quote
        elif sign in "\"'":
            quote = sign
        elif sign in "([{":
            depth += 1
        elif sign in ")]}":
            depth -= 1
            if depth <= 0:
                return part[: place + 1]
        place += 1
    return ""


def _in_python(text: str) -> Iterator[dict[str, Any]]:
    """Calls of an expression that is one, or a list of some; read, never run."""
    try:
        with warnings.catch_warnings():  # of escapes in its strings
            warnings.simplefilter("ignore")
            tree = ast.parse(text, mode="eval").body
        calls = tree.elts if isinstance(tree, ast.List) else [tree]
        found = [_of_node(call) for call in calls]
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return
    yield from found


def _of_node(node: ast.expr) -> dict[str, Any]:
    """One call.

    Raises:
        ValueError, TypeError, RecursionError: something else, or arguments that are no JSON.
    """
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name | ast.Attribute):
        raise ValueError("no call")
    given = {str(place): _literal(one) for place, one in enumerate(node.args)}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError("no name")
        given[keyword.arg] = _literal(keyword.value)
    return {"name": ast.unparse(node.func), "arguments": json.loads(json.dumps(given))}


def _literal(node: ast.expr) -> Any:
    if isinstance(node, ast.Name) and node.id in _CONSTANTS:
        return _CONSTANTS[node.id]
    return ast.literal_eval(node)
