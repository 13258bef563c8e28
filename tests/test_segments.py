"""Ring signals: tokens that carry rings, models that are told them, and the engine between."""

from __future__ import annotations

import copy
import importlib.util
import json
import pickle
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from test_transformers_engine import ATTENTION, PREFIX, exactly, opened, save_model

from ringfence.engine import Sampling, Tokens
from ringfence.engines.transformers import TransformersEngine
from ringfence.errors import InputError
from ringfence.rendering import render
from ringfence.rings import Conversation
from ringfence.segments import NO_RING, RingedTokens
from ringfence.segments.saved import CARD

TORCH = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")
GREEDY, SEEDED = Sampling(temperature=0), Sampling(seed=7)
NAMES = ("system", "user", "assistant", "tool")
PROMPT = RingedTokens(
    PREFIX, [NO_RING, 0, 0, 0, *[1] * 10, *[3] * 12, *[1] * 4], reply=2, names=NAMES
)


def test_what_is_appended_to_a_prompt_is_of_the_replys_ring() -> None:
    tokens = RingedTokens((5, 6), (0, 1), reply=2)
    longer = tokens + (7,) + (8, 9)
    assert longer == (5, 6, 7, 8, 9) and isinstance(longer, RingedTokens)
    assert longer.rings == (0, 1, 2, 2, 2)
    assert (tokens + RingedTokens((7,), (3,))).rings == (0, 1, 3)


def test_slices_and_copies_keep_their_rings() -> None:
    tokens = RingedTokens((5, 6, 7), (0, 1, 2), reply=2, names=("a", "b", "c"))
    assert (tokens[1:], tokens[1:].rings, tokens[-1]) == ((6, 7), (1, 2), 7)
    for twin in (copy.deepcopy(tokens), pickle.loads(pickle.dumps(tokens)), tokens[:]):
        assert twin == tokens and isinstance(twin, RingedTokens)
        assert (twin.rings, twin.reply, twin.names) == (tokens.rings, 2, ("a", "b", "c"))


def test_tokens_with_rings_are_a_tuple_to_everybody_else() -> None:
    tokens = RingedTokens((5, 6), (0, 1))
    assert hash(tokens) == hash((5, 6)) and {(5, 6): "found"}[tokens] == "found"
    assert json.dumps(tokens) == "[5, 6]"
    with pytest.raises(ValueError, match="1 rings for 2 tokens"):
        RingedTokens((5, 6), (0,))


def test_a_rendering_gives_tokens_with_the_ring_of_every_writer() -> None:
    from conftest import script

    from ringfence.engine import ScriptedEngine
    from ringfence.vocabulary import Vocabulary

    template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    vocabulary = Vocabulary.characters()
    card = ScriptedEngine(
        script=script, tokenizer=vocabulary, ends=frozenset({257}), template=template
    ).card
    messages = [{"role": "system", "content": "Obey."}, {"role": "user", "content": "Hi"}]
    rendering = render(Conversation.of(messages), card)
    tokens = rendering.tokens
    assert isinstance(tokens, RingedTokens) and tokens.rings == rendering.rings
    names = tokens.names
    assert names[tokens.rings[tokens.index(ord("O"))]] == "system"
    assert names[tokens.rings[tokens.index(ord("H"))]] == "user"
    assert names[tokens.reply] == "assistant"


hf = [pytest.mark.hf, pytest.mark.skipif(not TORCH, reason="needs pip install 'ringfence[hf]'")]


def tiny(kind: str = "Llama", **settings: Any) -> Any:
    """A tiny random model in evaluation mode."""
    import torch
    import transformers

    defaults = {
        "vocab_size": 99,
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "initializer_range": 0.25,
    }
    if kind != "GPT2":
        defaults |= {"num_attention_heads": 4, "num_key_value_heads": 4, "intermediate_size": 48}
    if kind == "GPT2":
        defaults = {"vocab_size": 99, "n_embd": 32, "n_layer": 3, "n_head": 4}
    config = getattr(transformers, f"{kind}Config")(**defaults | settings)
    config.bos_token_id = config.eos_token_id = config.pad_token_id = None
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def batch() -> tuple[Any, Any]:
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 99, (2, 12), generator=generator)
    rings = torch.randint(-1, 4, (2, 12), generator=generator)
    return ids, rings


def trained(signal: Any) -> Any:
    """The signal as if it had been trained."""
    import torch

    with torch.no_grad():
        signal.table.normal_(generator=torch.Generator().manual_seed(2))
    return signal


@pytest.mark.parametrize("kind", ["input", "blocks"])
@pytest.mark.parametrize("model_kind", ["Llama", "Qwen2", "Gemma2", "GPT2", "GPTNeoX"])
class TestAnyModel:
    pytestmark = hf

    def test_an_untrained_signal_leaves_the_model_as_it_is(
        self, kind: Any, model_kind: str
    ) -> None:
        import torch

        from ringfence.segments.signal import attach

        model = tiny(model_kind)
        ids, rings = batch()
        with torch.no_grad():
            before = model(input_ids=ids).logits
            signal = attach(model, kind, rings=NAMES)
            assert torch.equal(model(input_ids=ids, ring_ids=rings).logits, before)
            trained(signal)
            after = model(input_ids=ids, ring_ids=rings).logits
            with signal.rings(rings):
                assert torch.equal(model(input_ids=ids).logits, after)
            nobody = torch.full_like(rings, NO_RING)
            assert torch.equal(model(input_ids=ids, ring_ids=nobody).logits, before)
            # The keyword is for one pass.
            assert torch.equal(model(input_ids=ids).logits, before)
        assert (after - before).abs().max() > 0.1

    def test_it_learns_from_zero(self, kind: Any, model_kind: str) -> None:
        from ringfence.segments.signal import attach

        model = tiny(model_kind)
        signal = attach(model, kind, rings=4)
        assert any(each is signal.table for each in model.parameters())
        ids, rings = batch()
        model(input_ids=ids, labels=ids, ring_ids=rings).loss.backward()
        places = signal.table.grad.abs().amax(-1)
        assert places.shape == ((3 if kind == "blocks" else 1), 4)
        assert (places > 0).all()


@pytest.fixture
def model() -> Any:
    return tiny()


class TestTraining:
    # PEFT and this test ask transformers by names that it will rename.
    pytestmark = [*hf, pytest.mark.filterwarnings("ignore::FutureWarning")]

    @pytest.mark.parametrize("kind", ["input", "blocks"])
    @pytest.mark.parametrize("reentrant", [False, True])
    def test_gradient_checkpointing_changes_no_gradient(
        self, kind: Any, reentrant: bool, model: Any
    ) -> None:
        from ringfence.segments.signal import attach

        signal = trained(attach(model, kind, rings=4))
        model.train()
        ids, rings = batch()
        model(input_ids=ids, labels=ids, ring_ids=rings).loss.backward()
        expected = signal.table.grad.clone()
        model.zero_grad()
        model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        model.enable_input_require_grads()
        model(input_ids=ids, labels=ids, ring_ids=rings, use_cache=False).loss.backward()
        assert signal.table.grad.numpy() == pytest.approx(expected.numpy(), abs=1e-5)

    def test_it_trains_along_with_lora_and_alone(self, model: Any) -> None:
        peft = pytest.importorskip("peft")

        from ringfence.segments.signal import attach

        wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"]))
        signal = attach(wrapped, rings=4)
        training = {name for name, each in wrapped.named_parameters() if each.requires_grad}
        assert any(name.endswith("ring_signal.table") for name in training)
        assert all("lora_" in name or "ring_signal" in name for name in training)
        ids, rings = batch()
        wrapped(input_ids=ids, labels=ids, ring_ids=rings).loss.backward()
        assert signal.table.grad.abs().max() > 0

    def test_documents_packed_into_one_row_keep_their_rings(self, model: Any) -> None:
        import torch

        from ringfence.segments.signal import attach

        trained(attach(model, rings=4))
        ids, rings = batch()
        positions = torch.arange(12).repeat(2)[None]
        # Each document sees only itself.
        mask = torch.block_diag(*[torch.ones(12, 12).tril()] * 2).bool()[None, None]
        with torch.no_grad():
            apart = model(input_ids=ids, ring_ids=rings).logits.flatten(0, 1)
            packed = model(
                input_ids=ids.reshape(1, 24),
                ring_ids=rings.reshape(1, 24),
                position_ids=positions,
                attention_mask=mask,
            ).logits[0]
        assert packed.numpy() == pytest.approx(apart.numpy(), abs=1e-4)

    def test_rings_that_do_not_fit_are_refused(self, model: Any) -> None:
        import torch

        from ringfence.segments.signal import attach

        signal = attach(model, rings=4)
        ids, rings = batch()
        with pytest.raises(InputError, match="levels 0 to 3"):
            model(input_ids=ids, ring_ids=rings + 4)
        with pytest.raises(InputError, match="every token needs its own"):
            model(input_ids=ids, ring_ids=rings[:, :5])
        # A pass that failed leaves nothing behind for the next one.
        with torch.no_grad():
            model(input_ids=ids)
        assert signal._now is None
        with pytest.raises(InputError, match="already"):
            attach(model, rings=4)


class TestFiles:
    pytestmark = hf

    @pytest.mark.parametrize("kind", ["input", "blocks"])
    def test_a_saved_signal_is_the_same_in_a_fresh_model(self, kind: Any, tmp_path: Path) -> None:
        import torch

        from ringfence.segments.signal import attach, load

        first, second = tiny(), tiny()
        trained(attach(first, kind, rings=NAMES)).save(tmp_path)
        signal = load(tmp_path, second)
        assert signal.card.names == NAMES and signal.card.kind == kind
        ids, rings = batch()
        with torch.no_grad():
            expected = first(input_ids=ids, ring_ids=rings).logits
            assert torch.equal(second(input_ids=ids, ring_ids=rings).logits, expected)
        assert {file.name for file in tmp_path.iterdir()} == {CARD, "ring_signal.safetensors"}

    def test_a_signal_of_another_model_is_refused(self, tmp_path: Path) -> None:
        from ringfence.segments.signal import attach, load

        attach(tiny(), "blocks", rings=4).save(tmp_path)
        with pytest.raises(InputError, match="trained on another model"):
            load(tmp_path, tiny(num_hidden_layers=2))

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("{", "JSON"),
            ('{"kind": "input", "rings": 4, "width": 32, "places": 1, "code": "x"}', "code"),
            ('{"kind": "input", "rings": 1000000000, "width": 32, "places": 1}', "rings"),
            ('{"kind": "input", "rings": 5, "width": 32, "places": 1}', r"shape \(1, 5, 32\)"),
        ],
    )
    def test_a_broken_card_is_named(self, text: str, message: str, tmp_path: Path) -> None:
        from ringfence.segments.signal import attach, load

        attach(tiny(), rings=4).save(tmp_path)
        (tmp_path / CARD).write_text(text)
        with pytest.raises(InputError, match=message):
            load(tmp_path, tiny())

    def test_broken_weights_are_named(self, tmp_path: Path) -> None:
        from ringfence.segments.signal import attach, load

        attach(tiny(), rings=4).save(tmp_path)
        (tmp_path / "ring_signal.safetensors").write_bytes(b"\x80\x04 no weights")
        with pytest.raises(InputError, match="cannot be read"):
            load(tmp_path, tiny())


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("signalled") / "tiny-llama", **ATTENTION)


@pytest.fixture(scope="module", params=["input", "blocks"])
def signal_folder(
    request: pytest.FixtureRequest, model_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    import transformers

    from ringfence.segments.signal import attach

    folder = tmp_path_factory.mktemp("signal")
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folder)
    trained(attach(model, request.param, rings=NAMES)).save(folder)
    return folder


def naive(engine: TransformersEngine, tokens: Tokens) -> Any:
    """Next-token log-probabilities after every token, told the rings in one uncached pass."""
    import torch

    assert isinstance(tokens, RingedTokens)
    rings = torch.tensor([tokens.rings])
    with torch.no_grad():
        output = engine.model(input_ids=torch.tensor([tokens]), ring_ids=rings, use_cache=False)
    return output.logits[0].float().log_softmax(-1)


def naive_scores(engine: TransformersEngine, prefix: Tokens, tokens: Tokens) -> list[float]:
    table = naive(engine, prefix + tokens)[len(prefix) - 1 :]
    return [float(table[index, token]) for index, token in enumerate(tokens)]


class TestEngine:
    pytestmark = hf

    @pytest.fixture
    async def engine(
        self, model_folder: Path, signal_folder: Path
    ) -> AsyncIterator[TransformersEngine]:
        async with opened(model_folder, adapter=signal_folder) as engine:
            yield engine

    async def test_drafts_and_scores_are_those_of_one_pass_with_rings(
        self, engine: TransformersEngine
    ) -> None:
        for draft in await engine.draft(PROMPT, 4, 10, Sampling(seed=3, temperature=1.5)):
            assert draft.logprobs == exactly(naive_scores(engine, PROMPT, draft.tokens))
        continuations = [tuple(PREFIX[:length]) for length in (1, 5, 2, 9)]
        scores = await engine.logprobs(PROMPT, continuations)
        expected = [sum(naive_scores(engine, PROMPT, tokens)) for tokens in continuations]
        assert scores.logprobs == exactly(expected)

    async def test_a_long_prefix_in_parts_keeps_its_rings(self, engine: TransformersEngine) -> None:
        prefix = RingedTokens(PROMPT * 40, PROMPT.rings * 40, reply=2, names=NAMES)
        [draft] = await engine.draft(prefix, 1, 3, SEEDED)
        assert draft.logprobs == exactly(naive_scores(engine, prefix, draft.tokens))

    async def test_a_rewind_gives_the_drafts_of_a_fresh_engine(
        self, engine: TransformersEngine, model_folder: Path, signal_folder: Path
    ) -> None:
        [first] = await engine.draft(PROMPT, 1, 10, SEEDED)
        [further] = await engine.draft(PROMPT + first.tokens, 1, 3, GREEDY)
        assert further.fed == 1
        await engine.logprobs(PROMPT[:20] + (60, 61), [(5, 6, 7), (8,)])
        for keep in (25, 20, 1):
            async with opened(model_folder, adapter=signal_folder) as fresh:
                expected = await fresh.draft(PROMPT[:keep], 3, 8, SEEDED)
            again = await engine.draft(PROMPT[:keep], 3, 8, SEEDED)
            assert again[0].fed == 1
            assert [draft.tokens for draft in again] == [draft.tokens for draft in expected]
            assert [draft.logprobs for draft in again] == [exactly(d.logprobs) for d in expected]

    async def test_equal_tokens_of_other_rings_share_no_cache(
        self, engine: TransformersEngine
    ) -> None:
        other = RingedTokens(PROMPT, (*PROMPT.rings[:20], *[0] * 10), reply=2, names=NAMES)
        [one] = await engine.draft(PROMPT, 1, 1, GREEDY)
        [two] = await engine.draft(other, 1, 1, GREEDY)
        assert (one.fed, two.fed) == (30, 10)
        assert two.logprobs == exactly(naive_scores(engine, other, two.tokens))

    async def test_plain_tokens_and_strength_0_are_the_base_model(
        self, engine: TransformersEngine, model_folder: Path, signal_folder: Path
    ) -> None:
        async with opened(model_folder) as base:
            expected = (await base.logprobs(PREFIX, [(5, 6), (7,)])).logprobs
        assert (await engine.logprobs(PREFIX, [(5, 6), (7,)])).logprobs == expected
        assert (await engine.logprobs(PROMPT, [(5, 6), (7,)])).logprobs != expected
        async with opened(model_folder, adapter=signal_folder, rings_strength=0) as off:
            assert (await off.logprobs(PROMPT, [(5, 6), (7,)])).logprobs == expected

    async def test_rings_go_by_name_and_unknown_ones_are_refused(
        self, engine: TransformersEngine
    ) -> None:
        turned = [level if level < 0 else 3 - level for level in PROMPT.rings]
        other = RingedTokens(PROMPT, turned, reply=1, names=NAMES[::-1])
        one, two = [await engine.logprobs(each, [(5, 6)]) for each in (PROMPT, other)]
        assert one.logprobs == exactly(two.logprobs)
        strange = RingedTokens(PROMPT, PROMPT.rings, reply=2, names=("root", *NAMES[1:]))
        with pytest.raises(InputError, match="no ring 'root'.*system, user"):
            await engine.draft(strange, 1, 1, GREEDY)
