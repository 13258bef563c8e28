"""Makes recipes/general_prompts.jsonl: ordinary requests, for replies of a model itself.

    python packaging/general_prompts.py DATA

DATA holds one sub-folder a data set. Equal data gives equal bytes. NOTICE names the sets.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

# Of the second set, which is larger and plainer.
_TAKEN = 300
_SHORTEST, _LONGEST = 16, 700


def prompts(data: Path) -> Iterator[tuple[str, str]]:
    """Names and texts of all requests that are taken."""
    found: list[tuple[str, str]] = []
    for name in ("seed_tasks", "user_oriented_instructions"):
        lines = (data / "self_instruct" / f"{name}.jsonl").read_text("utf-8").splitlines()
        for task in map(json.loads, lines):
            text = _text(task["instruction"], task["instances"][0]["input"])
            found.append((f"self_instruct:{task['id']}", text))
    rng = Random(7)
    file = data / "instruction_data_1100" / "instruction-data.json"
    plain = [
        (f"instruction_data:{number}", _text(task["instruction"], task["input"]))
        for number, task in enumerate(json.loads(file.read_text("utf-8")))
    ]
    rng.shuffle(plain)
    found += plain[:_TAKEN]
    rng.shuffle(found)
    yield from (item for item in found if _SHORTEST <= len(item[1]) < _LONGEST)


def _text(instruction: str, given: str) -> str:
    return f"{instruction}\n\n{given}" if given else instruction


def main() -> None:
    """Write the file."""
    target = Path(__file__).parent.parent / "recipes" / "general_prompts.jsonl"
    lines: list[dict[str, Any]] = [
        {"id": name, "messages": [{"role": "user", "content": text}]}
        for name, text in prompts(Path(sys.argv[1]))
    ]
    target.write_text(
        "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8"
    )
    print(f"{target}: {len(lines)} lines")


if __name__ == "__main__":
    main()
