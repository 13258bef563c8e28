"""What the beginning of a reply settles holds for every continuation."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.graders import grade, parse_grader
from ringfence.graders.unfinished import lost, won

TEXTS = st.lists(
    st.sampled_from(
        ["a", "B", "ab", "Ab", " ", "\n", ".", "ß", "SS", "ﬁ", "don't", "-", "ǅ", "x y"]
    ),
    max_size=8,
).map("".join)
SEEN = st.sampled_from(["a", "ab", "Ab", "SS", "a b", " a", "B. "])
FLAGS = st.booleans()
LEAVES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.builds(lambda t, i: {"check": "prefix", "text": t, "ignore_case": i}, SEEN, FLAGS),
    st.builds(lambda t, i: {"check": "suffix", "text": t, "ignore_case": i}, SEEN, FLAGS),
    st.builds(
        lambda t, i, s: {"check": "exact", "text": t, "ignore_case": i, "strip": s},
        SEEN,
        FLAGS,
        FLAGS,
    ),
    st.builds(
        lambda t, i, w: {"check": "contains", "text": t, "ignore_case": i, "whole_word": w},
        SEEN,
        FLAGS,
        FLAGS,
    ),
    st.builds(
        lambda t, n, w: {"check": "count", "text": t, "at_most": n, "whole_word": w},
        SEEN,
        st.integers(0, 2),
        FLAGS,
    ),
    st.builds(lambda n, j: {"check": "words", "at_most": n, "joined": j}, st.integers(0, 3), FLAGS),
    st.builds(lambda n: {"check": "characters", "at_most": n}, st.integers(0, 6)),
    st.builds(
        lambda c: {"check": "letter_case", "is": c}, st.sampled_from(["upper", "lower", "title"])
    ),
)
CHECKS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(
            lambda kind, of: {"check": kind, "of": of},
            st.sampled_from(["all", "any"]),
            st.lists(inner, min_size=1, max_size=3),
        ),
        st.builds(lambda of: {"check": "not", "of": of}, inner),
    ),
    max_leaves=5,
)


@given(CHECKS, TEXTS, TEXTS)
def test_what_is_settled_is_settled(check: dict[str, Any], begun: str, rest: str) -> None:
    grader = parse_grader(check)
    passed = grade(grader, begun + rest).passed
    assert not (passed and lost(grader, begun))
    assert not (not passed and won(grader, begun))


@pytest.mark.parametrize(
    ("check", "begun", "expected"),
    [
        ({"check": "prefix", "text": "Hark"}, "Ha", False),
        ({"check": "prefix", "text": "Hark"}, "Hello", True),
        ({"check": "exact", "text": "GO"}, "GO on", True),
        ({"check": "letter_case", "is": "upper"}, "THE sum", True),
        ({"check": "letter_case", "is": "upper"}, "THE SUM", False),
        ({"check": "words", "at_most": 2}, "one two three", True),
        ({"check": "not", "of": {"check": "contains", "text": "red"}}, "it is Red", True),
        ({"check": "not", "of": {"check": "leak", "secret": "QX-48-ZAP"}}, "it is QX-48-ZAP", True),
        ({"check": "ifeval", "instruction_id": "punctuation:no_comma"}, "well, ", True),
        ({"check": "suffix", "text": "bye"}, "hello", False),
    ],
)
def test_beginnings_that_are_lost(check: dict[str, Any], begun: str, expected: bool) -> None:
    assert lost(parse_grader(check), begun) is expected
