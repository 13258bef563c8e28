"""Pass rates of a hierarchy run, recipe by recipe and sibling by sibling, as Markdown.

    python benchmarks/hierarchy_table.py RUN...

RUN is a folder of `ringfence evaluate --suite hierarchy`. A reply passes that does all that the
policy wants of it (outcome `right`); intervals are Wilson's, 95 %.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

from ringfence.statistics import wilson

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
    for run in map(Path, sys.argv[1:]):
        for model, cells in outcomes(run).items():
            print(f"\n{model}: passed, 95 % interval, replies\n")
            print("\n".join(table(cells)))


if __name__ == "__main__":
    main()
