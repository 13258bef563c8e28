"""What a run was: the manifest and the model card, facts only. Knows no torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ringfence.training.sources import sha256

Json = dict[str, Any]
MANIFEST, CARD = "manifest.json", "README.md"
_LIBRARIES = (
    "ringfence", "torch", "transformers", "trl", "peft", "accelerate", "tokenizers", "numpy",
)  # fmt: skip


def environment(devices: Sequence[str], processes: int) -> Json:
    """Versions and machine, without anything that names a person or a place."""
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "processes": processes,
        "devices": list(devices),
        "libraries": {name: _version(name) for name in _LIBRARIES},
    }


def text_hash(text: str | None) -> str | None:
    """Of a template."""
    return None if text is None else hashlib.sha256(text.encode()).hexdigest()


def written(folder: Path) -> Json:
    """Name, size and hash of the files of a finished folder."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    }


def put(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write the manifest, whole or not at all."""
    put_text(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def put_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, "utf-8")
    os.replace(partial, path)


def card(manifest: Mapping[str, Any]) -> str:
    """The model card: what the manifest says, for people."""
    job, result = manifest["job"], manifest["result"]
    recipe = job["recipe"]
    adapter = result["adapter"]  # what was trained; the recipe's is for new ones
    kind = "supervised fine-tuning" if job["kind"] == "sft" else "preferences (DPO)"
    method = (
        "all weights"
        if adapter is None
        else f"a LoRA adapter of rank {adapter['rank']}, alpha {adapter['alpha']:g}"
    )
    proof = manifest["data"]["proof"]
    lines = [
        "---",
        f"library_name: {'transformers' if adapter is None else 'peft'}",
        f"base_model: {json.dumps(job['model']['name'])}",
        "tags: [ringfence, instruction-hierarchy, trl]",
        "---",
        "",
        f"# {_cell(job['model']['name'])}, trained on rings",
        "",
        f"Trained by `ringfence train {job['kind']}`: {kind}, {method}. All of what follows is "
        "generated from `manifest.json`.",
        "",
        "## Training",
        "",
        *_table(_training(result, recipe)),
        "",
        "The loss is that of the assistant's tokens, the end of the turn included. `loss.png` "
        "draws it, `metrics.jsonl` holds every step.",
        "",
        "## Data",
        "",
        "| part | examples | share | tokens | with a loss |",
        "|---|---|---|---|---|",
        *(
            f"| {_cell(part['name'])} | {part['taken']:,} of {part['there']:,} | "
            f"{part['share']:.1%} | {part['tokens']:,} | {part['learnt']:,} |"
            for part in manifest["data"]["mixture"]
        ),
        "",
        f"Left out: {_reasons(manifest['data']['dropped'])}.",
        "",
        f"Evaluation data: {_cell(proof['says'])}.",
        "",
        "## What this does not say",
        "",
        "Nothing here was evaluated. A falling loss is no evidence of safety.",
        "",
    ]
    return "\n".join(lines)


def _training(result: Mapping[str, Any], recipe: Mapping[str, Any]) -> Json:
    return {
        "steps": result["steps"],
        "first and last loss": f"{_number(result['first_loss'])}, {_number(result['last_loss'])}",
        "tokens seen": f"{result['tokens']:,}",
        "tokens a second": f"{result['tokens_per_second']:,.0f}",
        "length of an example": f"at most {recipe['sequence']['length']} tokens",
        "rings": _signal(result["ring_signal"]),
        "precision": recipe["hardware"]["precision"],
        "seed": recipe["seed"],
    }


def _signal(card: Mapping[str, Any] | None) -> str:
    if card is None:
        return "by the chat template only"
    return f"{card['kind']}: {', '.join(card['names']) or card['rings']}"


def _table(rows: Mapping[str, Any]) -> list[str]:
    return ["| | |", "|---|---|", *(f"| {name} | {_cell(str(rows[name]))} |" for name in rows)]


def _cell(text: str) -> str:
    """Text in a table of Markdown: nothing in it opens a cell, a tag or a link."""
    clean = "".join(letter if letter.isprintable() else " " for letter in text)
    for mark in "\\`*_[]<>|":
        clean = clean.replace(mark, f"\\{mark}")
    return clean


def _reasons(dropped: Mapping[str, Any]) -> str:
    reasons = dropped["reasons"]
    listed = ", ".join(f"{count:,} ({_cell(reason)})" for reason, count in reasons.items())
    return listed or "nothing"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
