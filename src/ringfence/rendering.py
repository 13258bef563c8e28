"""Conversation → tokens, with the ring of every token. The security boundary.

Knows nothing of engines' transport, judges or search. Two promises: text in a message never becomes
a control token, and nothing is dropped in silence.

How: every piece of text is handed to the model's own chat template between two marks (characters
of a private-use plane that occur nowhere in the conversation). Where the marks come out, the text
between them is the writer's and is encoded as plain characters; everything else was written by the
template, and only there control tokens count.
"""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from ringfence.engine import EngineCard, Tokenizer, Tokens
from ringfence.errors import RenderingError
from ringfence.rings import Conversation, Message

# Ring level of the template's own tokens: it stands above every ring, as nobody in the
# conversation wrote it.
SCAFFOLD = -1
# Supplementary private-use plane B: three marks make one pair unlike any text that avoids them.
_MARKS = range(0x100000, 0x10FFFE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens `start` to `stop` (exclusive) that one writer wrote.

    `message` is the index into the conversation, None for the template's own text; `ring` is the
    level of the writer, `SCAFFOLD` for the template.
    """

    start: int
    stop: int
    message: int | None
    ring: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a model is given.

    Attributes:
        tokens: the prompt.
        spans: a partition of the tokens in order, by writer.
        conversation: what was rendered; None for a raw text prompt.
        text: for a raw text prompt, the text; otherwise the rendered text, for people only.
        notes: what the template could not express and how it was expressed instead.
    """

    tokens: Tokens
    spans: tuple[Span, ...]
    conversation: Conversation | None
    text: str
    notes: tuple[str, ...] = ()

    @property
    def rings(self) -> tuple[int, ...]:
        """The ring level of every token; as long as `tokens`."""
        return tuple(
            itertools.chain.from_iterable([s.ring] * (s.stop - s.start) for s in self.spans)
        )


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text of one writer, to be placed by the template."""

    message: int
    ring: int
    text: str


def render_text(text: str, tokenizer: Tokenizer) -> Rendering:
    """A raw prompt without any template; nothing in it becomes a control token.

    Raises:
        RenderingError: the text is empty.
    """
    tokens = tokenizer.encode(text)
    if not tokens:
        raise RenderingError("prompt: the text is empty; an engine needs something to go on from")
    span = Span(start=0, stop=len(tokens), message=None, ring=0)
    return Rendering(tokens=tokens, spans=(span,), conversation=None, text=text)


def render(conversation: Conversation, card: EngineCard, *, generate: bool = True) -> Rendering:
    """Render a conversation with the chat template of the engine's model.

    A `developer` message for a template that does not know the role is merged, visibly, into the
    system message (a note says so); its tokens keep the developer's ring.

    Args:
        conversation: what to render.
        card: of the engine; gives template and tokenizer.
        generate: end with the header of the reply, ready for drafting.

    Raises:
        RenderingError: no template, a template that fails, or one that drops, repeats, reorders or
            rewrites a message.
    """
    if card.template is None:
        raise RenderingError(
            f"{card.name} has no chat template. Use a chat model, or give a raw text prompt."
        )
    pieces, notes = _placed(conversation, card.template)
    text, order = _template_text(pieces, card, generate)
    tokens: list[int] = []
    spans: list[Span] = []
    for writer, part in order:
        encoded = (
            _scaffold_tokens(part, card.tokenizer)
            if writer is None
            else card.tokenizer.encode(part)
        )
        if encoded:
            ring = SCAFFOLD if writer is None else writer.ring
            message = None if writer is None else writer.message
            start = len(tokens)
            tokens.extend(encoded)
            spans.append(Span(start=start, stop=len(tokens), message=message, ring=ring))
    return Rendering(
        tokens=tuple(tokens),
        spans=tuple(spans),
        conversation=conversation,
        text=text,
        notes=notes,
    )


def _placed(
    conversation: Conversation, template: str
) -> tuple[list[tuple[str, list[_Piece]]], tuple[str, ...]]:
    """Turns for the template: role and the pieces of each, with developer merged if need be."""
    turns: list[tuple[str, list[_Piece]]] = []
    notes: list[str] = []
    knows_developer = "developer" in template
    for index, message in enumerate(conversation.messages):
        piece = _Piece(index, message.ring.level, message.content)
        if message.role != "developer" or knows_developer:
            turns.append((message.role, [piece]))
            continue
        notes.append(
            f"messages[{index}]: the template knows no developer role; "
            "the message was merged into the system message"
        )
        if turns and turns[-1][0] == "system":
            turns[-1][1].append(piece)
        else:
            turns.append(("system", [piece]))
    return turns, tuple(notes)


def _template_text(
    turns: Sequence[tuple[str, list[_Piece]]], card: EngineCard, generate: bool
) -> tuple[str, list[tuple[_Piece | None, str]]]:
    """Run the template with and without marks, and split its text by writer.

    Some templates trim messages. The marks hide the ends of a message from that, so where the
    marked text differs from the plain one, the same is tried with the messages trimmed.
    """
    assert card.template is not None
    everything = "".join(piece.text for _, pieces in turns for piece in pieces)
    opening, closing = _fresh_marks(everything)
    for trimmed in (False, True):
        flat: list[_Piece] = []
        marked: list[dict[str, str]] = []
        plain: list[dict[str, str]] = []
        for role, pieces in turns:
            texts = [piece.text.strip() if trimmed else piece.text for piece in pieces]
            numbered = []
            for piece, text in zip(pieces, texts, strict=True):
                numbered.append(f"{opening}{len(flat)}{closing}{text}{opening}{closing}")
                flat.append(piece)
            marked.append({"role": role, "content": "\n\n".join(numbered)})
            plain.append({"role": role, "content": "\n\n".join(texts)})
        order = _split(_run(card, marked, generate), flat, opening, closing)
        text = _run(card, plain, generate)
        if "".join(part for _, part in order) == text:
            return text, order
    raise RenderingError(
        f"the chat template of {card.name} rewrites message text in a way that cannot be followed"
        " token by token. Render with another template (a template file), or report this one."
    )


def _fresh_marks(text: str) -> tuple[str, str]:
    """Two characters that do not occur in the text."""
    used = set(text)
    free = (chr(code) for code in _MARKS if chr(code) not in used)
    opening, closing = next(free, None), next(free, None)
    if opening is None or closing is None:
        raise RenderingError(
            "messages: the text uses every character of the private-use plane U+100000 to U+10FFFD;"
            " two of them must be left over"
        )
    return opening, closing


def _split(
    text: str, pieces: Sequence[_Piece], opening: str, closing: str
) -> list[tuple[_Piece | None, str]]:
    """Cut the template's output at the marks: (writer or None, text) in order."""
    pattern = re.compile(f"{opening}([0-9]+){closing}(.*?){opening}{closing}", re.DOTALL)
    order: list[tuple[_Piece | None, str]] = []
    position, seen = 0, []
    for match in pattern.finditer(text):
        order.append((None, text[position : match.start()]))
        index = int(match[1])
        seen.append(index)
        order.append((pieces[index], match[2]))
        position = match.end()
    order.append((None, text[position:]))
    if opening in "".join(part for _, part in order) or sorted(seen) != list(range(len(pieces))):
        missing = sorted(set(range(len(pieces))) - set(seen))
        if missing:
            index = pieces[missing[0]].message
            raise RenderingError(
                f"messages[{index}]: the chat template drops this message. Move it to a role the "
                "template has (system or user), or use a model whose template has the role."
            )
        raise RenderingError("the chat template repeats or cuts a message")
    if seen != sorted(seen):
        raise RenderingError("the chat template changes the order of the messages")
    return order


def _run(card: EngineCard, messages: list[dict[str, str]], generate: bool) -> str:
    """Run the template in Jinja's sandbox, with what templates may expect to find."""
    assert card.template is not None
    try:
        template = _compiled(card.template)
        text: str = template.render(
            messages=messages,
            add_generation_prompt=generate,
            bos_token=card.bos,
            eos_token=card.eos,
            tools=None,
            documents=None,
        )
        return text
    except _TemplateRaised as error:
        raise RenderingError(f"the chat template refuses this conversation: {error}") from None
    except Exception as error:  # a template is a program, and may fail as any program may
        raise RenderingError(f"the chat template of {card.name} fails: {error}") from error


class _TemplateRaised(Exception):
    """A template called raise_exception."""


@functools.lru_cache(maxsize=32)
def _compiled(source: str) -> Any:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def raise_exception(message: str) -> NoReturn:
        raise _TemplateRaised(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    environment.filters["tojson"] = _tojson
    return environment.from_string(source)


def _tojson(value: object, indent: int | None = None, **_: object) -> str:
    """JSON as chat templates expect it: Jinja's own filter escapes HTML."""
    import json

    return json.dumps(value, ensure_ascii=False, indent=indent)


def _scaffold_tokens(text: str, tokenizer: Tokenizer) -> Tokens:
    """Encode the template's own text; control tokens in it are control tokens."""
    tokens: list[int] = []
    control = tokenizer.control
    for part in _control_pattern(tuple(control)).split(text):
        if part in control:
            tokens.append(control[part])
        elif part:
            tokens.extend(tokenizer.encode(part))
    return tuple(tokens)


@functools.lru_cache(maxsize=32)
def _control_pattern(control: tuple[str, ...]) -> re.Pattern[str]:
    """Splits text at control tokens, longest first; never matches where there are none."""
    ranked = sorted((text for text in control if text), key=len, reverse=True)
    return re.compile("(" + "|".join(map(re.escape, ranked)) + ")" if ranked else r"((?!))")


def transcript(messages: Iterable[Message], *, rings: bool = False) -> str:
    """The conversation as plain text for a judge to read, one block a message.

    With `rings`, every block names the ring of its writer and the ring's level.
    """
    blocks = []
    for message in messages:
        who = message.role.capitalize()
        if rings:
            who += f" [ring {message.ring.level}: {message.ring.name}]"
        blocks.append(f"{who}: {message.content}")
    return "\n\n".join(blocks)
