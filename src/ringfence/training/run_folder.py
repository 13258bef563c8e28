"""The folder of a run: whose it is, when it is finished, what goes when a run starts anew.

`job.json` makes a folder one of ours, and is the first thing in it. A folder with anything else and
without that is somebody else's, and nothing in it is touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.errors import InputError
from ringfence.partial_files import locked
from ringfence.training import metrics
from ringfence.training.checkpoints import CHECKPOINTS, checkpoints
from ringfence.training.manifest import CARD, MANIFEST, put_text
from ringfence.training.recipe import KINDS

Json = dict[str, Any]
JOB, TOKENS, LOCK = "job.json", "tokens", ".lock"
# Files that training writes for a model or an adapter. One that a new run does not write must not
# stay: what loads the folder would take it for a part of the new result.
_MODEL_FILES = (
    *("adapter_config.json", "adapter_model.safetensors", "ringfence_host.json"),
    *("ring_signal.json", "ring_signal.safetensors"),
    *("config.json", "generation_config.json", "model.safetensors.index.json"),
    *("model.safetensors", "model-*-of-*.safetensors"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("chat_template.jinja", "additional_chat_templates", "tokenizer.model"),
    *("vocab.json", "merges.txt", CARD, metrics.FIGURE),
)


@contextlib.contextmanager
def claimed(out: Path, *, resume: bool, force: bool) -> Iterator[None]:
    """Take hold of a folder, before anything dear is done. One in which nothing came to be goes.

    Raises:
        InputError: it is not ours, a run is there and neither `resume` nor `force` says what to do,
            or another run holds it.
    """
    if resume and force:
        raise InputError("--resume goes on and --force starts anew: give one of them")
    if not out.parent.is_dir() or (out.exists() and not out.is_dir()):
        raise InputError(f"--out {out}: must be a folder within one that exists")
    _refuse_foreign(out)
    made = not out.exists()
    out.mkdir(exist_ok=True)
    with contextlib.closing(locked(out / LOCK)):
        try:
            if _begun(out) and not (resume or force):
                raise InputError(
                    f"{out} holds a run already; --resume goes on with it, --force starts anew"
                )
            yield
        finally:
            if made and [file.name for file in out.iterdir()] == [LOCK]:
                (out / LOCK).unlink()
                out.rmdir()


def opened(out: Path, described: Mapping[str, Any], *, resume: bool, force: bool) -> None:
    """Write down which job the folder is of, or check that it is of this one.

    With `force` what is there keeps its job until `replaced`, when its replacement can be had.

    Raises:
        InputError: the folder is of another job, and `resume` goes on with that.
    """
    before = _job(out)
    if before is not None and force:
        return
    if before is not None and resume:
        known = _completed(before, described)
        if known != described:
            raise InputError(f"{out} holds another run: {_differences(known, described)}")
        if finished(out) is not None:
            return
    put_text(out / JOB, json.dumps(described, indent=2) + "\n")


def replaced(out: Path, described: Mapping[str, Any]) -> None:
    """Remove the run that is there, so that this one starts anew.

    The manifest goes first and the name of the job last: a folder that is killed in the middle is
    neither finished nor nobody's. The files of the model stay until there are new ones.
    """
    (out / MANIFEST).unlink(missing_ok=True)
    _removed(out / CHECKPOINTS)
    (out / metrics.METRICS).unlink(missing_ok=True)
    put_text(out / JOB, json.dumps(described, indent=2) + "\n")


def finished(out: Path) -> Json | None:
    """The manifest of a run that came to its end; None if it did not."""
    try:
        manifest = json.loads((out / MANIFEST).read_text("utf-8"))
        return manifest if manifest["job"] == _job(out) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def filled(out: Path, partial: Path) -> None:
    """Move the files of a model into the folder; none of an earlier one stays beside them."""
    for pattern in _MODEL_FILES:
        for path in out.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for path in sorted(partial.iterdir()):
        os.replace(path, out / path.name)
    shutil.rmtree(partial)


def tidied(out: Path) -> None:
    """Remove checkpoints and tokens, which have done their work."""
    _removed(out / CHECKPOINTS)
    shutil.rmtree(out / TOKENS, ignore_errors=True)


def _refuse_foreign(out: Path) -> None:
    """Refuse a folder that no run of ours began."""
    if not out.exists() or (out / JOB).is_file() and _job(out) is not None:
        return
    # Another run may have come as far as this a moment ago.
    strange = [path.name for path in out.iterdir() if path.name not in (LOCK, f".{JOB}.partial")]
    if strange:
        raise InputError(
            f"--out {out}: holds {sorted(strange)[0]} and was not made by ringfence train; nothing "
            "there is touched. Use another --out, or empty the folder."
        )


def _job(out: Path) -> Json | None:
    """What `job.json` says; None where there is none of ours."""
    try:
        found = json.loads((out / JOB).read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    ours = isinstance(found, dict) and found.get("kind") in KINDS and "recipe" in found
    return found if ours else None


def _begun(out: Path) -> bool:
    """Whether a run made anything here that starting anew would lose."""
    return (out / MANIFEST).exists() or bool(checkpoints(out) or metrics.read(out))


def _removed(folder: Path) -> None:
    """Under another name first: what is half removed must not be taken for whole."""
    if folder.exists():
        aside = folder.with_name(f".{folder.name}.removed")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
        shutil.rmtree(aside, ignore_errors=True)


def _completed(before: Mapping[str, Any], now: Mapping[str, Any]) -> Json:
    """What a run said of itself; what earlier versions did not say is taken as unchanged."""
    found = dict(before)
    for name in ("model", "adapter"):
        if isinstance(before.get(name), dict) and isinstance(now.get(name), dict):
            found[name] = now[name] | before[name]
    return found


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    inner = []
    for name in names:
        one, other = before.get(name), now.get(name)
        if isinstance(one, dict) and isinstance(other, dict):
            keys = [key for key in sorted({*one, *other}) if one.get(key) != other.get(key)]
            inner += [f"{name}.{key}" for key in keys]
        else:
            inner.append(name)
    return f"{', '.join(inner)} differ. Use the same settings, another --out, or --force."
