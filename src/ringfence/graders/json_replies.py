"""Replies that are JSON, and what a JSON Schema says of them. Knows no other checks.

Schemas come with cases and replies from models; both may be hostile. So schemas keep to keywords
whose work is bounded, refer only to their own definitions, and nothing is ever fetched; their
patterns are RE2's; validation pays for what it reads; and JSON is read by pydantic's parser, which
refuses to nest deeply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from itertools import chain
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import AfterValidator, JsonValue
from pydantic_core import from_json
from typing_extensions import override

from ringfence.graders.grades import Check, Grade, Seen, shown, undecided, verdict
from ringfence.graders.optional import library, require
from ringfence.graders.patterns import Program

STEP = 200
"""Characters that a keyword counts as wherever it is looked at (see `READING`)."""
VALUE = 8
"""Characters that a value counts as besides its own."""
_KEYWORDS = frozenset(
    "$comment $defs $ref $schema additionalProperties allOf anyOf const contains default"
    " definitions dependentRequired deprecated description else enum examples"
    " exclusiveMaximum exclusiveMinimum format if items maxContains maxItems maxLength"
    " maxProperties maximum minContains minItems minLength minProperties minimum multipleOf"
    " not oneOf pattern patternProperties prefixItems properties propertyNames readOnly"
    " required then title type uniqueItems writeOnly".split()
)
_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems")
_NAMED_SCHEMAS = ("$defs", "definitions", "properties", "patternProperties")
_ONE_SCHEMA = (
    "additionalProperties contains else if items not propertyNames then".split()
)  # and no others
_FENCE = re.compile(r"```[A-Za-z]*(?=[\s{\[\"])(.*)```", re.DOTALL)


# Validators are given no place of their own to keep what is left, nor the sizes of values by id.
_work: ContextVar[tuple[Seen, dict[int, int]]] = ContextVar("_work")


class TooManySteps(Exception):
    """Validation was given up."""


def parsed(reply: str) -> tuple[bool, Any]:
    """Whether the reply is JSON, alone or in one code fence, and what it says or what is wrong."""
    text = reply.strip()
    fenced = _FENCE.fullmatch(text) if text.startswith("```") else None
    body = fenced.group(1) if fenced else text
    try:
        return True, from_json(body.encode("utf-8", "replace"), allow_inf_nan=False)
    except ValueError as error:
        return False, str(error)[:200]


def _schema(value: JsonValue) -> JsonValue:
    require("jsonschema", "jsonschema")
    if not isinstance(value, dict | bool):
        raise ValueError("a JSON Schema is an object")
    for schema in _subschemas(value):
        _accepted(schema, value)
    errors = library("jsonschema.exceptions")
    try:
        _validator().check_schema(value, format_checker=library("jsonschema").FormatChecker(()))
    except errors.SchemaError as error:
        where = "/".join(str(step) for step in error.absolute_path)
        raise ValueError(f"not a JSON Schema: {where}: {error.message[:200]}") from None
    return value


def _subschemas(schema: JsonValue) -> Iterator[dict[str, JsonValue]]:
    left: list[JsonValue] = [schema]
    while left:
        one = left.pop()
        if not isinstance(one, dict):
            continue
        yield one
        for key, value in one.items():
            if key in _ONE_SCHEMA:
                left.append(value)
            elif key in _OF_SCHEMAS and isinstance(value, list):
                left.extend(value)
            elif key in _NAMED_SCHEMAS and isinstance(value, dict):
                left.extend(value.values())


def _accepted(schema: dict[str, JsonValue], root: JsonValue) -> None:
    for key, value in schema.items():
        if key not in _KEYWORDS:
            raise ValueError(f"JSON Schema keyword {key!r} is not supported; leave it out")
        if key == "$ref" and unquote(str(value)) not in _targets(root):
            raise ValueError(
                f"$ref {shown(str(value))} leads nowhere; only '#' and what '#/$defs/NAME' or"
                " '#/definitions/NAME' defines can be referred to"
            )
        if key == "$schema" and schema is not root:
            raise ValueError("$schema stands at the top of a JSON Schema only; leave it out")
    patterns = schema.get("patternProperties")
    for pattern in [schema.get("pattern"), *(patterns if isinstance(patterns, dict) else ())]:
        if isinstance(pattern, str):
            require("re2", "google-re2")
            Program.of(pattern)


def _targets(root: JsonValue) -> Iterator[str]:
    """What may be referred to; elsewhere may stand values that were never read as schemas."""
    yield "#"
    for place in ("$defs", "definitions"):
        names = root.get(place) if isinstance(root, dict) else None
        for name in names if isinstance(names, dict) else ():
            yield f"#/{place}/" + name.replace("~", "~0").replace("/", "~1")


class JsonSchema(Check):
    """The reply is JSON, alone or in one code fence, and keeps to a JSON Schema (2020-12)."""

    check: Literal["json_schema"]
    cost = 4
    json_schema: Annotated[JsonValue, AfterValidator(_schema)]

    @override
    def look(self, seen: Seen) -> Grade:
        is_json, value = parsed(seen.reply)
        if not is_json:
            return verdict(False, f"not JSON: {value}")
        _work.set((seen, {}))
        schema = self.json_schema
        if isinstance(schema, dict):
            # Where a schema names its draft, jsonschema puts its own validator for ours.
            schema = {key: part for key, part in schema.items() if key != "$schema"}
        # Without a registry, jsonschema fetches what a schema refers to.
        nothing = library("referencing").Registry()
        try:
            error = next(_counting()(schema, registry=nothing).iter_errors(value), None)
        except (TooManySteps, RecursionError):
            return undecided("the schema takes too many steps on this reply")
        except Exception as error:  # jsonschema raises what arithmetic on huge numbers raises
            return undecided(f"the schema cannot be applied: {shown(str(error))}")
        if error is None:
            return verdict(True, "JSON that keeps to the schema")
        where = "/".join(str(step) for step in list(error.absolute_path)[:10])
        return verdict(False, f"JSON, but at /{where[:60]}: {shown(error.message)}")


@cache
def _counting() -> Any:
    """A validator class that counts its steps down; a schema may refer to itself twice a level."""

    def counted(keyword: Any) -> Any:
        def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            seen, sizes = _work.get()
            # A keyword may read all of its value and of the instance, and errors quote both.
            if not seen.pay(STEP + _size(value, sizes) + _size(instance, sizes)):
                raise TooManySteps
            yield from keyword(validator, value, instance, schema) or ()

        return check

    base = _validator()
    own = {name: counted(keyword) for name, keyword in base.VALIDATORS.items()}
    return library("jsonschema.validators").extend(base, own)


def _size(value: Any, sizes: dict[int, int]) -> int:
    """About the characters of a JSON value, each value in it counting `VALUE` more."""
    if not isinstance(value, list | dict):
        return VALUE + len(repr(value))
    if id(value) not in sizes:
        parts = value if isinstance(value, list) else chain(value, value.values())
        sizes[id(value)] = VALUE + sum(_size(part, sizes) for part in parts)
    return sizes[id(value)]


def _canonical(value: Any) -> Any:
    """The value with 1.0 as 1: JSON Schema takes them for equal."""
    if isinstance(value, list):
        return [_canonical(one) for one in value]
    if isinstance(value, dict):
        return {key: _canonical(one) for key, one in value.items()}
    return int(value) if isinstance(value, float) and value.is_integer() else value


@cache
def _validator() -> Any:
    """JSON Schema 2020-12, with expressions that cannot run away."""
    validators = library("jsonschema.validators")
    failure = library("jsonschema.exceptions").ValidationError

    def pattern(_: Any, wanted: str, instance: Any, __: Any) -> Iterator[Any]:
        if isinstance(instance, str) and not Program.of(wanted).found(instance):
            yield failure(f"{shown(instance)} does not match {shown(wanted)}")

    def pattern_properties(
        validator: Any, wanted: dict[str, Any], instance: Any, _: Any
    ) -> Iterator[Any]:
        if isinstance(instance, dict):
            for one, schema in wanted.items():
                for name in [name for name in instance if Program.of(one).found(name)]:
                    yield from validator.descend(instance[name], schema, path=name)

    def additional(validator: Any, wanted: Any, instance: Any, schema: Any) -> Iterator[Any]:
        if not isinstance(instance, dict):
            return
        patterns = [Program.of(one) for one in schema.get("patternProperties", ())]
        known = schema.get("properties", {})
        for name, value in instance.items():
            if name in known or any(one.found(name) for one in patterns):
                continue
            if wanted is False:
                yield failure(f"{shown(name)} is not expected")
            else:
                yield from validator.descend(value, wanted, path=name)

    def unique(_: Any, wanted: bool, instance: Any, __: Any) -> Iterator[Any]:
        if wanted and isinstance(instance, list):
            seen = {json.dumps(_canonical(one), sort_keys=True) for one in instance}
            if len(seen) < len(instance):
                yield failure("items are not unique")

    own = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional,
        "uniqueItems": unique,
    }
    return validators.extend(validators.Draft202012Validator, own)
