"""The model that is trained: found, unpacked, hashed, loaded, fitted with an adapter.

Weights come from safetensors, or from a GGUF file that is unpacked once into the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from ringfence.adapters.folder import read_adapter
from ringfence.adapters.host import host_of
from ringfence.engines.embedded import packaged_model
from ringfence.engines.requantising import cache_folder
from ringfence.engines.weights import find_weights
from ringfence.errors import EngineError, InputError
from ringfence.segments.saved import SignalCard, has_signal, read_card
from ringfence.training.recipe import UNSHARDED, Adapter, Recipe
from ringfence.vocabulary import Vocabulary

EMBEDDED = "embedded"
_WEIGHTS = ("*.safetensors", "*.gguf")


def library(name: str) -> Any:
    """Import one of the libraries of the extra `train`.

    Raises:
        EngineError: it cannot be imported; says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise EngineError(
            f"training needs {name}, which cannot be imported ({error}): "
            "pip install 'ringfence[train]'"
        ) from error


def model_folder(spec: str) -> Path:
    """The folder of a model in safetensors.

    Args:
        spec: `embedded`, a model folder, a GGUF file, or `owner/name` of the Hugging Face hub; all
            but the folder are brought into the user's cache.

    Raises:
        EngineError: there is no such model, or it cannot be used.
    """
    if spec == EMBEDDED:
        return unpacked(packaged_model())
    found = find_weights(spec.removeprefix("hf:"))
    return unpacked(found) if found.is_file() else found


def unpacked(gguf: Path) -> Path:
    """A GGUF file's model as float32 safetensors with tokenizer and template, made on first use.

    It lies in the user's cache under the hash of the file, complete or not at all. Values are those
    of the quantised file: a model cannot be trained in them, and gets no better by unpacking.

    Raises:
        EngineError: transformers cannot read the file.
    """
    with gguf.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    folder = cache_folder() / f"{digest[:32]}-safetensors" / gguf.stem.rsplit(".Q", 1)[0]
    if folder.exists():
        return folder
    transformers = library("transformers")
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
    options: dict[str, Any] = {"gguf_file": gguf.name, "trust_remote_code": False}
    try:
        # The reader of GGUF draws a bar that no setting of transformers turns off.
        with quiet(), redirect_stderr(io.StringIO()):
            model = transformers.AutoModelForCausalLM.from_pretrained(
                gguf.parent,
                dtype="float32",
                local_files_only=True,
                quantization_config=transformers.GgufConfig(dequantize=True),
                **options,
            )
            model.save_pretrained(partial)
            tokenizer = transformers.AutoTokenizer.from_pretrained(gguf.parent, **options)
            tokenizer.save_pretrained(partial)
        try:
            os.replace(partial, folder)
        except OSError:
            # Another process made it at the same time, of the same file.
            if not folder.exists():
                raise
    except Exception as error:  # whatever transformers, gguf and the disk find wrong
        raise EngineError(f"{gguf} cannot be unpacked for training: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def weights_hash(folder: Path) -> str:
    """One hash of all weight files of a folder and their names.

    Raises:
        EngineError: there are none.
    """
    files = sorted(file for pattern in _WEIGHTS for file in folder.glob(pattern))
    if not files:
        raise EngineError(f"{folder}: holds no weights")
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as data:
            whole.update(file.name.encode() + hashlib.file_digest(data, "sha256").digest())
    return whole.hexdigest()


def checked_adapter(
    adapter: Path, folder: Path, vocabulary: Vocabulary, recipe: Recipe
) -> SignalCard | None:
    """Check that training can go on with an adapter; returns the card of its ring signal.

    Args:
        adapter: folder of an earlier training.
        folder: of the model that is trained.
        vocabulary: of that model.
        recipe: says how.

    Raises:
        InputError: it cannot be read, is for another model, or does not go with the recipe.
    """
    if recipe.adapter is None:
        raise InputError("--adapter goes on with an adapter, and --full trains all weights")
    made = read_adapter(adapter)
    if made.host is not None:
        made.host.refuse(host_of(folder, vocabulary), f"--adapter {adapter.name}")
    if not has_signal(adapter):
        return None
    if recipe.hardware.strategy == "fsdp":
        raise InputError(f"--adapter {adapter.name} has a ring signal: {UNSHARDED}")
    return read_card(adapter)


def loaded(
    folder: Path,
    recipe: Recipe,
    *,
    adapter: Path | None,
    ring_names: Sequence[str],
    shared: bool = False,
) -> Any:
    """The model, ready to be trained: its adapter and ring signal added, as the recipe says.

    Args:
        folder: of the model.
        recipe: gives adapter, segments, precision and attention.
        adapter: an adapter of an earlier training to go on with.
        ring_names: of the rings of a new ring signal, by level.
        shared: rows share what their examples have in common.

    Raises:
        EngineError: it cannot be loaded.
        InputError: the recipe does not fit the model.
    """
    torch, transformers = library("torch"), library("transformers")
    precision, full = recipe.hardware.precision, recipe.adapter is None
    attention: str = recipe.hardware.attention
    if shared:
        from ringfence.training.shared_attention import NAME

        attention = NAME
    # What is trained stays in float32: small steps vanish in bfloat16.
    dtype = torch.bfloat16 if precision == "bfloat16" and not full else torch.float32
    try:
        with quiet():
            model, report = transformers.AutoModelForCausalLM.from_pretrained(
                folder,
                dtype=dtype,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                attn_implementation=attention,
                output_loading_info=True,
            )
    except Exception as error:  # whatever transformers, safetensors and torch find wrong
        raise EngineError(f"{folder} cannot be loaded for training: {error}") from error
    missing = sorted(map(str, [*report["missing_keys"], *report["mismatched_keys"]]))
    if missing:
        raise EngineError(f"{folder} lacks {len(missing)} weights, such as {missing[0]}")
    model.config.use_cache = False
    if full:
        return model
    model = _adapted(model, recipe, adapter)
    _signalled(model, recipe, adapter, ring_names)
    return model


def _adapted(model: Any, recipe: Recipe, adapter: Path | None) -> Any:
    peft = library("peft")
    if adapter is not None:
        made = _gone_on_with(peft, model, adapter)
        _refuse_targets(made, f"--adapter {adapter.name}")
        return made
    assert recipe.adapter is not None
    try:
        with quiet():
            made = peft.get_peft_model(model, lora(peft, recipe.adapter, model))
    except ValueError as error:
        raise InputError(f"recipe: adapter.targets: {error}") from None
    _refuse_targets(made, "recipe: adapter.targets")
    return made


def _refuse_targets(model: Any, what: str) -> None:
    """Refuse what would not be trained, or could not be read again.

    Raises:
        InputError: an adapter on the output layer, or on what is no linear layer.
    """
    layer, linear = library("peft.tuners.lora").LoraLayer, library("torch.nn").Linear
    for name, module in model.named_modules():
        if not isinstance(module, layer):
            continue
        name, base = name.removeprefix("base_model.model."), module.get_base_layer()
        # transformers' Conv1D (GPT-2) is a linear layer with its weight the other way round.
        if not isinstance(base, linear) and type(base).__name__ != "Conv1D":
            raise InputError(
                f"{what}: {name} is no linear layer ({type(base).__name__}), and only those can "
                "have an adapter. Leave it out."
            )
        if module is model.get_output_embeddings():
            raise InputError(
                f"{what}: {name} is the output layer, whose adapter would never be trained: TRL "
                "computes the loss past it. Leave it out."
            )


def _gone_on_with(peft: Any, model: Any, adapter: Path) -> Any:
    """The adapter of an earlier training in this model.

    PEFT only warns where tensors find no module, and would train these from nothing.
    """
    try:
        with quiet():
            made = peft.PeftModel.from_pretrained(model, adapter, is_trainable=True)
    except Exception as error:  # whatever PEFT and torch find wrong
        raise InputError(
            f"--adapter {adapter.name} cannot be gone on with: {error}. Use the model that it was "
            "trained on."
        ) from error
    there = {
        name.removeprefix("base_model.model.")
        for name, module in made.named_modules()
        if hasattr(module, "lora_A")
    }
    if different := sorted(there ^ set(read_adapter(adapter).updates)):
        raise InputError(
            f"--adapter {adapter.name} is for another model: it and this model do not both have "
            f"{different[0]}. Use the model that it was trained on."
        )
    return made


def lora(peft: Any, adapter: Adapter, model: Any) -> Any:
    """What PEFT is told of a recipe's adapter for a model."""
    targets = adapter.targets if isinstance(adapter.targets, str) else list(adapter.targets)
    return peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        exclude_modules=_beside_text(model),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _beside_text(model: Any) -> str | None:
    """A pattern of modules that text does not pass, such as eyes; None where there are none.

    On text an adapter there gets no gradient.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    within = next((name for name, module in model.named_modules() if module is decoder), "")
    head, linear = model.get_output_embeddings(), library("torch.nn").Linear
    beside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, linear) and module is not head and not name.startswith(f"{within}.")
    ]
    return rf"(?!{re.escape(within)}\.).*" if within and beside else None


def _signalled(model: Any, recipe: Recipe, adapter: Path | None, ring_names: Sequence[str]) -> None:
    from ringfence.segments import signal

    if adapter is not None and has_signal(adapter):
        signal.load(adapter, model)
        return
    if recipe.segments != "none":
        signal.attach(model, recipe.segments, rings=ring_names)


def signal_of(model: Any) -> Any | None:
    """The ring signal of a model; None if there is none."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return getattr(inner, "ring_signal", None)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and advice of transformers."""
    logging = library("transformers.utils.logging")
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
