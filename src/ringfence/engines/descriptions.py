"""What a model's files say about it, weights aside. Knows nothing of servers or of torch."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import EngineError
from ringfence.gguf_metadata import read_metadata
from ringfence.tokenizer_json import special_text
from ringfence.vocabulary import Vocabulary

# Tokens that end a turn or a text wherever they exist. Files name often only one of them, and a
# reply that runs past its end goes on as the user. In the format of gpt-oss `<|end|>` ends one of
# several messages of a reply, of which the last is what was asked for.
_ENDS = (
    "<|im_end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|end|>",
    "<|return|>",
    "<end_of_turn>",
    "<eos>",
    "</s>",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """A model as its files describe it.

    Attributes:
        name: of the folder, or of the GGUF file without its ending and quantisation.
        tokenizer: made of these files.
        template: source of the chat template (Jinja), None if there is none.
        bos: text of the beginning-of-sequence token, empty if there is none; `eos` likewise.
        ends: ids that end a reply.
        context: longest sequence the model was made for, None if the files do not say.
        ids: how many token ids the model knows, None if the files do not say.
    """

    name: str
    tokenizer: Vocabulary
    template: str | None
    bos: str
    eos: str
    ends: frozenset[int]
    context: int | None
    ids: int | None


def describe(path: str | Path, tokenizer: str | Path | None = None) -> Description:
    """Describe a model by a GGUF file, or by a folder with `tokenizer.json`.

    Args:
        path: the file or the folder.
        tokenizer: a folder with the `tokenizer.json` of a GGUF file's model, which is read in place
            of what the file says of it.

    Raises:
        EngineError: nothing is there, or it cannot be used; the message says why.
    """
    found = Path(os.path.expanduser(path))
    if not found.is_dir():
        return _from_gguf(found, tokenizer)
    if tokenizer is not None:
        raise EngineError(f"{found} has a tokenizer of its own; tokenizer is for a GGUF file's")
    return _from_folder(found)


def _from_gguf(path: Path, folder: str | Path | None) -> Description:
    metadata = read_metadata(path)
    texts = metadata.get("tokenizer.ggml.tokens")
    try:
        if folder is None:
            tokenizer = Vocabulary.from_gguf(metadata)
        else:
            tokenizer = Vocabulary.from_folder(Path(os.path.expanduser(folder)))
        template = _source(metadata.get("tokenizer.chat_template"))
    except EngineError as error:
        raise EngineError(f"{path}: {error}") from error
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise EngineError(f"{path}: the GGUF file's token list is missing or broken")
    special = {
        role: metadata.get(f"tokenizer.ggml.{role}_token_id") for role in ("bos", "eos", "eot")
    } | {"eom": metadata.get("tokenizer.ggml.eom_token_id")}

    def text(role: str) -> str:
        id_ = special[role]
        return texts[id_] if isinstance(id_, int) and 0 <= id_ < len(texts) else ""

    if folder is not None:
        named = {text(role): special[role] for role in special if text(role)}
        _refuse_other(tokenizer, f"{folder}: its tokenizer", len(texts), named)
    architecture = metadata.get("general.architecture")
    return Description(
        name=path.stem.rsplit(".Q", 1)[0],
        tokenizer=tokenizer,
        template=template,
        bos=text("bos"),
        eos=text("eos"),
        ends=_ends(tokenizer, (special[role] for role in ("eos", "eot", "eom"))),
        context=_number(metadata.get(f"{architecture}.context_length")),
        ids=len(texts),
    )


def _from_folder(folder: Path) -> Description:
    tokenizer = Vocabulary.from_folder(folder)
    config = _settings(folder / "tokenizer_config.json")
    model = _settings(folder / "config.json")
    generation = _settings(folder / "generation_config.json")
    eos = special_text(config.get("eos_token"))
    named = [*_listed(generation.get("eos_token_id")), *_listed(model.get("eos_token_id"))]
    return Description(
        name=folder.resolve().name,
        tokenizer=tokenizer,
        template=_template(folder, config),
        bos=special_text(config.get("bos_token")),
        eos=eos,
        ends=_ends(tokenizer, [*named, tokenizer.control.get(eos)]),
        context=_number(model.get("max_position_embeddings")),
        ids=_number(model.get("vocab_size")),
    )


def _refuse_other(
    tokenizer: Vocabulary, what: str, ids: int, named: Mapping[str, int | None]
) -> None:
    """Refuse the tokenizer of another model.

    Args:
        tokenizer: to be used with the model.
        what: what to call it.
        ids: how many tokens the model's file has.
        named: its special tokens.
    """
    if tokenizer.highest >= ids:
        raise EngineError(
            f"{what} has ids up to {tokenizer.highest}, the GGUF file {ids} tokens. Is it the "
            "model's?"
        )
    for text, id_ in named.items():
        if tokenizer.control.get(text) != id_:
            raise EngineError(
                f"{what} has no {text!r} as {id_}, which the GGUF file has. Is it the model's?"
            )


def _ends(tokenizer: Vocabulary, named: Iterable[int | None]) -> frozenset[int]:
    harmony = {"<|channel|>", "<|return|>"} <= tokenizer.control.keys()
    known = (tokenizer.control.get(text) for text in _ENDS if not (harmony and text == "<|end|>"))
    return frozenset(id_ for id_ in (*named, *known) if isinstance(id_, int))


def _listed(value: Any) -> list[int]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(settings, dict):
        raise EngineError(f"{path} holds no JSON object")
    return settings


def _template(folder: Path, config: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise EngineError(f"{file} cannot be read: {error}") from error
    try:
        return _source(config.get("chat_template"))
    except EngineError as error:
        raise EngineError(f"{folder}/tokenizer_config.json: {error}") from error


def _source(template: Any) -> str | None:
    """A template's source: text, or the default of several by name.

    Raises:
        EngineError: it is something else.
    """
    if template is None or isinstance(template, str):
        return template
    named: dict[str, str] = {}
    for entry in template if isinstance(template, list) else [None]:
        match entry:
            case {"name": str(name), "template": str(source)}:
                named[name] = source
            case _:
                raise EngineError(
                    "chat_template is neither text nor a list of objects with name and template"
                )
    return named.get("default")


def _number(value: Any) -> int | None:
    return value if isinstance(value, int) else None
