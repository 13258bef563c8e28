"""Controlled sentiment (RAIN, table 3): continue beginnings of negative reviews positively.

The share of positive replies is graded by VADER, which is not the judge. Every arm draws from the
same distribution (temperature 1, the 15 most likely tokens), so what differs is only the choosing.

    python benchmarks/sentiment.py --arms plain,best-of-8,rain --prefixes FILE --out runs/sentiment

Finished replies are kept in OUT/replies.jsonl and skipped when the command is run again.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from ringfence import Options, Principle, SelfJudge, complete, decode, open_engine, render_text
from ringfence.decoding import DECODERS, DecoderName
from ringfence.statistics import distinct_n, paired_bootstrap_difference, wilson

Arm = tuple[DecoderName, dict[str, Any]]
Replies = dict[tuple[int, int], dict[str, Any]]
SAMPLING: dict[str, Any] = {"temperature": 1.0, "top_k": 15, "exhausted": "best"}


def arms(own: Sequence[str] = ()) -> dict[str, Arm]:
    """Name → decoder and options; `own` holds more of them as NAME=DECODER:JSON."""
    found: dict[str, Arm] = {"plain": ("plain", {})}
    for arm in own:
        name, _, what = arm.partition("=")
        decoder, _, extra = what.partition(":")
        if decoder not in DECODERS:
            sys.exit(f"--arm {arm}: no decoder {decoder!r}; there are {', '.join(DECODERS)}")
        found[name] = (decoder, json.loads(extra or "{}"))
    for n in (2, 4, 8, 16, 24, 32, 48):
        found[f"best-of-{n}"] = ("best-of-n", {"n": n})
    found["rejection"] = ("rejection", {})
    found["guarded"] = ("guarded", {})
    for preset in ("fast", "paper", "code"):
        found[f"rain-{preset}"] = ("rain", {"preset": preset})
    off: dict[str, dict[str, Any]] = {
        "no-similarity": {"similarity": False},
        "no-addition": {"dynamic_addition": False},
        "no-exploration": {"exploration": 0.0},
        "no-simulation": {"simulation": False},
    }
    for name, search in off.items():
        for preset in ("fast", "paper", "code"):
            found[f"rain-{preset}-{name}"] = ("rain", {"preset": preset, "search": search})
    # The look-ahead is off in `fast`, whose sets are longer than most phrases.
    found["rain-fast-and-simulation"] = ("rain", {"search": {"simulation": True}})
    return found


async def run(args: argparse.Namespace) -> None:
    """Make the replies that are missing."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "replies.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(r["arm"], r["row"], r["seed"]) for r in map(json.loads, lines)}
    rows = [json.loads(line)["prefix"] for line in Path(args.prefixes).read_text().splitlines()]
    engine = await open_engine(args.engine, **({"threads": args.threads} if args.threads else {}))
    judge = await SelfJudge.open(engine, Principle.load(args.principle))
    jobs = [
        (arm, row, seed)
        for seed in range(args.seeds)
        for row in range(args.first, args.first + args.count)
        for arm in args.arms.split(",")
        if (arm, row, seed) not in done
    ]
    started, finished = time.monotonic(), 0
    queue, known = iter(jobs), arms(args.arm)

    async def work() -> None:
        nonlocal finished
        for arm, row, seed in queue:
            decoder, extra = known[arm]
            options = Options(
                max_tokens=args.tokens,
                seed=random.Random(f"{seed}/{row}").getrandbits(31),
                **(SAMPLING | extra),
            )
            reply = await complete(
                decode(
                    engine,
                    render_text(rows[row], engine.card.tokenizer),
                    decoder=decoder,
                    judge=judge,
                    options=options,
                )
            )
            record = {
                "arm": arm,
                "row": row,
                "seed": seed,
                "text": reply.text,
                "tokens": len(reply.tokens),
                "logprob": reply.logprob,
                "reason": reply.reason,
                "value": reply.value,
                "cost": asdict(reply.cost),
            }
            with file.open("a") as handle:
                handle.write(json.dumps(record) + "\n")
            finished += 1
            rate = (time.monotonic() - started) / finished
            left = rate * (len(jobs) - finished) / 60
            print(f"\r{finished}/{len(jobs)}, {left:.0f} min left ", end="", file=sys.stderr)

    try:
        await asyncio.gather(*(work() for _ in range(args.concurrency)))
    finally:
        await engine.aclose()


def summary(args: argparse.Namespace) -> dict[str, Any]:
    """Fold the replies into a table, arms paired by prefix and seed."""
    grader = SentimentIntensityAnalyzer()
    records = [json.loads(line) for line in (Path(args.out) / "replies.jsonl").open()]
    wanted = args.arms.split(",")
    by_arm: dict[str, Replies] = defaultdict(dict)
    for record in records:
        in_range = args.first <= record["row"] < args.first + args.count
        if in_range and record["seed"] < args.seeds and record["arm"] in wanted:
            record["compound"] = grader.polarity_scores(record["text"])["compound"]
            by_arm[record["arm"]][record["row"], record["seed"]] = record
    if args.shared:
        shared = set.intersection(*(set(by_arm[arm]) for arm in wanted))
        by_arm = {arm: {key: by_arm[arm][key] for key in shared} for arm in wanted}
    table = {arm: _row(list(by_arm[arm].values())) for arm in wanted if by_arm[arm]}
    plain = by_arm.get("plain", {})
    for arm, row in table.items():
        pairs = sorted(plain.keys() & by_arm[arm].keys())
        if arm == "plain" or not pairs:
            continue
        row["points_over_plain"] = _difference(by_arm[arm], plain, pairs)
    return table


def _positive(record: dict[str, Any]) -> float:
    return float(record["compound"] >= 0.05)


def _difference(
    one: dict[tuple[int, int], dict[str, Any]],
    other: dict[tuple[int, int], dict[str, Any]],
    shared: list[tuple[int, int]],
) -> dict[str, float]:
    """Points of `one` over `other` on the same prefixes, averaged over seeds first."""
    rows = sorted({row for row, _ in shared})
    means = [
        [
            sum(_positive(side[key]) for key in shared if key[0] == row)
            / sum(key[0] == row for key in shared)
            for row in rows
        ]
        for side in (one, other)
    ]
    found = paired_bootstrap_difference(means[0], means[1], seed=0)
    return {
        "points": 100 * found.estimate,
        "low": 100 * found.low,
        "high": 100 * found.high,
    }


def _distinct_within(records: list[dict[str, Any]]) -> float:
    """Mean distinct-2 of single replies; those of fewer than two words repeat nothing."""
    texts = [record["text"] for record in records]
    shares = [distinct_n([text], 2) if len(text.split()) > 1 else 1.0 for text in texts]
    return sum(shares) / len(shares)


def _row(records: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(records)
    positive = int(sum(map(_positive, records)))
    interval = wilson(positive, n)
    tokens = sum(record["tokens"] for record in records)
    costs = [record["cost"] for record in records]
    return {
        "n": n,
        "positive": 100 * positive / n,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
        "compound": sum(record["compound"] for record in records) / n,
        "judge_value": sum(record["value"] or 0 for record in records) / n,
        "distinct_2": distinct_n([record["text"] for record in records], 2),
        "distinct_2_within": _distinct_within(records),
        "perplexity": 2.718281828459045 ** (-sum(r["logprob"] for r in records) / max(1, tokens)),
        "tokens": tokens / n,
        "processed_per_token": sum(cost["fed"] for cost in costs) / max(1, tokens),
        "drafted_per_token": sum(cost["drafted"] for cost in costs) / max(1, tokens),
        "rounds_per_token": sum(cost["rounds"] for cost in costs) / max(1, tokens),
        "rewinds": sum(cost["rewinds"] for cost in costs) / n,
        "seconds": sum(cost["seconds"] for cost in costs) / n,
    }


def markdown(table: dict[str, Any]) -> str:
    """The table for people."""
    lines = [
        "| decoder | positive % (95 %) | over plain, points (95 %) | distinct-2 | perplexity "
        "| processed / token | rounds / token | s / reply |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for arm, row in table.items():
        over = row.get("points_over_plain")
        gain = f"{over['points']:+.1f} ({over['low']:+.1f} to {over['high']:+.1f})" if over else "–"
        lines.append(
            f"| {arm} | {row['positive']:.1f} ({row['low']:.1f}–{row['high']:.1f}) | {gain} "
            f"| {row['distinct_2_within']:.2f} | {row['perplexity']:.1f} "
            f"| {row['processed_per_token']:.1f} | {row['rounds_per_token']:.2f} "
            f"| {row['seconds']:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--prefixes", required=True, help="JSONL with a field `prefix`")
    parser.add_argument("--arms", default="plain,best-of-8,rejection,rain-fast,guarded")
    parser.add_argument(
        "--arm", action="append", default=[], help="one more: NAME=DECODER:JSON of its options"
    )
    parser.add_argument("--principle", default="positive")
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--threads", type=int, help="of the embedded engine")
    parser.add_argument("--out", default="runs/sentiment")
    parser.add_argument("--json", help="write the table here, too")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--concurrency", type=int, default=2)
    parser.add_argument(
        "--shared", action="store_true", help="only prefixes and seeds that every arm has"
    )
    parser.add_argument("--only-table", action="store_true", help="make no replies")
    args = parser.parse_args()
    if not args.only_table:
        asyncio.run(run(args))
    table = summary(args)
    print("\n" + markdown(table))
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
