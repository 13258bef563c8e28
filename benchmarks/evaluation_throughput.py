"""Replies a second through `ringfence evaluate` beside those of the raw engine, and its memory.

Both ask the same engine for the same prompts of one suite with 16 requests side by side, in one
run; the evaluation is timed over its samples, from the first start to the last end. Peak memory is
that of the evaluating process (the engine's child left out) for N and for 4N items, each in a
process of its own.

    python benchmarks/evaluation_throughput.py --items 64 --out throughput.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

SIDE_BY_SIDE = 16


async def raw(model: str, suite_name: str, items: int, tokens: int) -> dict[str, Any]:
    """The engine alone, under the decoder plain."""
    from ringfence.decoding import complete, decode
    from ringfence.evaluation.engines import ENGINES
    from ringfence.evaluation.names import parse
    from ringfence.rendering import render
    from ringfence.rings import Conversation
    from ringfence.suites import suite

    name = parse(f"{model}?max_tokens={tokens}")
    place = await ENGINES.place(name)
    asked = [
        render(Conversation.of(item.messages, name.policy, item.rings), place.engine.card)
        for item in suite(suite_name).items(None, items, 0)
    ]
    gate = asyncio.Semaphore(SIDE_BY_SIDE)

    async def one(prompt: Any) -> int:
        async with gate:
            reply = await complete(
                decode(place.engine, prompt, decoder="plain", options=name.settings.options)
            )
            return reply.cost.committed

    await one(asked[0])  # loads the model
    began = time.monotonic()
    made = sum(await asyncio.gather(*map(one, asked)))
    seconds = time.monotonic() - began
    await ENGINES.aclose()
    return {"replies": len(asked), "tokens": made, "seconds": seconds}


def evaluated(model: str, suite_name: str, items: int, tokens: int) -> dict[str, Any]:
    """Through `evaluate`, in this process."""
    from datetime import datetime

    from inspect_ai.log import read_eval_log_samples

    from ringfence.evaluation.reading import newest
    from ringfence.evaluation.running import Plan, opened, run

    plan = Plan(
        models=(f"ringfence/{model}?max_tokens={tokens}",),
        suites=(suite_name,),
        limit=items,
        samples=SIDE_BY_SIDE,
    )
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.monotonic()
        with opened(out, plan, resume=False):
            count = run(out, plan, lambda count: None)
        whole = time.monotonic() - began
        [(file, _)] = newest(out)
        samples = list(read_eval_log_samples(str(file), all_samples_required=False))
    starts = [datetime.fromisoformat(str(sample.started_at)) for sample in samples]
    ends = [datetime.fromisoformat(str(sample.completed_at)) for sample in samples]
    made = [(sample.output.metadata or {})["ringfence"]["cost"]["committed"] for sample in samples]
    return {
        "replies": count.now,
        "tokens": sum(made),
        "seconds": (max(ends) - min(starts)).total_seconds(),
        "seconds_with_start": whole,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def apart(arguments: argparse.Namespace, what: str, items: int) -> dict[str, Any]:
    """One measurement in a process of its own."""
    words = ["--suite", arguments.suite, "--tokens", str(arguments.tokens)]
    words += ["--model", arguments.model, "--items", str(items), "--only", what]
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-2000:])
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="embedded")
    parser.add_argument("--suite", default="extraction")
    parser.add_argument("--items", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--only", choices=("raw", "evaluate"))
    arguments = parser.parse_args()
    work = (arguments.model, arguments.suite, arguments.items, arguments.tokens)
    if arguments.only == "raw":
        print(json.dumps(asyncio.run(raw(*work))))
        return
    if arguments.only == "evaluate":
        print(json.dumps(evaluated(*work)))
        return
    alone = apart(arguments, "raw", arguments.items)
    through = apart(arguments, "evaluate", arguments.items)
    larger = apart(arguments, "evaluate", 4 * arguments.items)
    share = (through["tokens"] / through["seconds"]) / (alone["tokens"] / alone["seconds"])
    found = {"raw": alone, "evaluate": through, "evaluate_4n": larger, "share_of_raw": share}
    for name, row in (("raw", alone), ("evaluate", through), ("evaluate, 4N", larger)):
        speed = row["tokens"] / row["seconds"]
        peak = f"{row['peak_mib']:7.0f} MiB" if "peak_mib" in row else ""
        print(f"{name:14} {row['replies']:5} replies {speed:8.1f} tokens/s {peak}")
    print(f"evaluate reaches {100 * share:.0f} % of the raw engine")
    if arguments.out:
        arguments.out.write_text(json.dumps(found, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main()
