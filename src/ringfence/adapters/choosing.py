"""Which adapter to use, and how much of it. Reads no adapter."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ringfence.errors import InputError

# The dial goes beyond the full adapter, into extrapolation: the curve of what it costs and buys is
# drawn past its end. Nothing is promised there.
MOST = 2.0
NONE, PACKAGED = "none", "packaged"
_PACKAGED = Path(__file__).parent / "packaged"
_FILE, _CONFIG = "adapter.gguf", "adapter_config.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An adapter to use.

    Attributes:
        path: a folder as PEFT saves it, or a GGUF file.
        strength: scales its effect: 0 is the base model, 1 the adapter as it was trained.
    """

    path: Path
    strength: float

    @property
    def label(self) -> str:
        """For the names of engines."""
        name = self.path.stem if self.path.suffix == ".gguf" else self.path.name
        return f"{name}@{self.strength:g}"


def chosen(
    adapter: str | Path | None, strength: float | None = None, *, packaged: bool = False
) -> Chosen | None:
    """The adapter to load; None leaves the base model alone.

    Args:
        adapter: a folder or GGUF file; `none`; `packaged`, the one that ships with the packaged
            model; None is `none`, or with a strength `packaged` for that model.
        strength: from 0 to 2; None is 1. With 0 nothing is loaded.
        packaged: the model is the packaged one.

    Raises:
        InputError: nothing is there, or a strength out of range or without an adapter.
    """
    if strength is not None and not 0 <= strength <= MOST:
        raise InputError(f"rings_strength must lie between 0 and {MOST:g}, not {strength:g}")
    if adapter is None and packaged and strength and packaged_adapter():
        adapter = PACKAGED
    path = _found(adapter)
    if path is None:
        if strength:
            why = "--adapter none" if adapter == NONE else "none ships for this model"
            raise InputError(
                f"rings_strength is {strength:g}, and there is no adapter to scale: {why}. Name "
                "one with --adapter PATH."
            )
        return None
    if strength == 0:
        return None
    return Chosen(path=path, strength=1.0 if strength is None else strength)


def packaged_adapter() -> Path | None:
    """The adapter of the packaged model, if one ships: its GGUF file, or its folder."""
    if (_PACKAGED / _FILE).is_file():
        return _PACKAGED / _FILE
    return _PACKAGED if (_PACKAGED / _CONFIG).is_file() else None


def _found(adapter: str | Path | None) -> Path | None:
    if adapter is None or adapter == NONE:
        return None
    if adapter == PACKAGED:
        if found := packaged_adapter():
            return found
        raise InputError("adapter: no adapter ships with this version; name one by its path")
    # Unlike `Path.expanduser` it raises nothing where there is no such user.
    path = Path(os.path.expanduser(adapter)).resolve()
    if not path.exists():
        raise InputError(
            f"adapter: {adapter} does not exist; name a folder that PEFT saved, a GGUF file, or "
            "`none`"
        )
    return path
