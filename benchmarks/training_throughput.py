"""Tokens a second of `ringfence train sft` and of plain TRL: same data, model and settings.

Both sides are TRL's SFTTrainer with the same rows a batch, steps, optimiser, adapter and precision,
without recomputed activations, on the same rendered examples with the same labels. Plain is what a
user of TRL gets who hands over `input_ids` and `labels`: rows in order, padded, with an attention
mask. Ours groups examples of like length (or packs them, or shares what they have in common), pads
without a mask, and on a CPU scores only tokens with a loss and keeps the memory that a step frees;
a third side is ours without the last of these. Tokens are those of the examples on
both sides, shared or not. Repeats alternate, so that whatever else the machine does hits both.

    python benchmarks/training_throughput.py --data FOLDER [--steps 6 --repeats 3]
    python benchmarks/training_throughput.py --data FOLDER FOLDER/judged.jsonl --packing shared
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ringfence.training.job import Job, Ready, checked, prepared
from ringfence.training.recipe import Recipe


def main() -> None:
    options = _options()
    recipe = Recipe.model_validate(
        {
            "sequence": {"length": options.length, "packing": options.packing},
            "sft": {"rows": options.rows, "accumulate": 1, "save_every": 10_000, "warmup": 0},
            "hardware": {"precision": options.precision, "threads": options.threads},
        }
    )
    with tempfile.TemporaryDirectory() as place:
        ready = prepared(
            checked(
                Job(
                    kind="sft",
                    model=options.model,
                    data=tuple(options.data),
                    out=Path(place),
                    recipe=recipe,
                )
            ),
            _say,
        )
        sides: dict[str, Callable[[int], tuple[int, float]]] = {
            "ringfence": lambda turn: _keeping(_ours, ready, options, turn, Path(place)),
            "memory given back": lambda turn: _giving(_ours, ready, options, turn, Path(place)),
            "plain TRL": lambda turn: _giving(_plain, ready, options, turn, Path(place)),
        }
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for turn in range(options.repeats):
            for name in sorted(sides, reverse=bool(turn % 2)):
                tokens, seconds = sides[name](turn)
                speeds[name].append(tokens / seconds)
                _say(f"{turn + 1} {name}: {tokens} tokens in {seconds:.1f} s")
    ratios, kept = (
        [ours / other for ours, other in zip(speeds["ringfence"], speeds[name], strict=True)]
        for name in ("plain TRL", "memory given back")
    )
    found = {
        "settings": {
            name: value for name, value in vars(options).items() if name not in ("data", "json")
        },
        "tokens_per_second": speeds,
        "ratios": ratios,
        "ratio": statistics.median(ratios),
        "ratio_of_kept_memory": statistics.median(kept),
    }
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    for name, values in speeds.items():
        listed = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:<17} {statistics.median(values):10.1f} tokens/s  ({listed})")
    print(f"ratio             {found['ratio']:10.2f}")
    print(f"by memory alone   {found['ratio_of_kept_memory']:10.2f}")


Side = Callable[[Ready, Any, int, Path], tuple[int, float]]


def _keeping(side: Side, *given: Any) -> tuple[int, float]:
    from ringfence.training.allocation import keep_freed_memory

    keep_freed_memory()
    return side(*given)


def _giving(side: Side, *given: Any) -> tuple[int, float]:
    """With glibc's own settings again, and what is free given back."""
    with contextlib.suppress(AttributeError):
        library = ctypes.CDLL(None)
        for parameter, value in ((-1, 128 * 1024), (-2, 128 * 1024), (-4, 65_536)):
            library.mallopt(parameter, value)
        library.malloc_trim(0)
    return side(*given)


def _ours(ready: Ready, options: Any, turn: int, place: Path) -> tuple[int, float]:
    from ringfence.training import trainers
    from ringfence.training.collation import Rows
    from ringfence.training.running import _tokenizer

    rows = ready.plan.rows[_window(options, turn, len(ready.plan.rows))]
    settings = _settings(ready, options, place, trainers.arguments)
    trainer = trainers.trainer(
        "sft",
        _model(ready, shared=options.packing == "shared"),
        settings,
        Rows(ready.plan.store, rows),
        ready.job.recipe,
        place,
        _tokenizer(ready.folder),
    )
    return _tokens(ready, rows), _timed(trainer)


def _plain(ready: Ready, options: Any, turn: int, place: Path) -> tuple[int, float]:
    import datasets
    from trl.trainer.sft_trainer import SFTTrainer

    from ringfence.training import trainers
    from ringfence.training.collation import IGNORED
    from ringfence.training.running import _tokenizer

    store = ready.plan.store
    rows = ready.plan.rows[_window(options, turn, len(ready.plan.rows))]
    # In a random order and not in that of ringfence's rows, which would group them for TRL.
    numbers = [number for row in rows for number in row]
    random.Random(turn).shuffle(numbers)
    columns: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for number in numbers:
        where = store.sequence(number)
        ids = [int(token) for token in store.ids[where]]
        mask = store.mask[where]
        columns["input_ids"].append(ids)
        columns["labels"].append(
            [token if bit else IGNORED for token, bit in zip(ids, mask, strict=True)]
        )
    settings = _settings(ready, options, place, trainers.arguments)
    settings.max_steps = -(-len(numbers) // options.rows)
    trainer = SFTTrainer(
        model=_model(ready),
        args=settings,
        train_dataset=datasets.Dataset.from_dict(columns),
        processing_class=_tokenizer(ready.folder),
    )
    return _tokens(ready, rows), _timed(trainer)


def _settings(ready: Ready, options: Any, place: Path, arguments: Callable[..., Any]) -> Any:
    import torch

    from ringfence.training.models import quiet

    cpu = not torch.accelerator.is_available()
    with quiet():
        settings = arguments(ready.job.recipe, "sft", place, options.steps, cpu=cpu)
    settings.save_strategy = "no"
    return settings


def _model(ready: Ready, *, shared: bool = False) -> Any:
    import torch

    from ringfence.training.models import loaded

    torch.manual_seed(0)
    return loaded(ready.folder, ready.job.recipe, adapter=None, ring_names=(), shared=shared)


def _timed(trainer: Any) -> float:
    from ringfence.training.models import quiet

    # On a CPU time of the processor: what else runs there must not count.
    clock = time.process_time if trainer.args.use_cpu else time.perf_counter
    with quiet():
        began = clock()
        trainer.train()
        return clock() - began


def _window(options: Any, turn: int, count: int) -> slice:
    size = options.steps * options.rows
    start = (turn * size) % max(1, count - size)
    return slice(start, start + size)


def _tokens(ready: Ready, rows: Any) -> int:
    lengths = ready.plan.store.lengths()
    return sum(lengths[number] for row in rows for number in row)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options() -> Any:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--data", required=True, nargs="+")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument(
        "--packing", default="grouped", choices=["grouped", "packed", "shared", "none"]
    )
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
