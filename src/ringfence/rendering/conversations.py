"""Conversation → tokens, with the ring of every token. The security boundary.

Knows nothing of engines' transport, judges or search. Two promises: text in a message never becomes
a control token, and nothing is dropped in silence.

How: every piece of text is handed to the model's own chat template between two marks (`marks`).
Where the marks come out (`tracing`), the text between them is the writer's and is encoded as plain
characters; everything else was written by the template, and only there control tokens count. What
a template refuses or drops is put elsewhere (`placement`).
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from ringfence.engine import EngineCard, Tokenizer, Tokens
from ringfence.errors import InputError, RenderingError
from ringfence.rendering.layouts import SCAFFOLD as SCAFFOLD
from ringfence.rendering.layouts import Layout, Piece
from ringfence.rendering.marks import Marks, control_pattern
from ringfence.rendering.placement import layout
from ringfence.rendering.plans import plans
from ringfence.rendering.templates import Allowance, TemplateCostly, TemplateFailed, TemplateRefused
from ringfence.rendering.thoughts import thought_apart
from ringfence.rendering.tracing import Order, Unfit, trace
from ringfence.rendering.traits import Program, Traits, header_end, traits
from ringfence.rings import Conversation, Message
from ringfence.segments import NO_RING, RingedTokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Tokens `start` to `stop` (exclusive) that one writer wrote.

    `message` is the index into the conversation, None for the template's own text, for what is
    written around tools that became text, and for tool definitions; `ring` is the level of the
    writer, `SCAFFOLD` for the first two.
    """

    start: int
    stop: int
    message: int | None
    ring: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """Tokens `start` to `stop` (exclusive) of an assistant's message that a model has to write.

    Its text and calls, whatever the template puts between them, and the token that ends the turn;
    without the header, which the template writes for the model.

    `first` to `last` (exclusive) are those of them to be learnt. Left out are what the template
    wrote itself because nothing was thought, which teaches a model that thinks not to, and an end
    that is none: of gpt-oss's earlier replies `<|end|>`, behind which the model goes on.
    """

    message: int
    start: int
    stop: int
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendering:
    """What a model is given.

    Attributes:
        tokens: the prompt.
        spans: a partition of the tokens in order, by writer.
        conversation: what was rendered; None for a raw text prompt.
        text: for a raw text prompt, the text; otherwise the rendered text, for people only.
        notes: what the template could not express and how it was expressed instead.
        replies: the assistant's messages, in order.
    """

    tokens: Tokens
    spans: tuple[Span, ...]
    conversation: Conversation | None
    text: str
    notes: tuple[str, ...] = ()
    replies: tuple[Reply, ...] = ()

    @property
    def rings(self) -> tuple[int, ...]:
        """The ring level of every token; as long as `tokens`."""
        return tuple(
            itertools.chain.from_iterable([s.ring] * (s.stop - s.start) for s in self.spans)
        )


def render_text(text: str, tokenizer: Tokenizer) -> Rendering:
    """A raw prompt without any template; nothing in it becomes a control token.

    What the model expects in front of a text (`Tokenizer.start`) stands there.

    Raises:
        RenderingError: the text is empty.
    """
    encoded = tokenizer.encode(text)
    if not encoded:
        raise RenderingError("prompt: the text is empty; an engine needs something to go on from")
    tokens = tokenizer.start + encoded
    span = Span(start=0, stop=len(tokens), message=None, ring=0)
    return Rendering(tokens=tokens, spans=(span,), conversation=None, text=text)


def render(conversation: Conversation, card: EngineCard, *, generate: bool = True) -> Rendering:
    """Render a conversation with the chat template of the engine's model.

    What the template refuses or drops is put into the next visible place, and a note says so: a
    `developer` message into the system message, a system message into the user's turn, a message
    into the one before it of the same role, tools into the text of messages. Tokens keep
    the ring of their writer everywhere.

    Args:
        conversation: what to render.
        card: of the engine; gives template and tokenizer.
        generate: end with the header of the reply, ready for drafting.

    Raises:
        RenderingError: no template, a template that fails or takes too long, or one that drops,
            repeats, reorders or rewrites a message wherever it is put.
    """
    if card.template is None:
        raise RenderingError(
            f"{card.name} has no chat template. Use a chat model, or give a raw text prompt."
        )
    control = _control_pattern(tuple(card.tokenizer.control))
    program = Program(source=card.template, bos=card.bos, eos=card.eos)
    _check_names(conversation, control)
    known = traits(program, control)
    placed, order, marks = _placed(conversation, program, known, control, card.name, generate)
    return _Writer(card, conversation, placed.pieces, marks, known).rendering(
        order, tuple(placed.notes)
    )


def assistant_mask(rendering: Rendering) -> tuple[int, ...]:
    """1 for every token that the model would have to write, 0 for all others.

    That is the assistant's messages, each with what follows the header up to the token that ends
    the turn; as long as the tokens. Render with `generate=False` for training.
    """
    mask = [0] * len(rendering.tokens)
    for reply in rendering.replies:
        mask[reply.start : reply.stop] = [1] * (reply.stop - reply.start)
    return tuple(mask)


def answer(reply: str, card: EngineCard) -> str | None:
    """What a finished reply of the model says behind its thought; None if it says nothing there.

    Args:
        reply: as the model wrote it, with its control tokens as text.
        card: of the engine; template and tokenizer say how thoughts are written.

    Raises:
        InputError: the model writes thoughts that its template does not tell apart.
    """
    control = _control_pattern(tuple(card.tokenizer.control))
    known = traits(Program(source=card.template or "", bos=card.bos, eos=card.eos), control)
    bare = reply.lstrip()
    if known.opened or bare.startswith(known.opening):
        apart = thought_apart(
            reply, opened=known.opened, opening=known.opening, ending=known.ending
        )
        if apart is None:
            return None
        reply = apart[1]
    elif silence := known.silence.strip():
        reply = bare.removeprefix(silence)
    # Another thought, or a message of gpt-oss that is no answer, such as a call.
    marks = control.findall(known.opening + known.ending)
    if any(mark in reply for mark in marks):
        return None
    first = control.match(reply.lstrip())
    if first and _THINKS.search(first[0]):
        raise InputError(
            f"{card.name}: a reply begins with {first[0]}, which its chat template does not tell "
            "from the answer. Tell the template not to think (--template-option), or use the "
            "model's newest template."
        )
    return reply


def _check_names(conversation: Conversation, control: re.Pattern[str]) -> None:
    """Roles and ids go to the template as they are."""
    for index, message in enumerate(conversation.messages):
        names = {"role": message.role, "tool_call_id": message.tool_call_id}
        names |= {f"tool_calls[{n}].id": call.id for n, call in enumerate(message.tool_calls)}
        for place, name in names.items():
            if control.search(name):
                raise RenderingError(
                    f"messages[{index}].{place}: holds a control token of the model. Rename it."
                )


def _placed(
    conversation: Conversation,
    program: Program,
    known: Traits,
    control: re.Pattern[str],
    name: str,
    generate: bool,
) -> tuple[Layout, Order, Marks]:
    """The first plan under which the template loses nothing."""
    texts = [message.content for message in conversation.messages]
    calls = [call for message in conversation.messages for call in message.tool_calls]
    texts += [call.arguments for call in calls]
    # JSON can spell any character as an escape, so what was parsed counts as well.
    values = [*(call.parsed for call in calls), *conversation.tools]
    texts += [json.dumps(value, ensure_ascii=False) for value in values]
    marks = Marks.fresh(texts, control)
    allowance = Allowance()

    def run(made: Layout, dress: Callable[[int], str]) -> str:
        return program.text(
            made.messages(dress), allowance, generate=generate, tools=made.tools(dress)
        )

    failures: list[tuple[int, str]] = []
    for plan in plans(conversation, known):
        made = layout(conversation, plan, known, marks.enclosed)
        try:
            return made, trace(made, marks, run), marks
        except TemplateCostly as error:
            raise RenderingError(
                f"the chat template of {name} was stopped: {error}. Shorten the conversation, or "
                "render with another template."
            ) from None
        except TemplateRefused as error:
            failures.append((1, f"the chat template refuses this conversation: {error}"))
        except TemplateFailed as error:
            failures.append((2, f"the chat template of {name} fails: {error}"))
        except Unfit as error:
            failures.append((0, str(error)))
    # What a template drops says more than what it refuses, and that more than how it fails.
    raise RenderingError(min(failures, key=lambda failure: failure[0])[1])


# Control tokens of models that think, in any way of writing it.
_THINKS = re.compile("think|channel", re.IGNORECASE)
# What Unicode calls white space, as the tokenizers library does; Python's `strip` takes more.
_WHITE = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008"
_WHITE += "\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


@dataclass(slots=True)
class _Run:
    """A control token of the template, or plain text of one writer, before it becomes tokens."""

    text: str
    message: int | None
    ring: int
    control: bool = False


@dataclass(slots=True)
class _Writer:
    """Turns followed text into runs, and these into tokens, spans and replies."""

    card: EngineCard
    conversation: Conversation
    pieces: Sequence[Piece]
    marks: Marks
    traits: Traits
    tokens: list[int] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)
    _runs: list[_Run] = field(default_factory=list)
    # Of every reply, the number of the run behind it, and of its first; the same of what is learnt.
    _ends: dict[int, int] = field(default_factory=dict)
    _starts: dict[int, int] = field(default_factory=dict)
    _lasts: dict[int, int] = field(default_factory=dict)
    _firsts: dict[int, int] = field(default_factory=dict)
    # Replies that begin with their words where the model would begin to think.
    _at_once: set[int] = field(default_factory=set)

    def rendering(self, order: Order, notes: tuple[str, ...]) -> Rendering:
        """Everything that was followed, as tokens."""
        writers = [None if index is None else self.pieces[index] for index, _ in order]
        replies = self._by_reply(order)
        last = {reply: place for place, reply in enumerate(replies)}
        ended: int | None = None
        for place, (writer, (_, text)) in enumerate(zip(writers, order, strict=True)):
            if writer is not None:
                if writer.kind == "wrapper":
                    self._scaffold(text)
                else:
                    self._runs.append(_Run(text, writer.message, writer.ring))
                ended = replies[place] if last[replies[place]] == place else None
                continue
            if ended is not None:
                end = self._turn_end(text)
                self._lasts[ended] = len(self._runs)
                self._scaffold(text[:end])
                self._ends[ended] = len(self._runs)
                if not self._says(order[place - 1][0]) or self._as_at_last(text[:end]):
                    self._lasts[ended] = len(self._runs)
                text = text[end:]
            coming = replies[place + 1] if place + 1 < len(replies) else None
            if coming is not None and coming not in self._starts:
                header, silence = self.traits.header, self.traits.silence
                begin = header_end(text, header, self.marks.control)
                self._scaffold(text[:begin])
                self._starts[coming] = self._firsts[coming] = len(self._runs)
                headed, text = text[:begin].endswith(header), text[begin:]
                if silence and text.startswith(silence):
                    self._scaffold(silence)
                    self._firsts[coming] = len(self._runs)
                    text = text[len(silence) :]
                elif silence and headed and not text and self._says(order[place + 1][0]):
                    self._at_once.add(coming)
            self._scaffold(text)
        places = self._encoded()
        return Rendering(
            tokens=self._ringed(),
            spans=tuple(self.spans),
            conversation=self.conversation,
            text=self.marks.plain("".join(text for _, text in order)),
            notes=notes,
            replies=tuple(
                Reply(
                    message=message,
                    start=places[start],
                    stop=places[self._ends[message]],
                    # No loss on the one token that stands in the place of a thought's beginning.
                    first=places[self._firsts[message]] + (message in self._at_once),
                    last=places[self._lasts[message]],
                )
                for message, start in sorted(self._starts.items())
            ),
        )

    def _says(self, index: int | None) -> bool:
        return index is not None and self.pieces[index].kind == "content"

    def _as_at_last(self, end: str) -> bool:
        """Whether a turn ends in a token that ends replies, or as a last one, which does not."""
        last = self.traits.behind[: self._turn_end(self.traits.behind)]
        return end == last or self._ends_reply(end) or not self._ends_reply(last)

    def _ends_reply(self, text: str) -> bool:
        ids = self.card.tokenizer.control
        return any(ids[match[0]] in self.card.ends for match in self.marks.control.finditer(text))

    def _ringed(self) -> RingedTokens:
        """The tokens, which tell an engine with a ring signal who wrote them."""
        policy = self.conversation.policy
        return RingedTokens(
            self.tokens,
            (span.ring for span in self.spans for _ in range(span.start, span.stop)),
            reply=policy.ring_of("assistant").level if "assistant" in policy.roles else NO_RING,
            names=[ring.name for ring in policy.rings],
        )

    def _by_reply(self, order: Order) -> list[int | None]:
        """The assistant's message that each part belongs to.

        Templates repeat the name of a called tool at its result: that is not the model's.
        """
        seen: set[int] = set()
        replies = []
        for index, _ in order:
            again = index in seen and index is not None and self.pieces[index].kind == "called"
            replies.append(None if index is None or again else self._reply_of(self.pieces[index]))
            seen |= {index} if index is not None else set()
        return replies

    def _reply_of(self, piece: Piece) -> int | None:
        if piece.message is None:
            return None
        return (
            piece.message if self.conversation.messages[piece.message].role == "assistant" else None
        )

    def _scaffold(self, text: str) -> None:
        """The template's own text; control tokens in it are such, except where a guard stands."""
        ids = self.card.tokenizer.control
        for part in self.marks.control.split(text):
            if part in ids:
                self._runs.append(_Run(part, None, SCAFFOLD, control=True))
            elif plain := self.marks.plain(part):
                self._runs.append(_Run(plain, None, SCAFFOLD))

    def _encoded(self) -> list[int]:
        """Make the tokens; returns how many stand before each run, and behind the last."""
        self._strip()
        tokenizer, places = self.card.tokenizer, [0]
        for run in self._runs:
            tokens = (tokenizer.control[run.text],) if run.control else tokenizer.encode(run.text)
            self._add(tokens, run.message, run.ring)
            places.append(len(self.tokens))
        return places

    def _strip(self) -> None:
        """Take away the white space beside control tokens that do so, whoever wrote it.

        The model's own tokenizer does, so a model has never seen it there.
        """
        left, right = self.card.tokenizer.strips
        for runs, texts, strip in (
            (self._runs, right, str.lstrip),
            (self._runs[::-1], left, str.rstrip),
        ):
            beside = False
            for run in runs if texts else ():
                if run.control:
                    beside = run.text in texts
                elif beside:
                    run.text = strip(run.text, _WHITE)
                    beside = not run.text

    def _add(self, tokens: Sequence[int], message: int | None, ring: int) -> None:
        if not tokens:
            return
        start = len(self.tokens)
        self.tokens.extend(tokens)
        if self.spans and (self.spans[-1].message, self.spans[-1].ring) == (message, ring):
            start = self.spans.pop().start
        self.spans.append(Span(start=start, stop=len(self.tokens), message=message, ring=ring))

    def _turn_end(self, text: str) -> int:
        """Where the token that ends the turn is over, in the template's text after a reply.

        A token that ends replies; for templates that close earlier turns with another one, the
        first control token. Without either, the reply ends with its text.
        """
        found = list(self.marks.control.finditer(text))
        ids = self.card.tokenizer.control
        ending = [match for match in found if ids[match[0]] in self.card.ends] or found
        return ending[0].end() if ending else 0


@functools.lru_cache(maxsize=32)
def _control_pattern(control: tuple[str, ...]) -> re.Pattern[str]:
    return control_pattern(control)


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
