"""Rings, policies, and what makes a conversation."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.rings import PRESETS, Conversation, Policy, Ring

policies = pytest.mark.parametrize("policy", PRESETS.values(), ids=list(PRESETS))


@given(st.lists(st.integers(0, 9), min_size=3, max_size=3))
def test_rings_are_totally_ordered_by_level(levels):
    a, b, c = (Ring(level, f"ring {level}") for level in levels)
    assert (a < b) + (b < a) + (a == b) == 1
    assert not (a < b < c) or a < c
    assert a.overrules(b) == (a < b) == (levels[0] < levels[1])


def test_no_ring_overrules_itself_or_one_that_overrules_it():
    rings = Policy.preset("harmony").rings
    for ring in rings:
        assert not ring.overrules(ring)
        assert all(not other.overrules(ring) for other in rings if ring.overrules(other))


@policies
def test_presets_know_the_five_roles_and_the_system_comes_first(policy):
    levels = {
        role: policy.ring_of(role).level
        for role in ("system", "developer", "user", "assistant", "tool")
    }
    assert levels["system"] <= levels["developer"] < levels["user"]
    assert levels["user"] < levels["assistant"] <= levels["tool"]
    assert policy is Policy.preset(policy.name)


def test_the_paper_has_four_rings_and_the_developer_writes_the_system_message():
    policy = Policy.preset("paper")
    assert [ring.name for ring in policy.rings] == ["system", "user", "assistant", "tool"]
    assert policy.ring_of("developer") == policy.ring_of("system")


def test_in_the_model_spec_nobody_speaks_for_the_root():
    policy = Policy.preset("model-spec")
    assert policy.rings[0].name == "root"
    assert "root" not in policy.roles.values()
    assert policy.ring_of("tool").name == policy.ring_of("assistant").name == "no authority"


def test_an_unknown_preset_or_role_names_the_known_ones():
    with pytest.raises(InputError, match="harmony, model-spec, paper"):
        Policy.preset("openai")
    with pytest.raises(InputError, match="assistant, developer, system, tool, user"):
        Policy.preset("paper").ring_of("root")


@pytest.mark.parametrize(
    ("rings", "roles", "why"),
    [
        (["a"], {}, "2 to 12"),
        (["a", "a"], {}, "different names"),
        (["a", "b"], {"user": "c"}, "'user' sits in ring 'c'"),
    ],
)
def test_a_policy_that_cannot_be_is_an_error(rings, roles, why):
    with pytest.raises(InputError, match=why):
        Policy.of("broken", rings, roles)


def test_levels_of_a_policy_must_be_positions():
    with pytest.raises(InputError, match="count up from 0"):
        Policy("broken", (Ring(1, "a"), Ring(2, "b")), {})


def test_a_policy_does_not_change_with_what_it_was_made_of():
    roles = {"user": "a"}
    policy = Policy.of("mine", ["a", "b"], roles)
    roles["user"] = "b"
    assert policy.ring_of("user").name == "a"
    with pytest.raises(TypeError):
        policy.roles["user"] = "b"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "the conversation is empty"),
        (["hi"], r"messages\[0\]: must be an object"),
        ("hi", r"messages\[0\]: must be an object"),
        ([{"content": "hi"}], r"messages\[0\].role: must be a string"),
        ([{"role": ["user"], "content": "hi"}], r"messages\[0\].role: must be a string"),
        ([{"role": "user", "content": "a"}, {"role": "x", "content": ""}], r"messages\[1\].role"),
        ([{"role": "user"}], r"messages\[0\].content: must be text"),
        ([{"role": "user", "content": None}], r"messages\[0\].content"),
        ([{"role": "user", "content": 3}], r"messages\[0\].content"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], r"messages\[0\].content"),
        ([{"role": "user", "content": [{"type": "text", "text": 3}]}], r"messages\[0\].content"),
        ([{"role": "user", "content": ["hi"]}], r"messages\[0\].content"),
        ([{"role": "user", "content": "hi", "name": 3}], r"messages\[0\].source"),
    ],
)
def test_a_broken_message_is_an_error_that_names_its_place(messages, why):
    with pytest.raises(InputError, match=why):
        Conversation.of(messages)


def test_text_parts_are_joined_and_a_name_is_the_source():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    conversation = Conversation.of([{"role": "tool", "content": parts, "name": "search"}], "paper")
    [message] = conversation.messages
    assert (message.content, message.source, message.ring.name) == ("ab", "search", "tool")
    assert conversation.policy.name == "paper"
