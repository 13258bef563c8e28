"""Errors as one line on stderr and an exit code. Imports nothing heavy, for `--help`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from ringfence.commandline.escaping import one_line
from ringfence.errors import InputError, RingfenceError

WRONG = 2
INTERRUPTED = 130


def say(text: str) -> None:
    """A line for people, on stderr, safe to show."""
    print(one_line(text), file=sys.stderr, flush=True)


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
            process = _number("RANK")
            say(f"process {process}: error: {error}" if process else f"error: {error}")
        raise typer.Exit(WRONG) from error
    except KeyboardInterrupt:
        if first_process():
            say("interrupted")
        raise typer.Exit(INTERRUPTED) from None


def first_process() -> bool:
    """Whether this is the only process, or the first of those that train together."""
    return _number("RANK") == 0


def _number(name: str) -> int:
    """Of this process, as whatever started it says; 0 where it is alone."""
    found = os.environ.get(name, "0")
    return int(found) if found.isdecimal() else 0
