"""Graders: checks as data, and all of, any of, none of them. Knows no particular check's work.

Composition is three-valued (Kleene): what cannot be decided stays so under `not`, and under `all`
and `any` unless the others settle the matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeAlias, Union

from pydantic import Field, JsonValue, PrivateAttr, TypeAdapter, ValidationError
from typing_extensions import override

from ringfence.errors import InputError
from ringfence.graders.grades import Check, Grade, Seen, examine, undecided, verdict
from ringfence.graders.ifeval import expanded
from ringfence.graders.json_replies import JsonSchema
from ringfence.graders.languages import Language
from ringfence.graders.leaks import Leak
from ringfence.graders.lengths import CapitalWords, Characters, Lines, Paragraphs, Sentences, Words
from ringfence.graders.patterns import Regex
from ringfence.graders.pieces import lines, paragraphs, sentences, words
from ringfence.graders.structure import Acrostic, ListForm, Markup
from ringfence.graders.tools import ToolCall, ToolState
from ringfence.graders.wording import (
    Alphabetical,
    Contains,
    Count,
    Exact,
    LetterCase,
    Palindrome,
    Prefix,
    Suffix,
)

DEEPEST = 40
MOST_VALUES = 20_000
MOST_PARTS = 2_000

Which: TypeAlias = Literal["line", "sentence", "paragraph", "word"]


class AllOf(Check):
    """Every one of some graders passes."""

    check: Literal["all"]
    any_length = True
    cost = 0
    of: tuple[Grader, ...]

    @override
    def look(self, seen: Seen) -> Grade:
        return _settled((examine(one, seen) for one in self.of), False, "all passed")


class AnyOf(Check):
    """At least one of some graders passes."""

    check: Literal["any"]
    any_length = True
    cost = 0
    of: tuple[Grader, ...]

    @override
    def look(self, seen: Seen) -> Grade:
        return _settled((examine(one, seen) for one in self.of), True, "none passed")


class Not(Check):
    """A grader does not pass."""

    check: Literal["not"]
    any_length = True
    cost = 0
    of: Grader

    @override
    def look(self, seen: Seen) -> Grade:
        inner = examine(self.of, seen)
        return verdict(not inner.passed, f"not: {inner.reason}") if inner.decided else inner


class Each(Check):
    """Every line, sentence, paragraph or word passes a grader; there must be one at least."""

    check: Literal["each"]
    cost = 10
    which: Which
    of: Grader

    @override
    def look(self, seen: Seen) -> Grade:
        parts = _parts(self.which, seen.reply)
        if not parts:
            return verdict(False, f"no {self.which}s")
        if len(parts) > MOST_PARTS:
            return undecided(f"{len(parts):,} {self.which}s are too many to check")
        return _settled((_of_part(self.of, part, seen) for part in parts), False, "each passed")


class Part(Check):
    """One line, sentence, paragraph or word passes a grader."""

    check: Literal["part"]
    cost = 10
    which: Which
    at: Annotated[int, Field(strict=True, ge=-MOST_PARTS, le=MOST_PARTS)]
    """0 is the first, -1 the last."""
    of: Grader

    @override
    def look(self, seen: Seen) -> Grade:
        parts = _parts(self.which, seen.reply)
        if not -len(parts) <= self.at < len(parts):
            return verdict(False, f"no {self.which} {self.at}: there are {len(parts)}")
        return _of_part(self.of, parts[self.at], seen)


class IfEval(Check):
    """One of IFEval's 25 instructions; an empty reply follows none."""

    check: Literal["ifeval"]
    any_length = True
    cost = 0
    instruction_id: Annotated[str, Field(max_length=100)]
    kwargs: dict[str, JsonValue] = Field(default_factory=dict)

    _same: Check = PrivateAttr()

    def model_post_init(self, _: object) -> None:
        """Arguments that the instruction takes.

        Raises:
            ValueError: no such instruction, or arguments that are not its own.
        """
        data = expanded(self.instruction_id, self.kwargs)
        try:
            self._same = _grader_type().validate_python(data)
        except ValidationError as error:
            raise ValueError(f"{self.instruction_id}: {_explained(error)}") from None

    @override
    def look(self, seen: Seen) -> Grade:
        return examine(self._same, seen)

    def expanded(self) -> Check:
        """The graders that say the same."""
        return self._same


Grader: TypeAlias = Annotated[
    Union[  # noqa: UP007 - pydantic resolves the forward references of a Union
        AllOf,
        AnyOf,
        Not,
        Each,
        Part,
        IfEval,
        Acrostic,
        Alphabetical,
        CapitalWords,
        Characters,
        Contains,
        Count,
        Exact,
        JsonSchema,
        Language,
        Leak,
        LetterCase,
        Lines,
        ListForm,
        Markup,
        Palindrome,
        Paragraphs,
        Prefix,
        Regex,
        Sentences,
        Suffix,
        ToolCall,
        ToolState,
        Words,
    ],
    Field(discriminator="check"),
]


def parse_grader(data: object) -> Grader:
    """A grader from its JSON.

    Raises:
        InputError: unknown checks or fields, wrong values, too much or too deep; names the path of
            the field.
    """
    _bounded(data)
    try:
        return _grader_type().validate_python(data)
    except ValidationError as error:
        raise InputError(f"grader: {_explained(error)}") from None


def dump_grader(grader: Grader) -> dict[str, Any]:
    """The JSON of a grader: the fields that it was given."""
    return grader.model_dump(mode="json", by_alias=True, exclude_unset=True)


def grade(grader: Grader, reply: str, state: Mapping[str, Any] | None = None) -> Grade:
    """The verdict on a reply; never raises, whatever the reply or the state.

    Args:
        grader: from `parse_grader`.
        reply: any text.
        state: what tools did, as `{"state": {...}, "calls": [{"name": ..., "arguments": ...}]}`;
            checks on tools are undecided without it.
    """
    return examine(grader, Seen(reply, state))


def grader_schema() -> dict[str, Any]:
    """JSON Schema of a grader."""
    schema = _grader_type().json_schema(by_alias=True)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def _grader_type() -> TypeAdapter[Grader]:
    for recursive in (AllOf, AnyOf, Not, Each, Part):
        recursive.model_rebuild()
    return TypeAdapter(Grader)


def _settled(grades: Iterator[Grade], settles: bool, otherwise: str) -> Grade:
    """The first grade that settles the matter, else an undecided one, else the contrary."""
    open_one = None
    for one in grades:
        if one.decided and one.passed is settles:
            return one
        if not one.decided:
            open_one = open_one or one
    return open_one or verdict(not settles, otherwise)


def _of_part(grader: Check, part: str, seen: Seen) -> Grade:
    """The verdict on a part, paid for together with the whole."""
    inner = Seen(part, seen.state, seen.left)
    found = examine(grader, inner)
    seen.left = inner.left
    return found


def _parts(which: Which, reply: str) -> Sequence[str]:
    if which == "word":
        return list(words(reply))
    return {"line": lines, "sentence": sentences, "paragraph": paragraphs}[which](reply)


def _bounded(data: object) -> None:
    """Raises an error for data too deep or too large to be read with recursion."""
    left = [(data, 1)]
    seen = 0
    while left:
        value, depth = left.pop()
        seen += 1
        if depth > DEEPEST:
            raise InputError(f"grader: nested more than {DEEPEST} deep; split it into several")
        if seen > MOST_VALUES:
            raise InputError(f"grader: more than {MOST_VALUES:,} values; split it into several")
        if isinstance(value, dict):
            left.extend((one, depth + 1) for one in value.values())
        elif isinstance(value, list | tuple):
            left.extend((one, depth + 1) for one in value)


def _explained(error: ValidationError) -> str:
    """Every field that is wrong with what it wants, in one line."""
    parts = []
    for item in error.errors(include_url=False)[:5]:
        steps, message = _path(item["loc"]), item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            message = "no such field; check the spelling"
        elif item["type"] == "union_tag_not_found":
            message = 'needs a field "check" that names the check'
        where = ".".join(steps)
        parts.append(f"{where}: {message}" if where else message)
    return "; ".join(parts)


def _path(loc: Sequence[int | str]) -> list[str]:
    """Steps to a field in the data; pydantic puts the name of each check between them."""
    steps: list[str] = []
    a_check_follows = True
    for step in loc:
        if a_check_follows and isinstance(step, str):
            a_check_follows = False
            continue
        steps.append(str(step))
        a_check_follows = step == "of" or (isinstance(step, int) and steps[-2:-1] == ["of"])
    return steps
