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
    """

    parts: bool
    developer: bool
    reasoning: bool
    tools: bool
    header: str


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
    reply = _message("assistant", user, parts=parts) | reasoning_fields(other)
    return Traits(
        parts=parts,
        developer=_knows_developer(program, parts, allowance),
        reasoning=shown([_message("user", "x", parts=parts), reply], user, other),
        tools=_shows_tools(program, parts, allowance),
        header=_header(program, parts, control, allowance),
    )


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
