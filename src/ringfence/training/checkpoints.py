"""Checkpoints of a run on the disk: which are there, and that they are whole. Knows no torch."""

from __future__ import annotations

import os
import re
from pathlib import Path

from ringfence.partial_files import sync_folder

CHECKPOINTS, PARTIAL = "checkpoints", ".partial"


def checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints of a run, oldest first."""
    found = {}
    for path in (folder / CHECKPOINTS).glob("checkpoint-*"):
        if match := re.fullmatch(r"checkpoint-([0-9]{1,12})", path.name):
            found[int(match[1])] = path
    return [found[step] for step in sorted(found)]


def step_of(checkpoint: Path) -> int:
    """The step after which a checkpoint was written."""
    return int(checkpoint.name.rpartition("-")[2])


def synced(folder: Path) -> None:
    """Press all files of a folder onto the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            handle = os.open(path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
    sync_folder(folder)
