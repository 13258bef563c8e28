"""Rows that share what their examples have in common train as the examples alone would."""

from __future__ import annotations

import importlib.util

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_parts import card, synthesised, tiny_model

from ringfence.training.packing import rows
from ringfence.training.plan import encoded, planned
from ringfence.training.recipe import Recipe
from ringfence.training.sharing import Segment, laid, size, told_apart
from ringfence.training.sources import open_sources

trained = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("torch", "trl", "peft")),
    reason="needs pip install 'ringfence[train]'",
)
# Two letters and short ones, so that much begins alike.
SEQUENCES = st.lists(
    st.lists(st.integers(0, 1), min_size=1, max_size=12).map(np.array), min_size=1, max_size=8
)


def read_back(sequences: list[np.ndarray], segments: list[Segment], number: int) -> list[int]:
    """What the last segment of a sequence sees, in order, and itself."""
    row = np.zeros(segments[-1].stop, dtype=np.int64)
    for each in segments:
        stop = each.depth + each.stop - each.start
        row[each.start : each.stop] = sequences[each.of[0]][each.depth : stop]
    last = max(
        (each for each in segments if number in each.of), key=lambda each: (each.depth, each.start)
    )
    places = [*last.seen, (last.start, last.stop)]
    return [token for start, stop in places for token in row[start:stop].tolist()]


@given(SEQUENCES, st.integers(1, 4))
def test_every_sequence_is_seen_whole_and_nothing_else(sequences, least):
    segments = laid(sequences, least)
    for number, sequence in enumerate(sequences):
        assert read_back(sequences, segments, number) == sequence.tolist()
    # Places are numbered without gaps, and every token of a segment is in all its sequences.
    assert [one.start for one in segments[1:]] == [one.stop for one in segments[:-1]]
    for each in segments:
        where = slice(each.depth, each.depth + each.stop - each.start)
        assert len({sequences[number][where].tobytes() for number in each.of}) == 1


@given(SEQUENCES)
def test_what_is_equal_is_laid_out_once(sequences):
    distinct = {
        tuple(sequence[: end + 1]) for sequence in sequences for end in range(len(sequence))
    }
    segments = laid(sequences, 1)
    # A segment below another begins with a copy of one token.
    assert size(sequences, 1) == segments[-1].stop <= len(distinct) + len(segments) - 1


def test_another_ring_is_another_token():
    ids = np.arange(40)
    one, other = told_apart(ids, np.zeros(40)), told_apart(ids, np.full(40, -1))
    assert size([one, one]) == 40
    assert size([one, other]) == 80


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 60)), min_size=1, max_size=30),
    st.lists(st.integers(0, 29), max_size=10),
    st.randoms(use_true_random=False),
)
def test_shared_rows_keep_cases_together_and_are_not_too_long(examples, again, random):
    tokens = [
        np.concatenate([np.full(20, case), np.array([random.randint(0, 1) for _ in range(length)])])
        for case, length in examples
    ]
    order = [*range(len(examples)), *(number % len(examples) for number in again)]
    made = rows(
        order,
        [len(each) for each in tokens],
        length=100,
        batch=1,
        packing="shared",
        seed="s",
        tree=(lambda number: examples[number][0], lambda number: tokens[number]),
    )
    assert sorted(number for row in made for number in row) == sorted(order)
    assert all(len(set(row)) == len(row) for row in made)
    assert all(size([tokens[number] for number in row]) <= 100 for row in made)
    for case in {case for case, _ in examples}:
        mine = [number for number, (other, _) in enumerate(examples) if other == case]
        if size([tokens[number] for number in mine]) <= 100:
            assert any(set(mine) <= set(row) for row in made)


@trained
@pytest.mark.hf
@pytest.mark.parametrize("rings", [False, True])
def test_losses_and_gradients_are_those_of_every_example_alone(tmp_path, rings):
    import torch
    import transformers

    from ringfence.segments import signal
    from ringfence.training.collation import Supervised
    from ringfence.training.shared_attention import NAME

    rng = np.random.default_rng(0)
    trunk, branch = rng.integers(0, 256, 30), rng.integers(0, 256, 20)

    def sequence(*parts: np.ndarray, learnt: int) -> dict[str, np.ndarray]:
        ids = np.concatenate(parts)
        return {
            "ids": ids,
            "rings": np.arange(len(ids)) // 25,
            "mask": np.arange(len(ids)) >= len(ids) - learnt,
        }

    def fresh(length: int) -> np.ndarray:
        return rng.integers(0, 256, length)

    cases = [
        [
            sequence(trunk, branch, fresh(9), learnt=9),
            sequence(trunk, branch, fresh(5), learnt=3),
            sequence(trunk, fresh(12), learnt=12),
            sequence(fresh(40), learnt=7),
        ],
        [sequence(trunk, fresh(8), learnt=4)],
    ]
    folder = tiny_model(tmp_path / "tiny")

    def made(collator: Supervised, attention: str, batches: list) -> tuple[float, dict]:
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=attention
        )
        if rings:
            signal.attach(model, "blocks", rings=5)
            with torch.no_grad():
                model.ring_signal.table.normal_(generator=torch.Generator().manual_seed(1))
        total = 0.0
        for batch in batches:
            ready = collator(batch)
            labels = ready.pop("labels")
            logits = model(**ready, use_cache=False).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
            )
            loss.backward()
            total += float(loss.detach())
        return total, {name: each.grad for name, each in model.named_parameters()}

    shared = made(Supervised(pad=0, shared=True, rings=rings), NAME, [cases])
    alone = made(Supervised(pad=0, rings=rings), "sdpa", [[[one]] for row in cases for one in row])
    assert shared[0] == pytest.approx(alone[0], rel=1e-5)
    for name, gradient in alone[1].items():
        torch.testing.assert_close(shared[1][name], gradient, rtol=1e-3, atol=1e-4)


@trained
@pytest.mark.hf
def test_what_is_counted_as_learnt_is_what_has_a_loss(tmp_path):
    """Examples of a row may learn the same tokens: a judged target and the reply of its case."""
    from ringfence.training.collation import Rows, Supervised

    data = synthesised(tmp_path / "d", split="train", count=6)
    sources = open_sources([str(data), str(data / "judged.jsonl")], "sft")
    for packing in ("shared", "packed"):
        recipe = Recipe.model_validate({"sequence": {"length": 2048, "packing": packing}})
        store = encoded(
            *(sources, recipe, "sft", card(), tmp_path / packing),
            key="k",
            overlap=None,
            told=lambda _: None,
        )
        plan = planned(store, recipe, "sft", world=1)
        rows = Rows(store, plan.rows)
        collator = Supervised(pad=0, shared=packing == "shared")
        batches = [collator([rows[place]])["labels"] for place in range(len(rows))]
        having_a_loss = sum(int((labels != -100).sum()) for labels in batches)
        alone = sum(store.learnt())
        assert sum(part["learnt"] for part in plan.mixed) == having_a_loss
        assert (having_a_loss < alone) if packing == "shared" else (having_a_loss == alone)


@trained
@pytest.mark.hf
def test_verdicts_have_a_weight_of_their_own():
    from ringfence.training.collation import Supervised

    ids = np.arange(30)
    reply = {"ids": ids, "rings": ids * 0, "mask": (ids >= 28).astype(np.uint8)}
    verdict = {"ids": ids + 100, "rings": ids * 0, "mask": 2 * (ids >= 29).astype(np.uint8)}
    for how in ({}, {"shared": True}):
        made = Supervised(pad=0, verdicts=4.0, **how)([[reply, verdict]])
        assert made["weights"].shape == made["labels"].shape
        assert made["weights"][made["labels"] == 129].tolist() == [4.0]
        assert (made["weights"] != 1).sum() == 1
        assert (made["labels"] != -100).sum() == 3


@trained
@pytest.mark.hf
def test_isolation_is_measured_where_examples_part_from_each_other():
    from ringfence.training.isolation import _pairs

    def sequence(*ids: int) -> dict[str, np.ndarray]:
        return {"ids": np.array(ids)}

    long = range(200)
    rows = [
        [sequence(*long), sequence(*long, 7)],  # nothing of the first is behind the common part
        [sequence(*long, 1), sequence(*long, 2), sequence(3, 4)],
        [sequence(5)],
    ]
    assert [(common, len(pair[0]["ids"])) for common, pair in _pairs(rows)] == [
        (200, 201),
        (0, 201),
    ]


@trained
@pytest.mark.hf
def test_a_model_that_asks_for_a_window_is_refused():
    import torch

    from ringfence.errors import InputError
    from ringfence.training.shared_attention import attention

    heads = torch.zeros(1, 2, 4, 8)
    with pytest.raises(InputError, match="has sliding_window"):
        attention(torch.nn.Identity(), heads, heads, heads, None, sliding_window=4)
