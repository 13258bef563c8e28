"""Model folders, GGUF files and hub repositories: what lies in them, loaded. Knows no engine.

Model files are data here and stay data: weights are taken from safetensors or GGUF only, since
unpickling is running code, and Python files are neither downloaded nor run.
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence.engine import Tokenizer
from ringfence.errors import EngineError
from ringfence.gguf_metadata import read_metadata
from ringfence.vocabulary import Vocabulary

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_WANTED = ("*.safetensors", "*.json", "*.jinja")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFiles:
    """A model on this disk.

    Attributes:
        name: of the folder, of the GGUF file without its ending, or on the hub.
        folder: holds the files.
        gguf: name of the GGUF file in `folder` that holds the model; None for safetensors.
        tokenizer: made of these files.
        template: source of the chat template (Jinja), None if there is none.
        bos: text of the beginning-of-sequence token, empty if there is none; `eos` likewise.
    """

    name: str
    folder: Path
    gguf: str | None
    tokenizer: Tokenizer
    template: str | None
    bos: str
    eos: str


def find_model(path: str | Path) -> ModelFiles:
    """Find a model: a folder, a GGUF file, or `owner/name` on the Hugging Face hub.

    A path that exists wins over a hub name of the same spelling.

    Raises:
        EngineError: nothing is there, or something that is no model, or is refused.
    """
    found = Path(path).expanduser().resolve()
    if found.is_file():
        return _from_gguf(found)
    if found.is_dir():
        return _from_folder(found, found.name)
    if not _HUB_NAME.fullmatch(str(path)):
        raise EngineError(f"{path} does not exist; name a model folder or a GGUF file")
    return _from_folder(_download(str(path)), str(path))


def _download(name: str) -> Path:
    try:
        hub = importlib.import_module("huggingface_hub")
        return Path(
            # Files in subfolders are copies of the same weights in other formats.
            hub.snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=["*/*"])
        )
    except Exception as error:  # network, authorisation, a missing library or repository
        raise EngineError(
            f"{name} is no path here, and cannot be downloaded from the hub: {error}. For a gated "
            "model, `hf auth login` first; without a network, name a local folder."
        ) from error


def _from_folder(folder: Path, name: str) -> ModelFiles:
    _refuse_other_weights(folder)
    settings = _settings(folder / "tokenizer_config.json")
    return ModelFiles(
        name=name,
        folder=folder,
        gguf=None,
        tokenizer=Vocabulary.from_folder(folder),
        template=_template(folder, settings),
        bos=_token_text(settings.get("bos_token")),
        eos=_token_text(settings.get("eos_token")),
    )


def _refuse_other_weights(folder: Path) -> None:
    """Say which of the usual reasons makes this folder no model."""
    if (folder / "adapter_config.json").exists():
        raise EngineError(
            f"{folder} is an adapter; merge it into its model first (merge_and_unload in peft)"
        )
    if not (folder / "config.json").exists():
        files = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f"; did you mean {folder / files[0]}?" if files else ""
        raise EngineError(f"{folder} is no model folder, it has no config.json{hint}")
    if any(folder.glob("*.safetensors")):
        return
    if any(file for pattern in _PICKLES for file in folder.glob(pattern)):
        raise EngineError(
            f"{folder} holds pickled weights, and reading a pickle can run any code. Convert them "
            "to safetensors where that does no harm, or take the model's safetensors version."
        )
    raise EngineError(f"{folder} holds no weights (*.safetensors)")


def _settings(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(settings, dict):
        raise EngineError(f"{path} holds no JSON object")
    return settings


def _template(folder: Path, settings: Mapping[str, Any]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    template = settings.get("chat_template")
    if isinstance(template, list):  # several by name: [{"name": …, "template": …}]
        return {entry["name"]: entry["template"] for entry in template}.get("default")
    return template


def _token_text(token: Any) -> str:
    """A special token is its text, or an object with the text under `content`."""
    return str(token.get("content", "") if isinstance(token, dict) else token or "")


def _from_gguf(path: Path) -> ModelFiles:
    metadata = read_metadata(path)
    texts = metadata.get("tokenizer.ggml.tokens", [])

    def text(role: str) -> str:
        id_ = metadata.get(f"tokenizer.ggml.{role}_token_id")
        return texts[id_] if isinstance(id_, int) and id_ < len(texts) else ""

    return ModelFiles(
        name=path.stem,
        folder=path.parent,
        gguf=path.name,
        tokenizer=Vocabulary.from_gguf(metadata),
        template=metadata.get("tokenizer.chat_template"),
        bos=text("bos"),
        eos=text("eos"),
    )


def import_library(name: str) -> Any:
    """Import torch or transformers, which are optional and slow to import.

    Raises:
        EngineError: it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"a model in this process needs torch and transformers, and {name} cannot be imported "
            f"({error}). pip install 'ringfence[hf]', or open a server by its http:// address."
        ) from error


def load_model(files: ModelFiles, device: str, dtype: str) -> Any:
    """Load a causal language model: safetensors, or GGUF unpacked into plain weights.

    Args:
        files: what to load.
        device: such as `cpu` or `cuda:0`.
        dtype: such as `float32`; `auto` is the checkpoint's own.

    Returns:
        The transformers model, in evaluation mode, without gradients on its parameters.

    Raises:
        EngineError: an unknown architecture, or one that needs code of the folder; weights missing
            or of another shape; too little memory; no such device or type.
    """
    transformers = import_library("transformers")
    common = {"trust_remote_code": False, "local_files_only": True}
    gguf = {"gguf_file": files.gguf} if files.gguf else {}
    try:
        config = transformers.AutoConfig.from_pretrained(files.folder, **common, **gguf)
        # A config may name an attention kernel on the hub, which is code: take the default.
        config._attn_implementation = None
        if gguf:
            gguf["quantization_config"] = transformers.GgufConfig(dequantize=True)
        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            files.folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            **common,
            **gguf,
        )
        model = model.to(device).eval().requires_grad_(False)
    except Exception as error:  # whatever transformers, safetensors and torch find wrong
        raise EngineError(
            f"{files.folder} cannot be loaded by transformers {transformers.__version__} as "
            f"{dtype} on {device}: {error}"
        ) from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise EngineError(
            f"{files.folder} lacks {len(missing)} weights, such as {missing[0]}; transformers "
            "would make them up. Is the download complete?"
        )
    return model


def ends_of(model: Any) -> frozenset[int]:
    """The ids that end a reply: by generation_config and by config, each names one or several."""
    ends: set[int] = set()
    for config in (model.generation_config, model.config.get_text_config()):
        named = getattr(config, "eos_token_id", None)
        ends.update(named if isinstance(named, list) else [] if named is None else [named])
    return frozenset(ends)


def context_of(model: Any) -> int:
    """The longest sequence the model was made for, in tokens."""
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if not isinstance(context, int):
        raise EngineError(
            f"the config of {model.name_or_path} names no max_position_embeddings; add it to "
            "config.json"
        )
    return context
