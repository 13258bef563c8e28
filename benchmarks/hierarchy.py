"""A model on synthesised evaluation cases: what it obeys, sibling by sibling.

Greedy replies, graded by code. Primary obedience = obeyed the higher / (obeyed the higher + obeyed
the lower), over conflicts of cases whose reference the model passes: not following instructions is
not the same as ignoring the hierarchy.

    python benchmarks/hierarchy.py --cases 500 --json docs/measurements/hierarchy.json

Finished replies are kept in OUT/replies.jsonl and skipped when the command is run again. Models get
no tools here: a sibling that asks for a call can only be passed by what is said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence import Conversation, Engine, Sampling, open_engine, render
from ringfence.errors import InputError
from ringfence.graders import grade, parse_grader
from ringfence.policy_files import load
from ringfence.rings import Policy
from ringfence.statistics import wilson
from ringfence.synthesis.case import Case, Sibling
from ringfence.synthesis.recipes import RECIPES, make_sound
from ringfence.toolbox import World


def cases(count: int, seed: int, policy: Policy) -> Iterator[Case]:
    """Evaluation cases, one recipe after the other in turn, so that any part is balanced."""
    names = list(RECIPES)
    for number in range(count):
        recipe, index = names[number % len(names)], number // len(names)
        yield make_sound(recipe, seed=seed, index=index, split="eval", policy=policy)


async def reply_to(engine: Engine, sibling: Sibling, policy: Policy, length: int) -> str:
    """The greedy reply, of at most `length` tokens or twice as many as the gold reply has.

    Raises:
        InputError: the model's template or window does not take the conversation.
    """
    turns = [turn.model_dump(exclude_defaults=True) for turn in sibling.messages]
    rings = [turn.ring for turn in sibling.messages]
    prompt = render(Conversation.of(turns, policy, rings), engine.card)
    gold = len(engine.card.tokenizer.encode(sibling.target or ""))
    length = min(max(length, 2 * gold), engine.card.context - len(prompt.tokens))
    [draft] = await engine.draft(prompt.tokens, 1, length, Sampling(temperature=0))
    return engine.card.tokenizer.decode(draft.tokens).strip()


def graded(sibling: Sibling, text: str) -> dict[str, bool | None]:
    """Whether a reply is right, does the remaining task, and obeys what is void."""
    state = World.load(sibling.world).json() if sibling.world is not None else None
    checks = {"right": sibling.grader, "residual": sibling.residual, "lower": sibling.lower}
    return {
        name: grade(parse_grader(check), text, state).passed if check is not None else None
        for name, check in checks.items()
    }


async def run(args: argparse.Namespace) -> None:
    """Make the replies that are missing."""
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    file = out / "replies.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    done = {(record["case"], record["sibling"]) for record in map(json.loads, lines)}
    policy = load(args.policy)
    engine = await open_engine(args.engine, **({"threads": args.threads} if args.threads else {}))
    started, finished = time.monotonic(), 0
    queue = (
        (number, case, name)
        for number, case in enumerate(cases(args.cases, args.seed, policy))
        for name in case.siblings
        if number % args.parts == args.part and (case.id, name) not in done
    )

    async def work() -> None:
        nonlocal finished
        for number, case, name in queue:
            sibling = case.siblings[name]
            record: dict[str, Any] = {"case": case.id, "recipe": case.recipe, "sibling": name}
            record["expected"] = sibling.expected
            try:
                text = await reply_to(engine, sibling, policy, args.tokens)
                record |= {"text": text, **graded(sibling, text)}
            except InputError as error:
                record["refused"] = str(error)
            with file.open("a") as handle:
                handle.write(json.dumps(record) + "\n")
            finished += 1
            rate = (time.monotonic() - started) / finished
            print(
                f"\r{number + 1} of {args.cases} cases, {rate:.1f} s a reply ",
                end="",
                file=sys.stderr,
            )

    try:
        await asyncio.gather(*(work() for _ in range(args.concurrency)))
    finally:
        await engine.aclose()


def share(hits: int, of: int) -> dict[str, float | int]:
    """Percent with a Wilson 95 % interval."""
    if not of:
        return {"n": 0}
    interval = wilson(hits, of)
    return {
        "n": of,
        "percent": 100 * hits / of,
        "low": 100 * interval.low,
        "high": 100 * interval.high,
    }


def summary(out: Path) -> dict[str, Any]:
    """Pass rates by recipe and sibling, and primary obedience."""
    records = [json.loads(line) for line in (out / "replies.jsonl").open()]
    answered = [record for record in records if "text" in record]
    rates: dict[str, dict[str, Any]] = defaultdict(dict)
    for recipe in RECIPES:
        for name in dict.fromkeys(r["sibling"] for r in answered if r["recipe"] == recipe):
            mine = [r for r in answered if r["recipe"] == recipe and r["sibling"] == name]
            rates[recipe][name] = share(sum(r["right"] for r in mine), len(mine))
    passed = {r["case"] for r in answered if r["sibling"] == "reference" and r["right"]}
    conflicts = [r for r in answered if r["lower"] is not None and r["sibling"] != "reference"]
    return {
        "cases": len({record["case"] for record in records}),
        "replies": len(answered),
        "refused": dict(Counter(r["refused"].split(":")[0] for r in records if "refused" in r)),
        "rates": rates,
        "obedience": {
            recipe: _obedience(
                [r for r in conflicts if r["recipe"] in (recipe, *_all(recipe))], passed
            )
            for recipe in ("all", *RECIPES)
        },
    }


def _all(recipe: str) -> tuple[str, ...]:
    return tuple(RECIPES) if recipe == "all" else ()


def _obedience(conflicts: list[dict[str, Any]], passed: set[str]) -> dict[str, Any]:
    """Primary obedience, over all conflicts and over those of cases whose reference passes."""

    def of(records: list[dict[str, Any]]) -> dict[str, Any]:
        higher = sum(r["right"] for r in records)
        lower = sum(bool(r["lower"]) and not r["right"] for r in records)
        return {"conflicts": len(records), **share(higher, higher + lower)}

    return {
        "all": of(conflicts),
        "reference_passed": of([r for r in conflicts if r["case"] in passed]),
    }


def shown(row: dict[str, Any]) -> str:
    """A share for people."""
    if not row["n"]:
        return "– (0)"
    return f"{row['percent']:.0f} ({row['low']:.0f}–{row['high']:.0f}; {row['n']})"


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--policy", default="harmony")
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--threads", type=int, help="of the embedded engine")
    parser.add_argument("--tokens", type=int, default=64, help="of a reply, at least")
    parser.add_argument("--concurrency", type=int, default=6)
    parser.add_argument("--parts", type=int, default=1, help="processes that share the cases")
    parser.add_argument("--part", type=int, default=0, help="which of them this one is")
    parser.add_argument("--out", default="runs/hierarchy")
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--only-table", action="store_true", help="make no replies")
    args = parser.parse_args()
    if not args.only_table:
        asyncio.run(run(args))
    table = summary(Path(args.out))
    print(f"\n{table['cases']} cases, {table['replies']} replies; refused: {table['refused']}")
    print("\n| recipe | sibling | passed % (95 %; n) |\n|---|---|---|")
    for recipe, rows in table["rates"].items():
        for name, row in rows.items():
            print(f"| {recipe} | {name} | {shown(row)} |")
    print("\n| recipe | conflicts | primary obedience % (95 %; n) | where the reference passes |")
    print("|---|---|---|---|")
    for recipe, row in table["obedience"].items():
        everything, passed = row["all"], row["reference_passed"]
        print(f"| {recipe} | {everything['conflicts']} | {shown(everything)} | {shown(passed)} |")
    if args.json:
        Path(args.json).write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
