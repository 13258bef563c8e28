"""The run itself: model, trainer, steps, what is saved. Imports torch; `job` does not."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from ringfence.adapters.folder import CONFIG
from ringfence.adapters.host import host_of, write_host
from ringfence.errors import EngineError, InputError
from ringfence.training import job as jobs
from ringfence.training import manifest as manifests
from ringfence.training import run_folder, trainers
from ringfence.training.allocation import keep_freed_memory
from ringfence.training.checkpoints import checkpoints, step_of, synced
from ringfence.training.collation import Rows
from ringfence.training.isolation import of_run
from ringfence.training.job import Job, Json, Ready, Say
from ringfence.training.metrics import Metrics, read
from ringfence.training.models import left_out, library, loaded, quiet, signal_of, stored_as
from ringfence.training.plan import packing_of
from ringfence.training.processes import PATIENCE, fsdp_environment, refuse_several_devices
from ringfence.training.watching import Stop, Watch

# A word in what TRL and transformers say when they refuse a recipe, its field, and the way out.
_REFUSED = {
    "bf16": ("hardware.precision: ", " Use float32."),
    "fsdp": (
        "hardware.strategy: ",
        " Launch a process on each device (torchrun), or use another strategy.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended.

    Attributes:
        manifest: of a finished run; None if it was stopped.
        step: the last one that is safe.
        steps: of the whole run.
        stopped_by: the signal that stopped it; 0 if it finished.
    """

    manifest: Json | None
    step: int
    steps: int
    stopped_by: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A run that can begin.

    Attributes:
        ready: the job and its rows.
        trainer: of TRL, with the model in it.
        trained: adapter and ring signal, for the manifest.
        isolation: whether examples of one row see each other, for the manifest.
    """

    ready: Ready
    trainer: Any
    trained: Json
    isolation: Json


def train(job: Job, say: Say, *, resume: bool = False, force: bool = False) -> Outcome:
    """Train, from the beginning or the last checkpoint, to the end or a request to stop.

    In a process group (accelerate launch, torchrun) all processes call this.

    Raises:
        RingfenceError: model, data, recipe or folder cannot be used.
        DivergedError: the loss is no longer a number.
        KeyboardInterrupt: asked twice to stop.
    """
    refuse_several_devices(job)
    threads = job.recipe.hardware.threads
    if threads:
        torch.set_num_threads(threads)
    with fsdp_environment(job):
        cpu = job.cpu or not torch.accelerator.is_available()
        if cpu:
            keep_freed_memory()
        state = library("accelerate").PartialState(cpu=cpu, timeout=PATIENCE)
        first = bool(state.is_main_process)
        tell = say if first else _silent
        with contextlib.ExitStack() as stack:
            if first:
                stack.enter_context(run_folder.claimed(job.out, resume=resume, force=force))
            found = jobs.checked(job, first=first, world=state.num_processes)
            if first:
                run_folder.opened(job.out, found.described, resume=resume, force=force)
            state.wait_for_everyone()
            if resume and (manifest := run_folder.finished(job.out)) is not None:
                return _finished_before(job, manifest, state, tell)
            ready = jobs.prepared(
                found, tell, world=state.num_processes, first=first, wait=state.wait_for_everyone
            )
            with _room(job):
                built = _built(ready, state, tell)
                if first and force:
                    run_folder.replaced(job.out, found.described)
                state.wait_for_everyone()
                return _trained(built, state, tell)


def _finished_before(job: Job, manifest: Json, state: Any, say: Say) -> Outcome:
    """What a run came to that is resumed after its end; a kill may have left what is tidied."""
    say(f"{job.out}: is finished")
    first = bool(state.is_main_process)
    if first:
        run_folder.tidied(job.out)
    steps = manifest["result"]["steps"]
    return Outcome(manifest=manifest if first else None, step=steps, steps=steps, stopped_by=0)


def _built(ready: Ready, state: Any, say: Say) -> Built:
    """Model and trainer, with whatever may be wrong with them found out."""
    job, plan = ready.job, ready.plan
    with quiet(), _refusing():
        settings = trainers.arguments(
            job.recipe, job.kind, job.out, plan.steps, cpu=state.device.type == "cpu"
        )
    model = _model(ready)
    trained = _described(model)
    if job.adapter is not None:
        _tell_adapter(job, trained, say)
    elif job.recipe.adapter is not None and job.recipe.adapter.targets == "all-linear":
        if beside := left_out(model):
            say(f"adapter.targets: all-linear leaves out {beside}")
    rows = Rows(plan.store, plan.rows)
    with quiet(), _refusing():
        trainer = trainers.trainer(
            job.kind, model, settings, rows, job.recipe, job.out, _tokenizer(ready.folder)
        )
    if job.recipe.hardware.strategy == "fsdp" and not trainer.is_fsdp_enabled:
        say("fsdp needs several accelerators; every process here holds the whole model")
    isolation = of_run(job, trainer, rows, say)
    return Built(ready=ready, trainer=trainer, trained=trained, isolation=isolation)


@contextlib.contextmanager
def _refusing() -> Iterator[None]:
    """Say of what TRL and transformers refuse which field of the recipe it comes from.

    Raises:
        InputError: they refuse something.
    """
    try:
        yield
    except ValueError as error:
        said = str(error)
        known = (found for word, found in _REFUSED.items() if word in said)
        field, way_out = next(known, ("", ""))
        raise InputError(f"recipe: {field}{said}{way_out}") from error


@contextlib.contextmanager
def _room(job: Job) -> Iterator[None]:
    """Say what to do where a device has too little memory.

    Raises:
        EngineError: it has.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise EngineError(
            f"the device is out of memory ({str(error).splitlines()[0]}). Lower {job.kind}.rows or "
            "sequence.length in the recipe, or set hardware.checkpointing: true (--dry-run does "
            "the arithmetic); a changed recipe needs another --out, or --force. Where another "
            "program took the memory, --resume goes on."
        ) from error


def _trained(built: Built, state: Any, say: Say) -> Outcome:
    ready, trainer = built.ready, built.trainer
    job, plan = ready.job, ready.plan
    found = checkpoints(job.out)
    begin = found[-1] if found else None
    done = step_of(begin) if begin else 0
    first = bool(state.is_main_process)
    stop = Stop()
    watch = Watch(
        tokens=jobs.tokens_of_steps(plan),
        metrics=Metrics(job.out, after=done) if first else None,
        stop=stop,
        say=say,
        way_out="Then give a changed recipe another --out, or --force to start anew here.",
    )
    trainer.add_callback(watch)
    with quiet():
        where = f"{state.num_processes} × {state.device.type}"
        say(f"{plan.steps} steps of {plan.batch} rows on {where}")
        with stop.on_signals(say):
            trainer.train(resume_from_checkpoint=str(begin) if begin else None)
    if trainer.state.global_step < plan.steps:
        return Outcome(
            manifest=None,
            step=trainer.state.global_step,
            steps=plan.steps,
            stopped_by=stop.asked or signal.SIGINT,
        )
    _saved(ready, trainer, first)
    manifest = None
    if first:
        manifest = jobs.finished(
            ready,
            _result(ready, watch, done) | built.trained,
            manifests.environment(_devices(), state.num_processes)
            | {"distributed": str(trainer.accelerator.distributed_type.value)},
            built.isolation,
        )
        run_folder.tidied(job.out)
    state.wait_for_everyone()
    return Outcome(manifest=manifest, step=plan.steps, steps=plan.steps, stopped_by=0)


def _model(ready: Ready) -> Any:
    job = ready.job
    with torch.random.fork_rng(devices=[]):
        # New weights of adapters are drawn from torch's own generator.
        torch.manual_seed(job.recipe.seed)
        return loaded(
            ready.folder,
            job.recipe,
            adapter=job.adapter,
            ring_names=ready.plan.store.summary["rings"],
            shared=packing_of(job.recipe, job.kind) == "shared",
        )


def _described(model: Any) -> Json:
    """The adapter and the ring signal that are trained, for the manifest.

    They may be those of an earlier training, whatever the recipe asks of new ones.
    """
    ring_signal, adapter = signal_of(model), None
    if hasattr(model, "peft_config"):
        config = model.peft_config["default"]
        targets = config.target_modules
        adapter = {
            "rank": config.r,
            "alpha": config.lora_alpha,
            "targets": targets if isinstance(targets, str) else sorted(targets),
        }
    return {
        "adapter": adapter,
        "ring_signal": None if ring_signal is None else ring_signal.card.model_dump(mode="json"),
    }


def _tell_adapter(job: Job, trained: Json, say: Say) -> None:
    """Say what of the recipe does not count, since an adapter is gone on with."""
    adapter, asked = trained["adapter"], job.recipe.adapter
    assert job.adapter is not None and asked is not None
    if (adapter["rank"], adapter["alpha"]) != (asked.rank, asked.alpha):
        say(
            f"goes on with {job.adapter.name}: rank {adapter['rank']}, alpha "
            f"{adapter['alpha']:g}; those of the recipe are for new adapters"
        )


def _tokenizer(folder: Path) -> Any:
    """The model's own, which is saved beside the result."""
    with quiet():
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=True
        )


def _saved(ready: Ready, trainer: Any, first: bool) -> None:
    """Write adapter or model aside, then move its files into the folder."""
    out = ready.job.out
    partial = out / ".model.partial"
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
    trainer.accelerator.wait_for_everyone()
    if getattr(trainer, "is_fsdp_enabled", False):
        trainer.accelerator.state.fsdp_plugin.set_state_dict_type("FULL_STATE_DICT")
    model = trainer.accelerator.unwrap_model(trainer.model)
    adapter = ready.job.recipe.adapter is not None
    with quiet():
        if adapter and not trainer.is_fsdp_enabled:
            if first:
                # DPO adds a frozen copy for its reference, which is nobody's result. To find out
                # whether the embeddings were resized PEFT may ask the hub; nothing resizes them.
                model.save_pretrained(
                    partial, selected_adapters=["default"], save_embedding_layers=False
                )
                if (ring_signal := signal_of(model)) is not None:
                    ring_signal.save(partial)
        else:
            trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if not first:
        return
    with quiet():
        _tokenizer(ready.folder).save_pretrained(partial)
    if adapter:
        _rename_base(partial, ready.folder.name)
        write_host(partial, host_of(ready.folder, ready.checked.description.tokenizer))
    else:
        # Training keeps float32, checkpoints too; a result is as large as the model before.
        stored_as(partial, ready.folder)
    for name in ("training_args.bin", "README.md"):
        (partial / name).unlink(missing_ok=True)
    synced(partial)
    run_folder.filled(out, partial)


def _rename_base(partial: Path, name: str) -> None:
    """In the adapter's settings: the place of the model's folder says nothing to anybody else."""
    file = partial / CONFIG
    config = json.loads(file.read_text("utf-8")) | {"base_model_name_or_path": name}
    file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _result(ready: Ready, watch: Watch, resumed_after: int) -> Json:
    lines = read(ready.job.out)
    losses = [line.get("loss") for line in lines]
    return {
        "steps": ready.plan.steps,
        "resumed_after": resumed_after,
        "first_loss": losses[0] if losses else None,
        "last_loss": losses[-1] if losses else None,
        "tokens": sum(line.get("batch_tokens", 0) for line in lines),
        "seconds_of_last_process": round(watch.seconds, 3),
        "tokens_per_second": round(watch.tokens / max(watch.seconds, 1e-9), 3),
    }


def _devices() -> list[str]:
    if not torch.cuda.is_available():
        return ["cpu"]
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]


def _silent(_text: str) -> None:
    """What processes other than the first say."""
