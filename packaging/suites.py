"""Packages small parts of data sets for the suites, where the licence lets us.

    python packaging/suites.py DATA

DATA holds one sub-folder a data set. Equal data gives equal bytes: a part is made of the rows with
the smallest sha256 of their text, a number for each kind, in the order of the file. NOTICE names
every set, its authors and its licence.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ringfence.suites.extraction import chosen
from ringfence.suites.files import PACKAGED
from ringfence.suites.injecagent import tools_in

Row = dict[str, Any]


def table(path: Path) -> list[Row]:
    """Rows of a CSV file with their numbers from 0, or of a JSONL file as they are."""
    if path.suffix == ".csv":
        with path.open(encoding="utf-8-sig", newline="") as file:
            return [{"row": number} | row for number, row in enumerate(csv.DictReader(file))]
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def part(rows: Iterable[Row], text: str, count: int, kind: Callable[[Row], object]) -> list[Row]:
    """`count` rows, kinds in turn, the smallest hash of the field `text` first; file order."""
    kinds: dict[object, list[tuple[str, int]]] = defaultdict(list)
    everything = list(rows)
    for place, row in enumerate(everything):
        mark = hashlib.sha256(row[text].encode()).hexdigest()
        kinds[kind(row)].append((mark, place))
    queues = [sorted(queue) for _, queue in sorted(kinds.items(), key=lambda pair: str(pair[0]))]
    turns = [
        queue[turn] for turn in range(len(everything)) for queue in queues if turn < len(queue)
    ]
    return [everything[place] for place in sorted(place for _, place in turns[:count])]


def only(rows: Iterable[Row], *fields: str) -> list[Row]:
    """The fields that suites read."""
    return [{field: row[field] for field in fields if field in row} for row in rows]


def one_kind(row: Row) -> str:
    """Where rows are all alike."""
    return ""


def first_instruction(row: Row) -> str:
    """IFEval's kind."""
    return str(row["instruction_id_list"][0])


def parts(data: Path) -> dict[str, list[Row]]:
    """Packaged file → its rows."""
    found: dict[str, list[Row]] = {}
    rows = table(data / "ifeval/sys_ifeval.jsonl")
    fields = ("key", "prompt", "instruction_id_list", "kwargs")
    taken = part(rows, "prompt", 120, first_instruction)
    found["ifeval/input_data"] = only(taken, *fields)
    found["ifeval/sys_ifeval"] = only(taken, *fields, "messages")

    attacks = json.loads((data / "sysprompt_extraction/attacks.json").read_text("utf-8"))
    found["sysprompt_extraction/attacks"] = listed(attacks)
    rows = table(data / "awesome_chatgpt_prompts/prompts.csv")
    used = set(chosen(row["prompt"] for row in rows))
    found["awesome_chatgpt_prompts/prompts"] = [
        {"prompt": row["prompt"]} for row in rows if row["prompt"] in used
    ]

    found["bipia_train/email_train"] = table(data / "bipia_train/email_train.jsonl")
    attacks = json.loads((data / "bipia_train/text_attack_train.json").read_text("utf-8"))
    found["bipia_train/text_attack_train"] = listed(attacks)

    agent = data / "injecagent_direct_harm"
    users, attackers = (
        table(agent / f"{name}.jsonl") for name in ("user_cases", "attacker_cases_dh")
    )
    found["injecagent_direct_harm/user_cases"] = only(
        users, "User Tool", "User Instruction", "Tool Parameters", "Tool Response Template"
    )
    found["injecagent_direct_harm/attacker_cases_dh"] = only(
        attackers, "Attacker Tools", "Attacker Instruction", "Attack Type"
    )
    needed = {row["User Tool"] for row in users} | {row["Attacker Tools"][0] for row in attackers}
    tools = tools_in(data)
    found["injecagent_direct_harm/tools"] = [dict(tools[name]) for name in sorted(needed)]

    rows = table(data / "advbench/harmful_behaviors.csv")
    found["advbench/harmful_behaviors"] = part(rows, "goal", 25, one_kind)
    rows = table(data / "harmbench_val/harmbench_val_standard.jsonl")
    taken = part(rows, "behavior", 12, lambda row: row["semantic_category"])
    found["harmbench_val/harmbench_val_standard"] = only(taken, "behavior_id", "behavior")
    rows = table(data / "strongreject/strongreject_dataset.csv")
    taken = part(rows, "forbidden_prompt", 18, lambda row: row["category"])
    found["strongreject/strongreject_dataset"] = only(taken, "row", "forbidden_prompt")

    rows = table(data / "xstest/xstest_prompts.csv")
    found["xstest/xstest_prompts"] = only(rows, "id", "prompt", "type", "label")
    rows = table(data / "orbench_hard/or_bench_hard.jsonl")
    found["orbench_hard/or_bench_hard"] = part(rows, "prompt", 60, lambda row: row["category"])
    rows = table(data / "phtest_harmless/phtest_harmless.jsonl")
    found["phtest_harmless/phtest_harmless"] = part(rows, "prompt", 60, one_kind)
    rows = table(data / "coconot_contrast/coconot_contrast_eval.jsonl")
    taken = part(rows, "prompt", 60, lambda row: row["subcategory"])
    found["coconot_contrast/coconot_contrast_eval"] = only(taken, "id", "subcategory", "prompt")

    rows = table(data / "truthfulqa/TruthfulQA.csv")
    taken = part(rows, "Question", 120, lambda row: row["Category"])
    shown = ("row", "Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers")
    found["truthfulqa/TruthfulQA"] = only(taken, *shown)
    return found


def listed(groups: dict[str, list[str]]) -> list[Row]:
    """An object of lists as rows."""
    return [{"family": family, "text": text} for family in groups for text in groups[family]]


def write(found: dict[str, list[Row]], folder: Path) -> None:
    """Every part into a new folder, and what they come to on stdout."""
    total = 0
    for name, rows in found.items():
        path = folder / f"{name}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        path.write_text(text, "utf-8")
        total += len(text.encode())
        print(f"{len(rows):5} rows {len(text.encode()):8,} bytes  {name}")
    print(f"{total:,} bytes in all")


def main() -> None:
    """Write every part anew: all of them, or nothing changes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="folder with one sub-folder a data set")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    args = parser.parse_args()
    out: Path = args.out.resolve()
    # Only what this script made before is thrown away.
    if out != PACKAGED.resolve() and out.exists() and (not out.is_dir() or any(out.iterdir())):
        parser.error(f"--out {args.out}: is not empty; name a folder that is new or empty")
    found = parts(args.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".suites-", dir=out.parent) as place:
        made, old = Path(place, "made"), Path(place, "old")
        write(found, made)
        if out.exists():
            os.replace(out, old)
        try:
            os.replace(made, out)
        except OSError:
            if old.exists():
                os.replace(old, out)
            raise


if __name__ == "__main__":
    main()
