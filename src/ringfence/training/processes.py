"""Processes that train together: how they are started, and what they have to be told before."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import torch

from ringfence.errors import InputError
from ringfence.training.job import Job

# How long processes wait for each other. The first one hashes and renders alone, for which the
# default of 10 minutes is too short with large models and much data.
PATIENCE = timedelta(hours=6)


def refuse_several_devices(job: Job) -> None:
    """Several GPUs need a process each; TRL says so only when the model is loaded.

    Raises:
        InputError: there are several, and this process was not launched as one of a group.
    """
    count = 0 if job.cpu else torch.cuda.device_count()
    if count > 1 and "LOCAL_RANK" not in os.environ:
        raise InputError(
            f"{count} GPUs are visible to one process. Start one on each (torchrun "
            f"--nproc-per-node {count} --no-python ringfence train …), or let it see one "
            "(CUDA_VISIBLE_DEVICES=0)."
        )


@contextlib.contextmanager
def fsdp_environment(job: Job) -> Iterator[None]:
    """What transformers and accelerate have to know of FSDP before there is a trainer.

    With it, accelerate shards from what the first process has loaded and no device holds it whole;
    transformers 5.23 still loads the weights in every process of a machine.
    """
    if job.recipe.hardware.strategy != "fsdp":
        yield
        return
    names = {
        "ACCELERATE_USE_FSDP": "true",
        "FSDP_VERSION": "2",
        "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
    }
    if job.recipe.hardware.offload:
        # Without it accelerate opens no group of processes for what lies on the host.
        names["FSDP_OFFLOAD_PARAMS"] = "true"
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
