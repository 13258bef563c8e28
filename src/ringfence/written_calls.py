"""Calls of tools inside a reply's text. Knows no tool, no model and no template.

A reply is one text. Whoever got calls apart from the text writes both with `written`; models that
put them into their text use one of a few forms, all of which `calls_in` reads:
`<tool_call>{...}</tool_call>`, `[TOOL_CALLS][...]`, a JSON object or list on its own or in a code
fence, and `Action: NAME` with `Action Input: {...}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from typing import Any

from pydantic_core import from_json

READ = 200_000
"""Characters of a reply that are read."""
MOST = 200
"""Calls of a reply that are read."""

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:json|tool_call)?\s*\n(.*?)```", re.DOTALL)
_ACTION = re.compile(r"^Action:[ \t]*([A-Za-z0-9_.\-]{1,128})[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"\s*Action Input:[ \t]*")
_MARK = "[TOOL_CALLS]"
# Where a call may begin; a reply may be JSON from its start.
_MARKS = ("<tool_call>", _MARK, "```", "\nAction:")
_BEGINS = re.compile(r"<tool_call>|\[TOOL_CALLS\]|```|^Action:|\A\s*[\[{]", re.MULTILINE)


def written(text: str, calls: Iterable[Mapping[str, Any]]) -> str:
    """One text of what was said and what was called; `calls_in` finds the calls again.

    Args:
        text: what the model said.
        calls: `name` and `arguments` (an object, or JSON in a text), or OpenAI's form of that.
    """
    lines = [text] if text else []
    for call in calls:
        function = call.get("function", call)
        name, arguments = function.get("name", ""), function.get("arguments", {})
        body = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
        lines.append(f"<tool_call>{body}</tool_call>")
    return "\n".join(lines)


def calls_in(reply: str) -> list[dict[str, Any]]:
    """Every call as `{"name": ..., "arguments": {...}}`; never raises.

    Arguments that are no JSON object come as they are.
    """
    reply = reply[:READ]
    found: list[dict[str, Any]] = []
    for part in _parts(reply):
        for call in _of(_value(part)):
            if len(found) == MOST:
                return found
            if call not in found:
                found.append(call)
    found += [call for call in _actions(reply) if call not in found]
    return found[:MOST]


def apart(reply: str, names: Container[str]) -> tuple[str, list[dict[str, Any]]]:
    """What a reply says before its first call, and its calls of tools with these names.

    Without such a call all of it is text.
    """
    calls = [call for call in calls_in(reply) if call["name"] in names]
    if not calls:
        return reply, []
    begin = _BEGINS.search(reply)
    return (reply[: begin.start()] if begin else "").rstrip(), calls


def settled(reply: str) -> int:
    """How many characters of a reply are no part of a call, whatever comes behind them."""
    begin = _BEGINS.search(reply)
    if begin:
        return begin.start()
    if not reply.strip():
        return 0
    # The end may be the beginning of a mark, and a line of its own the beginning of an action.
    text = f"\n{reply}"
    longest = max(
        (
            length
            for mark in _MARKS
            for length in range(1, len(mark))
            if text.endswith(mark[:length])
        ),
        default=0,
    )
    return max(0, len(reply) - longest)


def _parts(reply: str) -> Iterator[str]:
    """Pieces of text that may be JSON."""
    yield from (match[1] for match in _TAGGED.finditer(reply))
    if _MARK in reply:
        yield reply.partition(_MARK)[2]
    yield from (match[1] for match in _FENCED.finditer(reply))
    yield reply


def _value(part: str) -> Any:
    """What a piece says, as JSON; None if it is none."""
    part = part.strip()
    if not part.startswith(("{", "[")):
        return None
    # Models often go on talking after a call, so the first whole value will do, too.
    for text in (part, _balanced(part)):
        try:
            return from_json(text)
        except ValueError:
            continue
    return None


def _balanced(part: str) -> str:
    """The first JSON object or list of a text, by its brackets; strings are left alone."""
    depth, quoted, place = 0, False, 0
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
                return part[: place + 1]
        place += 1
    return part


def _of(value: Any) -> Iterator[dict[str, Any]]:
    for one in value if isinstance(value, list) else [value]:
        if not isinstance(one, Mapping):
            continue
        function = one.get("function", one)
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            continue
        arguments = function.get("arguments", function.get("parameters"))
        if arguments is not None:
            yield {"name": function["name"], "arguments": _object(arguments)}


def _object(arguments: Any) -> Any:
    if isinstance(arguments, str):
        found = _value(arguments)
        return found if isinstance(found, dict) else arguments
    return arguments


def _actions(reply: str) -> Iterator[dict[str, Any]]:
    for match in _ACTION.finditer(reply):
        after = _INPUT.match(reply, match.end())
        if after:
            rest = reply[after.end() :][:20_000].lstrip()
            value = _value(rest)
            line = rest.split("\n", 1)[0]
            yield {"name": match[1], "arguments": value if isinstance(value, dict) else line}
