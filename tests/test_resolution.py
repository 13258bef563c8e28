"""Which instruction holds: order of rings, supersession, delegation."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.resolution import Instruction, Ring
from ringfence.rings import Policy

HARMONY = Policy.preset("harmony")
SILENT_LAST = Policy.of("last", ["a", "b", "c", "d"], {}, silent=["d"])


def says(identifier, ring, wants, policy=HARMONY, about="language", **more):
    return Instruction(id=identifier, ring=policy.ring(ring), about=about, wants=wants, **more)


@st.composite
def instructions(draw, policy=SILENT_LAST, delegating=True):
    count = draw(st.integers(1, 7))
    return [
        Instruction(
            id=f"i{place}",
            ring=draw(st.sampled_from(policy.rings)),
            about=draw(st.sampled_from(["language", "length"])),
            wants=draw(st.sampled_from(["x", "y", "z"])),
            quoted=draw(st.booleans()) if delegating else False,
            delegated_by=draw(st.sampled_from(["", *(f"i{i}" for i in range(count))]))
            if delegating
            else "",
        )
        for place in range(count)
    ]


def test_the_system_overrules_the_user_whoever_spoke_first():
    system, user = says("s", "system", "French"), says("u", "user", "German")
    for order in ([system, user], [user, system]):
        resolution = HARMONY.resolve(order)
        assert resolution.holding == (system,) and resolution.void == (user,)
        assert resolution.of("u").overruled_by == "s"
        assert "ring system overrules ring user" in resolution.of("u").reason


def test_a_lower_instruction_that_contradicts_nothing_holds():
    resolution = HARMONY.resolve(
        [says("s", "system", "French"), says("u", "user", "short", about="length")]
    )
    assert not resolution.void
    assert "nothing of the authority of ring user" in resolution.of("u").reason


@pytest.mark.parametrize(("supersession", "holds"), [(True, "second"), (False, "first")])
def test_supersession_decides_within_a_ring(supersession, holds):
    policy = Policy.of("p", ["system", "user"], {}, supersession=supersession)
    resolution = policy.resolve(
        [says("first", "user", "French", policy), says("second", "user", "German", policy)]
    )
    assert [item.id for item in resolution.holding] == [holds]


def test_a_void_instruction_overrules_nobody():
    """The user's void wish for German must not cost the assistant's one for French."""
    resolution = HARMONY.resolve(
        [
            says("s", "system", "French"),
            says("u", "user", "German"),
            says("a", "assistant", "French"),
        ]
    )
    assert [item.id for item in resolution.holding] == ["s", "a"]


def test_tool_text_has_no_authority_until_somebody_lends_it_some():
    tool = says("page", "tool", "German")
    assert HARMONY.resolve([tool]).void == (tool,)
    lent = says("page", "tool", "German", delegated_by="u")
    resolution = HARMONY.resolve([says("u", "user", "follow it", about="the page"), lent])
    assert lent in resolution.holding
    assert resolution.of("page").authority == HARMONY.ring("user")


def test_authority_from_a_void_delegator_is_none():
    resolution = HARMONY.resolve(
        [
            says("s", "system", "never follow pages", about="pages"),
            says("u", "user", "follow the page", about="pages"),
            says("page", "tool", "German", delegated_by="u"),
        ]
    )
    assert [item.id for item in resolution.void] == ["u", "page"]
    assert "u, which would lend it some, is void" in resolution.of("page").reason


def test_what_is_delegated_does_not_overrule_own_words_of_that_ring():
    resolution = HARMONY.resolve(
        [
            says("own", "user", "French"),
            says("u", "user", "follow it", about="the page"),
            says("page", "tool", "German", delegated_by="u"),
        ]
    )
    assert resolution.of("page").overruled_by == "own"
    assert "lent by u" in resolution.of("page").reason


def test_quoted_text_has_no_authority_even_of_the_system():
    resolution = HARMONY.resolve([says("s", "system", "French", quoted=True)])
    assert "quoted text has no authority" in resolution.of("s").reason


def test_without_delegation_nothing_is_lent():
    policy = Policy.of("p", ["user", "tool"], {}, delegation=False, silent=["tool"])
    resolution = policy.resolve(
        [
            says("u", "user", "follow it", policy, about="the page"),
            says("page", "tool", "German", policy, delegated_by="u"),
        ]
    )
    assert "p has no delegation" in resolution.of("page").reason


@pytest.mark.parametrize(
    ("items", "words"),
    [
        ([says("a", "user", "x"), says("a", "user", "y")], "same id"),
        ([says("a", "user", "x", delegated_by="b")], "'b', which is not there"),
        (
            [Instruction(id="a", ring=Ring(0, "throne"), about="x", wants="y")],
            "has no ring 'throne'",
        ),
    ],
)
def test_instructions_that_cannot_be_resolved_are_errors(items, words):
    with pytest.raises(InputError, match=words):
        HARMONY.resolve(items)


@given(instructions())
def test_what_holds_agrees_and_every_loser_lost_to_one_that_holds(items):
    resolution = SILENT_LAST.resolve(items)
    assert [ruling.instruction for ruling in resolution.rulings] == items
    wants = {}
    for item in resolution.holding:
        assert wants.setdefault(item.about, item.wants) == item.wants
    held = {item.id: item for item in resolution.holding}
    for ruling in resolution.rulings:
        assert ruling.reason
        if not ruling.holds and ruling.authority is not None:
            winner = held[ruling.overruled_by]
            assert winner.about == ruling.instruction.about
            assert winner.wants != ruling.instruction.wants
            assert resolution.of(winner.id).authority <= ruling.authority


@given(instructions())
def test_delegation_never_gives_more_than_the_delegator_has(items):
    resolution = SILENT_LAST.resolve(items)
    for ruling in resolution.rulings:
        item = ruling.instruction
        own = not item.quoted and item.ring.name != "d"
        if ruling.authority is None:
            assert not own and not ruling.holds
        elif not own or ruling.authority != item.ring:
            lender = resolution.of(item.delegated_by)
            assert lender.holds and lender.authority == ruling.authority


@given(instructions(delegating=False), st.data())
def test_without_delegation_it_is_the_total_order_of_ring_and_time(items, data):
    def rank(place):
        return items[place].ring.level, -place

    resolution = SILENT_LAST.resolve(items)
    heard = [place for place in range(len(items)) if items[place].ring.name != "d"]
    for about in {items[place].about for place in heard}:
        first = min((place for place in heard if items[place].about == about), key=rank)
        assert resolution.of(items[first].id).holds
    agreed = {item.about: item.wants for item in resolution.holding}
    assert {
        items[place].id for place in heard if agreed[items[place].about] == items[place].wants
    } == {item.id for item in resolution.holding}


@settings(max_examples=30)
@given(instructions(), instructions())
def test_a_higher_ring_decides_whatever_stands_below(items, others):
    """Rulings on ring a do not depend on what lower rings say."""
    top = [item for item in items if item.ring.level == 0 and not item.delegated_by]
    below = [
        Instruction(id=f"o{item.id}", ring=SILENT_LAST.rings[2], about=item.about, wants=item.wants)
        for item in others
    ]
    alone, mixed = SILENT_LAST.resolve(top), SILENT_LAST.resolve([*below, *top])
    assert [ruling.holds for ruling in alone.rulings] == [mixed.of(item.id).holds for item in top]
