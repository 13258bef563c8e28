"""The commands `adapter convert`, from a PEFT folder to a GGUF file, and `restore`, back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ringfence.adapters.choosing import chosen
from ringfence.adapters.converting import Precision, convert
from ringfence.adapters.folder import CONFIG, read_adapter
from ringfence.adapters.host import Host, OtherModelError, host_of
from ringfence.adapters.restoring import restore
from ringfence.adapters.truncating import truncated
from ringfence.commandline import terminal
from ringfence.commandline.escaping import one_line
from ringfence.engines.embedded import packaged_model
from ringfence.errors import InputError
from ringfence.segments.saved import has_signal


def converted(
    folder: Path,
    out: Path,
    *,
    base: Path | None,
    precision: Precision,
    rank: int | None = None,
    force: bool,
) -> dict[str, Any]:
    """Convert an adapter.

    Args:
        folder: as PEFT saves it.
        out: the GGUF file.
        base: folder or GGUF file of the model it is for; None is the folder that the adapter
            names, if it is here, and the packaged model otherwise.
        precision: of the numbers.
        rank: of no update more than this; see `truncated`.
        force: replace a file that is there.

    Raises:
        RingfenceError: the adapter cannot be read or converted, or `out` is there.
    """
    if out.exists() and not force:
        raise InputError(f"--out {out} exists; --force replaces it")
    _check_parent(out)
    if has_signal(folder):
        raise InputError(
            f"{folder} has a ring signal, which llama.cpp cannot add; use the adapter with hf:"
        )
    adapter, kept = read_adapter(folder), 1.0
    named = _named(folder)
    here = base or (named if named and (named / "config.json").is_file() else None)
    host = _base(here)
    if rank is not None:
        adapter, kept = truncated(adapter, rank)
    with _of_the_packaged_model(here is None, f"adapter {adapter.name}", named):
        made = convert(adapter, host, out, precision=precision)
    return {
        "adapter": adapter.name,
        "out": str(out),
        "architecture": host.architecture,
        "updates": made.updates,
        "ranks": list(made.ranks),
        "kept": kept,
        "precision": precision,
        "kept_as_f16": made.wider,
        "bytes": made.size,
    }


def restored(adapter: str, out: Path, *, base: Path | None) -> dict[str, Any]:
    """Make a PEFT folder of a GGUF adapter.

    Args:
        adapter: the file, or `packaged`.
        out: the folder.
        base: folder or GGUF file of the model it is for; None is the packaged model.

    Raises:
        RingfenceError: the adapter cannot be read, or `out` is there.
    """
    if out.exists():
        raise InputError(f"--out {out} exists; name a folder that is not there")
    _check_parent(out)
    found = chosen(adapter)
    if found is None or not found.path.is_file():
        raise InputError(f"adapter: {adapter} is no GGUF file; a folder can be used as it is")
    with _of_the_packaged_model(base is None, f"adapter {found.path.name}"):
        return {"out": str(out), **restore(found.path, _base(base), out)}


def _check_parent(out: Path) -> None:
    if not out.resolve().parent.is_dir():
        raise InputError(f"--out {out}: the folder {out.parent} does not exist")


def told(summary: dict[str, Any], *, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        terminal.emit(json.dumps(summary))
        return
    ranks = ", ".join(map(str, summary["ranks"]))
    note = f" ({summary['kept_as_f16']} tensors as f16)" if summary["kept_as_f16"] else ""
    if summary["kept"] < 1:
        note += f", {summary['kept']:.1%} of the squares of its updates"
    print(
        one_line(
            f"{summary['out']}: {summary['updates']} matrices of a {summary['architecture']} "
            f"model, rank {ranks}, {summary['precision']}{note}, "
            f"{summary['bytes'] / 1e6:.1f} MB"
        )
    )


def told_restored(summary: dict[str, Any], *, as_json: bool) -> None:
    """Say what was written."""
    if as_json:
        terminal.emit(json.dumps(summary))
        return
    ranks = ", ".join(map(str, summary["ranks"]))
    print(
        one_line(
            f"{summary['out']}: updates of {summary['updates']} matrices, rank {ranks}, "
            f"alpha {summary['alpha']:g}"
        )
    )


def _named(folder: Path) -> Path | None:
    """The model that an adapter names; after `train` only the name of its folder."""
    named = json.loads((folder / CONFIG).read_text("utf-8")).get("base_model_name_or_path")
    return Path(named) if isinstance(named, str) and named else None


@contextmanager
def _of_the_packaged_model(taken: bool, what: str, named: Path | None = None) -> Iterator[None]:
    """Where the packaged model was taken and is another one, ask for the right one."""
    try:
        yield
    except OtherModelError as error:
        if not taken:
            raise
        why = f", and its model, {named}, is not here" if named else ""
        raise InputError(
            f"{what} is not for the packaged model{why}: give its model with --base"
        ) from error


def _base(base: Path | None) -> Host:
    """The model that is named, or the packaged one."""
    if base is None:
        return host_of(packaged_model())
    if not base.exists():
        raise InputError(f"--base {base} does not exist; name a model folder or a GGUF file")
    return host_of(base)
