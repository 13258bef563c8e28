"""Replies that are JSON, and what a JSON Schema says of them. Knows no other checks.

Schemas come with cases and replies from models; both may be hostile. So schemas keep to keywords
whose work is bounded, refer only to themselves, and their patterns are RE2's; validation stops
after `STEPS` steps; and JSON is read by pydantic's parser, which refuses to nest deeply.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextvars import ContextVar
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, JsonValue
from pydantic_core import from_json
from typing_extensions import override

from ringfence.graders.grades import Check, Grade, Seen, shown, undecided, verdict
from ringfence.graders.optional import library, require
from ringfence.graders.patterns import Program

STEPS = 20_000
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


# Validators are given no place of their own to keep a number in.
_left: ContextVar[int] = ContextVar("_left", default=STEPS)


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
        _accepted(schema)
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


def _accepted(schema: dict[str, JsonValue]) -> None:
    for key, value in schema.items():
        if key not in _KEYWORDS:
            raise ValueError(f"JSON Schema keyword {key!r} is not supported; leave it out")
        if key == "$ref" and not str(value).startswith("#"):
            raise ValueError(f"$ref {value!r} leads out of the schema; use '#/$defs/NAME'")
    patterns = schema.get("patternProperties")
    for pattern in [schema.get("pattern"), *(patterns if isinstance(patterns, dict) else ())]:
        if isinstance(pattern, str):
            require("re2", "google-re2")
            Program.of(pattern)


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
        _left.set(STEPS)
        try:
            error = next(_counting()(self.json_schema).iter_errors(value), None)
        except (TooManySteps, RecursionError):
            return undecided("the schema takes too many steps on this reply")
        except library("referencing.exceptions").Unresolvable as unresolved:
            return undecided(f"the schema refers to nothing: {shown(str(unresolved))}")
        if error is None:
            return verdict(True, "JSON that keeps to the schema")
        where = "/".join(str(step) for step in list(error.absolute_path)[:10])
        return verdict(False, f"JSON, but at /{where[:60]}: {shown(error.message)}")


@cache
def _counting() -> Any:
    """A validator class that counts its steps down; a schema may refer to itself twice a level."""

    def counted(keyword: Any) -> Any:
        def check(validator: Any, value: Any, instance: Any, schema: Any) -> Iterator[Any]:
            # A keyword may look at every item of the instance.
            size = len(instance) if isinstance(instance, list | dict) else 0
            _left.set(_left.get() - 1 - size)
            if _left.get() < 0:
                raise TooManySteps
            yield from keyword(validator, value, instance, schema) or ()

        return check

    base = _validator()
    own = {name: counted(keyword) for name, keyword in base.VALIDATORS.items()}
    return library("jsonschema.validators").extend(base, own)


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
            seen = {json.dumps(one, sort_keys=True) for one in instance}
            if len(seen) < len(instance):
                yield failure("items are not unique")

    own = {
        "pattern": pattern,
        "patternProperties": pattern_properties,
        "additionalProperties": additional,
        "uniqueItems": unique,
    }
    return validators.extend(validators.Draft202012Validator, own)
