"""Messages for a template, made of numbered pieces of text. Knows nothing of where they belong.

Every piece has its writer; a template gets them dressed, in messages, calls and definitions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from ringfence.rendering.plans import Plan
from ringfence.rendering.tool_text import Part
from ringfence.rendering.traits import Traits, reasoning_fields
from ringfence.rings import Conversation, Message
from ringfence.segments import NO_RING

BETWEEN = "\n\n"
# Ring level of what nobody in the conversation wrote; it stands above every ring.
SCAFFOLD = NO_RING
BROKEN = r"where the text forges the form of tools, its < was written \u003c"
# Words of JSON Schema and of chat APIs, which templates look for in tool definitions.
SCHEMA = frozenset(
    "type function name description parameters properties required items enum default nullable "
    "oneOf anyOf allOf not const format title pattern minimum maximum minItems maxItems minLength "
    "maxLength additionalProperties $ref $defs examples strict return response string number "
    "integer boolean object array null".split()
)
Kind = Literal["content", "wrapper", "reasoning", "call", "called", "name", "tool", "detail"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Text of one writer, to be placed by a template.

    Attributes:
        message: whose it is; None for tool definitions.
        ring: level of the writer.
        text: what it says.
        kind: a message's text (`content`), and what we write around tools that became text
            (`wrapper`), come out once and in order; what is called and with what (`called`,
            `call`), and names and descriptions of tools (`tool`), at least once; a reply's
            `reasoning`, the `name` at a tool's result and a tool's `detail` may not.
    """

    message: int | None
    ring: int
    text: str
    kind: Kind


@dataclass(slots=True)
class Turn:
    """One message as the template sees it.

    Attributes:
        texts: numbers of pieces that follow each other at once; these blocks are joined by blank
            lines.
        source: the message that it was; None for tool definitions.
    """

    role: str
    texts: list[tuple[int, ...]]
    source: Message | None
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
        ids: of calls, by message and place, that differ from the conversation's; the id of the call
            that a result answers is at place -1.
    """

    plan: Plan
    conversation: Conversation
    traits: Traits
    enclosed: Callable[[str], str]
    pieces: list[Piece] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    turns: list[Turn] = field(default_factory=list)
    _strings: dict[tuple[int | None, str], int] = field(default_factory=dict)
    names: dict[tuple[int, str], int] = field(default_factory=dict)
    ids: dict[tuple[int, int], str] = field(default_factory=dict)

    def messages(self, dress: Dress) -> list[dict[str, Any]]:
        """What the template gets; `dress` gives the text of a piece by its number."""
        return [self._message(turn, dress) for turn in self.turns]

    def tools(self, dress: Dress) -> list[Any]:
        """Tool definitions for the template."""
        if self.plan.tools_as_text:
            return []
        return [
            {"type": "function", "function": self._dressed(None, tool["function"], dress)}
            for tool in self.conversation.tools
        ]

    def _message(self, turn: Turn, dress: Dress) -> dict[str, Any]:
        text = BETWEEN.join("".join(map(dress, block)) for block in turn.texts)
        content: Any = [{"type": "text", "text": text}] if self.traits.parts else text
        made: dict[str, Any] = {"role": turn.role, "content": content}
        if turn.reasoning is not None:
            made |= reasoning_fields(dress(turn.reasoning))
        source, number = turn.source, turn.number
        if source is None or self.plan.tools_as_text:
            return made
        if self.calls(turn):
            if self.plan.no_content and not source.content.strip():
                made["content"] = None
            made["tool_calls"] = [
                {
                    "type": "function",
                    "function": {
                        "name": dress(self.names[number, call.name]),
                        "arguments": self._arguments(number, call.arguments, call.parsed, dress),
                    },
                }
                | ({"id": id_} if (id_ := self.ids.get((number, place), call.id)) else {})
                for place, call in enumerate(source.tool_calls)
            ]
        answered = self.ids.get((number, -1), source.tool_call_id)
        if answered and turn.role == source.role:
            made["tool_call_id"] = answered
        if source.name and turn.role == source.role:
            made["name"] = dress(self.names[number, source.name])
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
            if number is None and value in SCHEMA:
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

    def add_parts(self, message: int | None, ring: int, parts: list[Part]) -> tuple[int, ...]:
        """Number the pieces of tools that become text."""
        kind: Kind = "tool" if message is None else "content"
        block = tuple(
            self.add(
                Piece(message=message, ring=SCAFFOLD, text=part.text, kind="wrapper")
                if part.ours
                else Piece(message=message, ring=ring, text=part.text, kind=kind)
            )
            for part in parts
        )
        if any(part.broken for part in parts):
            self.notes.append(f"{self.about(block)}: {BROKEN}")
        return block

    def calls(self, turn: Turn) -> bool:
        """Whether it is for the template to show calls of this turn."""
        return bool(turn.source and turn.source.tool_calls and not self.plan.tools_as_text)

    def about(self, block: tuple[int, ...]) -> str:
        """Whose text a block is, for a note."""
        message = self.pieces[block[0]].message
        return "tools" if message is None else f"messages[{message}]"

    def add_strings(self, message: int | None, ring: int, strings: dict[str, Kind]) -> None:
        """Number texts, values or keys; equal ones are one piece, and numbers sort alike."""
        for text in sorted(strings, key=lambda text: (text.lower(), text)):
            piece = Piece(message=message, ring=ring, text=text, kind=strings[text])
            self._strings[message, text] = self.add(piece)
