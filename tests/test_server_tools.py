"""Tools over the server: offered, called, answered, through the real client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from server_parts import CALLING, GREETING, NoZ, Running, asking, serving

from ringfence.written_calls import apart, settled

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}
QUESTION = "What is the weather?"


@pytest.fixture(scope="module")
def running() -> Iterator[Running]:
    with serving(judges={"no-z": NoZ()}) as running:
        yield running


def ask(running: Running, **more: Any) -> Any:
    body = {"tools": [WEATHER], "extra_body": {"ringfence": {"decoder": "plain"}}} | more
    return running.client().chat.completions.create(**asking(QUESTION), **body)


def test_calls_come_apart_from_the_text(running: Running) -> None:
    choice = ask(running).choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look <at> it."
    calls = choice.message.tool_calls
    assert [call.function.arguments for call in calls] == [
        '{"place": "Oslo"}',
        '{"place": "Rome"}',
    ]
    assert {(call.type, call.function.name) for call in calls} == {("function", "weather")}
    assert len({call.id for call in calls}) == 2


def test_a_client_that_wants_one_call_gets_one(running: Running) -> None:
    assert len(ask(running, parallel_tool_calls=False).choices[0].message.tool_calls) == 1


@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": "none"},
        {"tools": []},
        {"tools": [{"type": "function", "function": {"name": "shop"}}]},
    ],
)
def test_what_calls_no_tool_that_was_offered_is_text(running: Running, more: Any) -> None:
    choice = ask(running, **more).choices[0]
    assert choice.message.content == CALLING and choice.message.tool_calls is None
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("decoder", ["plain", "guarded"])
def test_a_stream_shows_text_at_once_and_calls_at_the_end(running: Running, decoder: str) -> None:
    text, calls, finishes = "", [], []
    for chunk in ask(running, stream=True, extra_body={"ringfence": {"decoder": decoder}}):
        for choice in chunk.choices:
            assert not (choice.delta.content and calls)
            text += choice.delta.content or ""
            calls += choice.delta.tool_calls or []
            finishes += [choice.finish_reason] if choice.finish_reason else []
    assert text == "I look <at> it."
    assert [(call.index, call.function.arguments) for call in calls] == [
        (0, '{"place": "Oslo"}'),
        (1, '{"place": "Rome"}'),
    ]
    assert finishes == ["tool_calls"]


def test_calls_and_results_go_back_in(running: Running) -> None:
    client = running.client()
    first = ask(running).choices[0].message
    messages = [
        {"role": "user", "content": "How warm is it?"},
        first.model_dump(exclude_none=True),
        *(
            {"role": "tool", "tool_call_id": call.id, "content": "9 degrees"}
            for call in first.tool_calls
        ),
    ]
    reply = client.chat.completions.create(model="tiny", messages=messages, tools=[WEATHER])
    assert reply.choices[0].message.content == GREETING
    assert reply.choices[0].message.tool_calls is None


def test_text_without_calls_streams_whole(running: Running) -> None:
    body = asking("hi") | {"tools": [WEATHER], "stream": True}
    chunks = running.client().chat.completions.create(**body)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == GREETING


@pytest.mark.parametrize(
    "said",
    [
        "Like this:\n```\n{x}\n```\nNow I call it.",
        "Action: none yet.\nI look.",
        "`<tool_call>` begins a call: <tool_call>no JSON</tool_call> is none.",
        "[1] is a source.",
        "[TOOL_CALLS] is a mark.",
    ],
)
def test_marks_before_a_call_that_are_none_stay_text(said: str) -> None:
    call = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'
    found = [{"name": "f", "arguments": {"a": 1}}]
    assert apart(f"{said}\n{call}\nIt rains.", {"f"}) == (said, found)
    assert apart(f"{said}\n{call}", {"g"}) == (f"{said}\n{call}", [])


ONE = '{"name": "f", "arguments": {"x": 1}}'
OTHER = ONE.replace("1", "true")


def _calls(*arguments: object) -> list[dict]:
    return [{"name": "f", "arguments": {"x": one}} for one in arguments]


@pytest.mark.parametrize(
    ("reply", "said", "given"),
    [
        (f"<tool_call>{ONE}\n{OTHER}</tool_call>", "", [1, True]),
        (f"<tool_call>{OTHER}</tool_call>\n<tool_call>{ONE}</tool_call>", "", [True, 1]),
        (f"<tool_call>{ONE}</tool_call><tool_call>{ONE}</tool_call>", "", [1, 1]),
        (f"[TOOL_CALLS][{ONE}, {ONE}]", "", [1, 1]),
        ('<tool_call>{"name": "f", "arguments": {"x": "</tool_call>"}}', "", ["</tool_call>"]),
        (f"<think>maybe <tool_call>{ONE}</tool_call></think>No call needed.", None, []),
        (f"maybe <tool_call>{ONE}</tool_call>\n</think>\n\nNone is needed.", None, []),
        (f"<think>maybe <tool_call>{ONE}</tool_call>", None, []),
        (f"<think>Hm.</think>\n{ONE}", "<think>Hm.</think>", [1]),
        (f"Hm, {ONE}?</think>It is.<tool_call>{OTHER}", f"Hm, {ONE}?</think>It is.", [True]),
        ('<tool_call>{"name": "f", "arguments": {"x": "</think>"}}', "", ["</think>"]),
        ('<tool_call>{"name": "f", "arguments": {"x": NaN}}</tool_call>', None, []),
    ],
)
def test_calls_are_those_that_a_reply_makes(reply: str, said: str | None, given: list) -> None:
    """As many as it makes, in their order, and none of those that it only thinks of."""
    assert repr(apart(reply, {"f"})) == repr((reply if said is None else said, _calls(*given)))


PIECES = st.sampled_from(
    ["<tool_call>", "<tool", "_call>", '{"name": "f", "arguments": {}}', "</tool_call>", "```"]
    + ["\n", "Action: f", "\nAction Input: {}", "[TOOL_CALLS]", "[TOOL", "{", "x", " ", "<"]
    + ["<think>", "</think>", "</thi", "nk>", '{"name": "f", "arguments": {"x": "</think>"}}']
)


@given(st.lists(PIECES, max_size=8).map("".join), st.lists(PIECES, max_size=8).map("".join))
@example("Act", "ion: f\nAction Input: {}")
@example("  ", '{"name": "f", "arguments": {}}')
@example(
    '{"name": "f", "arguments": {}}<tool{"name": "f", "arguments": {"x": "</think>"}}',
    "\nAction Input: {}",
)
@example('{"name": "f", "arguments": {}}\nAction: </think>', "\nAction Input: {}")
@example("x \n", '<tool_call>{"name": "f", "arguments": {}}')
def test_what_is_settled_is_never_part_of_a_call(begun: str, rest: str) -> None:
    sent = begun[: settled(begun)]
    text, calls = apart(begun + rest, {"f"})
    assert (text if calls else begun + rest).startswith(sent)
