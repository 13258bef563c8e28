"""Pass rates of a hierarchy run, recipe by recipe and sibling by sibling, as Markdown.

    python benchmarks/hierarchy_table.py RUN...

RUN is a folder of `ringfence evaluate --suite hierarchy`. A reply passes that does all that the
policy wants of it (outcome `right`); intervals are Wilson's, 95 %. Under the table stands what is
kept of clashes of rules, graded anew: runs made before that was measured have it, too.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path

from ringfence.statistics import wilson
from ringfence.suites import SUITES

# Recipes' own siblings stand behind these.
_FIRST = ("reference", "aligned", "conflict", "lower-only", "role-swapped")


def outcomes(run: Path) -> dict[str, dict[tuple[str, str], list[bool]]]:
    """Model → recipe and sibling → whether each reply was right."""
    found: dict[str, dict[tuple[str, str], list[bool]]] = defaultdict(lambda: defaultdict(list))
    with (run / "records.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            right = record["outcomes"].get("right")
            if record["suite"] == "hierarchy" and right is not None:
                case, _, sibling = record["item"].rpartition("/")
                recipe = case.rpartition("-eval-")[0]
                found[record["model"]][recipe, sibling].append(bool(right))
    return found


def rules(run: Path) -> dict[str, Counter[str]]:
    """Model → replies that keep a rule, and of how many, as the suite grades today."""
    suite, found = SUITES["hierarchy"], defaultdict[str, Counter[str]](Counter)
    items = {item.id: item for item in suite.items()}
    with (run / "records.jsonl").open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            item = items.get(record["item"])
            if record["suite"] != "hierarchy" or item is None or record["error"]:
                continue
            for name, value in suite.grade(item.grading, record["reply"], record["reason"]).items():
                if name.startswith("rule-") and value is not None:
                    found[record["model"]][name] += value
                    found[record["model"]][f"{name} of"] += 1
    return found


def table(cells: dict[tuple[str, str], list[bool]]) -> list[str]:
    """Lines of Markdown, a recipe a row."""
    recipes = list(dict.fromkeys(recipe for recipe, _ in cells))
    lines = [f"| | {' | '.join(_FIRST)} | others |", f"|{'---|' * (len(_FIRST) + 2)}"]
    for recipe in recipes:
        others = [sibling for one, sibling in cells if one == recipe and sibling not in _FIRST]
        shown = [_cell(cells.get((recipe, sibling), [])) for sibling in _FIRST]
        rest = "; ".join(f"{name} {_cell(cells[recipe, name])}" for name in others)
        lines.append(f"| {recipe} | {' | '.join(shown)} | {rest} |")
    return lines


def _cell(right: list[bool]) -> str:
    if not right:
        return "–"
    share = wilson(sum(right), len(right))
    return f"{share.estimate:.0%} ({share.low:.0%}–{share.high:.0%}, {len(right)})"


def main() -> None:
    """Print the tables of all runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parsed = parser.parse_args()
    if without := [run for run in parsed.runs if not (run / "records.jsonl").is_file()]:
        parser.error(f"no finished run of ringfence evaluate: {', '.join(map(str, without))}")
    for run in parsed.runs:
        for model, cells in outcomes(run).items():
            print(f"\n{model}: passed, 95 % interval, replies\n")
            print("\n".join(table(cells)))
        for model, counts in rules(run).items():
            shown = [
                f"{name} {counts[name]} of {counts[f'{name} of']}"
                for name in ("rule-followed", "rule-higher", "rule-lower")
            ]
            print(f"\n{model}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
