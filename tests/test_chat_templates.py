"""Templates of one's own, and what templates are told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import character_folder
from fakes import VOCABULARY
from hypothesis import given
from hypothesis import strategies as st

from ringfence.commandline.flags import Flags
from ringfence.engine import EngineCard
from ringfence.engines.chat_templates import with_template
from ringfence.engines.descriptions import Description, describe
from ringfence.errors import EngineError, InputError
from ringfence.rendering import render
from ringfence.rendering.templates import Allowance, run
from ringfence.rings import Conversation

PRINTS = "{% for m in messages %}{{ m.content }}{% endfor %}"


def described(template: str | None) -> Description:
    return Description(
        name="tiny",
        tokenizer=VOCABULARY,  # type: ignore[arg-type]
        template=template,
        bos="",
        eos="",
        ends=frozenset(),
        context=None,
        ids=None,
    )


def told(options, template: str) -> str:
    source = with_template(described(template), None, options).template
    assert source is not None
    return run(source, {"messages": []}, Allowance())


text = st.text(st.characters(codec="utf-8"), max_size=30)


@given(text | st.sampled_from(["{{ 1 }}", "{% endraw %}", "{#", '" ~ messages ~ "', "\\u007b"]))
def test_a_template_gets_a_text_as_it_is_and_never_runs_it(value):
    assert told({"wanted": value}, "\n{{ wanted|tojson }}{{ wanted is string }}") == (
        "\n" + json.dumps(value, ensure_ascii=False) + "True"
    )


@pytest.mark.parametrize("value", [True, False, None, 7, -2, 0.5])
def test_a_template_gets_numbers_and_truth_values_as_such(value):
    assert told({"wanted": value}, "{{ wanted }}") == str(value)


@pytest.mark.parametrize("name", ["messages", "1st", "a b", "", "x }}", "_x", "bos_token"])
def test_what_rendering_says_itself_cannot_be_replaced(name):
    with pytest.raises(InputError, match="template_options"):
        told({name: 1}, "")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [1], {"a": 1}, "\ud800"])
def test_a_value_that_no_template_can_read_is_named(value):
    with pytest.raises(InputError, match="template_options.wanted"):
        told({"wanted": value}, "")


def test_a_switch_of_the_template_reaches_the_prompt():
    template = PRINTS + "{% if quiet is defined and not quiet %}loud{% endif %}"
    description = with_template(described(template), None, {"quiet": False})
    card = EngineCard(
        name="tiny",
        tokenizer=VOCABULARY,
        template=description.template,
        ends=frozenset(),
        context=100,
        slots=1,
    )
    conversation = Conversation.of([{"role": "user", "content": "hi"}])
    assert render(conversation, card).text == "hiloud"


def test_a_file_takes_the_place_of_the_models_template(tmp_path: Path):
    (tmp_path / "own.jinja").write_text(PRINTS)
    assert with_template(described("other"), tmp_path / "own.jinja", None).template == PRINTS
    with pytest.raises(InputError, match="chat_template"):
        with_template(described("other"), tmp_path / "none.jinja", None)
    with pytest.raises(InputError, match="no chat template"):
        with_template(described(None), None, {"quiet": True})


NAMED = {"name": "default", "template": PRINTS}


@pytest.mark.parametrize(
    "template",
    [7, {}, [7], [{"template": "x"}], [NAMED, {"name": "other"}], [NAMED | {"name": []}]],
)
def test_a_folders_template_that_is_no_text_is_an_error(tmp_path: Path, template):
    character_folder(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    with pytest.raises(EngineError, match=r"tokenizer_config\.json.*chat_template"):
        describe(tmp_path)


def test_a_folders_template_is_a_text_a_file_or_one_of_several(tmp_path: Path):
    character_folder(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    for template, expected in ((PRINTS, PRINTS), ([NAMED], PRINTS), ([], None), (None, None)):
        config.write_text(json.dumps({"chat_template": template}))
        assert describe(tmp_path).template == expected
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff\xfe{{")
    with pytest.raises(EngineError, match=r"chat_template\.jinja cannot be read"):
        describe(tmp_path)


def test_settings_that_nest_too_deeply_or_are_no_numbers_are_errors_or_not_there(tmp_path: Path):
    character_folder(tmp_path)
    (tmp_path / "config.json").write_text('{"max_position_embeddings": "8", "vocab_size": [8]}')
    assert (describe(tmp_path).context, describe(tmp_path).ids) == (None, None)
    (tmp_path / "config.json").write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(EngineError, match=r"config\.json cannot be read"):
        describe(tmp_path)


def test_options_on_the_command_line_are_read_as_json_or_else_as_text():
    flags = Flags(template_option=["a=false", "b=26 Jul 2024", "c=3", "d="])
    assert flags.given()["template_options"] == {"a": False, "b": "26 Jul 2024", "c": 3, "d": ""}
    with pytest.raises(InputError, match="NAME=VALUE"):
        Flags(template_option=["a"]).given()
