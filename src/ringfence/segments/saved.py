"""A ring signal's files. Knows nothing of models, and nothing of torch."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ringfence.errors import InputError
from ringfence.yaml_files import explain

Kind = Literal["input", "blocks"]

CARD, WEIGHTS = "ring_signal.json", "ring_signal.safetensors"


class SignalCard(BaseModel):
    """What a signal is, beside its weights.

    Attributes:
        format: of these files.
        kind: where it is added.
        rings: how many there are.
        names: of the rings by level, highest privilege first where they are of one policy; empty if
            they are known by level only.
        width: of an embedding.
        places: where it is added: 1, or the number of blocks.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: Literal[1] = 1
    kind: Kind
    rings: int = Field(ge=1, le=64)
    names: tuple[str, ...] = ()
    width: int = Field(ge=1, le=1_000_000)
    places: int = Field(ge=1, le=10_000)


def has_signal(folder: Path) -> bool:
    """Whether an adapter folder holds a ring signal."""
    return (folder / CARD).is_file()


def read_card(folder: Path) -> SignalCard:
    """Read the card of a saved signal.

    Raises:
        InputError: it is missing or broken; names the field.
    """
    try:
        return SignalCard.model_validate_json((folder / CARD).read_bytes())
    except ValidationError as error:
        raise InputError(f"{folder / CARD}: {explain(error)}") from None
    except OSError as error:
        raise InputError(f"{folder / CARD}: cannot be read: {error.strerror}") from error


def write(file: Path, data: bytes) -> None:
    """Write a file, complete or not at all."""
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as partial:
            partial.write(data)
            partial.flush()
            os.fsync(partial.fileno())
        os.chmod(name, 0o644)
        os.replace(name, file)
    finally:
        Path(name).unlink(missing_ok=True)
