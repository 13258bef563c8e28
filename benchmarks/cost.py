"""What search costs: requests and tokens processed a committed token, and time over plain decoding.

The judge does its real work, but its verdict is replaced, so that the cost does not depend on what
the model happens to say: `content` accepts everything, `discontent` nothing. Plain decoding is one
cached request, the fairest baseline there is. All arms alternate within one run; times are medians
and are given as ratios, because machines are shared.

    python benchmarks/cost.py --json docs/measurements/cost.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from ringfence import (
    Conversation,
    Engine,
    Judge,
    Options,
    Principle,
    Rendering,
    Reply,
    Sampling,
    SelfJudge,
    complete,
    decode,
    open_engine,
    render,
    render_text,
)
from ringfence.decoding import DecoderName
from ringfence.engine import Draft
from ringfence.judges import Verdict

# About 300 tokens, so that what is processed again would show.
PROMPT = (
    "The harbour town had been quiet all winter. Boats lay upside down on the shingle, the "
    "ferry came twice a week, and the one bakery opened late because nobody was up early. Then, "
    "in the second week of March, a small theatre company arrived with three vans and asked the "
    "council whether the old fish market was still empty. It was. They swept it, hung lamps "
    "from the iron beams, built a stage from pallets and put up posters in every shop between "
    "the lighthouse and the railway station. The play was about a woman who writes letters to "
    "her brother at sea, and reads his answers aloud to whoever happens to be in the room. "
    "There were eleven scenes and only four actors, so that the grocer of the first act came "
    "back as the doctor, the postman and, in the end, as the brother himself. On the first "
    "evening the wind blew so hard that the doors had to be tied shut. Sixty people came, which "
    "was a third of everybody who lived there, and they brought blankets, thermos flasks and "
    "two dogs. Nobody knew what to expect. The reviewer of the county paper sat in the second "
    "row with a pencil behind her ear and wrote almost nothing during the first half. In the "
    "interval she walked to the end of the pier and back. After the last scene the room was "
    "silent for a moment, and then people stood up. The next morning the reviewer sat down at "
    "the kitchen table of the guest house and began her article. She wrote that the evening in "
    "the fish market was"
)


@dataclass(frozen=True)
class Fixed:
    """A judge that works as another one does and always says the same."""

    judge_behind: Judge
    value: float
    name: str = "fixed"
    threshold: float = 0.0

    async def judge(self, prompt: Rendering, replies: Sequence[str]) -> list[Verdict]:
        """See `Judge.judge`."""
        verdicts = await self.judge_behind.judge(prompt, replies)
        return [replace(verdict, value=self.value) for verdict in verdicts]


def arms(tokens: int) -> dict[str, tuple[DecoderName, Options]]:
    """Name → decoder and options."""
    base = Options(max_tokens=tokens, temperature=1.0, top_k=15, exhausted="best")
    found: dict[str, tuple[DecoderName, Options]] = {"guarded": ("guarded", base)}
    for preset in ("fast", "paper", "code"):
        found[f"rain-{preset}"] = ("rain", base.model_copy(update={"preset": preset}))
    return found


async def plain(engine: Engine, prompt: Rendering, tokens: int, seed: int) -> Draft:
    """One request for the whole reply."""
    [draft] = await engine.draft(prompt.tokens, 1, tokens, Sampling(top_k=15, seed=seed))
    return draft


async def one(
    engine: Engine, judge: Judge, prompt: Rendering, arm: tuple[DecoderName, Options], seed: int
) -> Reply:
    decoder, options = arm
    options = options.model_copy(update={"seed": seed})
    return await complete(decode(engine, prompt, decoder=decoder, judge=judge, options=options))


async def alone(args: argparse.Namespace, engine: Engine, judge: Judge) -> dict[str, Any]:
    """One request at a time."""
    prompt = render_text(PROMPT, engine.card.tokenizer)
    found: dict[str, list[Reply]] = {}
    ratios: dict[str, list[float]] = {}
    await plain(engine, prompt, args.tokens, 0)
    for mood, value in (("content", 1.0), ("discontent", -1.0)):
        if mood == "discontent" and args.content_only:
            continue
        fixed = Fixed(judge, value)
        for seed in range(args.repeats if mood == "content" else 1):
            for name, arm in arms(args.tokens).items():
                started = time.monotonic()
                draft = await plain(engine, prompt, args.tokens, seed)
                baseline = (time.monotonic() - started) / len(draft.tokens)
                reply = await one(engine, fixed, prompt, arm, seed)
                found.setdefault(f"{name}, {mood}", []).append(reply)
                spent = reply.cost.seconds / len(reply.tokens)
                ratios.setdefault(f"{name}, {mood}", []).append(spent / baseline)
    return {name: _row(replies, ratios[name]) for name, replies in found.items()}


def _row(replies: list[Reply], ratios: list[float]) -> dict[str, float]:
    tokens = sum(len(reply.tokens) for reply in replies)
    return {
        "rounds_per_token": sum(reply.cost.rounds for reply in replies) / tokens,
        "requests_per_token": sum(reply.cost.requests for reply in replies) / tokens,
        "processed_per_token": sum(reply.cost.fed for reply in replies) / tokens,
        "drafted_per_token": sum(reply.cost.drafted for reply in replies) / tokens,
        "times_plain": median(ratios),
        "times_plain_low": min(ratios),
        "times_plain_high": max(ratios),
        "tokens": tokens / len(replies),
    }


async def guarded(
    args: argparse.Namespace, engine: Engine, judge: Judge, concurrency: int
) -> dict[str, Any]:
    """Whole chat replies of `guarded` against plain ones, every prompt new to both."""
    options = Options(max_tokens=args.reply, temperature=1.0, top_k=15, exhausted="best")
    arm: tuple[DecoderName, Options] = ("guarded", options)
    fixed, rng = Fixed(judge, 1.0), random.Random(0)

    def fresh() -> Rendering:
        words = " ".join(rng.sample(PROMPT.split(), 40))
        asks = f"Write a long letter that uses these words: {words}"
        return render(Conversation.of([{"role": "user", "content": asks}]), engine.card)

    ratios, replies = [], []
    for seed in range(args.repeats):
        prompts = [fresh() for _ in range(concurrency)]
        started = time.monotonic()
        drafts = await asyncio.gather(
            *(plain(engine, prompt, args.reply, seed) for prompt in prompts)
        )
        baseline = (time.monotonic() - started) / sum(len(draft.tokens) for draft in drafts)
        prompts = [fresh() for _ in range(concurrency)]
        started = time.monotonic()
        found = await asyncio.gather(*(one(engine, fixed, prompt, arm, seed) for prompt in prompts))
        spent = (time.monotonic() - started) / sum(len(reply.tokens) for reply in found)
        ratios.append(spent / baseline)
        replies += found
    return {"concurrency": concurrency, **_row(replies, ratios)}


async def run(args: argparse.Namespace) -> dict[str, Any]:
    engine = await open_engine(args.engine)
    try:
        judge = await SelfJudge.open(engine, Principle.load(args.principle))
        return {
            "engine": engine.card.name,
            "principle": args.principle,
            "tokens": args.tokens,
            "prompt_tokens": len(engine.card.tokenizer.encode(PROMPT)),
            "alone": {} if args.guarded_only else await alone(args, engine, judge),
            "guarded": [await guarded(args, engine, judge, n) for n in (1, args.concurrency)],
        }
    finally:
        await engine.aclose()


def main() -> None:
    """Parse, run, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--engine", default="embedded")
    parser.add_argument("--principle", default="positive")
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--reply", type=int, default=128, help="tokens of a reply of guarded")
    parser.add_argument("--guarded-only", action="store_true", help="leave out the tree search")
    parser.add_argument("--content-only", action="store_true", help="leave out the worst case")
    parser.add_argument("--json", help="write the figures here, too")
    args = parser.parse_args()
    found = asyncio.run(run(args))
    print(
        "| decoder, judge | rounds / token | processed / token | drafted / token | time / plain |"
    )
    print("|---|---|---|---|---|")
    for name, row in found["alone"].items():
        print(
            f"| {name} | {row['rounds_per_token']:.2f} | {row['processed_per_token']:.1f} "
            f"| {row['drafted_per_token']:.1f} | {row['times_plain']:.2f} "
            f"({row['times_plain_low']:.2f}–{row['times_plain_high']:.2f}) |"
        )
    for row in found["guarded"]:
        print(
            f"guarded, {row['concurrency']} at once, replies of {row['tokens']:.0f} tokens: "
            f"{row['times_plain']:.2f} ({row['times_plain_low']:.2f}–{row['times_plain_high']:.2f})"
            f" times plain, {row['processed_per_token']:.1f} tokens processed a token"
        )
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
