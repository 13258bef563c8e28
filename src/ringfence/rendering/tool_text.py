"""Tools in plain text, for templates that have none. Knows nothing of templates, tokens or rings.

The form is the one of Hermes, which many models know: definitions between `<tools>` and `</tools>`,
calls between `<tool_call>` and `</tool_call>`, results between `<tool_response>` and
`</tool_response>`. These words are plain characters here, so a text could say them as well as we
can; `broken` sees to it that only ours are the real ones.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ringfence.tool_calls import ToolCall


class Part(NamedTuple):
    """Some text; whether it is `ours`, and whether it was `broken`."""

    text: str
    ours: bool = False
    broken: bool = False


_INTRODUCTION = """\
# Tools

You can call tools. Every line between <tools> and </tools> defines one of them in JSON:
<tools>
"""
_FORM = """\

</tools>

To call a tool, write its name and its arguments in exactly this form, once for every call:
<tool_call>
{"name": "NAME", "arguments": {"ARGUMENT": "VALUE"}}
</tool_call>
What the tool returns comes between <tool_response> and </tool_response>."""
CALL = "tool_call"
_WORDS = (CALL, "tool_response", "tools")
# What compatibility normalisation, which some tokenizers do, makes a less-than sign of as well.
_LESS = re.compile("[<\ufe64\uff1c]")
# White space, slashes, and characters that are not seen.
_UNSEEN = (
    r"[\s/\\\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff]*"
)
_REACH = 120


def definitions(tools: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The text that tells a model its tools and how to call them."""
    parts = [Part(_INTRODUCTION, ours=True)]
    for number, tool in enumerate(tools):
        parts += [Part("\n", ours=True)] if number else []
        parts.append(_theirs(json.dumps(tool, ensure_ascii=False)))
    return [*parts, Part(_FORM, ours=True)]


def called(calls: Sequence[ToolCall], *, beside: bool) -> list[Part]:
    """The text of calls; `beside` other text they begin on a new line.

    Arguments that are no JSON object are a JSON text, so that they end where they end.
    """
    parts: list[Part] = []
    for call in calls:
        said: object = call.arguments if call.parsed is None else call.parsed
        parts += [
            Part("\n" * (beside or bool(parts)) + '<tool_call>\n{"name": "', ours=True),
            Part(call.name),
            Part('", "arguments": ', ours=True),
            _theirs(json.dumps(said, ensure_ascii=False)),
            Part("}\n</tool_call>", ours=True),
        ]
    return parts


def returned(text: str) -> list[Part]:
    """The text of a tool's result."""
    return [
        Part("<tool_response>\n", ours=True),
        _theirs(text),
        Part("\n</tool_response>", ours=True),
    ]


def broken(text: str, *, calls: bool = True) -> str:
    r"""The text, in which `<` is written `\u003c` wherever it begins one of the form's words.

    So it is for what looks the same: in capitals, with white space or unseen characters, in
    characters that are normalised to these. In JSON the meaning stays. Everything else is kept.

    Args:
        text: hostile.
        calls: break calls as well.
    """
    return _LESS.sub(lambda found: _escaped(found, calls), text)


def _theirs(text: str) -> Part:
    made = broken(text)
    return Part(made, broken=made != text)


def _escaped(found: re.Match[str], calls: bool) -> str:
    after = found.string[found.end() : found.end() + _REACH]
    word = _WORD.match(unicodedata.normalize("NFKC", after).casefold())
    if word is None or (not calls and word["call"]):
        return found[0]
    return f"\\u{ord(found[0]):04x}"


def _spaced(word: str) -> str:
    return _UNSEEN.join(map(re.escape, word))


_WORD = re.compile(
    f"{_UNSEEN}(?:(?P<call>{_spaced(CALL)})|{'|'.join(map(_spaced, _WORDS[1:]))})"
    rf"(?:{_UNSEEN}(?:>|$)|\s[^<>]*>)"
)
