"""The folder of a run: whose it is, when it is finished, what --force and --adapter make of it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_training import SFT, job, losses, recipe, run
from training_parts import conversation, pair, tiny_model, write_lines

from ringfence.errors import InputError, RingfenceError

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
        reason="needs pip install 'ringfence[train]'",
    ),
]
SHORT = {"sft": SFT | {"steps": 2, "save_every": 1}, "sequence": {"length": 256}}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder")
    tiny_model(folder / "tiny")
    write_lines(folder / "sft.jsonl", [conversation(number) for number in range(12)])
    write_lines(folder / "dpo.jsonl", [pair(number) for number in range(8)])
    return folder


@pytest.fixture(scope="module")
def signalled(place: Path) -> Path:
    """An adapter with a ring signal."""
    run(job(place, place / "signalled", recipe=recipe(segments="blocks", **SHORT)))
    return place / "signalled"


@pytest.fixture(scope="module")
def plain(place: Path) -> Path:
    """A finished run without a signal."""
    run(job(place, place / "plain", recipe=recipe(**SHORT)))
    return place / "plain"


def contents(folder: Path) -> dict[str, bytes]:
    found = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found if path.is_file()}


def test_a_finished_run_says_so_when_resumed_and_trains_nothing(place, plain):
    before = contents(plain)
    # A kill between the manifest and the end leaves some of what is tidied away.
    (plain / "checkpoints" / "checkpoint-1").mkdir(parents=True)
    (plain / "tokens").mkdir()
    said: list[str] = []
    outcome = run(job(place, plain, recipe=recipe(**SHORT)), said.append, resume=True)
    assert said == [f"{plain}: is finished"]
    assert outcome.manifest == json.loads(before["manifest.json"])
    assert (outcome.step, outcome.steps, outcome.stopped_by) == (2, 2, 0)
    assert contents(plain) == before
    assert not (plain / "checkpoints").exists() and not (plain / "tokens").exists()
    with pytest.raises(InputError, match="recipe.seed differ"):
        run(job(place, plain, recipe=recipe(seed=3, **SHORT)), resume=True)
    assert contents(plain) == before


@pytest.mark.parametrize("how", [{}, {"force": True}, {"resume": True}])
@pytest.mark.parametrize("stranger", [None, "{}"])
def test_a_folder_of_somebody_else_is_left_alone(place, tmp_path, how, stranger):
    out = tmp_path / "project"
    (out / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    (out / "checkpoints" / "checkpoint-3" / "mine.pt").write_text("mine")
    (out / "README.md").write_text("mine")
    if stranger is not None:
        (out / "job.json").write_text(stranger)
    before = contents(out)
    with pytest.raises(InputError, match="not made by ringfence train.*another --out"):
        run(job(place, out, recipe=recipe(**SHORT)), **how)
    assert contents(out) == before


def test_what_is_there_stays_until_what_replaces_it_can_be_read(place, plain, tmp_path):
    before = contents(plain)
    torn = write_lines(tmp_path / "torn.jsonl", [conversation(0), {"messages": 5}])
    for more in ({"data": ("nowhere.jsonl",)}, {"data": (str(torn),)}, {"model": "nowhere"}):
        with pytest.raises(RingfenceError, match=r"nowhere|line 2"):
            run(job(place, plain, recipe=recipe(**SHORT), **more), force=True)
        now = contents(plain)
        assert {name: now.get(name) for name in before} == before


def test_a_run_that_made_no_step_is_in_nobodys_way(place, tmp_path):
    wrong = {"name": "none", "weight": 1, "data": ["other"]}
    with pytest.raises(InputError, match="no example of the data is in this part"):
        run(job(place, tmp_path / "out", recipe=recipe(mixture=[wrong], **SHORT)))
    assert run(job(place, tmp_path / "out", recipe=recipe(**SHORT))).manifest is not None


def test_force_leaves_nothing_of_the_result_before(place, tmp_path):
    out = tmp_path / "out"
    run(job(place, out, recipe=recipe(segments="blocks", **SHORT)))
    assert (out / "ring_signal.json").is_file()
    (out / "rings.gguf").write_text("made of it by hand")
    made = run(job(place, out, recipe=recipe(**SHORT)), force=True)
    assert not list(out.glob("ring_signal.*")) and not made.manifest["result"]["ring_signal"]
    assert (out / "adapter_config.json").is_file() and (out / "rings.gguf").is_file()
    run(job(place, out, recipe=recipe(adapter=None, **SHORT)), force=True)
    assert (out / "model.safetensors").is_file()
    assert not list(out.glob("adapter_*")) and not (out / "ringfence_host.json").exists()


def test_an_adapter_of_another_model_is_refused_before_anything_is_rendered(place, plain, tmp_path):
    wide = tiny_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(InputError, match="is for another model: hidden is 32 there and 64 here"):
        run(job(place, tmp_path / "out", model=str(wide), adapter=plain))
    assert not (tmp_path / "out" / "tokens").exists()
    with pytest.raises(InputError, match="is no adapter folder"):
        run(job(place, tmp_path / "out", adapter=tmp_path))
    with pytest.raises(InputError, match="--adapter goes on with an adapter, and --full"):
        run(job(place, tmp_path / "out", adapter=plain, recipe=recipe(adapter=None)))


def test_an_adapter_that_does_not_say_its_model_is_held_against_this_one(place, plain, tmp_path):
    from safetensors.numpy import load_file, save_file

    nameless = tmp_path / "nameless"
    nameless.mkdir()
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (nameless / name).write_bytes((plain / name).read_bytes())
    wide = tiny_model(tmp_path / "wide", hidden_size=64)
    with pytest.raises(InputError, match="nameless.* cannot be gone on with"):
        run(job(place, tmp_path / "one", model=str(wide), adapter=nameless))
    tensors = load_file(nameless / "adapter_model.safetensors")
    moved = {name.replace("layers.1.", "layers.7."): values for name, values in tensors.items()}
    save_file(moved, nameless / "adapter_model.safetensors")
    with pytest.raises(InputError, match=r"nameless.* is for another model: .*layers\.[17]\."):
        run(job(place, tmp_path / "two", adapter=nameless))


def test_the_card_says_what_was_trained_and_not_what_the_recipe_asks_for(
    place, signalled, tmp_path
):
    said: list[str] = []
    asked = recipe(adapter={"rank": 9, "alpha": 5}, dpo={"rows": 2, "accumulate": 1, "steps": 1})
    made = job(place, tmp_path / "dpo", "dpo", adapter=signalled, recipe=asked)
    result = run(made, said.append).manifest["result"]
    card = (tmp_path / "dpo" / "README.md").read_text("utf-8")
    assert "rank 4, alpha 8" in card and "| rings | blocks" in card
    assert result["adapter"]["rank"] == 4 and result["adapter"]["alpha"] == 8
    assert result["ring_signal"]["kind"] == "blocks"
    assert result["ring_signal"]["names"] == ["system", "developer", "user", "assistant", "tool"]
    assert any("rank 4, alpha 8" in line and "recipe" in line for line in said)


def test_a_signal_of_an_adapter_is_not_sharded_either(place, signalled, tmp_path):
    sharded = recipe(hardware={"strategy": "fsdp"}, dpo={"rows": 2, "accumulate": 1, "steps": 1})
    with pytest.raises(InputError, match="a ring signal cannot be sharded"):
        run(job(place, tmp_path / "out", "dpo", adapter=signalled, recipe=sharded))


def test_a_saved_signal_is_trained_on_the_rings_of_its_names(place, signalled, tmp_path):
    lines = [conversation(number, policy="tiers(3)") for number in range(4)]
    data = (str(write_lines(tmp_path / "tiers.jsonl", lines)),)
    with pytest.raises(InputError, match="line 1: .*knows no ring 'tier 0'"):
        run(job(place, tmp_path / "out", data=data, adapter=signalled, recipe=recipe(**SHORT)))


def test_several_devices_and_one_process_are_refused_before_the_model_is_loaded(
    place, tmp_path, monkeypatch
):
    import torch

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="2 GPUs are visible to one process.*torchrun"):
        run(job(place, tmp_path / "out", cpu=False, recipe=recipe(**SHORT)))
    assert not (tmp_path / "out").exists()


def test_a_constant_learning_rate_warms_up(tmp_path):
    from ringfence.training.models import quiet
    from ringfence.training.trainers import arguments

    asked: dict[str, Any] = {"decay": "constant", "warmup": 0.5}
    with quiet():
        made = arguments(recipe(sft=SFT | asked), "sft", tmp_path, 8, cpu=True)
    assert made.lr_scheduler_type == "constant_with_warmup" and made.warmup_steps == 4


def test_a_model_that_cannot_be_described_is_refused_before_it_is_trained(place, tmp_path):
    model = shutil.copytree(place / "tiny", tmp_path / "tiny")
    config = json.loads((model / "config.json").read_text("utf-8"))
    del config["hidden_size"]
    (model / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match="names no model_type, num_hidden_layers or hidden_size"):
        run(job(place, tmp_path / "out", model=str(model), recipe=recipe(**SHORT)))
    assert not (tmp_path / "out" / "tokens").exists()


def test_another_number_of_processes_does_not_go_on(place, tmp_path):
    def press(text: str) -> None:
        if text.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGINT)

    cut = job(place, tmp_path / "cut")
    run(cut, press)
    described = json.loads((cut.out / "job.json").read_text("utf-8"))
    (cut.out / "job.json").write_text(json.dumps(described | {"processes": 2}), "utf-8")
    with pytest.raises(InputError, match="processes differ"):
        run(cut, resume=True)


def test_a_run_goes_on_only_with_the_same_template_tokenizer_and_adapter(place, plain, tmp_path):
    model = shutil.copytree(place / "tiny", tmp_path / "tiny")
    adapter = shutil.copytree(plain, tmp_path / "adapter")

    def press(text: str) -> None:
        if text.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGINT)

    cut = job(place, tmp_path / "cut", model=str(model), adapter=adapter, recipe=recipe(**SHORT))
    run(cut, press)
    changes = [
        (model / "chat_template.jinja", "model.template", lambda text: text + "{# another #}"),
        (model / "tokenizer.json", "model.tokenizer", lambda text: text + "\n"),
        (adapter / "adapter_config.json", "adapter.settings", alpha_of_9),
    ]
    shutil.copy(plain / "chat_template.jinja", model / "chat_template.jinja")
    for file, named, changed in changes:
        before = file.read_text("utf-8")
        file.write_text(changed(before), "utf-8")
        with pytest.raises(InputError, match=f"another run: {named} differ"):
            run(cut, resume=True)
        file.write_text(before, "utf-8")
    with pytest.raises(InputError, match="template_options differ"):
        run(replace(cut, template_options={"enable_thinking": False}), resume=True)
    assert run(cut, resume=True).manifest is not None


def alpha_of_9(config: str) -> str:
    return json.dumps(json.loads(config) | {"lora_alpha": 9})


def test_a_run_of_a_version_that_said_less_of_its_model_is_still_this_one(place, tmp_path):
    def press(text: str) -> None:
        if text.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGINT)

    def forget(file: Path) -> None:
        found = json.loads(file.read_text("utf-8"))
        said = found.get("job", found)
        said["model"] = {name: said["model"][name] for name in ("name", "weights")}
        file.write_text(json.dumps(found), "utf-8")

    made = job(place, tmp_path / "out", recipe=recipe(**SHORT))
    run(made, press)
    forget(made.out / "job.json")
    assert run(made, resume=True).manifest is not None
    for file in ("job.json", "manifest.json"):
        forget(made.out / file)
    before, said = contents(made.out), []
    run(made, said.append, resume=True)
    assert said == [f"{made.out}: is finished"] and contents(made.out) == before


def test_folders_of_a_tokenizer_are_replaced_as_files_are(tmp_path):
    from ringfence.training.run_folder import filled

    for number in range(2):
        partial = tmp_path / "partial"
        (partial / "additional_chat_templates").mkdir(parents=True)
        (partial / "additional_chat_templates" / f"{number}.jinja").write_text("x", "utf-8")
        filled(tmp_path, partial)
    assert set(contents(tmp_path)) == {"additional_chat_templates/1.jinja"}


def stopped_and_resumed(place: Path, folder: Path, kind: str, **more: Any) -> None:
    """Stop a run after its first step, go on, and compare with one that nothing disturbed."""

    def press(text: str) -> None:
        if text.startswith("step 1 "):
            os.kill(os.getpid(), signal.SIGINT)

    whole, cut = (job(place, folder / name, kind, **more) for name in ("whole", "cut"))
    run(whole)
    outcome = run(cut, press)
    assert outcome.manifest is None and 0 < outcome.step < outcome.steps
    assert run(cut, resume=True).manifest["result"]["resumed_after"] == outcome.step
    assert losses(cut.out) == losses(whole.out) and len(losses(cut.out)) == outcome.steps


def test_rows_that_share_resume_with_the_losses_of_an_uncut_run(place, tmp_path):
    lines = [conversation(number, id=f"case-{number // 5}/{number}") for number in range(60)]
    data = (str(write_lines(tmp_path / "sft.jsonl", lines)),)
    shared = recipe(sequence={"length": 256, "packing": "shared"}, sft=SFT | {"rows": 1})
    stopped_and_resumed(place, tmp_path, "sft", data=data, recipe=shared)


def test_preferences_with_a_ring_signal_resume_with_the_losses_of_an_uncut_run(
    place, signalled, tmp_path
):
    stopped_and_resumed(place, tmp_path, "dpo", adapter=signalled)
