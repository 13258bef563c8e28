"""Calls of tools inside a reply's text. Knows no tool, no model and no template.

A reply is one text. Whoever got calls apart from the text writes both with `written`; models that
put them into their text use one of a few forms. `apart` reads those that show at once that a call
begins: `<tool_call>{...}</tool_call>`, `[TOOL_CALLS][...]`, a JSON object or list at the start or
in a code fence, and `Action: NAME` with `Action Input: {...}`. `calls_in`, for graders, reads more,
because a call that nobody sees counts as one that was not made: JSON at the start of any line,
`<|python_tag|>{...}`, `<function=NAME>...</function>`, and `NAME(key="value")` on lines of its own.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from pydantic_core import from_json

READ = 200_000
"""Characters of a reply that are read."""
MOST = 200
"""Calls of a reply that are read."""
TRIES = 100
"""Lines of a reply that are read as beginnings of JSON, and as many as ones of Python."""
_LONGEST = 10_000
_LONGEST_STATEMENT = 4_000  # longer ones may be too much for Python's parser

_TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
# No newline but the last before the body: runs of them would be tried in every way.
_FENCED = re.compile(r"```(?:json|tool_call)?[ \t]*\r?\n(.*?)```", re.DOTALL)
_ACTION = re.compile(r"^Action:[ \t]*([A-Za-z0-9_.\-]{1,128})[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"\s*Action Input:[ \t]*")
_MARK = "[TOOL_CALLS]"
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
        # No mark of a call begins inside one; JSON means the same by the escape.
        body = body.replace("<", "\\u003c")
        lines.append(f"<tool_call>{body}</tool_call>")
    return "\n".join(lines)


def calls_in(reply: str, offered: Container[str] = ()) -> list[dict[str, Any]]:
    """Every call as `{"name": ..., "arguments": {...}}`, equal ones once; never raises.

    Arguments that are no JSON object come as they are; those of Python without a name are named
    by their place, from "0".

    Args:
        reply: hostile text.
        offered: names of tools that may be called in the form of Python; without them such text
            is talk, or code about something else.
    """
    reply = reply[:READ]
    loose = chain(_tagged(reply), _on_lines(reply), _functions(reply), _statements(reply, offered))
    return _different(chain((call for _, call in _plain(reply)), loose))


def _plain(reply: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Calls in the forms that begin with a mark, or are all of the reply, and where they begin."""
    for start, part in _parts(reply):
        for call in _of(_value(part)):
            yield start, call
    yield from _actions(reply)


def _different(calls: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for call in calls:
        if len(found) == MOST:
            break
        if call not in found:
            found.append(call)
    return found


def apart(reply: str, names: Container[str]) -> tuple[str, list[dict[str, Any]]]:
    """What a reply says before its first call, and its calls of tools with these names.

    Without such a call all of it is text.
    """
    found = [(start, call) for start, call in _plain(reply[:READ]) if call["name"] in names]
    if not found:
        return reply, []
    begin = min(start for start, _ in found)
    return reply[:begin].rstrip(), _different(call for _, call in found)


def settled(reply: str) -> int:
    """How many characters of a reply belong to what `apart` leaves, whatever comes behind them."""
    begin = _BEGINS.search(reply)
    if begin:
        return len(reply[: begin.start()].rstrip())
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
    return len(reply[: max(0, len(reply) - longest)].rstrip())


def _parts(reply: str) -> Iterator[tuple[int, str]]:
    """Pieces of text that may be JSON, and where their marks stand."""
    yield from ((match.start(), match[1]) for match in _TAGGED.finditer(reply))
    if _MARK in reply:
        yield reply.index(_MARK), reply.partition(_MARK)[2]
    yield from ((match.start(), match[1]) for match in _FENCED.finditer(reply))
    yield 0, reply


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
        found = _value(arguments)
        return found if isinstance(found, dict) else arguments
    return arguments


def _actions(reply: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for match in islice(_ACTION.finditer(reply), TRIES):
        after = _INPUT.match(reply, match.end())
        if after:
            rest = reply[after.end() :][:20_000].lstrip()
            value = _value(rest)
            line = rest.split("\n", 1)[0]
            arguments = value if isinstance(value, dict) else line
            yield match.start(), {"name": match[1], "arguments": arguments}


def _tagged(reply: str) -> Iterator[dict[str, Any]]:
    """Behind Llama's mark of a call."""
    for part in reply.split(_PYTHON_TAG)[1:][:TRIES]:
        yield from _of(_value(part[:_LONGEST]))


def _on_lines(reply: str) -> Iterator[dict[str, Any]]:
    """JSON that begins a line; what stands inside other JSON is a part of that."""
    done = 0
    for begin in islice(_LINE.finditer(reply), TRIES):
        if begin.end() >= done:
            part = _balanced(reply[begin.end() : begin.end() + _LONGEST])
            value = _value(part)
            done = done if value is None else begin.end() + len(part)
            yield from _of(value)


def _functions(reply: str) -> Iterator[dict[str, Any]]:
    """Arguments as a JSON object, or one by one in tags."""
    for match in islice(_FUNCTION.finditer(reply), MOST):
        value = _value(match[2])
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
        return name.strip(), from_json(value)
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
