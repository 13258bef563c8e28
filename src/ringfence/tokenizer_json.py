"""A model folder's `tokenizer.json`, its control tokens taken out. Knows nothing of encoding."""

from __future__ import annotations

import itertools
import json
import secrets
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.errors import EngineError


@dataclass(frozen=True, slots=True, kw_only=True)
class PlainTokenizer:
    """A tokenizer that knows ordinary text only, and what was taken out of it.

    Attributes:
        encoder: JSON for the `tokenizers` library.
        byte_level: tokens are written in GPT-2's byte alphabet; else a space is ▁.
        vocabulary: ordinary tokens and their ids.
        spaces: added tokens of white space alone; they are ordinary text too.
        control: every other added token.
        strips_left: control tokens that take the white space before them away.
        strips_right: those that take it away behind them.
        start: ids that the model's own tokenizer puts in front of a text.
    """

    encoder: str
    byte_level: bool
    vocabulary: Mapping[str, int]
    spaces: Mapping[str, int]
    control: Mapping[str, int]
    strips_left: frozenset[str]
    strips_right: frozenset[str]
    start: tuple[int, ...]


def read_folder(folder: str | Path) -> PlainTokenizer:
    """Read `tokenizer.json`, and the added tokens of `tokenizer_config.json` if it exists.

    Raises:
        EngineError: the files are missing, broken, or of a kind not supported here.
    """
    source = _read_json(Path(folder) / "tokenizer.json")
    config_path = Path(folder) / "tokenizer_config.json"
    config = _read_json(config_path) if config_path.exists() else {}
    try:
        return _plain(source, _added_tokens(source, config), config)
    except EngineError as error:
        raise EngineError(f"{folder}: {error}") from error
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise EngineError(f"{folder}/tokenizer.json cannot be used: {error!r}") from error


def special_text(token: Any) -> str:
    """A special token of a configuration is its text, or an object with it under `content`."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


def _plain(
    source: dict[str, Any], added: Mapping[str, Mapping[str, Any]], config: Mapping[str, Any]
) -> PlainTokenizer:
    kind = _kind(source)
    ids = {text: int(token["id"]) for text, token in added.items()}
    control = {
        text: id_ for text, id_ in ids.items() if kind == "unigram" or not _blank(text, kind)
    }
    spaces = {text: id_ for text, id_ in ids.items() if text not in control}
    vocabulary = _strip_control(source["model"], kind, set(control.values()), spaces)
    return PlainTokenizer(
        encoder=json.dumps(source | _neutral_settings(source, kind, spaces)),
        byte_level=kind == "byte-level",
        vocabulary=vocabulary,
        spaces=spaces,
        control=control,
        strips_left=frozenset(text for text in control if added[text].get("lstrip")),
        strips_right=frozenset(text for text in control if added[text].get("rstrip")),
        start=_start(source, config, control),
    )


def _start(
    source: Mapping[str, Any], config: Mapping[str, Any], control: Mapping[str, int]
) -> tuple[int, ...]:
    """What the tokenizer puts in front of a text, unless its configuration says otherwise."""
    asked = config.get("add_bos_token")
    if asked is not None:
        bos = control.get(special_text(config.get("bos_token")))
        return (bos,) if asked and bos is not None else ()
    for step in _parts_of(source.get("post_processor"), "processors"):
        if step["type"] == "TemplateProcessing":
            leading = itertools.takewhile(lambda part: "SpecialToken" in part, step["single"])
            names = [part["SpecialToken"]["id"] for part in leading]
            return tuple(id_ for name in names for id_ in step["special_tokens"][name]["ids"])
    return ()


def merges_within(
    merges: Iterable[str | Sequence[str]], vocabulary: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The merges that start from and lead to ordinary tokens."""
    pairs = (merge.split(" ", 1) if isinstance(merge, str) else merge for merge in merges)
    return [
        (left, right)
        for left, right in pairs
        if left in vocabulary and right in vocabulary and left + right in vocabulary
    ]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise EngineError(
            f"{path} does not exist. The tokenizer folder is the one that holds the model's "
            "tokenizer.json."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise EngineError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise EngineError(f"{path} holds no JSON object")
    return content


def _added_tokens(
    source: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Every added token by its text, special or not; as in transformers, the second file wins."""
    added = {token["content"]: token for token in source.get("added_tokens") or []}
    for id_, token in (config.get("added_tokens_decoder") or {}).items():
        added[token["content"]] = token | {"id": id_}
    return added


def _blank(text: str, kind: str) -> bool:
    """Whether an added token is white space alone, as the runs of spaces of Gemma are."""
    return not (text.replace("▁", " ") if kind == "sentencepiece" else text).strip()


def _parts_of(component: Mapping[str, Any] | None, *lists: str) -> list[dict[str, Any]]:
    """A pipeline component as a flat list: itself, or the steps of a Sequence."""
    if component is None:
        return []
    for name in lists:
        if name in component:
            return list(component[name])
    return [dict(component)]


def _kind(source: Mapping[str, Any]) -> str:
    """`byte-level`, `sentencepiece` (BPE over ▁) or `unigram`; anything else is an error."""
    model = source["model"].get("type", "BPE")
    steps = _parts_of(source.get("pre_tokenizer"), "pretokenizers")
    if model == "BPE":
        byte_level = any(step["type"] == "ByteLevel" for step in steps)
        return "byte-level" if byte_level else "sentencepiece"
    if model == "Unigram":
        return "unigram"
    raise EngineError(f"{model} tokenizers are not supported; BPE and Unigram are")


def _strip_control(
    model: dict[str, Any], kind: str, control: set[int], spaces: dict[str, int]
) -> dict[str, int]:
    """Take the control tokens out of a tokenizer's model, in place; returns what is left.

    Tokens of white space alone are ordinary text even where a model lists them as added.
    """
    if kind == "unigram":
        return _strip_unigram(model, control)
    if kind == "sentencepiece" and not model.get("byte_fallback"):
        raise EngineError(
            "BPE tokenizers without a step ByteLevel are supported with byte_fallback only; "
            "without, text they cannot spell is lost"
        )
    vocabulary = {text: id_ for text, id_ in model["vocab"].items() if id_ not in control}
    model["merges"] = merges_within(model["merges"], vocabulary)
    model["vocab"] = vocabulary | spaces
    # Bytes spell every character, so there is nothing for an unknown token to stand for.
    model["unk_token"] = None
    return vocabulary


def _strip_unigram(model: dict[str, Any], control: set[int]) -> dict[str, int]:
    if not model.get("byte_fallback"):
        raise EngineError(
            "Unigram tokenizers are supported with byte_fallback only; without, text they cannot "
            "spell becomes a control token, <unk>"
        )
    kept = {piece: id_ for id_, (piece, _) in enumerate(model["vocab"]) if id_ not in control}
    # An id is an index here, so entries cannot be removed: they get a text nobody can guess.
    model["vocab"] = [
        [secrets.token_hex(16), score] if id_ in control else [piece, score]
        for id_, (piece, score) in enumerate(model["vocab"])
    ]
    return kept


def _neutral_settings(
    source: Mapping[str, Any], kind: str, spaces: Mapping[str, int]
) -> dict[str, Any]:
    """Replacements that switch off everything that adds, cuts, pads or prefixes."""
    steps = _parts_of(source.get("pre_tokenizer"), "pretokenizers")
    for step in steps:
        step.update({"add_prefix_space": False} if step["type"] == "ByteLevel" else {})
        step.update({"prepend_scheme": "never"} if step["type"] == "Metaspace" else {})
    if kind == "unigram":
        # Text that spells a token of one byte is text, as to SentencePiece.
        steps.append(
            {
                "type": "Split",
                "pattern": {"Regex": "<(?=0x[0-9A-F]{2}>)"},
                "behavior": "Isolated",
                "invert": False,
            }
        )
    normal = [
        step
        for step in _parts_of(source.get("normalizer"), "normalizers")
        if step["type"] != "Prepend"
    ]
    return {
        "added_tokens": [
            token for token in source.get("added_tokens") or [] if token["content"] in spaces
        ],
        "post_processor": None,
        "truncation": None,
        "padding": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps} if steps else None,
        "normalizer": {"type": "Sequence", "normalizers": normal} if normal else None,
    }
