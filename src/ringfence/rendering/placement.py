"""Where in a template's messages each piece of text goes. Knows nothing of tokens or of running it.

A template may refuse a role, or drop it without a word. Then the next visible place is tried: a
developer's message in the system message, a system message in the user's turn, a message in the
turn before it. Text keeps the ring of whoever wrote it wherever it goes, and its place in time.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ringfence.rendering.traits import Traits, reasoning_fields
from ringfence.rings import Conversation, Message

BETWEEN = "\n\n"
_THOUGHT = re.compile(r"\s*<think>(.*?)</think>(.*)", re.DOTALL)
# Words of JSON Schema and of chat APIs, which templates look for in tool definitions.
_SCHEMA = frozenset(
    "type function name description parameters properties required items enum default nullable "
    "oneOf anyOf allOf not const format title pattern minimum maximum minItems maxItems minLength "
    "maxLength additionalProperties $ref $defs examples strict return response string number "
    "integer boolean object array null".split()
)
Kind = Literal["content", "reasoning", "call", "called", "name", "tool", "detail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text of one writer, to be placed by a template.

    Attributes:
        message: whose it is; None for tool definitions.
        ring: level of the writer.
        text: what it says.
        kind: a message's text (`content`) comes out once and in order; what is called and with
            what (`called`, `call`), and names and descriptions of tools (`tool`), at least once;
            a reply's `reasoning`, the `name` at a tool's result and a tool's `detail` may not.
    """

    message: int | None
    ring: int
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One way to place a conversation; the plan without any of these is as it stands.

    Attributes:
        developer: merge developers' messages into the system message.
        system: put system messages of the middle, or all, into user turns.
        join: join neighbours of one role.
        arguments_as_text: pass a call's arguments as text instead of as an object.
        no_content: pass None where a message that calls tools has no text.
    """

    developer: bool = False
    system: Literal["keep", "middle", "all"] = "keep"
    join: bool = False
    arguments_as_text: bool = False
    no_content: bool = False

    @property
    def cost(self) -> int:
        """How far the conversation is changed; smaller is better."""
        moved = {"keep": 0, "middle": 8, "all": 16}[self.system]
        return (
            moved + 4 * (self.developer + self.join) + 2 * self.arguments_as_text + self.no_content
        )


@dataclass(slots=True)
class _Turn:
    """One message as the template sees it; `texts` are numbers of pieces, joined by blank lines."""

    role: str
    texts: list[int]
    source: Message
    number: int
    moved: bool = False
    reasoning: int | None = None


Dress = Callable[[int], str]


@dataclass(slots=True)
class Layout:
    """A conversation placed by a plan: the messages a template gets, once every piece is dressed.

    Attributes:
        pieces: numbered by their position.
        notes: what was placed elsewhere, for people.
    """

    plan: Plan
    conversation: Conversation
    traits: Traits
    enclosed: Callable[[str], str]
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    turns: list[_Turn] = field(default_factory=list)
    _strings: dict[tuple[int | None, str], int] = field(default_factory=dict)
    _names: dict[tuple[int, str], int] = field(default_factory=dict)

    def messages(self, dress: Dress) -> list[dict[str, Any]]:
        """What the template gets; `dress` gives the text of a piece by its number."""
        return [self._message(turn, dress) for turn in self.turns]

    def tools(self, dress: Dress) -> list[Any]:
        """Tool definitions for the template."""
        return [
            {"type": "function", "function": self._dressed(None, tool["function"], dress)}
            for tool in self.conversation.tools
        ]

    def _message(self, turn: _Turn, dress: Dress) -> dict[str, Any]:
        text = BETWEEN.join(dress(number) for number in turn.texts)
        content: Any = [{"type": "text", "text": text}] if self.traits.parts else text
        made: dict[str, Any] = {"role": turn.role, "content": content}
        if turn.reasoning is not None:
            made |= reasoning_fields(dress(turn.reasoning))
        source, number = turn.source, turn.number
        if source.tool_calls:
            if self.plan.no_content and not source.content.strip():
                made["content"] = None
            made["tool_calls"] = [
                {
                    "type": "function",
                    "function": {
                        "name": dress(self._names[number, call.name]),
                        "arguments": self._arguments(number, call.arguments, call.parsed, dress),
                    },
                }
                | ({"id": call.id} if call.id else {})
                for call in source.tool_calls
            ]
        if source.tool_call_id and turn.role == source.role:
            made["tool_call_id"] = source.tool_call_id
        if source.name and turn.role == source.role:
            made["name"] = dress(self._names[number, source.name])
        return made

    def _arguments(
        self, number: int, text: str, parsed: dict[str, Any] | None, dress: Dress
    ) -> Any:
        if parsed is None or self.plan.arguments_as_text:
            return dress(self._strings[number, text])
        return self._dressed(number, parsed, dress)

    def _dressed(self, number: int | None, value: Any, dress: Dress) -> Any:
        """A JSON value with every text in it dressed."""
        if isinstance(value, str):
            if number is None and value in _SCHEMA:
                return value
            place = self._strings.get((number, value))
            return self.enclosed(value) if place is None else dress(place)
        if isinstance(value, dict):
            return {
                self._dressed(number, key, dress): self._dressed(number, item, dress)
                for key, item in value.items()
            }
        if isinstance(value, list):
            return [self._dressed(number, item, dress) for item in value]
        return value

    def add(self, piece: Piece) -> int:
        """Number a piece."""
        self.pieces.append(piece)
        return len(self.pieces) - 1

    def add_strings(self, message: int | None, ring: int, strings: dict[str, Kind]) -> None:
        """Number texts, values or keys; equal ones are one piece, and numbers sort alike."""
        for text in sorted(strings, key=lambda text: (text.lower(), text)):
            piece = Piece(message=message, ring=ring, text=text, kind=strings[text])
            self._strings[message, text] = self.add(piece)


def plans(conversation: Conversation, traits: Traits) -> list[Plan]:
    """Every way to place a conversation, the least changed first."""
    roles = [message.role for message in conversation.messages]
    calls = [message for message in conversation.messages if message.tool_calls]
    both, never = (False, True), (False,)
    developer = (both if traits.developer else (True,)) if "developer" in roles else never
    system: tuple[Literal["keep", "middle", "all"], ...] = ("keep",)
    if {"system", "developer"} & set(roles):
        system = ("keep", "middle", "all")
    alike = any(a == b for a, b in itertools.pairwise(roles)) or len(system) > 1
    ways = itertools.product(
        developer,
        system,
        both if alike else never,
        both if any(call.parsed is not None for m in calls for call in m.tool_calls) else never,
        both if any(not message.content.strip() for message in calls) else never,
    )
    made = [
        Plan(developer=d, system=s, join=j, arguments_as_text=a, no_content=n)
        for d, s, j, a, n in ways
    ]
    return sorted(made, key=lambda plan: plan.cost)


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
    for number, message in enumerate(conversation.messages):
        made.turns.append(_turn(made, number, message))
    if conversation.tools:
        strings: dict[str, Kind] = {}
        for tool in conversation.tools:
            _collect(tool["function"], strings, "detail")
            _collect(tool["function"].get("description", ""), strings, "tool")
            _collect(tool["function"]["name"], strings, "tool")
        # Templates take dotted names apart, so they cannot be followed.
        kept = {t: k for t, k in strings.items() if t not in _SCHEMA and not _dotted(t)}
        made.add_strings(None, conversation.tools_ring.level, kept)
    if plan.developer:
        made.turns = list(_developers_merged(made))
    if plan.system != "keep":
        made.turns = _systems_moved(made)
    if plan.join:
        made.turns = list(_joined(made))
    return made


def _turn(made: Layout, number: int, message: Message) -> _Turn:
    level, text, reasoning = message.ring.level, message.content, None
    thought = _THOUGHT.fullmatch(text) if message.role == "assistant" else None
    if thought and made.traits.reasoning:
        # What such a template does itself with a reply that holds its reasoning.
        text = thought[2].lstrip("\n")
        spoken = thought[1].strip("\n")
        reasoning = made.add(Piece(message=number, ring=level, text=spoken, kind="reasoning"))
    texts = []
    if text.strip() or not message.tool_calls:  # beside a call, no text is nothing to be lost
        texts = [made.add(Piece(message=number, ring=level, text=text, kind="content"))]
    strings: dict[str, Kind] = {}
    for call in message.tool_calls:
        if call.parsed is None or made.plan.arguments_as_text:
            strings[call.arguments] = "call"
        else:
            _collect(call.parsed, strings, "call")
    made.add_strings(number, level, strings)
    named: dict[str, Kind] = {call.name: "called" for call in message.tool_calls}
    for name, kind in (named | ({message.name: "name"} if message.name else {})).items():
        piece = Piece(message=number, ring=level, text=name, kind=kind)
        made._names[number, name] = made.add(piece)
    return _Turn(message.role, texts, message, number, reasoning=reasoning)


def _collect(value: Any, strings: dict[str, Kind], kind: Kind) -> None:
    if isinstance(value, str):
        strings[value] = kind
    elif isinstance(value, dict | list):
        for key in value:
            _collect(key, strings, kind)
        for item in value.values() if isinstance(value, dict) else ():
            _collect(item, strings, kind)


def _dotted(text: str) -> bool:
    return "." in text and re.fullmatch(r"[\w.:/-]+", text) is not None


def _developers_merged(made: Layout) -> Iterator[_Turn]:
    last: _Turn | None = None
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


def _systems_moved(made: Layout) -> list[_Turn]:
    """System turns put into the user's turn that follows, else the one before, else their own."""
    turns: list[_Turn] = []
    leading = True
    for turn in made.turns:
        leading = leading and turn.role in ("system", "developer")
        if turn.role == "system" and not (leading and made.plan.system == "middle"):
            made.notes += [
                f"messages[{made.pieces[text].message}]: the template does not take this system "
                "message; it was put into a user turn"
                for text in turn.texts
            ]
            turn = replace(turn, role="user", texts=list(turn.texts), moved=True)
        if turns and turns[-1].moved and turn.role == "user":
            turns[-1].texts += turn.texts
            turns[-1].moved = turn.moved
        else:
            turns.append(turn)
    settled: list[_Turn] = []
    for turn in turns:
        if turn.moved and settled and settled[-1].role == "user":
            settled[-1].texts += turn.texts
        else:
            settled.append(turn)
    return settled


def _joined(made: Layout) -> Iterator[_Turn]:
    last: _Turn | None = None
    for turn in made.turns:
        plain = not turn.source.tool_calls and turn.reasoning is None and turn.role != "tool"
        if last is not None and last.role == turn.role and plain and not last.source.tool_calls:
            made.notes += [
                f"messages[{made.pieces[text].message}]: the template does not take two "
                f"{turn.role} messages in a row; it was joined to the one before"
                for text in turn.texts
            ]
            last.texts += turn.texts
            continue
        yield turn
        last = turn
