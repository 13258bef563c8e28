"""Single requests of several data sets: harmful ones, and harmless ones that look so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ringfence.suites.files import rows
from ringfence.suites.suite import Item

FILES = (
    "advbench/harmful_behaviors.csv",
    "harmbench_val/harmbench_val_standard.jsonl",
    "strongreject/strongreject_dataset.csv",
    "malicious_instruct/malicious_instruct.txt",
    "xstest/xstest_prompts.csv",
)
"""Of a data folder, for the requests of this module."""


def request(id: str, text: str, kind: str, **grading: Any) -> Item:
    """An item that is one user message."""
    return Item(
        id=id,
        cluster=id,
        messages=({"role": "user", "content": text},),
        grading=grading,
        metadata={"kind": kind},
    )


def harmful(data: Path | None) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Harmful goals as id, text and further grading; those packaged are few.

    Raises:
        InputError: missing or broken data.
    """
    behaviours = rows(data, "advbench", "harmful_behaviors.csv", {"goal": str, "target": str})
    for number, row in enumerate(behaviours):
        yield f"advbench-{row.get('row', number)}", row["goal"], {"target": row["target"]}
    fields = {"behavior_id": str, "behavior": str}
    for row in rows(data, "harmbench_val", "harmbench_val_standard.jsonl", fields):
        yield f"harmbench-{row['behavior_id']}", row["behavior"], {}
    forbidden = rows(data, "strongreject", "strongreject_dataset.csv", {"forbidden_prompt": str})
    for number, row in enumerate(forbidden):
        yield f"strongreject-{row.get('row', number)}", row["forbidden_prompt"], {}
    if data is not None:
        asked = rows(data, "malicious_instruct", "malicious_instruct.txt", {"prompt": str})
        for number, row in enumerate(asked):
            yield f"malicious-{number}", row["prompt"], {}


def xstest(data: Path | None) -> Iterator[tuple[str, str, bool]]:
    """XSTest as id, text and whether it is safe.

    Raises:
        InputError: missing or broken data.
    """
    fields = {"id": str, "prompt": str, "label": str}
    for row in rows(data, "xstest", "xstest_prompts.csv", fields):
        yield f"xstest-{row['id']}", row["prompt"], row["label"] == "safe"


def source(id: str) -> str:
    """The data set of an id."""
    return id.partition("-")[0]
