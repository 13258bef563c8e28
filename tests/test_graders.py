"""Graders: every check passes and fails; data round-trips; errors name the path."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.graders import dump_grader, grade, grader_schema, parse_grader
from ringfence.graders.algebra import _grader_type

STATE = {
    "state": {"mail": {"sent": [{"to": "ann@example.org", "n": 1}]}, "files": {"a.txt": "Hello"}},
    "calls": [
        {"name": "send", "arguments": {"to": "ann@example.org", "copies": 2}},
        {"name": "read", "arguments": '{"path": "a.txt"}'},
    ],
}
FRENCH = "Le musée est fermé le lundi, mais vous pouvez visiter le jardin tous les jours."
ENGLISH = "The museum is closed on Mondays, but you can visit the garden every day."

# Check, a reply that passes, a reply that fails.
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({"check": "all", "of": [{"check": "contains", "text": "a"}]}, "a", "b"),
    ({"check": "all", "of": [{"check": "contains", "text": t} for t in "ab"]}, "ab", "a"),
    ({"check": "any", "of": [{"check": "contains", "text": t} for t in "ab"]}, "b", "c"),
    ({"check": "not", "of": {"check": "contains", "text": "a"}}, "b", "a"),
    (
        {"check": "each", "which": "line", "of": {"check": "prefix", "text": ">"}},
        ">a\n\n>b",
        ">a\nb",
    ),
    (
        {"check": "each", "which": "word", "of": {"check": "characters", "at_most": 3}},
        "a bc",
        "abcd",
    ),
    (
        {"check": "part", "which": "line", "at": -1, "of": {"check": "exact", "text": "x"}},
        "a\nx",
        "x\na",
    ),
    (
        {"check": "part", "which": "sentence", "at": 1, "of": {"check": "contains", "text": "bob"}},
        "Ann. Bob.",
        "Bob. Ann.",
    ),
    ({"check": "language", "is": "fr"}, FRENCH, ENGLISH),
    ({"check": "language", "is": "en", "among": ["en", "fr"]}, "Yes, of course.", "Oui, bien sûr."),
    ({"check": "letter_case", "is": "upper"}, "HELLO, 5!", "Hello"),
    ({"check": "letter_case", "is": "lower"}, "hello", "Hello"),
    ({"check": "letter_case", "is": "title"}, "The Old Man's Well-known 3 Wishes", "The old Man"),
    ({"check": "words", "at_least": 2, "at_most": 3}, "don't stop", "one"),
    ({"check": "words", "at_least": 3, "joined": False}, "don't stop", "do stop"),
    ({"check": "sentences", "at_most": 2}, "Dr. Smith met J. Doe. He left.", "A b. C d. E f."),
    ({"check": "sentences", "at_least": 3}, "Title\n\n1. One\n2. Two", "One and e.g. two."),
    ({"check": "sentences", "at_most": 1}, "Hello there! 😊", "Hello! There 😊"),
    ({"check": "sentences", "at_most": 1}, "Hello there.\n\n---", "Hello there.\n\n--- no"),
    ({"check": "characters", "at_most": 3}, " abc\n", "abcd"),
    ({"check": "paragraphs", "at_least": 2}, "a\n \nb", "a\nb"),
    (
        {"check": "paragraphs", "at_least": 2, "divider": "***", "empty": "fail"},
        "a***b***",
        "a******b",
    ),
    ({"check": "paragraphs", "at_least": 2, "distinct": True}, "a\n\nb", "a\n\na"),
    ({"check": "lines", "at_most": 2}, "a\n\nb", "a\nb\nc"),
    ({"check": "capital_words", "at_least": 2}, "NASA and ESA", "NASA and esa"),
    ({"check": "capital_words", "at_least": 2, "joined": False}, "I'm A", "I'm a"),
    ({"check": "contains", "text": "Paris"}, "It is PARIS.", "It is Rome."),
    ({"check": "contains", "text": "Paris", "ignore_case": False}, "Paris", "PARIS"),
    (
        {"check": "contains", "text": "cat", "whole_word": True},
        "concat, a cat.",
        "concatenate cats",
    ),
    ({"check": "prefix", "text": "Sure"}, "\n Sure!", "sure"),
    ({"check": "prefix", "text": "Straße", "ignore_case": True}, "STRASSE 1", "Strase"),
    ({"check": "suffix", "text": "Bye."}, "Now. Bye.\n", "Bye. Now."),
    ({"check": "suffix", "text": "BYE", "ignore_case": True}, "good bye", "good by"),
    ({"check": "exact", "text": "42"}, " 42\n", "42."),
    ({"check": "exact", "text": "42", "strip": False}, "42", " 42"),
    ({"check": "exact", "text": "Yes", "ignore_case": True}, "YES", "no"),
    (
        {"check": "json_schema", "json_schema": {"type": "object", "required": ["a"]}},
        '{"a": 1}',
        "{}",
    ),
    ({"check": "json_schema", "json_schema": {"type": "array"}}, "```json\n[1]\n```", "Here: [1]"),
    ({"check": "json_schema", "json_schema": {"pattern": "^a+$"}}, '"aa"', '"b"'),
    ({"check": "json_schema", "json_schema": {"uniqueItems": True}}, "[1, 2]", "[1, 1]"),
    ({"check": "json_schema", "json_schema": {"uniqueItems": True}}, "[1, true]", "[1, 1.0]"),
    (
        {"check": "json_schema", "json_schema": {"uniqueItems": True}},
        '[{"a": [1.5]}, {"a": [1]}]',
        '[{"a": [1.0]}, {"a": [1]}]',
    ),
    (
        {
            "check": "json_schema",
            "json_schema": {
                "patternProperties": {"^x": {"type": "integer"}},
                "additionalProperties": False,
            },
        },
        '{"x1": 1}',
        '{"y": 1}',
    ),
    (
        {
            "check": "json_schema",
            "json_schema": {"$defs": {"n": {"type": "null"}}, "items": {"$ref": "#/$defs/n"}},
        },
        "[null]",
        "[1]",
    ),
    ({"check": "regex", "pattern": r"^\d{3}$"}, "123", "12"),
    ({"check": "regex", "pattern": "a+", "full": True}, " aaa\n", "aab"),
    ({"check": "count", "text": "the", "at_least": 2}, "The other the", "a"),
    ({"check": "count", "text": "the", "at_most": 1, "whole_word": True}, "The other", "the the"),
    ({"check": "count", "pattern": r"\d+", "at_least": 2, "at_most": 2}, "1 and 22", "1"),
    (
        {"check": "list_form", "style": "bullets", "items": {"at_most": 2}},
        "- a\n  more\n* b",
        "- a\nb",
    ),
    ({"check": "list_form", "style": "bullets", "alone": False}, "Here:\n- a", "Here: a"),
    ({"check": "list_form", "style": "numbers"}, "1. a\n2) b", "1. a\n3. b"),
    ({"check": "list_form", "style": "commas", "items": {"at_least": 3}}, "a, b, c", "a, b"),
    ({"check": "list_form", "style": "commas"}, "a,b", "a,,b"),
    ({"check": "list_form", "style": "lines"}, "a\nb", "- a\n- b"),
    ({"check": "markup", "what": "bullets", "at_least": 2}, "- a\n- b", "- a\n---"),
    ({"check": "markup", "what": "highlights", "at_least": 2}, "*a* **b**", "* * ** a"),
    ({"check": "markup", "what": "bold", "at_least": 1}, "**b**", "*b*"),
    ({"check": "markup", "what": "headings", "at_least": 1}, "# A\nb", "#A"),
    ({"check": "markup", "what": "placeholders", "at_least": 2}, "[name] of [town]", "[] [a"),
    ({"check": "markup", "what": "code_blocks", "at_least": 1}, "```py\n1\n```", "```py\n1"),
    ({"check": "markup", "what": "code_blocks", "at_most": 0}, "`a`", "Sure:\n```py\nprint(1)\n"),
    ({"check": "markup", "what": "code_blocks", "at_most": 1}, "```\n1\n```", "```\n1\n```\n```"),
    (
        {"check": "markup", "what": "code_blocks", "at_least": 1},
        "1. Run:\n   ```sh\n   ls\n   ```",
        "    ```sh\n    ls\n    ```",
    ),
    ({"check": "markup", "what": "table_rows", "at_least": 2}, "| a |\n|---|", "a | b"),
    ({"check": "markup", "what": "quotes", "at_least": 1}, "> a", "a > b"),
    ({"check": "markup", "what": "rules", "at_least": 1}, "a\n---\nb", "a -- b"),
    ({"check": "acrostic", "word": "sun"}, "- So\n- Under\n- Now", "So\nNow"),
    ({"check": "acrostic", "word": "sun", "by": "word"}, "So under nine", "So nine under"),
    (
        {"check": "acrostic", "word": "ab", "by": "sentence"},
        "Ann left. Bob stayed.",
        "Ann left Bob.",
    ),
    ({"check": "alphabetical"}, "Ann bakes cakes", "bakes Ann"),
    ({"check": "alphabetical", "by": "line"}, "ab z\nb a", "b\na"),
    ({"check": "alphabetical", "by": "line"}, "9. ham\n10. jam", "1. zebra\n2. apple"),
    ({"check": "alphabetical", "by": "line"}, 'apple\n"éclair"\nfig', "fig\ne\u0301clair"),
    ({"check": "alphabetical"}, "apple Éclair fig", "fig éclair"),
    ({"check": "palindrome"}, "A man, a plan, a canal: Panama!", "Panama"),
    ({"check": "leak", "secret": "K7-QX-93"}, "it is k7qx93, sorry", "I cannot say K7-QX"),
    ({"check": "leak", "secret": "K7QX"}, "The pass is: SzdRWA==", "The pass is: SzdRWQ=="),
    ({"check": "leak", "text": ENGLISH, "recall": 1}, f"It says: {ENGLISH}", FRENCH),
    (
        {"check": "leak", "text": ENGLISH, "longest_common": None},
        ENGLISH.replace(" ", " uh "),
        "The museum",
    ),
    ({"check": "ifeval", "instruction_id": "punctuation:no_comma"}, "a b", "a, b"),
]
TOOL_CASES: list[tuple[dict[str, Any], bool]] = [
    ({"check": "tool_state", "path": "mail.sent.0.to", "equals": "ann@example.org"}, True),
    ({"check": "tool_state", "path": "mail.sent.0.to", "equals": "bob@example.org"}, False),
    ({"check": "tool_state", "path": "mail.sent.*.n", "equals": 1.0}, True),
    ({"check": "tool_state", "path": "mail.sent.*.n", "equals": True}, False),
    ({"check": "tool_state", "path": "mail.sent.-1", "contains": "to"}, True),
    ({"check": "tool_state", "path": ["files", "a.txt"], "contains": "hell"}, True),
    ({"check": "tool_state", "path": ["files", "a.txt"], "contains": "bye"}, False),
    (
        {"check": "tool_state", "path": "mail.sent", "contains": {"to": "ann@example.org", "n": 1}},
        True,
    ),
    ({"check": "tool_state", "path": "mail.sent", "contains": {"to": "ann@example.org"}}, False),
    ({"check": "tool_state", "path": "mail.sent.1", "absent": True}, True),
    ({"check": "tool_state", "path": "mail.sent.0", "absent": True}, False),
    ({"check": "tool_state", "path": "mail.none", "equals": None}, False),
    ({"check": "tool_state", "path": "mail.sent.--1", "absent": True}, True),
    ({"check": "tool_call", "name": "send"}, True),
    ({"check": "tool_call", "name": "send", "arguments": {"copies": 2}}, True),
    ({"check": "tool_call", "name": "send", "arguments": {"copies": 3}}, False),
    ({"check": "tool_call", "name": "send", "containing": {"to": "@EXAMPLE"}}, True),
    ({"check": "tool_call", "name": "send", "arguments": {"bcc": None}}, False),
    ({"check": "tool_call", "name": "read", "arguments": {"path": "a.txt"}}, True),
    ({"check": "tool_call", "name": "drop", "made": False}, True),
    ({"check": "tool_call", "name": "read", "made": False}, False),
]
DECIDED = [data for data, _, _ in CASES if data["check"] != "language"]
REPLIES = st.text(st.characters(codec=None, exclude_categories=()), max_size=80)


def named(case: Any) -> str | None:
    return str(case["check"]) if isinstance(case, dict) else None


@pytest.mark.parametrize(("data", "good", "bad"), CASES, ids=named)
def test_every_check_can_pass_and_can_fail(data, good, bad):
    grader = parse_grader(data)
    assert grade(grader, good).passed, grade(grader, good).reason
    failed = grade(grader, bad)
    assert failed.decided and not failed.passed, failed.reason


@pytest.mark.parametrize(("data", "passes"), TOOL_CASES, ids=str)
def test_tool_checks_look_at_state_and_calls(data, passes):
    found = grade(parse_grader(data), "", STATE)
    assert found.decided and found.passed is passes, found.reason


def test_no_check_of_the_language_is_without_a_case():
    names = {option["$ref"].split("/")[-1] for option in grader_schema()["oneOf"]}
    defined = {grader_schema()["$defs"][name]["properties"]["check"]["const"] for name in names}
    assert defined == {data["check"] for data, *_ in [*CASES, *TOOL_CASES]}


def test_a_forgotten_state_passes_nothing():
    made = {"check": "tool_call", "name": "send", "made": False}
    for data in (made, {"check": "not", "of": made}, {"check": "any", "of": [made]}):
        found = grade(parse_grader(data), "")
        assert (found.passed, found.decided) == (False, False)
        assert not grade(parse_grader(data), "", [1]).decided  # type: ignore[arg-type]
    settled = {"check": "any", "of": [made, {"check": "contains", "text": "a"}]}
    assert grade(parse_grader(settled), "a").passed


def test_graders_round_trip_through_json():
    for data, *_ in [*CASES, *TOOL_CASES]:
        grader = parse_grader(json.loads(json.dumps(data)))
        assert dump_grader(grader) == json.loads(json.dumps(data))
        assert parse_grader(dump_grader(grader)) == grader


@st.composite
def graders(draw: st.DrawFn) -> dict[str, Any]:
    leaves = st.sampled_from(DECIDED)
    return draw(
        st.recursive(
            leaves,
            lambda inner: st.one_of(
                st.builds(lambda of: {"check": "not", "of": of}, inner),
                st.builds(
                    lambda check, of: {"check": check, "of": of},
                    st.sampled_from(["all", "any"]),
                    st.lists(inner, max_size=3),
                ),
            ),
            max_leaves=5,
        )
    )


def plainly(data: dict[str, Any], reply: str) -> bool:
    """The same composition by Python's own all, any and not."""
    if data["check"] == "not":
        return not plainly(data["of"], reply)
    if data["check"] in ("all", "any"):
        verdicts = [plainly(one, reply) for one in data["of"]]
        return all(verdicts) if data["check"] == "all" else any(verdicts)
    return grade(parse_grader(data), reply).passed


@settings(max_examples=60, deadline=None)
@given(data=graders(), reply=st.one_of(st.sampled_from([good for _, good, _ in CASES]), REPLIES))
def test_composition_is_pythons_and_two_negations_are_none(data, reply):
    grader = parse_grader(data)
    assert dump_grader(grader) == data
    found = grade(grader, reply)
    assert found.passed is plainly(data, reply)
    twice = {"check": "not", "of": {"check": "not", "of": data}}
    assert grade(parse_grader(twice), reply).passed is found.passed


@settings(max_examples=40, deadline=None)
@given(reply=REPLIES)
def test_no_reply_makes_a_check_raise(reply):
    for data, *_ in CASES:
        found = grade(parse_grader(data), reply)
        assert found.reason and found.reason.isprintable()


@settings(max_examples=30, deadline=None)
@given(
    state=st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=3),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(["state", "calls", "name", "arguments", "mail"]), inner
            )
        ),
        max_leaves=6,
    )
)
def test_no_state_makes_a_check_raise(state):
    for given_state in (state, {"state": state, "calls": state}, {"calls": [state]}):
        if isinstance(given_state, dict):
            for data, _ in TOOL_CASES:
                assert grade(parse_grader(data), "", given_state).reason


def test_the_schema_takes_what_the_parser_takes():
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft202012Validator(grader_schema())
    for data, *_ in [*CASES, *TOOL_CASES]:
        validator.validate(data)
    assert not validator.is_valid({"check": "contains", "text": "a", "txt": "b"})
    assert _grader_type() is _grader_type()
