"""Where in a template's messages each piece of text goes. Knows nothing of tokens or of running it.

A template may refuse a role, or drop it without a word. Then the next visible place is tried: a
developer's message in the system message, a system message in the user's turn, a message in the
turn before it, and at last tools in the text of messages. Text keeps the ring of whoever wrote it
wherever it goes, and its place in time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from ringfence.rendering import tool_text
from ringfence.rendering.layouts import BROKEN, SCHEMA, Kind, Layout, Piece, Turn
from ringfence.rendering.plans import NINE, Plan
from ringfence.rendering.thoughts import OPENING, thought_apart
from ringfence.rendering.traits import Traits
from ringfence.rings import Conversation, Message

_TEXT = "the template does not show tools, calls and results; they were written as text"


def layout(
    conversation: Conversation, plan: Plan, traits: Traits, enclosed: Callable[[str], str]
) -> Layout:
    """Place a conversation.

    Args:
        conversation: what to place.
        plan: how.
        traits: of the template.
        enclosed: makes a text safe that cannot be followed through the template.
    """
    made = Layout(plan, conversation, traits, enclosed)
    if plan.tools_as_text:
        _place_tools_as_text(made)
    else:
        for number, message in enumerate(conversation.messages):
            made.turns.append(_turn(made, number, message))
        _add_definitions(made)
    if plan.new_ids:
        _give_ids(made)
    if plan.developer:
        made.turns = list(_developers_merged(made))
    if plan.system != "keep":
        made.turns = _systems_moved(made)
    if plan.join:
        made.turns = list(_joined(made))
    return made


def _add_definitions(made: Layout) -> None:
    """Number the texts of tool definitions, which the template places."""
    strings: dict[str, Kind] = {}
    for tool in made.conversation.tools:
        _collect(tool["function"], strings, "detail")
        _collect(tool["function"].get("description"), strings, "tool")
        _collect(tool["function"]["name"], strings, "tool")
    # Templates take the dotted names of tools apart, so they cannot be followed.
    names = {tool["function"]["name"] for tool in made.conversation.tools}
    dotted = {name for name in names if "." in name}
    kept = {t: k for t, k in strings.items() if t and t not in SCHEMA and t not in dotted}
    made.add_strings(None, made.conversation.tools_ring.level, kept)


def _give_ids(made: Layout) -> None:
    """Ids of nine letters and digits: of every call, and the same of its result.

    A result without an id answers the first call that no result has answered yet.
    """
    made.notes.append(
        "tools: the template does not take the ids of these calls; they were given others"
    )
    messages = made.conversation.messages
    said = {call.id for message in messages for call in message.tool_calls}
    said |= {message.tool_call_id for message in messages}
    free = (id_ for n in itertools.count(1) if (id_ := f"call{n:05d}") not in said)
    given = {id_: id_ for id_ in said if NINE.fullmatch(id_)}

    def new(id_: str) -> str:
        return (given.get(id_) or given.setdefault(id_, next(free))) if id_ else next(free)

    waiting: dict[str, None] = {}
    for number, message in enumerate(messages):
        for place, call in enumerate(message.tool_calls):
            made.ids[number, place] = new(call.id)
            waiting[made.ids[number, place]] = None
        if message.role == "tool":
            said_none = waiting and not message.tool_call_id
            answered = next(iter(waiting)) if said_none else new(message.tool_call_id)
            made.ids[number, -1] = answered
            waiting.pop(answered, None)


def _place_tools_as_text(made: Layout) -> None:
    """Definitions at the end of the leading system or developer message, results as users' turns.

    Without such a message, definitions are the system message. Results in a row are one turn.
    """
    waiting = bool(made.conversation.tools)
    for number, message in enumerate(made.conversation.messages):
        if waiting and message.role not in ("system", "developer"):
            _define(made)
            waiting = False
        turn = (_result if message.role == "tool" else _turn_in_text)(made, number, message)
        before = made.turns[-1].source if made.turns else None
        if message.role == "tool" and before is not None and before.role == "tool":
            made.turns[-1].texts += turn.texts
        else:
            made.turns.append(turn)
    if waiting:
        _define(made)


def _define(made: Layout) -> None:
    """The definitions in the leading message that is there, else in a system message."""
    made.notes.append(f"tools: {_TEXT} at the end of the leading system message")
    level = made.conversation.tools_ring.level
    block = made.add_parts(None, level, tool_text.definitions(made.conversation.tools))
    if made.turns:
        made.turns[-1].texts.append(block)
    else:
        made.turns.append(Turn("system", [block], None, -1))


def _result(made: Layout, number: int, message: Message) -> Turn:
    made.notes.append(
        f"messages[{number}]: {_TEXT}, the result in a user turn between <tool_response> and "
        "</tool_response>"
    )
    block = made.add_parts(number, message.ring.level, tool_text.returned(message.content))
    return Turn("user", [block], message, number)


def _turn_in_text(made: Layout, number: int, message: Message) -> Turn:
    """A message whose calls are text."""
    level = message.ring.level
    # Whoever may define tools may speak of them as he likes, and a model that calls may call.
    if level > made.conversation.tools_ring.level:
        text = tool_text.broken(message.content, calls=message.role != "assistant")
        if text != message.content:
            made.notes.append(f"messages[{number}]: {BROKEN}")
            message = replace(message, content=text)
    turn = _turn(made, number, message)
    if message.tool_calls:
        made.notes.append(
            f"messages[{number}]: {_TEXT}, the calls between <tool_call> and </tool_call>"
        )
        parts = tool_text.called(message.tool_calls, beside=bool(turn.texts))
        calls = made.add_parts(number, level, parts)
        texts = turn.texts[0] if turn.texts else ()
        turn.texts = [(*texts, *calls)]
    return turn


def _turn(made: Layout, number: int, message: Message) -> Turn:
    level, text, reasoning = message.ring.level, message.content, None
    apart = message.role == "assistant" and made.traits.reasoning and not message.verbatim
    # Where the header of a reply opens the reasoning, its text only ends it.
    opened = made.traits.header.rstrip().endswith(OPENING)
    thought = thought_apart(text, opened=opened) if apart else None
    if thought:
        # What such a template does itself with a reply that holds its reasoning.
        text = thought[1].lstrip("\n")
        spoken = thought[0].strip("\n")
        reasoning = made.add(Piece(message=number, ring=level, text=spoken, kind="reasoning"))
    texts: list[tuple[int, ...]] = []
    if text.strip() or not message.tool_calls:  # beside a call, no text is nothing to be lost
        texts = [(made.add(Piece(message=number, ring=level, text=text, kind="content")),)]
    strings: dict[str, Kind] = {}
    placed = () if made.plan.tools_as_text else message.tool_calls
    for call in placed:
        if call.parsed is None or made.plan.arguments_as_text:
            strings[call.arguments] = "call"
        else:
            _collect(call.parsed, strings, "call")
            if not call.exact:
                made.notes.append(
                    f"messages[{number}]: the template takes a call's arguments as an object; "
                    "numbers in them are rounded to what a float holds"
                )
    made.add_strings(number, level, strings)
    named: dict[str, Kind] = {call.name: "called" for call in placed}
    for name, kind in (named | ({message.name: "name"} if message.name else {})).items():
        piece = Piece(message=number, ring=level, text=name, kind=kind)
        made.names[number, name] = made.add(piece)
    return Turn(message.role, texts, message, number, reasoning=reasoning)


def _collect(value: Any, strings: dict[str, Kind], kind: Kind) -> None:
    if isinstance(value, str):
        strings[value] = kind
    elif isinstance(value, dict | list):
        for key in value:
            _collect(key, strings, kind)
        for item in value.values() if isinstance(value, dict) else ():
            _collect(item, strings, kind)


def _developers_merged(made: Layout) -> Iterator[Turn]:
    last: Turn | None = None
    for turn in made.turns:
        if turn.role == "developer":
            made.notes.append(
                f"messages[{turn.number}]: the template knows no developer role, or not here; "
                "the message was merged into the system message"
            )
            if last is not None and last.role == "system":
                last.texts += turn.texts
                continue
            turn = replace(turn, role="system", texts=list(turn.texts))
        yield turn
        last = turn


def _systems_moved(made: Layout) -> list[Turn]:
    """System turns put into the user's turn that follows, else the one before, else their own."""
    turns: list[Turn] = []
    leading = True
    for turn in made.turns:
        leading = leading and turn.role in ("system", "developer")
        if turn.role == "system" and not (leading and made.plan.system == "middle"):
            made.notes += [
                f"{made.about(block)}: the template does not take this system message; it was "
                "put into a user turn"
                for block in turn.texts
            ]
            turn = replace(turn, role="user", texts=list(turn.texts), moved=True)
        if turns and turns[-1].moved and turn.role == "user":
            turns[-1].texts += turn.texts
            turns[-1].moved = turn.moved
        else:
            turns.append(turn)
    settled: list[Turn] = []
    for turn in turns:
        if turn.moved and settled and settled[-1].role == "user":
            settled[-1].texts += turn.texts
        else:
            settled.append(turn)
    return settled


def _joined(made: Layout) -> Iterator[Turn]:
    last: Turn | None = None
    for turn in made.turns:
        plain = turn.reasoning is None and turn.role != "tool"
        calling = any(made.calls(one) for one in (turn, last) if one is not None)
        if last is not None and last.role == turn.role and plain and not calling:
            made.notes += [
                f"{made.about(block)}: the template does not take two {turn.role} messages in a "
                "row; it was joined to the one before"
                for block in turn.texts
            ]
            last.texts += turn.texts
            continue
        yield turn
        last = turn
