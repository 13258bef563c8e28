"""Whether examples of one row see each other: measured wherever they might, and said where not."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from test_training import SFT, job, recipe, run
from training_parts import conversation, tiny_model, write_lines

from ringfence.errors import InputError
from ringfence.training.recipe import Recipe

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
        reason="needs pip install 'ringfence[train]'",
    ),
]
ONE_STEP = {"sft": SFT | {"steps": 1}}
# Its convolutions reach over the bounds of examples, whatever the positions.
LEAKING = {"kind": "Lfm2", "layer_types": ["conv", "full_attention"], "initializer_range": 0.3}
# Of 16 bits and other shapes it makes twice the spread of its logits: other experts are chosen.
EXPERTS = {
    "kind": "Qwen3Moe",
    "num_hidden_layers": 12,
    "initializer_range": 0.5,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 32,
    "head_dim": 16,
}
# Its windows come as masks alone.
CHUNKED = {
    "kind": "Llama4Text",
    "attention_chunk_size": 16,
    "num_local_experts": 2,
    "layer_types": ["chunked_attention", "full_attention"],
    "no_rope_layers": [1, 0],
    "intermediate_size_mlp": 64,
    "head_dim": 8,
    "initializer_range": 0.3,
}
# transformers makes its masks without positions.
OSS = {
    "kind": "GptOss",
    "layer_types": ["sliding_attention", "full_attention"],
    "sliding_window": 16,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "head_dim": 8,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isolation")
    # So deep and so wild that 16 bits round by a quarter of what the logits differ.
    tiny_model(folder / "deep", num_hidden_layers=24, initializer_range=0.5)
    tiny_model(folder / "leaking", **LEAKING)
    # In 16 bits it leaks less than other shapes make rounding.
    tiny_model(folder / "faint", **LEAKING | {"initializer_range": 0.02})
    tiny_model(folder / "experts", **EXPERTS)
    tiny_model(folder / "chunked", **CHUNKED)
    tiny_model(folder / "oss", **OSS)
    write_lines(folder / "sft.jsonl", [conversation(number) for number in range(24)])
    return folder


def opened(folder: Path, *, bfloat16: bool = False, attention: str = "sdpa") -> Any:
    import torch
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.bfloat16 if bfloat16 else torch.float32,
        attn_implementation=attention,
    )


def random_row(rng: Any, *, common: int = 0) -> list[dict[str, Any]]:
    import numpy as np

    trunk = rng.integers(0, 250, common)
    made = [np.concatenate([trunk, rng.integers(0, 250, size)]) for size in rng.integers(20, 99, 2)]
    return [{"ids": ids, "rings": np.zeros(len(ids)), "mask": np.ones(len(ids))} for ids in made]


@pytest.mark.parametrize("model", ["deep", "experts"])
def test_rounding_of_16_bits_is_taken_for_no_leak(place, model):
    import numpy as np

    from ringfence.training.collation import Supervised
    from ringfence.training.isolation import measured

    made, rng = opened(place / model, bfloat16=True), np.random.default_rng(0)
    # On the machine of this test's writer the largest difference was 0.
    for _ in range(10):
        packing = measured(made, [random_row(rng)], Supervised(pad=0), bfloat16=True)
        assert packing["isolated"] is True


class Kernels:
    """A model whose logits depend on the other example, as little as it is told."""

    training = False

    def __init__(self, *, before: float, behind: float) -> None:
        from types import SimpleNamespace

        import torch

        self.device, self.config = torch.device("cpu"), SimpleNamespace(_attn_implementation="x")
        self.by = before, behind

    def eval(self) -> None:
        pass

    def train(self, mode: bool) -> None:
        pass

    def __call__(self, input_ids: Any, position_ids: Any, use_cache: bool) -> Any:
        from types import SimpleNamespace

        import torch

        ids = input_ids[0]
        start = int((position_ids[0] == 0).nonzero()[1])
        logits = torch.nn.functional.one_hot(ids, 2).float() * 2
        before, behind = self.by
        # Whatever it is that differs: swapping changes the first token.
        logits[:start] += before * ids[start]
        logits[start:] += behind * ids[0]
        return SimpleNamespace(logits=logits[None])


def test_what_kernels_make_of_other_shapes_is_told_from_a_leak_by_the_example_before():
    import numpy as np

    from ringfence.training.collation import Supervised
    from ringfence.training.isolation import measured

    one, other = np.array([0, 1] * 20), np.array([1, 0] * 20)
    row = [{"ids": ids, "rings": ids * 0, "mask": ids * 0 + 1} for ids in (one, other)]

    def of(before: float, behind: float) -> Any:
        model = Kernels(before=before, behind=behind)
        return measured(model, [row], Supervised(pad=0), bfloat16=True)["isolated"]

    assert of(0.1, 0.1) and of(0.1, 0.2) and of(0.0, 0.0005)
    for leak in ((0.0, 0.1), (0.1, 0.6), (2.0, 2.0), (2.0, 0.0)):
        with pytest.raises(InputError, match="see each other"):
            of(*leak)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("model", ["leaking", "faint"])
def test_a_model_whose_examples_see_each_other_is_refused(place, tmp_path, model, precision):
    asked = recipe(hardware={"precision": precision, "threads": 1}, **ONE_STEP)
    leaking = job(place, tmp_path / "out", model=str(place / model), recipe=asked)
    with pytest.raises(InputError, match="see each other .*Use packing: grouped"):
        run(leaking)


def test_a_model_whose_examples_would_see_each_other_trains_on_them_one_a_row(place, tmp_path):
    grouped = recipe(sequence={"length": 256, "packing": "grouped"}, **ONE_STEP)
    made = run(job(place, tmp_path / "g", model=str(place / "leaking"), recipe=grouped))
    assert made.manifest["packing"] == {"isolated": True, "says": "one example a row"}


def test_a_group_of_processes_measures_too_and_tells_what_is_wrong_once(place, tmp_path):
    (tmp_path / "r.yaml").write_text(
        "adapter: {rank: 4}\nsequence: {length: 256, packing: packed}\n"
        "sft: {rows: 1, accumulate: 1, steps: 1}\nhardware: {threads: 1}\n",
        "utf-8",
    )
    (tmp_path / "run.py").write_text("from ringfence.cli import main\nmain()\n", "utf-8")
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    words = [
        *("train", "sft", "--cpu", "--model", place / "leaking", "--data", place / "sft.jsonl"),
        *("--recipe", tmp_path / "r.yaml", "--out", tmp_path / "out"),
    ]
    done = subprocess.run(
        [*launch, tmp_path / "run.py", *words],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode != 0
    told = [line for line in done.stderr.splitlines() if "error: sequence.packing" in line]
    assert len(told) == 1 and "see each other" in told[0], done.stderr


class Trainer:
    """Of what is asked of it before training, as much as there is without a GPU."""

    def __init__(self, folder: Path, *, sharded: bool = False) -> None:
        import transformers

        self.model = transformers.AutoModelForCausalLM.from_pretrained(folder)
        self.is_fsdp_enabled = sharded


def rows_of(place: Path, packing: str, folder: Path) -> Any:
    from training_parts import card

    from ringfence.training.collation import Rows
    from ringfence.training.plan import encoded, planned
    from ringfence.training.sources import open_sources

    sources = open_sources([str(place / "sft.jsonl")], "sft")
    settings = recipe(sequence={"length": 256, "packing": packing})
    store = encoded(
        sources, settings, "sft", card(), folder, key="k", overlap=None, told=lambda _: None
    )
    return Rows(store, planned(store, settings, "sft", 1).rows)


def flat(rows: int) -> Recipe:
    """Rows of one example, which flash attention gets end to end."""
    return recipe(
        sequence={"length": 256, "packing": "grouped"},
        hardware={"attention": "flash_attention_2", "precision": "bfloat16"},
        sft=SFT | {"rows": rows},
    )


def test_rows_that_are_laid_end_to_end_are_measured_whatever_the_packing(place, tmp_path):
    from ringfence.training.isolation import of_run

    rows, trainer = rows_of(place, "grouped", tmp_path / "t"), Trainer(place / "leaking")
    with pytest.raises(InputError, match="see each other .*Use attention: sdpa"):
        of_run(job(place, tmp_path, recipe=flat(2)), trainer, rows, print)
    alone = {"isolated": True, "says": "one example a row"}
    assert of_run(job(place, tmp_path, recipe=flat(1)), trainer, rows, print) == alone
    assert of_run(job(place, tmp_path, "dpo", recipe=flat(2)), trainer, rows, print) == alone


def sharded(place: Path, model: str) -> Trainer:
    """Its weights are elsewhere: whoever computes with it fails."""
    made = Trainer(place / model, sharded=True)
    made.model = made.model.to("meta")
    return made


def test_of_what_is_sharded_a_small_copy_is_measured(place, tmp_path):
    import torch

    from ringfence.training.isolation import of_run

    said: list[str] = []
    rows, asked = rows_of(place, "packed", tmp_path / "t"), job(place, tmp_path)
    for model in ("oss", "leaking", "faint"):
        with pytest.raises(InputError, match="see each other .*Use packing: grouped"):
            of_run(asked, sharded(place, model), rows, said.append)
    before = torch.get_rng_state()
    found = [of_run(asked, sharded(place, "deep"), rows, said.append) for _ in range(2)]
    # Every process finds the same, and goes on as if nothing had been measured.
    assert found[0] == found[1] and torch.equal(before, torch.get_rng_state())
    assert found[0]["isolated"] is True and "of a small copy" in found[0]["says"]
    assert not said


def test_what_is_sharded_and_cannot_be_copied_is_not_measured_and_that_is_said(
    place, tmp_path, monkeypatch
):
    from ringfence.training import isolation

    def fails(config: Any) -> Any:
        raise ValueError("is of no kind that is known")

    monkeypatch.setattr(isolation, "_small", fails)
    said: list[str] = []
    rows = rows_of(place, "packed", tmp_path / "t")
    found = isolation.of_run(job(place, tmp_path), sharded(place, "deep"), rows, said.append)
    assert found["isolated"] is None and "was not measured" in found["says"]
    assert said and found["says"] in said[0]


def test_a_small_copy_has_a_block_of_every_kind():
    import transformers

    from ringfence.training.isolation import _small

    kinds = ["conv", "conv", "full_attention", "conv"] * 4
    made = _small(transformers.Lfm2Config(layer_types=kinds, num_hidden_layers=16))
    assert made.layer_types == kinds[:3] and made.num_hidden_layers == 3
    large = transformers.Gemma3Config()  # it also sees
    small = _small(large).get_text_config()
    assert small.vocab_size < 1000 < large.get_text_config().vocab_size
    assert {*small.layer_types} == {"sliding_attention", "full_attention"}
    assert small.hidden_size == large.get_text_config().hidden_size


@pytest.mark.parametrize("bfloat16", [False, True])
def test_shared_rows_refuse_windows_that_come_as_masks_alone(place, bfloat16):
    import numpy as np

    from ringfence.training.collation import Supervised
    from ringfence.training.isolation import measured
    from ringfence.training.shared_attention import NAME

    row = random_row(np.random.default_rng(0), common=40)
    model = opened(place / "chunked", attention=NAME, bfloat16=bfloat16)
    with pytest.raises(InputError, match="sees 16 tokens at a time.*Use packing: grouped"):
        measured(model, [row], Supervised(pad=0, shared=True), bfloat16=bfloat16)
    whole = opened(place / "chunked", bfloat16=bfloat16)
    assert measured(whole, [row], Supervised(pad=0), bfloat16=bfloat16)["isolated"]


def test_shared_rows_are_compared_with_each_example_under_an_attention_of_transformers(
    place, monkeypatch
):
    import numpy as np
    from transformers import AttentionMaskInterface

    from ringfence.training.collation import Supervised
    from ringfence.training.isolation import measured
    from ringfence.training.shared_attention import NAME

    row, shared = random_row(np.random.default_rng(0), common=40), Supervised(pad=0, shared=True)
    deep = opened(place / "deep", attention=NAME)
    assert measured(deep, [row], shared)["attention"] == deep.config._attn_implementation == NAME
    # Nobody asks for a mask: what the window does is seen by its outcome alone.
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, NAME)
    with pytest.raises(InputError, match="something else of examples .*Use packing: grouped"):
        measured(opened(place / "chunked", attention=NAME), [row], shared)


def test_in_16_bits_shared_rows_are_compared_in_a_small_copy(place, tmp_path, monkeypatch):
    from transformers import AttentionMaskInterface

    from ringfence.training.isolation import of_run
    from ringfence.training.shared_attention import NAME

    asked = recipe(
        sequence={"length": 256, "packing": "shared"},
        hardware={"precision": "bfloat16", "threads": 1},
    )
    rows, trainer = rows_of(place, "shared", tmp_path / "t"), Trainer(place / "deep")
    trainer.model = opened(place / "deep", attention=NAME, bfloat16=True)
    found = of_run(job(place, tmp_path, recipe=asked), trainer, rows, print)
    assert found["isolated"] is True and found["copy"] < 1e-3
    monkeypatch.delitem(AttentionMaskInterface._global_mapping, NAME)
    trainer.model = opened(place / "chunked", attention=NAME, bfloat16=True)
    with pytest.raises(InputError, match="something else of examples .*Use packing: grouped"):
        of_run(job(place, tmp_path, recipe=asked), trainer, rows, print)
