"""IFEval's 25 instruction types (arXiv 2311.07911) in terms of our own checks.

Each is written as the data of a grader, nothing more. They mean what the published evaluation
checks, which is not always what its prompts say: a bullet is any line that begins with `-`, and a
word is any run of letters. An empty reply follows no instruction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

Data = dict[str, Any]
Amount = int
Relation = Literal["less than", "at least"]
_NEVER: Data = {"check": "any", "of": []}
_SAID: Data = {"check": "regex", "pattern": r"[^\s\p{Z}]"}
_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_POSTSCRIPTS = {"P.P.S": r"(?i)p\.\s?p\.\s?s", "P.S.": r"(?i)p\.\s?s\."}


class _Arguments(BaseModel):
    """Every argument of every instruction; each instruction takes some of them."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keywords: list[str] = Field(default=[], max_length=50)
    forbidden_words: list[str] = Field(default=[], max_length=50)
    keyword: str = ""
    frequency: Amount = Field(default=0, ge=0)
    relation: Relation = "at least"
    letter: str = Field(default="", max_length=1)
    let_frequency: Amount = Field(default=0, ge=0)
    let_relation: Relation = "at least"
    language: str = ""
    num_sentences: Amount = Field(default=0, ge=0)
    num_paragraphs: Amount = Field(default=0, ge=0)
    num_words: Amount = Field(default=0, ge=0)
    nth_paragraph: Amount = Field(default=0, ge=0)
    first_word: str = ""
    num_placeholders: Amount = Field(default=0, ge=0)
    postscript_marker: str = ""
    num_bullets: Amount = Field(default=0, ge=0)
    num_highlights: Amount = Field(default=0, ge=0)
    section_spliter: str = ""
    num_sections: Amount = Field(default=0, ge=0)
    prompt_to_repeat: str = Field(default="", max_length=20_000)
    end_phrase: str = Field(default="", max_length=500)
    capital_frequency: Amount = Field(default=0, ge=0)
    capital_relation: Relation = "at least"


def expanded(instruction_id: str, arguments: Mapping[str, JsonValue]) -> Data:
    """The grader of an instruction, as data.

    Arguments that are null are taken for missing, as in the published file.

    Raises:
        ValueError: no such instruction, or arguments that it does not take or lacks.
    """
    if instruction_id not in INSTRUCTIONS:
        raise ValueError(f"no instruction {instruction_id!r}; there are {', '.join(INSTRUCTIONS)}")
    needs, build = INSTRUCTIONS[instruction_id]
    given = {name: value for name, value in arguments.items() if value is not None}
    if set(given) != set(needs):
        wanted = ", ".join(needs) or "none"
        raise ValueError(f"{instruction_id} takes the kwargs {wanted}; got {', '.join(given)}")
    try:
        read = _Arguments.model_validate(given)
    except ValidationError as error:
        first = error.errors()[0]
        name = first["loc"][0] if first["loc"] else "kwargs"
        raise ValueError(f"{instruction_id}: {name}: {first['msg']}") from None
    return _all(_SAID, build(read))


def _all(*graders: Data) -> Data:
    return {"check": "all", "of": list(graders)}


def _any(*graders: Data) -> Data:
    return {"check": "any", "of": list(graders)}


def _not(grader: Data) -> Data:
    return {"check": "not", "of": grader}


def _bounded(relation: str, number: int, check: Data) -> Data:
    if relation == "at least":
        return check | {"at_least": number}
    return check | {"at_most": number - 1} if number else _NEVER


def _exactly(number: int, check: Data) -> Data:
    return check | {"at_least": number, "at_most": number}


def _contains(text: str, **more: Any) -> Data:
    return {"check": "contains", "text": text, **more}


def _pattern(pattern: str) -> Data:
    return {"check": "regex", "pattern": pattern}


def _quoted(text: str) -> str:
    """A text as an expression of RE2's that matches just it."""
    return re.sub(r"([^\w\s])", r"\\\1", text, flags=re.ASCII) if text.isascii() else _each(text)


def _each(text: str) -> str:
    return "".join(sign if sign.isalnum() else rf"\x{{{ord(sign):x}}}" for sign in text)


def _first_word(given: _Arguments) -> Data:
    paragraph: Data = {"check": "part", "which": "paragraph", "at": max(0, given.nth_paragraph - 1)}
    word = _quoted(given.first_word.lower())
    begins = _pattern(rf"""(?i)\A\s*'*"*{word}(?:[.,?!'"\s]|\z)""")
    number: Data = {"check": "paragraphs", "divider": "\n\n"}
    return _all(_exactly(given.num_paragraphs, number), paragraph | {"of": begins})


def _language(given: _Arguments) -> Data:
    # A reply without any letters is in no language; the published evaluation lets it pass.
    return _any(_not(_pattern(r"\p{L}")), {"check": "language", "is": given.language})


def _cased(case: str) -> Data:
    return _all({"check": "letter_case", "is": case}, {"check": "language", "is": "en"})


def _divided(divider: str, number: int, **more: Any) -> Data:
    check = {"check": "paragraphs", "divider": divider, "empty": "fail", **more}
    return _exactly(number, check)


def _postscript(given: _Arguments) -> Data:
    marker = given.postscript_marker.strip()
    return _pattern(_POSTSCRIPTS[marker]) if marker in _POSTSCRIPTS else _contains(marker)


def _counted(pattern: str) -> Data:
    return {"check": "count", "pattern": pattern}


_BULLET = r"(?m)^[ \t]*(?:\*[^*\n].*|-.*)$"
_TITLE = r"<<[^\n]*[^\s<>][^\n]*>>"

INSTRUCTIONS: dict[str, tuple[tuple[str, ...], Callable[[_Arguments], Data]]] = {
    "keywords:existence": (
        ("keywords",),
        lambda given: _all(*(_contains(word) for word in given.keywords)),
    ),
    "keywords:frequency": (
        ("keyword", "frequency", "relation"),
        lambda given: _bounded(
            given.relation, given.frequency, {"check": "count", "text": given.keyword.strip()}
        ),
    ),
    "keywords:forbidden_words": (
        ("forbidden_words",),
        lambda given: _not(_any(*(_contains(w, whole_word=True) for w in given.forbidden_words))),
    ),
    "keywords:letter_frequency": (
        ("letter", "let_frequency", "let_relation"),
        lambda given: _bounded(
            given.let_relation, given.let_frequency, {"check": "count", "text": given.letter}
        ),
    ),
    "language:response_language": (("language",), _language),
    "length_constraints:number_sentences": (
        ("num_sentences", "relation"),
        lambda given: _bounded(
            given.relation, given.num_sentences, {"check": "sentences", "layout": False}
        ),
    ),
    "length_constraints:number_paragraphs": (
        ("num_paragraphs",),
        lambda given: _divided("***", given.num_paragraphs),
    ),
    "length_constraints:number_words": (
        ("num_words", "relation"),
        lambda given: _bounded(
            given.relation, given.num_words, {"check": "words", "joined": False}
        ),
    ),
    "length_constraints:nth_paragraph_first_word": (
        ("num_paragraphs", "nth_paragraph", "first_word"),
        _first_word,
    ),
    "detectable_content:number_placeholders": (
        ("num_placeholders",),
        lambda given: _counted(r"\[.*?\]") | {"at_least": given.num_placeholders},
    ),
    "detectable_content:postscript": (("postscript_marker",), _postscript),
    "detectable_format:number_bullet_lists": (
        ("num_bullets",),
        lambda given: _exactly(given.num_bullets, _counted(_BULLET)),
    ),
    "detectable_format:constrained_response": (
        (),
        lambda given: _any(*(_contains(option, ignore_case=False) for option in _OPTIONS)),
    ),
    "detectable_format:number_highlighted_sections": (
        ("num_highlights",),
        lambda given: {"check": "markup", "what": "highlights", "at_least": given.num_highlights},
    ),
    "detectable_format:multiple_sections": (
        ("section_spliter", "num_sections"),
        lambda given: (
            _counted(_quoted(given.section_spliter.strip()) + r"\s?\d+")
            | {"at_least": given.num_sections}
        ),
    ),
    "detectable_format:json_format": (
        (),
        lambda given: {"check": "json_schema", "json_schema": {}},
    ),
    "detectable_format:title": ((), lambda given: _pattern(_TITLE)),
    "combination:two_responses": ((), lambda given: _divided("******", 2, distinct=True)),
    "combination:repeat_prompt": (
        ("prompt_to_repeat",),
        lambda given: {"check": "prefix", "text": given.prompt_to_repeat, "ignore_case": True},
    ),
    "startend:end_checker": (
        ("end_phrase",),
        lambda given: _pattern(rf'(?i){_quoted(given.end_phrase.strip())}"*\s*\z'),
    ),
    "startend:quotation": ((), lambda given: _pattern(r'(?s)\A\s*".*"\s*\z')),
    "change_case:capital_word_frequency": (
        ("capital_frequency", "capital_relation"),
        lambda given: _bounded(
            given.capital_relation,
            given.capital_frequency,
            {"check": "capital_words", "joined": False},
        ),
    ),
    "change_case:english_capital": ((), lambda given: _cased("upper")),
    "change_case:english_lowercase": ((), lambda given: _cased("lower")),
    "punctuation:no_comma": ((), lambda given: _not(_contains(","))),
}
