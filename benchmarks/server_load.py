"""The server under load: real clients that stream, a third of them hanging up midway.

The server runs in a process of its own, over the embedded engine in another. Counted are errors,
slots still taken once every client is gone, the memory of both processes over time, and the time to
the first committed token and to the end of the reply, plain and guarded by the principle
`positive`. Clients and server share the machine, so the times are those of both.

    python benchmarks/server_load.py --json docs/measurements/server_load.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai

TOPICS = (
    "a morning at the sea",
    "a garden after rain",
    "a friend who came to visit",
    "the best meal of the year",
    "a walk in the mountains",
    "a concert in the park",
    "a child who learns to swim",
)
# Any single reply is given up after so long, and so is the wait for slots to become free.
REPLY_SECONDS = 180
DRAIN_SECONDS = 15


@dataclass
class Found:
    """What the clients of one arm saw."""

    firsts: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    ends: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    rewinds: int = 0


async def serve(principles: Sequence[str], concurrency: int) -> None:
    """The server process: as `ringfence serve`, on a free port."""
    from ringfence.engines import open_engine
    from ringfence.judges import Judge, SelfJudge
    from ringfence.principle import Principle
    from ringfence.server import ServerSettings, create_app
    from ringfence.server import serve as listen

    engine = await open_engine("embedded")
    try:
        judges: dict[str, Judge] = {
            name: await SelfJudge.open(engine, Principle.load(name)) for name in principles
        }
        settings = ServerSettings(model="local", port=0, concurrency=concurrency)
        app = create_app(engine, judges=judges, settings=settings)
        await listen(app, started=lambda line: print(line, flush=True))
    finally:
        await engine.aclose()


@contextlib.contextmanager
def server(concurrency: int) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server as a child process, and its address."""
    command = [sys.executable, __file__, "--serve", "--concurrency", str(concurrency)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            if " on http" not in line:
                raise SystemExit(f"the server did not start: {line!r}")
            yield process, line.split(" on ")[1].split("/v1")[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def resident(pid: int) -> dict[str, int]:
    """Resident memory of the gateway and of its children (the engine), in MiB."""
    family = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return {"gateway": _rss(pid), "engine": sum(_rss(int(child)) for child in family)}


def _rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) // 1024
    return 0


async def watch(pid: int, samples: list[dict[str, float]]) -> None:
    """Sample memory until cancelled."""
    started = time.monotonic()
    while True:
        samples.append({"seconds": round(time.monotonic() - started, 2), **resident(pid)})
        await asyncio.sleep(0.5)


async def one_request(
    client: openai.AsyncOpenAI, number: int, decoder: str, length: int, found: Found
) -> None:
    """Stream one reply; every third is left after its first words."""
    started = time.monotonic()
    end = "hung up"
    stream = await client.chat.completions.create(
        model="local",
        messages=[{"role": "user", "content": f"Write a happy story about {TOPICS[number % 7]}."}],
        max_completion_tokens=length,
        seed=number,
        stream=True,
        stream_options={"include_usage": True},
        extra_body={"ringfence": {"decoder": decoder}},
    )
    async with stream:
        seen = False
        async for chunk in stream:
            for choice in chunk.choices:
                if choice.delta.content and not seen:
                    seen = True
                    found.firsts.append(time.monotonic() - started)
                end = choice.finish_reason or end
            if chunk.usage is not None:
                found.rewinds += chunk.ringfence["rewinds"]  # type: ignore[attr-defined]
            if seen and number % 3 == 2:
                break
    if end != "hung up":
        found.totals.append(time.monotonic() - started)
    found.ends[end] += 1


async def one_client(
    client: openai.AsyncOpenAI, index: int, requests: int, decoder: str, length: int, found: Found
) -> None:
    """Requests of one client, one after the other."""
    for turn in range(requests):
        try:
            async with asyncio.timeout(REPLY_SECONDS):
                await one_request(client, index * requests + turn, decoder, length, found)
        except (openai.OpenAIError, httpx.HTTPError, TimeoutError) as error:
            found.errors[f"{type(error).__name__}: {str(error)[:100]}"] += 1


@contextlib.asynccontextmanager
async def clients(url: str, count: int) -> AsyncIterator[list[openai.AsyncOpenAI]]:
    """Real clients, each with connections of its own, that do not hide errors by retrying."""
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(
                openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)
            )
            for _ in range(count)
        ]


async def left_over(url: str) -> dict[str, float]:
    """Slots still taken; waits a little, as the last hang-up takes a moment to be noticed."""
    deadline = time.monotonic() + DRAIN_SECONDS
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        while True:
            text = (await http.get("/metrics")).text
            taken = {
                name: float(line.rpartition(" ")[2])
                for line in text.splitlines()
                for name in ("running", "waiting")
                if line.startswith(f"ringfence:num_requests_{name} ")
            }
            if not any(taken.values()) or time.monotonic() > deadline:
                return taken
            await asyncio.sleep(0.05)


async def arm(args: argparse.Namespace, pid: int, url: str, decoder: str) -> dict[str, Any]:
    """All clients at once, with one decoder."""
    found = Found()
    samples: list[dict[str, float]] = []
    async with clients(url, args.clients) as everybody:
        watching = asyncio.create_task(watch(pid, samples))
        started = time.monotonic()
        await asyncio.gather(
            *(
                one_client(client, index, args.requests, decoder, args.length, found)
                for index, client in enumerate(everybody)
            )
        )
        seconds = time.monotonic() - started
        leaked = await left_over(url)
        watching.cancel()
    both = [sample["gateway"] + sample["engine"] for sample in samples]
    return {
        "decoder": decoder,
        "requests": args.clients * args.requests,
        "errors": dict(found.errors),
        "ends": dict(found.ends),
        "leaked_slots": leaked,
        "rewinds": found.rewinds,
        "seconds": round(seconds, 1),
        "first_committed_seconds": quantiles(found.firsts),
        "total_seconds": quantiles(found.totals),
        "memory_mib": {
            "start": samples[0],
            "end": samples[-1],
            "most_together": max(both),
            "samples": samples[:: max(1, len(samples) // 20)],
        },
    }


def quantiles(values: Sequence[float]) -> dict[str, float | None]:
    """Median and 95th percentile, the nearest rank."""
    ranked = sorted(values)
    if not ranked:
        return {"p50": None, "p95": None}
    ranks = {"p50": 0.50, "p95": 0.95}
    return {
        name: round(ranked[min(len(ranked) - 1, int(share * len(ranked)))], 3)
        for name, share in ranks.items()
    }


def report(found: dict[str, Any]) -> str:
    """One arm in words."""
    memory, first, total = (
        found[key] for key in ("memory_mib", "first_committed_seconds", "total_seconds")
    )
    return (
        f"{found['decoder']:8} {found['requests']} requests in {found['seconds']} s, "
        f"ends {found['ends']}, errors {found['errors'] or 'none'}, "
        f"leaked slots {found['leaked_slots']}, rewinds {found['rewinds']}\n"
        f"         first committed p50 {first['p50']} s, p95 {first['p95']} s; "
        f"total p50 {total['p50']} s, p95 {total['p95']} s\n"
        f"         memory MiB: gateway {memory['start']['gateway']} to "
        f"{memory['end']['gateway']}, engine {memory['start']['engine']} to "
        f"{memory['end']['engine']}, most together {memory['most_together']}"
    )


async def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All arms over one server, so that memory that grows would show."""
    with server(args.concurrency) as (process, url):
        arms = []
        for decoder in args.decoders:
            arms.append(await arm(args, process.pid, url, decoder))
            print(report(arms[-1]), flush=True)
    return {
        "clients": args.clients,
        "requests_each": args.requests,
        "max_tokens": args.length,
        "concurrency": args.concurrency,
        "cores": len(os.sched_getaffinity(0)),
        "arms": arms,
    }


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--requests", type=int, default=10, help="of each client")
    parser.add_argument("--length", type=int, default=48, help="most tokens of a reply")
    parser.add_argument("--concurrency", type=int, default=16, help="of the server")
    parser.add_argument("--decoders", nargs="+", default=["plain", "guarded"])
    parser.add_argument("--json", help="write the figures here, too")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        asyncio.run(serve(["positive"], args.concurrency))
        return
    found = asyncio.run(measure(args))
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
