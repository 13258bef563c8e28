"""The model that is trained: found, unpacked, hashed, loaded, fitted with an adapter.

Weights come from safetensors, or from a GGUF file that is unpacked once into the user's cache.
"""

from __future__ import annotations

import hashlib
import importlib
import io
import json
import math
import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

from ringfence.adapters.folder import read_adapter
from ringfence.adapters.host import host_of
from ringfence.engines.embedded import packaged_model
from ringfence.engines.requantising import cache_folder
from ringfence.engines.weights import find_weights, refuse_lost_scaling
from ringfence.errors import EngineError, InputError
from ringfence.segments.saved import SignalCard, has_signal, read_card
from ringfence.training.recipe import UNSHARDED, Adapter, Recipe
from ringfence.vocabulary import Vocabulary

EMBEDDED = "embedded"
_WEIGHTS = ("*.safetensors", "*.gguf")
# Linear in some models, and in none for an adapter: a nudge sends tokens to other experts.
_ROUTER = re.compile(r"(^|\.)(gate|router|router_gate|shared_expert_gate)(\.|$)")
# Numbers of weights as safetensors calls them and as torch does.
_PRECISIONS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


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


def model_folder(spec: str, *, weights: bool = True) -> Path:
    """The folder of a model in safetensors.

    Args:
        spec: `embedded`, a model folder, a GGUF file, or `owner/name` of the Hugging Face hub; all
            but the folder are brought into the user's cache.
        weights: without, what describes a model of the hub is brought, and its weights are not.

    Raises:
        EngineError: there is no such model, or it cannot be used.
        InputError: a GGUF file that would lose what it says of positions.
    """
    if spec == EMBEDDED:
        return unpacked(packaged_model())
    found = find_weights(spec.removeprefix("hf:"), weights=weights)
    return unpacked(found) if found.is_file() else found


def unpacked(gguf: Path) -> Path:
    """A GGUF file's model as float32 safetensors with tokenizer and template, made on first use.

    It lies in the user's cache under the hash of the file, complete or not at all. Values are those
    of the quantised file: a model cannot be trained in them, and gets no better by unpacking.

    Raises:
        EngineError: transformers cannot read the file.
        InputError: it would lose what the file says of positions.
    """
    refuse_lost_scaling(gguf)  # before the cache, which may hold what an earlier version unpacked
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
        freeze_beside_text(model)
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
    """What PEFT is told of a recipe's adapter for a model.

    Raises:
        InputError: there is nothing to adapt.
    """
    # PEFT's own all-linear takes fused experts and routers of some models, too.
    everywhere = adapter.targets == "all-linear"
    targets = _linear(peft, model) if everywhere else list(adapter.targets)
    if not targets:
        raise InputError(
            "recipe: adapter.targets: no linear layer of this model; name some, or --full trains "
            "all weights"
        )
    return peft.LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=targets,
        exclude_modules=_beside_text(model),
        bias="none",
        task_type="CAUSAL_LM",
    )


def _linear(peft: Any, model: Any) -> list[str]:
    """Names of all linear layers of the text model that can have an adapter.

    Neither the output layer nor what chooses among experts. Experts in one tensor are no layers.
    """
    kinds = (library("torch.nn").Linear, library("transformers.pytorch_utils").Conv1D)
    within, head = _text(model), model.get_output_embeddings()
    found = [
        name
        for name, module in model.named_modules()
        if isinstance(module, kinds)
        and module is not head
        and name.startswith(within)
        and not _ROUTER.search(name)
    ]
    leaves = {name.rpartition(".")[2] for name in found}
    kept = {leaf for leaf in leaves if _stays(peft, model, leaf)}
    return [name for name in found if name.rpartition(".")[2] in kept]


def _stays(peft: Any, model: Any, leaf: str) -> bool:
    """Whether PEFT takes a name for the layers of this name.

    In a mixture of experts it takes some for the fused experts, whatever stands before them:
    `shared_experts.gate_proj`, too, here and wherever the adapter is loaded.
    """
    conversion = library("peft.utils.transformers_weight_conversion")
    config = peft.LoraConfig(target_modules=[leaf])
    try:
        conversion.convert_peft_config_for_transformers(config, model, None)
    except ValueError:  # a part of what is fused
        return False
    return bool(config.target_modules)


def left_out(model: Any) -> str:
    """What of the text model has no adapter, but could be expected to; empty if nothing.

    Args:
        model: as PEFT gives it.
    """
    inner = model.get_base_model()
    embedding, head = library("torch.nn").Embedding, inner.get_output_embeddings()
    within, names, beside, whole = _text(inner), dict[str, None](), 0, 0
    for name, module in inner.named_modules():
        if not name.startswith(within) or isinstance(module, embedding) or module is head:
            continue
        # Of a layer with an adapter, what is trained are its factors.
        own = [each for each in module.parameters(recurse=False) if not each.requires_grad]
        count = sum(each.numel() for each in own if each.ndim > 1)
        whole += count
        if count and not name.endswith(".base_layer"):
            names[re.sub(r"^.*?\.\d+\.", "", name.removeprefix(within))] = None
            beside += count
    if not names:
        return ""
    return f"{', '.join(names)} ({beside / whole:.0%} of its weights without embeddings)"


def _text(model: Any) -> str:
    """What the names of all parts of the text model begin with; empty where nothing is beside it.

    The output layer may be among them or not.
    """
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    within = next((name for name, module in model.named_modules() if module is decoder), "")
    return f"{within}." if within else ""


def freeze_beside_text(model: Any) -> None:
    """Leave as it is what text does not pass, such as eyes: it gets no gradient.

    Processes that train together would wait for one.
    """
    if not _text(model):
        return
    kept = {*model.get_decoder().parameters()}
    if (head := model.get_output_embeddings()) is not None:
        kept |= {*head.parameters()}
    # What stands above the base model is passed on the way to the head.
    for parameter in model.base_model.parameters():
        if parameter not in kept:
            parameter.requires_grad_(False)


def _beside_text(model: Any) -> str | None:
    """A pattern of modules that text does not pass, such as eyes; None where there are none.

    On text an adapter there gets no gradient.
    """
    within = _text(model)
    head, linear = model.get_output_embeddings(), library("torch.nn").Linear
    beside = [
        name
        for name, module in model.named_modules()
        if isinstance(module, linear) and module is not head and not name.startswith(within)
    ]
    return rf"(?!{re.escape(within)}).*" if within and beside else None


def _signalled(model: Any, recipe: Recipe, adapter: Path | None, ring_names: Sequence[str]) -> None:
    from ringfence.segments import signal

    if adapter is not None and has_signal(adapter):
        signal.load(adapter, model)
        return
    if recipe.segments != "none":
        signal.attach(model, recipe.segments, rings=ring_names)


def stored_as(saved: Path, source: Path) -> None:
    """Give saved weights the precision that they have in the folder of the model before training.

    Files are written again, one after the other, since under fsdp no process could change its part
    of the weights before. A tensor of another name gets the precision of most numbers.

    Raises:
        OSError: the disk is full.
    """
    torch, safetensors = library("torch"), library("safetensors")
    files = library("safetensors.torch")
    before, numbers = dict[str, str](), Counter[str]()
    for file in sorted(source.glob("*.safetensors")):
        with safetensors.safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():
                part = tensors.get_slice(name)
                if (kind := part.get_dtype()) in _PRECISIONS:
                    before[name] = kind
                    numbers[kind] += math.prod(part.get_shape())
    if not set(numbers) - {"F32"}:
        return
    [(most, _)] = numbers.most_common(1)
    size = 0
    for file in sorted(saved.glob("*.safetensors")):
        with safetensors.safe_open(file, framework="pt") as tensors:
            held, about = {}, tensors.metadata()
            for name in tensors.keys():
                tensor = tensors.get_tensor(name)
                if tensor.is_floating_point():
                    tensor = tensor.to(getattr(torch, _PRECISIONS[before.get(name, most)]))
                held[name] = tensor
                size += tensor.nbytes
        aside = file.with_suffix(".partial")
        files.save_file(held, aside, metadata=about)
        os.replace(aside, file)
    for name, key, value in (
        ("config.json", ("dtype",), _PRECISIONS[most]),
        ("model.safetensors.index.json", ("metadata", "total_size"), size),
    ):
        if (saved / name).is_file():
            _set(saved / name, key, value)


def _set(file: Path, keys: Sequence[str], value: Any) -> None:
    whole = json.loads(file.read_text("utf-8"))
    part = whole
    for key in keys[:-1]:
        part = part.setdefault(key, {})
    part[keys[-1]] = value
    file.write_text(json.dumps(whole, indent=2) + "\n", "utf-8")


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
