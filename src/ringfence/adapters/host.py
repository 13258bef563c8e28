"""The model an adapter is for, as far as an adapter can tell one from another. Reads no weights."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ringfence.errors import EngineError, InputError
from ringfence.gguf_metadata import read_metadata
from ringfence.vocabulary import Vocabulary
from ringfence.yaml_files import explain

FILE = "ringfence_host.json"

# What transformers calls an architecture → what llama.cpp calls it, where the two differ.
_LLAMA_NAMES = {"mistral": "llama", "gemma3_text": "gemma3"}


class OtherModelError(InputError):
    """An adapter is used with another model than its own."""


class Host(BaseModel):
    """A base model. None is unknown, and fits everything.

    Attributes:
        format: of the file this is kept in.
        architecture: by llama.cpp's name.
        layers: decoder blocks.
        hidden: width of the residual stream.
        feed_forward: inner width of a block's feed-forward part.
        heads: of attention; `kv_heads` those of keys and values, `head` the width of one.
        tied: the output layer is the input embedding.
        tokenizer: SHA-256 of the ordinary tokens, see `tokenizer_hash`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    architecture: str
    layers: int
    hidden: int
    feed_forward: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head: int | None = None
    tied: bool | None = None
    tokenizer: str | None = None

    def refuse(self, other: Host, what: str) -> None:
        """Check that an adapter for this model is used with this model.

        Raises:
            OtherModelError: `other` is another model; names the first difference.
        """
        for field in type(self).model_fields:
            mine, yours = getattr(self, field), getattr(other, field)
            if field != "tied" and None not in (mine, yours) and mine != yours:
                raise OtherModelError(
                    f"{what} is for another model: {field} is {mine} there and {yours} here. Use "
                    "the model it was trained on, or --adapter none."
                )


def host_of(path: Path, vocabulary: Vocabulary | None = None) -> Host:
    """Describe a model by its GGUF file, or by its folder.

    Args:
        path: of the model.
        vocabulary: of the model, if it is at hand; else it is read, and left out if it cannot be.

    Raises:
        InputError: the files do not say what is needed.
    """
    return _from_folder(path, vocabulary) if path.is_dir() else _from_gguf(path, vocabulary)


def read_host(folder: Path) -> Host | None:
    """What `write_host` wrote; None if it wrote nothing.

    Raises:
        InputError: a broken file.
    """
    file = folder / FILE
    if not file.is_file():
        return None
    try:
        return Host.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as error:
        why = explain(error) if isinstance(error, ValidationError) else str(error)
        raise InputError(f"{file}: {why}") from None


def write_host(folder: Path, host: Host) -> None:
    """Keep beside an adapter which model it is for."""
    (folder / FILE).write_text(host.model_dump_json(indent=2) + "\n", "utf-8")


def tokenizer_hash(vocabulary: Vocabulary, ids: int) -> str:
    """SHA-256 over id and bytes of every ordinary token below `ids`.

    The same for a model's folder and its GGUF file. Control tokens are left out: fine-tuned
    versions of one model rename them, and converters add some.
    """
    digest = hashlib.sha256()
    control = set(vocabulary.control.values())
    for id_ in range(ids):
        piece = vocabulary.bytes_of(id_)
        if piece is not None and id_ not in control:
            digest.update(struct.pack("<II", id_, len(piece)) + piece)
    return digest.hexdigest()


def _from_gguf(path: Path, vocabulary: Vocabulary | None) -> Host:
    try:
        metadata = read_metadata(path)
    except EngineError as error:
        raise InputError(str(error)) from error
    if metadata.get("general.type", "model") != "model":
        raise InputError(f"{path} is a GGUF file of the type {metadata['general.type']}, no model")
    name = metadata.get("general.architecture")

    def number(key: str) -> int | None:
        value = metadata.get(f"{name}.{key}")
        return value if isinstance(value, int) else None

    layers, hidden = number("block_count"), number("embedding_length")
    if not isinstance(name, str) or layers is None or hidden is None:
        raise InputError(f"{path}: names no architecture, block_count or embedding_length")
    heads = number("attention.head_count")
    tokens = metadata.get("tokenizer.ggml.tokens")
    if vocabulary is None:
        try:
            vocabulary = Vocabulary.from_gguf(metadata)
        except EngineError:
            vocabulary = None
    return Host(
        architecture=name,
        layers=layers,
        hidden=hidden,
        feed_forward=number("feed_forward_length"),
        heads=heads,
        # Where blocks differ, a list says so, and nothing is known of one for all.
        kv_heads=number("attention.head_count_kv")
        or (None if f"{name}.attention.head_count_kv" in metadata else heads),
        head=number("attention.key_length") or (hidden // heads if heads else None),
        tokenizer=_hashed(vocabulary, len(tokens) if isinstance(tokens, list) else None),
    )


def _from_folder(folder: Path, vocabulary: Vocabulary | None) -> Host:
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read as JSON: {error}") from error
    if vocabulary is None:
        try:
            vocabulary = Vocabulary.from_folder(folder)
        except EngineError:
            vocabulary = None
    return host_of_config(config, str(file), vocabulary)


def host_of_config(
    config: dict[str, Any], where: str, vocabulary: Vocabulary | None = None
) -> Host:
    """Describe a model by its transformers config, as a dictionary.

    Raises:
        InputError: the config does not say what is needed; `where` names it.
    """
    if isinstance(config.get("text_config"), dict):
        config = config | config["text_config"]

    def number(*keys: str) -> int | None:
        """The first of these that is one number; blocks that differ have a list of them."""
        found = (config.get(key) for key in keys)
        return next((value for value in found if type(value) is int), None)

    # GPT-2 and its kin have names of their own.
    layers = number("num_hidden_layers", "n_layer")
    hidden = number("hidden_size", "n_embd")
    name, tied = config.get("model_type"), config.get("tie_word_embeddings")
    if not isinstance(name, str) or layers is None or hidden is None:
        raise InputError(f"{where}: names no model_type, num_hidden_layers or hidden_size")
    heads = number("num_attention_heads", "n_head")
    return Host(
        architecture=_LLAMA_NAMES.get(name, name),
        layers=layers,
        hidden=hidden,
        feed_forward=number("intermediate_size", "n_inner"),
        heads=heads,
        kv_heads=number("num_key_value_heads") or heads,
        head=number("head_dim") or (hidden // heads if heads else None),
        tied=tied if isinstance(tied, bool) else None,
        tokenizer=_hashed(vocabulary, number("vocab_size")),
    )


def _hashed(vocabulary: Vocabulary | None, ids: int | None) -> str | None:
    return tokenizer_hash(vocabulary, ids) if vocabulary is not None and ids else None
