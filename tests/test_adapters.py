"""LoRA adapters: what PEFT saves is read, checked and written as llama.cpp loads it."""

from __future__ import annotations

import json
import struct
import warnings
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import save_file
from typer.testing import CliRunner

from ringfence.adapters import Chosen, choosing, chosen
from ringfence.adapters.converting import as_gguf, check_gguf, convert
from ringfence.adapters.folder import LoraAdapter, read_adapter
from ringfence.adapters.host import Host, host_of, host_of_config, tokenizer_hash, write_host
from ringfence.adapters.restoring import restore
from ringfence.adapters.safetensors_file import read_tensors
from ringfence.adapters.truncating import truncated
from ringfence.cli import app
from ringfence.configuration import settings_from
from ringfence.errors import InputError
from ringfence.gguf_metadata import read_metadata
from ringfence.vocabulary import Vocabulary

CONFIG = {
    "model_type": "llama",
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
HOST = host_of_config(CONFIG, "test")
LAYER = "model.layers.1"
QUERY, KEY, DOWN = (
    f"{LAYER}.self_attn.q_proj",
    f"{LAYER}.self_attn.k_proj",
    f"{LAYER}.mlp.down_proj",
)
INNER = ("self_attn.q_proj", "mlp.down_proj")
SHAPES = {QUERY: (64, 64), KEY: (64, 32), DOWN: (96, 64)}


def saved(
    folder: Path, shapes: dict[str, tuple[int, int]] = SHAPES, rank: int = 4, **settings: Any
) -> Path:
    """A random adapter as PEFT saves it."""
    rng = np.random.default_rng(0)
    tensors = {}
    for name, (inputs, outputs) in shapes.items():
        halves = {"A": (rank, inputs), "B": (outputs, rank)}
        for half, shape in halves.items():
            values = rng.normal(size=shape).astype(np.float32)
            tensors[f"base_model.model.{name}.lora_{half}.weight"] = values
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": rank, "lora_alpha": 8} | settings
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def tensors_of(file: Path) -> dict[str, Any]:
    return {
        tensor.name: gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        for tensor in gguf.GGUFReader(file).tensors
    }


def change(adapter: LoraAdapter, module: str) -> Any:
    update = adapter.updates[module]
    return update.scale * update.b @ update.a


def written_change(file: Path, name: str) -> Any:
    """What llama.cpp adds to a matrix."""
    tensors, alpha = tensors_of(file), read_metadata(file)["adapter.lora.alpha"]
    a, b = tensors[f"{name}.lora_a"], tensors[f"{name}.lora_b"]
    return alpha / a.shape[0] * b @ a


def test_an_adapter_is_read_as_peft_saved_it(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path / "mine"))
    assert adapter.name == "mine" and set(adapter.updates) == set(SHAPES)
    assert adapter.updates[KEY].a.shape == (4, 64) and adapter.updates[KEY].b.shape == (32, 4)
    assert {update.scale for update in adapter.updates.values()} == {2.0}


def test_the_scale_follows_rslora_and_alpha_patterns(tmp_path: Path) -> None:
    settings = {"use_rslora": True, "alpha_pattern": {"mlp.down_proj": 6, f"^{KEY}$": 2}}
    updates = read_adapter(saved(tmp_path, **settings)).updates
    assert [updates[name].scale for name in (QUERY, KEY, DOWN)] == [4.0, 1.0, 3.0]


def test_pickles_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    with pytest.raises(InputError, match="pickled weights.*safetensors"):
        read_adapter(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type must be LORA"),
        ({"use_dora": True}, "use_dora is set to True"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "bias must be none"),
        ({"brand_new": {"x": 1}}, "brand_new"),
        ({"init_lora_weights": "pissa"}, "'pissa' changes the base model"),
        ({"alpha_pattern": {"(a+)+$": 3}}, "regular expression"),
        ({"alpha_pattern": [3]}, "alpha_pattern must be a mapping"),
        ({"lora_alpha": "8"}, "lora_alpha must be a number"),
        ({"lora_alpha": float("nan")}, "lora_alpha must be a number"),
        ({"lora_alpha": 10**400}, "lora_alpha must be a number"),
    ],
)
def test_what_is_more_than_lora_is_refused_by_name(
    settings: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        read_adapter(saved(tmp_path, **settings))


@pytest.mark.parametrize("file", ["adapter_config.json", "ringfence_host.json"])
def test_json_that_nests_too_deep_is_an_error_that_names_the_file(
    file: str, tmp_path: Path
) -> None:
    (saved(tmp_path) / file).write_text("[" * 100_000)
    with pytest.raises(InputError, match=file):
        read_adapter(tmp_path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"base_model.model.lm_head.weight": (3, 3)}, "lm_head.weight"),
        ({"base_model.model.embed.lora_embedding_A": (3, 3)}, "lora_embedding_A"),
        ({"base_model.model.x.lora_A.weight": (3, 3)}, "x has only lora_A"),
        ({"x.lora_A.weight": (3, 5), "x.lora_B.weight": (5, 4)}, r"x: lora_A of shape \(3, 5\)"),
        ({"x.lora_A.weight": (3, 5, 1), "x.lora_B.weight": (5, 3)}, "linear module"),
    ],
)
def test_tensors_that_are_no_lora_of_linear_modules_are_named(
    tensors: dict[str, tuple[int, ...]], message: str, tmp_path: Path
) -> None:
    folder = saved(tmp_path)
    made = {name: np.ones(shape, np.float32) for name, shape in tensors.items()}
    save_file(made, folder / "adapter_model.safetensors")
    with pytest.raises(InputError, match=message):
        read_adapter(folder)


def test_half_precision_is_widened_exactly(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    values = np.array([[1.5, -0.25, 3.0]], np.float32)
    save_file({"half": values.astype(np.float16)}, file)
    assert (read_tensors(file)["half"] == values).all()
    brain = (values.view(np.uint32) >> 16).astype("<u2").tobytes()
    header = json.dumps({"b": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]}}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header + brain)
    assert (read_tensors(file)["b"] == values).all()


def raw(header: object, body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (raw({}, length=2**63), "cut off"),
        (struct.pack("<Q", 4) + b"[[[[", "safetensors file"),
        (struct.pack("<Q", 100_000) + b"[" * 100_000, "safetensors file"),
        (raw([1]), "no JSON object"),
        (raw(entry(offsets=(0, 2**40)), bytes(4)), "outside the file"),
        (raw(entry(offsets=(-4, 4)), bytes(4)), "broken shape or place"),
        (raw(entry() | {"y": entry()["x"]}, bytes(4)), "two of its tensors share bytes"),
        (raw(entry(shape=(2**62,)), bytes(4)), "safetensors file"),
        (raw(entry(shape=(3,)), bytes(4)), "safetensors file"),
        (raw(entry("I64", offsets=(0, 8)), bytes(8)), "kind 'I64'"),
        (raw({"x": 3}), "safetensors file"),
        (raw(entry(), struct.pack("<f", float("inf"))), "not finite"),
    ],
)
def test_a_hostile_safetensors_file_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    file.write_bytes(data)
    with pytest.raises(InputError, match=f"x.safetensors: .*{message}"):
        read_tensors(file)


def test_a_conversion_says_what_llama_cpp_asks_for(tmp_path: Path) -> None:
    made = convert(read_adapter(saved(tmp_path / "mine")), HOST, tmp_path / "x.gguf")
    metadata = read_metadata(made.path)
    assert metadata["general.type"] == "adapter" and metadata["adapter.type"] == "lora"
    assert metadata["general.architecture"] == "llama" and metadata["adapter.lora.alpha"] == 8.0
    assert set(tensors_of(made.path)) == {
        f"blk.1.{name}.weight.lora_{half}"
        for name in ("attn_q", "attn_k", "ffn_down")
        for half in "ab"
    }
    assert (made.updates, made.ranks, made.wider) == (3, (4,), 0)


def test_query_and_key_rows_go_from_halves_to_pairs(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path))
    file = convert(adapter, HOST, tmp_path / "x.gguf", precision="f32").path
    down = written_change(file, "blk.1.ffn_down.weight")
    assert down == pytest.approx(change(adapter, DOWN), abs=1e-5)
    for module, name, heads in ((QUERY, "attn_q", 4), (KEY, "attn_k", 2)):
        ours, theirs = change(adapter, module), written_change(file, f"blk.1.{name}.weight")
        for row in range(len(ours)):
            head, place = divmod(row, 16)
            assert head < heads
            pair = head * 16 + (2 * place if place < 8 else 2 * (place - 8) + 1)
            assert theirs[pair] == pytest.approx(ours[row], abs=1e-5)


def test_an_architecture_that_rotates_halves_keeps_its_rows(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path))
    host = HOST.model_copy(update={"architecture": "qwen2"})
    file = convert(adapter, host, tmp_path / "x.gguf", precision="f32").path
    query = written_change(file, "blk.1.attn_q.weight")
    assert query == pytest.approx(change(adapter, QUERY), abs=1e-5)


def test_scales_that_differ_go_into_the_numbers(tmp_path: Path) -> None:
    settings = {"use_rslora": True, "alpha_pattern": {"down_proj": 1.0}}
    adapter = read_adapter(saved(tmp_path, **settings))
    file = convert(adapter, HOST, tmp_path / "x.gguf", precision="f32").path
    down = written_change(file, "blk.1.ffn_down.weight")
    assert down == pytest.approx(change(adapter, DOWN), abs=1e-5)
    assert read_metadata(file)["adapter.lora.alpha"] == 16.0  # 8 · √4


@pytest.mark.parametrize(("precision", "close"), [("f32", 1e-6), ("f16", 2e-2), ("q8_0", 0.4)])
def test_a_precision_is_as_close_as_its_bits(precision: Any, close: float, tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path, {DOWN: (96, 64)}, rank=32))
    made = convert(adapter, HOST, tmp_path / "x.gguf", precision=precision)
    error = np.abs(written_change(made.path, "blk.1.ffn_down.weight") - change(adapter, DOWN)).max()
    assert close / 1e3 < error + 1e-6 <= close
    assert made.wider == 0


def test_rows_that_do_not_divide_into_blocks_stay_f16(tmp_path: Path) -> None:
    made = convert(read_adapter(saved(tmp_path)), HOST, tmp_path / "x.gguf", precision="q8_0")
    assert made.wider == 3  # every lora_b has rows of rank 4
    types = {
        tensor.name[-6:]: tensor.tensor_type.name for tensor in gguf.GGUFReader(made.path).tensors
    }
    assert types == {"lora_a": "Q8_0", "lora_b": "F16"}


@pytest.mark.parametrize(
    ("shapes", "host", "message"),
    [
        ({"model.layers.7.mlp.up_proj": (64, 96)}, {}, "model.layers.7.mlp.up_proj.*2 layers"),
        (
            {"model.layers.0.mlp.novelty": (64, 96)},
            {},
            "no matrix for the module model.layers.0.mlp.n",
        ),
        ({"lm_head": (64, 99)}, {}, "lm_head is the embedding, or an output layer"),
        ({"model.embed_tokens": (99, 64)}, {}, "model.embed_tokens is the embedding"),
        ({QUERY: (128, 128)}, {}, "goes from 128 to 128 numbers, and the model's from 64 to 64"),
        (SHAPES, {"architecture": "bloom"}, "matrices of bloom is not known"),
        (SHAPES, {"architecture": "llama\x1b"}, "is not known"),
    ],
)
def test_what_cannot_be_converted_is_named(
    shapes: dict[str, tuple[int, int]], host: dict[str, Any], message: str, tmp_path: Path
) -> None:
    adapter = read_adapter(saved(tmp_path / "mine", shapes))
    with pytest.raises(InputError, match=message):
        convert(adapter, HOST.model_copy(update=host), tmp_path / "x.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_output_layer_of_its_own_is_converted(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path / "mine", {"lm_head": (64, 99)}))
    host = HOST.model_copy(update={"tied": False})
    made = convert(adapter, host, tmp_path / "x.gguf")
    assert set(tensors_of(made.path)) == {"output.weight.lora_a", "output.weight.lora_b"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("architecture", "qwen2"), ("hidden", 32), ("kv_heads", 4), ("tokenizer", "f" * 64)],
)
def test_an_adapter_of_another_model_is_refused_by_the_field(
    field: str, value: object, tmp_path: Path
) -> None:
    ours = HOST.model_copy(update={"tokenizer": "0" * 64})
    other = ours.model_copy(update={field: value})
    folder = saved(tmp_path / "mine")
    write_host(folder, other)
    with pytest.raises(InputError, match=f"adapter mine is for another model: {field} is {value}"):
        convert(read_adapter(folder), ours, tmp_path / "x.gguf")
    write_host(folder, ours)
    file = convert(read_adapter(folder), ours, tmp_path / "x.gguf").path
    check_gguf(file, ours)
    with pytest.raises(InputError, match=f"x.gguf is for another model: {field} is"):
        check_gguf(file, other)


def test_kept_conversions_are_never_mixed_up(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = saved(tmp_path / "a"), saved(tmp_path / "b", lora_alpha=9)
    kept = as_gguf(first, HOST, cache)
    before = kept.stat().st_mtime_ns
    assert as_gguf(first, HOST, cache) == kept and kept.stat().st_mtime_ns == before
    other_host = HOST.model_copy(update={"architecture": "qwen2"})
    others = {as_gguf(second, HOST, cache), as_gguf(first, other_host, cache)}
    saved(first, lora_alpha=10)
    others.add(as_gguf(first, HOST, cache))
    assert len(others | {kept}) == 4
    assert {file.name for file in cache.iterdir()} == {file.name for file in others | {kept}}


def test_a_file_that_is_no_adapter_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.gguf"
    file.write_text("hello")
    with pytest.raises(InputError, match="not a usable GGUF file"):
        as_gguf(file, HOST, tmp_path)
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_type("model")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(InputError, match="no LoRA adapter"):
        as_gguf(file, HOST, tmp_path)


def test_a_tokenizer_has_one_hash_whatever_its_control_tokens() -> None:
    plain, other = Vocabulary.characters(), Vocabulary.characters(["<a>", "<b>"])
    assert tokenizer_hash(plain, 259) == tokenizer_hash(other, 300)
    assert tokenizer_hash(plain, 259) != tokenizer_hash(plain, 100)


def test_a_model_folder_describes_a_host(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert host_of(tmp_path) == HOST
    assert (HOST.head, HOST.kv_heads, HOST.tied, HOST.tokenizer) == (16, 2, True, None)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError, match="config.json: names no model_type"):
        host_of(tmp_path)


def test_the_adapter_that_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = tmp_path / "packaged"
    shipped.mkdir()
    monkeypatch.setattr(choosing, "_PACKAGED", shipped)
    assert chosen(None, packaged=True) is None and chosen(None, 0) is None
    assert chosen("none", 0, packaged=True) is None
    with pytest.raises(InputError, match="no adapter ships"):
        chosen("packaged")
    (shipped / "adapter.gguf").touch()
    expected = Chosen(path=shipped / "adapter.gguf", strength=0.5)
    assert chosen(None, 0.5, packaged=True) == chosen("packaged", 0.5) == expected
    assert chosen(None, packaged=True) is None
    assert chosen(None, packaged=False) is None
    assert chosen(None, 0, packaged=True) is None
    assert chosen("none", packaged=True) is None
    assert chosen(tmp_path, 2) == Chosen(path=tmp_path.resolve(), strength=2.0)
    assert chosen(tmp_path) == Chosen(path=tmp_path.resolve(), strength=1.0)


@pytest.mark.parametrize(
    ("adapter", "strength", "message"),
    [
        (None, 0.5, "no adapter to scale"),
        (None, -0.1, "between 0 and 2"),
        ("none", 2.1, "between 0 and 2"),
        ("none", 0.5, "no adapter to scale"),
        ("none", float("nan"), "between 0 and 2"),
        ("nowhere", 1.0, "nowhere does not exist"),
        ("~nobody-here/x", 1.0, "~nobody-here/x does not exist"),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(
    adapter: str | None, strength: float, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        chosen(adapter, strength)


def test_the_dial_is_a_setting_of_every_command(tmp_path: Path) -> None:
    file = tmp_path / "options.yaml"
    file.write_text("adapter: rings\nrings_strength: 0.5\n")
    settings = settings_from(file, {"rings_strength": 0.25})
    assert (settings.adapter, settings.rings_strength) == ("rings", 0.25)
    with pytest.raises(InputError, match="rings_strength"):
        settings_from(None, {"rings_strength": 3.0})


def test_the_command_converts_and_says_what_it_wrote(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    folder, out = saved(tmp_path / "mine", base_model_name_or_path=str(base)), tmp_path / "x.gguf"
    run = CliRunner()
    first = run.invoke(app, ["adapter", "convert", str(folder), "--out", str(out)])
    assert first.exit_code == 0 and "3 matrices of a llama model, rank 4, f16" in first.output
    again = run.invoke(app, ["adapter", "convert", str(folder), "--out", str(out)])
    assert again.exit_code == 2 and "--force replaces it" in again.output
    words = ["adapter", "convert", str(folder), "--out", str(out), "--force", "--json"]
    summary = json.loads(run.invoke(app, [*words, "--base", str(base)]).stdout)
    assert (summary["updates"], summary["bytes"]) == (3, out.stat().st_size)
    (folder / "ring_signal.json").touch()
    refused = run.invoke(app, words)
    assert refused.exit_code == 2 and "ring signal" in refused.output


@pytest.mark.parametrize("known", [True, False])
def test_the_command_asks_for_a_base_that_is_not_here(tmp_path: Path, known: bool) -> None:
    """Training writes only the name of the model's folder."""
    folder = saved(tmp_path / "mine", base_model_name_or_path="large-model")
    if known:
        write_host(folder, HOST)
    words = ["adapter", "convert", str(folder), "--out", str(tmp_path / "x.gguf")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 2 and not (tmp_path / "x.gguf").exists()
    assert "large-model" in done.stderr and "give its model with --base" in done.stderr
    assert "--adapter none" not in done.stderr
    convert(read_adapter(folder), HOST, tmp_path / "x.gguf")
    words = ["adapter", "restore", str(tmp_path / "x.gguf"), "--out", str(tmp_path / "back")]
    done = CliRunner().invoke(app, words)
    assert (done.exit_code, "give its model with --base" in done.stderr) == (2, True)


def test_heads_that_nobody_counted_are_no_single_head(tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path))
    for unknown in ({"heads": None}, {"kv_heads": None}, {"heads": 5, "head": None}):
        host = HOST.model_copy(update=unknown)
        with pytest.raises(InputError, match="does not say how many heads .*_proj has"):
            convert(adapter, host, tmp_path / "x.gguf")


def test_a_model_is_described_by_the_names_its_config_has() -> None:
    old = {"model_type": "gpt2", "n_layer": 2, "n_embd": 64, "n_head": 4, "n_inner": None}
    host = host_of_config(old, "test")
    assert (host.layers, host.hidden, host.heads, host.head) == (2, 64, 4, 16)
    # Blocks of several widths have no width.
    assert host_of_config(CONFIG | {"intermediate_size": [96, 96]}, "t").feed_forward is None


# ---- smaller ones


@pytest.mark.parametrize("rank", [1, 3, 4, 9])
def test_a_truncated_adapter_is_the_nearest_of_its_rank(rank: int, tmp_path: Path) -> None:
    adapter = read_adapter(saved(tmp_path))
    smaller, kept = truncated(adapter, rank)
    squares = left = 0.0
    for module, update in smaller.updates.items():
        assert update.rank == min(rank, 4)
        values = np.linalg.svd(change(adapter, module), compute_uv=False)
        distance = np.linalg.norm(change(smaller, module) - change(adapter, module))
        assert distance == pytest.approx(np.sqrt((values[rank:] ** 2).sum()), abs=1e-4)
        squares, left = squares + (values**2).sum(), left + (values[:rank] ** 2).sum()
    assert kept == pytest.approx(left / squares)
    assert (kept < 1) == (rank < 4)


def test_the_command_makes_a_smaller_adapter_and_says_what_is_left(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text(json.dumps(CONFIG))
    folder, out = saved(tmp_path / "mine", base_model_name_or_path=str(base)), tmp_path / "x.gguf"
    words = ["adapter", "convert", str(folder), "--out", str(out), "--rank", "2"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0 and "rank 2, f16" in done.output
    assert "% of the squares of its updates" in done.output


# ---- and back


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_a_restored_adapter_does_what_the_converted_one_did(
    architecture: str, tmp_path: Path
) -> None:
    shapes = {**SHAPES, "lm_head": (64, 99)}
    before = read_adapter(saved(tmp_path / "mine", shapes, alpha_pattern={"down_proj": 1.0}))
    host = HOST.model_copy(update={"architecture": architecture, "tied": False})
    file = convert(before, host, tmp_path / "x.gguf", precision="f32").path
    assert restore(file, host, tmp_path / "back") == {"updates": 4, "ranks": [4], "alpha": 8.0}
    after = read_adapter(tmp_path / "back")
    assert after.host == host and set(after.updates) == set(before.updates)
    for module in before.updates:
        assert change(after, module) == pytest.approx(change(before, module), abs=1e-5)
    again = convert(after, host, tmp_path / "y.gguf", precision="f32").path
    assert {name: values.tolist() for name, values in tensors_of(again).items()} == {
        name: values.tolist() for name, values in tensors_of(file).items()
    }


def test_peft_loads_a_restored_adapter(tmp_path: Path) -> None:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    model = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=99, **{key: value for key, value in CONFIG.items() if key != "model_type"}
        )
    )
    before = read_adapter(saved(tmp_path / "mine"))
    file = convert(before, HOST, tmp_path / "x.gguf", precision="f32").path
    restore(file, HOST, tmp_path / "back")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # PEFT asks transformers by an old name
        made = peft.PeftModel.from_pretrained(model, tmp_path / "back")
    modules = {
        name.removeprefix("base_model.model."): module
        for name, module in made.named_modules()
        if hasattr(module, "lora_A")
    }
    assert set(modules) == set(before.updates)
    for name, module in modules.items():
        delta = module.get_delta_weight("default").detach().numpy()
        assert delta == pytest.approx(change(before, name), abs=1e-5)


def test_a_text_model_within_one_that_sees_is_found_both_ways(tmp_path: Path) -> None:
    within = {f"model.language_model.layers.1.{name}": SHAPES[f"{LAYER}.{name}"] for name in INNER}
    adapter = read_adapter(saved(tmp_path / "mine", within))
    host = HOST.model_copy(update={"architecture": "gemma3"})
    file = convert(adapter, host, tmp_path / "x.gguf", precision="f32").path
    assert written_change(file, "blk.1.ffn_down.weight") == pytest.approx(
        change(adapter, "model.language_model.layers.1.mlp.down_proj"), abs=1e-5
    )
    restore(file, host, tmp_path / "back")
    assert set(read_adapter(tmp_path / "back").updates) == set(within)


def test_what_cannot_be_restored_is_named(tmp_path: Path) -> None:
    file = convert(read_adapter(saved(tmp_path / "mine")), HOST, tmp_path / "x.gguf").path
    good, back = file.read_bytes(), tmp_path / "back"
    with pytest.raises(InputError, match=r"x\.gguf is for another model: hidden is 64"):
        restore(file, HOST.model_copy(update={"hidden": 32}), back)
    bloom = HOST.model_copy(update={"architecture": "bloom"})
    file.write_bytes(good.replace(b"llama", b"bloom"))
    with pytest.raises(InputError, match="keeps matrices of bloom is not known"):
        restore(file, bloom, back)
    for bad, message in (
        (good.replace(b"blk.1.ffn_down", b"blk.1.ffn_gone"), "'blk.1.ffn_gone.weight.lora_a'"),
        (good.replace(b"attn_q.weight.lora_b", b"attn_q.weight.lora_a"), "not a usable GGUF file"),
        (good[: len(good) // 2], "not a usable GGUF file"),
        (good[:-64] + b"\xff" * 64, "holds numbers that are not finite"),
    ):
        file.write_bytes(bad)
        with pytest.raises(InputError, match=message):
            restore(file, HOST, back)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "x.gguf"]


def test_the_command_restores_the_packaged_adapter(tmp_path: Path) -> None:
    run, out = CliRunner(), tmp_path / "back"
    words = ["adapter", "restore", "packaged", "--out", str(out)]
    first = run.invoke(app, [*words, "--json"])
    assert first.exit_code == 0, first.output
    assert json.loads(first.stdout) == {
        "out": str(out), "updates": 210, "ranks": [16], "alpha": 32.0
    }  # fmt: skip
    again = run.invoke(app, words)
    assert again.exit_code == 2 and "name a folder that is not there" in again.output
    folder = run.invoke(app, ["adapter", "restore", str(out), "--out", str(tmp_path / "more")])
    assert folder.exit_code == 2 and "a folder can be used as it is" in folder.output


def test_a_host_that_is_kept_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    write_host(folder, HOST)
    assert read_adapter(folder).host == HOST
    data = json.loads((folder / "ringfence_host.json").read_text()) | {"colour": 1}
    (folder / "ringfence_host.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="ringfence_host.json: colour"):
        read_adapter(folder)
    assert Host.model_validate(HOST.model_dump()) == HOST


def test_the_packaged_adapter_is_small_and_says_what_it_was_trained_on():
    path = choosing.packaged_adapter()
    assert path is not None and path.stat().st_size <= 12_000_000
    manifests = sorted(path.parent.glob("manifest*.json"))  # of every training that went into it
    assert manifests[-1].name == "manifest.json"
    for file in manifests:
        manifest = json.loads(file.read_text("utf-8"))
        assert manifest["job"]["model"]["name"] == "SmolLM2-135M-Instruct"
        splits = [source["proof"].get("split") for source in manifest["data"]["sources"]]
        assert set(splits) <= {"train", None}
        assert manifest["data"]["proof"]["overlap"]["evaluation_texts_shared"] == 0
    card = (path.parent / "README.md").read_text("utf-8")
    assert "## What was measured" in card and "Nothing here was evaluated" not in card
