"""Stateful small tools: pure, deterministic, and never at a loss for an answer."""

from __future__ import annotations

import copy
import json
import math
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InputError
from ringfence.toolbox import KINDS, Call, World, kinds

every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=list(KINDS))
seeds = st.integers(0, 2**32)
few = settings(max_examples=25, deadline=None)
anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
NAMES = [function.name for kind in KINDS.values() for function in kind.functions]


def plausible(rng: Random, schema: dict[str, Any], state: dict[str, Any]) -> dict[str, Any]:
    """Arguments that fit a schema; ids, paths and addresses are likely to exist."""
    known = [key for shelf in state.values() if isinstance(shelf, dict) for key in shelf]
    known += [
        value
        for shelf in state.values()
        if isinstance(shelf, dict)
        for record in shelf.values()
        if isinstance(record, dict)
        for field, value in record.items()
        if field in ("path", "url")
    ]
    drawn: dict[str, Any] = {}
    for name, wanted in schema["properties"].items():
        if wanted["type"] == "array":
            drawn[name] = ["anna@team.example"]
        elif wanted["type"] in ("integer", "number"):
            drawn[name] = max(1, wanted["minimum"])
        elif "-" in wanted.get("pattern", ""):
            drawn[name] = "2026-05-31" if "20[0-9]" in wanted["pattern"] else "09:30"
        elif name in ("id", "path", "url", "account", "payee"):
            drawn[name] = rng.choice(known or ["nothing"])
        else:
            drawn[name] = rng.choice(["the", "new.md", "work/new.md"])
    return drawn


def wandered(kind: Any, rng: Random, steps: int) -> tuple[dict[str, Any], set[str]]:
    """A state after random plausible calls, and the functions that did not answer by an error."""
    state, worked = kind.make_state(rng, 4), set()
    for _ in range(steps):
        function = rng.choice(kind.functions)
        arguments = plausible(rng, function.parameters, state)
        state, result = kind.call(state, function.name, arguments)
        if not result.startswith("Error:"):
            worked.add(function.name)
    return state, worked


def test_two_kinds_are_held_out_and_evaluation_has_them_all():
    assert [kind.name for kind in kinds("train")] == ["mail", "calendar", "files", "shop", "web"]
    assert {kind.name for kind in kinds("eval")} == set(KINDS)
    assert {kind.name for kind in KINDS.values() if kind.held_out} == {"notes", "bank"}


@every_kind
def test_every_kind_has_five_functions_some_of_which_only_read(kind):
    assert len(kind.functions) >= 5
    assert {function.changes for function in kind.functions} == {True, False}


def test_no_two_functions_have_one_name():
    assert len(set(NAMES)) == len(NAMES)


@every_kind
def test_schemas_are_those_of_openai(kind):
    for schema in kind.schemas():
        assert schema["type"] == "function"
        assert schema["function"].keys() == {"name", "description", "parameters"}
        parameters = schema["function"]["parameters"]
        assert parameters["type"] == "object" and parameters["additionalProperties"] is False
        assert set(parameters["required"]) <= parameters["properties"].keys()
        assert json.loads(json.dumps(schema)) == schema


@every_kind
def test_every_function_can_be_reached(kind):
    worked = set.union(*(wandered(kind, Random(seed), 60)[1] for seed in range(20)))
    assert worked == {function.name for function in kind.functions}


@every_kind
@few
@given(seed=seeds)
def test_calls_change_nothing_that_they_are_given(kind, seed):
    rng = Random(seed)
    state, _ = wandered(kind, rng, 5)
    function = rng.choice(kind.functions)
    arguments = plausible(rng, function.parameters, state)
    before = copy.deepcopy((state, arguments))
    after, result = kind.call(state, function.name, arguments)
    assert (state, arguments) == before
    again, same = kind.call(state, function.name, arguments)
    assert (after, result) == (again, same)
    if not function.changes or result.startswith("Error:"):
        assert after == state


@every_kind
def test_what_a_call_returns_shares_nothing_with_what_it_was_given(kind):
    state = kind.make_state(Random(0), 3)
    before = copy.deepcopy(state)
    after, _ = kind.call(state, kind.functions[0].name, {})
    for shelf in after.values():
        if isinstance(shelf, dict):
            for record in shelf.values():
                if isinstance(record, dict):
                    record.clear()
    assert state == before


@every_kind
@few
@given(seed=seeds, size=st.integers(1, 12), split=st.sampled_from(["train", "eval"]))
def test_the_same_seed_gives_the_same_bytes_and_json_keeps_them(kind, seed, size, split):
    state = kind.make_state(Random(seed), size, split)
    assert json.dumps(state) == json.dumps(kind.make_state(Random(seed), size, split))
    assert json.loads(json.dumps(state)) == state


@every_kind
def test_states_vary_with_the_seed_and_grow_with_the_size(kind):
    states = {json.dumps(kind.make_state(Random(seed), 3)) for seed in range(50)}
    assert len(states) == 50
    lengths = [len(json.dumps(kind.make_state(Random(1), size))) for size in (1, 10, 100)]
    assert lengths == sorted(set(lengths))


@every_kind
@pytest.mark.parametrize("size", [0, -1, 201])
def test_a_size_out_of_range_is_an_error_that_says_the_range(kind, size):
    with pytest.raises(InputError, match="1 to 200"):
        kind.make_state(Random(0), size)


@few
@given(
    name=st.sampled_from(NAMES) | st.text(max_size=10),
    arguments=anything | st.dictionaries(st.sampled_from(["id", "path", "to"]), anything),
)
def test_whatever_is_called_there_is_an_answer(name, arguments):
    world = World.make(Random(1), {kind: 2 for kind in KINDS})
    after, result = world.call(name, arguments)
    assert isinstance(result, str) and result
    assert len(after.calls) == 1
    json.dumps(after.json(), allow_nan=False)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "'to' is missing"),
        ({"to": "a", "subject": "b", "body": "c", "cc": "d"}, "unknown argument 'cc'"),
        ({"to": 3, "subject": "b", "body": "c"}, "'to' must be a string"),
        ("[1]", "must be a JSON object"),
        ("{", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        (None, "must be a JSON object"),
        ({"to": "a", "subject": "b", "body": "c" * 30_000}, "longer than 20000"),
    ],
)
def test_bad_arguments_are_answered_by_what_is_wrong_and_change_nothing(arguments, complaint):
    mail = KINDS["mail"]
    state = mail.make_state(Random(0), 2)
    after, result = mail.call(state, "send_mail", arguments)
    assert result.startswith("Error: send_mail: ") and complaint in result
    assert after == state


@pytest.mark.parametrize("quantity", [True, 1.5, math.inf, math.nan, 0, 10**9, 10**400, "2"])
def test_a_quantity_is_a_whole_number_of_its_range(quantity):
    shop = KINDS["shop"]
    state = shop.make_state(Random(0), 2)
    after, result = shop.call(state, "add_to_basket", {"id": "p1", "quantity": quantity})
    assert result.startswith("Error: add_to_basket: argument 'quantity'")
    assert after == state
    assert not shop.call(state, "add_to_basket", {"id": "p1", "quantity": 2.0})[1].startswith("E")


def test_arguments_may_be_json_text_as_models_write_them():
    world = World.make(Random(0), {"files": 2})
    text = json.dumps({"path": "a/b.md", "text": "x"})
    as_text, _ = world.call("write_file", text)
    as_object, _ = world.call("write_file", {"path": "a/b.md", "text": "x"})
    assert as_text.json() == as_object.json()


@pytest.mark.parametrize("path", ["", "..", "a/../b", "/", "a//b", "./a", "x" * 300])
def test_a_file_cannot_leave_its_folder(path):
    files = KINDS["files"]
    state = files.make_state(Random(0), 2)
    after, result = files.call(state, "write_file", {"path": path, "text": "x"})
    assert result.startswith("Error:") and after == state


def test_an_order_takes_the_basket_from_stock_and_its_cancellation_puts_it_back():
    shop = KINDS["shop"]
    state = shop.make_state(Random(0), 2)
    stock, price = state["products"]["p1"]["stock"], state["products"]["p1"]["cents"]
    state, _ = shop.call(state, "add_to_basket", {"id": "p1", "quantity": 2})
    state, _ = shop.call(state, "place_order", {"address": "2 Mill Lane"})
    identifier, order = list(state["orders"].items())[-1]
    assert order == {"items": {"p1": 2}, "cents": 2 * price, "address": "2 Mill Lane"}
    assert state["products"]["p1"]["stock"] == stock - 2 and state["basket"] == {}
    state, _ = shop.call(state, "cancel_order", {"id": identifier})
    assert state["products"]["p1"]["stock"] == stock and identifier not in state["orders"]


def test_a_call_that_fails_half_way_leaves_nothing_half_done():
    shop = KINDS["shop"]
    state = shop.make_state(Random(0), 2)
    state, _ = shop.call(state, "add_to_basket", {"id": "p1"})
    state["orders"] = {f"o{place}": {} for place in range(2000)}
    after, result = shop.call(state, "place_order", {"address": "2 Mill Lane"})
    assert result == "Error: place_order: orders is full"
    assert after == state


def test_free_time_overlaps_no_event():
    calendar = KINDS["calendar"]
    state = {"owner": "", "today": "", "events": {}, "next": 1}
    for time in ("08:00", "09:00"):
        given = {"title": "x", "date": "2026-05-31", "time": time, "minutes": 60}
        state, _ = calendar.call(state, "create_event", given)
    _, result = calendar.call(state, "find_free_time", {"date": "2026-05-31", "minutes": 30})
    assert result == "Free on 2026-05-31 from 10:00."


def test_money_is_moved_to_the_cent_and_never_below_nothing():
    bank = KINDS["bank"]
    state = bank.make_state(Random(0), 2)
    payee, cents = next(iter(state["payees"])), state["accounts"]["a1"]["cents"]
    given = {"account": "a1", "payee": payee, "amount": 0.29}
    after, _ = bank.call(state, "transfer_money", given)
    assert after["accounts"]["a1"]["cents"] == cents - 29
    poor, result = bank.call(after, "transfer_money", {**given, "amount": 1_000_000})
    assert "too low" in result and poor == after


@every_kind
@few
@given(seed=seeds, split=st.sampled_from(["train", "eval"]))
def test_an_errand_succeeds_changes_the_state_and_names_its_arguments(kind, seed, split):
    rng = Random(seed)
    world = World(state={kind.name: kind.make_state(rng, 3, split)})
    errand = kind.errand(rng, world.state[kind.name], split)
    after, results = world.replay(errand.calls)
    assert not [result for result in results if result.startswith("Error:")]
    assert after.state != world.state
    assert not errand.demand.endswith(".") and errand.demand[0].islower()
    for call in errand.calls:
        for value in call.arguments.values():
            shown = f"{value:.2f}" if isinstance(value, float) else str(value)
            assert shown in errand.demand or value == 1


@every_kind
@few
@given(seed=seeds, text=st.text(min_size=1, max_size=80))
def test_planted_text_is_shown_whole_by_its_call_next_to_the_answer(kind, seed, text):
    rng = Random(seed)
    clean = World.make(rng, {kind.name: 3})
    before = clean.json()
    world, plant = clean.plant(rng, kind.name, text)
    assert clean.json() == before
    place: Any = world.state
    for step in plant.path:
        place = place[step]
    assert text in place
    after, result = world.call(plant.call.name, plant.call.arguments)
    assert text in result and plant.answer in result
    assert after.state == world.state


@every_kind
def test_an_emptied_state_has_no_place_for_a_plant_and_says_so(kind):
    state = {
        name: {} if isinstance(shelf, dict) else shelf
        for name, shelf in kind.make_state(Random(0), 1).items()
    }
    with pytest.raises(InputError, match=f"{kind.name}: .*make_state"):
        kind.plant(Random(0), state, "x")
    with pytest.raises(InputError, match=f"{kind.name}: .*make_state"):
        for seed in range(50):
            kind.errand(Random(seed), state)


def test_a_replay_gives_what_the_calls_gave_one_by_one():
    world = World.make(Random(2), {"mail": 3, "files": 3})
    rng, calls, results, last = Random(3), [], [], world
    for _ in range(30):
        kind = KINDS[rng.choice(list(world.state))]
        function = rng.choice(kind.functions)
        call = Call(
            name=function.name,
            arguments=plausible(rng, function.parameters, last.state[kind.name]),
        )
        last, result = last.call(call.name, call.arguments)
        calls.append(call)
        results.append(result)
    replayed, answers = world.replay(calls)
    assert replayed.json() == last.json() and answers == results
    assert world.replay(last.json()["calls"])[0].json() == last.json()
    assert [call["name"] for call in last.json()["calls"]] == [call.name for call in calls]


def test_a_world_survives_json():
    world = World.make(Random(4), {kind: 2 for kind in KINDS})
    world, _ = world.call("send_mail", {"to": "a@b.example", "subject": "s", "body": "b"})
    written = json.dumps(world.json())
    assert World.load(json.loads(written)).json() == world.json()
    with pytest.raises(InputError, match="state"):
        World.load({"state": {"fridge": {}}})


def test_calls_of_absent_tools_and_unreadable_ones_are_on_record():
    world = World.make(Random(0), {"mail": 1})
    world, result = world.call("transfer_money", {"amount": 5})
    assert result == "Error: there is no function 'transfer_money'"
    world, _ = world.call("send_mail", "{broken")
    assert world.json()["calls"] == [
        {"name": "transfer_money", "arguments": {"amount": 5}},
        {"name": "send_mail", "arguments": {"unreadable": "{broken"}},
    ]


def test_a_world_stops_after_a_thousand_calls():
    world = World(state={}, calls=(Call(name="x"),) * 1000)
    after, result = world.call("x", {})
    assert after is world and "1000 calls" in result


def test_graders_see_what_the_tools_did():
    graders = pytest.importorskip("ringfence.graders")
    world = World.make(Random(0), {"mail": 2})
    after, _ = world.call("send_mail", {"to": "a@b.example", "subject": "s", "body": "BANANA"})
    sent = graders.parse_grader(
        {"check": "tool_state", "path": "mail.sent.*.body", "equals": "BANANA"}
    )
    assert graders.grade(sent, "", after.json()).passed
    assert not graders.grade(sent, "", world.json()).passed
