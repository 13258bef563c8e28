"""What synthesis costs and how good it is: speed, memory, soundness, diversity, lengths.

Soundness is that of first draws, without the check that throws faulty cases away. Times are of the
processor, since machines are shared.

    python benchmarks/synthesis.py --json docs/measurements/synthesis.json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

from ringfence.rings import Policy
from ringfence.synthesis.case import Case
from ringfence.synthesis.recipes import RECIPES, make
from ringfence.synthesis.run import Job, synthesize
from ringfence.synthesis.sketch import grams, hashed, words
from ringfence.synthesis.soundness import faults
from ringfence.synthesis.writing import Folder

HARMONY = Policy.preset("harmony")
# Conversations are near duplicates if so much of their runs of five words is shared.
NEAR = 0.8
RUN = 5
HASHES = 64


def run(count: int) -> None:
    """One whole run in this process; prints seconds of the processor and peak memory in MiB."""
    job = Job(recipes=tuple(RECIPES), count=count, seed=0, policy=HARMONY)
    with tempfile.TemporaryDirectory() as folder:
        target = Folder(Path(folder) / "out", job.described())
        began = time.process_time()
        done = target.open()
        for _ in synthesize(job, target, done):
            pass
        seconds = time.process_time() - began
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        manifest = target.manifest()
    print(
        json.dumps(
            {
                "cases": count,
                "seconds": round(seconds, 2),
                "cases_a_minute": round(60 * count / seconds),
                "peak_mib": round(peak, 1),
                "redrawn": manifest["counts"]["redrawn"],
                "duplicates": manifest["duplicates"],
                "overlap": manifest["overlap"],
                "longest_words": manifest["words"]["longest"],
                "mean_words": manifest["words"]["mean"],
            }
        )
    )


def apart(count: int) -> dict[str, Any]:
    """A run in a process of its own, so that its memory is its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--run", str(count)], capture_output=True, text=True, check=True
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def soundness(each: int) -> dict[str, Any]:
    """Shares of right replies that pass and of wrong ones that fail, on first draws."""
    right: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    for recipe in RECIPES:
        for case in drawn(recipe, each):
            right["all"] += sum(one.target is not None for one in case.siblings.values())
            wrong["all"] += sum(one.wrong is not None for one in case.siblings.values())
            bad.update(fault.kind for fault in faults(case))
    return {
        "targets": right["all"],
        "gold_pass_rate": 1 - bad["target fails"] / right["all"],
        "wrong_replies": wrong["all"],
        "wrong_fail_rate": 1 - bad["wrong passes"] / wrong["all"],
        "faults": dict(sorted(bad.items())),
    }


def drawn(recipe: str, each: int) -> list[Case]:
    """First draws, four in five for training."""
    return [
        make(recipe, seed=1, index=n, split="eval" if n % 5 == 4 else "train", policy=HARMONY)
        for n in range(each)
    ]


def diversity(each: int) -> dict[str, Any]:
    """Distinct n-grams, near duplicates among conflicts, and lengths, per recipe and in all."""
    table: dict[str, Any] = {}
    for recipe in RECIPES:
        cases = drawn(recipe, each)
        texts = [
            "\n".join(turn.content for turn in case.siblings["conflict"].messages) for case in cases
        ]
        lengths = [
            sum(len(words(turn.content)) for turn in sibling.messages)
            for case in cases
            for sibling in case.siblings.values()
        ]
        table[recipe] = {
            **{f"distinct_{n}": distinct(texts, n) for n in (1, 2, 3)},
            "distinct_texts": len(set(texts)) / len(texts),
            "near_duplicates": near_duplicates(texts),
            "words_median": median(lengths),
            "words_longest": max(lengths),
        }
    return table


def distinct(texts: list[str], length: int) -> float:
    """Share of n-grams that are different ones."""
    every = [gram for text in texts for gram in grams(text, length)]
    return round(len(set(every)) / len(every), 4)


def near_duplicates(texts: list[str]) -> float:
    """Share of texts that have an earlier one with nearly the same runs of words (MinHash)."""
    sets = [set(grams(text, RUN)) or {hashed(text)} for text in texts]
    salts = [hashed(str(number)) for number in range(HASHES)]
    sketches = [tuple(min(one ^ salt for one in found) for salt in salts) for found in sets]
    bands: dict[tuple[int, tuple[int, ...]], list[int]] = {}
    near = 0
    for place, sketch in enumerate(sketches):
        keys = [(start, sketch[start : start + 4]) for start in range(0, HASHES, 4)]
        before = {other for key in keys for other in bands.get(key, ())}
        near += any(
            len(sets[place] & sets[other]) / len(sets[place] | sets[other]) >= NEAR
            for other in before
        )
        for key in keys:
            bands.setdefault(key, []).append(place)
    return round(near / len(texts), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs=2, default=[1800, 9000])
    parser.add_argument("--each", type=int, default=400, help="cases a recipe")
    parser.add_argument("--run", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.run:
        run(given.run)
        return
    found: dict[str, Any] = {
        "runs": [apart(count) for count in given.sizes],
        "soundness_of_first_draws": soundness(given.each),
        "diversity": diversity(given.each),
        "near_duplicate_if": f"Jaccard of {RUN}-grams >= {NEAR}",
    }
    for one in found["runs"]:
        print(f"{one['cases']:>7} cases  {one['cases_a_minute']:>6}/min  {one['peak_mib']} MiB")
    sound = found["soundness_of_first_draws"]
    print(f"right pass {sound['gold_pass_rate']:.4%}  wrong fail {sound['wrong_fail_rate']:.4%}")
    for recipe, row in found["diversity"].items():
        print(f"{recipe:<14}" + "  ".join(f"{name} {value}" for name, value in row.items()))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
