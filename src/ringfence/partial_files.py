"""Files that are written in part and finished later. Knows nothing of what stands in them."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import BinaryIO

from ringfence.errors import InputError


def locked(partial: Path) -> BinaryIO:
    """Open a partial file for one run alone; closing it lets go.

    Raises:
        InputError: another run has it.
    """
    while True:
        file = partial.open("a+b")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            raise InputError(f"{partial}: another run is writing it") from None
        if os.fstat(file.fileno()).st_nlink:
            return file
        # The other run finished, and removed the file, between our opening and locking it.
        file.close()


def refuse_existing(partial: Path, finished: tuple[Path, ...]) -> None:
    """For a run that begins: nothing may be in its way.

    Raises:
        InputError: a run that did not finish, or the results of one that did.
    """
    if partial.exists():
        raise InputError(
            f"{partial} is there from a run that did not finish; --resume goes on with it, "
            "--force starts anew"
        )
    for file in finished:
        if file.exists():
            raise InputError(f"{file} exists; --force replaces it")


def sync_folder(folder: Path) -> None:
    """Make names in a folder as durable as the files."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
