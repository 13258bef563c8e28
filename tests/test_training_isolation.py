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


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("isolation")
    # So deep and so wild that 16 bits round by a quarter of what the logits differ.
    tiny_model(folder / "deep", num_hidden_layers=24, initializer_range=0.5)
    tiny_model(folder / "leaking", **LEAKING)
    write_lines(folder / "sft.jsonl", [conversation(number) for number in range(24)])
    return folder


def test_rounding_of_16_bits_is_taken_for_no_leak(place):
    import numpy as np
    import torch
    import transformers

    from ringfence.training.collation import Supervised
    from ringfence.training.isolation import measured

    model = transformers.AutoModelForCausalLM.from_pretrained(
        place / "deep", dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    rng = np.random.default_rng(0)
    # On the machine of this test's writer the largest difference was 0.58.
    for _ in range(10):
        row = [
            {"ids": rng.integers(0, 250, size), "rings": np.zeros(size), "mask": np.ones(size)}
            for size in rng.integers(20, 120, 2)
        ]
        packing = measured(model, [row], Supervised(pad=0), bfloat16=True)
        assert packing["isolated"] is True


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_model_whose_examples_see_each_other_is_refused(place, tmp_path, precision):
    asked = recipe(hardware={"precision": precision, "threads": 1}, **ONE_STEP)
    leaking = job(place, tmp_path / "out", model=str(place / "leaking"), recipe=asked)
    with pytest.raises(InputError, match="see each other .*Use packing: grouped"):
        run(leaking)
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


def test_what_is_sharded_is_not_measured_and_that_is_said(place, tmp_path):
    from ringfence.training.isolation import of_run

    said: list[str] = []
    rows = rows_of(place, "packed", tmp_path / "t")
    sharded = Trainer(place / "leaking", sharded=True)
    found = of_run(job(place, tmp_path), sharded, rows, said.append)
    assert found["isolated"] is None and "was not measured" in found["says"]
    assert said and found["says"] in said[0]
