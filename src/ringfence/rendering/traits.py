"""What a chat template can do, found out by running it. Knows nothing of rings and tokens."""

from __future__ import annotations

import functools
import itertools
import os.path
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ringfence.rendering.templates import Allowance, TemplateFailed, run
from ringfence.rendering.thoughts import ENDING, OPENING

_SECONDS = 2.0
INVENTED = "zeveloper"
_WORDS = ("qzufirst", "qzusecond")


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A template and the special texts it may print."""

    source: str
    bos: str = ""
    eos: str = ""

    def text(
        self,
        messages: Sequence[Mapping[str, Any]],
        allowance: Allowance,
        *,
        generate: bool = False,
        tools: Sequence[Any] | None = None,
    ) -> str:
        """Run it; see `templates.run`."""
        variables = {
            "messages": list(messages),
            "add_generation_prompt": generate,
            "bos_token": self.bos,
            "eos_token": self.eos,
            "tools": list(tools) if tools else None,
            "documents": None,
        }
        return run(self.source, variables, allowance)

    def tried(
        self,
        messages: Sequence[Mapping[str, Any]],
        allowance: Allowance,
        *,
        generate: bool = False,
        tools: Sequence[Any] | None = None,
    ) -> str | None:
        """Run it; None where it fails."""
        try:
            return self.text(messages, allowance, generate=generate, tools=tools)
        except TemplateFailed:
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Traits:
    """Habits of a template.

    Attributes:
        parts: content must be a list of parts; as plain text it fails or is dropped.
        developer: treats the role differently from one that was invented.
        reasoning: shows the reasoning of a last reply that is passed beside its content.
        tools: shows a tool's definition, a call of it and its result.
        header: what it puts in front of a reply that the model is to write; empty if unknown.
        silence: what it writes behind the header of a last reply that is passed without reasoning,
            such as an empty block of it; empty if nothing, or if it does not show reasoning.
        behind: what it writes behind the text of a last reply.
        opening: begins what a model thinks before it replies; `ending` ends it.
    """

    parts: bool
    developer: bool
    reasoning: bool
    tools: bool
    header: str
    silence: str
    behind: str
    opening: str = OPENING
    ending: str = ENDING

    @property
    def opened(self) -> bool:
        """The header begins the thought, so that the reply only ends it."""
        return self.header.rstrip().endswith(self.opening)


@functools.lru_cache(maxsize=64)
def traits(program: Program, control: re.Pattern[str]) -> Traits:
    """Try a template out on messages of its own, for 2 seconds of processor time at most.

    Whatever the time does not suffice for, it cannot do.
    """
    user, other = _WORDS
    allowance = Allowance(seconds=_SECONDS)

    def shown(messages: list[dict[str, Any]], *words: str) -> bool:
        text = program.tried(messages, allowance)
        return text is not None and all(word in text for word in words)

    parts = not shown([_message("user", user)], user) and shown(
        [_message("user", user, parts=True)], user
    )
    said = _message("assistant", user, parts=parts)
    question = _message("user", "x", parts=parts)
    reply = said | reasoning_fields(other)
    reasoning = shown([question, reply], user, other)
    header = _header(program, parts, control, allowance)
    before, _, behind = (program.tried([question, said], allowance) or "").rpartition(user)
    silence = before[header_end(before, header, control) :] if reasoning else ""
    opening, ending = OPENING, ENDING
    if reasoning:
        thinking = (program.tried([question, reply], allowance) or "").partition(user)[0]
        opens, _, ends = thinking.partition(other)
        # Templates differ in the white space around <think>, and some put it into the header.
        if ENDING not in ends:
            opening = opens[header_end(opens, header, control) :].strip()
            ending = ends.strip()
    return Traits(
        parts=parts,
        developer=_knows_developer(program, parts, allowance),
        reasoning=reasoning,
        tools=_shows_tools(program, parts, allowance),
        header=header,
        silence=silence,
        behind=behind,
        opening=opening,
        ending=ending,
    )


def header_end(text: str, header: str, control: re.Pattern[str]) -> int:
    """Where the header of a reply is over, in the template's text before the reply.

    As much as there is of what the template writes before a reply that is to be drafted; it may go
    on with more in an earlier turn, or with less.
    """
    cuts = {len(header), *(m.end() for m in re.finditer("\n", header))}
    found = list(control.finditer(header))
    for match in found:
        cuts |= {match.start(), match.end()}
    least = found[0].end() if found else len(header)
    for cut in sorted((cut for cut in cuts if cut >= least and cut), reverse=True):
        if (place := text.rfind(header[:cut])) >= 0:
            return place + cut
    return len(text)


def reasoning_fields(text: str) -> dict[str, str]:
    """Reasoning under every name that templates read it by."""
    return {"reasoning_content": text, "reasoning": text, "thinking": text}


def _message(role: str, text: str, *, parts: bool = False) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}] if parts else text}


def _knows_developer(program: Program, parts: bool, allowance: Allowance) -> bool:
    first, second = _WORDS
    texts = [
        program.tried(
            [_message(role, first, parts=parts), _message("user", second, parts=parts)], allowance
        )
        for role in ("developer", INVENTED)
    ]
    known, invented = texts
    if known is None or first not in known:
        return False
    for form in (str, str.upper, str.capitalize):
        invented = invented and invented.replace(form(INVENTED), form("developer"))
    return known != invented


def _shows_tools(program: Program, parts: bool, allowance: Allowance) -> bool:
    tool, told = "qzutool", "qzutold"
    defined = {"name": tool, "description": told, "parameters": {"type": "object"}}
    result = _message("tool", _WORDS[1], parts=parts)
    result |= {"tool_call_id": "call00001", "name": tool}
    # Some templates want arguments as text, or no content beside a call.
    for content, arguments in itertools.product(
        ("", None), ({"city": _WORDS[0]}, f'{{"city": "{_WORDS[0]}"}}')
    ):
        function = {"name": tool, "arguments": arguments}
        calls = [{"id": "call00001", "type": "function", "function": function}]
        reply = {"role": "assistant", "content": content, "tool_calls": calls}
        text = program.tried(
            [_message("user", "x", parts=parts), reply, result],
            allowance,
            tools=[{"type": "function", "function": defined}],
        )
        if text is not None and all(word in text for word in (told, *_WORDS)):
            return True
    return False


def _header(program: Program, parts: bool, control: re.Pattern[str], allowance: Allowance) -> str:
    question = [_message("user", _WORDS[0], parts=parts)]
    without = program.tried(question, allowance)
    with_ = program.tried(question, allowance, generate=True)
    if without is None or with_ is None:
        return ""
    if without == with_:
        # No header: the model goes on where the question's turn ends.
        return with_.rpartition(_WORDS[0])[2]
    common = len(os.path.commonprefix([without, with_]))
    for match in control.finditer(with_):
        if match.start() < common < match.end():
            common = match.start()
    return with_[common:]
