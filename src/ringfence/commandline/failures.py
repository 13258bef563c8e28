"""Errors as one line on stderr and an exit code. Imports nothing heavy, for `--help`."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer

from ringfence.commandline.escaping import one_line
from ringfence.errors import InputError, RingfenceError

WRONG = 2
INTERRUPTED = 130


def say(text: str) -> None:
    """A line for people, on stderr, safe to show."""
    print(one_line(text), file=sys.stderr, flush=True)


def say_if_new(out: Path, *, resume: bool) -> None:
    """That `--resume` found nothing to go on with; a misspelt `--out` begins a run of hours."""
    there = (out, Path(f"{out}.partial"))
    if resume and not any(one.is_file() or (one.is_dir() and any(one.iterdir())) for one in there):
        say(f"{out}: nothing is there to go on with; a new run begins")


@contextmanager
def told() -> Iterator[None]:
    """Turn errors a user can do something about into `error: …` and exit code 2.

    With RINGFENCE_TRACEBACK=1 in the environment they pass as they are. Of processes that train
    together, the first of every machine says what is wrong with what was given, since all of them
    read the same.
    """
    try:
        yield
    except BrokenPipeError:
        # Whoever read our output has seen enough. What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(1) from None
    except (RingfenceError, OSError) as error:
        if os.environ.get("RINGFENCE_TRACEBACK") == "1":
            raise
        if not (isinstance(error, InputError) and _number("LOCAL_RANK")):
            process, text = _number("RANK"), _words(error)
            say(f"process {process}: error: {text}" if process else f"error: {text}")
        raise typer.Exit(WRONG) from error
    except KeyboardInterrupt:
        if first_process():
            say("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def _words(error: Exception) -> str:
    """What is wrong, beginning with the path where the system says which."""
    if not isinstance(error, OSError) or not error.filename:
        return str(error)
    place = f"{os.fsdecode(error.filename)}: {error.strerror}"
    if error.errno in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        return f"{place}; a file and a folder want the same place, so name another"
    return f"{place}; name another place, or see to it that this one can be used"


def first_process() -> bool:
    """Whether this is the only process, or the first of those that train together."""
    return _number("RANK") == 0


def _number(name: str) -> int:
    """Of this process, as whatever started it says; 0 where it is alone."""
    found = os.environ.get(name, "0")
    return int(found) if found.isdecimal() else 0
