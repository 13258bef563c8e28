"""Hashed n-grams against MiniLM on real drafts: when do two token sets say the same?

Draws the token sets that the search would compare (children of one node: 9 sampled runs and the
greedy one) after the beginnings of reviews, embeds them both ways, and looks at all pairs of
siblings. MiniLM at 0.95, as in RAIN's released code, is what the n-grams should agree with.

    python benchmarks/similarity.py --prefixes FILE --json docs/measurements/similarity.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from ringfence import Sampling, open_engine, render_text
from ringfence.embedding import Embedder, HashedNgrams, MiniLM

LENGTHS = (1, 2, 4, 10)


async def families(args: argparse.Namespace) -> dict[int, list[list[str]]]:
    """Texts of siblings, by length of the token sets."""
    rows = [json.loads(line)["prefix"] for line in Path(args.prefixes).read_text().splitlines()]
    engine = await open_engine(args.engine)
    found: dict[int, list[list[str]]] = {length: [] for length in LENGTHS}
    try:
        for seed, row in enumerate(rows[args.first : args.first + args.count]):
            prompt = render_text(row, engine.card.tokenizer)
            for length in LENGTHS:
                drafts = await engine.draft(prompt.tokens, 1, length, Sampling(temperature=0))
                sampling = Sampling(top_k=15, seed=seed)
                drafts += await engine.draft(prompt.tokens, 9, length, sampling)
                distinct = {draft.tokens for draft in drafts}
                found[length].append(
                    sorted(engine.card.tokenizer.decode(tokens) for tokens in distinct)
                )
    finally:
        await engine.aclose()
    return found


def cosines(embedder: Embedder, siblings: list[list[str]]) -> tuple[np.ndarray, float]:
    """Cosine of every pair of siblings, and milliseconds a text."""
    embedder.embed(["the first call loads things"])
    started, texts, values = time.monotonic(), 0, []
    for family in siblings:
        vectors = embedder.embed(family)
        texts += len(family)
        values += [float(vectors[i] @ vectors[j]) for i, j in combinations(range(len(family)), 2)]
    return np.array(values), 1000 * (time.monotonic() - started) / texts


def compare(grams: np.ndarray, meaning: np.ndarray, similar: float) -> dict[str, Any]:
    """Agreement of two ways to say which pairs are alike."""
    wanted, said = meaning >= MiniLM.similar, grams >= similar
    both = int((wanted & said).sum())
    return {
        "pairs": len(grams),
        "spearman": float(spearmanr(grams, meaning).statistic) if len(grams) > 2 else None,
        "minilm_alike": int(wanted.sum()),
        "ngrams_alike": int(said.sum()),
        "both": both,
        "precision": both / int(said.sum()) if said.any() else None,
        "recall": both / int(wanted.sum()) if wanted.any() else None,
    }


def best_threshold(grams: np.ndarray, meaning: np.ndarray) -> tuple[float, float]:
    """The threshold of the n-grams with the best F1 against MiniLM, and that F1."""
    wanted = meaning >= MiniLM.similar

    def f1(threshold: float) -> float:
        said = grams >= threshold
        return 2 * float((said & wanted).sum()) / max(1.0, float(said.sum() + wanted.sum()))

    steps = [round(0.3 + 0.01 * step, 2) for step in range(70)]
    best = max(steps, key=f1)
    return best, f1(best)


def main() -> None:
    """Draw, embed, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prefixes", required=True, help="JSONL with a field `prefix`")
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--first", type=int, default=100)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--json", help="write the figures here, too")
    args = parser.parse_args()
    drawn = asyncio.run(families(args))
    grams, meaning = HashedNgrams(), MiniLM()
    table: dict[str, Any] = {}
    all_grams, all_meaning = [], []
    for length, siblings in drawn.items():
        ours, our_ms = cosines(grams, siblings)
        theirs, their_ms = cosines(meaning, siblings)
        table[f"{length} tokens"] = {
            **compare(ours, theirs, grams.similar),
            "ngrams_ms": our_ms,
            "minilm_ms": their_ms,
        }
        all_grams.append(ours)
        all_meaning.append(theirs)
    ours, theirs = np.concatenate(all_grams), np.concatenate(all_meaning)
    table["all"] = compare(ours, theirs, grams.similar)
    table["best_threshold"], table["best_f1"] = best_threshold(ours, theirs)
    print(
        "| sets of | pairs | alike (MiniLM) | alike (n-grams) | precision | recall | ρ | ms | ms |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name, row in table.items():
        if isinstance(row, dict):
            figures = [row["precision"], row["recall"], row["spearman"]]
            times = [row.get("ngrams_ms"), row.get("minilm_ms")]
            shown = " | ".join("–" if x is None else f"{x:.2f}" for x in figures + times)
            print(
                f"| {name} | {row['pairs']} | {row['minilm_alike']} | {row['ngrams_alike']} "
                f"| {shown} |"
            )
    print(f"best threshold {table['best_threshold']}, F1 {table['best_f1']:.2f}")
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
