"""No text becomes a control token; decoding and streaming lose nothing."""

from __future__ import annotations

import functools
import json
import struct
import time
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from conftest import character_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from ringfence.engines import open_engine
from ringfence.engines.descriptions import describe
from ringfence.engines.embedded import packaged_model
from ringfence.engines.weights import find_weights
from ringfence.errors import EngineError, RenderingError
from ringfence.gguf_metadata import read_metadata
from ringfence.rendering import render_text
from ringfence.vocabulary import TextStream, Vocabulary

CHARACTERS = Vocabulary.characters()
# SmolLM2 has no tokens for these, and for lead bytes of planes without characters.
MISSING = "\x04\x06\x13\x14\x16\x1d"


@functools.cache
def smollm() -> Vocabulary:
    return Vocabulary.from_gguf(read_metadata(packaged_model()))


@functools.cache
def byte_bpe(**changes: Any) -> Vocabulary:
    return Vocabulary.from_gguf(gguf_metadata(**changes))


def gguf_metadata(pre: str = "qwen2", **changes: Any) -> dict[str, Any]:
    """A small byte-level BPE in GGUF terms: bytes, a few merges, tokens of every type."""
    alphabet = [CHARACTERS._encoder.id_to_token(byte) for byte in range(256)]
    merges = ["t h", "th e", "Ġ the", "< |", "| >"]
    words = [merge.replace(" ", "") for merge in merges]
    added = ["<|im_start|>", "<|im_end|>", "<tool_call>", "    "]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": alphabet + words + added,
        "tokenizer.ggml.token_type": [1] * (256 + len(words)) + [3, 3, 4, 4],
        "tokenizer.ggml.merges": merges,
    } | changes


@functools.cache
def unigram() -> Vocabulary:
    return folder_vocabulary(UNIGRAM)


UNIGRAM: dict[str, Any] = {
    "added_tokens": [
        {"id": 0, "content": "<unk>", "special": True},
        {"id": 1, "content": "<s>", "special": True},
        {"id": 2, "content": "</s>", "special": True},
        {"id": 3, "content": "<turn>", "special": False},
    ],
    "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"},
    "model": {
        "type": "Unigram",
        "unk_id": 0,
        "byte_fallback": True,
        "vocab": [["<unk>", 0.0], ["<s>", 0.0], ["</s>", 0.0], ["<turn>", 0.0], ["▁", -2.0]]
        + [[f"<0x{byte:02X}>", -9.0] for byte in range(256)]
        + [[character, -4.0] for character in "<>/stunrhe"]
        + [["▁the", -3.0]],
    },
}


def complete(source: dict[str, Any]) -> dict[str, Any]:
    """A tokenizer.json with what the tokenizers library wants besides."""
    for token in source["added_tokens"]:
        for flag in ("single_word", "lstrip", "rstrip", "normalized"):
            token.setdefault(flag, False)
    empty = {"normalizer": None, "post_processor": None, "decoder": None}
    return {"version": "1.0"} | empty | source


def folder_vocabulary(source: dict[str, Any], config: dict[str, Any] | None = None) -> Vocabulary:
    import tempfile

    whole = complete(source)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(json.dumps(whole))
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(config or {}))
        return Vocabulary.from_folder(folder)


def llama_like(**changes: Any) -> dict[str, Any]:
    """A tokenizer.json whose model itself knows its control tokens, whole words first."""
    metadata = gguf_metadata()
    tokens = metadata["tokenizer.ggml.tokens"]
    split = {
        "type": "Split",
        "pattern": {"Regex": r"\s+|\S+"},
        "behavior": "Isolated",
        "invert": False,
    }
    byte_level = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}
    return {
        "added_tokens": [
            {"id": id_, "content": tokens[id_], "special": id_ < 263}
            for id_ in range(261, len(tokens))
        ],
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [split, byte_level | {"trim_offsets": True}],
        },
        "model": {
            "type": "BPE",
            "ignore_merges": True,
            "vocab": {token: id_ for id_, token in enumerate(tokens)},
            "merges": [merge.split() for merge in metadata["tokenizer.ggml.merges"]]
            + [["<|", "im_start|>"], ["im_end", "|>"]],
        },
    } | changes


def gemma_like(**spaces: Any) -> dict[str, Any]:
    """A tokenizer.json of Gemma's layout: BPE over ▁, with runs of spaces as added tokens.

    `spaces` are flags of these tokens.
    """
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<turn>"]
    runs = ["\n\n", "▁▁", "▁▁▁", "▁▁▁▁"]
    letters = list("▁\nthe<>/x0")
    merges = ["t h", "th e", "▁ the", "▁ ▁", "▁▁ ▁▁", "▁▁ ▁", "\n \n"]
    words = [merge.replace(" ", "") for merge in merges]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    texts = list(dict.fromkeys(control + runs + bytes_ + letters + words))
    split = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious"}
    return {
        "added_tokens": [
            {"id": texts.index(text), "content": text, "special": text in control}
            | (spaces if text in runs else {})
            for text in control + runs
        ],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        "pre_tokenizer": split | {"invert": False},
        "model": {
            "type": "BPE",
            "unk_token": "<unk>",
            "fuse_unk": True,
            "byte_fallback": True,
            "vocab": {text: id_ for id_, text in enumerate(texts)},
            "merges": [merge.split(" ") for merge in merges],
        },
    }


@functools.cache
def gemma() -> Vocabulary:
    return folder_vocabulary(gemma_like())


VOCABULARIES = {
    "characters": lambda: CHARACTERS,
    "qwen2": byte_bpe,
    "llama-bpe": lambda: byte_bpe(pre="llama-bpe"),
    "gpt-2": lambda: byte_bpe(pre="gpt-2"),
    "default": lambda: byte_bpe(pre="default"),
    "smollm-pre": lambda: byte_bpe(pre="smollm"),
    "folder": functools.cache(lambda: folder_vocabulary(llama_like())),
    "unigram": unigram,
    "gemma": gemma,
}
every = pytest.mark.parametrize("name", VOCABULARIES)

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)


def spliced(vocabulary: Vocabulary) -> st.SearchStrategy[str]:
    """Text with control strings, and parts of them, anywhere."""
    control = st.sampled_from([*vocabulary.control, "<|im_", "<|", "|>", " ", "  ", "▁", "the"])
    return st.lists(control | st.text(max_size=5), max_size=12).map("".join)


@every
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_text_becomes_a_control_token(name: str, data: st.DataObject) -> None:
    vocabulary = VOCABULARIES[name]()
    text = data.draw(spliced(vocabulary))
    tokens = vocabulary.encode(text)
    assert not set(tokens) & set(vocabulary.control.values())


@every
@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_decoding_gives_the_text_back(name: str, text: str) -> None:
    vocabulary = VOCABULARIES[name]()
    if name in ("unigram", "gemma"):
        text = text.replace("▁", " ")
    assert vocabulary.decode(vocabulary.encode(text)) == text


@every
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_stream_gives_the_same_text_as_decoding_at_once(name: str, data: st.DataObject) -> None:
    vocabulary = VOCABULARIES[name]()
    ids = st.sampled_from(
        [*vocabulary.encode("é€😀 the �\xff"), *vocabulary.control.values(), 99999]
    )
    batches = data.draw(st.lists(st.lists(ids | st.integers(0, 260), max_size=3), max_size=12))
    stream = TextStream(vocabulary)
    shown = "".join(stream.push(batch) for batch in batches) + stream.flush()
    assert shown == vocabulary.decode([token for batch in batches for token in batch])


def test_a_stream_holds_back_an_incomplete_character_and_nothing_else() -> None:
    stream = TextStream(CHARACTERS)
    shown = [stream.push([byte]) for byte in "a€b".encode()]
    assert shown == ["a", "", "", "€", "b"]
    assert stream.push([*b"c", 0xE2, 0x82]) == "c"
    assert stream.push([*b"d"]) == "�d"
    assert stream.flush() == ""


def test_a_stream_waits_across_tokens_without_text() -> None:
    stream = TextStream(Vocabulary.characters(control=("",)))
    assert [stream.push([token]) for token in (0xE2, 256, 0x82, 0xAC)] == ["", "", "", "€"]


def test_a_stream_of_broken_bytes_does_not_wait_for_the_end() -> None:
    stream = TextStream(CHARACTERS)
    shown = [stream.push([0xFF]) for _ in range(50)]
    assert "".join(shown).count("�") >= 49


def test_character_ids_are_bytes_and_control_tokens_follow() -> None:
    assert CHARACTERS.encode("hé") == (104, 0xC3, 0xA9)
    assert CHARACTERS.control == {"<|im_start|>": 256, "<|im_end|>": 257, "<|endoftext|>": 258}
    assert Vocabulary.characters(control=("<x>",)).control == {"<x>": 256}


def test_control_tokens_decode_to_their_text_and_unknown_ids_to_a_replacement() -> None:
    assert CHARACTERS.decode([256, 104, 257, 4000]) == "<|im_start|>h<|im_end|>�"


@every
def test_lone_surrogates_become_replacement_characters(name: str) -> None:
    vocabulary = VOCABULARIES[name]()
    assert vocabulary.decode(vocabulary.encode("a\ud800b\udfff")) == "a�b�"


def test_a_token_is_found_by_its_bytes_unless_several_share_them() -> None:
    assert CHARACTERS.id_of(b"h") == 104
    assert CHARACTERS.id_of(b"<|im_end|>") == 257
    assert CHARACTERS.id_of(b"hello") is None
    doubled = gguf_metadata()
    doubled["tokenizer.ggml.tokens"][264] = "th"
    assert Vocabulary.from_gguf(doubled).id_of(b"th") is None


def test_an_ordinary_token_wins_over_the_byte_that_says_the_same() -> None:
    source = gemma_like()
    ids, vocabulary = source["model"]["vocab"], folder_vocabulary(source)
    assert vocabulary.id_of(b"x") == ids["x"] and vocabulary.id_of(b"a") == ids["<0x61>"]
    assert vocabulary.id_of(b"  ") == ids["▁▁"]
    source["model"]["vocab"] |= {" the": len(ids)}
    assert folder_vocabulary(source).id_of(b" the") is None


@pytest.mark.parametrize("normalized", [False, True])
@given(text=st.lists(st.sampled_from([*"▁ \t\nthexé日", "  ", "the"]), max_size=30).map("".join))
@settings(max_examples=200, deadline=None)
def test_runs_of_spaces_that_are_added_tokens_are_the_tokens_of_the_library(
    normalized: bool, text: str
) -> None:
    source = complete(gemma_like(normalized=normalized))
    vocabulary = gemma() if not normalized else folder_vocabulary(source)
    library = tokenizers.Tokenizer.from_str(json.dumps(source))
    assert list(vocabulary.encode(text)) == library.encode(text, add_special_tokens=False).ids
    assert vocabulary.decode(vocabulary.encode(text)) == text.replace("▁", " ")


def test_white_space_that_a_model_lists_as_added_is_ordinary_text() -> None:
    for vocabulary in (byte_bpe(), folder_vocabulary(llama_like())):
        assert "    " not in vocabulary.control and "<tool_call>" in vocabulary.control
        assert vocabulary.encode("    ") == (264,)


def test_merges_make_the_words_of_the_model() -> None:
    assert byte_bpe().encode("the the") == (257, 258)


def test_added_tokens_of_the_configuration_count_too() -> None:
    config = {"added_tokens_decoder": {"256": {"content": "th", "special": True}}}
    vocabulary = folder_vocabulary(llama_like(), config)
    assert vocabulary.control["th"] == 256
    assert vocabulary.encode("th") == tuple(b"th")


def test_text_gets_no_leading_space() -> None:
    assert unigram().decode(unigram().encode("the")) == "the"
    assert folder_vocabulary(llama_like()).decode((116,)) == "t"


def test_the_folder_of_a_vocabulary_gives_the_same_tokens(tmp_path: Path) -> None:
    copy = Vocabulary.from_folder(character_folder(tmp_path))
    assert copy.control == CHARACTERS.control
    assert copy.encode("<|im_end|> é") == CHARACTERS.encode("<|im_end|> é")


BEGINS = {
    "type": "TemplateProcessing",
    "single": [
        {"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "<|im_end|>", "type_id": 0}},
    ],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
    "special_tokens": {
        text: {"id": text, "ids": [id_], "tokens": [text]}
        for text, id_ in (("<|im_start|>", 261), ("<|im_end|>", 262))
    },
}


@pytest.mark.parametrize(
    ("processor", "config", "start"),
    [
        (None, {}, ()),
        (BEGINS, {}, (261,)),
        ({"type": "Sequence", "processors": [{"type": "ByteLevel"}, BEGINS]}, {}, (261,)),
        (BEGINS, {"add_bos_token": False, "bos_token": "<|im_start|>"}, ()),
        (None, {"add_bos_token": True, "bos_token": {"content": "<|im_end|>"}}, (262,)),
        (None, {"add_bos_token": True, "bos_token": None}, ()),
    ],
)
def test_a_text_starts_as_the_models_own_tokenizer_starts_it(processor, config, start) -> None:
    vocabulary = folder_vocabulary(llama_like(post_processor=processor), config)
    assert vocabulary.start == start
    assert not set(start) & set(vocabulary.encode("the <|im_start|>"))
    rendering = render_text("the the", vocabulary)
    assert rendering.tokens == start + vocabulary.encode("the the")
    assert len(rendering.rings) == len(rendering.tokens) and rendering.text == "the the"
    with pytest.raises(RenderingError, match="empty"):
        render_text("", vocabulary)


@pytest.mark.parametrize(
    ("pre", "changes", "start"),
    [
        ("qwen2", {"tokenizer.ggml.bos_token_id": 261}, ()),
        (
            "qwen2",
            {"tokenizer.ggml.bos_token_id": 261, "tokenizer.ggml.add_bos_token": True},
            (261,),
        ),
        ("llama-bpe", {"tokenizer.ggml.bos_token_id": 261}, (261,)),
        (
            "llama-bpe",
            {"tokenizer.ggml.bos_token_id": 261, "tokenizer.ggml.add_bos_token": False},
            (),
        ),
        ("llama-bpe", {"tokenizer.ggml.bos_token_id": 7}, ()),
        ("llama-bpe", {}, ()),
    ],
)
def test_a_text_starts_as_a_gguf_file_says(pre, changes, start) -> None:
    assert Vocabulary.from_gguf(gguf_metadata(pre, **changes)).start == start


def test_a_message_of_gpt_oss_ends_no_reply() -> None:
    """Its reasoning ends with `<|end|>`, and the answer follows."""
    from ringfence.engines.descriptions import _ends

    harmony = Vocabulary.characters(["<|return|>", "<|call|>", "<|end|>", "<|channel|>"])
    assert _ends(harmony, [256, 257]) == {256, 257}
    phi = Vocabulary.characters(["<|endoftext|>", "<|end|>"])
    assert _ends(phi, [256]) == {256, 257}


@pytest.mark.parametrize("text", ["<0x0A>", "a<0x3C>turn>", "<<0x3C>/s>", "<0xFF><0x00>"])
def test_text_that_spells_a_token_of_one_byte_stays_text(text: str) -> None:
    for vocabulary in (unigram(), gemma()):
        assert vocabulary.decode(vocabulary.encode(text)) == text


def test_an_unknown_splitting_names_the_way_out() -> None:
    with pytest.raises(EngineError, match="'tekken'.*Pass tokenizer=FOLDER"):
        byte_bpe(pre="tekken")


def test_a_tokenizer_that_is_no_byte_level_bpe_names_the_way_out() -> None:
    with pytest.raises(EngineError, match="'llama'.*Pass tokenizer=FOLDER"):
        Vocabulary.from_gguf(gguf_metadata(**{"tokenizer.ggml.model": "llama"}))


@pytest.mark.parametrize("key", ["tokens", "token_type"])
def test_missing_token_lists_are_an_error(key: str) -> None:
    metadata = gguf_metadata()
    del metadata[f"tokenizer.ggml.{key}"]
    with pytest.raises(EngineError, match="missing or broken"):
        Vocabulary.from_gguf(metadata)


def test_broken_merges_are_an_error() -> None:
    with pytest.raises(EngineError, match="merges cannot be used"):
        Vocabulary.from_gguf(gguf_metadata(**{"tokenizer.ggml.merges": ["th", 5]}))


def test_a_vocabulary_that_cannot_spell_everything_is_refused() -> None:
    with pytest.raises(EngineError, match="byte_fallback"):
        folder_vocabulary(UNIGRAM | {"model": UNIGRAM["model"] | {"byte_fallback": False}})


def test_a_bpe_of_words_that_cannot_spell_everything_is_refused() -> None:
    source = gemma_like()
    source["model"]["byte_fallback"] = False
    with pytest.raises(EngineError, match="byte_fallback"):
        folder_vocabulary(source)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_file_that_nests_too_deeply_is_an_error(tmp_path: Path, name: str) -> None:
    character_folder(tmp_path)
    (tmp_path / name).write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    with pytest.raises(EngineError, match=name):
        Vocabulary.from_folder(tmp_path)


def test_a_folder_without_a_tokenizer_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"tokenizer\.json does not exist"):
        Vocabulary.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{", "{}", '{"model": {"type": "WordPiece"}}'])
def test_a_broken_tokenizer_file_names_the_folder(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(EngineError, match=str(tmp_path)):
        Vocabulary.from_folder(tmp_path)


@pytest.mark.parametrize(
    "text",
    ["a" * 10**6, " " * 10**6 + "x", "\n " * 500_000, "<|im_start|>" * 83_000, "'s" * 500_000],
    ids=["letters", "spaces", "lines", "control", "apostrophes"],
)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "default"])
def test_a_megabyte_is_encoded_in_seconds(name: str, text: str) -> None:
    vocabulary = VOCABULARIES[name]()
    begun = time.process_time()
    tokens = vocabulary.encode(text)
    assert time.process_time() - begun < 10
    assert vocabulary.decode(tokens) == text


@pytest.mark.model
@given(text=texts)
@settings(max_examples=60, deadline=None)
def test_smollm_gives_text_back_as_far_as_it_has_tokens(text: str) -> None:
    text = "".join(c for c in text if c not in MISSING and ord(c) < 0x40000)
    assert smollm().decode(smollm().encode(text)) == text


@pytest.mark.model
@given(text=spliced(CHARACTERS))
@settings(max_examples=60, deadline=None)
def test_no_text_becomes_a_control_token_of_smollm(text: str) -> None:
    assert min(smollm().encode(text), default=17) >= 17


@pytest.mark.model
def test_reading_the_packaged_models_metadata_is_quick() -> None:
    begun = time.process_time()
    metadata = read_metadata(packaged_model())
    assert time.process_time() - begun < 1
    assert metadata["llama.context_length"] == 8192
    assert metadata["tokenizer.ggml.add_bos_token"] is False
    assert len(metadata["tokenizer.ggml.tokens"]) == 49152
    assert "<|im_start|>" in metadata["tokenizer.chat_template"]


def gguf_file(*entries: bytes, count: int | None = None, version: int = 3) -> bytes:
    keys = len(entries) if count is None else count
    return b"GGUF" + struct.pack("<IQQ", version, 0, keys) + b"".join(entries)


def entry(key: bytes, type_: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(key)) + key + struct.pack("<I", type_) + value


def written_gguf(path: Path, metadata: dict[str, Any]) -> Path:
    """A GGUF file without tensors."""

    def packed(value: Any) -> tuple[int, bytes]:
        if isinstance(value, str):
            return 8, struct.pack("<Q", len(value.encode())) + value.encode()
        if isinstance(value, int):
            return 4, struct.pack("<I", value)
        kinds, parts = zip(*map(packed, value), strict=True)
        return 9, struct.pack("<IQ", kinds[0], len(value)) + b"".join(parts)

    entries = [entry(key.encode(), *packed(value)) for key, value in metadata.items()]
    path.write_bytes(gguf_file(*entries))
    return path


def test_a_gguf_file_of_another_tokenizer_takes_that_of_a_folder(tmp_path: Path) -> None:
    folder = character_folder(tmp_path / "tokenizer")
    texts = [*(chr(0x100 + byte) for byte in range(256)), *CHARACTERS.control, "[PAD0]"]
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": texts,
        "tokenizer.ggml.eos_token_id": 257,
    }
    file = written_gguf(tmp_path / "tiny.gguf", metadata)
    with pytest.raises(EngineError, match="Pass tokenizer=FOLDER"):
        describe(file)
    found = describe(file, folder)
    assert found.tokenizer.encode("hé") == CHARACTERS.encode("hé")
    assert (found.name, found.eos, found.ids) == ("tiny", "<|im_end|>", 260)
    assert found.ends == {257, 258}
    for change, complaint in (
        ({"tokenizer.ggml.tokens": texts[:258]}, "up to 258.*258 tokens"),
        ({"tokenizer.ggml.tokens": [*texts[:257], "<other>", *texts[258:]]}, "'<other>' as 257"),
        ({"tokenizer.ggml.tokens": 3}, "missing or broken"),
    ):
        written_gguf(file, metadata | change)
        with pytest.raises(EngineError, match=complaint):
            describe(file, folder)
    with pytest.raises(EngineError, match="has a tokenizer of its own"):
        describe(folder, folder)


@pytest.mark.parametrize(
    "kind",
    [pytest.param("embedded", marks=pytest.mark.model), pytest.param("hf", marks=pytest.mark.hf)],
)
async def test_engines_of_gguf_files_take_the_tokenizer_of_a_folder(
    tmp_path: Path, kind: str
) -> None:
    texts = [*(chr(0x100 + byte) for byte in range(256)), *CHARACTERS.control]
    metadata = {"tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": texts}
    file = written_gguf(tmp_path / "tiny.gguf", metadata)
    with pytest.raises(EngineError, match="Pass tokenizer=FOLDER"):
        await open_engine(f"{kind}:{file}")
    # The tokenizer will do; a model without weights will not.
    with pytest.raises(EngineError, match="llama.cpp cannot serve|cannot be loaded by"):
        await open_engine(f"{kind}:{file}", tokenizer=character_folder(tmp_path / "tokenizer"))


@pytest.mark.parametrize(
    "change",
    [
        {"tokenizer.chat_template": 7},
        {"tokenizer.chat_template": ["{{ messages }}"]},
        {"tokenizer.ggml.pre": ["qwen2"]},
    ],
)
def test_metadata_of_another_type_than_it_should_have_is_an_error(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    file = written_gguf(tmp_path / "odd.gguf", gguf_metadata() | change)
    with pytest.raises(EngineError, match=r"odd\.gguf"):
        describe(file)


def test_metadata_of_every_type_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    strings = struct.pack("<IQ", 8, 2) + struct.pack("<Q1sQ2s", 1, b"x", 2, "é".encode())
    path.write_bytes(
        gguf_file(
            entry(b"u8", 0, b"\xff"),
            entry(b"i64", 11, struct.pack("<q", -5)),
            entry(b"f", 6, struct.pack("<f", 0.5)),
            entry(b"b", 7, b"\x01"),
            entry(b"s", 8, struct.pack("<Q", 3) + b"a\xff\x00"),
            entry(b"list", 9, strings),
            entry(b"ints", 9, struct.pack("<IQ3i", 5, 3, 1, -2, 3)),
        )
    )
    assert read_metadata(path) == {
        "u8": 255,
        "i64": -5,
        "f": 0.5,
        "b": True,
        "s": "a�\x00",
        "list": ["x", "é"],
        "ints": [1, -2, 3],
    }


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "not a usable GGUF"),
        (b"PK\x03\x04 and more", "does not begin"),
        (gguf_file(version=1), "version 1"),
        (gguf_file(count=2**63), "metadata keys"),
        (gguf_file(count=1), "incomplete"),
        (gguf_file(struct.pack("<Q", 2**62)), "incomplete"),
        (gguf_file(entry(b"k", 99, b"")), "'k' has the unknown type 99"),
        (gguf_file(entry(b"k", 9, struct.pack("<IQ", 8, 2**61))), "'k' claims"),
        (gguf_file(entry(b"k", 9, struct.pack("<IQ", 9, 1))), "unsupported type 9"),
        (gguf_file(entry(b"k", 8, struct.pack("<Q", 2**64 - 1))), "incomplete"),
    ],
)
def test_a_hostile_file_is_refused_by_name(tmp_path: Path, content: bytes, complaint: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(content)
    with pytest.raises(EngineError, match=complaint) as raised:
        read_metadata(path)
    assert "hostile.gguf" in str(raised.value)


def test_every_cut_of_a_file_is_refused(tmp_path: Path) -> None:
    strings = struct.pack("<IQQ1s", 8, 1, 1, b"x")
    whole = gguf_file(entry(b"list", 9, strings), entry(b"n", 4, b"\x01\x00\x00\x00"))
    path = tmp_path / "cut.gguf"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(EngineError, match=r"cut\.gguf"):
            read_metadata(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.gguf", tmp_path):
        with pytest.raises(EngineError, match="cannot be read"):
            read_metadata(path)


def test_the_home_of_a_user_who_does_not_exist_is_an_error_of_the_engine() -> None:
    with pytest.raises(EngineError, match=r"~nobody-here/m\.gguf.*cannot be read"):
        describe("~nobody-here/m.gguf")
    with pytest.raises(EngineError, match="~nobody-here/m does not exist"):
        find_weights("~nobody-here/m")
