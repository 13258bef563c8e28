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

import json
import re
from collections.abc import Container, Iterable, Iterator, Mapping
from itertools import chain, islice
from typing import Any

from ringfence.written_calls.json_text import (
    MOST,
    SPACE,
    behind,
    calls_of,
    end_of_all,
    first_value,
    values,
)
from ringfence.written_calls.loose import TRIES, loose

READ = 200_000
"""Characters of a reply that are read."""

_TAG = "<tool_call>"
_THOUGHT, _THOUGHT_ENDS = "<think>", "</think>"
# No newline but the last before the body: runs of them would be tried in every way.
_FENCED = re.compile(r"```(?:json|tool_call)?[ \t]*\r?\n(.*?)```", re.DOTALL)
_ACTION = re.compile(r"^Action:[ \t]*([A-Za-z0-9_.\-]{1,128})[ \t]*$", re.MULTILINE)
_INPUT = re.compile(r"\s*Action Input:[ \t]*")
_MARK = "[TOOL_CALLS]"
# Where a call may begin; a reply may be JSON from its start.
_MARKS = ("<tool_call>", _MARK, "```", "\nAction:")
_BEGINS = re.compile(r"<tool_call>|\[TOOL_CALLS\]|```|^Action:|\A\s*(?=[\[{])", re.MULTILINE)
# What may stand between such a mark and the JSON of the call.
_BEFORE_VALUE = re.compile(r"(?:json|tool_call)?\s*")
# Behind `Action:` nothing but what `_ACTION` and `_INPUT` read: no thought ends in it.
_BEFORE_INPUT = re.compile(r"(?:[ \t]*[A-Za-z0-9_.\-]{1,128}[ \t]*\n\s*Action Input:)?\s*")
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
    plain = (call for _, _, calls in _plain(reply) for call in calls)
    found: dict[str, dict[str, Any]] = {}
    for call in chain(plain, loose(reply, offered)):
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
        for begin, value in values(reply[place:stop]):
            yield start, place + begin, list(calls_of(value))
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
        between = _BEFORE_INPUT if mark[0] == "Action:" else _BEFORE_VALUE
        place = end_of_all(reply, behind(between, reply, mark.end()))
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
        stop = behind(SPACE, reply, begin)
        stop = end_of_all(reply, stop) if unclosed < _IN_VAIN else stop
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


def _actions(reply: str) -> Iterator[tuple[int, int, list[dict[str, Any]]]]:
    for match in islice(_ACTION.finditer(reply), TRIES):
        after = _INPUT.match(reply, match.end())
        if after:
            rest = reply[after.end() :][:20_000].lstrip()
            value = first_value(rest)
            line = rest.split("\n", 1)[0]
            arguments = value if isinstance(value, dict) else line
            yield match.start(), match.start(), [{"name": match[1], "arguments": arguments}]
