"""What a run measures, as hashes: the files of its models and the items of its suites."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from ringfence.adapters import chosen
from ringfence.evaluation.names import ModelName
from ringfence.policy_files import as_file, load
from ringfence.principle import packaged_principles

# Options of an engine that name a file, or a folder of files.
_FILES = ("tokenizer", "chat_template")


def of_model(name: ModelName) -> dict[str, str]:
    """SHA-256 of the files that decide what a model answers, by `option/file name`.

    Those of another model that judges have `judge/` before them. A policy that is not the default
    one is hashed as what it says.

    The packaged model and principles are not hashed: the packages' versions tell them. Of the model
    behind a server nothing is known.

    Raises:
        InputError: an adapter that is not there.
    """
    kind, _, path = name.engine.partition(":")
    places: dict[str, Path] = {}
    if kind in ("embedded", "hf"):
        given = name.opening.get("adapter"), name.opening.get("rings_strength")
        adapter = chosen(*given, packaged=kind == "embedded" and not path)
        places |= {"model": Path(path)} if path else {}
        places |= {"adapter": adapter.path} if adapter else {}
    places |= {option: Path(name.opening[option]) for option in _FILES if name.opening.get(option)}
    principle = name.settings.one_principle()
    if principle and principle not in packaged_principles():
        places["principle"] = Path(principle)
    found = {
        f"{option}/{file.name}": _digest(file)
        for option, place in places.items()
        for file in _files(Path(os.path.expanduser(place)))
    }
    if name.policy != load("harmony"):
        text = as_file(name.policy).model_dump_json()
        found["policy"] = hashlib.sha256(text.encode()).hexdigest()
    judging = of_model(name.judge) if name.judge else {}
    return found | {f"judge/{file}": digest for file, digest in judging.items()}


def of_items(samples: Any) -> str:
    """SHA-256 of what a suite asks and how it is graded; `samples` are Inspect's.

    Other data, another draw or another version of the suite give another one. The ids that Inspect
    gives to messages do not count.
    """
    digest = hashlib.sha256()
    for sample in samples:
        messages = [message.model_dump(mode="json", exclude={"id"}) for message in sample.input]
        told = [sample.id, messages, sample.metadata]
        digest.update(json.dumps(told, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _files(place: Path) -> list[Path]:
    if place.is_dir():
        return [file for file in sorted(place.glob("*")) if file.is_file()]
    return [place] if place.is_file() else []


def _digest(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
