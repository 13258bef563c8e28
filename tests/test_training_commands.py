"""The commands of training: what they refuse, print and return."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from training_parts import conversation, tiny_model, write_lines
from typer.testing import CliRunner

from ringfence.cli import app

needs_training = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
        reason="needs pip install 'ringfence[train]'",
    ),
]


def command(*words: object) -> Any:
    return CliRunner().invoke(app, ["train", *map(str, words)])


def test_data_and_out_are_needed_to_train():
    found = command("sft", "--model", "embedded")
    assert found.exit_code == 2 and "--data: is needed" in found.stderr
    found = command("dpo", "--model", "embedded", "--data", "x")
    assert found.exit_code == 2 and "--out: is needed" in found.stderr


def test_the_schema_of_recipes_is_printed():
    found = command("schema")
    assert found.exit_code == 0
    assert "adapter" in json.loads(found.stdout)["properties"]


def test_full_training_takes_no_ring_signal(tmp_path):
    (tmp_path / "r.yaml").write_text("segments: input", "utf-8")
    found = command("sft", "--model", "x", "--full", "--recipe", tmp_path / "r.yaml", "--dry-run")
    assert found.exit_code == 2 and "segment signals are saved with an adapter" in found.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["sft", "--model", "~nobody-here/m", "--dry-run"],
        ["sft", "--model", "embedded", "--data", "a=~nobody-here/d", "--dry-run"],
        ["pairs", "--model", "embedded:~nobody-here/m.gguf", "--data", "d", "--out", "o"],
    ],
)
def test_the_home_of_nobody_is_told(words):
    found = command(*words)
    assert (found.exit_code, "no home folder ~nobody-here" in found.stderr) == (2, True), found


def test_pairs_refuse_data_that_synthesis_did_not_make(tmp_path):
    found = command("pairs", "--model", "embedded", "--data", tmp_path, "--out", tmp_path / "o")
    assert found.exit_code == 2 and "was not made by ringfence synthesize" in found.stderr


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    tiny_model(tmp_path / "tiny")
    write_lines(tmp_path / "d.jsonl", [conversation(number) for number in range(8)])
    return tmp_path


class TestWithTorch:
    pytestmark = needs_training

    def test_a_dry_run_says_what_is_needed_and_leaves_nothing(self, tiny):
        (tiny / "r.yaml").write_text("hardware: {memory_gib: 1}", "utf-8")
        found = command(
            *("sft", "--model", tiny / "tiny", "--data", tiny / "d.jsonl", "--dry-run", "--json"),
            *("--out", tiny / "out", "--recipe", tiny / "r.yaml"),
        )
        assert found.exit_code == 0, found.stderr
        said = json.loads(found.stdout)
        assert said["memory"]["fits"] is True and said["memory"]["total"] > 0
        assert said["plan"]["steps"] == 1 and said["plan"]["mixture"][0]["taken"] == 8
        assert not (tiny / "out").exists()

    def test_a_chat_template_can_be_told_something(self, tiny):
        file = tiny / "tiny" / "tokenizer_config.json"
        config = json.loads(file.read_text("utf-8"))
        config["chat_template"] = "{{ greeting }}" + config["chat_template"]
        file.write_text(json.dumps(config), "utf-8")
        words = ["sft", "--model", tiny / "tiny", "--data", tiny / "d.jsonl", "--dry-run", "--json"]
        tokens = []
        for more in ([], ["--template-option", "greeting=Hello"]):
            found = command(*words, *more)
            assert found.exit_code == 0, found.stderr
            tokens.append(json.loads(found.stdout)["plan"]["tokens"])
        assert tokens[1] == tokens[0] + 8 * len("Hello")
        found = command(*words, "--template-option", "messages=x")
        assert found.exit_code == 2 and "template_options.messages" in found.stderr

    def test_training_text_that_is_in_evaluation_data_ends_the_run(self, tiny):
        (tiny / "e").mkdir()
        text = "one two three four five six seven eight nine"
        write_lines(tiny / "e" / "e.jsonl", [{"text": text}])
        line = {
            "messages": [
                {"role": "user", "content": text},
                {"role": "assistant", "content": "no"},
            ]
        }
        write_lines(tiny / "d.jsonl", [line])
        found = command(
            *("sft", "--model", tiny / "tiny", "--data", tiny / "d.jsonl"),
            *("--out", tiny / "out", "--check-against", tiny / "e", "--cpu"),
        )
        assert found.exit_code == 2
        assert "1 of 1 evaluation texts share 8 words in a row" in found.stderr

    def test_a_loss_that_is_no_number_has_an_exit_code_of_its_own(self, tiny):
        (tiny / "r.yaml").write_text(
            "sft: {learning_rate: 1.0e+30, clip: 1.0e+30, warmup: 0, rows: 1, accumulate: 1}\n",
            "utf-8",
        )
        found = command(
            *("sft", "--model", tiny / "tiny", "--data", tiny / "d.jsonl", "--cpu"),
            *("--out", tiny / "out", "--recipe", tiny / "r.yaml"),
        )
        assert found.exit_code == 3
        assert "training stops, and nothing is saved from here on" in found.stderr
        # A lower learning rate is another recipe, which --resume refuses.
        assert "give a changed recipe another --out, or --force" in found.stderr
        assert "--resume goes on" not in found.stderr
