"""Calls of tools inside a reply's text. Knows no tool, no model and no template.

A reply is one text. Whoever got calls apart from the text writes both with `written`; models that
put them into their text use one of a few forms. `apart` reads those that show at once that a call
begins: `<tool_call>{...}</tool_call>`, `[TOOL_CALLS][...]`, a JSON object or list at the start or
in a code fence, and `Action: NAME` with `Action Input: {...}`. `calls_in`, for graders, reads more,
because a call that nobody sees counts as one that was not made: JSON at the start of any line,
`<|python_tag|>{...}`, `<function=NAME>...</function>`, and `NAME(key="value")` on lines of its own.
What stands before `</think>` is a thought, and no call is made by thinking of it.
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

_TAG = "<tool_call>"
_THOUGHT, _THOUGHT_ENDS = "<think>", "</think>"
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
_BEGINS = re.compile(r"<tool_call>|\[TOOL_CALLS\]|```|^Action:|\A\s*(?=[\[{])", re.MULTILINE)
# What may stand between such a mark and the JSON of the call.
_BEFORE_VALUE = re.compile(r"(?:json|tool_call|.*\n\s*Action Input:)?\s*")
_BETWEEN_VALUES = re.compile(r"[\s,;]*")
_SPACE = re.compile(r"\s*")
_IN_VAIN = 5


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
    reply = reply[_thoughts(reply) :]
    loose = chain(_tagged(reply), _on_lines(reply), _functions(reply), _statements(reply, offered))
    found: dict[str, dict[str, Any]] = {}
    for call in chain((call for _, _, calls in _plain(reply) for call in calls), loose):
        if len(found) == MOST:
            break
        # As JSON: to Python, 1 is True.
        found.setdefault(json.dumps(call, sort_keys=True), call)
    return list(found.values())


def _plain(reply: str) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    """Calls in the forms that begin with a mark, or are all of the reply.

    Yields where the mark and where the JSON begins, and the calls that the JSON makes.
    """
    for start, place, stop in _parts(reply):
        for begin, value in _values(reply[place:stop]):
            yield start, place + begin, list(_of(value))
    yield from _actions(reply)


def apart(reply: str, names: Container[str]) -> tuple[str, list[dict[str, Any]]]:
    """What a reply says before its first call, and its calls of tools with these names.

    Equal calls are as many as the reply makes. Without such a call all of it is text.
    """
    read = reply[:READ]
    cut = _thoughts(read)
    begin, calls = len(read), dict[int, list[dict[str, Any]]]()
    for start, place, made in _plain(read[cut:]):
        if offered := [call for call in made if call["name"] in names]:
            begin = min(begin, cut + start)
            calls.setdefault(place, offered)  # what is read in two ways stands in one place
    if not calls:
        return reply, []
    found = [call for place in sorted(calls) for call in calls[place]]
    return reply[:begin].rstrip(), found[:MOST]


def _thoughts(reply: str) -> int:
    """Where the thoughts that a reply begins with end; 0 where it has none, or not yet.

    A template may open them in front of the reply, so that only their end is seen. An end that is
    quoted in a call's JSON is none.
    """
    opened = reply.lstrip().startswith(_THOUGHT)
    first = reply.find(_THOUGHT_ENDS)
    if opened or first < 0:
        return first + len(_THOUGHT_ENDS) if first >= 0 else len(reply) if opened else 0
    place = 0
    for mark in _BEGINS.finditer(reply):
        if mark.start() < place:
            continue
        end = reply.find(_THOUGHT_ENDS, place, mark.start())
        if end >= 0:
            return end + len(_THOUGHT_ENDS)
        place = _end_of_all(reply, _behind(_BEFORE_VALUE, reply, mark.end()))
        if reply.startswith(("{", "["), place):
            return 0  # more of it may come
    end = reply.find(_THOUGHT_ENDS, place)
    return 0 if end < 0 else end + len(_THOUGHT_ENDS)


def settled(reply: str) -> int:
    """How many characters of a reply belong to what `apart` leaves, whatever comes behind them."""
    cut = _thoughts(reply)
    begin = _BEGINS.search(reply[cut:])
    if begin:
        return len(reply[: cut + begin.start()].rstrip())
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


def _parts(reply: str) -> Iterator[tuple[int, int, int]]:
    """Where marks stand, and where what may be JSON behind them begins and ends at the latest."""
    place, unclosed = reply.find(_TAG), 0
    while place >= 0:
        begin = place + len(_TAG)
        # The end of a tag may stand in an argument, so the JSON says where it ends. Looking for
        # that in vain reads everything, which a reply can ask for a few times only.
        stop = _behind(_SPACE, reply, begin)
        stop = _end_of_all(reply, stop) if unclosed < _IN_VAIN else stop
        if reply.startswith(("{", "["), stop):
            unclosed += 1
            found = reply.find("</tool_call>", stop)
            stop = len(reply) if found < 0 else found
        yield place, begin, stop
        place = reply.find(_TAG, stop)
    if _MARK in reply:
        place = reply.index(_MARK)
        yield place, place + len(_MARK), len(reply)
    yield from ((match.start(), match.start(1), match.end(1)) for match in _FENCED.finditer(reply))
    yield 0, 0, len(reply)


def _values(part: str) -> Iterator[tuple[int, Any]]:
    """The JSON objects and lists that a piece begins with, and where they stand in it.

    Models write several calls one after the other, and go on talking behind them.
    """
    place = _behind(_SPACE, part, 0)
    for _ in range(MOST):
        end = _end(part, place)
        if end < 0:
            return
        try:
            yield place, from_json(part[place:end], allow_inf_nan=False)
        except ValueError:
            return
        place = _behind(_BETWEEN_VALUES, part, end)


def _value(part: str) -> Any:
    """The JSON object or list that a piece begins with; None if it is none."""
    return next((value for _, value in _values(part)), None)


def _behind(pattern: re.Pattern[str], text: str, place: int) -> int:
    found = pattern.match(text, place)
    return found.end() if found else place


def _end_of_all(part: str, place: int) -> int:
    """Behind all JSON that begins at a place and the white space and commas between it."""
    while (end := _end(part, place)) >= 0:
        place = _behind(_BETWEEN_VALUES, part, end)
    return place


def _end(part: str, place: int) -> int:
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


def _actions(reply: str) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    for match in islice(_ACTION.finditer(reply), TRIES):
        after = _INPUT.match(reply, match.end())
        if after:
            rest = reply[after.end() :][:20_000].lstrip()
            value = _value(rest)
            line = rest.split("\n", 1)[0]
            arguments = value if isinstance(value, dict) else line
            yield match.start(), match.start(), [{"name": match[1], "arguments": arguments}]


def _tagged(reply: str) -> Iterator[dict[str, Any]]:
    """Behind Llama's mark of a call."""
    for part in reply.split(_PYTHON_TAG)[1:][:TRIES]:
        yield from _of(_value(part[:_LONGEST]))


def _on_lines(reply: str) -> Iterator[dict[str, Any]]:
    """JSON that begins a line; what stands inside other JSON is a part of that."""
    done = 0
    for begin in islice(_LINE.finditer(reply), TRIES):
        if begin.end() >= done:
            part = reply[begin.end() : begin.end() + _LONGEST]
            value = _value(part)
            done = done if value is None else begin.end() + _end(part, 0)
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
