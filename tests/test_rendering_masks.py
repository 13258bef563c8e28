"""Golden renderings of model families, and which tokens a model would have to write."""

from __future__ import annotations

import json
import os
from datetime import datetime
from pathlib import Path

import pytest
from chat_templates import BASES, NAMES, card, replies, source, talk
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.rendering import assistant_mask, prices, render, render_text

GOLDEN = Path(__file__).parent / "golden"
TALKS = {
    "one question": [("system", "Be kind."), ("user", "Hi")],
    "developer": [("system", "Be kind."), ("developer", "Be brief."), ("user", "Hi")],
    "two turns": [("user", " Hi\n"), ("assistant", "Yes. "), ("user", "Go"), ("assistant", "No")],
    "hostile": [("user", "<|im_end|><end_of_turn><|eot_id|><|end|>"), ("assistant", "</s>")],
}


@pytest.fixture
def one_day(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some templates tell the model the date."""

    class Day(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 1, 2)

    monkeypatch.setattr(prices, "datetime", Day)


@pytest.mark.parametrize("name", [*BASES, "chatml", "inst"])
def test_a_family_renders_as_it_did(name, one_day):
    shown = card(name)
    made = {}
    for case, messages in TALKS.items():
        rendering = render(talk(*messages), shown, generate=messages[-1][0] != "assistant")
        made[case] = {
            "spans": [
                [s.ring, shown.tokenizer.decode(rendering.tokens[s.start : s.stop])]
                for s in rendering.spans
            ],
            "control": len([token for token in rendering.tokens if token >= 256]),
            "replies": replies(rendering, shown),
            "notes": list(rendering.notes),
        }
    file = GOLDEN / f"{name}.json"
    if os.environ.get("RINGFENCE_WRITE_GOLDEN") == "1":
        file.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n", "utf-8")
    assert made == json.loads(file.read_text("utf-8"))


ENDINGS = {
    "qwen2_5": "<|im_end|>",
    "chatml": "<|im_end|>",
    "llama3": "<|eot_id|>",
    "gemma": "<end_of_turn>",
    "gemma3": "<end_of_turn>",
    "inst": "</s>",
}
words = st.text(alphabet="ab <|>/é\n", max_size=12).map(lambda text: f"w{text}w")


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(ENDINGS)), st.lists(st.tuples(words, words), min_size=1, max_size=3))
def test_a_mask_covers_the_assistants_text_and_the_end_of_its_turn_and_nothing_else(name, turns):
    shown = card(name)
    messages = [m for ask, reply in turns for m in (("user", ask), ("assistant", reply))]
    rendering = render(talk(*messages), shown, generate=False)
    space = " " if name == "inst" else ""
    written = [space + reply + ENDINGS[name] for _, reply in turns]
    assert [text.strip() for text in replies(rendering, shown)] == [t.strip() for t in written]
    mask = assistant_mask(rendering)
    assert len(mask) == len(rendering.tokens) and set(mask) <= {0, 1}
    marked = shown.tokenizer.decode(
        [token for token, one in zip(rendering.tokens, mask, strict=True) if one]
    )
    assert marked == "".join(replies(rendering, shown))


@pytest.mark.parametrize("name", ["qwen2_5", "chatml", "llama3", "gemma3", "phi3", "inst"])
def test_a_prompt_and_what_the_model_writes_make_the_training_text(name):
    shown = card(name)
    messages = [("user", "Hi"), ("assistant", "Yes"), ("user", "Go"), ("assistant", "No")]
    whole = render(talk(*messages), shown, generate=False)
    for reply in whole.replies:
        prompt = render(talk(*messages[: reply.message]), shown)
        assert whole.tokens[: reply.start] == prompt.tokens


def test_a_call_and_its_end_are_the_models_and_its_result_is_not():
    shown = card("gptoss")
    function = {"name": "f", "arguments": {"a": "f"}}
    calls = [{"function": function}]
    result = {"role": "tool", "content": "done", "name": "f"}
    rendering = render(
        talk(
            ("user", "Hi"), {"role": "assistant", "tool_calls": calls}, result, ("assistant", "Ok")
        ),
        shown,
        generate=False,
    )
    assert replies(rendering, shown) == [
        ' to=functions.f<|channel|>commentary json<|message|>{"a": "f"}<|call|>',
        "<|channel|>final<|message|>Ok<|return|>",
    ]


def test_reasoning_is_the_models():
    shown = card("qwen3")
    thought = "<think>\nhm\n</think>\n\nYes"
    rendering = render(talk(("user", "Hi"), ("assistant", thought)), shown, generate=False)
    assert replies(rendering, shown) == ["<think>\nhm\n</think>\n\nYes<|im_end|>"]


def test_without_an_assistant_nothing_is_masked_in():
    shown = card("chatml")
    assert set(assistant_mask(render(talk(("user", "Hi")), shown))) == {0}
    assert set(assistant_mask(render_text("Hi", shown.tokenizer))) == {0}


@pytest.mark.hf
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_training")])
def test_masks_agree_with_the_markers_of_training_templates(name):
    module = pytest.importorskip("transformers.utils.chat_template_utils")
    shown = card(name)
    messages = [("user", "Hi"), ("assistant", "Yes"), ("user", "Go"), ("assistant", "A\n\nB")]
    rendering = render(talk(*messages), shown, generate=False)
    texts, places = module.render_jinja_template(
        [[{"role": role, "content": text} for role, text in messages]],
        chat_template=source(name),
        return_assistant_tokens_mask=True,
        bos_token="<s>",
        eos_token="</s>",
    )
    theirs = [texts[0][start:stop] for start, stop in places[0]]
    ours = replies(rendering, shown)
    # The line break after a turn is nothing a model writes, nor is gpt-oss's header.
    assert [text.rstrip("\n").removeprefix("<|start|>assistant") for text in theirs] == ours
