"""Training runs on a tiny random model, for real: TRL, PEFT, checkpoints, signals."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from training_parts import conversation, pair, tiny_model, write_lines

from ringfence.errors import InputError
from ringfence.training.job import Job
from ringfence.training.metrics import DivergedError, read
from ringfence.training.recipe import Recipe

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
        reason="needs pip install 'ringfence[train]'",
    ),
]
SFT = {"rows": 2, "accumulate": 2, "save_every": 2, "learning_rate": 0.01, "steps": 8}
DPO = {"rows": 2, "accumulate": 1, "save_every": 2, "learning_rate": 0.001, "steps": 4}


def recipe(**more: Any) -> Recipe:
    settings: dict[str, Any] = {
        "adapter": {"rank": 4, "alpha": 8},
        "sequence": {"length": 256, "packing": "packed"},
        "sft": SFT,
        "dpo": DPO,
        "hardware": {"threads": 1},
    }
    return Recipe.model_validate(settings | more)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("training")
    tiny_model(folder / "tiny")
    write_lines(folder / "sft.jsonl", [conversation(number) for number in range(60)])
    write_lines(folder / "dpo.jsonl", [pair(number) for number in range(24)])
    return folder


def job(place: Path, out: Path, kind: Any = "sft", **more: Any) -> Job:
    settings: dict[str, Any] = {
        "kind": kind,
        "model": str(place / "tiny"),
        "data": (str(place / f"{kind}.jsonl"),),
        "out": out,
        "recipe": recipe(),
        "cpu": True,
    }
    return Job(**(settings | more))


def run(made: Job, say: Callable[[str], None] = lambda _: None, **how: bool) -> Any:
    from ringfence.training.running import train

    return train(made, say, **how)


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read(folder)]


@pytest.fixture(scope="module")
def whole(place: Path) -> Path:
    """A run that nothing disturbed; what it asked the hub for is in `asked`."""
    from peft.utils import save_and_load

    asked: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(save_and_load, "check_file_exists_on_hf_hub", lambda *at: asked.append(at))
        assert run(job(place, place / "whole")).manifest is not None
    (place / "asked").write_text(json.dumps(asked), "utf-8")
    return place / "whole"


def test_a_finished_run_asks_nobody_about_its_model(place, whole):
    assert json.loads((place / "asked").read_text("utf-8")) == []
    config = json.loads((whole / "adapter_config.json").read_text("utf-8"))
    assert config["base_model_name_or_path"] == "tiny"


def test_a_run_leaves_an_adapter_that_peft_loads_and_that_lowers_the_loss(place, whole):
    import peft
    import torch
    import transformers

    from ringfence.training.models import quiet

    assert losses(whole)[-1] < losses(whole)[0]
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "tiny")
    ids = torch.arange(40)[None]
    with torch.no_grad():
        before = model(ids).logits
        with quiet():
            adapted = peft.PeftModel.from_pretrained(model, whole)
        after = adapted(ids).logits
    assert (before - after).abs().max() > 1e-3
    assert not (whole / "checkpoints").exists() and not (whole / "tokens").exists()


def test_the_manifest_says_what_was_trained_on_and_names_no_place(place, whole):
    text = (whole / "manifest.json").read_text("utf-8")
    manifest = json.loads(text)
    assert str(place) not in text and str(place) not in (whole / "adapter_config.json").read_text()
    assert manifest["job"]["data"][0]["name"] == "sft"
    assert manifest["data"]["mixture"][0]["there"] == 60
    assert manifest["packing"]["isolated"] is True
    assert not manifest["data"]["proof"]["manifests"]
    assert manifest["environment"]["libraries"]["trl"]
    assert set(manifest["files"]) >= {
        "adapter_model.safetensors",
        "tokenizer.json",
        "chat_template.jinja",
        "loss.png",
        "metrics.jsonl",
        "README.md",
        "ringfence_host.json",
    }
    card = (whole / "README.md").read_text("utf-8")
    assert "LoRA adapter of rank 4" in card and "a source has no manifest" in card


def test_a_run_killed_after_a_checkpoint_resumes_with_the_losses_of_an_uncut_one(place, whole):
    program = (
        "import os, signal, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from test_training import job, run\n"
        "from ringfence.training.watching import Watch\n"
        "def end(self, args, state, control, logs=None, **_):\n"
        "    old(self, args, state, control, logs)\n"
        "    if state.global_step == 5: os.kill(os.getpid(), signal.SIGKILL)\n"
        "old, Watch.on_log = Watch.on_log, end\n"
        f"place = Path({str(place)!r})\n"
        "run(job(place, place / 'killed'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=900
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    out = place / "killed"
    assert [path.name for path in (out / "checkpoints").glob("check*")] != []
    assert len(read(out)) == 5  # one step beyond the checkpoint, which is done again
    with pytest.raises(InputError, match="--resume goes on with it"):
        run(job(place, out))
    other = job(place, out, recipe=recipe(seed=3))
    with pytest.raises(InputError, match="recipe.seed differ"):
        run(other, resume=True)
    outcome = run(job(place, out), resume=True)
    assert outcome.manifest["result"]["resumed_after"] == 4
    assert losses(out) == losses(whole)


def test_ctrl_c_saves_a_checkpoint_and_resuming_changes_nothing(place, whole):
    out = place / "stopped"

    def press(text: str) -> None:
        if text.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGINT)

    outcome = run(job(place, out), press)
    assert outcome.manifest is None and outcome.stopped_by == signal.SIGINT
    assert 0 < outcome.step < 8
    assert (out / "checkpoints" / f"checkpoint-{outcome.step}").is_dir()
    run(job(place, out), resume=True)
    assert losses(out) == losses(whole)


def test_a_loss_that_is_no_number_stops_the_run_and_is_never_saved(place):
    wild = recipe(sft=SFT | {"learning_rate": 1e30, "save_every": 1, "clip": 1e30, "warmup": 0})
    with pytest.raises(DivergedError, match=r"step \d+: (loss|grad_norm) is (nan|inf)"):
        run(job(place, place / "wild", recipe=wild))
    lines = read(place / "wild")
    assert all(math.isfinite(line["loss"]) for line in lines)
    saved = [path.name for path in (place / "wild" / "checkpoints").glob("checkpoint-*")]
    assert f"checkpoint-{len(lines) + 1}" not in saved


def test_rows_of_several_examples_have_the_losses_of_each_alone(place):
    import numpy as np
    import torch
    import transformers

    from ringfence.training.collation import Supervised

    model = transformers.AutoModelForCausalLM.from_pretrained(place / "tiny").eval()
    rng = np.random.default_rng(0)
    sequences = [
        {
            "ids": rng.integers(0, 250, size),
            "rings": np.full(size, 2),
            "mask": rng.random(size) < 0.6,
        }
        for size in (17, 5, 30)
    ]

    def logits(rows: list[Any], **how: bool) -> Any:
        batch = Supervised(pad=257, **how)(rows)
        batch.pop("labels")
        with torch.no_grad():
            return model(**batch, use_cache=False).logits

    alone = [logits([[sequence]])[0] for sequence in sequences]
    packed = logits([[sequences[0], sequences[1]], [sequences[2]]])
    assert torch.allclose(packed[0, :17], alone[0], atol=1e-5)
    assert torch.allclose(packed[0, 17:22], alone[1], atol=1e-5)
    assert torch.allclose(packed[1, :30], alone[2], atol=1e-5)
    flat = logits([[sequences[0]], [sequences[1], sequences[2]]], flat=True)
    assert torch.allclose(flat[0], torch.cat(alone), atol=1e-5)


def test_labels_never_cross_from_one_example_into_the_next():
    import numpy as np

    from ringfence.training.collation import IGNORED, NOBODY, Supervised

    sequence = {"ids": np.arange(4), "rings": np.array([0, 0, 3, 3]), "mask": np.ones(4, bool)}
    batch = Supervised(pad=9, rings=True)([[sequence, sequence], [sequence]])
    assert batch["labels"].tolist()[0] == [IGNORED, 1, 2, 3, IGNORED, 1, 2, 3]
    assert batch["labels"].tolist()[1] == [IGNORED, 1, 2, 3] + [IGNORED] * 4
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 2, 3], list(range(8))]
    assert batch["ring_ids"].tolist()[1] == [0, 0, 3, 3] + [NOBODY] * 4
    assert "ring_ids" not in Supervised(pad=9)([[sequence]])
    assert "attention_mask" not in batch


def test_a_ring_signal_is_trained_saved_and_gone_on_with_by_preferences(place):
    from safetensors.numpy import load_file

    out = place / "signal"
    grouped = {"length": 256, "packing": "grouped"}
    run(job(place, out, recipe=recipe(segments="blocks", sequence=grouped)))
    table = load_file(out / "ring_signal.safetensors")["table"]
    assert table.shape[0] == 2 and abs(table).max() > 0
    after = run(job(place, place / "signal-dpo", "dpo", adapter=out))
    first = read(place / "signal-dpo")[0]
    # The reference is the model before training, signal included: no margin before the first step.
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-5)
    assert after.manifest["result"]["ring_signal"]
    assert not (place / "signal-dpo" / "ref").exists()


def test_a_ring_signal_learns_with_a_rate_of_its_own(place, tmp_path):
    from safetensors.numpy import load_file

    moved = []
    for rate in (1.0, 10.0):
        out = tmp_path / f"rate-{rate:g}"
        run(job(place, out, recipe=recipe(segments="input", segments_rate=rate)))
        moved.append(abs(load_file(out / "ring_signal.safetensors")["table"]).max())
    # Adam's steps are as long as its rate, whatever the gradient.
    assert 5 < moved[1] / moved[0] < 20
    assert losses(tmp_path / "rate-1")[0] == losses(tmp_path / "rate-10")[0]


def test_rows_that_share_are_trained_on(place, tmp_path):
    lines = [conversation(number, id=f"case-{number // 5}/{number}") for number in range(60)]
    data = (str(write_lines(tmp_path / "sft.jsonl", lines)),)
    shared = recipe(sequence={"length": 256, "packing": "shared"}, sft=SFT | {"rows": 1})
    made = job(place, tmp_path / "out", data=data, recipe=shared)
    manifest = run(made).manifest
    assert manifest["packing"]["isolated"] is True
    assert manifest["packing"]["attention"] == "ringfence_shared"
    whole = losses(tmp_path / "out")
    assert whole[-1] < whole[0]
    mixed = manifest["data"]["mixture"][0]
    # Every line begins with the same system message.
    assert sum(line["batch_tokens"] for line in read(tmp_path / "out")) < 0.8 * mixed["tokens"]


def test_verdicts_count_as_much_as_the_recipe_says(place, tmp_path):
    judged = [
        {"messages": conversation(number)["messages"][:2], "reply": "no", "good": bool(number % 2)}
        for number in range(8)
    ]
    data = (str(write_lines(tmp_path / "judged.jsonl", judged)),)
    first = {}
    for packing in ("grouped", "shared"):
        for verdicts in (1, 3):
            settings = {
                "sequence": {"length": 512, "packing": packing},
                "sft": SFT | {"steps": 1},
                "verdicts": verdicts,
            }
            out = tmp_path / f"{packing}-{verdicts}"
            run(job(place, out, data=data, recipe=recipe(**settings)))
            first[packing, verdicts] = losses(out)[0]
    for packing in ("grouped", "shared"):
        assert first[packing, 3] == pytest.approx(3 * first[packing, 1], rel=1e-4)


def test_decisions_count_as_much_as_the_recipe_says(place, tmp_path):
    first = {}
    for name, places in (("none", []), ("first", [0])):
        lines = [conversation(number, decisions=places) for number in range(8)]
        data = (str(write_lines(tmp_path / f"{name}.jsonl", lines)),)
        for packing in ("grouped", "shared"):
            for weight in (1, 3):
                settings = {
                    "sequence": {"length": 512, "packing": packing},
                    "sft": SFT | {"steps": 1},
                    "decisions": weight,
                }
                out = tmp_path / f"{name}-{packing}-{weight}"
                run(job(place, out, data=data, recipe=recipe(**settings)))
                first[name, packing, weight] = losses(out)[0]
    for packing in ("grouped", "shared"):
        plain = first["none", packing, 1]
        assert first["none", packing, 3] == plain == first["first", packing, 1]
        assert first["first", packing, 3] > plain


def test_full_training_leaves_a_model_that_transformers_loads(place):
    import transformers

    outcome = run(job(place, place / "full", recipe=recipe(adapter=None)))
    assert outcome.manifest["job"]["recipe"]["adapter"] is None
    model, report = transformers.AutoModelForCausalLM.from_pretrained(
        place / "full", output_loading_info=True
    )
    assert not report["missing_keys"]
    assert losses(place / "full")[-1] < losses(place / "full")[0]


def test_the_arithmetic_of_memory_counts_the_weights_that_training_counts(place):
    import transformers

    from ringfence.training.memory import estimated, shape_of

    shape = shape_of(place / "tiny", recipe())
    model = transformers.AutoModelForCausalLM.from_pretrained(place / "tiny")
    assert shape.parameters == sum(each.numel() for each in model.parameters())
    memory = estimated(shape, recipe(), "sft")
    assert memory.weights == 4 * (shape.parameters + shape.adapter)
    assert memory.optimizer == 8 * shape.adapter and memory.gradients == 4 * shape.adapter


def test_the_arithmetic_of_memory_counts_what_computing_and_sending_hold_besides(place):
    pytest.importorskip("torch")
    from ringfence.training.memory import estimated, shape_of

    def besides(**hardware: Any) -> list[int]:
        asked = recipe(adapter=None, hardware=hardware)
        shape = shape_of(place / "tiny", asked)
        found = estimated(shape, asked, "sft")
        assert found.total == sum(
            getattr(found, name)
            for name in (
                *("weights", "gradients", "optimizer", "copies", "buckets"),
                *("gathered", "activations", "reference"),
            )
        )
        return [found.copies / shape.parameters, found.buckets / shape.parameters]

    assert besides() == [0, 0]
    assert besides(precision="bfloat16") == [2, 0]
    assert besides(precision="bfloat16", strategy="ddp", devices=2) == [2, 4]
    assert besides(precision="bfloat16", strategy="fsdp", devices=2) == [0, 0]


def test_the_arithmetic_of_memory_takes_the_rank_of_an_adapter_that_goes_on(place, whole):
    from ringfence.training.job import dry_run

    wide = recipe(adapter={"rank": 64})
    found = [
        dry_run(job(place, place / "dry", data=(), recipe=one, adapter=adapter), lambda _: None)
        for one, adapter in ((wide, whole), (recipe(), None), (wide, None))
    ]
    going_on, plain, wider = (each["memory"]["optimizer"] for each in found)
    assert going_on == plain < wider


def test_seventy_billion_weights_fit_as_the_recipe_says(tmp_path):
    import transformers

    from ringfence.training.memory import GIB, estimated, shape_of
    from ringfence.training.recipe import load

    config = transformers.LlamaConfig(
        vocab_size=128256,
        hidden_size=8192,
        intermediate_size=28672,
        num_hidden_layers=80,
        num_attention_heads=64,
        num_key_value_heads=8,
    )
    config.save_pretrained(tmp_path)
    recipe = load(Path(__file__).parent.parent / "recipes" / "70b-fsdp.yaml")
    memory = estimated(shape_of(tmp_path, recipe), recipe, "sft")
    assert memory.parameters == pytest.approx(70.6e9, rel=0.01)
    # 16 bytes a weight over 32 devices.
    held = memory.weights + memory.gradients + memory.optimizer
    assert held == pytest.approx(16 * memory.parameters / 32, rel=1e-6)
    assert memory.fits and 35 * GIB < memory.total < 72 * GIB


def test_preferences_of_all_weights_need_a_device_that_holds_the_reference_whole(tmp_path):
    import transformers

    from ringfence.training.memory import estimated, shape_of

    sizes = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 8}
    transformers.LlamaConfig(**sizes).save_pretrained(tmp_path)
    asked = recipe(
        adapter=None, hardware={"strategy": "fsdp", "devices": 64, "precision": "bfloat16"}
    )
    shape = shape_of(tmp_path, asked)
    assert estimated(shape, asked, "dpo").reference > 2 * shape.parameters
    assert estimated(shape, asked, "dpo").total > 4 * shape.parameters
    assert estimated(shape, asked, "sft").reference == 0


def test_attention_that_keeps_its_scores_is_counted(tmp_path):
    torch = pytest.importorskip("torch")
    import transformers

    from ringfence.training.memory import estimated, shape_of

    length, sizes = 512, {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2}
    transformers.LlamaConfig(
        **sizes, vocab_size=512, num_attention_heads=8, num_key_value_heads=2
    ).save_pretrained(tmp_path)

    def kept(attention: str) -> int:
        model = transformers.AutoModelForCausalLM.from_config(
            transformers.AutoConfig.from_pretrained(tmp_path),
            attn_implementation=attention,
            dtype=torch.bfloat16,
        )
        own = {one.untyped_storage().data_ptr() for one in model.parameters()}
        held: dict[int, Any] = {}

        def keep(tensor: Any) -> Any:
            if tensor.untyped_storage().data_ptr() not in own:
                held[tensor.untyped_storage().data_ptr()] = tensor
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            model.model(input_ids=torch.ones((1, length), dtype=torch.long), use_cache=False)
        return sum(one.untyped_storage().nbytes() for one in held.values())

    def counted(attention: str) -> int:
        asked = recipe(
            sequence={"length": length},
            sft={"rows": 1},
            hardware={"precision": "bfloat16", "attention": attention},
        )
        return estimated(shape_of(tmp_path, asked), asked, "sft").activations

    more = kept("eager") - kept("sdpa")
    assert more <= counted("eager") - counted("sdpa") <= 1.6 * more


def test_a_mixture_of_experts_learns_nothing_but_the_assistants_tokens(tmp_path):
    pytest.importorskip("trl")
    import transformers

    from ringfence.training.models import loaded, quiet
    from ringfence.training.trainers import arguments, trainer

    folder = tiny_model(
        tmp_path / "experts", "Qwen3Moe", num_experts=4, router_aux_loss_coef=0.9, head_dim=8
    )
    tokenizer, asked = transformers.AutoTokenizer.from_pretrained(folder), recipe(adapter=None)
    for kind in ("sft", "dpo"):
        model = loaded(folder, asked, adapter=None, ring_names=())
        with quiet():
            settings = arguments(asked, kind, tmp_path, 1, cpu=True)
            made = trainer(kind, model, settings, [[]], asked, tmp_path, tokenizer)
        assert not made.aux_loss_enabled


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp"])
def test_two_processes_have_the_losses_of_one(place, strategy):
    settings = {"length": 256, "packing": "none"}
    one = recipe(sequence=settings, sft=SFT | {"steps": 4})
    run(job(place, place / "one", recipe=one))
    two = one.model_dump(mode="json")
    two["sft"]["rows"] = 1
    two["hardware"]["strategy"] = strategy
    (place / "two.yaml").write_text(json.dumps(two), "utf-8")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", "--no-python", str(Path(sys.executable).with_name("ringfence"))]
    command += ["train", "sft", "--model", str(place / "tiny"), "--recipe", str(place / "two.yaml")]
    command += ["--data", str(place / "sft.jsonl"), "--out", str(place / "two"), "--cpu", "--json"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=1200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout)["steps"] == 4
    assert losses(place / "two") == pytest.approx(losses(place / "one"), rel=1e-4)
    manifest = json.loads((place / "two" / "manifest.json").read_text("utf-8"))
    assert manifest["environment"]["processes"] == 2
