"""Which judges a model can be: every principle measured on labelled replies.

    python benchmarks/judge_table.py --json docs/measurements/judge_table.json
    python benchmarks/judge_table.py --engine http://127.0.0.1:8000/v1#MODEL --data ../shared/data

The packaged check sets need nothing but the package. `--data` adds larger ones where the folder
holds them: the labelled answers that the judge of TruthfulQA was trained on (`truthfulqa`). The
prompts of HH (`hh_rlhf_harmless`) come without replies and cannot measure a judge of replies.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from ringfence.engine import Engine
from ringfence.engines import open_engine
from ringfence.errors import RingfenceError
from ringfence.judge_check import JudgeReport, check_judge
from ringfence.judged_items import JudgedItem, packaged_items
from ringfence.judges import SelfJudge
from ringfence.principle import Principle, packaged_principles

HEADER = (
    "| principle | items | AUROC (95 %) | accuracy at threshold | at 0 | TPR at 1 % FPR"
    " | swap flips | lean | ECE | tokens fed | requests | ms a verdict | |"
)
Set = tuple[str, str, Sequence[JudgedItem]]


def packaged_sets(principles: Sequence[str]) -> list[Set]:
    return [(name, "packaged", packaged_items(name)) for name in principles]


def truthful_answers(folder: Path, limit: int, seed: int) -> Sequence[JudgedItem]:
    """Answers of models to TruthfulQA that people labelled true or not."""
    rows = []
    for line in (folder / "judge_finetune_truth_4k.jsonl").read_text("utf-8").splitlines():
        row = json.loads(line)
        question, _, rest = row["prompt"].removeprefix("Q: ").partition("\nA: ")
        answer = rest.removesuffix("\nTrue:")
        messages = ({"role": "user", "content": question},)
        good = row["completion"].strip() == "yes"
        rows.append(JudgedItem(prompt=messages, reply=answer, good=good))
    random.Random(seed).shuffle(rows)
    return rows[:limit]


FOLDERS: dict[str, tuple[str, Callable[[Path, int, int], Sequence[JudgedItem]]]] = {
    "truthfulqa": ("truthful", truthful_answers),
}


def larger_sets(data: Path, principles: Sequence[str], limit: int, seed: int) -> list[Set]:
    found = []
    for folder, (principle, read) in FOLDERS.items():
        if principle not in principles:
            continue
        if (data / folder).is_dir():
            found.append((principle, folder, read(data / folder, limit, seed)))
        else:
            print(f"{data / folder} is not there; left out", file=sys.stderr)
    return found


async def measure(engine: Engine, sets: Sequence[Set]) -> list[tuple[str, JudgeReport]]:
    reports = []
    for name, source, items in sets:
        judge = await SelfJudge.open(engine, Principle.load(name))

        def progress(done: int, total: int, label: str = f"{name} ({source})") -> None:
            print(f"\r{label}: {done}/{total} ", end="", file=sys.stderr, flush=True)

        reports.append((source, await check_judge(judge, engine.card, items, progress=progress)))
        print(file=sys.stderr)
    return reports


def row(source: str, report: JudgeReport) -> str:
    area = report.auroc
    flips = "" if report.swap_flip_rate is None else f"{report.swap_flip_rate:.0%}"
    cells = [
        f"`{report.judge.removeprefix('self:')}`",
        f"{report.n} {source}",
        f"{area.estimate:.2f} ({area.low:.2f} to {area.high:.2f})",
        f"{report.accuracy:.0%}",
        f"{report.accuracy_at_zero:.0%}",
        f"{report.tpr_at_1_fpr:.0%}",
        flips,
        f"{report.lean:+.2f}",
        f"{report.calibration_error:.2f}",
        f"{report.fed:.0f}",
        f"{report.requests:.1f}",
        f"{1000 * report.seconds:.0f}",
        "at chance" if report.at_chance else "",
    ]
    return "| " + " | ".join(cells) + " |"


def table(reports: Sequence[tuple[str, JudgeReport]]) -> str:
    rule = "|" + "---|" * (HEADER.count("|") - 1)
    return "\n".join([HEADER, rule, *(row(source, report) for source, report in reports)])


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--principle", action="append", help="default: all that ship")
    parser.add_argument("--data", type=Path, help="folder with larger labelled sets")
    parser.add_argument("--limit", type=int, default=300, help="items of each larger set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    principles = options.principle or packaged_principles()
    engine = await open_engine(options.engine)
    try:
        sets = packaged_sets(principles)
        if options.data:
            sets += larger_sets(options.data, principles, options.limit, options.seed)
        reports = await measure(engine, sets)
    finally:
        await engine.aclose()
    print(f"{engine.card.name}\n\n{table(reports)}")
    if options.json:
        result = {
            "command": " ".join(["python", *sys.argv]),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": f"{platform.machine()}, {platform.system()}",
            "engine": engine.card.name,
            "principles": {name: Principle.load(name).model_dump() for name in principles},
            "reports": [{"source": source, **report.to_json()} for source, report in reports],
        }
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except RingfenceError as error:
        sys.exit(f"error: {error}")
