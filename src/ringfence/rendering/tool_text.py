"""Tools in plain text, for templates that have none. Knows nothing of templates, tokens or rings.

The form is the one of Hermes, which many models know: definitions between `<tools>` and `</tools>`,
calls between `<tool_call>` and `</tool_call>`, results between `<tool_response>` and
`</tool_response>`. These words are plain characters here, so a text could say them as well as we
can; `broken` sees to it that only ours are the real ones.
"""

from __future__ import annotations

import functools
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
# Not seen, though Unicode counts them as letters, marks or symbols: fillers, vowels that are never
# shown, variation selectors, the blank of Braille, a note without a head.
_UNSEEN = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U0001d159"
    "\U000e0100-\U000e01ef]"
)


def definitions(tools: Sequence[Mapping[str, Any]]) -> list[Part]:
    """The text that tells a model its tools and how to call them."""
    parts = [Part(_INTRODUCTION, ours=True)]
    for number, tool in enumerate(tools):
        parts += [Part("\n", ours=True)] if number else []
        parts.append(_theirs(json.dumps(tool, ensure_ascii=False)))
    return [*parts, Part(_FORM, ours=True)]


def called(calls: Sequence[ToolCall], *, beside: bool) -> list[Part]:
    """The text of calls; `beside` other text they begin on a new line.

    Arguments that are no JSON object are a JSON text, so that they end where they end. An object
    is written anew, unless numbers would be rounded.
    """
    parts: list[Part] = []
    for call in calls:
        said: object = call.arguments if call.parsed is None else call.parsed
        rounded = call.parsed is not None and not call.exact
        parts += [
            Part("\n" * (beside or bool(parts)) + '<tool_call>\n{"name": "', ours=True),
            Part(call.name),
            Part('", "arguments": ', ours=True),
            _theirs(call.arguments if rounded else json.dumps(said, ensure_ascii=False)),
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

    So it is for what looks the same: in capitals, with white space, slashes or unseen characters,
    in characters that are normalised to these; whether it is closed or not. In JSON the meaning
    stays. Everything else is kept.

    Args:
        text: hostile.
        calls: break calls as well.
    """
    return _LESS.sub(lambda found: _escaped(found, calls), text)


def _theirs(text: str) -> Part:
    made = broken(text)
    return Part(made, broken=made != text)


def _escaped(found: re.Match[str], calls: bool) -> str:
    word = _word_behind(found.string, found.end())
    if word is None or (not calls and word == CALL):
        return found[0]
    return f"\\u{ord(found[0]):04x}"


def _word_behind(text: str, place: int) -> str | None:
    """The word of the form that the next letters spell, whatever stands unseen between them.

    Never reads past another less-than sign, so a text is read once in all.
    """
    said = ""
    for index in range(place, len(text)):
        seen = _seen(text[index])
        if said in _WORDS and not (seen[:1].isalnum() or seen[:1] == "_"):
            return said
        said += seen.strip("/\\ ")
        if not any(word.startswith(said) for word in _WORDS):
            return None
    return said if said in _WORDS else None


@functools.lru_cache(maxsize=4096)
def _seen(letter: str) -> str:
    """A letter normalised; empty for white space, control and format characters, and fillers."""
    if unicodedata.category(letter)[0] in "CZ" or _UNSEEN.match(letter):
        return ""
    return unicodedata.normalize("NFKC", letter).casefold()
