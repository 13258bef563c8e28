"""What a run refuses, what it says then, and what it leaves as it was."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from test_training import SFT, job, recipe, run
from test_training_folder import contents
from training_parts import conversation, pair, tiny_model, write_lines

from ringfence.commandline.failures import told
from ringfence.errors import EngineError, InputError

needs_training = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
        reason="needs pip install 'ringfence[train]'",
    ),
]
SHORT = {"sft": SFT | {"steps": 1}, "sequence": {"length": 256}}
# What transformers says of a GPU that has no bfloat16.
NO_BFLOAT16 = "Your setup doesn't support bf16/gpu."
# A text model that is a part of one that sees.
SEEING = {
    "kind": "Gemma3",
    "text_config": {
        "vocab_size": 259,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
    },
    "vision_config": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    },
    "mm_tokens_per_image": 4,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("failures")
    tiny_model(folder / "tiny")
    write_lines(folder / "sft.jsonl", [conversation(number) for number in range(8)])
    write_lines(folder / "dpo.jsonl", [pair(number) for number in range(8)])
    return folder


@pytest.mark.parametrize(
    ("process", "error", "said"),
    [
        ({}, InputError("x"), "error: x\n"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, InputError("x"), "error: x\n"),
        ({"RANK": "3", "LOCAL_RANK": "3"}, InputError("x"), ""),
        # The first of another machine, whose folders may be others.
        ({"RANK": "8", "LOCAL_RANK": "0"}, InputError("x"), "process 8: error: x\n"),
        ({"RANK": "3", "LOCAL_RANK": "3"}, EngineError("x"), "process 3: error: x\n"),
        ({"RANK": "0", "LOCAL_RANK": "0"}, KeyboardInterrupt(), "interrupted\n"),
        ({"RANK": "3", "LOCAL_RANK": "3"}, KeyboardInterrupt(), ""),
    ],
)
def test_what_all_processes_find_wrong_is_told_by_the_first(
    process, error, said, monkeypatch, capsys
):
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in process.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(typer.Exit) as left, told():
        raise error
    assert left.value.exit_code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert capsys.readouterr().err == said


class TestWithTorch:
    pytestmark = needs_training

    def test_the_other_processes_say_nothing_of_a_stop_or_a_broken_loss(
        self, place, tmp_path, monkeypatch
    ):
        from typer.testing import CliRunner

        from ringfence.cli import app
        from ringfence.training import running
        from ringfence.training.metrics import DivergedError

        words = ["train", "sft", "--model", place / "tiny", "--data", place / "sft.jsonl"]
        words += ["--out", tmp_path / "out"]
        stopped = running.Outcome(manifest=None, step=1, steps=2, stopped_by=15)

        def diverged(*_: Any, **__: Any) -> None:
            raise DivergedError("no number")

        for train, code in ((lambda *_, **__: stopped, 143), (diverged, 3)):
            monkeypatch.setattr(running, "train", train)
            said = []
            for rank in ("0", "1"):
                monkeypatch.setenv("RANK", rank)
                found = CliRunner().invoke(app, list(map(str, words)))
                assert found.exit_code == code
                said.append(found.stderr)
            assert said[0] and not said[1]

    def test_processes_wait_for_hours_for_the_first_one(self, place, tmp_path, monkeypatch):
        import accelerate

        asked: dict[str, Any] = {}

        def state(**options: Any) -> Any:
            asked.update(options)
            raise InputError("enough")

        monkeypatch.setattr(accelerate, "PartialState", state)
        with pytest.raises(InputError, match="enough"):
            run(job(place, tmp_path / "out"))
        assert asked["timeout"] >= timedelta(hours=1)

    def test_accelerate_knows_that_weights_lie_on_the_host(self, place, tmp_path):
        from ringfence.training.processes import fsdp_environment

        for offload in (True, False):
            hardware = {"strategy": "fsdp", "offload": offload}
            with fsdp_environment(job(place, tmp_path, recipe=recipe(hardware=hardware))):
                # As accelerate asks when it chooses how processes talk to each other.
                told = os.environ.get("FSDP_OFFLOAD_PARAMS", "false") == "true"
                assert told is offload and os.environ["ACCELERATE_USE_FSDP"] == "true"
        assert "FSDP_OFFLOAD_PARAMS" not in os.environ

    @pytest.mark.parametrize(
        ("targets", "words"),
        [
            (["q_proj", "lm_head"], "recipe: adapter.targets: lm_head is the output layer"),
            (
                ["embed_tokens", "q_proj"],
                "recipe: adapter.targets: model.embed_tokens is no linear",
            ),
            (["q_prj"], "recipe: adapter.targets: .*q_prj"),
        ],
    )
    def test_modules_that_cannot_have_an_adapter_are_refused_and_the_run_before_stays(
        self, place, tmp_path, targets, words
    ):
        out = tmp_path / "out"
        run(job(place, out, recipe=recipe(**SHORT)))
        before = contents(out)
        wrong = recipe(adapter={"rank": 4, "targets": targets}, **SHORT)
        with pytest.raises(InputError, match=words):
            run(job(place, out, recipe=wrong), force=True)
        now = contents(out)
        assert {name: now.get(name) for name in before} == before

    def test_what_trl_refuses_is_an_error_that_names_the_field_and_the_run_before_stays(
        self, place, tmp_path, monkeypatch
    ):
        from ringfence.training import trainers

        def refuse(**_: Any) -> None:
            raise ValueError(NO_BFLOAT16)

        out = tmp_path / "out"
        run(job(place, out, recipe=recipe(**SHORT)))
        before = contents(out)
        monkeypatch.setattr(trainers._trl, "SFTConfig", refuse)
        with pytest.raises(InputError, match="hardware.precision: .*bf16/gpu.*Use float32"):
            run(job(place, out, recipe=recipe(**SHORT)), force=True)
        now = contents(out)
        assert {name: now.get(name) for name in before} == before

    def test_a_device_without_room_is_an_error_with_the_way_out(self, place, tmp_path, monkeypatch):
        import torch

        from ringfence.training import trainers

        def full(self: Any, *_: Any, **__: Any) -> None:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

        monkeypatch.setattr(trainers.SupervisedTrainer, "training_step", full)
        with pytest.raises(EngineError, match="2 GiB.*Lower sft.rows.*checkpointing.*--resume"):
            run(job(place, tmp_path / "out", recipe=recipe(**SHORT)))

    def test_the_saved_tokenizer_is_the_models_own(self, place, tmp_path):
        model = shutil.copytree(place / "tiny", tmp_path / "tiny")
        file = model / "tokenizer_config.json"
        config = json.loads(file.read_text("utf-8"))
        del config["pad_token"]
        file.write_text(json.dumps(config), "utf-8")
        for name, asked in (("lora", recipe(**SHORT)), ("full", recipe(adapter=None, **SHORT))):
            run(job(place, tmp_path / name, model=str(model), recipe=asked))
            saved = json.loads((tmp_path / name / "tokenizer_config.json").read_text("utf-8"))
            assert saved.get("pad_token") is None

    def test_of_a_model_that_sees_the_text_model_is_trained(self, tmp_path):
        from ringfence.adapters.converting import convert
        from ringfence.adapters.folder import read_adapter
        from ringfence.training.memory import shape_of

        model = tiny_model(tmp_path / "seeing", **SEEING)
        write_lines(tmp_path / "sft.jsonl", [conversation(number) for number in range(8)])
        for name, targets in (("all", "all-linear"), ("some", ["q_proj", "v_proj"])):
            asked = recipe(adapter={"rank": 4, "targets": targets}, **SHORT)
            run(job(tmp_path, tmp_path / name, model=str(model), recipe=asked))
            adapter = read_adapter(tmp_path / name)
            assert all(each.startswith("model.language_model.") for each in adapter.updates)
            assert len(adapter.updates) == 2 * (7 if targets == "all-linear" else 2)
            held = sum(each.a.size + each.b.size for each in adapter.updates.values())
            assert shape_of(model, asked).adapter == held
        # Going on finds the same modules.
        going_on = job(tmp_path, tmp_path / "on", model=str(model), adapter=tmp_path / "all")
        assert run(going_on).manifest is not None
        assert adapter.host is not None
        assert convert(adapter, adapter.host, tmp_path / "x.gguf").updates == 4
