"""Broken graders: errors name the field, whatever was given."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.graders import dump_grader, parse_grader

DRAFT = "https://json-schema.org/draft/2020-12/schema"
# What is no schema may stand in these places, and is not looked at.
ODD = {"$defs": {"a": {"default": {}}}, "default": {"pattern": 1}, "examples": [{}]}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"check": "contains", "tex": "a", "text": "b"}, "tex: no such field"),
        (
            {"check": "all", "of": [{"check": "not", "of": {"check": "prefix", "txt": "a"}}]},
            "of.0.of.txt: no such field",
        ),
        ({"check": "contians", "text": "a"}, "contians"),
        ({"text": "a"}, 'needs a field "check"'),
        ([], "grader: "),
        ("contains", "grader: "),
        ({"check": "any", "of": [{"check": "words"}]}, "of.0: needs at_least"),
        ({"check": "words", "at_least": 3, "at_most": 2}, "no reply can meet"),
        ({"check": "words", "at_least": "3"}, "at_least"),
        ({"check": "words", "at_least": -1}, "at_least"),
        ({"check": "count", "at_least": 1}, "either text or pattern"),
        ({"check": "count", "at_least": 1, "text": "a", "pattern": "a"}, "either text or pattern"),
        ({"check": "regex", "pattern": "(?=a)b"}, "look-around"),
        ({"check": "regex", "pattern": "(" * 500}, "pattern"),
        ({"check": "regex", "pattern": "((a{1,1000}){1,1000}){1,1000}"}, "pattern"),
        ({"check": "language", "is": "xx"}, "is: no language 'xx'"),
        ({"check": "prefix", "text": " "}, "text"),
        ({"check": "contains", "text": "\ud800"}, "text"),
        ({"check": "leak"}, "needs secret"),
        ({"check": "leak", "secret": "a-b"}, "at least 4"),
        ({"check": "tool_state", "path": "a"}, "exactly one of"),
        ({"check": "tool_state", "path": "a", "equals": 1, "absent": True}, "exactly one of"),
        ({"check": "ifeval", "instruction_id": "no:such"}, "no instruction 'no:such'"),
        (
            {"check": "ifeval", "instruction_id": "detectable_format:title", "kwargs": {"n": 1}},
            "kwargs none",
        ),
        (
            {
                "check": "ifeval",
                "instruction_id": "language:response_language",
                "kwargs": {"language": "xx"},
            },
            "no language 'xx'",
        ),
        *(
            ({"check": "json_schema", "json_schema": {"$ref": ref, **ODD}}, "leads nowhere")
            for ref in (
                "https://example.org/a",
                "file:///etc/hostname",
                "#/$defs/none",
                "#/$defs/a/default",
                "#/$defs/a%2Fdefault",
                "#/default",
                "#/examples/0",
                "#anchor",
                ["#"],
            )
        ),
        ({"check": "json_schema", "json_schema": {"items": {"$schema": DRAFT}}}, "at the top"),
        ({"check": "json_schema", "json_schema": {"unevaluatedItems": False}}, "unevaluatedItems"),
        ({"check": "json_schema", "json_schema": {"type": "thing"}}, "not a JSON Schema"),
        (
            {"check": "json_schema", "json_schema": {"properties": {"a": {"pattern": "(?<=a)"}}}},
            "RE2",
        ),
    ],
)
def test_broken_graders_name_the_field(data, words):
    with pytest.raises(InputError) as error:
        parse_grader(data)
    assert words in str(error.value) and str(error.value).startswith("grader: ")


def test_data_too_deep_or_too_large_is_refused():
    deep: dict[str, Any] = {"check": "contains", "text": "a"}
    for _ in range(100_000):
        deep = {"check": "not", "of": deep}
    with pytest.raises(InputError, match="deep"):
        parse_grader(deep)
    with pytest.raises(InputError, match="values"):
        parse_grader({"check": "any", "of": [{"check": "palindrome"}] * 20_000})
    while "of" in deep:  # freed step by step: Python's own freeing of it recurses
        deep = deep["of"]


@settings(max_examples=60, deadline=None)
@given(
    data=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.fixed_dictionaries(
                {"check": st.sampled_from(["all", "not", "words", "regex", "json_schema", "leak"])},
                optional={
                    "of": inner,
                    "at_least": inner,
                    "pattern": inner,
                    "json_schema": inner,
                    "secret": inner,
                },
            )
        ),
        max_leaves=8,
    )
)
def test_any_data_gives_a_grader_or_an_error_of_ours(data):
    try:
        grader = parse_grader(data)
    except InputError as error:
        assert str(error).startswith("grader: ")
    else:
        assert dump_grader(grader) == data
