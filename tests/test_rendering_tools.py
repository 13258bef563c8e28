"""Tools through templates: what models write into calls, what tools answer, what defines them."""

from __future__ import annotations

import json
import re

import pytest
from chat_templates import card, controls, spoken, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.errors import InputError, RenderingError
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.tool_calls import ToolCall, tools_of

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Its name"},
                "unit": {"type": "string", "enum": ["c", "f"]},
            },
            "required": ["city"],
        },
    },
}
WITH_CALLS = ["qwen2_5", "qwen3", "glm4moe", "gptoss"]


def call(arguments: object, content: str | None = None, name: str = "get_weather") -> dict:
    function = {"name": name, "arguments": arguments}
    calls = [{"id": "call_1", "type": "function", "function": function}]
    return {"role": "assistant", "content": content, "tool_calls": calls}


def answer(text: str) -> dict:
    return {"role": "tool", "content": text, "tool_call_id": "call_1", "name": "get_weather"}


@pytest.mark.parametrize("name", WITH_CALLS)
def test_calls_are_the_assistants_and_results_the_tools(name):
    shown = card(name)
    talked = talk(("user", "Rome?"), call({"city": "Rome"}), answer("sunny"), tools=[WEATHER])
    rendering = render(talked, shown)
    said = spoken(rendering, 1, shown)
    assert "get_weather" in said and "city" in said and "Rome" in said
    assert "sunny" in spoken(rendering, 2, shown)
    assert "The weather of a city" in spoken(rendering, None, shown)
    by_message = {span.message: span.ring for span in rendering.spans}
    assert by_message[1] == talked.policy.ring_of("assistant").level
    assert by_message[2] == talked.policy.ring_of("tool").level
    definitions = {s.ring for s in rendering.spans if s.message is None} - {-1}
    assert definitions == {talked.tools_ring.level} == {1}


def test_the_text_of_a_call_is_what_the_template_makes_of_it():
    rendering = render(talk(("user", "Rome?"), call('{"city": "Rome", "days": 2}')), card("qwen3"))
    assert (
        '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome", "days": 2}}\n'
        "</tool_call><|im_end|>" in rendering.text
    )


evil = st.lists(
    st.one_of(
        st.sampled_from(
            ["<|im_end|>", "</tool_call>", "<|im_start|>system", "<|call|>", "<|user|>", '"', "}"]
        ),
        st.text(max_size=5),
    ),
    min_size=1,
    max_size=4,
).map("".join)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(WITH_CALLS), evil, evil, evil)
def test_what_a_model_or_a_tool_writes_forges_no_control_token(name, key, value, result):
    shown = card(name)

    def rendered(key: str, value: str, result: str):
        conversation = talk(
            ("user", "Rome?"), call({"k" + key: "v" + value}), answer("r" + result + "r")
        )
        return render(conversation, shown)

    benign, hostile = rendered("", "", ""), rendered(key, value, result)
    assert controls(hostile) == controls(benign)
    for span in hostile.spans:
        if span.ring >= 0:
            assert all(token < 256 for token in hostile.tokens[span.start : span.stop])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["qwen2_5", "qwen3", "gptoss"]), evil)
def test_tool_definitions_forge_no_control_token(name, text):
    shown = card(name)

    def rendered(text: str):
        tool = json.loads(json.dumps(WEATHER))
        tool["function"]["description"] = "d" + text
        tool["function"]["parameters"]["properties"]["city"]["description"] = "e" + text
        tool["function"]["parameters"]["properties"]["p" + text] = {"type": "string"}
        return render(talk(("user", "Rome?"), tools=[tool]), shown)

    assert controls(rendered(text)) == controls(rendered(""))


def test_a_name_that_completes_a_control_token_does_not_become_one():
    template = "{% for t in tools %}{% for k in t.function.parameters %}{{ '<|' ~ k ~ '|>' }}"
    template += "{% endfor %}{{ t.function.name }}{{ t.function.description }}{% endfor %}"
    template += "{% for m in messages %}{{ '<|im_end|>' + m.content }}{% endfor %}"
    shown = card("chatml")
    object.__setattr__(shown, "template", template)
    tool = {"name": "x.y", "description": "d", "parameters": {"im_end": 1}}
    rendering = render(talk(("user", "Hi"), tools=[tool]), shown)
    assert "<|im_end|>" in rendering.text[:14]
    assert len(controls(rendering)) == 1


def test_dotted_text_of_a_definition_is_followed_and_no_control_token():
    from ringfence.vocabulary import Vocabulary

    template = "{{ tools|tojson }}{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    shown = card("chatml")
    words = ("im.start", "x.y", "https://a.b/c", "<|im_end|>")
    object.__setattr__(shown, "template", template)
    object.__setattr__(shown, "tokenizer", Vocabulary.characters(words))
    tool = {"name": "x.y", "description": "d", "parameters": {"enum": list(words[:3])}}
    rendering = render(talk(("user", "Hi"), tools=[tool]), shown)
    assert json.dumps(words[:3])[1:-1] in rendering.text
    assert controls(rendering) == [shown.tokenizer.control["<|im_end|>"]]
    # The name is the template's, which may take it apart; the rest is whoever's the tools are.
    assert spoken(rendering, None, shown) == "d" + "im.start" + "https://a.b/c"


ROUNDED = '{"m": 12345678901234567.89}'


def test_numbers_stay_as_they_are_written_or_a_note_says_that_they_are_rounded():
    for text, parsed, exact in (
        ('{"a": 1.50, "b": -0.0, "c": 1e2, "d": 123456789012345678901}', True, True),
        (ROUNDED, True, False),
        ('{"m": 1e-400}', True, False),
        ('{"m": 1e-9999999999999999999}', True, False),
        ('{"amount": 1e400}', False, False),
    ):
        call_ = ToolCall(name="x", arguments=text)
        assert (call_.parsed is not None, call_.exact) == (parsed, exact), text
    for name in ("qwen3", "chatml"):
        shown = card(name)
        for text in (ROUNDED, '{"amount": 1e400}'):
            rendering = render(talk(("user", "?"), call(text)), shown)
            noted = any("rounded" in note for note in rendering.notes)
            said = spoken(rendering, 1, shown).replace('\\"', '"')
            assert noted or text in said, (name, text)
            assert noted == (name == "qwen3" and text == ROUNDED)


def test_marks_cannot_be_forged_by_escapes_in_arguments():
    shown = card("qwen3")
    forged = "".join(f"\\udbc0\\udc0{n}" for n in (0, 1)) + "0000000"
    talked = talk(("user", "Rome?"), call(f'{{"city": "{forged}evil{forged}"}}'), answer("sunny"))
    rendering = render(talked, shown)
    assert "\U00100000\U00100001" in spoken(rendering, 1, shown)
    assert spoken(rendering, 0, shown) == "Rome?"


def test_arguments_that_are_no_json_are_shown_as_the_model_wrote_them():
    shown = card("qwen3")
    for text in ('{"city": ', "[1]", '{"a": 1, "a": 2}', '{"a": NaN}', "[" * 5000):
        rendering = render(talk(("user", "Rome?"), call(text)), shown)
        assert text in spoken(rendering, 1, shown)
        assert ToolCall(name="x", arguments=text).parsed is None


# Of the kind of Mistral 7B v0.3 and Nemo, which refuse ids of any other length.
NINE = (
    "{% macro checked(id) %}{% if not id or id|length != 9 %}{{ raise_exception('ids have 9') }}"
    "{% endif %}{{ id }}{% endmacro %}"
    "{{ '[TOOLS]' + tools|tojson if tools else '' }}"
    "{% for m in messages %}{% if m.role == 'tool' %}"
    "{{ '[RESULT]' + checked(m.tool_call_id) + ':' + m.content }}"
    "{% elif m.tool_calls %}{% for c in m.tool_calls %}"
    "{{ '[CALL]' + c.function|tojson + checked(c.id) }}{% endfor %}{{ eos_token }}"
    "{% else %}{{ '[' + m.role + ']' + m.content }}{% endif %}{% endfor %}"
)


def nine(*ids: str, answers: tuple[str, ...]) -> list[list[str]]:
    """The ids that such a template shows, of calls by their cities and of results."""
    shown = card("chatml")
    object.__setattr__(shown, "template", NINE)
    messages = [("user", "Weather?")]
    for place, id_ in enumerate(ids):
        one = call({"city": f"city{place}"})
        one["tool_calls"][0]["id"] = id_
        messages.append(one)
    messages += [answer(f"sun{place}") | {"tool_call_id": id_} for place, id_ in enumerate(answers)]
    rendering = render(talk(*messages, tools=[WEATHER]), shown)
    assert any("ids" in note for note in rendering.notes) == any(
        len(id_) != 9 for id_ in (*ids, *answers)
    )
    found = re.findall(r"([A-Za-z0-9]*)(?:</s>|:sun)", rendering.text)
    assert all(len(id_) == 9 for id_ in found)
    return [found[: len(ids)], found[len(ids) :]]


def test_a_template_that_wants_ids_of_nine_signs_gets_them_for_calls_and_results_alike():
    assert nine("abcdefgh1", answers=("abcdefgh1",)) == [["abcdefgh1"], ["abcdefgh1"]]
    long = "call_0123456789abcdef01234567"
    (first, second), results = nine(long, "call_1", answers=("call_1", long))
    assert first != second and results == [second, first]
    # One that is missing is that of the next call without a result, or of none.
    (first, second), results = nine("", "call_1", answers=("", "call_1", ""))
    assert results[:2] == [first, second] and results[2] not in (first, second)
    (first, second), results = nine("call_1", "", answers=("call_1", ""))
    assert results == [first, second] and first != second
    # An id that was there already is no other's.
    (first, second), results = nine("call_1", "call00001", answers=("call00001", "call_1"))
    assert second == "call00001" and results == [second, first] and first != second


def test_ids_stay_as_they_are_where_the_template_takes_them():
    shown = card("chatml")
    object.__setattr__(shown, "template", NINE.replace("id|length != 9", "false"))
    rendering = render(talk(("user", "Rome?"), call({}), answer("sun")), shown)
    assert rendering.text.count("call_1") == 2 and not rendering.notes


def test_a_template_that_wants_arguments_as_text_gets_text():
    shown = card("deepseekv3")
    rendering = render(talk(("user", "Rome?"), call({"city": "Rome"}), answer("sunny")), shown)
    assert '```json\n{"city": "Rome"}\n```' in rendering.text


def test_a_second_call_that_a_template_drops_is_an_error():
    message = call({"city": "Rome"})
    message["tool_calls"] = [
        *message["tool_calls"],
        *call({"city": "Oslo"}, name="two")["tool_calls"],
    ]
    with pytest.raises(RenderingError, match="drops a tool call"):
        render(talk(("user", "Rome?"), message), card("gptoss"))
    assert "Oslo" in render(talk(("user", "Rome?"), message), card("qwen3")).text


def test_an_id_that_holds_a_control_token_is_an_error():
    from ringfence.vocabulary import Vocabulary

    shown = card("qwen3")
    object.__setattr__(shown, "tokenizer", Vocabulary.characters(("call_1", "<|im_end|>")))
    with pytest.raises(RenderingError, match=r"tool_calls\[0\]\.id"):
        render(talk(("user", "Rome?"), call({})), shown)


@pytest.mark.parametrize(
    ("message", "field"),
    [
        (
            {"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]},
            "tool_calls",
        ),
        ({"role": "assistant", "tool_calls": "f"}, "tool_calls"),
        ({"role": "assistant", "tool_calls": ["f"]}, r"tool_calls\[0\]"),
        ({"role": "assistant", "tool_calls": [{"function": {}}]}, "name"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "<|im_end|>"}}]}, "name"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f"}, "id": 3}]}, "id"),
        ({"role": "assistant", "tool_calls": [{"name": "f", "arguments": {1, 2}}]}, "arguments"),
        ({"role": "tool", "content": "x", "tool_call_id": "a b"}, "tool_call_id"),
        ({"role": "assistant", "content": None}, "content"),
    ],
)
def test_a_broken_call_is_an_error_that_names_the_field(message, field):
    with pytest.raises(InputError, match=rf"messages\[1\].*{field}"):
        Conversation.of([{"role": "user", "content": "x"}, message])


@pytest.mark.parametrize("tools", ["x", ["x"], [{"function": 1}], [{"name": "a b"}], [{}]])
def test_a_broken_definition_is_an_error_that_names_the_field(tools):
    with pytest.raises(InputError, match="tools"):
        tools_of(tools)


@pytest.mark.parametrize("name", ["qwen2_5", "qwen3", "glm4moe"])
@pytest.mark.parametrize("more", [{}, {"description": ""}, {"parameters": {"type": "object"}}])
def test_a_tool_needs_no_description(name, more):
    tool = {"type": "function", "function": {"name": "clock"} | more}
    assert '"clock"' in render(talk(("user", "Hi"), tools=[tool]), card(name)).text


@pytest.mark.parametrize("name", ["qwen3", "glm4moe"])
@pytest.mark.parametrize("arguments", ["", " "])
def test_a_call_without_arguments_may_be_sent_back_as_no_text(name, arguments):
    call = {"id": "c1", "function": {"name": "get_weather", "arguments": arguments}}
    said = {"role": "assistant", "content": None, "tool_calls": [call]}
    result = {"role": "tool", "tool_call_id": "c1", "content": "12"}
    rendering = render(talk(("user", "Hi"), said, result, tools=[WEATHER]), card(name))
    assert "get_weather" in spoken(rendering, 1, card(name))


def test_a_bare_definition_is_a_definition():
    assert tools_of([WEATHER["function"]]) == tools_of([WEATHER])
