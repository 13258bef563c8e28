"""Options from files and from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from ringfence.configuration import settings_from
from ringfence.errors import InputError
from ringfence.yaml_files import _Plain, plain


def written(folder: Path, text: str) -> Path:
    file = folder / "options.yaml"
    file.write_text(text, "utf-8")
    return file


def test_the_command_line_wins_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = written(tmp_path, "decoder: rain\nmax_tokens: 40\nprinciple: positive\n")
    settings = settings_from(file, {"max_tokens": 8}, {"decoder": "plain", "seed": 5})
    assert (settings.decoder, settings.options.max_tokens, settings.options.seed) == ("rain", 8, 5)
    assert settings.principle == ("positive",)


def test_sections_reach_their_models(tmp_path: Path) -> None:
    file = written(tmp_path, 'budget: {tokens: 99}\nsearch: {width: 3}\nstop: ["\\n"]\n')
    options = settings_from(file, {}).options
    assert options.budget.tokens == 99
    assert options.settings().width == 3
    assert options.stop == ("\n",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("max-tokens: 3", ["unknown key max-tokens", "Did you mean max_tokens"]),
        ("decodr: rain", ["unknown key decodr", "decoder"]),
        ("xyzzy: 1", ["unknown key xyzzy", "Keys: ", "max_tokens"]),
        ("budget: {token: 3}", ["unknown key budget.token", "tokens"]),
        ("search: {widht: 3}", ["unknown key search.widht", "width"]),
        ("search: {width: 0}", ["search: width", "greater than or equal to 1"]),
        ("options: {}", ["unknown key options"]),
        ("max_tokens: many", ["max_tokens", "valid integer"]),
        ("decoder: fast", ["decoder", "'guarded'"]),
        ("engine: [1", ["not valid YAML", 'options.yaml", line 1']),
        ("seed: 2024-02-30", ["not valid YAML", "day is out of range"]),
        ("seed: !!int foo", ["not valid YAML"]),
        ("seed: !!int ''", ["not valid YAML", "options.yaml"]),
        ("seed: !!bool maybe", ["not valid YAML", "tag"]),
        ("seed: !!timestamp foo", ["not valid YAML", "tag"]),
        ("seed: " + "[" * 3000, ["not valid YAML"]),
        ("seed: 1\nseed: 2", ["'seed' stands here twice"]),
        ("- a", ["must be a mapping"]),
        ("budget: 3", ["budget"]),
        ("search: 3", ["search"]),
        ("3: 4", ["unknown key 3"]),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_key(
    tmp_path: Path, text: str, words: list[str]
) -> None:
    file = written(tmp_path, text)
    with pytest.raises(InputError) as caught:
        settings_from(file, {})
    message = str(caught.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message or "YAML" in message
    for word in words:
        assert word in message


def test_a_key_is_not_compared_with_every_other_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = 0

    class Key(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal asked
            asked += 1
            return str.__eq__(self, other)

    scalar = yaml.SafeLoader.construct_scalar
    monkeypatch.setattr(_Plain, "construct_scalar", lambda self, node: Key(scalar(self, node)))
    source = "".join(f"k{number}: 1\n" for number in range(500))
    assert len(plain(source, "keys")) == 500
    assert asked < 5000
    with pytest.raises(InputError, match="'k7' stands here twice"):
        plain(f"{source}k7: 2\n", "keys")
    with pytest.raises(InputError, match="not valid YAML"):
        plain("[a]: 1\n[a]: 2\n", "keys")


@pytest.mark.parametrize(
    "given",
    [
        {"engine": "embedded:~nobody-here/m.gguf"},
        {"engine": "hf:~nobody-here/m"},
        {"adapter": "~nobody-here/a"},
        {"tokenizer": "~nobody-here/t"},
        {"chat_template": "~nobody-here/t.jinja"},
    ],
)
def test_the_home_of_a_user_who_does_not_exist_is_told(given: dict[str, str]) -> None:
    (name,) = given
    with pytest.raises(InputError, match=f"{given[name]}: there is no home folder ~nobody-here"):
        settings_from(None, given)
    assert settings_from(None, {name: given[name].replace("~nobody-here", "~")})


def test_a_missing_file_and_a_binary_one_are_errors(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        settings_from(tmp_path / "none.yaml", {})
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        settings_from(tmp_path / "binary", {})


def test_an_empty_file_says_nothing(tmp_path: Path) -> None:
    assert settings_from(written(tmp_path, ""), {}) == settings_from(None, {})


def test_a_bad_flag_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = written(tmp_path, "decoder: rain\n")
    with pytest.raises(InputError, match=r"^max_tokens: "):
        settings_from(file, {"max_tokens": 0})


def test_the_decoder_follows_from_the_principle() -> None:
    assert settings_from(None, {}).chosen_decoder() == "plain"
    assert settings_from(None, {"principle": ["positive"]}).chosen_decoder() == "guarded"
    assert settings_from(None, {"decoder": "rain"}).chosen_decoder() == "rain"


def test_most_commands_take_one_principle() -> None:
    with pytest.raises(InputError, match="only serve takes several"):
        settings_from(None, {"principle": ["a", "b"]}).one_principle()
