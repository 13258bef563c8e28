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

EXPERTS = {"num_hidden_layers": 2, "num_experts_per_tok": 2}
MIXTURES: dict[str, dict[str, Any]] = {
    "Qwen3Moe": EXPERTS | {"num_experts": 4, "moe_intermediate_size": 32, "head_dim": 8},
    "Mixtral": EXPERTS | {"num_local_experts": 4},
    # Half of its layers of experts is a plain one besides, which PEFT takes for one of them.
    "Ernie4_5_Moe": EXPERTS | {"moe_num_experts": 4, "moe_k": 2, "moe_intermediate_size": 32},
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


def scaled_gguf(
    file: Path, architecture: str = "llama", keys: Any = None, tensor: str = "output_norm.weight"
) -> Path:
    """A file with what it says of positions, and no model."""
    gguf, np = pytest.importorskip("gguf"), pytest.importorskip("numpy")
    writer = gguf.GGUFWriter(file, architecture)
    for key, value in (keys or {}).items():
        add = writer.add_string if isinstance(value, str) else writer.add_float32
        add(f"{architecture}.rope.{key}", value)
    writer.add_tensor("token_embd.weight", np.ones((4, 8), np.float32))
    writer.add_tensor(tensor, np.full(8, 8, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


@pytest.mark.parametrize(
    ("architecture", "keys", "tensor"),
    [
        ("llama", {}, "rope_freqs.weight"),
        ("phi3", {}, "rope_factors_long.weight"),
        ("gemma3", {"scaling.type": "linear", "scaling.factor": 8.0}, "output_norm.weight"),
        ("qwen2", {"scaling.type": "yarn", "scaling.factor": 4.0}, "output_norm.weight"),
        ("llama", {"scale_linear": 2.0}, "output_norm.weight"),
    ],
)
def test_a_gguf_file_whose_scaled_positions_would_be_lost_is_refused(
    architecture, keys, tensor, tmp_path, monkeypatch
):
    transformers = pytest.importorskip("transformers")
    from ringfence.engines.weights import load_model
    from ringfence.training.models import model_folder

    # It would make a model of the architecture's usual size.
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", None)
    file = scaled_gguf(tmp_path / "model.gguf", architecture, keys, tensor)
    with pytest.raises(InputError, match=r"rope.*safetensors"):
        model_folder(str(file))
    with pytest.raises(InputError, match=r"rope.*safetensors"):
        load_model(file, "cpu", "float32")


@pytest.mark.parametrize(
    ("architecture", "keys"),
    [
        ("llama", {}),
        ("llama", {"scaling.type": "none", "scaling.factor": 4.0}),
        ("qwen2", {"scaling.type": "yarn", "scaling.factor": 1.0}),
        ("gpt-oss", {"scaling.type": "yarn", "scaling.factor": 32.0}),
    ],
)
def test_a_gguf_file_that_loses_nothing_goes_on(architecture, keys, tmp_path):
    from ringfence.engines.weights import refuse_lost_scaling
    from ringfence.gguf_metadata import read_metadata

    file = scaled_gguf(tmp_path / "model.gguf", architecture, keys)
    refuse_lost_scaling(file)
    found = read_metadata(file)
    assert {key: found[f"{architecture}.rope.{key}"] for key in keys} == keys


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

    def test_of_a_model_that_sees_training_all_weights_means_those_that_text_passes(self, tmp_path):
        import torch

        from ringfence.training.models import loaded

        model = loaded(
            tiny_model(tmp_path / "seeing", **SEEING),
            recipe(adapter=None),
            adapter=None,
            ring_names=(),
        )
        ids = torch.arange(20)[None]
        model(input_ids=ids, labels=ids).loss.backward()
        trained = {name for name, each in model.named_parameters() if each.requires_grad}
        reached = {name for name, each in model.named_parameters() if each.grad is not None}
        # Processes that train together wait for the gradient of whatever is trained.
        assert trained == reached
        assert {name for name, _ in model.named_parameters() if "language_model" in name} <= trained

    @pytest.mark.parametrize("kind", MIXTURES)
    def test_of_a_mixture_of_experts_the_linear_layers_get_adapters(self, tmp_path, kind):
        from ringfence.adapters.folder import read_adapter
        from ringfence.training.memory import shape_of

        model = tiny_model(tmp_path / kind, kind, **MIXTURES[kind])
        write_lines(tmp_path / "sft.jsonl", [conversation(number) for number in range(8)])
        said: list[str] = []
        asked = recipe(**SHORT)
        run(job(tmp_path, tmp_path / "out", model=str(model), recipe=asked), said.append)
        [told] = [line for line in said if "all-linear leaves out" in line]
        assert "mlp.experts" in told and "mlp.gate" in told and "q_proj" not in told
        adapter = read_adapter(tmp_path / "out")
        assert {each.rpartition(".")[2] for each in adapter.updates} == {
            *("q_proj", "k_proj", "v_proj", "o_proj")
        }
        held = sum(each.a.size + each.b.size for each in adapter.updates.values())
        assert shape_of(model, asked).adapter == held
        # PEFT finds the same modules again.
        going_on = job(tmp_path, tmp_path / "on", model=str(model), adapter=tmp_path / "out")
        assert run(going_on).manifest is not None

    def test_of_experts_that_see_all_the_same_layers_are_linear_ones_and_no_routers(self):
        import peft
        import torch
        import transformers

        from ringfence.training.models import lora
        from ringfence.training.recipe import Adapter

        config = transformers.Llama4TextConfig(
            vocab_size=259,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_local_experts=4,
        )
        with torch.device("meta"):
            model = transformers.AutoModelForCausalLM.from_config(config)
        targets = lora(peft, Adapter(), model).target_modules
        # A shared expert is a layer like any other; its router is one, too, but only chooses.
        assert {one for one in targets if "shared_expert.up_proj" in one}
        assert not {one for one in targets if "router" in one or "lm_head" in one}

    @pytest.mark.parametrize("shards", ["5GB", "20KB"])
    def test_all_weights_are_saved_in_the_precision_they_had(self, place, tmp_path, shards):
        import safetensors.torch
        import torch
        import transformers

        model = shutil.copytree(place / "tiny", tmp_path / "tiny")
        held = transformers.AutoModelForCausalLM.from_pretrained(model).to(torch.bfloat16)
        held.model.norm.to(torch.float32)
        (model / "model.safetensors").unlink()
        held.save_pretrained(model, max_shard_size=shards)
        asked = recipe(adapter=None, **SHORT)
        run(job(place, tmp_path / "out", model=str(model), recipe=asked))
        kinds = {
            name: tensor.dtype
            for file in (tmp_path / "out").glob("*.safetensors")
            for name, tensor in safetensors.torch.load_file(file).items()
        }
        assert {name for name in kinds if kinds[name] == torch.float32} == {"model.norm.weight"}
        assert set(kinds.values()) == {torch.float32, torch.bfloat16}
        config = json.loads((tmp_path / "out" / "config.json").read_text("utf-8"))
        assert config["dtype"] == "bfloat16"
        _, report = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / "out", output_loading_info=True
        )
        assert not report["missing_keys"]

    def test_a_result_of_several_files_says_how_large_they_are_in_their_precision(
        self, place, tmp_path
    ):
        import torch
        import transformers

        from ringfence.training.models import stored_as

        trained = transformers.AutoModelForCausalLM.from_pretrained(place / "tiny")
        trained.save_pretrained(tmp_path / "out", max_shard_size="20KB")
        trained.to(torch.bfloat16).save_pretrained(tmp_path / "model")
        stored_as(tmp_path / "out", tmp_path / "model")
        index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text("utf-8"))
        size = 2 * sum(each.numel() for each in trained.parameters())
        assert index["metadata"]["total_size"] == size and len(index["weight_map"]) > 1
        read = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
        for one, other in zip(trained.parameters(), read.parameters(), strict=True):
            assert other.dtype == torch.bfloat16 and torch.equal(one, other)

    @pytest.mark.parametrize("data", [True, False])
    def test_a_dry_run_downloads_no_weights(self, place, tmp_path, monkeypatch, data):
        from ringfence.training.job import dry_run

        model = shutil.copytree(place / "tiny", tmp_path / "tiny")
        (model / "model.safetensors").unlink()
        asked: list[Any] = []

        def download(_name: str, **options: Any) -> str:
            asked.extend(options["allow_patterns"])
            return str(model)

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        files = (str(place / "sft.jsonl"),) if data else ()
        made = job(place, tmp_path / "out", model="owner/name", data=files)
        found = dry_run(made, lambda _: None)
        assert found["memory"]["parameters"] and ("plan" in found) is data
        assert asked and not [each for each in asked if "safetensors" in each or each == "*"]
